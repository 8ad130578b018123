//! Accepts the connections of one listener on one worker, enforces their limits, and backs off when
//! the system runs out of descriptors.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Duration, Instant, sleep_until};

use super::Handler;
use super::accepted::{Accepted, AdmittedConnection, UnregisteredConnection};
use super::connection::{PeerInfo, serve_plain, serve_tls};
use super::connection_table::{ConnectionGuard, ConnectionTable};
use super::listen::ListeningSocket;
use super::listener_settings::ListenerSettings;
use super::open_listener::{ServingPlace, WorkerSocket};
use super::proxy_header::accept_header;
use super::server_context::CurrentContext;
use super::sniffing_stream::Transport;
use super::stats::ConnectionEvent;
use super::unix::UnixTransport;
use super::worker_share::{STALLED_AFTER, WorkerPlace, WorkerShare};

/// Delays after `accept` fails for lack of descriptors or memory; doubled each time.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The part of one worker in a listener.
struct WorkerListener<A> {
    share: WorkerShare<AdmittedConnection>,
    place: ServingPlace,
    connections: Arc<ConnectionTable>,
    context: CurrentContext<A>,
}

/// Accepts the connections of a listener on the current runtime, until it is closed.
pub(super) fn accept_connections<A: Handler + Clone>(
    WorkerSocket { socket, share }: WorkerSocket,
    place: ServingPlace,
    connections: Arc<ConnectionTable>,
    context: CurrentContext<A>,
) -> io::Result<impl Future<Output = ()> + Send> {
    let socket = RegisteredSocket::new(socket)?;
    let listener = WorkerListener {
        share,
        place,
        connections,
        context,
    };
    Ok(listener.run(socket))
}

enum RegisteredSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl RegisteredSocket {
    fn new(socket: ListeningSocket) -> io::Result<RegisteredSocket> {
        match socket {
            ListeningSocket::Tcp(socket) => {
                TcpListener::from_std(socket).map(RegisteredSocket::Tcp)
            }
            ListeningSocket::Unix(socket) => {
                UnixListener::from_std(socket).map(RegisteredSocket::Unix)
            }
        }
    }

    fn unregister(self) -> io::Result<ListeningSocket> {
        match self {
            RegisteredSocket::Tcp(socket) => socket.into_std().map(ListeningSocket::Tcp),
            RegisteredSocket::Unix(socket) => socket.into_std().map(ListeningSocket::Unix),
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            RegisteredSocket::Tcp(socket) => {
                let (transport, peer) = socket.accept().await?;
                Ok(Accepted::Tcp(transport, peer.ip().to_canonical()))
            }
            RegisteredSocket::Unix(socket) => Ok(Accepted::Unix(socket.accept().await?.0)),
        }
    }
}

impl<A: Handler + Clone> WorkerListener<A> {
    fn count(&self, event: ConnectionEvent) {
        self.connections.counters.count(event);
    }

    /// Serves connections until the listener is closed.
    async fn run(mut self, socket: RegisteredSocket) {
        let mut closing = self.place.listener().watch_closing();
        tokio::select! {
            () = self.accept_all(&socket) => {}
            _ = closing.wait_for(|is_closing| *is_closing) => {}
        }
        match socket.unregister() {
            Ok(socket) => {
                self.accept_queued(&socket);
                self.place.stop_accepting();
                self.accept_queued(&socket);
            }
            Err(error) => self.report_lost(&error),
        }
        for (admitted, place) in self.share.close() {
            self.serve_handed_over(admitted, place);
        }
    }

    fn settings(&self) -> Arc<ListenerSettings> {
        self.place.listener().settings()
    }

    /// Accepts connections, and takes those that other workers hand over, without end.
    async fn accept_all(&self, socket: &RegisteredSocket) {
        let mut backoff = BACKOFF_MIN;
        let mut accept_at = None;
        // When to look whether the other workers have taken their connections.
        let mut check_at = None;
        loop {
            tokio::select! {
                accepted = accept_after(accept_at, socket) => {
                    accept_at = None;
                    match accepted {
                        Ok(accepted) => {
                            if self.distribute(accepted) {
                                check_at.get_or_insert(Instant::now() + STALLED_AFTER);
                            }
                            backoff = BACKOFF_MIN;
                        }
                        Err(error) if is_out_of_resources(&error) => {
                            self.count(ConnectionEvent::AcceptFailed);
                            tracing::warn!(%error, "cannot accept connections for now");
                            accept_at = Some(Instant::now() + backoff);
                            backoff = (backoff * 2).min(BACKOFF_MAX);
                        }
                        // The connection was closed before it was accepted.
                        Err(_) => {}
                    }
                }
                (admitted, place) = self.share.next() => self.serve_handed_over(admitted, place),
                Some(now) = until(check_at) => {
                    self.take_back(now);
                    check_at = self.share.has_waiting().then(|| now + STALLED_AFTER);
                }
            }
        }
    }

    /// Accepts the connections in the queue: closing the socket would reset them.
    fn accept_queued(&self, socket: &ListeningSocket) {
        // An error: the queue is empty, or there is no descriptor for another connection.
        while let Ok(connection) = UnregisteredConnection::accept(socket) {
            let accepted = match connection.register() {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.report_lost(&error);
                    continue;
                }
            };
            let settings = self.settings();
            if let Some((accepted, guard)) = self.admit(accepted, &settings) {
                self.serve(accepted, (guard, settings), self.share.own_place());
            }
        }
    }

    /// Registers a connection, or rejects it if a limit is reached.
    fn admit(
        &self,
        accepted: Accepted,
        settings: &ListenerSettings,
    ) -> Option<(Accepted, ConnectionGuard)> {
        let peer = accepted.peer();
        if let Some(proxies) = settings.proxies()
            && !proxies.has(peer)
        {
            self.count(ConnectionEvent::RefusedProxy);
            return None;
        }
        // A proxy is no client: it has the connections of many.
        let is_proxy = settings.proxies().is_some() || self.is_trusted(peer);
        let client = peer.filter(|_| !is_proxy);
        match self.connections.admit(client, Instant::now()) {
            Ok(mut guard) => {
                guard.join(&self.place.listener().connections);
                Some((accepted, guard))
            }
            Err(rejected) => {
                self.count(rejected);
                if rejected == ConnectionEvent::RefusedFull && settings.acceptor().is_none() {
                    accepted.reject();
                }
                None
            }
        }
    }

    fn is_trusted(&self, peer: Option<IpAddr>) -> bool {
        self.context.get().trusted_proxies.has(peer)
    }

    /// Has a connection served by the worker with the fewest. `true`: by another one than this.
    fn distribute(&self, accepted: Accepted) -> bool {
        let settings = self.settings();
        let Some((accepted, guard)) = self.admit(accepted, &settings) else {
            return false;
        };
        let now = Instant::now();
        let Some(worker) = self.share.less_loaded_worker(now) else {
            self.serve(accepted, (guard, settings), self.share.own_place());
            return false;
        };
        let connection = match accepted.unregister() {
            Ok(connection) => connection,
            Err(error) => {
                self.report_lost(&error);
                return false;
            }
        };
        let admitted = AdmittedConnection {
            connection,
            guard,
            settings,
        };
        match self.share.hand_over(worker, admitted, now) {
            Ok(()) => {
                self.count(ConnectionEvent::HandedOver);
                true
            }
            Err(admitted) => {
                self.serve_handed_over(admitted, self.share.own_place());
                false
            }
        }
    }

    /// Serves the connections that other workers have not taken.
    fn take_back(&self, now: Instant) {
        let admitted = self.share.take_back(now);
        if !admitted.is_empty() {
            let connections = admitted.len();
            tracing::warn!(
                connections,
                "took back connections from a worker that is stalled"
            );
        }
        for admitted in admitted {
            self.serve_handed_over(admitted, self.share.own_place());
        }
    }

    fn serve_handed_over(&self, admitted: AdmittedConnection, place: WorkerPlace) {
        match admitted.connection.register() {
            Ok(accepted) => self.serve(accepted, (admitted.guard, admitted.settings), place),
            Err(error) => self.report_lost(&error),
        }
    }

    /// The system has no memory for a connection that was accepted.
    fn report_lost(&self, error: &io::Error) {
        self.count(ConnectionEvent::AcceptFailed);
        tracing::warn!(%error, "cannot serve an accepted connection");
    }

    fn serve(
        &self,
        accepted: Accepted,
        admitted: (ConnectionGuard, Arc<ListenerSettings>),
        place: WorkerPlace,
    ) {
        match accepted {
            Accepted::Tcp(transport, peer) => {
                let peer = PeerInfo {
                    peer: Some(peer),
                    socket: Some(transport.as_raw_fd()),
                };
                self.spawn_connection(transport, |transport| transport, peer, admitted, place);
            }
            Accepted::Unix(transport) => {
                let peer = PeerInfo {
                    peer: None,
                    socket: None,
                };
                let wrap = match admitted.1.acceptor() {
                    Some(_) => UnixTransport::for_tls,
                    None => UnixTransport::plain,
                };
                self.spawn_connection(transport, wrap, peer, admitted, place);
            }
        }
    }

    /// Serves a connection in a task of its own. What a proxy writes before it is read from the
    /// socket itself, before `wrap`.
    fn spawn_connection<S, W: Transport>(
        &self,
        mut socket: S,
        wrap: fn(S) -> W,
        peer: PeerInfo,
        (mut guard, settings): (ConnectionGuard, Arc<ListenerSettings>),
        place: WorkerPlace,
    ) where
        S: AsyncRead + Unpin + Send + 'static,
    {
        let context = self.context.get();
        let connection = peer.new_state(&context.recorder, settings.acceptor().is_some());
        guard.register(&connection);
        // A reload that came before this has ended the connections of that time without this one.
        if !settings.verifies_viewers_as(&self.settings()) {
            self.connections.withdraw(&connection);
        }
        let state = connection.clone();
        let acceptor = settings.acceptor().cloned();
        let task = if settings.proxies().is_some() {
            tokio::spawn(async move {
                let header = accept_header(&context, &mut socket, &connection, &mut guard);
                if let Err(refused) = Box::pin(header).await {
                    return context.count(refused);
                }
                let _until_closed = (guard, place);
                match acceptor {
                    Some(acceptor) => {
                        Box::pin(serve_tls(context, wrap(socket), connection, acceptor)).await;
                    }
                    None => Box::pin(serve_plain(context, wrap(socket), connection)).await,
                }
            })
        } else if let Some(acceptor) = acceptor {
            let transport = wrap(socket);
            tokio::spawn(async move {
                let _until_closed = (guard, place);
                serve_tls(context, transport, connection, acceptor).await;
            })
        } else {
            let transport = wrap(socket);
            tokio::spawn(async move {
                let _until_closed = (guard, place);
                serve_plain(context, transport, connection).await;
            })
        };
        state.set_task(task.abort_handle());
    }
}

/// Accepts a connection, from this time on.
async fn accept_after(at: Option<Instant>, socket: &RegisteredSocket) -> io::Result<Accepted> {
    if let Some(at) = at {
        sleep_until(at).await;
    }
    socket.accept().await
}

/// Returns this time when it has come. `None`: never.
async fn until(time: Option<Instant>) -> Option<Instant> {
    sleep_until(time?).await;
    time
}

/// The system has no descriptor or memory for the connection: the error recurs at once unless
/// accepting pauses. The numbers are errno values of Linux.
fn is_out_of_resources(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(
        error.raw_os_error(),
        Some(ENOMEM | ENFILE | EMFILE | ENOBUFS)
    )
}
