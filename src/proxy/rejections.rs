//! Builds responses of the shield's own: rejections, failures and overload. The body is a line of
//! text, or the error page of the route.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::context::{RequestContext, respond_unadmitted, unadmitted_record};
use super::status::{CacheStatusDetail, write_cache_status};
use super::{ResponseBody, ViewerRequest, ViewerResponse, cors};
use crate::telemetry::{Outcome, RefusalReason};
use seawall_cache::{Object, StoredHead};
use seawall_manifest::Kind;
use seawall_policy::access::AccessRejection;
use seawall_policy::{ErrorPage, ErrorPages, Lifetime, Route};
use seawall_upstream::Failure;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const SOON: HeaderValue = HeaderValue::from_static("1");

/// The request itself is invalid or not allowed. `general`: the error pages without a route.
pub(super) fn rejected(
    request: &ViewerRequest,
    rejection: &AccessRejection,
    general: &ErrorPages,
    is_logged: bool,
) -> ViewerResponse {
    let pages = rejection.route.as_ref();
    let pages = pages.map_or(general, |route| &route.error_pages);
    let is_head = request.method == Method::HEAD;
    let (mut headers, body) = own_content(pages, rejection.status, rejection.why, is_head);
    if rejection.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(
            header::ALLOW,
            HeaderValue::from_static("GET, HEAD, OPTIONS"),
        );
    }
    if let Some(wait) = rejection.retry_after {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, seconds.max(1).into());
    }
    cors::allow_refused(&mut headers, &request.headers, rejection);
    let route = rejection.route.as_ref();
    let mut record = unadmitted_record(request, is_logged, route, Outcome::Refused);
    if rejection.status == StatusCode::BAD_REQUEST {
        // It counts for no route: others may read another one in it. The frontend ends the
        // connection.
        record.route = None;
    }
    if let Some(fields) = &mut record.log_fields {
        fields.refusal = Some(RefusalReason {
            word: rejection.reason(),
            detail: rejection.reason_detail(),
        });
    }
    respond_unadmitted(request, record, rejection.status, headers, body)
}

/// A CORS preflight, or any other OPTIONS request.
pub(super) fn preflight(
    request: &ViewerRequest,
    route: &Arc<Route>,
    is_logged: bool,
) -> ViewerResponse {
    let headers = cors::preflight(&request.headers, route);
    let record = unadmitted_record(request, is_logged, Some(route), Outcome::Local);
    let (status, body) = (StatusCode::NO_CONTENT, ResponseBody::Empty);
    respond_unadmitted(request, record, status, headers, body)
}

/// The route sends its viewers to another location.
pub(super) fn redirect(
    request: &ViewerRequest,
    route: &Arc<Route>,
    (status, location): (StatusCode, HeaderValue),
    is_logged: bool,
) -> ViewerResponse {
    let mut headers = own_headers();
    let is_permanent = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::PERMANENT_REDIRECT,
    ]
    .contains(&status);
    if is_permanent && route.access.is_open() {
        // The URL alone decides: caches may keep it by their own rules (RFC 9110, section 15.1).
        headers.remove(header::CACHE_CONTROL);
    }
    headers.insert(header::LOCATION, location);
    cors::allow(&mut headers, &request.headers, route);
    let record = unadmitted_record(request, is_logged, Some(route), Outcome::Local);
    respond_unadmitted(request, record, status, headers, ResponseBody::Empty)
}

/// The request has passed through this shield before.
pub(super) fn looped(context: RequestContext) -> ViewerResponse {
    let why = "loop detected: this request has passed through this shield already";
    error_response(context, StatusCode::LOOP_DETECTED, why, Outcome::Refused)
}

/// `only-if-cached`, and the object is not stored.
pub(super) fn not_stored(context: RequestContext) -> ViewerResponse {
    error_response(
        context,
        StatusCode::GATEWAY_TIMEOUT,
        "not in the cache",
        Outcome::Refused,
    )
}

/// More than two segments ahead of a tracked playlist (rfc8216bis §6.2.5.2).
pub(super) fn too_far(context: RequestContext) -> ViewerResponse {
    let why = "the request is more than two segments ahead of the playlist";
    error_response(context, StatusCode::BAD_REQUEST, why, Outcome::Refused)
}

/// A segment that is not due for a while, according to its MPD.
pub(super) fn too_early(context: RequestContext) -> ViewerResponse {
    let why = "not available yet, according to its manifest";
    error_response(context, StatusCode::NOT_FOUND, why, Outcome::Refused)
}

/// Too many viewers already wait for this key.
pub(super) fn crowded(context: RequestContext) -> ViewerResponse {
    let why = "too many requests already wait for this object";
    error_response(
        context,
        StatusCode::SERVICE_UNAVAILABLE,
        why,
        Outcome::Overload,
    )
}

/// The client has abandoned too many requests.
pub(super) fn client_limited(context: RequestContext) -> ViewerResponse {
    let why = "too many requests from this address were abandoned";
    error_response(
        context,
        StatusCode::SERVICE_UNAVAILABLE,
        why,
        Outcome::Overload,
    )
}

/// A range of an arriving body is requested, and there is no memory to buffer the body up to it.
pub(super) fn no_memory_for_range(context: RequestContext) -> ViewerResponse {
    let why = "no memory to buffer this object up to the requested range";
    error_response(
        context,
        StatusCode::SERVICE_UNAVAILABLE,
        why,
        Outcome::Overload,
    )
}

/// The viewer's deadline has passed.
pub(super) fn timed_out(context: RequestContext) -> ViewerResponse {
    let why = "the origin did not answer in time";
    error_response(context, StatusCode::GATEWAY_TIMEOUT, why, Outcome::Overload)
}

/// The fill broke before there was a response.
pub(super) fn lost(context: RequestContext) -> ViewerResponse {
    error_response(
        context,
        StatusCode::BAD_GATEWAY,
        "the origin's response broke off",
        Outcome::Failed,
    )
}

/// The origin failed on a request that no other viewer shares.
pub(super) fn failed(context: RequestContext, failure: Failure) -> ViewerResponse {
    let object = failure_object(failure, false);
    let outcome = if failure.is_of_upload() {
        Outcome::Refused
    } else if failure == Failure::Exhausted {
        Outcome::Overload
    } else {
        Outcome::Failed
    };
    failure_response(context, &object, outcome)
}

/// The origin failed, for all followers.
pub(super) fn failure_response(
    context: RequestContext,
    object: &Object,
    outcome: Outcome,
) -> ViewerResponse {
    let mut headers = object.head.headers.to_map();
    cors::allow(&mut headers, &context.headers, &context.request.route);
    let status = object.head.status;
    let retry = status == StatusCode::SERVICE_UNAVAILABLE;
    if retry && !headers.contains_key(header::RETRY_AFTER) {
        headers.insert(header::RETRY_AFTER, SOON);
    }
    cors::expose_retry_after(&mut headers, &context.request.route);
    let details = CacheStatusDetail {
        detail: match outcome {
            Outcome::Negative => Some("back-off"),
            Outcome::Overload => Some("out-of-sockets"),
            _ => None,
        },
        ..CacheStatusDetail::default()
    };
    write_cache_status(&mut headers, &context, outcome, details);
    let lifetime = &object.head.lifetime;
    if !lifetime.fresh_for.is_zero() {
        // Downstream caches must not count the lifetime from now.
        headers.insert(header::AGE, lifetime.age(context.now).as_secs().into());
    }
    let page = context.request.route.error_pages.page(status);
    let body = match page.filter(|_| object.head.is_own) {
        Some(page) => page_content(page, &mut headers),
        None => object.body.clone(),
    };
    if context.head_only && object.head.is_own {
        headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
    context.respond(status, headers, ResponseBody::whole(body), outcome)
}

/// The response to a failure. 504 if an object is stored that must not be served (RFC 9111
/// §5.2.2.2).
pub(super) fn failure_object(failure: Failure, is_object_stored: bool) -> Object {
    let status = match failure {
        Failure::Busy | Failure::BreakerOpen | Failure::Exhausted => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Failure::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Failure::UploadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Failure::UploadTooSlow => StatusCode::REQUEST_TIMEOUT,
        Failure::UploadBroken => StatusCode::BAD_REQUEST,
        _ if is_object_stored => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    own_object(status, own_headers(), &failure.to_string())
}

/// The origin's status with a body of the shield's own, if the origin's body must not be shared.
pub(super) fn own_error_object(status: StatusCode, retry_after: Option<HeaderValue>) -> Object {
    let mut headers = own_headers();
    headers.extend(retry_after.map(|wait| (header::RETRY_AFTER, wait)));
    own_object(status, headers, "the origin failed")
}

fn own_object(status: StatusCode, headers: HeaderMap, why: &str) -> Object {
    let head = StoredHead {
        status,
        headers: headers.into(),
        targeted: None,
        will_be_stored: false,
        is_own: true,
        stream: None,
        epoch_token: None,
        access_tracker: None,
        kind: Kind::Other,
        lifetime: Lifetime::none(Instant::now()),
        manifest_info: None,
        length: None,
    };
    Object::new(head, Bytes::from(format!("{why}\n")))
}

fn error_response(
    context: RequestContext,
    status: StatusCode,
    why: &str,
    outcome: Outcome,
) -> ViewerResponse {
    let pages = &context.request.route.error_pages;
    let (mut headers, body) = own_content(pages, status, why, context.head_only);
    cors::allow(&mut headers, &context.headers, &context.request.route);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, SOON);
        cors::expose_retry_after(&mut headers, &context.request.route);
    }
    write_cache_status(
        &mut headers,
        &context,
        outcome,
        CacheStatusDetail::default(),
    );
    context.respond(status, headers, body, outcome)
}

/// The error page for this status, else a line of text. The response to HEAD says its length.
fn own_content(
    pages: &ErrorPages,
    status: StatusCode,
    why: &str,
    is_head: bool,
) -> (HeaderMap, ResponseBody) {
    let mut headers = own_headers();
    let body = match pages.page(status) {
        Some(page) => page_content(page, &mut headers),
        None => Bytes::from(format!("{why}\n")),
    };
    if is_head {
        headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
    (headers, ResponseBody::whole(body))
}

fn page_content(page: &ErrorPage, headers: &mut HeaderMap) -> Bytes {
    headers.insert(header::CONTENT_TYPE, page.content_type.clone());
    page.body.clone()
}

/// The shield's own responses are valid only now: no cache may store them.
fn own_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, TEXT);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers
}
