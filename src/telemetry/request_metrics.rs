//! The metrics of requests. Every sample is looked up once at start, so that counting a request
//! costs a few relaxed atomic additions and no lookup.

use std::sync::Arc;

use http::StatusCode;
use prometheus::{Histogram, IntCounter};

use super::metric::{LabelValues, Metric, MetricKind, MetricLabel};
use super::{AbortCause, MetricRegistry, Outcome, RequestRecord, ResponseSource};
use seawall_manifest::Kind;

/// The route label of requests without a matching route.
const NO_ROUTE: &str = "none";

/// From a hit in memory to the longest wait of a viewer.
const HEAD_SECONDS: [f64; 15] = [
    0.000_05, 0.000_1, 0.000_25, 0.001, 0.002_5, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    15.0,
];

/// From an origin in the same rack to one that is about to time out.
const ORIGIN_SECONDS: [f64; 12] = [
    0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0,
];

/// Status classes. Codes outside 100–599 count as `other`.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

fn class_index(status: StatusCode) -> usize {
    let hundreds = usize::from(status.as_u16() / 100);
    hundreds.saturating_sub(1).min(CLASSES.len() - 1)
}

const ROUTE: MetricLabel = MetricLabel {
    name: "route",
    values: LabelValues::Dynamic("the name of a `[[route]]`, or `none`"),
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

static REQUESTS: Metric = Metric {
    name: "seawall_requests_total",
    kind: MetricKind::Counter,
    unit: "requests",
    labels: &[ROUTE, KIND, OUTCOME],
    help: "Requests from viewers, by outcome. Increments when a request ends.",
    remedy: "If failed, stale_error or overload rise, check the origin; docs/outcomes.md explains \
             each outcome and the hit ratio.",
};
static RESPONSES: Metric = Metric {
    name: "seawall_responses_total",
    kind: MetricKind::Counter,
    unit: "responses",
    labels: &[ROUTE, CLASS],
    help: "Responses to viewers, by status class. Increments when a response ends.",
    remedy: "If 5xx rises, see the outcomes in seawall_requests_total.",
};
static SENT_BYTES: Metric = Metric {
    name: "seawall_sent_bytes_total",
    kind: MetricKind::Counter,
    unit: "bytes",
    labels: &[KIND],
    help: "Body bytes sent to viewers. Increments when a response ends, by the whole body.",
    remedy: "If it is near the capacity of the network, add a server.",
};
static ABORTED: Metric = Metric {
    name: "seawall_responses_aborted_total",
    kind: MetricKind::Counter,
    unit: "responses",
    labels: &[KIND, CAUSE],
    help: "Responses whose body was truncated, by cause. Increments when such a response ends.",
    remedy: "origin: the origin's body ended early; check the origin. viewer: the viewer left or \
             was too slow. memory: the viewer was too slow for the memory limit; raise [cache] \
             memory or [fill] memory.",
};
static HEAD_TIME: Metric = Metric {
    name: "seawall_response_head_seconds",
    kind: MetricKind::Histogram,
    unit: "seconds",
    labels: &[KIND, SOURCE],
    help: "Time from a request's arrival to its response head, by what it depended on: memory (no \
           wait), held_back (the object did not exist yet), origin, shield (rejections). Observed \
           when a response ends.",
    remedy: "If source=origin rises, check the origin. If source=memory rises, the server's \
             processors are busy.",
};
static ORIGIN_TIME: Metric = Metric {
    name: "seawall_origin_head_seconds",
    kind: MetricKind::Histogram,
    unit: "seconds",
    labels: &[ROUTE],
    help: "Time that requests waited for the head of an origin response, from their own fetch or \
           a joined one. Observed when a response ends. Requests answered from memory, and \
           requests for objects that did not exist yet, are not observed.",
    remedy: "If it rises, check the origin: seawall_origin_target_response_seconds says which \
             endpoint is slow, seawall_origin_queued whether requests wait for a permit.",
};

/// The metrics of requests. Tables are dense: the position of a sample is computed from the indexes
/// of its labels.
pub struct RequestMetrics {
    /// Number of routes. It is also the index of the route "none".
    routes: usize,
    /// Indexed by route, kind and outcome.
    requests: Vec<IntCounter>,
    /// Indexed by route and status class.
    responses: Vec<IntCounter>,
    /// Indexed by kind.
    sent_bytes: Vec<IntCounter>,
    /// Indexed by kind and cause.
    aborted: Vec<IntCounter>,
    /// Indexed by kind and source.
    head_seconds: Vec<Histogram>,
    /// Indexed by route.
    origin_seconds: Vec<Histogram>,
}

impl RequestMetrics {
    /// Registers the metrics and creates every sample for these routes. A request record holds its
    /// route's index in this list.
    pub fn new(
        route_names: &[Arc<str>],
        registry: &mut MetricRegistry,
    ) -> Result<RequestMetrics, prometheus::Error> {
        const TITLE: &str = "Requests and responses";
        let named = route_names.iter().map(|name| &**name);
        // The values of `route`, the only dynamic label here.
        let routes: Vec<&str> = named.chain([NO_ROUTE]).collect();
        Ok(RequestMetrics {
            routes: route_names.len(),
            requests: registry.register_counter(TITLE, &REQUESTS, &routes)?,
            responses: registry.register_counter(TITLE, &RESPONSES, &routes)?,
            sent_bytes: registry.register_counter(TITLE, &SENT_BYTES, &routes)?,
            aborted: registry.register_counter(TITLE, &ABORTED, &routes)?,
            head_seconds: registry.register_histogram(TITLE, &HEAD_TIME, &HEAD_SECONDS, &routes)?,
            origin_seconds: registry.register_histogram(
                TITLE,
                &ORIGIN_TIME,
                &ORIGIN_SECONDS,
                &routes,
            )?,
        })
    }

    /// Counts one finished request.
    pub fn count(&self, record: &RequestRecord) {
        let route = record
            .route
            .as_ref()
            .map_or(self.routes, |(_, index)| *index);
        // The routes are the same while the process runs. Counting must not panic all the same.
        let route = route.min(self.routes);
        let kind = record.kind.index();
        let outcome = record.outcome.index();
        self.requests[(route * Kind::ALL.len() + kind) * Outcome::ALL.len() + outcome].inc();
        if record.outcome == Outcome::Left {
            // There was no response.
            return;
        }
        self.responses[route * CLASSES.len() + class_index(record.status)].inc();
        self.sent_bytes[kind].inc_by(record.bytes);
        if let Some(cause) = record.aborted_by {
            self.aborted[kind * AbortCause::ALL.len() + cause.index()].inc();
        }
        let source = record.outcome.source();
        self.head_seconds[kind * ResponseSource::ALL.len() + source.index()]
            .observe(record.head_time.as_secs_f64());
        if let Some(waited) = record
            .origin_time
            .filter(|_| source != ResponseSource::HeldBack)
        {
            self.origin_seconds[route].observe(waited.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::record_of;
    use super::*;

    fn metrics() -> (RequestMetrics, MetricRegistry) {
        let mut registry = MetricRegistry::default();
        let metrics = RequestMetrics::new(&["live".into(), "vod \"x\"".into()], &mut registry);
        (metrics.unwrap(), registry)
    }

    fn has(registry: &MetricRegistry, sample: &str) {
        let page = registry.render();
        let name = sample.split('{').next().unwrap();
        let near: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with(name) && !line.ends_with(" 0"))
            .collect();
        assert!(
            page.lines().any(|line| line == sample),
            "no {sample} in {near:#?}"
        );
    }

    #[test]
    fn every_combination_has_a_sample_from_the_start() {
        let page = metrics().1.render();
        let samples = page
            .lines()
            .filter(|line| line.starts_with("seawall_requests_total{"));
        assert_eq!(samples.count(), 3 * Kind::ALL.len() * Outcome::ALL.len());
    }

    #[test]
    fn each_index_reaches_the_sample_of_its_name() {
        let (metrics, registry) = metrics();
        for kind in Kind::ALL {
            for outcome in Outcome::ALL {
                metrics.count(&RequestRecord {
                    route: Some(("vod \"x\"".into(), 1)),
                    bytes: 10,
                    ..record_of(outcome, kind, 206)
                });
                let (kind, outcome) = (kind.as_str(), outcome.as_str());
                let labels = format!(r#"kind="{kind}",outcome="{outcome}",route="vod \"x\"""#);
                has(&registry, &format!("seawall_requests_total{{{labels}}} 1"));
            }
        }
        has(
            &registry,
            r#"seawall_responses_total{class="2xx",route="vod \"x\""} 98"#,
        );
        has(&registry, r#"seawall_sent_bytes_total{kind="init"} 140"#);
    }

    #[test]
    fn counts_unknown_routes_as_none() {
        let (metrics, registry) = metrics();
        metrics.count(&record_of(Outcome::Refused, Kind::Other, 421));
        metrics.count(&RequestRecord {
            route: Some(("unknown".into(), 9)),
            ..record_of(Outcome::Refused, Kind::Other, 403)
        });
        let labels = r#"kind="other",outcome="refused",route="none""#;
        has(&registry, &format!("seawall_requests_total{{{labels}}} 2"));
        has(
            &registry,
            r#"seawall_responses_total{class="4xx",route="none"} 2"#,
        );
    }

    #[test]
    fn counts_cut_bodies_and_times_by_label() {
        let (metrics, registry) = metrics();
        metrics.count(&RequestRecord {
            route: Some(("live".into(), 0)),
            aborted_by: Some(AbortCause::Origin),
            origin_time: Some(Duration::from_millis(20)),
            head_time: Duration::from_millis(30),
            ..record_of(Outcome::Miss, Kind::Segment, 200)
        });
        metrics.count(&record_of(Outcome::Hit, Kind::Segment, 200));
        has(
            &registry,
            r#"seawall_responses_aborted_total{cause="origin",kind="segment"} 1"#,
        );
        has(
            &registry,
            r#"seawall_origin_head_seconds_sum{route="live"} 0.02"#,
        );
        let missed = r#"kind="segment",source="origin""#;
        has(
            &registry,
            &format!("seawall_response_head_seconds_count{{{missed}}} 1"),
        );
        let hit = r#"kind="segment",source="memory",le="0.0001""#;
        has(
            &registry,
            &format!("seawall_response_head_seconds_bucket{{{hit}}} 1"),
        );
    }

    #[test]
    fn groups_statuses_by_class() {
        let classes = [
            (100, "1xx"),
            (200, "2xx"),
            (304, "3xx"),
            (499, "4xx"),
            (504, "5xx"),
        ];
        for (status, class) in classes.into_iter().chain([(999, "other")]) {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(CLASSES[class_index(status)], class);
        }
    }
}
