//! Builds responses from stored objects and from bodies that are still arriving.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::timeout;

use super::body_bytes::bytes_of;
use super::context::RequestContext;
use super::pass_through_response::PassThroughResponse;
use super::stated_freshness::changed_freshness;
use super::status::{CacheStatusDetail, X_CACHE, write_cache_status};
use super::{ResponseBody, Settings, ViewerResponse, coding, cors, rejections};
use crate::telemetry::Outcome;
use seawall_cache::{BodyExtent, FIELDS_ADDED, Follower, Object, StoredHead};
use seawall_policy::conditional::{self, PreconditionResult};
use seawall_policy::freshness::FRESHNESS_FIELDS_SENT;
use seawall_policy::lifetime::UncacheableReason;
use seawall_policy::range::{self, ByteSpan, RangeSpec, RequestedRange, ResolvedRange};
use seawall_policy::route::Cors;
use seawall_policy::tags;

/// Responds with a stored object.
pub(super) fn respond_with_object(
    context: RequestContext,
    object: &Arc<Object>,
    outcome: Outcome,
    settings: &Settings,
) -> ViewerResponse {
    let best_encoding = coding::best_encoding(full_or_delta(&context, object), &context.headers);
    respond_with_encoded(context, best_encoding, outcome, settings)
}

/// The object's full body, or its delta update.
pub(super) fn full_or_delta<'o>(
    context: &RequestContext,
    object: &'o Arc<Object>,
) -> &'o Arc<Object> {
    let delta = object.delta().filter(|_| context.request.takes_delta());
    delta.unwrap_or(object)
}

/// Responds with a stored object in the given coding.
pub(super) fn respond_with_encoded(
    mut context: RequestContext,
    object: &Arc<Object>,
    outcome: Outcome,
    settings: &Settings,
) -> ViewerResponse {
    if let Some(access_tracker) = &object.head.access_tracker {
        access_tracker.record_access(context.now);
    }
    if wants_whole(&context, &object.head) && may_share(&context, &object.head) {
        context.describe(&object.head);
        let added = build_headers(
            &context,
            &object.head,
            HeaderMap::with_capacity(FIELDS_ADDED),
            outcome,
        );
        return context.respond_with_stored(object, added, outcome);
    }
    let body = &object.body;
    let length = body.len() as u64;
    let part = |span: ByteSpan| bytes_of(body, span);
    let mut response = respond_with_range(
        context,
        &object.head,
        length,
        outcome,
        settings.ranges_max,
        |spans| match spans {
            [span] => ResponseBody::whole(part(*span)),
            _ => ResponseBody::Pieces(spans.iter().copied().map(part).collect()),
        },
    );
    if !matches!(response.body, ResponseBody::Empty) {
        response.part_of = Some(Arc::clone(object));
    }
    response
}

/// The response can share the stored header fields: it adds fields, and replaces none except those
/// that every response states anew.
fn may_share(context: &RequestContext, head: &StoredHead) -> bool {
    let (route, stored) = (&context.request.route, &head.headers);
    let stays = |name| !stored.contains(&name);
    let cors = match route.cors {
        Cors::Off => {
            stays(header::ACCESS_CONTROL_ALLOW_ORIGIN)
                && stays(header::ACCESS_CONTROL_EXPOSE_HEADERS)
        }
        Cors::Any | Cors::Only { .. } => stays(header::ACCESS_CONTROL_ALLOW_CREDENTIALS),
    };
    let rules = &route.header_rules;
    let is_kept = rules.keep_stored(head.kind, head.status, |name| stored.contains(name));
    cors && is_kept && (!route.x_cache || stays(X_CACHE))
}

/// The request asks for the complete object, without a range or a failing precondition.
fn wants_whole(context: &RequestContext, head: &StoredHead) -> bool {
    !context.head_only
        && (head.status != StatusCode::OK
            || !context.headers.contains_key(header::RANGE)
                && precondition_result(context, head) == PreconditionResult::Proceed)
}

/// Responds with a body of known length; `body` makes the bytes of the spans.
pub(super) fn respond_with_range(
    mut context: RequestContext,
    head: &StoredHead,
    length: u64,
    outcome: Outcome,
    ranges_max: usize,
    body: impl FnOnce(&[ByteSpan]) -> ResponseBody,
) -> ViewerResponse {
    context.describe(head);
    if let Some(response) = precondition_response(&context, head, outcome) {
        return finish(context, response, ResponseBody::Empty, outcome);
    }
    let mut headers = build_stored_headers(&context, head, outcome);
    if context.head_only {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        return finish(
            context,
            (head.status, headers),
            ResponseBody::Empty,
            outcome,
        );
    }
    let resolved = match requested_range(&context, head, ranges_max) {
        RequestedRange::Whole => ResolvedRange::Whole,
        requested @ RequestedRange::Ranges(_) => range::resolve(&requested, length),
    };
    match resolved {
        ResolvedRange::Whole => {
            let whole = ByteSpan {
                start: 0,
                end: length,
            };
            finish(context, (head.status, headers), body(&[whole]), outcome)
        }
        ResolvedRange::One(span) => {
            let content_range = range::content_range(span, length);
            respond_partial(context, headers, content_range, body(&[span]), outcome)
        }
        ResolvedRange::Many(spans) => {
            respond_multipart(context, headers, &spans, length, body(&spans), outcome)
        }
        ResolvedRange::Unsatisfiable => respond_unsatisfiable(context, head, length, outcome),
    }
}

/// The span of a body of known length that will be read.
pub(super) fn first_span(context: &RequestContext, head: &StoredHead, length: u64) -> ByteSpan {
    match range::resolve(&requested_range(context, head, 1), length) {
        ResolvedRange::One(span) => span,
        ResolvedRange::Whole | ResolvedRange::Many(_) | ResolvedRange::Unsatisfiable => ByteSpan {
            start: 0,
            end: length,
        },
    }
}

/// Responds with a body that is still arriving; a range starts as soon as its bytes are there.
pub(super) async fn respond_streaming(
    mut context: RequestContext,
    head: &StoredHead,
    mut follower: Follower,
    outcome: Outcome,
    settings: &Settings,
) -> ViewerResponse {
    if let Some(access_tracker) = &head.access_tracker {
        access_tracker.record_access(context.now);
    }
    if let Some(length) = head.length {
        return respond_with_range(context, head, length, outcome, 1, |spans| {
            let (start, end) = spans
                .first()
                .map_or((0, length), |span| (span.start, span.end));
            follower.set_range(start, end);
            ResponseBody::Growing {
                follower,
                remaining: Some(end - start),
            }
        });
    }
    context.describe(head);
    if let Some(response) = precondition_response(&context, head, outcome) {
        return finish(context, response, ResponseBody::Empty, outcome);
    }
    let arriving = StreamingResponse {
        headers: build_stored_headers(&context, head, outcome),
        context,
        head,
        follower,
        outcome,
    };
    if arriving.context.head_only {
        return arriving.respond_whole(None);
    }
    match servable_range(&arriving.context, head, settings.whole_fetch_max) {
        None => arriving.respond_whole(None),
        Some(range) => arriving.respond_range(range, settings.wait_max).await,
    }
}

/// A response with an arriving body of unknown length.
struct StreamingResponse<'h> {
    context: RequestContext,
    head: &'h StoredHead,
    headers: HeaderMap,
    follower: Follower,
    outcome: Outcome,
}

impl StreamingResponse<'_> {
    fn respond_whole(self, remaining: Option<u64>) -> ViewerResponse {
        let body = ResponseBody::Growing {
            follower: self.follower,
            remaining,
        };
        let response = (self.head.status, self.headers);
        finish(self.context, response, body, self.outcome)
    }

    /// A closed range, sent when its last byte is there.
    async fn respond_range(
        mut self,
        (first, last): (u64, u64),
        wait_max: Duration,
    ) -> ViewerResponse {
        match timeout(wait_max, self.follower.wait_for_offset(last + 1)).await {
            Err(_) => rejections::timed_out(self.context),
            Ok(Err(_)) => rejections::lost(self.context),
            Ok(Ok(BodyExtent::Reached)) => {
                let span = ByteSpan {
                    start: first,
                    end: last + 1,
                };
                self.respond_part(range::content_range_so_far(span), span)
            }
            // The first requested bytes have left the window, and a later start would not be the
            // requested range.
            Ok(Ok(BodyExtent::Windowed)) => rejections::no_memory_for_range(self.context),
            Ok(Ok(BodyExtent::Whole(length))) => {
                let spec = RequestedRange::Ranges(vec![RangeSpec::Closed(first, last)]);
                match range::resolve(&spec, length) {
                    ResolvedRange::One(span) => {
                        self.respond_part(range::content_range(span, length), span)
                    }
                    ResolvedRange::Unsatisfiable => {
                        respond_unsatisfiable(self.context, self.head, length, self.outcome)
                    }
                    ResolvedRange::Whole | ResolvedRange::Many(_) => {
                        self.respond_whole(Some(length))
                    }
                }
            }
        }
    }

    fn respond_part(mut self, content_range: HeaderValue, span: ByteSpan) -> ViewerResponse {
        self.follower.set_range(span.start, span.end);
        let body = ResponseBody::Growing {
            follower: self.follower,
            remaining: Some(span.length()),
        };
        respond_partial(
            self.context,
            self.headers,
            content_range,
            body,
            self.outcome,
        )
    }
}

/// While the length is unknown, a closed range can be answered once its bytes are there. An open
/// range would wait for the end of the body, and a range beyond the buffer limit would wait
/// forever: both are ignored (allowed by RFC 9110 §14.2).
fn servable_range(
    context: &RequestContext,
    head: &StoredHead,
    bytes_max: u64,
) -> Option<(u64, u64)> {
    match requested_range(context, head, 1) {
        RequestedRange::Ranges(specs) => match specs[..] {
            [RangeSpec::Closed(first, last)] if last < bytes_max => Some((first, last)),
            _ => None,
        },
        RequestedRange::Whole => None,
    }
}

/// Responds to one viewer with an uncacheable response.
pub(super) fn respond_with_pass_through(
    context: RequestContext,
    passed: PassThroughResponse,
) -> ViewerResponse {
    let (status, mut headers, reason, body) = passed.parts();
    if !context.request.route.show_tags {
        tags::remove_tags(&mut headers);
    }
    cors::allow(&mut headers, &context.headers, &context.request.route);
    let details = CacheStatusDetail {
        origin_status: Some(status.as_u16()),
        detail: reason.map(UncacheableReason::as_str),
        ..CacheStatusDetail::default()
    };
    write_cache_status(&mut headers, &context, Outcome::Pass, details);
    context.respond(status, headers, body, Outcome::Pass)
}

/// The stored headers, with those that depend on the time and the request.
fn build_stored_headers(
    context: &RequestContext,
    head: &StoredHead,
    outcome: Outcome,
) -> HeaderMap {
    build_headers(context, head, head.headers.to_map(), outcome)
}

fn build_headers(
    context: &RequestContext,
    head: &StoredHead,
    mut headers: HeaderMap,
    outcome: Outcome,
) -> HeaderMap {
    headers.reserve(FIELDS_ADDED);
    let lifetime = &head.lifetime;
    headers.insert(
        header::AGE,
        HeaderValue::from(lifetime.age(context.now).as_secs()),
    );
    if let Some(fields) = changed_freshness(head, context.now) {
        for name in &FRESHNESS_FIELDS_SENT {
            headers.remove(name);
        }
        headers.extend(fields);
    }
    cors::allow(&mut headers, &context.headers, &context.request.route);
    let filled = matches!(
        outcome,
        Outcome::Miss | Outcome::Coalesced | Outcome::Blocking | Outcome::Revalidated
    );
    let details = CacheStatusDetail {
        lifetime: Some(lifetime),
        origin_status: match outcome {
            Outcome::Miss => Some(head.status.as_u16()),
            Outcome::Revalidated => Some(StatusCode::NOT_MODIFIED.as_u16()),
            _ => None,
        },
        stored: filled && head.will_be_stored,
        detail: None,
    };
    write_cache_status(&mut headers, context, outcome, details);
    headers
}

/// The result of the viewer's preconditions. Most requests have none.
fn precondition_result(context: &RequestContext, head: &StoredHead) -> PreconditionResult {
    if !conditional::is_conditional(&context.headers) {
        return PreconditionResult::Proceed;
    }
    let validators = head.headers.only(&conditional::VALIDATORS);
    conditional::evaluate(&context.headers, &validators)
}

/// 304 or 412, if the viewer's preconditions require it.
fn precondition_response(
    context: &RequestContext,
    head: &StoredHead,
    outcome: Outcome,
) -> Option<(StatusCode, HeaderMap)> {
    if head.status != StatusCode::OK {
        return None;
    }
    match precondition_result(context, head) {
        PreconditionResult::Proceed => None,
        PreconditionResult::NotModified => {
            let headers = conditional::not_modified_headers(&head.headers.to_map());
            Some((
                StatusCode::NOT_MODIFIED,
                build_headers(context, head, headers, outcome),
            ))
        }
        PreconditionResult::Failed => {
            let headers = build_headers(context, head, HeaderMap::new(), outcome);
            Some((StatusCode::PRECONDITION_FAILED, headers))
        }
    }
}

fn requested_range(
    context: &RequestContext,
    head: &StoredHead,
    ranges_max: usize,
) -> RequestedRange {
    if head.status != StatusCode::OK || !context.headers.contains_key(header::RANGE) {
        return RequestedRange::Whole;
    }
    let holds = || {
        let validators = head.headers.only(&conditional::VALIDATORS);
        range::if_range_holds(&context.headers, &validators)
    };
    if !context.headers.contains_key(header::IF_RANGE) || holds() {
        range::requested(&context.headers, ranges_max)
    } else {
        RequestedRange::Whole
    }
}

fn respond_partial(
    context: RequestContext,
    mut headers: HeaderMap,
    content_range: HeaderValue,
    body: ResponseBody,
    outcome: Outcome,
) -> ViewerResponse {
    headers.insert(header::CONTENT_RANGE, content_range);
    finish(
        context,
        (StatusCode::PARTIAL_CONTENT, headers),
        body,
        outcome,
    )
}

/// A 416 concerns this request only: it has none of the object's headers, above all none that would
/// let a downstream cache keep it.
fn respond_unsatisfiable(
    context: RequestContext,
    head: &StoredHead,
    length: u64,
    outcome: Outcome,
) -> ViewerResponse {
    let mut headers = build_headers(&context, head, HeaderMap::new(), outcome);
    headers.insert(header::CONTENT_RANGE, range::unsatisfied(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.remove(header::AGE);
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    finish(context, (status, headers), ResponseBody::Empty, outcome)
}

fn respond_multipart(
    context: RequestContext,
    mut headers: HeaderMap,
    spans: &[ByteSpan],
    length: u64,
    parts: ResponseBody,
    outcome: Outcome,
) -> ViewerResponse {
    let boundary = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let part_type = headers.get(header::CONTENT_TYPE);
    let framed = range::multipart(spans, length, part_type, &boundary);
    headers.insert(header::CONTENT_TYPE, framed.content_type);
    let mut parts = match parts {
        ResponseBody::Pieces(parts) => parts,
        _ => VecDeque::new(),
    };
    let mut pieces = VecDeque::new();
    for delimiter in framed.delimiters {
        pieces.push_back(delimiter);
        pieces.extend(parts.pop_front());
    }
    let response = (StatusCode::PARTIAL_CONTENT, headers);
    finish(context, response, ResponseBody::Pieces(pieces), outcome)
}

fn finish(
    context: RequestContext,
    (status, headers): (StatusCode, HeaderMap),
    body: ResponseBody,
    outcome: Outcome,
) -> ViewerResponse {
    context.respond(status, headers, body, outcome)
}
