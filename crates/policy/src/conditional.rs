//! Evaluates preconditions (`If-None-Match`, `If-Modified-Since`, `If-Match`,
//! `If-Unmodified-Since`; RFC 9110 §13) against a stored response, and builds the validators for
//! revalidation at the origin.

pub(super) mod etag;
#[cfg(test)]
mod tests;

use http::header::{
    AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE,
    CONTENT_TYPE, DATE, ETAG, EXPIRES, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, SET_COOKIE, VARY, VIA,
};
use http::{HeaderMap, HeaderName};

use self::etag::EntityTag;
use super::{fields, headers};

/// The result of the preconditions, in the order of RFC 9110 §13.2.2. `If-Range` is handled in
/// [`super::range`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreconditionResult {
    /// No precondition, or all are true: send the full response.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// The stored fields that preconditions are compared with.
pub const VALIDATORS: [HeaderName; 3] = [ETAG, LAST_MODIFIED, DATE];

/// Whether a request has a precondition.
pub fn is_conditional(request: &HeaderMap) -> bool {
    const FIELDS: [HeaderName; 4] = [
        IF_NONE_MATCH,
        IF_MODIFIED_SINCE,
        IF_MATCH,
        IF_UNMODIFIED_SINCE,
    ];
    FIELDS.iter().any(|field| request.contains_key(field))
}

/// Evaluates the preconditions of a GET or HEAD against the headers of a stored 200.
pub fn evaluate(request: &HeaderMap, stored: &HeaderMap) -> PreconditionResult {
    if request.contains_key(IF_MATCH) {
        if !names_stored(request, IF_MATCH, stored, |tag, stored_tag| {
            tag.matches_strongly(stored_tag)
        }) {
            return PreconditionResult::Failed;
        }
    } else if let Some(since) = fields::date(request, IF_UNMODIFIED_SINCE)
        // §13.1.4: ignored if the resource has no modification date.
        && fields::date(stored, LAST_MODIFIED).is_some_and(|modified| modified > since)
    {
        return PreconditionResult::Failed;
    }

    // §13.1.3: `If-Modified-Since` is ignored if `If-None-Match` is present, whatever its result.
    let not_modified = if request.contains_key(IF_NONE_MATCH) {
        names_stored(request, IF_NONE_MATCH, stored, |tag, stored_tag| {
            tag.matches_weakly(stored_tag)
        })
    } else if let Some(since) = fields::date(request, IF_MODIFIED_SINCE) {
        // RFC 9111 §4.3.2: without a stored modification date its `Date` is used.
        fields::date(stored, LAST_MODIFIED)
            .or_else(|| fields::date(stored, DATE))
            .is_some_and(|modified| modified <= since)
    } else {
        false
    };
    if not_modified {
        PreconditionResult::NotModified
    } else {
        PreconditionResult::Proceed
    }
}

/// Adds the validators of a stored object to an upstream request (`If-None-Match`,
/// `If-Modified-Since`). Returns whether there was one.
pub fn validators(stored: &HeaderMap, upstream: &mut HeaderMap) -> bool {
    // A malformed tag is sent back unchanged: the origin knows what it means.
    let tag = fields::single(stored, ETAG).filter(|tag| !tag.is_empty());
    if let Some(tag) = tag {
        upstream.insert(IF_NONE_MATCH, tag.clone());
    }
    let modified = stored
        .get(LAST_MODIFIED)
        .filter(|_| fields::date(stored, LAST_MODIFIED).is_some());
    if let Some(modified) = modified {
        upstream.insert(IF_MODIFIED_SINCE, modified.clone());
    }
    tag.is_some() || modified.is_some()
}

/// Headers of a 304 from a stored response: those that RFC 9110 §15.4.5 lists, and those that
/// viewers and downstream caches need. The caller adds `Age` and `Cache-Status`.
pub fn not_modified_headers(stored: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(stored.len());
    for (name, value) in stored {
        if belongs_on_not_modified(name) {
            headers.append(name, value.clone());
        }
    }
    headers
}

/// The stored headers after a 304 (or a HEAD that matches). Each field of `update` replaces the
/// stored one, except those that describe the stored body (`Content-Length`, `Content-Encoding`,
/// `Content-Range`, `Content-Type`, `Transfer-Encoding`, …; RFC 9111 §3.2), hop-by-hop fields, and
/// `Set-Cookie`, which is for one viewer and would reach all.
///
/// `update` is the result of [`headers::downstream`].
pub fn updated(stored: &HeaderMap, update: &HeaderMap) -> HeaderMap {
    let mut headers = stored.clone();
    for name in update.keys().filter(|name| !keeps_its_value(name)) {
        headers.remove(name);
        for value in update.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    headers
}

/// Whether the field lists the stored entity tag, or `*`. `same` compares two tags.
fn names_stored(
    request: &HeaderMap,
    field: HeaderName,
    stored: &HeaderMap,
    same: impl Fn(EntityTag<'_>, EntityTag<'_>) -> bool,
) -> bool {
    let stored_tag = stored
        .get(ETAG)
        .and_then(|value| EntityTag::of(value.as_bytes()));
    request.get_all(field).into_iter().any(|line| {
        let line = line.as_bytes().trim_ascii();
        // `*` matches any stored representation (RFC 9110 §13.1.1, §13.1.2).
        line == b"*"
            || stored_tag
                .is_some_and(|stored_tag| EntityTag::list(line).any(|tag| same(tag, stored_tag)))
    })
}

fn belongs_on_not_modified(name: &HeaderName) -> bool {
    const NAMED: [HeaderName; 8] = [
        CACHE_CONTROL,
        CONTENT_LOCATION,
        DATE,
        ETAG,
        EXPIRES,
        LAST_MODIFIED,
        VARY,
        VIA,
    ];
    // Browsers apply CORS to a 304 by the 304's own fields.
    NAMED.contains(name)
        || name.as_str().starts_with("access-control-")
        || matches!(
            name.as_str(),
            "timing-allow-origin" | "cross-origin-resource-policy" | "cache-status" | "cmsd-static"
        )
}

fn keeps_its_value(name: &HeaderName) -> bool {
    const KEPT: [HeaderName; 6] = [
        AGE,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        SET_COOKIE,
    ];
    KEPT.contains(name)
        || matches!(name.as_str(), "content-md5" | "content-digest")
        || headers::is_hop_by_hop(name)
}
