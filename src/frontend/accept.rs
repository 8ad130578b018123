//! Accepts connections, enforces their limits, and backs off when the system runs out of
//! descriptors.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

use super::accepted::{Accepted, AdmittedConnection};
use super::connection::{PeerInfo, serve_plain, serve_tls};
use super::connection_table::{ConnectionGuard, ConnectionTable};
use super::listen::{ListeningSocket, WorkerListener};
use super::proxy_header::accept_header;
use super::server_context::ServerContext;
use super::sniffing_stream::Transport;
use super::stats::{ConnectionEvent, Stats};
use super::unix::UnixTransport;
use super::worker_share::{STALLED_AFTER, WorkerPlace, WorkerShare};
use super::{CertificateError, Handler, Limits, RequestRecorder, tls};
use seawall_policy::access_rules::AddressList;

/// Delays after `accept` fails for lack of descriptors or memory; doubled each time.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The viewer side of a server, shared by all workers.
pub struct Frontend {
    limits: Arc<Limits>,
    connections: Arc<ConnectionTable>,
    tickets: Arc<dyn rustls::server::ProducesTickets>,
    /// The listeners of workers that are served.
    serving: watch::Sender<usize>,
}

impl Frontend {
    /// Creates a frontend without connections.
    pub fn new(limits: Limits) -> Result<Frontend, CertificateError> {
        let connections = ConnectionTable::new(&limits);
        Ok(Frontend {
            limits: Arc::new(limits),
            connections,
            tickets: tls::tickets()?,
            serving: watch::Sender::new(0),
        })
    }

    /// The counters since the start.
    pub fn stats(&self) -> Stats {
        self.connections.stats()
    }

    /// Whether the frontend is draining.
    pub fn is_draining(&self) -> bool {
        self.connections.is_closing()
    }

    /// Stops accepting, and returns when each worker has closed its listeners.
    pub async fn stop_accepting(&self) {
        self.connections.close();
        let mut serving = self.serving.subscribe();
        // The sender is in this frontend.
        let _ = serving.wait_for(|listeners| *listeners == 0).await;
    }

    /// Stops accepting, lets all connections finish, and returns when all are closed.
    pub async fn drain(&self) {
        self.connections.close();
        self.connections.wait_until_empty().await;
    }

    /// Stops accepting and aborts all connections.
    pub fn abort(&self) {
        self.connections.close();
        self.connections.abort();
    }

    /// Cuts the connections that have not finished in the time of a drain; returns how many.
    pub fn cut_at_drain(&self) -> usize {
        let cut = self.connections.abort();
        for _ in 0..cut {
            self.connections.counters.count(ConnectionEvent::CutAtDrain);
        }
        cut
    }

    /// What the connections of one worker and listener share.
    pub(super) fn context<A: Handler>(
        &self,
        handler: A,
        recorder: RequestRecorder,
    ) -> Arc<ServerContext<A>> {
        ServerContext::new(
            handler,
            recorder,
            self.limits.clone(),
            self.connections.clone(),
        )
    }

    /// Serves one worker's listener on the runtime of the current thread until the frontend is
    /// drained. `recorder` receives the record of each finished request.
    pub async fn serve<A: Handler>(
        &self,
        WorkerListener { listener, share }: WorkerListener,
        handler: A,
        recorder: RequestRecorder,
    ) -> io::Result<()> {
        let acceptor = match &listener.certificates {
            None => None,
            Some(certificates) => {
                let acceptor = tls::acceptor(certificates, &self.tickets);
                Some(acceptor.map_err(io::Error::other)?)
            }
        };
        let registered = RegisteredListener {
            socket: RegisteredSocket::new(listener.socket)?,
            share,
            acceptor,
            proxy_protocol: listener.proxy_protocol,
            context: self.context(handler, recorder),
        };
        let _until_closed = ServedListener::of(&self.serving);
        registered.run().await;
        Ok(())
    }
}

/// Counts a listener of a worker as served, until it is dropped.
struct ServedListener<'a>(&'a watch::Sender<usize>);

impl ServedListener<'_> {
    fn of(serving: &watch::Sender<usize>) -> ServedListener<'_> {
        serving.send_modify(|listeners| *listeners += 1);
        ServedListener(serving)
    }
}

impl Drop for ServedListener<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|listeners| *listeners -= 1);
    }
}

/// A listener registered with the current runtime.
struct RegisteredListener<A> {
    socket: RegisteredSocket,
    share: WorkerShare<AdmittedConnection>,
    acceptor: Option<TlsAcceptor>,
    proxy_protocol: Option<Arc<AddressList>>,
    context: Arc<ServerContext<A>>,
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

impl<A: Handler> RegisteredListener<A> {
    /// Serves connections until the graceful shutdown begins.
    async fn run(self) {
        let mut closing = self.context.connections.watch_closing();
        tokio::select! {
            () = self.accept_all() => {}
            _ = closing.wait_for(Option::is_some) => {}
        }
        self.accept_queued().await;
        for (admitted, place) in self.share.close() {
            self.serve_handed_over(admitted, place);
        }
    }

    /// Accepts connections, and takes those that other workers hand over, without end.
    async fn accept_all(&self) {
        let mut backoff = BACKOFF_MIN;
        let mut accept_at = None;
        // When to look whether the other workers have taken their connections.
        let mut check_at = None;
        loop {
            tokio::select! {
                accepted = accept_after(accept_at, &self.socket) => {
                    accept_at = None;
                    match accepted {
                        Ok(accepted) => {
                            if self.distribute(accepted) {
                                check_at.get_or_insert(Instant::now() + STALLED_AFTER);
                            }
                            backoff = BACKOFF_MIN;
                        }
                        Err(error) if is_out_of_resources(&error) => {
                            self.context.count(ConnectionEvent::AcceptFailed);
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
    async fn accept_queued(&self) {
        loop {
            tokio::select! {
                biased;
                accepted = self.socket.accept() => match accepted {
                    Ok(accepted) => {
                        if let Some((accepted, guard)) = self.admit(accepted) {
                            self.serve(accepted, guard, self.share.own_place());
                        }
                    }
                    Err(_) => return,
                },
                () = std::future::ready(()) => return,
            }
        }
    }

    /// Registers a connection, or rejects it if a limit is reached.
    fn admit(&self, accepted: Accepted) -> Option<(Accepted, ConnectionGuard)> {
        let connections = &self.context.connections;
        let peer = accepted.peer();
        if let Some(proxies) = &self.proxy_protocol
            && !proxies.has(peer)
        {
            self.context.count(ConnectionEvent::RefusedProxy);
            return None;
        }
        // A proxy is no client: it has the connections of many.
        let is_proxy = self.proxy_protocol.is_some() || self.context.trusted_proxies.has(peer);
        let client = peer.filter(|_| !is_proxy);
        match connections.admit(client, Instant::now()) {
            Ok(guard) => Some((accepted, guard)),
            Err(rejected) => {
                self.context.count(rejected);
                if rejected == ConnectionEvent::RefusedFull && self.acceptor.is_none() {
                    accepted.reject();
                }
                None
            }
        }
    }

    /// Has a connection served by the worker with the fewest. `true`: by another one than this.
    fn distribute(&self, accepted: Accepted) -> bool {
        let Some((accepted, guard)) = self.admit(accepted) else {
            return false;
        };
        let now = Instant::now();
        let Some(worker) = self.share.less_loaded_worker(now) else {
            self.serve(accepted, guard, self.share.own_place());
            return false;
        };
        let connection = match accepted.unregister() {
            Ok(connection) => connection,
            Err(error) => {
                self.report_lost(&error);
                return false;
            }
        };
        let admitted = AdmittedConnection { connection, guard };
        match self.share.hand_over(worker, admitted, now) {
            Ok(()) => {
                self.context.count(ConnectionEvent::HandedOver);
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
            Ok(accepted) => self.serve(accepted, admitted.guard, place),
            Err(error) => self.report_lost(&error),
        }
    }

    /// The system has no memory for a connection that was accepted.
    fn report_lost(&self, error: &io::Error) {
        self.context.count(ConnectionEvent::AcceptFailed);
        tracing::warn!(%error, "cannot serve an accepted connection");
    }

    fn serve(&self, accepted: Accepted, guard: ConnectionGuard, place: WorkerPlace) {
        match accepted {
            Accepted::Tcp(transport, peer) => {
                let peer = PeerInfo {
                    peer: Some(peer),
                    socket: Some(transport.as_raw_fd()),
                };
                self.spawn_connection(transport, |transport| transport, peer, guard, place);
            }
            Accepted::Unix(transport) => {
                let peer = PeerInfo {
                    peer: None,
                    socket: None,
                };
                let wrap = match self.acceptor {
                    Some(_) => UnixTransport::for_tls,
                    None => UnixTransport::plain,
                };
                self.spawn_connection(transport, wrap, peer, guard, place);
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
        mut guard: ConnectionGuard,
        place: WorkerPlace,
    ) where
        S: AsyncRead + Unpin + Send + 'static,
    {
        let connection = peer.new_state(&self.context.recorder, self.acceptor.is_some());
        guard.register(&connection);
        let (context, state) = (self.context.clone(), connection.clone());
        let acceptor = self.acceptor.clone();
        let task = if self.proxy_protocol.is_some() {
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
