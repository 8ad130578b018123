//! A listener that is open: its socket, the share of each worker, and how it is closed.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::server::ProducesTickets;
use tokio::sync::watch;
use tokio::time::timeout;

use super::ListenAddress;
use super::accepted::AdmittedConnection;
use super::client_certificates::Authorities;
use super::inherited_sockets::HandedSocket;
use super::listen::{BindError, BoundListener, ListeningSocket};
use super::listener_connections::ListenerConnections;
use super::listener_settings::ListenerSettings;
use super::worker_share::{OpenByWorker, WorkerShare};

/// A worker that has not closed its socket after this time is stalled.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A listener that is open, for all workers.
pub(super) struct OpenListener {
    address: ListenAddress,
    settings: ArcSwap<ListenerSettings>,
    pub(super) connections: Arc<ListenerConnections>,
    /// Those by whom the viewers of these connections are verified.
    authorities: Mutex<Option<Arc<Authorities>>>,
    sockets: Mutex<ListenerSockets>,
    /// Workers that have the socket.
    serving: watch::Sender<usize>,
    is_closing: watch::Sender<bool>,
    file: Option<SocketFile>,
}

/// The socket of a listener, in duplicates. It listens until the last one is closed.
struct ListenerSockets {
    /// Closed by the last worker, before it looks into the queue for the last time.
    kept: Option<ListeningSocket>,
    /// What each worker has yet to take.
    of_workers: Vec<Option<WorkerSocket>>,
    /// Workers that accept connections.
    accepting: usize,
}

/// The socket of a listener, and the share of its connections, for one worker.
pub(super) struct WorkerSocket {
    pub(super) socket: ListeningSocket,
    pub(super) share: WorkerShare<AdmittedConnection>,
}

/// Counts a worker as one that has the socket, until it is dropped.
pub(super) struct ServingPlace {
    listener: Arc<OpenListener>,
    is_accepting: bool,
}

impl OpenListener {
    /// A listener whose connections the workers will share.
    pub(super) fn new(
        bound: BoundListener,
        open_by_worker: &OpenByWorker,
        tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<Arc<OpenListener>, BindError> {
        let address = bound.address().clone();
        let BoundListener {
            socket,
            certificates,
            listener,
            ..
        } = bound;
        let shares = WorkerShare::of_workers(open_by_worker).into_iter();
        let of_workers = shares.map(|share| {
            let socket = socket.try_clone()?;
            Ok(Some(WorkerSocket { socket, share }))
        });
        let of_workers = of_workers.collect::<io::Result<Vec<_>>>();
        let of_workers = of_workers
            .map_err(|source| BindError::socket(&listener, source.to_string(), source))?;
        let settings = ListenerSettings::new(listener, certificates, tickets)?;
        Ok(Arc::new(OpenListener {
            file: SocketFile::of(&address),
            authorities: Mutex::new(settings.authorities()),
            address,
            settings: ArcSwap::from_pointee(settings),
            connections: Arc::default(),
            sockets: Mutex::new(ListenerSockets {
                kept: Some(socket),
                of_workers,
                accepting: 0,
            }),
            serving: watch::Sender::new(0),
            is_closing: watch::Sender::new(false),
        }))
    }

    /// The address, with the port that the system chose if port 0 was requested.
    pub(super) fn address(&self) -> &ListenAddress {
        &self.address
    }

    pub(super) fn log_open(&self) {
        let (address, tls) = (&self.address, self.settings().acceptor().is_some());
        tracing::info!(%address, tls, "listening on {address}");
    }

    /// Whether this is the listener that a file names by this address.
    pub(super) fn is_at(&self, address: &ListenAddress) -> bool {
        self.settings.load().listener().address == *address || self.address == *address
    }

    /// The settings of new connections.
    pub(super) fn settings(&self) -> Arc<ListenerSettings> {
        self.settings.load_full()
    }

    /// Uses other settings for new connections.
    pub(super) fn set_settings(&self, settings: Arc<ListenerSettings>) {
        self.settings.store(settings);
    }

    /// Whether viewers are verified by other authorities than at the last call.
    pub(super) fn has_other_authorities(&self) -> bool {
        let now = self.settings.load().authorities();
        let mut known = self.authorities.lock();
        let is_same = match (&*known, &now) {
            (Some(known), Some(now)) => Arc::ptr_eq(known, now),
            (known, now) => known.is_none() && now.is_none(),
        };
        *known = now;
        !is_same
    }

    /// What a worker serves: once for each worker.
    pub(super) fn take_socket(
        self: &Arc<Self>,
        worker: usize,
    ) -> Option<(WorkerSocket, ServingPlace)> {
        let mut sockets = self.sockets.lock();
        let socket = sockets.of_workers.get_mut(worker)?.take()?;
        sockets.accepting += 1;
        self.serving.send_modify(|serving| *serving += 1);
        let place = ServingPlace {
            listener: Arc::clone(self),
            is_accepting: true,
        };
        Some((socket, place))
    }

    /// A duplicate of the socket for another process. `None`: the listener is closed.
    pub(super) fn hand_over(&self) -> Option<io::Result<HandedSocket>> {
        let configured = self.settings.load().listener().address.to_string();
        let sockets = self.sockets.lock();
        let kept = sockets.kept.as_ref();
        kept.map(|socket| socket.hand_over(configured))
    }

    /// Returns when this many workers have the socket.
    pub(super) async fn wait_served_by(&self, workers: usize) {
        let mut serving = self.serving.subscribe();
        // The sender is in this listener.
        let _ = serving.wait_for(|serving| *serving >= workers).await;
    }

    /// Watches whether the listener is to be closed.
    pub(super) fn watch_closing(&self) -> watch::Receiver<bool> {
        self.is_closing.subscribe()
    }

    /// Has the workers close the socket. No worker takes it any more.
    pub(super) fn close(&self) {
        let mut sockets = self.sockets.lock();
        sockets.of_workers.clear();
        self.is_closing.send_replace(true);
        if sockets.accepting == 0 {
            sockets.kept = None;
        }
    }

    /// Removes the file of a Unix socket: nobody else can connect.
    pub(super) fn remove_file(&self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }

    /// Returns when no worker has the socket.
    pub(super) async fn wait_closed(&self) {
        let mut serving = self.serving.subscribe();
        // The sender is in this listener.
        let _ = serving.wait_for(|workers| *workers == 0).await;
    }

    /// Returns when the address is free, also if a worker is stalled.
    pub(super) async fn free_address(&self) {
        if timeout(CLOSE_MAX, self.wait_closed()).await.is_ok() {
            return;
        }
        let address = &self.address;
        tracing::warn!(%address, "a worker is stalled and has not closed {address} yet");
        let Some(socket) = self.sockets.lock().kept.take() else {
            return;
        };
        if let Err(error) = socket.shut_down() {
            tracing::warn!(%address, %error, "cannot close {address}");
        }
    }
}

impl ServingPlace {
    pub(super) fn listener(&self) -> &Arc<OpenListener> {
        &self.listener
    }

    /// Says that this worker has emptied the queue to close its socket. The last worker then has
    /// the only one, and looks once more.
    pub(super) fn stop_accepting(&mut self) {
        if !std::mem::take(&mut self.is_accepting) {
            return;
        }
        let mut sockets = self.listener.sockets.lock();
        sockets.accepting -= 1;
        if sockets.accepting == 0 && *self.listener.is_closing.borrow() {
            sockets.kept = None;
        }
    }
}

impl Drop for ServingPlace {
    fn drop(&mut self) {
        self.stop_accepting();
        self.listener.serving.send_modify(|workers| *workers -= 1);
    }
}

/// The file of a Unix socket.
struct SocketFile {
    path: PathBuf,
    /// Device and inode: another server may have replaced it.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(address: &ListenAddress) -> Option<SocketFile> {
        let ListenAddress::Unix(path) = address else {
            return None;
        };
        Some(SocketFile {
            identity: identity(path)?,
            path: path.clone(),
        })
    }

    fn remove(&self) {
        if identity(&self.path) != Some(self.identity) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot remove the socket {path}");
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
