//! How is an origin asked? One request in, one head and a body that either arrives whole or fails.
//!
//! Knows addresses, connections, deadlines and retries. Knows nothing of keys, viewers or storage.
//! pingora stays in here; nothing of it shows in this face.

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

use crate::policy::EndpointSet;
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
use sign::Signer;
use slow_viewers::SlowViewers;
use takeover::Takeovers;

/// One request to an origin.
pub struct UpstreamRequest {
    /// GET for fills; others on routes that pass them.
    pub method: Method,
    /// Exactly what the key was made of.
    pub path_and_query: PathAndQuery,
    /// The viewer's canonical host where the route forwards it.
    pub host: Option<HeaderValue>,
    /// Already filtered by `policy`; hop-by-hop headers are not in it.
    pub headers: HeaderMap,
    /// A body, for methods that have one.
    pub body: Option<RequestBody>,
    /// It was there a moment ago, or a manifest says that it is: one endpoint's refusal is not believed
    /// while another can be asked.
    pub expected: bool,
    /// What an answer has to bring.
    pub wants: ExpectedContent,
    /// Whose rate it counts against, where an endpoint tells classes apart.
    pub class: RequestClass,
    /// Something is served instead if there is no answer: no endpoint is asked twice for it.
    pub covered: bool,
    /// Its place when not all can go at once.
    pub rank: Priority,
    /// The origin is known to hold its answer back until there is something to answer with: it waits there
    /// outside the caps.
    pub held_back: bool,
    /// What is held back is late after so long: another endpoint is asked too.
    pub overdue: Option<Duration>,
    /// These endpoints gave something that could not be used: others are asked first.
    pub avoided: EndpointSet,
    /// These endpoints are not asked.
    pub excluded: EndpointSet,
    /// What it is to the budget for retries.
    pub budget: BudgetUse,
    /// Nobody waits for it yet, and somebody may while it is on its way.
    pub upgrade: Option<Upgrade>,
}

/// What is asked for, as far as that tells an answer that brings nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedContent {
    /// An answer without a body may be what there is.
    Anything,
    /// A segment, or what it takes to play one.
    Media,
    /// A manifest.
    Manifest,
}

/// What a request is to the budget for retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetUse {
    /// A first request: a share of these may be sent again.
    Earns,
    /// A second one, which was paid for with [`Origin::take_over`].
    Paid,
}

/// When a request becomes more urgent.
pub struct Upgrade {
    /// Resolves then.
    pub when: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Its place from then on.
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
            wants: ExpectedContent::Anything,
            class: RequestClass::Other,
            covered: false,
            rank,
            held_back: false,
            overdue: None,
            avoided: EndpointSet::default(),
            excluded: EndpointSet::default(),
            budget: BudgetUse::Earns,
            upgrade: None,
        }
    }
}

/// A request body on its way to an origin; its bounds are the edge's business. It fails with an [`UploadFault`].
pub type RequestBody = std::pin::Pin<
    Box<dyn http_body::Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Send>,
>;

/// How an answer's end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes were promised.
    Length(u64),
    /// Chunked, or HTTP/2 without a length: the end is told.
    Delimited,
    /// The end is the connection's end: cannot be told from a failure, so never stored.
    UntilClose,
}

/// What an origin answered; the body is still to come.
pub struct UpstreamResponse {
    /// Status.
    pub status: StatusCode,
    /// As sent, hop-by-hop headers included; `policy` strips them.
    pub headers: HeaderMap,
    /// How the end is known. Answers to HEAD, 204 and 304 have no body: a length of 0.
    pub framing: Framing,
    /// The body.
    pub body: UpstreamBody,
    /// From asking for a permit to the head's last byte.
    pub waited: Duration,
    /// The endpoint's place in its group.
    pub endpoint: usize,
    /// The place of another one, which did not have what this one had: it said so, or was so late that
    /// this one was asked.
    pub outdone: Option<usize>,
}

/// An origin group, ready to be asked.
pub struct Origin {
    name: Arc<str>,
    desk: Arc<OriginGroup>,
}

/// Resolves a host and port to addresses; may block (it runs on the blocking pool).
pub type Resolver = Arc<dyn Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>> + Send + Sync>;

impl Origin {
    /// Prepares a group. Names are resolved in the background: this never blocks.
    /// `lookup` is the system's resolver in production and a script in tests.
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
            desk: Arc::new(OriginGroup {
                gate: ConcurrencyLimiter::new(&limits),
                waiting_room: ConcurrencyLimiter::new(&LimiterSettings {
                    concurrency_max: settings.blocking_max,
                    kept_for_manifests: 0,
                    queue_max: settings.queue_max,
                    requests_per_second_max: None,
                }),
                slow_viewers: Arc::new(SlowViewers::new(settings.slow_viewers_max)),
                dial,
                sites,
                checkups: settings.health.map(HealthChecks::new),
                balance: settings.balance,
                wheel: Mutex::new(WeightedRotation::default()),
                budget: Mutex::new(RetryBudget::new(settings.retry.budget, Instant::now())),
                fail_over_helps: AtomicBool::new(true),
                takeovers: Takeovers::default(),
                review: OutlierDetection::new(
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

    /// Asks the origin, within the group's cap and deadlines: one endpoint, and others where that one cannot
    /// be reached or, as far as [`Retry`] goes, does not answer as it should. Dropping the future gives its
    /// permit back and closes its connection.
    pub async fn fetch(&self, errand: UpstreamRequest) -> Result<UpstreamResponse, Failure> {
        self.desk.attend();
        self.desk.fetch(errand).await
    }

    /// Nobody waits, and more than half of what may be under way is free: something that nobody needs yet
    /// may be asked for.
    pub fn has_room(&self) -> bool {
        let stands = |site: &Arc<EndpointState>| self.desk.stands(site, Instant::now());
        self.desk.gate.has_room() && self.desk.sites.iter().any(stands)
    }

    /// The same for something that the origin is expected to hold back.
    pub fn has_room_to_wait(&self) -> bool {
        let stands = |site: &Arc<EndpointState>| self.desk.stands(site, Instant::now());
        self.desk.waiting_room.has_room() && self.desk.sites.iter().any(stands)
    }

    /// Another endpoint than these is in good standing.
    pub fn another_stands(&self, than: EndpointSet) -> bool {
        let now = Instant::now();
        let is_other = |site: &&Arc<EndpointState>| !than.contains(site.place);
        let mut others = self.desk.sites.iter().filter(is_other);
        others.any(|site| self.desk.stands(site, now))
    }

    /// Takes leave to ask another endpoint for a body that one has begun, and counts it. `failed`: that one
    /// sends no more. If not, it is slow. `None`: it would only add to the load.
    pub fn take_over(&self, from: usize, failed: bool) -> Option<Takeover> {
        self.desk.take_over(from, failed)
    }

    /// Another endpoint brought more of a body than the one that began it, or was asked in vain.
    pub fn took_over(&self, helped: bool) {
        self.desk.takeovers.end(helped);
    }

    /// An endpoint could be connected to after this moment that could not be before.
    pub fn has_returned_since(&self, then: Instant) -> bool {
        self.desk.dial.has_returned_since(then.into())
    }

    /// There is another endpoint than one that gave something unfit.
    pub fn has_others(&self) -> bool {
        self.desk.sites.len() > 1
    }

    /// The URL of the endpoint that a request would go to first; `None`: none may be asked now.
    pub fn would_ask(
        &self,
        target: &PathAndQuery,
        host: Option<&HeaderValue>,
        avoided: EndpointSet,
    ) -> Option<Arc<str>> {
        let what = (request::seed(target, host), request::subject(target, host));
        let site = self.desk.would_ask(what, avoided)?;
        Some(site.url())
    }

    /// How long the head of an answer may take that the origin holds back by intent (LL-HLS), its
    /// place in the queue and its connection included.
    pub fn held_back_max(&self) -> Duration {
        let deadlines = &self.desk.deadlines;
        let longest = deadlines.queue + deadlines.connect + deadlines.blocking;
        longest.min(deadlines.total)
    }

    /// Starts checking the endpoints, where that is set, before anybody asks for anything. Must be called
    /// inside a tokio runtime; should that one end, the next fetch starts anew.
    pub fn attend(&self) {
        self.desk.attend();
    }

    /// What came of asking, so far.
    pub fn stats(&self) -> Stats {
        let OriginGroup {
            gate,
            waiting_room,
            slow_viewers,
            dial,
            sites,
            ..
        } = &*self.desk;
        // Who waits for one endpoint waits for the group: there is one queue to look at.
        let mut census = gate.census();
        let held_back = waiting_room.census();
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

/// What is more than all endpoints bear together waits in the group's queue, where ranks count among
/// all.
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
