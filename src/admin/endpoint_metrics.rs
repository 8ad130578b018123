//! The metrics of each endpoint of an origin group: attempts, limits, latency and state.

use super::origin_metrics::ORIGIN;
use crate::telemetry::{
    CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel, SampleValue, Samples, YES_OR_NO,
};
use seawall_upstream::{
    AttemptCounts, EndpointStats, Failure, HealthCheckStats, LatencyHistogram, Stats,
};

/// The breaker's states, as label values.
const BREAKER_STATES: [&str; 3] = ["closed", "open", "probing"];

const ENDPOINT: MetricLabel = MetricLabel {
    name: "endpoint",
    values: LabelValues::Dynamic("the URL of the endpoint"),
};
const RESULT: MetricLabel = MetricLabel {
    name: "result",
    values: LabelValues::Fixed(|| {
        results(&AttemptCounts::default())
            .map(|(word, _)| word)
            .collect()
    }),
};
const CONNECTION: MetricLabel = MetricLabel {
    name: "state",
    values: LabelValues::Fixed(|| vec!["new", "reused"]),
};
const QUOTA: MetricLabel = MetricLabel {
    name: "kind",
    values: LabelValues::Fixed(|| vec!["all", "manifest", "segment", "other"]),
};
const BREAKER: MetricLabel = MetricLabel {
    name: "state",
    values: LabelValues::Fixed(|| BREAKER_STATES.to_vec()),
};
const CHECK: MetricLabel = MetricLabel {
    name: "result",
    values: LabelValues::Fixed(|| vec!["passed", "failed"]),
};

/// All endpoints of all groups, with the values of the labels `origin` and `endpoint`.
fn endpoints(groups: &[Stats]) -> impl Iterator<Item = ([&str; 2], &EndpointStats)> {
    groups.iter().flat_map(|group| {
        let endpoints = group.endpoints.iter();
        endpoints.map(|endpoint| ([&*group.name, &*endpoint.endpoint], endpoint))
    })
}

/// Adds a sample for each endpoint that has a value.
fn add_by_endpoint<V: SampleValue>(
    groups: &[Stats],
    samples: &mut Samples,
    value: impl Fn(&EndpointStats) -> Option<V>,
) {
    for (labels, endpoint) in endpoints(groups) {
        if let Some(value) = value(endpoint) {
            samples.add(&labels, value);
        }
    }
}

/// The endpoints with health checks.
fn health_checks(groups: &[Stats]) -> impl Iterator<Item = ([&str; 2], &HealthCheckStats)> {
    endpoints(groups).filter_map(|(labels, endpoint)| {
        let checks = endpoint.condition.health.as_ref()?;
        Some((labels, checks))
    })
}

/// Ended attempts by result: the status class of a complete response, or why there was none.
fn results(counts: &AttemptCounts) -> impl Iterator<Item = (&'static str, u64)> {
    let ended = [
        ("2xx", counts.success),
        ("3xx", counts.redirect),
        ("4xx", counts.client_error),
        ("5xx", counts.server_error),
        ("abandoned", counts.abandoned),
    ];
    let failures = Failure::ALL.map(|failure| (failure.as_str(), counts.failed(failure)));
    ended.into_iter().chain(failures)
}

/// The metrics of each endpoint.
pub static ENDPOINT_METRICS: [CollectedMetric<Vec<Stats>>; 23] = [
    Metric {
        name: "seawall_origin_requests_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[ORIGIN, ENDPOINT, RESULT],
        help: "Requests to the endpoint, by result: the status class of a complete response, \
               abandoned (cancelled by Seawall or its viewers), or the kind of failure. Increments \
               when an attempt ends.",
        remedy: "If a failure rises, check that endpoint; docs/origins.md says what Seawall does \
                 about each.",
    }
    .collected(|groups, samples| {
        for ([origin, url], endpoint) in endpoints(groups) {
            for (result, count) in results(&endpoint.counts) {
                samples.add(&[origin, url, result], count);
            }
        }
    }),
    Metric {
        name: "seawall_origin_bytes_total",
        kind: MetricKind::Counter,
        unit: "bytes",
        labels: &[ORIGIN, ENDPOINT],
        help: "Body bytes received from the endpoint. Increments with each piece of a body.",
        remedy: "If it is near the capacity of the link or the quota of the origin, check the hit \
                 ratio (docs/outcomes.md).",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| {
            Some(endpoint.counts.bytes_received)
        });
    }),
    Metric {
        name: "seawall_origin_connections_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[ORIGIN, ENDPOINT, CONNECTION],
        help: "Attempts, by whether they opened a connection (new) or used an open one (reused; \
               over HTTP/2 a further stream). Increments with each attempt.",
        remedy: "If new rises as fast as reused, the endpoint closes connections early: raise its \
                 idle timeout.",
    }
    .collected(|groups, samples| {
        for ([origin, url], endpoint) in endpoints(groups) {
            let counts = &endpoint.counts;
            samples.add(&[origin, url, "new"], counts.connections_new);
            samples.add(&[origin, url, "reused"], counts.connections_reused);
        }
    }),
    Metric {
        name: "seawall_origin_active",
        kind: MetricKind::Gauge,
        unit: "requests",
        labels: &[ORIGIN, ENDPOINT],
        help: "Requests to the endpoint in progress, probes included.",
        remedy: "If one endpoint has far more than the others, it is slower than they are.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| Some(endpoint.counts.in_flight));
    }),
    Metric {
        name: "seawall_origin_active_max",
        kind: MetricKind::Gauge,
        unit: "requests",
        labels: &[ORIGIN, ENDPOINT],
        help: "The endpoint's own limit of requests in progress, where it has one. Constant.",
        remedy: "If seawall_origin_active stays there, raise concurrency_max of the endpoint, or \
                 add endpoints.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| endpoint.concurrency_max);
    }),
    Metric {
        name: "seawall_origin_requests_per_second_max",
        kind: MetricKind::Gauge,
        unit: "requests per second",
        labels: &[ORIGIN, ENDPOINT, QUOTA],
        help: "The endpoint's own limit of requests per second, where it has one. Constant.",
        remedy: "If seawall_origin_rate_limited_total rises steadily, ask the origin for a larger \
                 quota.",
    }
    .collected(|groups, samples| {
        for ([origin, url], endpoint) in endpoints(groups) {
            for quota in &endpoint.quotas {
                samples.add(&[origin, url, quota.kind], quota.per_second);
            }
        }
    }),
    Metric {
        name: "seawall_origin_rate_limited_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[ORIGIN, ENDPOINT, QUOTA],
        help: "Times that a request found the endpoint at its requests_per_second_max and went to \
               another endpoint, waited, or was not sent a second time. Increments each time.",
        remedy: "If it rises steadily, the origin's quota is too small for the audience.",
    }
    .collected(|groups, samples| {
        for ([origin, url], endpoint) in endpoints(groups) {
            for quota in &endpoint.quotas {
                samples.add(&[origin, url, quota.kind], quota.limited);
            }
        }
    }),
    Metric {
        name: "seawall_origin_resent_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[ORIGIN, ENDPOINT],
        help: "Requests sent again because the origin had closed a reused connection, or refused a \
               header's new value. Increments with each repetition.",
        remedy: "If it rises, the endpoint closes idle connections before Seawall does: raise its \
                 idle timeout.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| Some(endpoint.counts.resent));
    }),
    Metric {
        name: "seawall_origin_retries_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[ORIGIN, ENDPOINT],
        help: "Requests retried after a failure of this endpoint. Increments with each retry.",
        remedy: "If it rises, check the failures of this endpoint in \
                 seawall_origin_requests_total.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| Some(endpoint.counts.retries));
    }),
    Metric {
        name: "seawall_origin_hedges_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[ORIGIN, ENDPOINT],
        help: "Hedged requests: sent to this endpoint because another one was late. Increments \
               with each one.",
        remedy: "If it rises, another endpoint of the group is slow: see \
                 seawall_origin_target_response_seconds.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| Some(endpoint.counts.hedges));
    }),
    Metric {
        name: "seawall_origin_hedges_won_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[ORIGIN, ENDPOINT],
        help: "Hedged requests that won: this endpoint sent the first good response. Increments \
               with each win.",
        remedy: "If nearly all hedges win, the late endpoint is of no use: take it out.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| Some(endpoint.counts.hedges_won));
    }),
    Metric {
        name: "seawall_origin_takeovers_total",
        kind: MetricKind::Counter,
        unit: "bodies",
        labels: &[ORIGIN, ENDPOINT],
        help: "Bodies that this endpoint sent too slowly, stopped or broke, and that were \
               requested from another one. Increments with each takeover.",
        remedy: "If it rises, check this endpoint and the network to it.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| Some(endpoint.counts.takeovers));
    }),
    Metric {
        name: "seawall_origin_takeovers_refused_total",
        kind: MetricKind::Counter,
        unit: "bodies",
        labels: &[ORIGIN, ENDPOINT],
        help: "Takeovers not made because the retry budget was spent. Increments with each \
               refusal.",
        remedy: "If it rises, all endpoints are slow: check the origin.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| {
            Some(endpoint.counts.takeovers_refused)
        });
    }),
    Metric {
        name: "seawall_origin_response_p50_seconds",
        kind: MetricKind::Gauge,
        unit: "seconds",
        labels: &[ORIGIN, ENDPOINT],
        help: "Median time to the response head, over the last seconds; absent with too few \
               responses.",
        remedy: "If it rises, check the endpoint.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| {
            endpoint.recent_latency.map(|latency| latency.p50)
        });
    }),
    Metric {
        name: "seawall_origin_response_p95_seconds",
        kind: MetricKind::Gauge,
        unit: "seconds",
        labels: &[ORIGIN, ENDPOINT],
        help: "95th percentile of the time to the response head, over the last seconds; absent \
               with too few responses. The wait before a hedged request follows from it.",
        remedy: "If it is far above the median, the endpoint is overloaded for a part of its \
                 requests.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| {
            endpoint.recent_latency.map(|latency| latency.p95)
        });
    }),
    Metric {
        name: "seawall_origin_target_response_seconds",
        kind: MetricKind::Histogram,
        unit: "seconds",
        labels: &[ORIGIN, ENDPOINT],
        help: "Time to the response head: what load balancers call target response time. Observed \
               when a head arrives.",
        remedy: "If it rises, check the endpoint.",
    }
    .collected(|groups, samples| {
        for (labels, endpoint) in endpoints(groups) {
            let latency = &endpoint.latency;
            let buckets = LatencyHistogram::BOUNDS.into_iter().zip(latency.within);
            samples.add_histogram(&labels, buckets, (latency.count, latency.sum));
        }
    }),
    Metric {
        name: "seawall_origin_reachable",
        kind: MetricKind::Gauge,
        unit: YES_OR_NO,
        labels: &[ORIGIN, ENDPOINT],
        help: "Whether an address of the endpoint can be connected to, as far as is known.",
        remedy: "If 0, check the endpoint, its name and the network.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| {
            Some(endpoint.condition.reachable)
        });
    }),
    Metric {
        name: "seawall_origin_ejected",
        kind: MetricKind::Gauge,
        unit: YES_OR_NO,
        labels: &[ORIGIN, ENDPOINT],
        help: "Whether the endpoint is ejected: too many failures in a row, too slow, silent while \
               others answered, or others succeeded for its failed URLs. It is used last.",
        remedy: "If 1, check the endpoint; it returns by itself.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| Some(endpoint.condition.ejected));
    }),
    Metric {
        name: "seawall_origin_ejections_total",
        kind: MetricKind::Counter,
        unit: "ejections",
        labels: &[ORIGIN, ENDPOINT],
        help: "Times the endpoint was ejected. Increments with each ejection.",
        remedy: "If it rises, the endpoint fails or slows down again and again: check it.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| {
            Some(endpoint.condition.ejections)
        });
    }),
    Metric {
        name: "seawall_origin_breaker",
        kind: MetricKind::Gauge,
        unit: YES_OR_NO,
        labels: &[ORIGIN, ENDPOINT, BREAKER],
        help: "The state of the endpoint's breaker: 1 for the current state, 0 for the others.",
        remedy: "If open is 1, the endpoint gets only probes, and requests for directories in which \
                 nothing failed: check it.",
    }
    .collected(|groups, samples| {
        for ([origin, url], endpoint) in endpoints(groups) {
            for state in BREAKER_STATES {
                let is_current = endpoint.condition.breaker == state;
                samples.add(&[origin, url, state], is_current);
            }
        }
    }),
    Metric {
        name: "seawall_origin_breaker_opened_total",
        kind: MetricKind::Counter,
        unit: "times",
        labels: &[ORIGIN, ENDPOINT],
        help: "Times the endpoint's breaker opened. Increments each time.",
        remedy: "If it rises, the endpoint fails again and again: check it.",
    }
    .collected(|groups, samples| {
        add_by_endpoint(groups, samples, |endpoint| {
            Some(endpoint.condition.breaker_opened)
        });
    }),
    Metric {
        name: "seawall_origin_healthy",
        kind: MetricKind::Gauge,
        unit: YES_OR_NO,
        labels: &[ORIGIN, ENDPOINT],
        help: "Whether the endpoint passes its health checks, where it has any; if not, it is used \
               last.",
        remedy: "If 0, check the endpoint, and the path and status of the check.",
    }
    .collected(|groups, samples| {
        for (labels, checks) in health_checks(groups) {
            samples.add(&labels, checks.healthy);
        }
    }),
    Metric {
        name: "seawall_origin_health_checks_total",
        kind: MetricKind::Counter,
        unit: "checks",
        labels: &[ORIGIN, ENDPOINT, CHECK],
        help: "Health checks of the endpoint, by result. Increments with each check.",
        remedy: "If failed rises, check the endpoint, and the path and status of the check.",
    }
    .collected(|groups, samples| {
        for ([origin, url], checks) in health_checks(groups) {
            samples.add(&[origin, url, "passed"], checks.passed);
            samples.add(&[origin, url, "failed"], checks.failed);
        }
    }),
];
