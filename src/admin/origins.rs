//! Writes the statistics of origins as metrics and as the status page.

use std::time::Duration;

use serde_json::{Value, json};

use crate::telemetry::Exposition;
use seawall_upstream::{AttemptCounts, EndpointStats, Failure, LatencyHistogram, Stats};

/// The breaker's states, as label values.
const BREAKER_STATES: [&str; 3] = ["closed", "open", "probing"];

/// All groups and their endpoints, as metrics.
pub fn metrics(groups: &[Stats]) -> String {
    let mut page = Exposition::default();
    for stats in groups {
        write_admission(&mut page, stats);
        for endpoint in &stats.endpoints {
            write_requests(&mut page, stats, endpoint);
            write_traffic(&mut page, stats, endpoint);
            write_retries(&mut page, stats, endpoint);
            write_limits(&mut page, stats, endpoint);
            write_latency(&mut page, stats, endpoint);
            write_state(&mut page, stats, endpoint);
            write_health(&mut page, stats, endpoint);
        }
    }
    page.to_string()
}

/// Permits, queue and rejections, with the names that load balancers use.
fn write_admission(page: &mut Exposition, stats: &Stats) {
    let name = ("origin", &*stats.name);
    page.gauge(
        "seawall_origin_in_flight",
        "Requests to origins in progress.",
        &[name],
        stats.in_flight as u64,
    );
    page.gauge(
        "seawall_origin_held_back",
        "Blocking requests (LL-HLS) that the origin delays until there is a new version; not in in_flight.",
        &[name],
        stats.held_back as u64,
    );
    page.gauge(
        "seawall_origin_slow_viewers",
        "Requests that wait for a slow viewer and not for the origin (unstored bodies, uploads); not in in_flight or held_back.",
        &[name],
        stats.slow_viewers as u64,
    );
    page.counter(
        "seawall_origin_slow_viewers_cut_total",
        "Slow viewers cut because there were more than slow_viewers_max. Raise it to keep them.",
        &[name],
        stats.slow_viewers_cut,
    );
    page.gauge(
        "seawall_origin_queued",
        "Requests waiting for a permit for an origin.",
        &[name],
        stats.queued as u64,
    );
    for (rank, waiting) in stats.surge_queue {
        page.gauge(
            "seawall_origin_surge_queue_length",
            "Requests waiting for a permit for an origin, by priority.",
            &[name, ("rank", rank.as_str())],
            waiting as u64,
        );
    }
    page.counter(
        "seawall_origin_spillover_total",
        "Requests rejected because the queue was full: new ones, and queued ones that they displaced.",
        &[name],
        stats.spillover,
    );
    for (reason, count) in stats.rejected {
        page.counter(
            "seawall_origin_rejected_total",
            "Requests rejected before they reached an origin, by reason.",
            &[name, ("reason", reason.as_str())],
            count,
        );
    }
}

fn write_requests(page: &mut Exposition, stats: &Stats, endpoint: &EndpointStats) {
    let counts = &endpoint.counts;
    let classes = [
        ("2xx", counts.success),
        ("3xx", counts.redirect),
        ("4xx", counts.client_error),
        ("5xx", counts.server_error),
        ("abandoned", counts.abandoned),
    ];
    let failures = Failure::ALL.map(|failure| (failure.as_str(), counts.failed(failure)));
    for (result, count) in classes.into_iter().chain(failures) {
        page.counter(
            "seawall_origin_requests_total",
            "Requests to origins, by result.",
            &labels(stats, endpoint, ("result", result)),
            count,
        );
    }
}

fn write_traffic(page: &mut Exposition, stats: &Stats, endpoint: &EndpointStats) {
    let counts = &endpoint.counts;
    let both = &labels(stats, endpoint, ("", ""))[..2];
    page.counter(
        "seawall_origin_bytes_total",
        "Body bytes received from origins.",
        both,
        counts.bytes_received,
    );
    for (state, value) in [
        ("new", counts.connections_new),
        ("reused", counts.connections_reused),
    ] {
        page.counter(
            "seawall_origin_connections_total",
            "Connections to origins, new or reused.",
            &labels(stats, endpoint, ("state", state)),
            value,
        );
    }
    page.gauge(
        "seawall_origin_active",
        "Requests in progress, by endpoint.",
        both,
        counts.in_flight as u64,
    );
}

/// Retries, hedges and takeovers.
fn write_retries(page: &mut Exposition, stats: &Stats, endpoint: &EndpointStats) {
    let counts = &endpoint.counts;
    let both = &labels(stats, endpoint, ("", ""))[..2];
    page.counter(
        "seawall_origin_resent_total",
        "Requests sent again because the origin had closed a reused connection.",
        both,
        counts.resent,
    );
    page.counter(
        "seawall_origin_retries_total",
        "Requests retried after a failure of this endpoint.",
        both,
        counts.retries,
    );
    page.counter(
        "seawall_origin_hedges_total",
        "Hedged requests: sent to this endpoint because another one was late.",
        both,
        counts.hedges,
    );
    page.counter(
        "seawall_origin_hedges_won_total",
        "Hedged requests that won: this endpoint sent the first good response.",
        both,
        counts.hedges_won,
    );
    page.counter(
        "seawall_origin_takeovers_total",
        "Bodies that this endpoint sent too slowly, stopped or broke, and that were requested from another one.",
        both,
        counts.takeovers,
    );
    page.counter(
        "seawall_origin_takeovers_refused_total",
        "Takeovers not made because the retry budget was spent: all endpoints are slow.",
        both,
        counts.takeovers_refused,
    );
}

/// Limits of a single endpoint.
fn write_limits(page: &mut Exposition, stats: &Stats, endpoint: &EndpointStats) {
    let both = &labels(stats, endpoint, ("", ""))[..2];
    if let Some(cap) = endpoint.concurrency_max {
        page.gauge(
            "seawall_origin_active_max",
            "Limit of requests in progress, for endpoints with their own limit.",
            both,
            cap as u64,
        );
    }
    for quota in &endpoint.quotas {
        let labels = labels(stats, endpoint, ("kind", quota.kind));
        page.gauge(
            "seawall_origin_requests_per_second_max",
            "Limit of requests per second, by kind, for endpoints with their own limit.",
            &labels,
            u64::from(quota.per_second),
        );
        page.counter(
            "seawall_origin_rate_limited_total",
            "Times that a request found the endpoint at its requests_per_second_max and went to another \
             endpoint or waited. If it grows steadily, the origin's quota is too small for the audience.",
            &labels,
            quota.limited,
        );
    }
}

/// Time from sending a request to the response head: recent percentiles, and a histogram since
/// start.
fn write_latency(page: &mut Exposition, stats: &Stats, endpoint: &EndpointStats) {
    if let Some(pace) = endpoint.pace {
        let both = &labels(stats, endpoint, ("", ""))[..2];
        page.gauge(
            "seawall_origin_response_p50_seconds",
            "Median time to the response head, over the last seconds.",
            both,
            pace.p50,
        );
        page.gauge(
            "seawall_origin_response_p95_seconds",
            "95th percentile of the time to the response head, over the last seconds.",
            both,
            pace.p95,
        );
    }
    let latency = &endpoint.latency;
    let bounds = LatencyHistogram::BOUNDS.map(Into::into);
    page.histogram(
        "seawall_origin_target_response_seconds",
        "Time to the response head: what load balancers call target response time.",
        &labels(stats, endpoint, ("", ""))[..2],
        bounds.into_iter().zip(latency.within),
        (latency.count, latency.sum.into()),
    );
}

fn write_state(page: &mut Exposition, stats: &Stats, endpoint: &EndpointStats) {
    let both = &labels(stats, endpoint, ("", ""))[..2];
    let condition = &endpoint.condition;
    page.gauge(
        "seawall_origin_reachable",
        "Whether an address of the endpoint can be connected to, as far as is known.",
        both,
        u64::from(condition.reachable),
    );
    page.gauge(
        "seawall_origin_ejected",
        "Whether the endpoint is ejected: too many failures in a row, or too slow. It is used last.",
        both,
        u64::from(condition.ejected),
    );
    page.counter(
        "seawall_origin_ejections_total",
        "Times the endpoint was ejected.",
        both,
        condition.ejections,
    );
    for state in BREAKER_STATES {
        page.gauge(
            "seawall_origin_breaker",
            "The state of the endpoint's breaker: 1 for the current state.",
            &labels(stats, endpoint, ("state", state)),
            u64::from(condition.breaker == state),
        );
    }
    page.counter(
        "seawall_origin_breaker_opened_total",
        "Times the endpoint's breaker opened.",
        both,
        condition.breaker_opened,
    );
}

/// Endpoints without health checks have no metrics here.
fn write_health(page: &mut Exposition, stats: &Stats, endpoint: &EndpointStats) {
    let Some(checked) = &endpoint.condition.health else {
        return;
    };
    page.gauge(
        "seawall_origin_healthy",
        "Whether the endpoint passes its health checks; if not, it is used last.",
        &labels(stats, endpoint, ("", ""))[..2],
        u64::from(checked.healthy),
    );
    for (result, count) in [("passed", checked.passed), ("failed", checked.failed)] {
        page.counter(
            "seawall_origin_health_checks_total",
            "Health checks of the endpoint, by result.",
            &labels(stats, endpoint, ("result", result)),
            count,
        );
    }
}

fn labels<'a>(
    stats: &'a Stats,
    endpoint: &'a EndpointStats,
    more: (&'a str, &'a str),
) -> [(&'a str, &'a str); 3] {
    [
        ("origin", &*stats.name),
        ("endpoint", &*endpoint.endpoint),
        more,
    ]
}

/// All groups and their endpoints, as JSON.
pub fn status(groups: &[Stats]) -> Value {
    let groups = groups.iter().map(|stats| {
        json!({
            "name": &*stats.name,
            "in_flight": stats.in_flight,
            "held_back": stats.held_back,
            "slow_viewers": stats.slow_viewers,
            "queued": stats.queued,
            "surge_queue": counts_by_name(stats.surge_queue.map(|(rank, n)| (rank.as_str(), n as u64))),
            "spillover": stats.spillover,
            "rejected": counts_by_name(stats.rejected.map(|(reason, n)| (reason.as_str(), n))),
            "endpoints": stats.endpoints.iter().map(endpoint_status).collect::<Vec<_>>(),
        })
    });
    json!({ "origins": groups.collect::<Vec<_>>() })
}

fn counts_by_name<const N: usize>(counts: [(&str, u64); N]) -> Value {
    counts
        .into_iter()
        .map(|(word, count)| (word.to_owned(), json!(count)))
        .collect()
}

fn endpoint_status(endpoint: &EndpointStats) -> Value {
    let condition = &endpoint.condition;
    json!({
        "url": &*endpoint.endpoint,
        "reachable": condition.reachable,
        "healthy": condition.health.as_ref().map(|checked| checked.healthy),
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
        "response_ms": endpoint.pace.map(|pace| json!({
            "p50": millis(pace.p50),
            "p95": millis(pace.p95),
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
