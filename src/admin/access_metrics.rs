//! The metrics of access rules: what they refused.

use crate::proxy::AccessStats;
use crate::telemetry::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};
use seawall_policy::AccessRuleKind;

const REASON: MetricLabel = MetricLabel {
    name: "reason",
    values: LabelValues::Fixed(|| AccessRuleKind::ALL.map(AccessRuleKind::as_str).to_vec()),
};

/// Requests that the access rules of routes refused.
pub static ACCESS_METRICS: [CollectedMetric<AccessStats>; 1] = [Metric {
    name: "seawall_access_refused_total",
    kind: MetricKind::Counter,
    unit: "requests",
    labels: &[REASON],
    help: "Requests refused with 403 by an access rule of their route: address (`allow`, `deny`), \
           or header (`require_header`: it is missing or has another value). Increments with each \
           such request.",
    remedy: "If it rises, the access log has the addresses (status 403). If they are those of your \
             CDN, it has new networks, or a secret that no file contains; else somebody probes.",
}
.collected(|stats, samples| {
    for (rule, count) in stats.refused {
        samples.add(&[rule.as_str()], count);
    }
})];
