//! Holds clients to the rate limits of routes and of client classes. `policy` says what a limit
//! admits; here are the token buckets, which all workers share, and the counters.
//!
//! Only requests that some limit counts come here.

mod client_buckets;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::client_buckets::{BucketKey, ClientBuckets};
use super::clients::Client;
use seawall_policy::access::CacheRequest;
use seawall_policy::rate_limit::{LimitExceeded, LimitedQuantity, RateBuckets, RateLimit};
use seawall_policy::{ClientClass, OTHER_CLASS_INDEX, RateLimits, Route, Rules, ViewerAddress};

/// Whom a limit counts together: also a metric label and a configuration word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitScope {
    /// Each client by itself.
    Client,
    /// All clients of a route.
    Route,
    /// All clients of a class, on all routes.
    ClientClass,
}

impl LimitScope {
    /// All, in the order of their numbers.
    pub const ALL: [LimitScope; 3] = [
        LimitScope::Client,
        LimitScope::Route,
        LimitScope::ClientClass,
    ];

    fn index(self) -> usize {
        self as usize
    }

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitScope::Client => "client",
            LimitScope::Route => "route",
            LimitScope::ClientClass => "client_class",
        }
    }

    fn check(
        self,
        buckets: &mut RateBuckets,
        limit: &RateLimit,
        now: u64,
    ) -> Result<(), RateRefusal> {
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
    /// Whom the limit counts together, and what there was too much of: the words of the metric.
    pub(super) fn as_str(&self) -> &'static str {
        match (self.scope, self.exceeded.quantity) {
            (LimitScope::Client, LimitedQuantity::Requests) => "client_requests",
            (LimitScope::Client, LimitedQuantity::Bytes) => "client_bytes",
            (LimitScope::Route, LimitedQuantity::Requests) => "route_requests",
            (LimitScope::Route, LimitedQuantity::Bytes) => "route_bytes",
            (LimitScope::ClientClass, LimitedQuantity::Requests) => "client_class_requests",
            (LimitScope::ClientClass, LimitedQuantity::Bytes) => "client_class_bytes",
        }
    }

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

/// The buckets of clients that are counted together.
type SharedBuckets = Arc<Mutex<RateBuckets>>;

type ScopeCounters = [AtomicU64; LimitedQuantity::ALL.len()];

/// The state of all limits. It outlives reloads.
struct RateLimitState {
    /// Times of buckets are counted from here.
    began: Instant,
    /// Made for the first route with a limit for each client.
    clients: OnceLock<ClientBuckets>,
    /// The buckets of limits that count all clients of a route or of a class, by its number. What a
    /// reload removes and another one brings back goes on with its buckets.
    shared: Mutex<HashMap<(LimitScope, usize), (RateLimit, SharedBuckets)>>,
    refused: [ScopeCounters; LimitScope::ALL.len()],
}

impl RateLimitState {
    fn nanoseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began).as_nanos();
        // A `u64` holds more than 500 years of nanoseconds.
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn shared(&self, scope: LimitScope, number: usize, limit: RateLimit) -> SharedLimit {
        let mut all = self.shared.lock();
        let known = all.entry((scope, number));
        let (last, buckets) = known.or_insert_with(|| (limit, Arc::default()));
        if *last != limit {
            let now = self.nanoseconds(Instant::now());
            buckets.lock().change_limit(last, &limit, now);
            *last = limit;
        }
        let buckets = Arc::clone(buckets);
        SharedLimit {
            scope,
            limit,
            buckets,
        }
    }

    fn clients(&self) -> &ClientBuckets {
        self.clients.get_or_init(ClientBuckets::default)
    }
}

/// A limit that counts all clients of a route or of a class together.
struct SharedLimit {
    scope: LimitScope,
    limit: RateLimit,
    buckets: SharedBuckets,
}

/// The limits of all routes and client classes in one generation of settings.
pub(super) struct RateLimiters {
    state: Arc<RateLimitState>,
    /// By the number of the route, then by that of the class. Empty: there are no limits.
    by_route: Vec<Vec<Option<Arc<RequestLimiter>>>>,
}

impl RateLimiters {
    /// The limits of the first generation.
    pub(super) fn first(rules: &Rules) -> RateLimiters {
        let state = RateLimitState {
            began: Instant::now(),
            clients: OnceLock::new(),
            shared: Mutex::default(),
            refused: Default::default(),
        };
        RateLimiters::of(rules, Arc::new(state))
    }

    /// The limits of the next generation. What was used of those that stay is used.
    pub(super) fn succeed(&self, rules: &Rules) -> RateLimiters {
        RateLimiters::of(rules, Arc::clone(&self.state))
    }

    fn of(rules: &Rules, state: Arc<RateLimitState>) -> RateLimiters {
        let mut by_route = Vec::new();
        for route in &rules.routes {
            let of_others = RequestLimiter::of(route, None, &state).map(Arc::new);
            let mut by_class = vec![of_others.clone()];
            // A class without a number of its own counts as other clients.
            let is_numbered = |class: &&Arc<ClientClass>| class.index != OTHER_CLASS_INDEX;
            for class in rules.client_classes.iter().filter(is_numbered) {
                let limiter = match class.rate_limit {
                    Some(_) => RequestLimiter::of(route, Some(class), &state).map(Arc::new),
                    None => of_others.clone(),
                };
                set_at(&mut by_class, class.index, limiter);
            }
            if by_class.iter().any(Option::is_some) {
                set_at(&mut by_route, route.index, by_class);
            }
        }
        RateLimiters { state, by_route }
    }

    /// The limits of a request to a route of this generation, if there are any.
    pub(super) fn of_request(
        &self,
        route: &Route,
        class: Option<&ClientClass>,
    ) -> Option<&Arc<RequestLimiter>> {
        let by_class = self.by_route.get(route.index)?;
        let index = class.map_or(OTHER_CLASS_INDEX, |class| class.index);
        by_class.get(index)?.as_ref()
    }

    /// The same for a request that was admitted.
    pub(super) fn of_cached(&self, request: &CacheRequest) -> Option<&Arc<RequestLimiter>> {
        self.of_request(&request.route, request.class.as_deref())
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

fn set_at<T: Clone + Default>(items: &mut Vec<T>, index: usize, item: T) {
    if items.len() <= index {
        items.resize(index + 1, T::default());
    }
    items[index] = item;
}

/// Holds the requests of one client class to one route to all limits that count them.
pub struct RequestLimiter {
    state: Arc<RateLimitState>,
    route: usize,
    per_client: Option<RateLimit>,
    /// Those that count several clients together. Always in the order in which they are locked:
    /// that of the route before that of the class.
    shared: Vec<SharedLimit>,
}

impl RequestLimiter {
    /// `None`: nothing limits such requests.
    fn of(
        route: &Route,
        class: Option<&ClientClass>,
        state: &Arc<RateLimitState>,
    ) -> Option<RequestLimiter> {
        let RateLimits {
            per_client,
            per_route,
        } = route.rate_limits;
        let of_route = per_route.map(|limit| state.shared(LimitScope::Route, route.index, limit));
        let of_class = class.and_then(|class| {
            let limit = class.rate_limit?;
            Some(state.shared(LimitScope::ClientClass, class.index, limit))
        });
        let shared: Vec<_> = of_route.into_iter().chain(of_class).collect();
        if per_client.is_some() {
            // Now rather than at a request.
            state.clients();
        }
        (per_client.is_some() || !shared.is_empty()).then(|| RequestLimiter {
            state: Arc::clone(state),
            route: route.index,
            per_client,
            shared,
        })
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
        match (client, &self.per_client) {
            (Some(key), Some(limit)) => self.state.clients().with(key, now, |own| {
                LimitScope::Client.check(own, limit, now)?;
                // All admit a request, or none takes one.
                take_from_all(&self.shared, now)?;
                own.take_request(limit, now);
                Ok(())
            })?,
            _ => take_from_all(&self.shared, now)?,
        }
        Ok(self.meter(client))
    }

    /// What the response to a request counts its bytes with, if a limit counts them. The request
    /// was admitted before.
    pub(super) fn meter_for(self: &Arc<Self>, viewer: Option<IpAddr>) -> Option<ByteMeter> {
        self.meter(self.client(viewer))
    }

    fn meter(self: &Arc<Self>, client: Option<BucketKey>) -> Option<ByteMeter> {
        let shared = self.shared.iter().map(|shared| &shared.limit);
        let mut limits = self.per_client.iter().chain(shared);
        limits.any(|limit| limit.bytes.is_some()).then(|| {
            let limiter = Arc::clone(self);
            ByteMeter(Box::new(MeteredResponse { limiter, client }))
        })
    }

    fn client(&self, viewer: Option<IpAddr>) -> Option<BucketKey> {
        let key = || {
            self.state
                .clients()
                .key_of((self.route, Client::of(viewer)))
        };
        self.per_client.is_some().then(key)
    }
}

/// Takes a request from all these buckets, or from none of them.
fn take_from_all(limits: &[SharedLimit], now: u64) -> Result<(), RateRefusal> {
    let Some((first, others)) = limits.split_first() else {
        return Ok(());
    };
    let mut buckets = first.buckets.lock();
    first.scope.check(&mut buckets, &first.limit, now)?;
    take_from_all(others, now)?;
    buckets.take_request(&first.limit, now);
    Ok(())
}

/// Takes a request whose response is there already from its rate limits, if it has any.
pub fn admit_repeat(
    limiter: Option<&Arc<RequestLimiter>>,
    viewer: impl FnOnce() -> ViewerAddress,
    now: Instant,
) -> Result<Option<ByteMeter>, RateRefusal> {
    limiter.map_or(Ok(None), |limiter| limiter.admit(viewer().viewer, now))
}

/// Takes the bytes of a response from the buckets that count them.
pub struct ByteMeter(Box<MeteredResponse>);

struct MeteredResponse {
    limiter: Arc<RequestLimiter>,
    client: Option<BucketKey>,
}

impl ByteMeter {
    /// Takes bytes that are sent now.
    pub fn take(&self, bytes: usize) {
        let MeteredResponse { limiter, client } = &*self.0;
        let (state, bytes) = (&limiter.state, bytes as u64);
        let now = state.nanoseconds(Instant::now());
        if let (Some(key), Some(limit)) = (client, &limiter.per_client) {
            let take = |own: &mut RateBuckets| own.take_bytes(limit, bytes, now);
            state.clients().with(*key, now, take);
        }
        for SharedLimit { limit, buckets, .. } in &limiter.shared {
            buckets.lock().take_bytes(limit, bytes, now);
        }
    }
}
