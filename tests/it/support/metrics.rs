//! The names of metrics that scenarios read.

/// The page that lists every metric.
pub const REFERENCE: &str = include_str!("../../../docs/metrics.md");

/// Whether the reference lists the metric of a series. A misspelt name would count 0 for ever.
pub fn is_listed(series: &str) -> bool {
    let parts = ["", "_count", "_sum", "_bucket"];
    let mut metrics = parts.iter().filter_map(|part| series.strip_suffix(part));
    metrics.any(|metric| REFERENCE.contains(&format!("### `{metric}`")))
}

/// Requests by `route`, `kind` and `outcome`.
pub const REQUESTS: &str = "seawall_requests_total";
/// Requests that an access rule refused, by `reason`.
pub const ACCESS_REFUSED: &str = "seawall_access_refused_total";
/// Requests that were refused because of their token, by `reason`.
pub const TOKENS_REFUSED: &str = "seawall_tokens_refused_total";
/// Tokens whose signature was verified.
pub const TOKENS_VERIFIED: &str = "seawall_tokens_verified_total";
/// Requests over a rate limit, by `per` and `quantity`.
pub const REQUESTS_LIMITED: &str = "seawall_rate_limited_total";
/// Requests by `client_class` and `source`.
pub const CLASS_REQUESTS: &str = "seawall_class_requests_total";
/// Body bytes sent, by `client_class`.
pub const CLASS_SENT_BYTES: &str = "seawall_class_sent_bytes_total";
/// Requests to origins that a `client_class` caused.
pub const CLASS_ORIGIN_REQUESTS: &str = "seawall_class_origin_requests_total";
/// Their body bytes.
pub const CLASS_ORIGIN_BYTES: &str = "seawall_class_origin_bytes_total";
/// Refused requests by `client_class` and `status`.
pub const CLASS_REFUSED: &str = "seawall_class_refused_total";
/// Fetches that a `client_class` was spared.
pub const CLASS_COLLAPSED: &str = "seawall_class_collapsed_total";
/// Responses that `store_private` made shareable.
pub const PRIVATE_OVERRIDDEN: &str = "seawall_private_overridden_total";
/// Hits that got the response of an earlier one again.
pub const REPEATED: &str = "seawall_repeated_responses_total";
/// Bytes of responses that are remembered to be sent again.
pub const REPEATED_BYTES: &str = "seawall_repeated_response_bytes";
/// Fills in progress.
pub const FILLS: &str = "seawall_fills_in_flight";
/// Bytes held by fills in progress.
pub const FILL_BYTES: &str = "seawall_fill_bytes";
/// Bytes of evicted bodies that slow viewers still read.
pub const PINNED_BYTES: &str = "seawall_pinned_bytes";
/// The limit of pinned bytes.
pub const PINNED_BYTES_MAX: &str = "seawall_pinned_bytes_max";
/// Responses that were cut before their end, by `cause` and `kind`.
pub const ABORTED: &str = "seawall_responses_aborted_total";
/// Bytes of bodies sent to viewers.
pub const SENT_BYTES: &str = "seawall_sent_bytes_total";
/// Viewers that wait on fills, the leaders included.
pub const WAITERS: &str = "seawall_waiters";
/// Stored objects.
pub const STORED: &str = "seawall_store_objects";
/// Bytes of stored objects.
pub const STORED_BYTES: &str = "seawall_store_bytes";
/// Tags of stored objects.
pub const TAGS: &str = "seawall_tags";
/// Responses with too many tags.
pub const TAGS_OVERFLOWED: &str = "seawall_tags_overflowed_total";
/// Objects that were asked of the process before an upgrade, by `result`.
pub const UPGRADE_QUESTIONS: &str = "seawall_upgrade_questions_total";
/// Connections to that process.
pub const UPGRADE_CONNECTIONS: &str = "seawall_upgrade_connections";
/// Purges by `scope` and `mode`.
pub const PURGES: &str = "seawall_purges_total";
/// Objects that purges dropped.
pub const PURGED_OBJECTS: &str = "seawall_purged_objects_total";
/// Their bytes.
pub const PURGED_BYTES: &str = "seawall_purged_bytes_total";
/// Requests in the queue before the origin, by `priority`.
pub const QUEUED_BY_PRIORITY: &str = "seawall_origin_queued_by_priority";
/// Requests to origins in progress.
pub const ORIGIN_IN_FLIGHT: &str = "seawall_origin_in_flight";
/// The same by `endpoint`, probes included.
pub const ORIGIN_ACTIVE: &str = "seawall_origin_active";
/// Requests rejected because the queue for the origin was full.
pub const QUEUE_FULL: &str = "seawall_origin_queue_full_total";
/// Requests rejected before they reached the origin, by `reason`.
pub const REJECTED: &str = "seawall_origin_rejected_total";
/// Origin requests caused by viewers, by `endpoint` and `result`.
pub const ORIGIN_REQUESTS: &str = "seawall_origin_requests_total";
/// 1 while an `endpoint`'s checks pass; absent without checks.
pub const HEALTHY: &str = "seawall_origin_healthy";
/// Health checks, by `endpoint` and `result`.
pub const HEALTH_CHECKS: &str = "seawall_origin_health_checks_total";
/// 1 for the `state` of an `endpoint`'s breaker.
pub const BREAKER: &str = "seawall_origin_breaker";
/// How often an `endpoint`'s breaker opened.
pub const BREAKER_OPENED: &str = "seawall_origin_breaker_opened_total";
/// Hedged requests, by the `endpoint` that got them.
pub const HEDGES: &str = "seawall_origin_hedges_total";
/// Hedged requests that won.
pub const HEDGES_WON: &str = "seawall_origin_hedges_won_total";
/// Takeovers, by the `endpoint` that had begun the body.
pub const TAKEOVERS: &str = "seawall_origin_takeovers_total";
/// Takeovers not made because the retry budget was spent.
pub const TAKEOVERS_REFUSED: &str = "seawall_origin_takeovers_refused_total";
/// Ejected endpoints.
pub const EJECTED: &str = "seawall_origin_ejected";
/// Requests in progress, by `endpoint`.
pub const ACTIVE: &str = "seawall_origin_active";
/// The limit of these, by `endpoint` with a limit.
pub const ACTIVE_MAX: &str = "seawall_origin_active_max";
/// Requests per second that an `endpoint` may get, by `kind`.
pub const RATE_MAX: &str = "seawall_origin_requests_per_second_max";
/// How often a request found an `endpoint` at that rate, by `kind`.
pub const RATE_LIMITED: &str = "seawall_origin_rate_limited_total";
/// Connections to the origin, by `state`: new, or reused.
pub const CONNECTIONS: &str = "seawall_origin_connections_total";
/// Requests that wait for slow viewers, outside the concurrency limit.
pub const SLOW_VIEWERS: &str = "seawall_origin_slow_viewers";
/// Slow-viewer requests cut because `slow_viewers_max` was reached.
pub const SLOW_VIEWERS_CUT: &str = "seawall_origin_slow_viewers_cut_total";
/// Blocking requests in progress, outside the concurrency limit.
pub const BLOCKING_REQUESTS: &str = "seawall_origin_blocking";
/// Fetches in progress without a viewer.
pub const WITHOUT_VIEWERS: &str = "seawall_fetches_without_viewers";
/// Fetches cancelled because their viewers had left.
pub const CANCELLED: &str = "seawall_fetches_cancelled_total";
/// Requests delayed or rejected because their client abandoned most of its requests, by `result`.
pub const THROTTLED: &str = "seawall_requests_throttled_total";
/// Events of viewers' connections, by `event`.
pub const VIEWER_EVENTS: &str = "seawall_viewer_events_total";
/// HTTP/2 connections closed for too many control frames, by `frame`.
pub const FLOODS: &str = "seawall_viewer_http2_floods_total";
/// 1 for the `state` that a drain is in.
pub const DRAIN_STATE: &str = "seawall_drain_state";
