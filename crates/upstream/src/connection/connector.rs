//! Provides connections to endpoints: a pooled one if there is one, else a new one to the first
//! address that accepts. New connections start at a different address each time. Handles addresses
//! and TLS, not requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as H1Session;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::time::{Instant, timeout, timeout_at};

use super::pool::ConnectionPool;
use super::resolve::{EndpointNames, attempt_deadline};
use super::session::{UpstreamConnection, UpstreamSession};
use crate::{Endpoint, Failure, Protocol, Resolver, Settings, SetupError};

/// Maximum number of streams per HTTP/2 connection (pingora's default is one).
const STREAMS_MAX: u32 = 64;
/// HTTP/2 stream window in bytes. Unread data stays in memory, up to this much per slow viewer.
const STREAM_WINDOW: u32 = 1 << 20;
/// HTTP/2 connection window: all streams may leave their windows unread without blocking another.
const CONNECTION_WINDOW: u32 = STREAMS_MAX * STREAM_WINDOW;
/// Interval of PING frames on a quiet HTTP/2 connection.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Timeout for taking a connection from the pool: the task that watches it must release it, which
/// fails only if its runtime has stopped.
const POOL_TIMEOUT: Duration = Duration::from_millis(100);
/// An unreachable address is tried again after this time, in the background.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const UNREACHABLE_MAX: usize = 64;

/// Connects to the endpoints of one group.
pub(crate) struct EndpointConnector {
    pool: Arc<ConnectionPool>,
    endpoints: Vec<Endpoint>,
    sni: Option<String>,
    verify: bool,
    protocol: Protocol,
    connect_timeout: Duration,
    names: Arc<EndpointNames>,
    unreachable: Mutex<Vec<UnreachableAddress>>,
    /// When an unreachable address last became reachable again.
    recovered_at: Mutex<Option<Instant>>,
    /// New connections started, by endpoint.
    started: Vec<AtomicUsize>,
    /// Held, by endpoint, while a shareable HTTP/2 connection is being opened.
    opening: Vec<tokio::sync::Mutex<()>>,
    /// HTTP/2 was offered and declined: connections are not shared, so requests do not wait for one
    /// being opened.
    h2_declined: AtomicBool,
}

/// An unreachable address: tried last until a connection succeeds.
struct UnreachableAddress {
    endpoint: usize,
    address: SocketAddr,
    retry_at: Instant,
}

/// Why no connection was made.
struct ConnectRefusal {
    failure: Failure,
    /// For the log.
    reason: String,
}

fn timed_out() -> ConnectRefusal {
    ConnectRefusal {
        failure: Failure::Connect,
        reason: "timed out".to_owned(),
    }
}

impl EndpointConnector {
    pub(crate) fn new(
        settings: &Settings,
        lookup: Resolver,
    ) -> Result<EndpointConnector, SetupError> {
        let names = EndpointNames::new(&settings.endpoints, lookup, settings.resolve_every);
        let pool = ConnectionPool::new(settings, None)?;
        Ok(EndpointConnector::with(settings, names, pool))
    }

    /// The connector of a group that succeeds this one's: it shares connections, addresses and what
    /// is known to be unreachable, as far as they hold for these settings.
    pub(crate) fn succeed(
        &self,
        settings: &Settings,
        lookup: &Resolver,
    ) -> Result<EndpointConnector, SetupError> {
        let every = settings.resolve_every;
        let names = self
            .names
            .succeed(&settings.endpoints, Arc::clone(lookup), every);
        let pool = ConnectionPool::new(settings, Some(&self.pool))?;
        let connects_alike = Arc::ptr_eq(&pool, &self.pool);
        let connector = EndpointConnector::with(settings, names, pool);
        // It may reach what this one did not: failures for that reason do not hold any more.
        *connector.recovered_at.lock() = Some(Instant::now());
        if connects_alike {
            let place = |marked: &UnreachableAddress| {
                let marked_host = &self.endpoints[marked.endpoint];
                let is_same = |host: &Endpoint| {
                    host.host == marked_host.host && host.port == marked_host.port
                };
                let endpoint = settings.endpoints.iter().position(is_same)?;
                Some(UnreachableAddress {
                    endpoint,
                    ..*marked
                })
            };
            let unreachable = self.unreachable.lock();
            *connector.unreachable.lock() = unreachable.iter().filter_map(place).collect();
        }
        Ok(connector)
    }

    /// The pool is the same as that of `former`.
    pub(crate) fn shares_pool(&self, former: &EndpointConnector) -> bool {
        Arc::ptr_eq(&self.pool, &former.pool)
    }

    /// Ends the periodic lookups.
    pub(crate) fn retire(&self) {
        self.names.retire();
    }

    fn with(
        settings: &Settings,
        names: Arc<EndpointNames>,
        pool: Arc<ConnectionPool>,
    ) -> EndpointConnector {
        EndpointConnector {
            pool,
            endpoints: settings.endpoints.clone(),
            sni: settings.sni.clone().filter(|name| !name.is_empty()),
            verify: settings.verify,
            protocol: settings.protocol,
            connect_timeout: settings.deadlines.connect,
            names,
            unreachable: Mutex::default(),
            recovered_at: Mutex::default(),
            started: settings
                .endpoints
                .iter()
                .map(|_| AtomicUsize::default())
                .collect(),
            opening: settings
                .endpoints
                .iter()
                .map(|_| tokio::sync::Mutex::default())
                .collect(),
            h2_declined: AtomicBool::new(false),
        }
    }

    /// Gets a connection to an endpoint: a pooled one to any reachable address, else a new one to
    /// the first address that accepts in time. `is_new_required`: always a new connection.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        endpoint: usize,
        is_new_required: bool,
        until: Instant,
    ) -> Result<UpstreamConnection, Failure> {
        self.names.refresh();
        let mut addresses = self.names.addresses(endpoint, until).await;
        let reachable = self.put_unreachable_last(&mut addresses);
        let reachable = &mut addresses[..reachable];
        if !is_new_required
            && reachable.len() > 1
            && let Some(connection) = self.pooled_to_any(endpoint, reachable).await
        {
            return Ok(connection);
        }
        self.rotate(endpoint, reachable);
        let mut failure = Failure::Resolve;
        let mut remaining = addresses.len();
        for address in addresses {
            let peer = self.peer(endpoint, address);
            if !is_new_required && let Some(session) = self.pooled(&peer).await {
                return Ok(self.connection(session, true, peer, endpoint));
            }
            let deadline = attempt_deadline(until, remaining);
            let connecting = self.connect_or_join(&peer, endpoint, is_new_required, deadline);
            match timeout_at(deadline, connecting)
                .await
                .unwrap_or_else(|_| Err(timed_out()))
            {
                Ok((session, reused)) => {
                    self.mark_reachable(address);
                    return Ok(self.connection(session, reused, peer, endpoint));
                }
                Err(refusal) => {
                    // A lack of sockets on this host says nothing about the address.
                    if refusal.failure != Failure::Exhausted {
                        self.mark_unreachable(endpoint, address, &refusal.reason);
                    }
                    if failure != Failure::Tls {
                        failure = refusal.failure;
                    }
                }
            }
            remaining -= 1;
        }
        Err(failure)
    }

    /// A pooled connection to one of these addresses. Starts at a random one, so that the
    /// connections to all of them stay warm.
    async fn pooled_to_any(
        &self,
        endpoint: usize,
        addresses: &mut [SocketAddr],
    ) -> Option<UpstreamConnection> {
        addresses.rotate_left(fastrand::usize(..addresses.len()));
        for &mut address in addresses {
            let peer = self.peer(endpoint, address);
            if let Some(session) = self.pooled(&peer).await {
                return Some(self.connection(session, true, peer, endpoint));
            }
        }
        None
    }

    fn connection(
        &self,
        session: UpstreamSession,
        reused: bool,
        peer: HttpPeer,
        endpoint: usize,
    ) -> UpstreamConnection {
        UpstreamConnection::new(session, peer, endpoint, reused, &self.pool)
    }

    /// At least one known address is not marked unreachable. True before the first lookup result.
    pub(crate) fn is_reachable(&self, endpoint: usize) -> bool {
        let Some(known) = self.names.known(endpoint) else {
            return true;
        };
        let unreachable = self.unreachable.lock();
        let good =
            |address: &SocketAddr| unreachable.iter().all(|marked| marked.address != *address);
        known.iter().any(good)
    }

    /// Retries unreachable addresses in the background, so that no viewer waits for them.
    pub(crate) fn retry_unreachable(self: &Arc<Self>) {
        let now = Instant::now();
        for marked in self.unreachable.lock().iter_mut() {
            let known = || self.names.known(marked.endpoint);
            if marked.retry_at <= now
                && known().is_some_and(|known| known.contains(&marked.address))
            {
                marked.retry_at = now + RETRY_AFTER;
                self.retry_address(marked.endpoint, marked.address);
            }
        }
    }

    fn retry_address(self: &Arc<Self>, endpoint: usize, address: SocketAddr) {
        let connector = Arc::clone(self);
        tokio::spawn(async move {
            let peer = connector.peer(endpoint, address);
            let connecting = connector.connect(&peer);
            if let Ok(Ok(session)) = timeout(connector.connect_timeout, connecting).await {
                connector.mark_reachable(address);
                drop(connector.connection(session, false, peer, endpoint));
            }
        });
    }

    async fn pooled(&self, peer: &HttpPeer) -> Option<UpstreamSession> {
        let taking = async {
            if self.speaks_h2(peer)
                && let Ok(Some(session)) = self.pool.connector().reused_http_session(peer).await
            {
                return Some(UpstreamSession::H2(Box::new(session)));
            }
            if self.speaks_h1() {
                let stream = self
                    .pool
                    .connector()
                    .transport()
                    .reused_stream(peer)
                    .await?;
                let session = H1Session::new_with_options(stream, peer);
                return Some(UpstreamSession::H1(Box::new(session)));
            }
            None
        };
        timeout(POOL_TIMEOUT, taking).await.ok().flatten()
    }

    /// Connects. If an HTTP/2 connection is already being opened, waits for it for half of the
    /// remaining time: many simultaneous requests need one connection, not one each. The flag says
    /// whether the connection carried other requests before.
    async fn connect_or_join(
        &self,
        peer: &HttpPeer,
        endpoint: usize,
        is_new_required: bool,
        until: Instant,
    ) -> Result<(UpstreamSession, bool), ConnectRefusal> {
        let may_be_shared = || self.speaks_h2(peer) && !self.h2_declined.load(Ordering::Relaxed);
        // Held while the connection is being opened.
        let mut _opening = None;
        if !is_new_required && may_be_shared() {
            let opening =
                timeout_at(attempt_deadline(until, 2), self.opening[endpoint].lock()).await;
            if let Some(session) = self.pooled(peer).await {
                return Ok((session, true));
            }
            _opening = opening.ok().filter(|_| may_be_shared());
        }
        let session = self.connect(peer).await?;
        Ok((session, false))
    }

    async fn connect(&self, peer: &HttpPeer) -> Result<UpstreamSession, ConnectRefusal> {
        let connector = self.pool.connector();
        // Boxed: most requests reuse a connection, and need no room for the making of one (8 KiB).
        let session = if self.speaks_h2(peer) {
            Box::pin(connector.new_http_session::<HttpPeer, ()>(peer)).await
        } else {
            let stream = Box::pin(connector.transport().new_stream(peer)).await;
            stream.map(|stream| HttpSession::H1(H1Session::new_with_options(stream, peer)))
        };
        let session = session.map_err(|error| ConnectRefusal {
            failure: Failure::of_connecting(&error),
            reason: error.to_string(),
        })?;
        let is_h2 = matches!(session, HttpSession::H2(_));
        self.h2_declined.store(!is_h2, Ordering::Relaxed);
        match session {
            HttpSession::H2(session) => Ok(UpstreamSession::H2(Box::new(session))),
            HttpSession::H1(session) if self.speaks_h1() => {
                Ok(UpstreamSession::H1(Box::new(session)))
            }
            HttpSession::H1(_) | HttpSession::Custom(()) => Err(ConnectRefusal {
                failure: Failure::Protocol,
                reason: "HTTP/2 declined".to_owned(),
            }),
        }
    }

    fn speaks_h1(&self) -> bool {
        self.protocol != Protocol::H2
    }

    fn speaks_h2(&self, peer: &HttpPeer) -> bool {
        match self.protocol {
            Protocol::H1 => false,
            Protocol::H2 => true,
            Protocol::Auto => peer.is_tls(),
        }
    }

    /// pingora's description of an address. Never given a host name: pingora would resolve it with
    /// a blocking call and panic on failure.
    fn peer(&self, endpoint: usize, address: SocketAddr) -> HttpPeer {
        let endpoint = &self.endpoints[endpoint];
        // An empty name would disable certificate checks.
        let host = endpoint.host.trim_end_matches('.');
        let sni = self.sni.as_deref().unwrap_or(host).to_owned();
        #[expect(clippy::disallowed_methods, reason = "given an address, never a name")]
        let mut peer = HttpPeer::new(address, endpoint.tls, sni);
        let options = &mut peer.options;
        options.verify_cert = self.verify;
        options.verify_hostname = self.verify;
        options.alpn = match self.protocol {
            Protocol::H1 => ALPN::H1,
            Protocol::H2 => ALPN::H2,
            Protocol::Auto => ALPN::H2H1,
        };
        options.max_h2_streams = STREAMS_MAX as usize;
        options.h2_stream_window_size = Some(STREAM_WINDOW);
        options.h2_connection_window_size = Some(CONNECTION_WINDOW);
        options.h2_ping_interval = Some(PING_EVERY);
        peer
    }

    /// Returns the number of addresses that are not marked unreachable.
    fn put_unreachable_last(&self, addresses: &mut [SocketAddr]) -> usize {
        let unreachable = self.unreachable.lock();
        let is_unreachable =
            |address: &SocketAddr| unreachable.iter().any(|marked| marked.address == *address);
        addresses.sort_by_key(is_unreachable);
        addresses.partition_point(|address| !is_unreachable(address))
    }

    /// Each new connection starts at the next address. Sorting makes this independent of a resolver
    /// that rotates its results.
    fn rotate(&self, endpoint: usize, reachable: &mut [SocketAddr]) {
        if reachable.len() > 1 {
            reachable.sort_unstable();
            let turn = self.started[endpoint].fetch_add(1, Ordering::Relaxed);
            reachable.rotate_left(turn % reachable.len());
        }
    }

    /// Marks an address as unreachable; logs only when it was not marked before.
    fn mark_unreachable(&self, endpoint: usize, address: SocketAddr, reason: &str) {
        let mut unreachable = self.unreachable.lock();
        let was_known = unreachable.iter().any(|marked| marked.address == address);
        unreachable.retain(|marked| marked.address != address);
        if unreachable.len() == UNREACHABLE_MAX {
            unreachable.remove(0);
        }
        unreachable.push(UnreachableAddress {
            endpoint,
            address,
            retry_at: Instant::now() + RETRY_AFTER,
        });
        drop(unreachable);
        if !was_known {
            tracing::warn!(%address, reason, "origin not reached");
        }
    }

    fn mark_reachable(&self, address: SocketAddr) {
        let mut unreachable = self.unreachable.lock();
        let before = unreachable.len();
        unreachable.retain(|marked| marked.address != address);
        if unreachable.len() < before {
            *self.recovered_at.lock() = Some(Instant::now());
        }
    }

    /// An unreachable address became reachable again after this time.
    pub(crate) fn has_recovered_since(&self, then: Instant) -> bool {
        self.recovered_at
            .lock()
            .is_some_and(|recovered_at| recovered_at > then)
    }
}
