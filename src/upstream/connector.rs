//! How is an origin reached? By an open connection where there is one, else by a new one to the
//! first address that answers, beginning at another one each time. Knows addresses and TLS; nothing of requests.

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

/// Idle connections kept at most.
const IDLE_MAX: usize = 1024;
/// Streams on one HTTP/2 connection at most (pingora's own default is one).
const STREAMS_MAX: u32 = 64;
/// What one stream may send before it is read. Unread, it lies in memory: as much for each slow viewer.
const STREAM_WINDOW: u32 = 1 << 20;
/// All streams together may leave their windows unread, and no other stream waits for that.
const CONNECTION_WINDOW: u32 = STREAMS_MAX * STREAM_WINDOW;
/// How often a quiet HTTP/2 connection is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Taking a connection out of the pool needs the task that watches it to let go: it runs at once,
/// unless its runtime has stopped turning.
const POOL_PATIENCE: Duration = Duration::from_millis(100);
/// After so long an address that could not be connected to is tried again, behind the requests.
const SHUN: Duration = Duration::from_secs(1);
const SHUNNED_MAX: usize = 64;
/// Trusted by groups that speak no TLS: nobody. Spares them reading the system's certificates.
const NO_AUTHORITIES: &str = "/dev/null";

/// The ways to one group.
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
    /// When an address that could not be connected to was connected to again.
    returned: Mutex<Option<Instant>>,
    /// New connections begun, by endpoint.
    begun: Vec<AtomicUsize>,
    /// Held, by endpoint, while an HTTP/2 connection is made that others will share.
    opening: Vec<tokio::sync::Mutex<()>>,
    /// HTTP/2 was offered and declined: connections are not shared, nobody need wait for another's.
    declined: AtomicBool,
}

/// An address that could not be connected to: tried last, until a connection proves it good.
struct AvoidedAddresses {
    endpoint: usize,
    address: SocketAddr,
    retry_at: Instant,
}

/// Why no connection was made, in a word and in full.
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
        // pingora panics where certificates cannot be loaded.
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

    /// Gets a line to an endpoint: an open one to any of its good addresses, else a new one to the first
    /// that can be reached in time. With `fresh`, its connection is new.
    pub(super) async fn line(
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
            // From anywhere: the connections to all of them are kept warm.
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
            let late = |_| Err((Failure::Connect, "not in time".to_owned()));
            match timeout_at(patience, connecting).await.unwrap_or_else(late) {
                Ok((session, reused)) => {
                    self.unshun(address);
                    return Ok(UpstreamConnection::new(
                        session, peer, endpoint, reused, self,
                    ));
                }
                Err((refusal, reason)) => {
                    // What this host lacks says nothing of the address.
                    if refusal != Failure::Exhausted {
                        self.shun(endpoint, address, &reason);
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

    /// May an endpoint be reached, as far as is known?
    pub(super) fn reachable(&self, endpoint: usize) -> bool {
        let Some(known) = self.names.known(endpoint) else {
            return true;
        };
        let shunned = self.shunned.lock();
        let good = |address: &SocketAddr| shunned.iter().all(|shun| shun.address != *address);
        known.iter().any(good)
    }

    /// Tries those that could not be connected to again, behind the request that asks for it, so that no
    /// viewer waits for one to come back.
    pub(super) fn look_for_lost(self: &Arc<Self>) {
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
                dial.unshun(address);
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

    /// Connects; but where an HTTP/2 connection is being made already, waits for that one, for half
    /// of the time there is: a crowd arriving at once needs one connection, not one each.
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

    /// pingora's description of an address. It is never given a name: it would look it up itself,
    /// wait for that, and panic where it fails.
    fn peer(&self, endpoint: usize, address: SocketAddr) -> HttpPeer {
        let endpoint = &self.endpoints[endpoint];
        // An empty name would switch certificate checks off.
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

    /// Gives how many are not shunned.
    fn put_shunned_last(&self, addresses: &mut [SocketAddr]) -> usize {
        let shunned = self.shunned.lock();
        let is_shunned = |address: &SocketAddr| shunned.iter().any(|shun| shun.address == *address);
        addresses.sort_by_key(is_shunned);
        addresses.partition_point(|address| !is_shunned(address))
    }

    /// Each new connection begins at the next address. Sorted: a resolver that turns its answers round
    /// does not undo it.
    fn take_turns(&self, endpoint: usize, good: &mut [SocketAddr]) {
        if good.len() > 1 {
            good.sort_unstable();
            let turn = self.begun[endpoint].fetch_add(1, Ordering::Relaxed);
            good.rotate_left(turn % good.len());
        }
    }

    /// Tells of an address when it becomes one to shun, not each time it proves it.
    fn shun(&self, endpoint: usize, address: SocketAddr, reason: &str) {
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

    fn unshun(&self, address: SocketAddr) {
        let mut shunned = self.shunned.lock();
        let before = shunned.len();
        shunned.retain(|shun| shun.address != address);
        if shunned.len() < before {
            *self.returned.lock() = Some(Instant::now());
        }
    }

    /// An address could be connected to after this moment that could not be before.
    pub(super) fn has_returned_since(&self, then: Instant) -> bool {
        self.returned.lock().is_some_and(|returned| returned > then)
    }
}

/// Checks that a file holds certificates, and names it as pingora wants it.
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
