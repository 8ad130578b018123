//! The metrics of origin groups: permits, queue and rejections, with the names that load balancers
//! use.

use crate::telemetry::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};
use seawall_upstream::{Priority, Rejection, Stats};

pub(super) const ORIGIN: MetricLabel = MetricLabel {
    name: "origin",
    values: LabelValues::Dynamic("the name of an `[[origin]]`"),
};
const PRIORITY: MetricLabel = MetricLabel {
    name: "priority",
    values: LabelValues::Fixed(|| Priority::ALL.map(Priority::as_str).to_vec()),
};
const REJECTION: MetricLabel = MetricLabel {
    name: "reason",
    values: LabelValues::Fixed(|| Rejection::ALL.map(Rejection::as_str).to_vec()),
};

/// The metrics of each origin group.
pub static GROUP_METRICS: [CollectedMetric<Vec<Stats>>; 8] = [
    Metric {
        name: "seawall_origin_in_flight",
        kind: MetricKind::Gauge,
        unit: "requests",
        labels: &[ORIGIN],
        help: "Requests to the origin in progress that hold a permit.",
        remedy: "If it stays at concurrency_max, the origin is too slow for the audience, or the \
                 limit too low.",
    }
    .collected(|groups, samples| {
        for group in groups {
            samples.add(&[&group.name], group.in_flight);
        }
    }),
    Metric {
        name: "seawall_origin_blocking",
        kind: MetricKind::Gauge,
        unit: "requests",
        labels: &[ORIGIN],
        help: "Blocking requests (LL-HLS) in progress: the origin answers each when its version or \
               part exists. Not in seawall_origin_in_flight. About two per watched rendition.",
        remedy: "If it grows without new streams, the packager has stopped.",
    }
    .collected(|groups, samples| {
        for group in groups {
            samples.add(&[&group.name], group.blocking);
        }
    }),
    Metric {
        name: "seawall_origin_slow_viewers",
        kind: MetricKind::Gauge,
        unit: "requests",
        labels: &[ORIGIN],
        help: "Requests that wait for a slow viewer and not for the origin (unstored bodies, \
               uploads); not in seawall_origin_in_flight or seawall_origin_blocking.",
        remedy: "At slow_viewers_max the one that waited longest is cut: raise it, or find out why \
                 the responses are not stored.",
    }
    .collected(|groups, samples| {
        for group in groups {
            samples.add(&[&group.name], group.slow_viewers);
        }
    }),
    Metric {
        name: "seawall_origin_slow_viewers_cut_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[ORIGIN],
        help: "Slow viewers cut because there were more than slow_viewers_max. Increments with \
               each cut.",
        remedy: "Raise slow_viewers_max to keep them.",
    }
    .collected(|groups, samples| {
        for group in groups {
            samples.add(&[&group.name], group.slow_viewers_cut);
        }
    }),
    Metric {
        name: "seawall_origin_queued",
        kind: MetricKind::Gauge,
        unit: "requests",
        labels: &[ORIGIN],
        help: "Requests waiting for a permit for the origin.",
        remedy: "If it stays above 0, the origin is too slow, or concurrency_max too low.",
    }
    .collected(|groups, samples| {
        for group in groups {
            samples.add(&[&group.name], group.queued);
        }
    }),
    Metric {
        name: "seawall_origin_queued_by_priority",
        kind: MetricKind::Gauge,
        unit: "requests",
        labels: &[ORIGIN, PRIORITY],
        help: "Requests waiting for a permit for the origin, by priority, highest first: manifest, \
               edge (a segment at the live edge), segment, refresh, prefetch.",
        remedy: "If manifest or edge stay above 0, viewers wait: raise concurrency_max, or add \
                 endpoints.",
    }
    .collected(|groups, samples| {
        for group in groups {
            for (priority, waiting) in group.queued_by_priority {
                samples.add(&[&group.name, priority.as_str()], waiting);
            }
        }
    }),
    Metric {
        name: "seawall_origin_queue_full_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[ORIGIN],
        help: "Requests rejected because the queue was full: new ones, and queued ones that they \
               displaced. Increments with each rejection.",
        remedy: "If it rises, the origin is too slow for the audience: raise concurrency_max or \
                 queue_max, or add endpoints.",
    }
    .collected(|groups, samples| {
        for group in groups {
            samples.add(&[&group.name], group.queue_full);
        }
    }),
    Metric {
        name: "seawall_origin_rejected_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[ORIGIN, REJECTION],
        help: "Requests rejected before they reached the origin, by reason. Increments with each \
               rejection.",
        remedy: "queue_full, displaced: as seawall_origin_queue_full_total. deadline: requests wait \
                 too long in the queue; raise concurrency_max.",
    }
    .collected(|groups, samples| {
        for group in groups {
            for (reason, count) in group.rejected {
                samples.add(&[&group.name, reason.as_str()], count);
            }
        }
    }),
];
