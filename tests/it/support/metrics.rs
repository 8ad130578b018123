//! Under which names does the shield tell its numbers? One place for all that scenarios read.

/// Requests by `route`, `kind` and `outcome`.
pub const REQUESTS: &str = "seawall_requests_total";
/// Fills under way.
pub const FILLS: &str = "seawall_fills_in_flight";
/// Bytes held by fills under way.
pub const FILL_BYTES: &str = "seawall_fill_bytes";
/// Viewers at a fill, the one who caused it included.
pub const WAITERS: &str = "seawall_waiters";
/// Objects stored.
pub const STORED: &str = "seawall_store_objects";
/// Bytes of objects stored.
pub const STORED_BYTES: &str = "seawall_store_bytes";
