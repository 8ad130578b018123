//! Writes `Cache-Status` (RFC 9211), `X-Cache` and `CMSD-Dynamic` into a response.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::RequestContext;
use crate::telemetry::Outcome;
use seawall_manifest::cmsd_dynamic;
use seawall_policy::Lifetime;
use seawall_policy::freshness::ttl_seconds;
use seawall_policy::headers::CMSD_DYNAMIC;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(super) const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// Further facts for `Cache-Status`.
#[derive(Clone, Copy, Default)]
pub(super) struct CacheStatusDetail<'a> {
    /// Its lifetime; `None` if it is not stored.
    pub(super) lifetime: Option<&'a Lifetime>,
    /// The origin's status.
    pub(super) origin_status: Option<u16>,
    /// The response is being stored.
    pub(super) stored: bool,
    /// The `detail` parameter.
    pub(super) detail: Option<&'static str>,
}

/// Writes the fields.
pub(super) fn write_cache_status(
    headers: &mut HeaderMap,
    context: &RequestContext,
    outcome: Outcome,
    details: CacheStatusDetail<'_>,
) {
    let mut text = String::with_capacity(64);
    text.push_str(&context.cache_name);
    let from_memory = matches!(
        outcome,
        Outcome::Hit
            | Outcome::Stale
            | Outcome::StaleError
            | Outcome::StaleMissing
            | Outcome::Negative
    );
    if from_memory {
        text.push_str("; hit");
    } else if let Some(reason) = context.forward.as_str() {
        text.push_str("; fwd=");
        text.push_str(reason);
    }
    // Writing to a String cannot fail.
    if let Some(status) = details.origin_status {
        let _ = write!(text, "; fwd-status={status}");
    }
    if details.stored {
        text.push_str("; stored");
    }
    if context.collapsed && !from_memory {
        text.push_str("; collapsed");
    }
    if let Some(lifetime) = details.lifetime {
        let _ = write!(text, "; ttl={}", ttl_seconds(lifetime, context.now));
    }
    if context.request.route.show_key {
        let _ = write!(text, "; key=\"{:016x}\"", context.request.key.fingerprint());
    }
    if let Some(detail) = details.detail.or(detail_of(outcome)) {
        text.push_str("; detail=");
        text.push_str(detail);
    }
    if let Ok(value) = HeaderValue::try_from(text) {
        // After the values of upstream caches: the cache nearest to the viewer is last (RFC 9211
        // §2).
        headers.append(CACHE_STATUS, value);
    }
    if context.request.route.x_cache {
        headers.insert(X_CACHE, x_cache(outcome));
    }
    if context.request.route.cmsd {
        let item = cmsd_dynamic(&context.cache_name, has_origin_failed(outcome));
        if let Ok(value) = HeaderValue::try_from(item) {
            headers.insert(CMSD_DYNAMIC.clone(), value);
        }
    }
}

/// The origin has failed: players should request less.
fn has_origin_failed(outcome: Outcome) -> bool {
    use Outcome::{Failed, StaleError, StaleMissing};
    matches!(outcome, Failed | StaleError | StaleMissing)
}

fn detail_of(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Stale => Some("refreshing"),
        Outcome::StaleError => Some("origin-failed"),
        Outcome::StaleMissing => Some("origin-says-missing"),
        Outcome::Blocking => Some("blocking"),
        _ => None,
    }
}

fn x_cache(outcome: Outcome) -> HeaderValue {
    HeaderValue::from_static(match outcome {
        Outcome::Hit | Outcome::Negative => "HIT",
        Outcome::Stale | Outcome::StaleError | Outcome::StaleMissing => "STALE",
        Outcome::Revalidated => "REVALIDATED",
        Outcome::Pass => "PASS",
        _ => "MISS",
    })
}
