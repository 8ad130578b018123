//! The metrics of requests. A counter's position is computed from its labels, and each thread has
//! counters of its own, so that counting a request costs a few additions and no lookup.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::RwLock;

use super::metric::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel, Samples};
use super::thread_counters::{OwnCounters, ThreadCounters};
use super::{AbortCause, MetricRegistry, Outcome, RequestRecord, ResponseSource};
use seawall_manifest::Kind;

/// The route label of requests without a matching route.
const NO_ROUTE: &str = "none";
/// The route label of all routes for which there was no room.
const OTHER_ROUTE: &str = "other";

/// Routes that reloads may add: this many, and as many as there were at the start. A thread's
/// counters are made once, so that counting a request takes no lock and follows no pointer.
const ADDED_ROUTES: usize = 64;

const fn microseconds<const COUNT: usize>(values: [u64; COUNT]) -> [Duration; COUNT] {
    let mut bounds = [Duration::ZERO; COUNT];
    let mut index = 0;
    while index < COUNT {
        bounds[index] = Duration::from_micros(values[index]);
        index += 1;
    }
    bounds
}

/// From a hit in memory to the longest wait of a viewer.
const HEAD_BOUNDS: [Duration; 15] = microseconds([
    50, 100, 250, 1000, 2500, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 15_000_000,
]);

/// From an origin in the same rack to one that is about to time out.
const ORIGIN_BOUNDS: [Duration; 12] = microseconds([
    2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    15_000_000,
]);

/// Status classes. Codes outside 100–599 count as `other`.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

fn class_index(status: StatusCode) -> usize {
    let hundreds = usize::from(status.as_u16() / 100);
    hundreds.saturating_sub(1).min(CLASSES.len() - 1)
}

const ROUTE: MetricLabel = MetricLabel {
    name: "route",
    values: LabelValues::Dynamic(
        "the name of a `[[route]]`, `none`, or `other` for those that reloads added when there was no room left",
    ),
};
const KIND: MetricLabel = MetricLabel {
    name: "kind",
    values: LabelValues::Fixed(|| Kind::ALL.map(Kind::as_str).to_vec()),
};
const OUTCOME: MetricLabel = MetricLabel {
    name: "outcome",
    values: LabelValues::Fixed(|| Outcome::ALL.map(Outcome::as_str).to_vec()),
};
const CLASS: MetricLabel = MetricLabel {
    name: "class",
    values: LabelValues::Fixed(|| CLASSES.to_vec()),
};
const CAUSE: MetricLabel = MetricLabel {
    name: "cause",
    values: LabelValues::Fixed(|| AbortCause::ALL.map(AbortCause::as_str).to_vec()),
};
const SOURCE: MetricLabel = MetricLabel {
    name: "source",
    values: LabelValues::Fixed(|| ResponseSource::ALL.map(ResponseSource::as_str).to_vec()),
};

static REQUEST_METRICS: [CollectedMetric<RequestCounts>; 7] = [
    Metric {
        name: "seawall_requests_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[KIND, OUTCOME, ROUTE],
        help: "Requests from viewers, by outcome. Increments when a request ends.",
        remedy: "If failed, stale_error or overload rise, check the origin; docs/outcomes.md explains \
                 each outcome and the hit ratio.",
    }
    .collected(RequestCounts::write_requests),
    Metric {
        name: "seawall_repeated_responses_total",
        kind: MetricKind::Counter,
        unit: "responses",
        labels: &[],
        help: "Responses that were built for an earlier request with the same words, and cost a \
               fraction of it: hits of the same second, and viewers that waited for the same fetch. \
               They are also in seawall_requests_total. Increments when a response ends.",
        remedy: "If it is a small part of the hits of manifests, viewers send a field or a query \
                 that differs in each request.",
    }
    .collected(RequestCounts::write_repeated),
    Metric {
        name: "seawall_responses_total",
        kind: MetricKind::Counter,
        unit: "responses",
        labels: &[CLASS, ROUTE],
        help: "Responses to viewers, by status class. Increments when a response ends.",
        remedy: "If 5xx rises, see the outcomes in seawall_requests_total.",
    }
    .collected(RequestCounts::write_responses),
    Metric {
        name: "seawall_sent_bytes_total",
        kind: MetricKind::Counter,
        unit: "bytes",
        labels: &[KIND],
        help: "Body bytes sent to viewers. Increments when a response ends, by the whole body.",
        remedy: "If it is near the capacity of the network, add a server.",
    }
    .collected(RequestCounts::write_sent_bytes),
    Metric {
        name: "seawall_responses_aborted_total",
        kind: MetricKind::Counter,
        unit: "responses",
        labels: &[CAUSE, KIND],
        help: "Responses whose body was truncated, by cause; drain also counts those cut before \
               their head. Increments when such a response ends.",
        remedy: "origin: the origin's body ended early; check the origin. viewer: the viewer left or \
                 was too slow. memory: the viewer was too slow for the memory limit; raise [cache] \
                 memory or [fill] memory. drain: it took longer than [server] drain_max.",
    }
    .collected(RequestCounts::write_aborted),
    Metric {
        name: "seawall_response_head_seconds",
        kind: MetricKind::Histogram,
        unit: "seconds",
        labels: &[KIND, SOURCE],
        help: "Time from a request's arrival to its response head, by what it depended on: memory (no \
               wait), blocking (the object did not exist yet), origin, shield (rejections). Observed \
               when a response ends.",
        remedy: "If source=origin rises, check the origin. If source=memory rises, the server's \
                 processors are busy.",
    }
    .collected(RequestCounts::write_head_seconds),
    Metric {
        name: "seawall_origin_head_seconds",
        kind: MetricKind::Histogram,
        unit: "seconds",
        labels: &[ROUTE],
        help: "Time that requests waited for the head of an origin response, from their own fetch or \
               a joined one. Observed when a response ends. Requests answered from memory, and \
               requests for objects that did not exist yet, are not observed.",
        remedy: "If it rises, check the origin: seawall_origin_target_response_seconds says which \
                 endpoint is slow, seawall_origin_queued whether requests wait for a permit.",
    }
    .collected(RequestCounts::write_origin_seconds),
];

/// Counters of requests since the start.
#[derive(Clone, Debug)]
pub struct RequestTotals {
    /// Requests by outcome.
    pub requests: [(Outcome, u64); OUTCOMES],
    /// Responses by status class.
    pub responses: [(&'static str, u64); CLASSES.len()],
    /// Body bytes sent, by kind.
    pub sent_bytes: [(Kind, u64); KINDS],
    /// Responses by the time until their head: as many as took at most [`RequestTotals::BOUNDS`],
    /// each counted once, and those that took longer.
    pub head_times: [(ResponseSource, Vec<u64>); SOURCES],
}

impl RequestTotals {
    /// The upper bounds of [`RequestTotals::head_times`].
    pub const BOUNDS: [Duration; HEAD_BOUNDS.len()] = HEAD_BOUNDS;
}

/// The metrics of requests.
pub struct RequestMetrics {
    layout: Layout,
    counters: Arc<ThreadCounters>,
    names: Arc<RwLock<Vec<Arc<str>>>>,
}

impl RequestMetrics {
    /// Registers the metrics for these routes. A request record holds its route's index in this
    /// list. Others may follow: [`RequestMetrics::set_route_names`].
    pub fn new(
        route_names: &[Arc<str>],
        registry: &mut MetricRegistry,
    ) -> Result<RequestMetrics, prometheus::Error> {
        let layout = Layout {
            routes_max: 2 * route_names.len() + ADDED_ROUTES,
        };
        let counters = Arc::new(ThreadCounters::new(layout.len()));
        let names = Arc::new(RwLock::new(route_names.to_vec()));
        let (scraped_names, scraped) = (Arc::clone(&names), Arc::clone(&counters));
        registry.collect("Requests and responses", &REQUEST_METRICS, move || {
            RequestCounts {
                layout,
                route_names: scraped_names.read().clone(),
                sums: scraped.sums(),
            }
        })?;
        Ok(RequestMetrics {
            layout,
            counters,
            names,
        })
    }

    /// Names the routes that a record's index may mean from now on. The list only grows: what was
    /// counted for an index stays under its name.
    pub fn set_route_names(&self, route_names: &[Arc<str>]) {
        let mut names = self.names.write();
        debug_assert!(route_names.starts_with(&names), "an index keeps its name");
        let room = self.layout.routes_max;
        if names.len() <= room && route_names.len() > room {
            tracing::warn!(
                routes = route_names.len(),
                room,
                "the metrics have room for {room} routes: others count as `{OTHER_ROUTE}` until \
                 the next restart"
            );
        }
        *names = route_names.to_vec();
    }

    /// What has been counted since the start, over all routes.
    pub fn totals(&self) -> RequestTotals {
        let (layout, sums) = (self.layout, self.counters.sums());
        let of_routes = |index: &dyn Fn(usize) -> usize| {
            let counts = (0..layout.routes()).map(|route| sums[index(route)]);
            counts.sum::<u64>()
        };
        let of_kinds = |index: &dyn Fn(usize) -> usize| {
            let counts = (0..KINDS).map(|kind| sums[index(kind)]);
            counts.sum::<u64>()
        };
        RequestTotals {
            requests: Outcome::ALL.map(|outcome| {
                let requests = (0..KINDS)
                    .map(|kind| of_routes(&|route| Layout::requests(route, kind, outcome.index())));
                (outcome, requests.sum())
            }),
            responses: std::array::from_fn(|class| {
                (
                    CLASSES[class],
                    of_routes(&|route| layout.responses(route, class)),
                )
            }),
            sent_bytes: Kind::ALL.map(|kind| (kind, sums[layout.sent_bytes(kind.index())])),
            head_times: ResponseSource::ALL.map(|source| {
                let in_bucket =
                    |bucket| of_kinds(&|kind| layout.head_time(kind, source.index()) + bucket);
                (source, (0..=HEAD_BOUNDS.len()).map(in_bucket).collect())
            }),
        }
    }

    /// Counts one finished request.
    pub fn count(&self, record: &RequestRecord) {
        let layout = self.layout;
        let route = layout.route_index(record.route);
        let kind = record.kind.index();
        let counters = self.counters.of_this_thread();
        counters.add(layout.repeated(), u64::from(record.is_repeated));
        counters.add(Layout::requests(route, kind, record.outcome.index()), 1);
        if record.outcome == Outcome::Left {
            // There was no response. A viewer that left without one has missed nothing.
            if record.aborted_by == Some(AbortCause::Drain) {
                counters.add(layout.aborted(kind, AbortCause::Drain.index()), 1);
            }
            return;
        }
        counters.add(layout.responses(route, class_index(record.status)), 1);
        counters.add(layout.sent_bytes(kind), record.bytes);
        if let Some(cause) = record.aborted_by {
            counters.add(layout.aborted(kind, cause.index()), 1);
        }
        let source = record.outcome.source();
        let histogram = layout.head_time(kind, source.index());
        observe(&counters, histogram, &HEAD_BOUNDS, record.head_time);
        if let Some(waited) = record
            .origin_time
            .filter(|_| source != ResponseSource::Blocking)
        {
            let histogram = layout.origin_time(route);
            observe(&counters, histogram, &ORIGIN_BOUNDS, waited);
        }
    }
}

/// Counts a time in the histogram whose first counter is `first`.
fn observe(counters: &OwnCounters<'_>, first: usize, bounds: &[Duration], time: Duration) {
    let bucket = bounds.iter().take_while(|bound| time > **bound).count();
    counters.add(first + bucket, 1);
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    counters.add(first + bounds.len() + 1, nanoseconds);
}

/// Where each counter is: tables one after another, each indexed by its labels, the last label
/// changing fastest. A histogram has a counter per bound, one for the times above all bounds, and
/// the sum in nanoseconds.
#[derive(Clone, Copy)]
struct Layout {
    /// Routes with counters of their own. After them come [`OTHER_ROUTE`] and [`NO_ROUTE`].
    routes_max: usize,
}

const KINDS: usize = Kind::ALL.len();
const OUTCOMES: usize = Outcome::ALL.len();
const CAUSES: usize = AbortCause::ALL.len();
const SOURCES: usize = ResponseSource::ALL.len();
const HEAD_COUNTERS: usize = HEAD_BOUNDS.len() + 2;
const ORIGIN_COUNTERS: usize = ORIGIN_BOUNDS.len() + 2;

impl Layout {
    /// Routes beyond the last one with counters of its own are counted together.
    fn route_index(self, route: Option<usize>) -> usize {
        let other = self.routes_max;
        route.map_or(other + 1, |index| index.min(other))
    }

    fn routes(self) -> usize {
        self.routes_max + 2
    }

    fn requests(route: usize, kind: usize, outcome: usize) -> usize {
        (route * KINDS + kind) * OUTCOMES + outcome
    }

    fn responses(self, route: usize, class: usize) -> usize {
        Layout::requests(self.routes(), 0, 0) + route * CLASSES.len() + class
    }

    fn sent_bytes(self, kind: usize) -> usize {
        self.responses(self.routes(), 0) + kind
    }

    fn aborted(self, kind: usize, cause: usize) -> usize {
        self.sent_bytes(KINDS) + kind * CAUSES + cause
    }

    fn head_time(self, kind: usize, source: usize) -> usize {
        self.aborted(KINDS, 0) + (kind * SOURCES + source) * HEAD_COUNTERS
    }

    fn origin_time(self, route: usize) -> usize {
        self.head_time(KINDS, 0) + route * ORIGIN_COUNTERS
    }

    fn repeated(self) -> usize {
        self.origin_time(self.routes())
    }

    fn len(self) -> usize {
        self.repeated() + 1
    }
}

/// The counts of one scrape.
struct RequestCounts {
    layout: Layout,
    route_names: Vec<Arc<str>>,
    sums: Vec<u64>,
}

impl RequestCounts {
    /// The indexes and names of the routes that have a sample.
    fn route_labels(&self) -> impl Iterator<Item = (usize, &str)> {
        let room = self.layout.routes_max;
        let named = self.route_names.iter().take(room).map(|name| &**name);
        let other = (self.route_names.len() > room).then_some((room, OTHER_ROUTE));
        named.enumerate().chain(other).chain([(room + 1, NO_ROUTE)])
    }

    fn write_requests(&self, samples: &mut Samples) {
        for (route, name) in self.route_labels() {
            for kind in Kind::ALL {
                for outcome in Outcome::ALL {
                    let index = Layout::requests(route, kind.index(), outcome.index());
                    let labels = [kind.as_str(), outcome.as_str(), name];
                    samples.add(&labels, self.sums[index]);
                }
            }
        }
    }

    fn write_repeated(&self, samples: &mut Samples) {
        samples.add(&[], self.sums[self.layout.repeated()]);
    }

    fn write_responses(&self, samples: &mut Samples) {
        for (route, name) in self.route_labels() {
            for (class, class_name) in CLASSES.iter().enumerate() {
                let index = self.layout.responses(route, class);
                samples.add(&[class_name, name], self.sums[index]);
            }
        }
    }

    fn write_sent_bytes(&self, samples: &mut Samples) {
        for kind in Kind::ALL {
            let index = self.layout.sent_bytes(kind.index());
            samples.add(&[kind.as_str()], self.sums[index]);
        }
    }

    fn write_aborted(&self, samples: &mut Samples) {
        for kind in Kind::ALL {
            for cause in AbortCause::ALL {
                let index = self.layout.aborted(kind.index(), cause.index());
                samples.add(&[cause.as_str(), kind.as_str()], self.sums[index]);
            }
        }
    }

    fn write_head_seconds(&self, samples: &mut Samples) {
        for kind in Kind::ALL {
            for source in ResponseSource::ALL {
                let first = self.layout.head_time(kind.index(), source.index());
                let labels = [kind.as_str(), source.as_str()];
                self.write_histogram(samples, &labels, first, &HEAD_BOUNDS);
            }
        }
    }

    fn write_origin_seconds(&self, samples: &mut Samples) {
        for (route, name) in self.route_labels() {
            let first = self.layout.origin_time(route);
            self.write_histogram(samples, &[name], first, &ORIGIN_BOUNDS);
        }
    }

    fn write_histogram(
        &self,
        samples: &mut Samples,
        labels: &[&str],
        first: usize,
        bounds: &[Duration],
    ) {
        let mut within = 0;
        let counters = &self.sums[first..];
        let buckets: Vec<(Duration, u64)> = bounds
            .iter()
            .zip(counters)
            .map(|(bound, count)| {
                within += count;
                (*bound, within)
            })
            .collect();
        let total = within + counters[bounds.len()];
        let sum = Duration::from_nanos(counters[bounds.len() + 1]);
        samples.add_histogram(labels, buckets, (total, sum));
    }
}

#[cfg(test)]
mod tests;
