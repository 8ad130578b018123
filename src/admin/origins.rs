//! Writes the statistics of origins as the status page.

use std::time::Duration;

use serde_json::{Value, json};

use seawall_upstream::{AttemptCounts, EndpointStats, Stats};

/// All groups and their endpoints, as JSON.
pub fn status(groups: &[Stats]) -> Value {
    let groups = groups.iter().map(|stats| {
        json!({
            "name": &*stats.name,
            "in_flight": stats.in_flight,
            "blocking": stats.blocking,
            "slow_viewers": stats.slow_viewers,
            "queued": stats.queued,
            "queued_by_priority": counts_by_name(stats.queued_by_priority.map(|(priority, n)| (priority.as_str(), n as u64))),
            "queue_full": stats.queue_full,
            "rejected": counts_by_name(stats.rejected.map(|(reason, n)| (reason.as_str(), n))),
            "endpoints": stats.endpoints.iter().map(endpoint_status).collect::<Vec<_>>(),
        })
    });
    json!({ "origins": groups.collect::<Vec<_>>() })
}

fn counts_by_name<const N: usize>(counts: [(&str, u64); N]) -> Value {
    counts
        .into_iter()
        .map(|(name, count)| (name.to_owned(), json!(count)))
        .collect()
}

fn endpoint_status(endpoint: &EndpointStats) -> Value {
    let condition = &endpoint.condition;
    json!({
        "url": &*endpoint.endpoint,
        "reachable": condition.reachable,
        "healthy": condition.health.as_ref().map(|health| health.healthy),
        "ejected": condition.ejected,
        "ejections": condition.ejections,
        "breaker": condition.breaker,
        "breaker_opened": condition.breaker_opened,
        "in_flight": endpoint.counts.in_flight,
        "concurrency_max": endpoint.concurrency_max,
        "requests_per_second_max": quotas_status(endpoint),
        "requests": requests_status(&endpoint.counts),
        "retries": endpoint.counts.retries,
        "hedges": endpoint.counts.hedges,
        "hedges_won": endpoint.counts.hedges_won,
        "takeovers": endpoint.counts.takeovers,
        "takeovers_refused": endpoint.counts.takeovers_refused,
        "response_ms": endpoint.recent_latency.map(|response_times| json!({
            "p50": millis(response_times.p50),
            "p95": millis(response_times.p95),
        })),
        "bytes_received": endpoint.counts.bytes_received,
    })
}

/// By kind; null if the endpoint has no quota.
fn quotas_status(endpoint: &EndpointStats) -> Value {
    let quotas = endpoint.quotas.iter();
    let quotas: serde_json::Map<_, _> = quotas
        .map(|quota| {
            let limit = json!({ "limit": quota.per_second, "limited": quota.limited });
            (quota.kind.to_owned(), limit)
        })
        .collect();
    if quotas.is_empty() {
        Value::Null
    } else {
        quotas.into()
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn requests_status(counts: &AttemptCounts) -> Value {
    let failed: u64 = counts.failures.iter().sum();
    json!({
        "2xx": counts.success,
        "3xx": counts.redirect,
        "4xx": counts.client_error,
        "5xx": counts.server_error,
        "abandoned": counts.abandoned,
        "failed": failed,
    })
}
