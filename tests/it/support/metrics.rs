//! Under which names does the shield tell its numbers? One place for all that scenarios read.

/// Requests by `route`, `kind` and `outcome`.
pub const REQUESTS: &str = "seawall_requests_total";
/// Fills under way.
pub const FILLS: &str = "seawall_fills_in_flight";
/// Bytes held by fills under way.
pub const FILL_BYTES: &str = "seawall_fill_bytes";
/// Bytes of bodies that memory has let go and that slow viewers still read.
pub const PINNED_BYTES: &str = "seawall_pinned_bytes";
/// The bound of that.
pub const PINNED_BYTES_MAX: &str = "seawall_pinned_bytes_max";
/// Answers that ended before their end, by `cause` and `kind`.
pub const ABORTED: &str = "seawall_responses_aborted_total";
/// Bytes of bodies sent to viewers.
pub const SENT_BYTES: &str = "seawall_sent_bytes_total";
/// Viewers at a fill, the one who caused it included.
pub const WAITERS: &str = "seawall_waiters";
/// Objects stored.
pub const STORED: &str = "seawall_store_objects";
/// Bytes of objects stored.
pub const STORED_BYTES: &str = "seawall_store_bytes";
/// Requests waiting to ask the origin, by `rank`.
pub const SURGE_QUEUE: &str = "seawall_origin_surge_queue_length";
/// Requests to origins under way.
pub const ORIGIN_IN_FLIGHT: &str = "seawall_origin_in_flight";
/// The same by `endpoint`, probes included.
pub const ORIGIN_ACTIVE: &str = "seawall_origin_active";
/// Requests turned away because the queue for the origin was full.
pub const SPILLOVER: &str = "seawall_origin_spillover_total";
/// Requests turned away before they reached the origin, by `reason`.
pub const REJECTED: &str = "seawall_origin_rejected_total";
/// Requests to the origin that viewers caused, by `endpoint` and `result`.
pub const ORIGIN_REQUESTS: &str = "seawall_origin_requests_total";
/// 1 while an `endpoint`'s checks go well; not there without checks.
pub const HEALTHY: &str = "seawall_origin_healthy";
/// Checks, by `endpoint` and `result`.
pub const HEALTH_CHECKS: &str = "seawall_origin_health_checks_total";
/// 1 for the `state` that an `endpoint`'s breaker is in.
pub const BREAKER: &str = "seawall_origin_breaker";
/// Times an `endpoint`'s breaker opened.
pub const BREAKER_OPENED: &str = "seawall_origin_breaker_opened_total";
/// Requests sent to an endpoint because another one was late, by `endpoint`.
pub const HEDGES: &str = "seawall_origin_hedges_total";
/// Those of them that were answered well, and first.
pub const HEDGES_WON: &str = "seawall_origin_hedges_won_total";
/// Bodies that another endpoint was asked for, by the `endpoint` that had begun them.
pub const TAKEOVERS: &str = "seawall_origin_takeovers_total";
/// Those for which none was asked, since the budget was spent.
pub const TAKEOVERS_REFUSED: &str = "seawall_origin_takeovers_refused_total";
/// Endpoints that are left alone for now.
pub const EJECTED: &str = "seawall_origin_ejected";
/// Requests under way, by `endpoint`.
pub const ACTIVE: &str = "seawall_origin_active";
/// How many that may be, by `endpoint` with such a bound.
pub const ACTIVE_MAX: &str = "seawall_origin_active_max";
/// Requests per second that an `endpoint` may get, by `kind`.
pub const RATE_MAX: &str = "seawall_origin_requests_per_second_max";
/// Times that a request found an `endpoint` at that rate, by `kind`.
pub const RATE_LIMITED: &str = "seawall_origin_rate_limited_total";
/// Connections to the origin, by `state`: new ones, and times one was used again.
pub const CONNECTIONS: &str = "seawall_origin_connections_total";
/// Requests that wait for slow viewers, beside those.
pub const SLOW_VIEWERS: &str = "seawall_origin_slow_viewers";
/// Those of them that were cut for want of room.
pub const SLOW_VIEWERS_CUT: &str = "seawall_origin_slow_viewers_cut_total";
/// Requests that origins hold back, outside their caps.
pub const HELD_BACK: &str = "seawall_origin_held_back";
/// Fetches under way that no viewer waits for any more.
pub const DESERTED: &str = "seawall_fetches_deserted";
/// Fetches given up because their viewers had left.
pub const GIVEN_UP: &str = "seawall_fetches_given_up_total";
/// Requests delayed or refused because their client left most of what it asked for, by `result`.
pub const RESTRAINED: &str = "seawall_requests_restrained_total";
/// What happened to viewers' connections, by `event`.
pub const EDGE_EVENTS: &str = "seawall_edge_events_total";
/// HTTP/2 connections closed for sending too many control frames, by `frame`.
pub const FLOODS: &str = "seawall_edge_http2_floods_total";
