//! The metrics of access rules and rate limits: what they refused, and the tokens that are
//! remembered.

use crate::proxy::{AccessStats, LimitScope, RateLimitStats, TokenStats};
use crate::telemetry::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};
use seawall_policy::AccessRuleKind;
use seawall_policy::rate_limit::LimitedQuantity;

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
           header (`require_header`: it is missing or has another value), client_class \
           (`client_classes`), certificate (`require_certificate`), or token. Increments with \
           each such request.",
    remedy: "If it rises, the access log has the addresses and the routes (status 403, the same \
             `reason`). If they are those of your CDN, it has new networks, or a secret that no \
             file contains; else somebody probes.",
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
             shares a token, or the issuer permits too little. flood: a client sends forgeries. \
             The access log has each, in `reason_detail`.",
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

const PER: MetricLabel = MetricLabel {
    name: "per",
    values: LabelValues::Fixed(|| LimitScope::ALL.map(LimitScope::as_str).to_vec()),
};
const QUANTITY: MetricLabel = MetricLabel {
    name: "quantity",
    values: LabelValues::Fixed(|| LimitedQuantity::ALL.map(LimitedQuantity::as_str).to_vec()),
};

/// Requests that rate limits refused.
pub static RATE_LIMIT_METRICS: [CollectedMetric<RateLimitStats>; 2] = [
    Metric {
        name: "seawall_rate_limited_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[PER, QUANTITY],
        help: "Requests refused with 429 by a `rate_limit`: of each client or of the whole route, or \
               of a client class, because of the requests or of the bytes before. Increments with \
               each such request.",
        remedy: "If it rises, the access log has the addresses, and the limits in `reason_detail` \
                 (status 429). One address: somebody requests too much, or many viewers share it; \
                 behind a proxy, set trusted_proxies. Many addresses: the limit is lower than what \
                 players need. A client class: its CDN requests more than its share; \
                 `seawall_class_requests_total` has the rates.",
    }
    .collected(|stats, samples| {
        for (scope, quantity, count) in &stats.refused {
            samples.add(&[scope.as_str(), quantity.as_str()], *count);
        }
    }),
    Metric {
        name: "seawall_rate_limit_buckets_displaced_total",
        kind: MetricKind::Counter,
        unit: "buckets",
        labels: &[],
        help: "New clients that got the token bucket of another client, which had used up a part of \
               it: all 8 places that the new client could have had were in use. It goes on with \
               what is left in the bucket. Increments with each such client.",
        remedy: "If it rises by more than one in 1,000 requests, some 100,000 clients request as \
                 fast as the limits of routes allow: an attack from many addresses, or limits so \
                 low that ordinary clients use them up.",
    }
    .collected(|stats, samples| samples.add(&[], stats.displaced)),
];
