//! Response heads: status, headers as MediaPackage sends them, ranges, validators.

use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::body::OriginBody;
use super::faults::StreamView;
use super::media_assets::DemoRendition;
use super::resource::{Packaging, Resource};

pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const MAX_AGE_14_DAYS: HeaderValue = HeaderValue::from_static("max-age=1209600");
const MAX_AGE_1_SECOND: HeaderValue = HeaderValue::from_static("max-age=1");

const LAST_SEQUENCE: HeaderName = HeaderName::from_static("x-mediapackage-manifest-last-sequence");
const LAST_UPDATED: HeaderName = HeaderName::from_static("x-mediapackage-manifest-last-updated");

/// `Range: bytes=FIRST-LAST`, the last byte optional. Other forms are ignored, as RFC 9110 §14.2
/// allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestRange {
    first: u64,
    last: Option<u64>,
}

/// Whether the body is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyCompleteness {
    /// It is complete.
    Whole,
    /// It still grows.
    SoFar,
}

impl RequestRange {
    pub(super) fn of(headers: &HeaderMap) -> Option<RequestRange> {
        let text = headers.get(RANGE)?.to_str().ok()?;
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let first = first.parse().ok()?;
        let last = match last {
            "" => None,
            last => Some(last.parse().ok()?),
        };
        let ordered = last.is_none_or(|last| last >= first);
        ordered.then_some(RequestRange { first, last })
    }

    pub(super) fn begins_within(self, length: u64) -> bool {
        self.first < length
    }
}

/// Complete media, or the requested range of them.
pub(super) fn media(
    view: &StreamView,
    bytes: Bytes,
    resource: Resource,
    range: Option<RequestRange>,
    completeness: BodyCompleteness,
) -> Response<OriginBody> {
    let mut response = Response::new(OriginBody::whole(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type(resource));
    headers.insert(CACHE_CONTROL, MAX_AGE_14_DAYS);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if completeness == BodyCompleteness::Whole {
        headers.insert(ETAG, etag(&bytes));
    }
    let Some(bytes) = apply_range(&mut response, bytes, range, completeness) else {
        *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        return response;
    };
    *response.body_mut() = if view.faults.cut_media {
        OriginBody::cut_in_half(&bytes)
    } else {
        OriginBody::whole(bytes)
    };
    response
}

/// Media that are sent as they are made.
pub(super) fn growing_media(body: OriginBody, resource: Resource) -> Response<OriginBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type(resource));
    headers.insert(CACHE_CONTROL, MAX_AGE_14_DAYS);
    response
}

/// Cuts out a range and sets Content-Range; `None` if the range is not satisfiable.
fn apply_range(
    response: &mut Response<OriginBody>,
    bytes: Bytes,
    range: Option<RequestRange>,
    completeness: BodyCompleteness,
) -> Option<Bytes> {
    let Some(range) = range else {
        return Some(bytes);
    };
    let length = bytes.len() as u64;
    let total = match completeness {
        BodyCompleteness::Whole => length.to_string(),
        BodyCompleteness::SoFar => "*".to_owned(),
    };
    let is_satisfiable = range.begins_within(length);
    let last = range.last.unwrap_or(u64::MAX).min(length.saturating_sub(1));
    let content_range = if is_satisfiable {
        format!("bytes {}-{last}/{total}", range.first)
    } else {
        format!("bytes */{total}")
    };
    if let Ok(content_range) = HeaderValue::try_from(content_range) {
        response.headers_mut().insert(CONTENT_RANGE, content_range);
    }
    if !is_satisfiable {
        return None;
    }
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let (first, last) = (usize::try_from(range.first), usize::try_from(last));
    Some(bytes.slice(first.ok()?..=last.ok()?))
}

/// A manifest.
pub(super) fn manifest(
    view: &StreamView,
    mut text: String,
    resource: Resource,
) -> Response<OriginBody> {
    if view.faults.cut_manifests {
        text.truncate(text.len() / 2);
    }
    let segments = view.broadcast.segments(view.listing_time);
    let updated = view.broadcast.segment_begins(segments).as_millis();
    let text = Bytes::from(text);
    let mut response = Response::new(OriginBody::whole(text.clone()));
    let headers = response.headers_mut();
    let low_latency =
        matches!(resource, Resource::Playlist(packaging, _) if packaging.is_low_latency_hls());
    let lifetime = if low_latency {
        MAX_AGE_1_SECOND
    } else {
        let half = (view.broadcast.segment_duration().as_secs() / 2).max(1);
        HeaderValue::try_from(format!("max-age={half}")).unwrap_or(MAX_AGE_1_SECOND)
    };
    headers.insert(CACHE_CONTROL, lifetime);
    headers.insert(CONTENT_TYPE, content_type(resource));
    headers.insert(ETAG, etag(&text));
    headers.insert(LAST_SEQUENCE, segments.saturating_sub(1).into());
    if let Ok(updated) = HeaderValue::try_from(updated.to_string()) {
        headers.insert(LAST_UPDATED, updated);
    }
    response
}

/// The current time.
pub(super) fn time_server_response(time: String) -> Response<OriginBody> {
    let mut response = plain(StatusCode::OK, time);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

pub(super) fn not_found() -> Response<OriginBody> {
    error_response(StatusCode::NOT_FOUND, "not there (yet, or any more)\n")
}

pub(super) fn error_response(status: StatusCode, why: &'static str) -> Response<OriginBody> {
    plain(status, why)
}

pub(super) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<OriginBody> {
    let mut response = Response::new(OriginBody::whole(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// 304 if the client's validator matches.
pub(super) fn apply_if_none_match(
    mut response: Response<OriginBody>,
    request_headers: &HeaderMap,
) -> Response<OriginBody> {
    let is_match = match (
        response.headers().get(ETAG),
        request_headers.get(IF_NONE_MATCH),
    ) {
        (Some(etag), Some(validators)) => validators.to_str().is_ok_and(|validators| {
            validators
                .split(',')
                .any(|one| one.trim() == "*" || one.trim().trim_start_matches("W/") == etag)
        }),
        _ => false,
    };
    if is_match && response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(CONTENT_TYPE);
        *response.body_mut() = OriginBody::whole(Bytes::new());
    }
    response
}

/// Headers of all responses. For HEAD: no body, but its length.
pub(super) fn finalize(mut response: Response<OriginBody>, is_head: bool) -> Response<OriginBody> {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if is_head {
        let length = response.body().bytes().map(Bytes::len);
        if let Some(length) = length {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        *response.body_mut() = OriginBody::whole(Bytes::new());
    }
    response
}

fn content_type(resource: Resource) -> HeaderValue {
    HeaderValue::from_static(match resource {
        Resource::Multivariant(_) | Resource::Playlist(..) => "application/x-mpegURL",
        Resource::Mpd(_) => "application/dash+xml",
        Resource::Segment(Packaging::Ts, ..) => "video/MP2T",
        Resource::Init(_, DemoRendition::Audio)
        | Resource::Segment(_, DemoRendition::Audio, _)
        | Resource::Part(_, DemoRendition::Audio, ..) => "audio/mp4",
        Resource::Init(..) | Resource::Segment(..) | Resource::Part(..) => "video/mp4",
        Resource::TimeServer => "text/plain; charset=utf-8",
    })
}

/// A strong validator, made of the bytes.
fn etag(bytes: &[u8]) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    let text = format!("\"{:016x}\"", hasher.finish());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Option<RequestRange> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, text.parse().unwrap());
        RequestRange::of(&headers)
    }

    fn cut(text: &str, completeness: BodyCompleteness) -> (u16, String, Option<Bytes>) {
        let mut response = Response::new(OriginBody::whole(Bytes::new()));
        let bytes = Bytes::from_static(b"0123456789");
        let cut = apply_range(&mut response, bytes, range(text), completeness);
        let content_range = response.headers().get(CONTENT_RANGE);
        let content_range =
            content_range.map(|content_range| content_range.to_str().unwrap().to_owned());
        (
            response.status().as_u16(),
            content_range.unwrap_or_default(),
            cut,
        )
    }

    #[test]
    fn serves_byte_ranges() {
        let some = |bytes: &'static str| Some(Bytes::from_static(bytes.as_bytes()));
        assert_eq!(
            cut("bytes=2-4", BodyCompleteness::Whole),
            (206, "bytes 2-4/10".into(), some("234"))
        );
        assert_eq!(
            cut("bytes=8-", BodyCompleteness::SoFar),
            (206, "bytes 8-9/*".into(), some("89"))
        );
        assert_eq!(
            cut("bytes=8-99", BodyCompleteness::SoFar),
            (206, "bytes 8-9/*".into(), some("89"))
        );
        assert_eq!(
            cut("bytes=10-", BodyCompleteness::Whole),
            (200, "bytes */10".into(), None)
        );
        assert_eq!(
            cut("lines=1-2", BodyCompleteness::Whole),
            (200, String::new(), some("0123456789"))
        );
        assert_eq!(range("bytes=4-2"), None);
        assert_eq!(range("bytes=-2"), None);
    }
}
