//! Permits sending a response from memory again without repeating the work that led to it.
//!
//! Many viewers request the same playlist in the same words, many times a second. Their responses
//! differ in nothing but the request id, until the object changes or a second passes (`Age`).

use std::sync::Arc;
use std::time::Instant;

use seawall_cache::{FoundObject, Object};

/// Says how long a response may be sent again, to requests that differ from its own in ignored
/// fields only.
pub struct RepeatPermit {
    pub(super) found_object: FoundObject,
    pub(super) until: Instant,
    /// The object is past its freshness, and is served because a background task refreshes it.
    pub(super) needs_refresher: bool,
}

impl RepeatPermit {
    /// Whether a new lookup would lead to the same response. Writes no memory that other threads
    /// read.
    pub fn is_valid(&self, now: Instant) -> bool {
        now < self.until
            && self.found_object.is_still_stored()
            && (!self.needs_refresher || self.has_refresher())
    }

    fn has_refresher(&self) -> bool {
        let access_tracker = self.object().head.access_tracker.as_ref();
        access_tracker.is_some_and(|access_tracker| access_tracker.has_refresher())
    }

    /// Records that the response was sent again, as a lookup would have done.
    pub fn record_hit(&self, now: Instant) {
        let object = self.object();
        object.hits.add();
        if let Some(access_tracker) = &object.head.access_tracker {
            access_tracker.record_access(now);
        }
    }

    /// The stored object that the response comes from.
    pub fn object(&self) -> &Arc<Object> {
        self.found_object.object()
    }
}
