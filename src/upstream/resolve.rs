//! Which addresses does a name have? The last good ones, looked up again behind the requests.
//!
//! Names are looked up on tokio's blocking pool, at most once at a time each, and nobody who asks
//! waits longer than told. Knows nothing of connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::{Endpoint, Resolver};

/// Addresses of one name at most; a name that claims more is not believed.
const ADDRESSES_MAX: usize = 32;

/// The names of a group's endpoints.
pub(super) struct EndpointNames {
    hosts: Vec<ResolvedHost>,
    lookup: Resolver,
    every: Duration,
    tended: AtomicBool,
}

/// One endpoint's name and what is known of it.
struct ResolvedHost {
    name: String,
    port: u16,
    literal: bool,
    known: RwLock<Arc<[SocketAddr]>>,
    /// A look-up is under way.
    looking: AtomicBool,
    /// The last look-up gave nothing, or was not waited for to its end.
    doubted: AtomicBool,
    /// Look-ups ended.
    rounds: watch::Sender<u64>,
}

impl EndpointNames {
    pub(super) fn new(
        endpoints: &[Endpoint],
        lookup: Resolver,
        every: Duration,
    ) -> Arc<EndpointNames> {
        Arc::new(EndpointNames {
            hosts: endpoints.iter().map(ResolvedHost::new).collect(),
            lookup,
            every: every.max(Duration::from_millis(1)),
            tended: AtomicBool::new(false),
        })
    }

    /// Starts looking names up again from time to time, unless that goes on already. Must be
    /// called inside a tokio runtime; when that one ends, the next call starts anew.
    pub(super) fn tend(self: &Arc<Self>) {
        if self.hosts.iter().all(|host| host.literal) || self.tended.swap(true, Ordering::AcqRel) {
            return;
        }
        let tending = ResolveTaskGuard(Arc::downgrade(self));
        let every = self.every;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(names) = tending.0.upgrade() else {
                    return;
                };
                (0..names.hosts.len()).for_each(|at| names.look(at));
            }
        });
    }

    /// The addresses of one endpoint. Waits only where none is known yet.
    pub(super) async fn addresses(self: &Arc<Self>, at: usize, until: Instant) -> Vec<SocketAddr> {
        let host = &self.hosts[at];
        if host.known().is_empty() {
            let mut round = host.rounds.subscribe();
            self.look(at);
            if timeout_at(until, round.changed()).await.is_err() {
                host.doubted.store(true, Ordering::Relaxed);
            }
        }
        host.known().to_vec()
    }

    /// The addresses of one endpoint that are known already; `None` while nothing speaks against it
    /// having some.
    pub(super) fn known(&self, at: usize) -> Option<Arc<[SocketAddr]>> {
        let host = &self.hosts[at];
        let known = host.known();
        (!known.is_empty() || host.doubted()).then_some(known)
    }

    /// Looks a name up, unless it is being looked up already.
    fn look(self: &Arc<Self>, at: usize) {
        let host = &self.hosts[at];
        if host.literal || host.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let round = ResolveRound {
            names: Arc::clone(self),
            at,
        };
        drop(tokio::task::spawn_blocking(move || round.run()));
    }
}

/// The instant up to which the next of `left` tries may go on: half of the time there is, and all
/// of it for the last.
pub(super) fn share(until: Instant, left: usize) -> Instant {
    if left <= 1 {
        return until;
    }
    let now = Instant::now();
    now + until.saturating_duration_since(now) / 2
}

impl ResolvedHost {
    fn new(endpoint: &Endpoint) -> ResolvedHost {
        let literal = endpoint.host.parse::<IpAddr>().ok();
        let known = literal.map(|ip| SocketAddr::new(ip, endpoint.port));
        ResolvedHost {
            name: endpoint.host.clone(),
            port: endpoint.port,
            literal: literal.is_some(),
            known: RwLock::new(known.into_iter().collect()),
            looking: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            rounds: watch::Sender::new(0),
        }
    }

    fn known(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.known.read())
    }

    fn doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    /// Takes an answer in. No answer, or an empty one, changes nothing but trust.
    fn learn(&self, answer: std::io::Result<Vec<SocketAddr>>) {
        let trouble = match answer {
            Ok(addresses) if !addresses.is_empty() => {
                let addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
                *self.known.write() = addresses;
                self.doubted.store(false, Ordering::Relaxed);
                return;
            }
            Ok(_) => "no addresses".to_owned(),
            Err(error) => error.to_string(),
        };
        if !self.doubted.swap(true, Ordering::Relaxed) {
            let kept = self.known().len();
            tracing::warn!(host = self.name, trouble, kept, "origin name not resolved");
        }
    }
}

/// One look-up. However it ends, even unrun in a runtime that stops, the next may begin.
struct ResolveRound {
    names: Arc<EndpointNames>,
    at: usize,
}

impl ResolveRound {
    fn run(self) {
        let host = &self.names.hosts[self.at];
        host.learn((self.names.lookup)(&host.name, host.port));
    }
}

impl Drop for ResolveRound {
    fn drop(&mut self) {
        let host = &self.names.hosts[self.at];
        host.looking.store(false, Ordering::Release);
        host.rounds.send_modify(|round| *round += 1);
    }
}

/// Held by the task that tends the names; gone with it.
struct ResolveTaskGuard(Weak<EndpointNames>);

impl Drop for ResolveTaskGuard {
    fn drop(&mut self) {
        if let Some(names) = self.0.upgrade() {
            names.tended.store(false, Ordering::Release);
        }
    }
}
