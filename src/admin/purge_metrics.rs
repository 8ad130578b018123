//! The metrics of purges.

use crate::proxy::{PurgeMode, PurgeScope, PurgeStats};
use crate::telemetry::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};

const SCOPE: MetricLabel = MetricLabel {
    name: "scope",
    values: LabelValues::Fixed(|| PurgeScope::NAMES.to_vec()),
};
const MODE: MetricLabel = MetricLabel {
    name: "mode",
    values: LabelValues::Fixed(|| PurgeMode::ALL.map(PurgeMode::as_str).to_vec()),
};

/// Purges that operators ordered.
pub static PURGE_METRICS: [CollectedMetric<PurgeStats>; 3] = [
    Metric {
        name: "seawall_purges_total",
        kind: MetricKind::Counter,
        unit: "purges",
        labels: &[SCOPE, MODE],
        help: "Purges by what they selected and what they did with it. Increments when a purge is \
               complete, also when nothing was stored.",
        remedy: "If it rises without a cause you know, the log names who ordered each purge.",
    }
    .collected(|stats, samples| {
        for ((scope, mode), count) in &stats.purges {
            samples.add(&[scope, mode], *count);
        }
    }),
    Metric {
        name: "seawall_purged_objects_total",
        kind: MetricKind::Counter,
        unit: "objects",
        labels: &[],
        help: "Objects that purges dropped or made stale. Increments when a purge is complete, by \
               the objects that were usable until then; a dry run does not count.",
        remedy: "If it rises as fast as seawall_store_insertions_total, purges undo what the cache \
                 does: purge less at once, by path or tag.",
    }
    .collected(|stats, samples| samples.add(&[], stats.objects)),
    Metric {
        name: "seawall_purged_bytes_total",
        kind: MetricKind::Counter,
        unit: "bytes",
        labels: &[],
        help: "Bytes that purged objects took, overhead included. Increments when a purge is \
               complete.",
        remedy: "The origin sends them again when viewers request them: purge less at once if it \
                 cannot.",
    }
    .collected(|stats, samples| samples.add(&[], stats.bytes)),
];
