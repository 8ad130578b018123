//! Sends requests to origin groups: one request in, one response head and a body that arrives
//! complete or fails.
//!
//! Owns addresses, connections, deadlines and retries. Has no knowledge of cache keys or storage.
//! pingora types do not appear in the public interface.

mod activity;
mod attempt;
mod attempt_guard;
mod body;
mod check;
mod choose;
mod connection;
mod connector;
mod drain;
mod endpoint;
mod evaluate;
mod failure;
mod group;
pub mod guard;
mod head;
mod hedge;
mod latency;
mod limit;
mod next_step;
mod outliers;
mod priority;
mod quota;
mod request;
mod resolve;
mod response_value;
mod selection;
mod settings;
pub mod sign;
mod slow_viewers;
mod stats;
mod takeover;
#[cfg(test)]
mod tests;
mod upload;
mod viewer_relay;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;

pub use body::UpstreamBody;
pub use choose::Balance;
pub use failure::Failure;
pub use latency::LatencyHistogram;
pub use limit::Rejection;
pub use priority::Priority;
pub use quota::{Quota, QuotaStats, RequestClass};
pub use settings::{
    Check, CheckKind, Deadlines, Endpoint, Guards, Protocol, Retry, Settings, SetupError,
};
pub use stats::{AttemptCounts, Condition, EndpointStats, HealthCheckStats, Stats};
pub use takeover::Takeover;
pub use upload::UploadFault;
pub use viewer_relay::ViewerRelay;

use check::HealthChecks;
use choose::WeightedRotation;
use connector::EndpointConnector;
use endpoint::{EndpointRoster, EndpointState};
use group::OriginGroup;
use guard::budget::RetryBudget;
use limit::{ConcurrencyLimiter, LimiterSettings, kept_for_manifests};
use outliers::OutlierDetection;
use request::GroupHeaders;
use resolve::EndpointNames;
use seawall_policy::EndpointSet;
use sign::Signer;
use slow_viewers::SlowViewers;
use takeover::Takeovers;

/// One request to an origin.
pub struct UpstreamRequest {
    /// GET for fills; other methods on routes that pass them.
    pub method: Method,
    /// The exact target that the cache key was built from.
    pub path_and_query: PathAndQuery,
    /// The viewer's canonical host, if the route forwards it.
    pub host: Option<HeaderValue>,
    /// Already filtered by `policy`; contains no hop-by-hop headers.
    pub headers: HeaderMap,
    /// The body, for methods that have one.
    pub body: Option<RequestBody>,
    /// The object existed a moment ago, or a manifest lists it: a refusal is not trusted while
    /// another endpoint can be asked.
    pub expected: bool,
    /// The content that a valid response carries.
    pub expected_content: ExpectedContent,
    /// The rate limit it counts against, where an endpoint has one per class.
    pub class: RequestClass,
    /// Another response is served if this request fails: no endpoint is asked twice.
    pub has_fallback: bool,
    /// Order in the queue before the origin.
    pub rank: Priority,
    /// The origin is known to block until new content exists (LL-HLS): the request waits outside
    /// the concurrency limits.
    pub is_blocking: bool,
    /// A blocking request is late after this time: another endpoint is asked too.
    pub late_after: Option<Duration>,
    /// Endpoints that returned unusable responses: the others are asked first.
    pub avoided: EndpointSet,
    /// Endpoints that must not be asked.
    pub excluded: EndpointSet,
    /// How it counts in the retry budget.
    pub budget: BudgetUse,
    /// Set when no viewer waits yet, and one may before the response arrives.
    pub upgrade: Option<Upgrade>,
}

/// The expected content: tells which responses carry nothing useful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedContent {
    /// A response without a body is acceptable.
    Anything,
    /// A segment, or an object needed to play one.
    Media,
    /// A manifest.
    Manifest,
}

/// How a request counts in the retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetUse {
    /// A first request: it adds a share of a retry to the budget.
    Earns,
    /// A second request, already paid for with [`Origin::take_over`].
    Paid,
}

/// Raises the priority of a request that is in progress.
pub struct Upgrade {
    /// Resolves when the priority rises.
    pub when: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The priority from then on.
    pub rank: Priority,
}

impl UpstreamRequest {
    /// A GET, which has no body.
    pub fn get(
        target: PathAndQuery,
        host: Option<HeaderValue>,
        headers: HeaderMap,
        rank: Priority,
    ) -> UpstreamRequest {
        UpstreamRequest {
            method: Method::GET,
            path_and_query: target,
            host,
            headers,
            body: None,
            expected: false,
            expected_content: ExpectedContent::Anything,
            class: RequestClass::Other,
            has_fallback: false,
            rank,
            is_blocking: false,
            late_after: None,
            avoided: EndpointSet::default(),
            excluded: EndpointSet::default(),
            budget: BudgetUse::Earns,
            upgrade: None,
        }
    }
}

/// A request body; `frontend` enforces its limits. It fails with an [`UploadFault`].
pub type RequestBody = std::pin::Pin<
    Box<dyn http_body::Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Send>,
>;

/// How the end of a response body is known (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this number of bytes (`Content-Length`).
    Length(u64),
    /// Chunked, or HTTP/2 without a length: the end is explicit.
    Delimited,
    /// The body ends when the connection closes. That looks like a failure, so it is never stored.
    UntilClose,
}

/// A response whose head has arrived; the body follows.
pub struct UpstreamResponse {
    /// Status.
    pub status: StatusCode,
    /// As received, with hop-by-hop headers; `policy` strips them.
    pub headers: HeaderMap,
    /// How the body ends. Responses to HEAD, 204 and 304 have no body: a length of 0.
    pub framing: Framing,
    /// The body.
    pub body: UpstreamBody,
    /// From the permit request to the last byte of the head.
    pub waited: Duration,
    /// The endpoint's index in its group.
    pub endpoint: usize,
    /// The index of an endpoint that lacked this object: it answered so, or was so late that this
    /// endpoint was asked too.
    pub lacking_endpoint: Option<usize>,
}

/// An origin group that accepts requests.
pub struct Origin {
    name: Arc<str>,
    group: Arc<OriginGroup>,
}

/// Resolves a host and port to addresses; may block (it runs on the blocking pool).
pub type Resolver = Arc<dyn Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>> + Send + Sync>;

impl Origin {
    /// Creates a group. DNS lookups run in the background: this never blocks. `lookup` is the
    /// system resolver in production and a script in tests.
    pub fn new(settings: Settings, lookup: Resolver) -> Result<Origin, SetupError> {
        let signer = Signer::new(&settings, &lookup)?;
        let names = EndpointNames::new(&settings.endpoints, lookup, settings.resolve_every);
        let dial = Arc::new(EndpointConnector::new(&settings, names)?);
        let hosts = settings.endpoints.iter().map(|endpoint| {
            let own = || endpoint.authority();
            let host = settings.host.clone().unwrap_or_else(own);
            let valid = host.parse::<Authority>().is_ok() && !host.contains('@');
            let value = HeaderValue::try_from(&host).ok().filter(|_| valid);
            value.ok_or(SetupError::Host { host })
        });
        let hosts = hosts.collect::<Result<_, _>>()?;
        let places = 0..settings.endpoints.len();
        let roll: EndpointRoster = places.clone().map(|_| AtomicBool::new(true)).collect();
        let sites = places
            .map(|place| EndpointState::new(place, &settings, &roll).into())
            .collect();
        let concurrency_max = concurrency_max(&settings);
        let mut endpoints = settings.endpoints.iter();
        let has_quota = endpoints.any(|endpoint| endpoint.requests_per_second_max.is_some());
        let limits = LimiterSettings {
            concurrency_max,
            kept_for_manifests: if has_quota {
                kept_for_manifests(concurrency_max)
            } else {
                0
            },
            queue_max: settings.queue_max,
            requests_per_second_max: settings.requests_per_second_max,
        };
        Ok(Origin {
            name: settings.name,
            group: Arc::new(OriginGroup {
                limiter: ConcurrencyLimiter::new(&limits),
                blocking_limiter: ConcurrencyLimiter::new(&LimiterSettings {
                    concurrency_max: settings.blocking_max,
                    kept_for_manifests: 0,
                    queue_max: settings.queue_max,
                    requests_per_second_max: None,
                }),
                slow_viewers: Arc::new(SlowViewers::new(settings.slow_viewers_max)),
                connector: dial,
                endpoints: sites,
                health_checks: settings.health.map(HealthChecks::new),
                balance: settings.balance,
                rotation: Mutex::new(WeightedRotation::default()),
                budget: Mutex::new(RetryBudget::new(settings.retry.budget, Instant::now())),
                fail_over_helps: AtomicBool::new(true),
                takeovers: Takeovers::default(),
                outlier_detection: OutlierDetection::new(
                    settings.guards.ejection.judged_every,
                    Instant::now(),
                ),
                retry: settings.retry,
                additions: GroupHeaders { hosts },
                signer,
                deadlines: settings.deadlines,
                shortage_lines: Mutex::default(),
            }),
        })
    }

    /// The group's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Sends a request within the group's limits and deadlines. Other endpoints are asked if one is
    /// unreachable or, as far as [`Retry`] allows, fails. Dropping the future releases the permit
    /// and closes the connection.
    pub async fn fetch(&self, errand: UpstreamRequest) -> Result<UpstreamResponse, Failure> {
        self.group.attend();
        self.group.fetch(errand).await
    }

    /// The queue is empty, more than half of the permits are free and an endpoint is in good
    /// standing: prefetches may be sent.
    pub fn has_room(&self) -> bool {
        let stands =
            |site: &Arc<EndpointState>| self.group.is_in_good_standing(site, Instant::now());
        self.group.limiter.has_room() && self.group.endpoints.iter().any(stands)
    }

    /// The same as [`Origin::has_room`], for blocking requests.
    pub fn has_room_to_wait(&self) -> bool {
        let stands =
            |site: &Arc<EndpointState>| self.group.is_in_good_standing(site, Instant::now());
        self.group.blocking_limiter.has_room() && self.group.endpoints.iter().any(stands)
    }

    /// An endpoint outside `than` is in good standing.
    pub fn has_another_in_good_standing(&self, than: EndpointSet) -> bool {
        let now = Instant::now();
        let is_other = |site: &&Arc<EndpointState>| !than.contains(site.place);
        let mut others = self.group.endpoints.iter().filter(is_other);
        others.any(|site| self.group.is_in_good_standing(site, now))
    }

    /// Permits and counts a takeover: another endpoint is asked for a body that `from` has begun.
    /// `failed`: `from` sends no more; otherwise it is slow. `None`: a takeover would only add
    /// load.
    pub fn take_over(&self, from: usize, failed: bool) -> Option<Takeover> {
        self.group.take_over(from, failed)
    }

    /// Records whether a takeover delivered more of the body than the first endpoint.
    pub fn record_takeover(&self, helped: bool) {
        self.group.takeovers.end(helped);
    }

    /// An unreachable address became reachable again after this time.
    pub fn has_returned_since(&self, then: Instant) -> bool {
        self.group.connector.has_returned_since(then.into())
    }

    /// The group has more than one endpoint.
    pub fn has_others(&self) -> bool {
        self.group.endpoints.len() > 1
    }

    /// The URL of the endpoint that this request would go to first; `None`: no endpoint accepts it
    /// now.
    pub fn first_choice(
        &self,
        target: &PathAndQuery,
        host: Option<&HeaderValue>,
        avoided: EndpointSet,
    ) -> Option<Arc<str>> {
        let what = (request::seed(target, host), request::subject(target, host));
        let site = self.group.would_ask(what, avoided)?;
        Some(site.url())
    }

    /// Longest wait for the head of a blocking response (LL-HLS), including queue and connect time.
    pub fn held_back_max(&self) -> Duration {
        let deadlines = &self.group.deadlines;
        let longest = deadlines.queue + deadlines.connect + deadlines.blocking;
        longest.min(deadlines.total)
    }

    /// Starts the health checks, if configured. Must be called inside a tokio runtime; if that
    /// runtime ends, the next fetch starts them again.
    pub fn start_health_checks(&self) {
        self.group.attend();
    }

    /// Reads the counters.
    pub fn stats(&self) -> Stats {
        let OriginGroup {
            limiter: gate,
            blocking_limiter: waiting_room,
            slow_viewers,
            connector: dial,
            endpoints: sites,
            ..
        } = &*self.group;
        // A request that waits for an endpoint also counts as waiting for the group: one queue to
        // monitor.
        let mut census = gate.counts();
        let held_back = waiting_room.counts();
        census.add_waits(&held_back);
        for site in sites {
            census.add_waits(&site.census());
        }
        let (slow_viewers, slow_viewers_cut) = slow_viewers.census();
        let endpoints: Vec<_> = sites.iter().map(|site| site.read(dial)).collect();
        let mut total = AttemptCounts::default();
        for endpoint in &endpoints {
            total += &endpoint.counts;
        }
        Stats {
            name: Arc::clone(&self.name),
            total,
            endpoints,
            in_flight: census.in_flight,
            held_back: held_back.in_flight,
            slow_viewers,
            slow_viewers_cut,
            queued: census.queued.iter().sum(),
            surge_queue: Priority::ALL.map(|rank| (rank, census.queued[rank.index()])),
            spillover: census.rejected(Rejection::QueueFull)
                + census.rejected(Rejection::Displaced),
            rejected: Rejection::ALL.map(|reason| (reason, census.rejected(reason))),
        }
    }
}

/// At most the sum of the endpoints' limits: the excess waits in the group's queue, where all
/// priorities compete.
fn concurrency_max(settings: &Settings) -> usize {
    let mut caps = settings
        .endpoints
        .iter()
        .map(|endpoint| endpoint.concurrency_max);
    let together = caps.try_fold(0_usize, |sum, cap| Some(sum.saturating_add(cap?)));
    together.map_or(settings.concurrency_max, |sum| {
        sum.min(settings.concurrency_max)
    })
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Origin").field(&self.name).finish()
    }
}
