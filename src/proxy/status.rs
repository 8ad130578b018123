//! What does the answer say of how it came about? `Cache-Status` (RFC 9211), `X-Cache` and `CMSD-Dynamic`.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::RequestContext;
use crate::cache::Lookup;
use crate::manifest::cmsd_dynamic;
use crate::policy::Lifetime;
use crate::policy::freshness::ttl_seconds;
use crate::policy::headers::CMSD_DYNAMIC;
use crate::telemetry::Outcome;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(super) const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// Why a request had to be forwarded: RFC 9211 §2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForwardReason {
    /// It had not.
    Nothing,
    /// Nothing is held for this URI.
    UriMiss,
    /// Something is held for this URI, but for other request headers.
    VaryMiss,
    /// What is held is stale.
    Stale,
    /// Only parts of it are held.
    Partial,
    /// The method is not the cache's business.
    Method,
    /// The answers to this key are not cacheable.
    Bypass,
}

impl ForwardReason {
    pub(super) fn because(found: &Lookup) -> ForwardReason {
        if found.object.is_some() {
            ForwardReason::Stale
        } else if found.has_variants() {
            ForwardReason::VaryMiss
        } else {
            ForwardReason::UriMiss
        }
    }

    fn as_str(self) -> Option<&'static str> {
        match self {
            ForwardReason::Nothing => None,
            ForwardReason::UriMiss => Some("uri-miss"),
            ForwardReason::VaryMiss => Some("vary-miss"),
            ForwardReason::Stale => Some("stale"),
            ForwardReason::Partial => Some("partial"),
            ForwardReason::Method => Some("method"),
            ForwardReason::Bypass => Some("bypass"),
        }
    }
}

/// What is known of the answer besides.
#[derive(Clone, Copy, Default)]
pub(super) struct CacheStatusDetail<'a> {
    /// How long it is good; `None` when it is not held.
    pub(super) lifetime: Option<&'a Lifetime>,
    /// What the origin answered.
    pub(super) origin_status: Option<u16>,
    /// It is being stored.
    pub(super) stored: bool,
    /// In a word.
    pub(super) detail: Option<&'static str>,
}

/// Writes them.
pub(super) fn tell(
    headers: &mut HeaderMap,
    ask: &RequestContext,
    outcome: Outcome,
    story: CacheStatusDetail<'_>,
) {
    let mut text = String::with_capacity(64);
    text.push_str(&ask.shield);
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
    } else if let Some(reason) = ask.forward.as_str() {
        text.push_str("; fwd=");
        text.push_str(reason);
    }
    // Writing to a String cannot fail.
    if let Some(status) = story.origin_status {
        let _ = write!(text, "; fwd-status={status}");
    }
    if story.stored {
        text.push_str("; stored");
    }
    if ask.collapsed && !from_memory {
        text.push_str("; collapsed");
    }
    if let Some(lifetime) = story.lifetime {
        let _ = write!(text, "; ttl={}", ttl_seconds(lifetime, ask.now));
    }
    if ask.entry.route.show_key {
        let _ = write!(text, "; key=\"{:016x}\"", ask.entry.key.fingerprint());
    }
    if let Some(detail) = story.detail.or(detail_of(outcome)) {
        text.push_str("; detail=");
        text.push_str(detail);
    }
    if let Ok(value) = HeaderValue::try_from(text) {
        // What caches before us said stays, ours comes last: the nearest to the viewer (RFC 9211 §2).
        headers.append(CACHE_STATUS, value);
    }
    if ask.entry.route.x_cache {
        headers.insert(X_CACHE, x_cache(outcome));
    }
    if ask.entry.route.cmsd {
        let item = cmsd_dynamic(&ask.shield, is_in_trouble(outcome));
        if let Ok(value) = HeaderValue::try_from(item) {
            headers.insert(CMSD_DYNAMIC.clone(), value);
        }
    }
}

/// The origin is, and players had better ask for less.
fn is_in_trouble(outcome: Outcome) -> bool {
    use Outcome::{Failed, StaleError, StaleMissing};
    matches!(outcome, Failed | StaleError | StaleMissing)
}

fn detail_of(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Stale => Some("refreshing"),
        Outcome::StaleError => Some("origin-failed"),
        Outcome::StaleMissing => Some("origin-says-missing"),
        Outcome::HeldBack => Some("held-back"),
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
