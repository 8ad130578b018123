//! Holds clients to the rate limits of routes. `policy` says what a limit admits; here are the
//! token buckets, which all workers share, and the counters.
//!
//! Only requests to a route that has limits come here.

mod client_buckets;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::client_buckets::{BucketKey, ClientBuckets};
use super::clients::Client;
use seawall_policy::rate_limit::{LimitExceeded, LimitedQuantity, RateBuckets, RateLimit};
use seawall_policy::{RateLimits, Route, Rules, ViewerAddress};

/// Whom a limit counts together: also a metric label and a configuration word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitScope {
    /// Each client by itself.
    Client,
    /// All clients of a route.
    Route,
}

impl LimitScope {
    /// All, in the order of their numbers.
    pub const ALL: [LimitScope; 2] = [LimitScope::Client, LimitScope::Route];

    fn index(self) -> usize {
        self as usize
    }

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitScope::Client => "client",
            LimitScope::Route => "route",
        }
    }

    fn check(self, buckets: &RateBuckets, limit: &RateLimit, now: u64) -> Result<(), RateRefusal> {
        let refusal = |exceeded| RateRefusal {
            scope: self,
            exceeded,
        };
        buckets.check(limit, now).map_err(refusal)
    }
}

/// A request that a limit refused.
#[derive(Clone, Copy, Debug)]
pub struct RateRefusal {
    scope: LimitScope,
    exceeded: LimitExceeded,
}

impl RateRefusal {
    /// The time until another request may be admitted.
    pub(super) fn wait(&self) -> Duration {
        Duration::from_nanos(self.exceeded.wait_ns)
    }
}

/// Counters of rate limits.
#[derive(Clone, Debug)]
pub struct RateLimitStats {
    /// Refused requests, by whom the limit counts together and by what there was too much of.
    pub refused: Vec<(LimitScope, LimitedQuantity, u64)>,
    /// How often a client got the bucket of another one that was not full.
    pub displaced: u64,
}

type ScopeCounters = [AtomicU64; LimitedQuantity::ALL.len()];

/// The state of all limits. It outlives reloads.
struct RateLimitState {
    /// Times of buckets are counted from here.
    began: Instant,
    /// Made for the first route with a limit for each client.
    clients: OnceLock<ClientBuckets>,
    /// The buckets of routes with a limit for all clients, by the number of the route. A route that
    /// a reload removes and another one brings back goes on with its buckets.
    routes: Mutex<HashMap<usize, Arc<Mutex<RateBuckets>>>>,
    refused: [ScopeCounters; LimitScope::ALL.len()],
}

impl RateLimitState {
    fn nanoseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began).as_nanos();
        // A `u64` holds more than 500 years of nanoseconds.
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn clients(&self) -> &ClientBuckets {
        self.clients.get_or_init(ClientBuckets::default)
    }
}

/// The limits of all routes in one generation of settings.
pub(super) struct RouteRateLimits {
    state: Arc<RateLimitState>,
    /// By the number of the route. Empty: no route has limits.
    by_route: Vec<Option<Arc<RouteLimiter>>>,
}

impl RouteRateLimits {
    /// The limits of the first generation.
    pub(super) fn first(rules: &Rules) -> RouteRateLimits {
        let state = RateLimitState {
            began: Instant::now(),
            clients: OnceLock::new(),
            routes: Mutex::default(),
            refused: Default::default(),
        };
        RouteRateLimits::of(rules, Arc::new(state))
    }

    /// The limits of the next generation. What was used of those that stay is used.
    pub(super) fn succeed(&self, rules: &Rules) -> RouteRateLimits {
        RouteRateLimits::of(rules, Arc::clone(&self.state))
    }

    fn of(rules: &Rules, state: Arc<RateLimitState>) -> RouteRateLimits {
        let mut by_route = Vec::new();
        for route in rules
            .routes
            .iter()
            .filter(|route| !route.rate_limits.is_empty())
        {
            if by_route.len() <= route.index {
                by_route.resize(route.index + 1, None);
            }
            by_route[route.index] = Some(Arc::new(RouteLimiter::of(route, &state)));
        }
        RouteRateLimits { state, by_route }
    }

    /// The limits of a route of this generation, if it has any.
    pub(super) fn of_route(&self, route: &Route) -> Option<&Arc<RouteLimiter>> {
        self.by_route.get(route.index)?.as_ref()
    }

    /// Counts a request that was refused.
    pub(super) fn count(&self, refusal: &RateRefusal) {
        let of_scope = &self.state.refused[refusal.scope.index()];
        of_scope[refusal.exceeded.quantity.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> RateLimitStats {
        let state = &self.state;
        let pairs = LimitScope::ALL.into_iter().flat_map(|scope| {
            let counters = &state.refused[scope.index()];
            let count =
                |quantity: LimitedQuantity| counters[quantity.index()].load(Ordering::Relaxed);
            LimitedQuantity::ALL.map(|quantity| (scope, quantity, count(quantity)))
        });
        RateLimitStats {
            refused: pairs.collect(),
            displaced: state.clients.get().map_or(0, ClientBuckets::displaced),
        }
    }
}

/// Holds the requests to one route to its limits.
pub struct RouteLimiter {
    state: Arc<RateLimitState>,
    route: usize,
    limits: RateLimits,
    /// The buckets of the limit for all clients.
    of_route: Arc<Mutex<RateBuckets>>,
}

impl RouteLimiter {
    fn of(route: &Route, state: &Arc<RateLimitState>) -> RouteLimiter {
        let mut of_routes = state.routes.lock();
        let of_route = if route.rate_limits.per_route.is_some() {
            of_routes.entry(route.index).or_default().clone()
        } else {
            Arc::default()
        };
        if route.rate_limits.per_client.is_some() {
            // Now rather than at a request.
            state.clients();
        }
        RouteLimiter {
            state: Arc::clone(state),
            route: route.index,
            limits: route.rate_limits,
            of_route,
        }
    }

    /// Takes one request of a viewer from its buckets. Refused: nothing was taken. `None` on a Unix
    /// socket: all viewers there are one client.
    pub(super) fn admit(
        self: &Arc<Self>,
        viewer: Option<IpAddr>,
        now: Instant,
    ) -> Result<Option<ByteMeter>, RateRefusal> {
        let now = self.state.nanoseconds(now);
        let client = self.client(viewer);
        match (client, &self.limits.per_client) {
            (Some(key), Some(limit)) => self.state.clients().with(key, now, |own| {
                LimitScope::Client.check(own, limit, now)?;
                // Both admit a request, or none takes one.
                self.take_from_route(now)?;
                own.take_request(limit, now);
                Ok(())
            })?,
            _ => self.take_from_route(now)?,
        }
        Ok(self.meter(client))
    }

    /// What the response to a request counts its bytes with, if a limit counts them. The request
    /// was admitted before.
    pub(super) fn meter_for(self: &Arc<Self>, viewer: Option<IpAddr>) -> Option<ByteMeter> {
        self.meter(self.client(viewer))
    }

    fn meter(self: &Arc<Self>, client: Option<BucketKey>) -> Option<ByteMeter> {
        let counts_bytes =
            |limit: &Option<RateLimit>| limit.is_some_and(|limit| limit.bytes.is_some());
        let RateLimits {
            per_client,
            per_route,
        } = &self.limits;
        (counts_bytes(per_client) || counts_bytes(per_route)).then(|| {
            let limiter = Arc::clone(self);
            ByteMeter(Box::new(MeteredResponse { limiter, client }))
        })
    }

    fn take_from_route(&self, now: u64) -> Result<(), RateRefusal> {
        let Some(limit) = &self.limits.per_route else {
            return Ok(());
        };
        let mut of_route = self.of_route.lock();
        LimitScope::Route.check(&of_route, limit, now)?;
        of_route.take_request(limit, now);
        Ok(())
    }

    fn client(&self, viewer: Option<IpAddr>) -> Option<BucketKey> {
        let key = || {
            self.state
                .clients()
                .key_of((self.route, Client::of(viewer)))
        };
        self.limits.per_client.is_some().then(key)
    }
}

/// Takes a request whose response is there already from its rate limits, if it has any.
pub fn admit_repeat(
    limiter: Option<&Arc<RouteLimiter>>,
    viewer: impl FnOnce() -> ViewerAddress,
    now: Instant,
) -> Result<Option<ByteMeter>, RateRefusal> {
    limiter.map_or(Ok(None), |limiter| limiter.admit(viewer().viewer, now))
}

/// Takes the bytes of a response from the buckets that count them.
pub struct ByteMeter(Box<MeteredResponse>);

struct MeteredResponse {
    limiter: Arc<RouteLimiter>,
    client: Option<BucketKey>,
}

impl ByteMeter {
    /// Takes bytes that are sent now.
    pub fn take(&self, bytes: usize) {
        let MeteredResponse { limiter, client } = &*self.0;
        let (state, bytes) = (&limiter.state, bytes as u64);
        let now = state.nanoseconds(Instant::now());
        if let (Some(key), Some(limit)) = (client, &limiter.limits.per_client) {
            let take = |own: &mut RateBuckets| own.take_bytes(limit, bytes, now);
            state.clients().with(*key, now, take);
        }
        if let Some(limit) = &limiter.limits.per_route {
            limiter.of_route.lock().take_bytes(limit, bytes, now);
        }
    }
}
