//! The metrics of objects that come from the process before an upgrade.

use super::{HandoverStats, source};
use crate::telemetry::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};

const RESULT: MetricLabel = MetricLabel {
    name: "result",
    values: LabelValues::Fixed(|| source::results_of(|_| 0).map(|(result, _)| result).to_vec()),
};

/// The metrics of objects that come from the process before an upgrade.
pub static HANDOVER_METRICS: [CollectedMetric<HandoverStats>; 3] = [
    Metric {
        name: "seawall_upgrade_questions_total",
        kind: MetricKind::Counter,
        unit: "questions",
        labels: &[RESULT],
        help: "Objects for which the process before an upgrade was asked before the origin, by \
               result: given, absent (it has not stored it), late (no answer in 0.25 s, or no \
               whole object in 2 s more), failed (it has ended). Increments when the answer has \
               arrived, or would be too late.",
        remedy: "If late rises, the machine is too busy for two processes: upgrade when there is \
                 less load. What is not given is fetched from the origin.",
    }
    .collected(|stats, samples| {
        for (result, count) in stats.questions {
            samples.add(&[result], count);
        }
    }),
    Metric {
        name: "seawall_upgrade_bytes_total",
        kind: MetricKind::Counter,
        unit: "bytes",
        labels: &[],
        help: "Body bytes that came from the process before an upgrade instead of the origin. \
               Increments when an object is complete.",
        remedy: "None: it is what an upgrade has saved the origin.",
    }
    .collected(|stats, samples| samples.add(&[], stats.bytes)),
    Metric {
        name: "seawall_upgrade_connections",
        kind: MetricKind::Gauge,
        unit: "connections",
        labels: &[],
        help: "Connections to the process before an upgrade: as many objects can come from it at \
               once, 8 at most. 0: there is none, or it is not asked any more.",
        remedy: "None: the log says why it ended. Each answer that is late costs a connection.",
    }
    .collected(|stats, samples| samples.add(&[], stats.connections as u64)),
];
