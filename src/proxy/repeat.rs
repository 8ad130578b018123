//! Permits sending a response from memory again without repeating the work that led to it.
//!
//! Many viewers request the same playlist in the same words, many times a second. Their responses
//! differ in nothing but the request id, until the object changes or a second passes (`Age`).

use std::sync::Arc;
use std::time::Instant;

use super::rate_limits::RequestLimiter;
use seawall_cache::{FoundObject, Object};
use seawall_policy::{AddressClasses, IgnoredFields, Rules};

/// Which requests get the same response in one generation of settings.
#[derive(Clone, Debug, Default)]
pub struct RepeatRules {
    /// The generation.
    pub generation: u64,
    /// The request fields that cannot change a response.
    pub ignored_fields: Arc<IgnoredFields>,
    /// The classes of viewers that may share a response.
    pub address_classes: Arc<AddressClasses>,
}

impl RepeatRules {
    pub(super) fn of(generation: u64, rules: &Rules) -> RepeatRules {
        RepeatRules {
            generation,
            ignored_fields: Arc::new(IgnoredFields::of(rules)),
            address_classes: Arc::new(AddressClasses::of(rules)),
        }
    }
}

/// Says how long a response may be sent again, to requests that differ from its own in ignored
/// fields only.
pub struct RepeatPermit {
    /// The generation of the settings that led to the response.
    pub(super) generation: u64,
    /// The rate limits of the route, if it has any: each repeat counts as a request.
    pub(super) limiter: Option<Arc<RequestLimiter>>,
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

    /// The generation of the settings that led to the response: others may lead to another one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn has_refresher(&self) -> bool {
        let access_tracker = self.object().head.access_tracker.as_ref();
        access_tracker.is_some_and(|access_tracker| access_tracker.has_refresher())
    }

    /// What decides whether another request may have the response, if a rate limit does.
    pub fn limiter(&self) -> Option<&Arc<RequestLimiter>> {
        self.limiter.as_ref()
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
