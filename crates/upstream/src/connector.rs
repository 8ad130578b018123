//! Provides connections to endpoints: a pooled one if there is one, else a new one to the first
//! address that accepts. New connections start at a different address each time. Handles addresses
//! and TLS, not requests.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::v2::Connector;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as H1Session;
use pingora_core::upstreams::peer::HttpPeer;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::{Instant, timeout, timeout_at};

use super::activity::ActivityTable;
use super::connection::{UpstreamConnection, UpstreamSession};
use super::drain::BodyDrain;
use super::resolve::{EndpointNames, share};
use super::sign::ClientCertificate;
use super::{Endpoint, Failure, Protocol, Settings, SetupError};

/// Maximum number of idle connections.
const IDLE_MAX: usize = 1024;
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
const POOL_PATIENCE: Duration = Duration::from_millis(100);
/// An unreachable address is tried again after this time, in the background.
const SHUN: Duration = Duration::from_secs(1);
const SHUNNED_MAX: usize = 64;
/// CA file for groups without TLS: trusts no CA and avoids reading the system's certificates.
const NO_AUTHORITIES: &str = "/dev/null";

/// Connects to the endpoints of one group.
pub(super) struct EndpointConnector {
    connector: Connector,
    pulses: ActivityTable,
    rests: BodyDrain,
    endpoints: Vec<Endpoint>,
    sni: Option<String>,
    verify: bool,
    protocol: Protocol,
    patience: Duration,
    names: Arc<EndpointNames>,
    shunned: Mutex<Vec<AvoidedAddresses>>,
    /// When an unreachable address last became reachable again.
    returned: Mutex<Option<Instant>>,
    /// New connections started, by endpoint.
    begun: Vec<AtomicUsize>,
    /// Held, by endpoint, while a shareable HTTP/2 connection is being opened.
    opening: Vec<tokio::sync::Mutex<()>>,
    /// HTTP/2 was offered and declined: connections are not shared, so requests do not wait for one
    /// being opened.
    declined: AtomicBool,
}

/// An unreachable address: tried last until a connection succeeds.
struct AvoidedAddresses {
    endpoint: usize,
    address: SocketAddr,
    retry_at: Instant,
}

/// Why no connection was made: the failure and its text.
type ConnectRefusal = (Failure, String);

impl EndpointConnector {
    pub(super) fn new(
        settings: &Settings,
        names: Arc<EndpointNames>,
    ) -> Result<EndpointConnector, SetupError> {
        let mut options = ConnectorOptions::new(settings.concurrency_max.clamp(1, IDLE_MAX));
        options.ca_file = if settings.endpoints.iter().any(|endpoint| endpoint.tls) {
            settings.ca_file.as_deref().map(authorities).transpose()?
        } else {
            Some(NO_AUTHORITIES.to_owned())
        };
        let shown = settings.client_certificate.as_ref();
        options.cert_key_file = shown.map(ClientCertificate::files).transpose()?;
        // pingora panics if certificates cannot be loaded.
        let connector = catch_unwind(AssertUnwindSafe(|| Connector::new(Some(options))))
            .map_err(|_| SetupError::Authorities)?;
        Ok(EndpointConnector {
            connector,
            pulses: ActivityTable::default(),
            rests: BodyDrain::default(),
            endpoints: settings.endpoints.clone(),
            sni: settings.sni.clone().filter(|name| !name.is_empty()),
            verify: settings.verify,
            protocol: settings.protocol,
            patience: settings.deadlines.connect,
            names,
            shunned: Mutex::default(),
            returned: Mutex::default(),
            begun: settings
                .endpoints
                .iter()
                .map(|_| AtomicUsize::default())
                .collect(),
            opening: settings
                .endpoints
                .iter()
                .map(|_| tokio::sync::Mutex::default())
                .collect(),
            declined: AtomicBool::new(false),
        })
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(super) fn pulses(&self) -> &ActivityTable {
        &self.pulses
    }

    pub(super) fn rests(&self) -> &BodyDrain {
        &self.rests
    }

    /// Gets a connection to an endpoint: a pooled one to any reachable address, else a new one to
    /// the first address that accepts in time. `fresh`: always a new connection.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        endpoint: usize,
        fresh: bool,
        until: Instant,
    ) -> Result<UpstreamConnection, Failure> {
        self.names.tend();
        let mut addresses = self.names.addresses(endpoint, until).await;
        let good = self.put_shunned_last(&mut addresses);
        let good = &mut addresses[..good];
        if !fresh && good.len() > 1 {
            // Start at a random address, so that the connections to all of them stay warm.
            good.rotate_left(fastrand::usize(..good.len()));
            for &mut address in &mut *good {
                let peer = self.peer(endpoint, address);
                if let Some(session) = self.pooled(&peer).await {
                    return Ok(UpstreamConnection::new(session, peer, endpoint, true, self));
                }
            }
        }
        self.take_turns(endpoint, good);
        let mut failure = Failure::Resolve;
        let mut left = addresses.len();
        for address in addresses {
            let peer = self.peer(endpoint, address);
            if !fresh && let Some(session) = self.pooled(&peer).await {
                return Ok(UpstreamConnection::new(session, peer, endpoint, true, self));
            }
            let patience = share(until, left);
            let connecting = self.connect_or_join(&peer, endpoint, fresh, patience);
            let late = |_| Err((Failure::Connect, "timed out".to_owned()));
            match timeout_at(patience, connecting).await.unwrap_or_else(late) {
                Ok((session, reused)) => {
                    self.mark_reachable(address);
                    return Ok(UpstreamConnection::new(
                        session, peer, endpoint, reused, self,
                    ));
                }
                Err((refusal, reason)) => {
                    // A lack of sockets on this host says nothing about the address.
                    if refusal != Failure::Exhausted {
                        self.mark_unreachable(endpoint, address, &reason);
                    }
                    if failure != Failure::Tls {
                        failure = refusal;
                    }
                }
            }
            left -= 1;
        }
        Err(failure)
    }

    /// At least one known address is not marked unreachable. True before the first lookup result.
    pub(super) fn reachable(&self, endpoint: usize) -> bool {
        let Some(known) = self.names.known(endpoint) else {
            return true;
        };
        let shunned = self.shunned.lock();
        let good = |address: &SocketAddr| shunned.iter().all(|shun| shun.address != *address);
        known.iter().any(good)
    }

    /// Retries unreachable addresses in the background, so that no viewer waits for them.
    pub(super) fn retry_unreachable(self: &Arc<Self>) {
        let now = Instant::now();
        for shun in self.shunned.lock().iter_mut() {
            let known = || self.names.known(shun.endpoint);
            if shun.retry_at <= now && known().is_some_and(|known| known.contains(&shun.address)) {
                shun.retry_at = now + SHUN;
                self.try_again(shun.endpoint, shun.address);
            }
        }
    }

    fn try_again(self: &Arc<Self>, endpoint: usize, address: SocketAddr) {
        let dial = Arc::clone(self);
        tokio::spawn(async move {
            let peer = dial.peer(endpoint, address);
            let connecting = dial.connect(&peer);
            if let Ok(Ok(session)) = timeout(dial.patience, connecting).await {
                dial.mark_reachable(address);
                drop(UpstreamConnection::new(
                    session, peer, endpoint, false, &dial,
                ));
            }
        });
    }

    async fn pooled(&self, peer: &HttpPeer) -> Option<UpstreamSession> {
        let taking = async {
            if self.speaks_h2(peer)
                && let Ok(Some(session)) = self.connector.reused_http_session(peer).await
            {
                return Some(UpstreamSession::H2(Box::new(session)));
            }
            if self.speaks_h1() {
                let stream = self.connector.transport().reused_stream(peer).await?;
                let session = H1Session::new_with_options(stream, peer);
                return Some(UpstreamSession::H1(Box::new(session)));
            }
            None
        };
        timeout(POOL_PATIENCE, taking).await.ok().flatten()
    }

    /// Connects. If an HTTP/2 connection is already being opened, waits for it for half of the
    /// remaining time: many simultaneous requests need one connection, not one each.
    async fn connect_or_join(
        &self,
        peer: &HttpPeer,
        endpoint: usize,
        fresh: bool,
        until: Instant,
    ) -> Result<(UpstreamSession, bool), ConnectRefusal> {
        let shared = || self.speaks_h2(peer) && !self.declined.load(Ordering::Relaxed);
        let mut _turn = None;
        if !fresh && shared() {
            let turn = self.opening[endpoint].lock();
            _turn = timeout_at(share(until, 2), turn).await.ok();
            if let Some(session) = self.pooled(peer).await {
                return Ok((session, true));
            }
            _turn = _turn.filter(|_| shared());
        }
        self.connect(peer).await.map(|session| (session, false))
    }

    async fn connect(&self, peer: &HttpPeer) -> Result<UpstreamSession, ConnectRefusal> {
        let session = if self.speaks_h2(peer) {
            self.connector.new_http_session::<HttpPeer, ()>(peer).await
        } else {
            let stream = self.connector.transport().new_stream(peer).await;
            stream.map(|stream| HttpSession::H1(H1Session::new_with_options(stream, peer)))
        };
        let session =
            session.map_err(|error| (Failure::of_connecting(&error), error.to_string()))?;
        let h2 = matches!(session, HttpSession::H2(_));
        self.declined.store(!h2, Ordering::Relaxed);
        match session {
            HttpSession::H2(session) => Ok(UpstreamSession::H2(Box::new(session))),
            HttpSession::H1(session) if self.speaks_h1() => {
                Ok(UpstreamSession::H1(Box::new(session)))
            }
            HttpSession::H1(_) | HttpSession::Custom(()) => {
                Err((Failure::Protocol, "HTTP/2 declined".to_owned()))
            }
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
        let own = endpoint.host.trim_end_matches('.');
        let sni = self.sni.as_deref().unwrap_or(own).to_owned();
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
    fn put_shunned_last(&self, addresses: &mut [SocketAddr]) -> usize {
        let shunned = self.shunned.lock();
        let is_shunned = |address: &SocketAddr| shunned.iter().any(|shun| shun.address == *address);
        addresses.sort_by_key(is_shunned);
        addresses.partition_point(|address| !is_shunned(address))
    }

    /// Each new connection starts at the next address. Sorting makes this independent of a resolver
    /// that rotates its results.
    fn take_turns(&self, endpoint: usize, good: &mut [SocketAddr]) {
        if good.len() > 1 {
            good.sort_unstable();
            let turn = self.begun[endpoint].fetch_add(1, Ordering::Relaxed);
            good.rotate_left(turn % good.len());
        }
    }

    /// Marks an address as unreachable; logs only when it was not marked before.
    fn mark_unreachable(&self, endpoint: usize, address: SocketAddr, reason: &str) {
        let mut shunned = self.shunned.lock();
        let known = shunned.iter().any(|shun| shun.address == address);
        shunned.retain(|shun| shun.address != address);
        if shunned.len() == SHUNNED_MAX {
            shunned.remove(0);
        }
        shunned.push(AvoidedAddresses {
            endpoint,
            address,
            retry_at: Instant::now() + SHUN,
        });
        drop(shunned);
        if !known {
            tracing::warn!(%address, reason, "origin not reached");
        }
    }

    fn mark_reachable(&self, address: SocketAddr) {
        let mut shunned = self.shunned.lock();
        let before = shunned.len();
        shunned.retain(|shun| shun.address != address);
        if shunned.len() < before {
            *self.returned.lock() = Some(Instant::now());
        }
    }

    /// An unreachable address became reachable again after this time.
    pub(super) fn has_returned_since(&self, then: Instant) -> bool {
        self.returned.lock().is_some_and(|returned| returned > then)
    }
}

/// Checks that a file contains certificates, and returns its path as pingora expects it.
fn authorities(path: &Path) -> Result<String, SetupError> {
    let check = || {
        let text = std::fs::read(path)?;
        let invalid = |why: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
        let mut certificates = CertificateDer::pem_slice_iter(&text);
        match certificates.next() {
            None => return Err(invalid("no certificate in it")),
            Some(Err(_)) => return Err(invalid("not in PEM form")),
            Some(Ok(_)) => {}
        }
        let path = path.to_str().ok_or_else(|| invalid("not a UTF-8 path"))?;
        Ok(path.to_owned())
    };
    check().map_err(|source| SetupError::CaFile {
        path: path.to_owned(),
        source,
    })
}
