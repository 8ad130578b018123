//! The viewer side of a server from its start to its end: opens and closes listeners, has each
//! worker serve them, and drains.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::ProducesTickets;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::accept::accept_connections;
use super::certificate_error::CertificateError;
use super::certificates::Certificates;
use super::connection_table::ConnectionTable;
use super::inherited_sockets::HandedSocket;
use super::listen::{BindError, BoundListener};
use super::listener_table::{ListenerTable, PreparedListeners};
use super::open_listener::OpenListener;
use super::server_context::{CurrentContext, ServerContext};
use super::stats::{ConnectionEvent, Stats};
use super::{Handler, Limits, ListenAddress, Listener, RequestRecorder, tls};
use crate::telemetry::counted;

/// The viewer side of a server, shared by all workers.
pub struct Frontend {
    limits: Arc<ArcSwap<Limits>>,
    connections: Arc<ConnectionTable>,
    listeners: ListenerTable,
}

/// Listeners that a reload has removed.
pub struct RemovedListeners {
    listeners: Vec<Arc<OpenListener>>,
    connections: Arc<ConnectionTable>,
}

impl Frontend {
    /// Creates a frontend without listeners and connections, for this many workers.
    pub fn new(limits: Limits, workers: usize) -> Result<Frontend, CertificateError> {
        let tickets: Arc<dyn ProducesTickets> = tls::tickets()?;
        Ok(Frontend {
            connections: ConnectionTable::new(&limits),
            limits: Arc::new(ArcSwap::from_pointee(limits)),
            listeners: ListenerTable::new(workers, tickets),
        })
    }

    /// Opens listeners that were bound before the frontend existed.
    pub fn open(&self, listeners: Vec<BoundListener>) -> Result<(), BindError> {
        self.listeners.add(listeners)
    }

    /// The addresses of the open listeners, in the order of the file.
    pub fn addresses(&self) -> Vec<ListenAddress> {
        let listeners = self.listeners.open();
        let addresses = listeners.iter().map(|listener| listener.address().clone());
        addresses.collect()
    }

    /// Logs the addresses of the open listeners.
    pub fn log_addresses(&self) {
        for listener in self.listeners.open() {
            listener.log_open();
        }
    }

    /// The certificates of all listeners.
    pub fn certificates(&self) -> Vec<Arc<Certificates>> {
        self.listeners.certificates()
    }

    /// Prepares these listeners instead of those that are open: binds what is new, and loads
    /// certificates. If that fails, nothing has changed.
    pub fn prepare_listeners(&self, wanted: &[Listener]) -> Result<PreparedListeners, BindError> {
        self.listeners.prepare(wanted)
    }

    /// Serves the prepared listeners, and begins to close those that are not among them. Cannot
    /// fail.
    pub fn apply_listeners(&self, prepared: PreparedListeners) -> RemovedListeners {
        let (opened, closed) = self.listeners.apply(prepared);
        self.end_outdated_connections();
        for listener in opened {
            listener.log_open();
        }
        for listener in &closed {
            listener.remove_file();
            listener.close();
            self.connections.close_listener(&listener.connections);
        }
        RemovedListeners {
            listeners: closed,
            connections: self.connections.clone(),
        }
    }

    /// Has the connections of a listener end whose viewers are verified by other authorities than
    /// before: no further request is served, and those who come back are verified by these.
    pub fn end_outdated_connections(&self) {
        for listener in self.listeners.open() {
            if listener.has_other_authorities() {
                self.connections.withdraw_those_of(&listener.connections);
            }
        }
    }

    /// Uses this time for connections that end, from now on, because of other authorities.
    pub fn set_drain_max(&self, drain_max: Duration) {
        self.connections.set_drain_max(drain_max);
    }

    /// Uses these limits for connections that begin from now on, and closes idle ones if more are
    /// open than may be.
    pub fn set_limits(&self, limits: Limits) {
        self.connections.set_limits(&limits);
        self.limits.store(Arc::new(limits));
        tokio::spawn(Arc::clone(&self.connections).shed_beyond_limit());
    }

    /// The counters since the start.
    pub fn stats(&self) -> Stats {
        self.connections.stats()
    }

    /// Whether the frontend is draining.
    pub fn is_draining(&self) -> bool {
        self.connections.is_closing()
    }

    /// Duplicates of the sockets of all listeners, for another process.
    pub fn hand_over(&self) -> io::Result<Vec<HandedSocket>> {
        let listeners = self.listeners.open();
        let sockets = listeners.iter().filter_map(|listener| listener.hand_over());
        sockets.collect()
    }

    /// Returns when this many workers accept the connections of each listener.
    pub async fn wait_served_by(&self, workers: usize) {
        for listener in self.listeners.open() {
            listener.wait_served_by(workers).await;
        }
    }

    /// Stops accepting, and returns when each worker has closed its listeners.
    pub async fn stop_accepting(&self) {
        for listener in self.close() {
            listener.wait_closed().await;
        }
    }

    /// Stops accepting, lets all connections finish, and returns when all are closed.
    pub async fn drain(&self) {
        self.close();
        self.connections.wait_until_empty().await;
    }

    /// Stops accepting and aborts all connections.
    pub fn abort(&self) {
        self.close();
        self.connections.abort();
    }

    fn close(&self) -> Vec<Arc<OpenListener>> {
        // First: the connections in the queue are accepted as the last ones.
        self.connections.close();
        self.listeners.close()
    }

    /// Cuts the connections that have not finished in the time of a drain; returns how many.
    pub fn cut_at_drain(&self) -> usize {
        let cut = self.connections.abort();
        count_cut(&self.connections, cut);
        cut
    }

    /// What streams that are no connections of a listener share.
    pub(super) fn context<A: Handler>(
        &self,
        handler: A,
        recorder: RequestRecorder,
    ) -> Arc<ServerContext<A>> {
        let (limits, connections) = (self.limits.load_full(), self.connections.clone());
        ServerContext::new(handler, recorder, limits, connections)
    }

    /// Serves all listeners, also those to come, as one of the workers: on the runtime of the
    /// current thread, until the frontend is drained. `recorder` receives the record of each
    /// finished request.
    pub async fn serve<A>(&self, worker: usize, handler: A, recorder: RequestRecorder)
    where
        A: Handler + Clone,
    {
        let mut changes = self.listeners.watch();
        let mut accepting = JoinSet::new();
        loop {
            let listeners = changes.borrow_and_update().clone();
            for listener in &listeners.open {
                let Some((socket, place)) = listener.take_socket(worker) else {
                    continue;
                };
                let address = listener.address();
                let (handler, recorder) = (handler.clone(), recorder.clone());
                let (limits, connections) = (self.limits.clone(), self.connections.clone());
                let context = CurrentContext::new(handler, recorder, limits, connections.clone());
                match accept_connections(socket, place, connections, context) {
                    Ok(accept) => drop(accepting.spawn(accept)),
                    // The other workers may serve it.
                    Err(error) => {
                        tracing::error!(%address, %error, "cannot serve {address}: {error}");
                    }
                }
            }
            tokio::select! {
                Ok(()) = changes.changed(), if !listeners.is_closed => {}
                Some(ended) = accepting.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a worker accepts no more: {error}");
                    }
                }
                else => return,
            }
        }
    }
}

fn count_cut(connections: &ConnectionTable, cut: usize) {
    for _ in 0..cut {
        connections.counters.count(ConnectionEvent::CutAtDrain);
    }
}

impl RemovedListeners {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Returns when no connection is accepted any more, and the addresses are free.
    pub async fn free_addresses(&self) {
        for listener in &self.listeners {
            listener.free_address().await;
        }
    }

    /// Lets the connections finish, and cuts those that have not after this time.
    pub async fn drain(self, drain_max: Duration) {
        let all = async {
            for listener in &self.listeners {
                listener.connections.wait_until_empty().await;
            }
        };
        if timeout(drain_max, all).await.is_ok() {
            return;
        }
        for listener in &self.listeners {
            let (address, cut) = (
                listener.address(),
                self.connections.abort_listener(&listener.connections),
            );
            count_cut(&self.connections, cut);
            if cut > 0 {
                let connections = counted(cut as u64, "connection");
                tracing::warn!(
                    %address,
                    cut,
                    "cut {connections} of {address} that did not finish in time"
                );
            }
        }
    }
}
