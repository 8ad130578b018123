//! The metrics of access rules: what they refused, and the tokens that are remembered.

use crate::proxy::{AccessStats, TokenStats};
use crate::telemetry::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};
use seawall_policy::AccessRuleKind;

const REASON: MetricLabel = MetricLabel {
    name: "reason",
    values: LabelValues::Fixed(|| AccessRuleKind::ALL.map(AccessRuleKind::as_str).to_vec()),
};

const TOKEN_REASON: MetricLabel = MetricLabel {
    name: "reason",
    values: LabelValues::Fixed(|| TokenStats::REASONS.to_vec()),
};

/// Requests that the access rules of routes refused.
pub static ACCESS_METRICS: [CollectedMetric<AccessStats>; 6] = [Metric {
    name: "seawall_access_refused_total",
    kind: MetricKind::Counter,
    unit: "requests",
    labels: &[REASON],
    help: "Requests refused with 403 by an access rule of their route: address (`allow`, `deny`), \
           header (`require_header`: it is missing or has another value), certificate \
           (`client_certificate`), or token. Increments with each such request.",
    remedy: "If it rises, the access log has the addresses (status 403). If they are those of your \
             CDN, it has new networks, or a secret that no file contains; else somebody probes.",
}
.collected(|stats, samples| {
    for (rule, count) in stats.refused {
        samples.add(&[rule.as_str()], count);
    }
}), Metric {
    name: "seawall_tokens_refused_total",
    kind: MetricKind::Counter,
    unit: "requests",
    labels: &[TOKEN_REASON],
    help: "Requests refused because of their token, by why. Increments with each such request.",
    remedy: "A rise of expired is normal at the end of an event. key: a key id that no route \
             knows. signature: a forgery, or another secret than the issuer's. url: a viewer \
             shares a token, or the issuer permits too little. flood: a client sends forgeries.",
}
.collected(|stats: &AccessStats, samples| {
    for (reason, count) in &stats.tokens.refused {
        samples.add(&[reason], *count);
    }
}), Metric {
    name: "seawall_tokens_verified_total",
    kind: MetricKind::Counter,
    unit: "tokens",
    labels: &[],
    help: "Signatures of tokens that were verified. Increments when a worker gets a token that it \
           does not remember.",
    remedy: "Compare it with the viewers, times the workers. If it follows the requests, viewers \
             send a new token each time, or seawall_remembered_tokens_evicted_total rises.",
}
.collected(|stats: &AccessStats, samples| samples.add(&[], stats.tokens.verifications)), Metric {
    name: "seawall_remembered_tokens",
    kind: MetricKind::Gauge,
    unit: "tokens",
    labels: &[],
    help: "Verified tokens that the workers remember: 65,536 each at most.",
    remedy: "It is about the viewers, times the workers.",
}
.collected(|stats: &AccessStats, samples| samples.add(&[], stats.tokens.remembered)), Metric {
    name: "seawall_remembered_tokens_bytes",
    kind: MetricKind::Gauge,
    unit: "bytes",
    labels: &[],
    help: "Memory of the verified tokens that the workers remember: 16 MiB each at most.",
    remedy: "It is no part of `[cache] memory`: leave room for it.",
}
.collected(|stats: &AccessStats, samples| samples.add(&[], stats.tokens.remembered_bytes)), Metric {
    name: "seawall_remembered_tokens_evicted_total",
    kind: MetricKind::Counter,
    unit: "tokens",
    labels: &[],
    help: "Verified tokens that were forgotten for others. Increments when a worker remembers a \
           token, and has room for no more.",
    remedy: "If it rises all the time, there are more viewers than a worker can remember: their \
             tokens are verified more than once.",
}
.collected(|stats: &AccessStats, samples| samples.add(&[], stats.tokens.evictions))];
