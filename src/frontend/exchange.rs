//! Handles one request: checks its head against the limits, calls the handler, and converts the
//! response for hyper.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use tokio::time::Instant;

use super::connection::ServerContext;
use super::connection_state::ConnectionState;
use super::date::date_field;
use super::recording_body::{RecordingBody, ResponseCarrier};
use super::request_body::{DrainError, DrainedBody, ViewerUpload};
use super::stats::{ConnectionCounters, ConnectionEvent};
use super::streams::begin_stream;
use super::{Handler, Limits, connection_table::ConnectionTable};
use crate::proxy::{ResponseBody, ViewerRequest, ViewerResponse};
use crate::telemetry::{AccessLogFields, Outcome, RequestRecord};
use seawall_upstream::RequestBody;

/// The properties of a request that its response depends on.
struct RequestFacts {
    arrived: Instant,
    version: Version,
    bodiless: bool,
}

impl RequestFacts {
    /// Whether the viewer could take an incomplete response for a complete one: the close of the
    /// connection ends the body, and an aborted body looks the same. That is the case for HTTP/1.0
    /// on a Unix socket whose first request had another version.
    fn has_ambiguous_end(&self, answer: &ViewerResponse, gauge: &ConnectionState) -> bool {
        self.version <= Version::HTTP_10
            && !gauge.severable()
            && !self.bodiless
            && answer.body.size_hint().exact().is_none()
            && !answer.headers.contains_key(CONTENT_LENGTH)
    }
}

/// Answers one request.
pub(super) async fn exchange<A: Handler>(
    house: Arc<ServerContext<A>>,
    carrier: ResponseCarrier,
    request: Request<Incoming>,
) -> Result<Response<RecordingBody>, Infallible> {
    let (head, body) = request.into_parts();
    let asked = RequestFacts {
        arrived: Instant::now(),
        version: head.version,
        bodiless: head.method == Method::HEAD,
    };
    let taken = match check_head(&head, &house.limits) {
        Some(status) => Err(status),
        None => take_body(&head, body, carrier.gauge(), &house).await,
    };
    let (body, all_read) = match taken {
        Ok(taken) => taken,
        Err(status) => {
            house
                .connections
                .counters
                .count(ConnectionEvent::HeadRefused);
            carrier.gauge().leave_unread();
            let answer = refused(status, asked.arrived, Some(carrier.line_of(&head)));
            let mut response = into_hyper_response(answer, &asked, carrier, &house.connections);
            mark_last(&mut response, &asked);
            return Ok(response);
        }
    };
    let is_upload = body.is_some();
    let arrival = ViewerRequest {
        method: head.method,
        uri: head.uri,
        version: head.version,
        headers: head.headers,
        peer: carrier.gauge().peer,
        tls: carrier.gauge().tls,
        arrived: asked.arrived.into_std(),
        body,
    };
    let waiting = LeaveGuard {
        tally: &house.connections.counters,
    };
    let mut answer = house.handler.answer(arrival).await;
    std::mem::forget(waiting);
    if asked.has_ambiguous_end(&answer, carrier.gauge()) {
        let line = answer.record.line.take();
        answer = refused(StatusCode::HTTP_VERSION_NOT_SUPPORTED, asked.arrived, line);
    }
    let is_last =
        !all_read || is_malformed(&answer) || (is_upload && carrier.gauge().has_unread_body());
    let mut response = into_hyper_response(answer, &asked, carrier, &house.connections);
    if is_last {
        mark_last(&mut response, &asked);
    }
    Ok(response)
}

/// Counts a viewer that closes before there is a response; the handler records the request.
struct LeaveGuard<'a> {
    tally: &'a ConnectionCounters,
}

impl Drop for LeaveGuard<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.tally.count(ConnectionEvent::Abandoned);
        }
    }
}

/// The status for an unacceptable head. hyper has already refused heads that it could not parse.
fn check_head(head: &http::request::Parts, limits: &Limits) -> Option<StatusCode> {
    let headers = &head.headers;
    over_limit(&head.uri, headers, limits)
        .or_else(|| list_refusal(head, limits))
        .or_else(|| framing_refusal(headers, limits))
}

/// h2 reads larger heads than the limit. For HTTP/1, hyper enforces the limit itself.
fn list_refusal(head: &http::request::Parts, limits: &Limits) -> Option<StatusCode> {
    /// The overhead of a field in addition to its text (RFC 9113 §6.5.2).
    const FIELD_COST: usize = 32;
    if head.version < Version::HTTP_2 {
        return None;
    }
    let field = |(name, value): (&http::HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + FIELD_COST
    };
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let list = target + head.headers.iter().map(field).sum::<usize>();
    (list > limits.head_bytes_max).then_some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
}

/// The status for a head that exceeds a limit.
pub(super) fn over_limit(uri: &Uri, headers: &HeaderMap, limits: &Limits) -> Option<StatusCode> {
    let target = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len())
        + uri
            .authority()
            .map_or(0, |authority| authority.as_str().len());
    if target > limits.uri_bytes_max {
        return Some(StatusCode::URI_TOO_LONG);
    }
    if headers.len() > limits.fields_max {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let too_large = |(name, value): (&http::HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() > limits.field_bytes_max
    };
    if headers.iter().any(too_large) {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    None
}

/// hyper accepts any list of transfer codings that ends in `chunked`, and several field lines. A
/// list that two parties could read differently is refused here.
fn framing_refusal(headers: &HeaderMap, limits: &Limits) -> Option<StatusCode> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (!coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some())
    {
        return Some(StatusCode::BAD_REQUEST);
    }
    let length = headers
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse::<u64>()
        .ok()?;
    (length > limits.request_body_bytes_max).then_some(StatusCode::PAYLOAD_TOO_LARGE)
}

/// Returns the body if the method may have one. Otherwise the body is read and discarded, and the
/// second value is whether another request may follow. Does not wait for bytes that have not
/// arrived.
async fn take_body<A>(
    head: &http::request::Parts,
    body: Incoming,
    gauge: &Arc<ConnectionState>,
    house: &ServerContext<A>,
) -> Result<(Option<RequestBody>, bool), StatusCode> {
    if body.is_end_stream() {
        return Ok((None, true));
    }
    if !matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        let (limits, roll) = (house.limits.clone(), house.connections.clone());
        let upload = ViewerUpload::new(body, limits, roll, gauge.clone());
        return Ok((Some(Box::pin(upload)), true));
    }
    // A client that waits for `100 Continue` gets the response instead.
    if head.headers.contains_key(EXPECT) {
        gauge.leave_unread();
        return Ok((None, false));
    }
    let mut unwanted = DrainedBody::new(body, &house.limits);
    match unwanted.read_available().await {
        Some(Ok(())) => gauge.finish_request_body(),
        Some(Err(DrainError::Broken)) => return Err(StatusCode::BAD_REQUEST),
        Some(Err(DrainError::TooLong)) => {
            gauge.leave_unread();
            return Ok((None, false));
        }
        None => unwanted.spawn_drain(&house.limits, house.connections.clone(), gauge.clone()),
    }
    Ok((None, true))
}

/// Converts a response into hyper's form.
fn into_hyper_response(
    mut answer: ViewerResponse,
    asked: &RequestFacts,
    carrier: ResponseCarrier,
    roll: &ConnectionTable,
) -> Response<RecordingBody> {
    let now = Instant::now();
    let shared = answer.shared_body().cloned();
    let mut headers = answer.take_headers();
    if !headers.contains_key(DATE) {
        headers.insert(DATE, date_field(now.into_std()));
    }
    let ViewerResponse {
        status,
        body,
        record: mut tale,
        ..
    } = answer;
    tale.head_time = now.saturating_duration_since(asked.arrived);
    let bodiless = asked.bodiless || is_bodiless(status);
    let body = if bodiless { ResponseBody::Empty } else { body };
    let told = RecordingBody::new(body, tale, carrier);
    if let Some(shared) = shared.filter(|_| !bodiless) {
        told.reads(shared);
    }
    let mut response = Response::new(told);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if status.canonical_reason().is_none() {
        // hyper would write `<none>`.
        let nothing = ReasonPhrase::from_static(b"");
        response.extensions_mut().insert(nothing);
    }
    if roll.closing() {
        mark_last(&mut response, asked);
    }
    response
}

/// The head was refused before a route was found: the sender may also frame the rest differently.
fn is_malformed(answer: &ViewerResponse) -> bool {
    answer.status == StatusCode::BAD_REQUEST
        && answer.record.outcome == Outcome::Refused
        && answer.record.route.is_none()
}

/// Whether a response with this status has no body.
pub(super) fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Marks the last response of a connection. HTTP/2 does this itself.
fn mark_last(response: &mut Response<RecordingBody>, asked: &RequestFacts) {
    if asked.version < Version::HTTP_2 {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

impl ResponseCarrier {
    /// The access log fields of a request that is refused here.
    fn line_of(&self, head: &http::request::Parts) -> Box<AccessLogFields> {
        let peer = self.gauge().peer;
        let line = AccessLogFields::of(&head.method, &head.uri, head.version, &head.headers, peer);
        Box::new(line)
    }
}

fn refused(
    status: StatusCode,
    arrived: Instant,
    line: Option<Box<AccessLogFields>>,
) -> ViewerResponse {
    let tale = RequestRecord {
        status,
        line,
        ..RequestRecord::begun(arrived.into_std())
    };
    ViewerResponse {
        status,
        headers: HeaderMap::new(),
        held: None,
        body: ResponseBody::Empty,
        part_of: None,
        record: tale,
    }
}

/// The carrier of an HTTP/1 request.
pub(super) fn http1_carrier(gauge: &Arc<ConnectionState>) -> ResponseCarrier {
    gauge.begin_request();
    ResponseCarrier::Connection(gauge.clone())
}

/// The carrier of an HTTP/2 request.
pub(super) fn http2_carrier(gauge: &Arc<ConnectionState>) -> ResponseCarrier {
    ResponseCarrier::Stream(gauge.clone(), begin_stream(gauge))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(request: http::request::Builder) -> http::request::Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn limits() -> Limits {
        Limits {
            field_bytes_max: 30,
            fields_max: 2,
            uri_bytes_max: 10,
            request_body_bytes_max: 99,
            ..Limits::default()
        }
    }

    fn verdict(request: http::request::Builder) -> Option<u16> {
        let head = head(request);
        check_head(&head, &limits()).map(|status| status.as_u16())
    }

    #[test]
    fn heads_at_their_limits_pass() {
        let request = Request::get("/345678901".trim_end_matches('1'));
        assert_eq!(verdict(request), None);
        let request = Request::get("/")
            .header("a", "1")
            .header("b", "x".repeat(29));
        assert_eq!(verdict(request), None);
    }

    #[test]
    fn heads_over_their_limits_are_refused() {
        assert_eq!(verdict(Request::get("/2345678901")), Some(414));
        let fields = Request::get("/")
            .header("a", "1")
            .header("b", "2")
            .header("c", "3");
        assert_eq!(verdict(fields), Some(431));
        assert_eq!(
            verdict(Request::get("/").header("b", "x".repeat(30))),
            Some(431)
        );
        assert_eq!(
            verdict(Request::post("/").header("content-length", "100")),
            Some(413)
        );
    }

    #[test]
    fn only_one_plain_chunked_is_taken() {
        let coded = |value: &str| verdict(Request::post("/").header("transfer-encoding", value));
        assert_eq!(coded("Chunked"), None);
        for odd in [",chunked", "gzip", "x,chunked"] {
            assert_eq!(coded(odd), Some(400), "{odd}");
        }
        let twice = Request::post("/")
            .header("transfer-encoding", "chunked")
            .header("transfer-encoding", "chunked");
        assert_eq!(verdict(twice), Some(400));
    }
}
