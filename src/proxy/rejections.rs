//! How does the shield say no in its own words: refusals, failures, and too many at once?

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::context::{RequestContext, answer_outside};
use super::status::{CacheStatusDetail, tell};
use super::{ResponseBody, ViewerRequest, ViewerResponse, cors};
use crate::cache::{Object, StoredHead};
use crate::manifest::Kind;
use crate::policy::access::AccessDenial;
use crate::policy::{Lifetime, Route};
use crate::telemetry::Outcome;
use crate::upstream::Failure;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const SOON: HeaderValue = HeaderValue::from_static("1");

/// The request itself is at fault.
pub(super) fn refused(
    arrival: &ViewerRequest,
    refusal: AccessDenial,
    line: bool,
) -> ViewerResponse {
    let (mut headers, body) = words(refusal.why);
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(
            header::ALLOW,
            HeaderValue::from_static("GET, HEAD, OPTIONS"),
        );
    }
    answer_outside(
        arrival,
        line,
        refusal.status,
        headers,
        body,
        Outcome::Refused,
    )
}

/// A CORS preflight, or an OPTIONS of any other intent.
pub(super) fn preflight(arrival: &ViewerRequest, route: &Route, line: bool) -> ViewerResponse {
    let headers = cors::preflight(&arrival.headers, route);
    let status = StatusCode::NO_CONTENT;
    answer_outside(
        arrival,
        line,
        status,
        headers,
        ResponseBody::Empty,
        Outcome::Local,
    )
}

/// The request has been here before.
pub(super) fn looped(ask: RequestContext) -> ViewerResponse {
    let why = "this request has passed through this shield already";
    say(ask, StatusCode::LOOP_DETECTED, why, Outcome::Refused)
}

/// `only-if-cached`, and it is not.
pub(super) fn not_held(ask: RequestContext) -> ViewerResponse {
    say(
        ask,
        StatusCode::GATEWAY_TIMEOUT,
        "not held",
        Outcome::Failed,
    )
}

/// More than two segments ahead of a playlist that is followed (rfc8216bis §6.2.5.2).
pub(super) fn too_far(ask: RequestContext) -> ViewerResponse {
    let why = "that is more than two segments ahead";
    say(ask, StatusCode::BAD_REQUEST, why, Outcome::Refused)
}

/// A segment that will not be there for long, by its MPD.
pub(super) fn too_early(ask: RequestContext) -> ViewerResponse {
    let why = "that is not there yet, by its manifest";
    say(ask, StatusCode::NOT_FOUND, why, Outcome::Refused)
}

/// Too many viewers wait for this key already.
pub(super) fn crowded(ask: RequestContext) -> ViewerResponse {
    let why = "too many are waiting for this already";
    say(ask, StatusCode::SERVICE_UNAVAILABLE, why, Outcome::Overload)
}

/// Too much of what this client asked for was left before it came.
pub(super) fn restrained(ask: RequestContext) -> ViewerResponse {
    let why = "too many requests from this address were given up";
    say(ask, StatusCode::SERVICE_UNAVAILABLE, why, Outcome::Overload)
}

/// A part of what arrives is wanted, and there is no room to hold it so far.
pub(super) fn passing(ask: RequestContext) -> ViewerResponse {
    let why = "no room to hold this so far";
    say(ask, StatusCode::SERVICE_UNAVAILABLE, why, Outcome::Overload)
}

/// The viewer's patience is at its end.
pub(super) fn timed_out(ask: RequestContext) -> ViewerResponse {
    let why = "the origin did not answer in time";
    say(ask, StatusCode::GATEWAY_TIMEOUT, why, Outcome::Overload)
}

/// The fill broke before there was anything to answer with.
pub(super) fn lost(ask: RequestContext) -> ViewerResponse {
    say(
        ask,
        StatusCode::BAD_GATEWAY,
        "the origin's answer was lost",
        Outcome::Failed,
    )
}

/// The origin failed on this request alone.
pub(super) fn failed(ask: RequestContext, failure: Failure) -> ViewerResponse {
    let object = failure_object(failure, false);
    let outcome = if failure.is_of_upload() {
        Outcome::Refused
    } else if failure == Failure::Exhausted {
        Outcome::Overload
    } else {
        Outcome::Failed
    };
    failure_answer(ask, &object, outcome)
}

/// The origin failed, for all who wait.
pub(super) fn failure_answer(
    ask: RequestContext,
    object: &Object,
    outcome: Outcome,
) -> ViewerResponse {
    let mut headers = object.head.headers.to_map();
    cors::allow(&mut headers, &ask.headers, &ask.entry.route);
    let status = object.head.status;
    let retry = status == StatusCode::SERVICE_UNAVAILABLE;
    if retry && !headers.contains_key(header::RETRY_AFTER) {
        headers.insert(header::RETRY_AFTER, SOON);
    }
    let story = CacheStatusDetail {
        detail: match outcome {
            Outcome::Negative => Some("back-off"),
            Outcome::Overload => Some("out-of-sockets"),
            _ => None,
        },
        ..CacheStatusDetail::default()
    };
    tell(&mut headers, &ask, outcome, story);
    let lifetime = &object.head.lifetime;
    if !lifetime.fresh_for.is_zero() {
        // Caches behind must not count its lifetime from now.
        headers.insert(header::AGE, lifetime.age(ask.now).as_secs().into());
    }
    let body = ResponseBody::whole(object.body.clone());
    ask.answer(status, headers, body, outcome)
}

/// The answer that a failure comes to. With a copy held that may not be served, the fault is told as
/// RFC 9111 §5.2.2.2 wants it: 504.
pub(super) fn failure_object(failure: Failure, held: bool) -> Object {
    let status = match failure {
        Failure::Busy | Failure::Open | Failure::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Failure::UploadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Failure::UploadTooSlow => StatusCode::REQUEST_TIMEOUT,
        Failure::UploadBroken => StatusCode::BAD_REQUEST,
        _ if held => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    own_object(status, own_headers(), &failure.to_string())
}

/// The origin's status in the shield's words, where its own are not for everybody.
pub(super) fn own_answer(status: StatusCode, retry_after: Option<HeaderValue>) -> Object {
    let mut headers = own_headers();
    headers.extend(retry_after.map(|wait| (header::RETRY_AFTER, wait)));
    own_object(status, headers, "the origin failed")
}

fn own_object(status: StatusCode, headers: HeaderMap, why: &str) -> Object {
    let head = StoredHead {
        status,
        headers: headers.into(),
        targeted: None,
        stored: false,
        tie: None,
        attention: None,
        kind: Kind::Other,
        lifetime: Lifetime::none(Instant::now()),
        facts: None,
        length: None,
    };
    Object::new(head, Bytes::from(format!("{why}\n")))
}

fn say(ask: RequestContext, status: StatusCode, why: &str, outcome: Outcome) -> ViewerResponse {
    let (mut headers, body) = words(why);
    cors::allow(&mut headers, &ask.headers, &ask.entry.route);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, SOON);
    }
    tell(&mut headers, &ask, outcome, CacheStatusDetail::default());
    ask.answer(status, headers, body, outcome)
}

fn words(why: &str) -> (HeaderMap, ResponseBody) {
    (
        own_headers(),
        ResponseBody::whole(Bytes::from(format!("{why}\n"))),
    )
}

/// What the shield says itself is about this moment: never stored, wherever it goes.
fn own_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, TEXT);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers
}
