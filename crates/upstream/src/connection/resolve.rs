//! Resolves endpoint names: keeps the last good addresses and refreshes them in the background.
//!
//! Lookups run on tokio's blocking pool, at most one per name at a time. A caller waits no longer
//! than its deadline.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::{Endpoint, Resolver};

/// Maximum addresses per name; more are ignored.
const ADDRESSES_MAX: usize = 32;

/// The names of a group's endpoints.
pub(crate) struct EndpointNames {
    hosts: Vec<Arc<ResolvedHost>>,
    lookup: Resolver,
    every: Duration,
    refreshing: AtomicBool,
    /// Another group refreshes the names now.
    is_retired: AtomicBool,
}

/// One endpoint's name and its known addresses. Groups that succeed each other share it.
struct ResolvedHost {
    name: String,
    port: u16,
    literal: bool,
    known: RwLock<Arc<[SocketAddr]>>,
    /// A lookup is running.
    looking_up: AtomicBool,
    /// The last lookup failed, was empty, or did not finish in time.
    failed: AtomicBool,
    /// Number of finished lookups.
    rounds: watch::Sender<u64>,
}

impl EndpointNames {
    pub(crate) fn new(
        endpoints: &[Endpoint],
        lookup: Resolver,
        every: Duration,
    ) -> Arc<EndpointNames> {
        EndpointNames::of(endpoints, lookup, every, &[])
    }

    /// The names of a group that succeeds this one: those known already need no lookup.
    pub(crate) fn succeed(
        &self,
        endpoints: &[Endpoint],
        lookup: Resolver,
        every: Duration,
    ) -> Arc<EndpointNames> {
        EndpointNames::of(endpoints, lookup, every, &self.hosts)
    }

    fn of(
        endpoints: &[Endpoint],
        lookup: Resolver,
        every: Duration,
        known: &[Arc<ResolvedHost>],
    ) -> Arc<EndpointNames> {
        let host = |endpoint: &Endpoint| {
            let is_same = |host: &&Arc<ResolvedHost>| {
                host.name == endpoint.host && host.port == endpoint.port
            };
            let known = known.iter().find(is_same).cloned();
            known.unwrap_or_else(|| Arc::new(ResolvedHost::new(endpoint)))
        };
        Arc::new(EndpointNames {
            hosts: endpoints.iter().map(host).collect(),
            lookup,
            every: every.max(Duration::from_millis(1)),
            refreshing: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
        })
    }

    /// Ends the periodic lookups, although requests may still hold the group.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Starts the periodic lookups, unless they run already. Must be called inside a tokio runtime;
    /// if that runtime ends, the next call starts them again.
    pub(crate) fn refresh(self: &Arc<Self>) {
        if self.hosts.iter().all(|host| host.literal)
            || self.is_retired()
            || self.refreshing.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let guard = ResolveTaskGuard(Arc::downgrade(self));
        let every = self.every;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(names) = guard.0.upgrade().filter(|names| !names.is_retired()) else {
                    return;
                };
                (0..names.hosts.len()).for_each(|at| names.look_up(at));
            }
        });
    }

    /// The addresses of one endpoint. Waits only if none is known yet.
    pub(crate) async fn addresses(&self, at: usize, until: Instant) -> Vec<SocketAddr> {
        let host = &self.hosts[at];
        if host.known().is_empty() {
            let mut round = host.rounds.subscribe();
            self.look_up(at);
            if timeout_at(until, round.changed()).await.is_err() {
                host.failed.store(true, Ordering::Relaxed);
            }
        }
        host.known().to_vec()
    }

    /// The known addresses of one endpoint; `None` if none is known but no lookup has failed.
    pub(crate) fn known(&self, at: usize) -> Option<Arc<[SocketAddr]>> {
        let host = &self.hosts[at];
        let known = host.known();
        (!known.is_empty() || host.has_failed()).then_some(known)
    }

    /// Starts a lookup, unless one is running.
    fn look_up(&self, at: usize) {
        let host = &self.hosts[at];
        if host.literal || host.looking_up.swap(true, Ordering::AcqRel) {
            return;
        }
        let round = ResolveRound {
            host: Arc::clone(host),
            lookup: Arc::clone(&self.lookup),
        };
        drop(tokio::task::spawn_blocking(move || round.run()));
    }
}

/// Deadline of the next of `remaining` attempts: half of the remaining time, or all of it for the
/// last.
pub(crate) fn attempt_deadline(until: Instant, remaining: usize) -> Instant {
    if remaining <= 1 {
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
            looking_up: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            rounds: watch::Sender::new(0),
        }
    }

    fn known(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.known.read())
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Applies a lookup result. An error or an empty result keeps the addresses and sets `failed`.
    fn apply(&self, result: std::io::Result<Vec<SocketAddr>>) {
        let reason = match result {
            Ok(addresses) if !addresses.is_empty() => {
                let addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
                *self.known.write() = addresses;
                self.failed.store(false, Ordering::Relaxed);
                return;
            }
            Ok(_) => "no addresses".to_owned(),
            Err(error) => error.to_string(),
        };
        if !self.failed.swap(true, Ordering::Relaxed) {
            let kept = self.known().len();
            tracing::warn!(host = self.name, reason, kept, "origin name not resolved");
        }
    }
}

/// One lookup. However it ends, even unrun in a runtime that stops, the next may start.
struct ResolveRound {
    host: Arc<ResolvedHost>,
    lookup: Resolver,
}

impl ResolveRound {
    fn run(self) {
        let host = &self.host;
        host.apply((self.lookup)(&host.name, host.port));
    }
}

impl Drop for ResolveRound {
    fn drop(&mut self) {
        self.host.looking_up.store(false, Ordering::Release);
        self.host.rounds.send_modify(|round| *round += 1);
    }
}

/// Held by the refresh task; its drop allows a new one.
struct ResolveTaskGuard(Weak<EndpointNames>);

impl Drop for ResolveTaskGuard {
    fn drop(&mut self) {
        if let Some(names) = self.0.upgrade() {
            names.refreshing.store(false, Ordering::Release);
        }
    }
}
