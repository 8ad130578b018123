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

use super::client_address::lines_of;
use super::connection_state::ConnectionState;
use super::date::date_field;
use super::http2_repeats;
use super::recording_body::{RecordingBody, ResponseChannel};
use super::repeated_responses::{Http2Fields, RepeatLookup, Repeatable};
use super::request_body::{DrainError, DrainedBody, ViewerUpload};
use super::server_context::ServerContext;
use super::stats::{ConnectionCounters, ConnectionEvent};
use super::streams::begin_stream;
use super::{Handler, Limits};
use crate::proxy::{ResponseBody, ViewerRequest, ViewerResponse};
use crate::telemetry::{AccessLogFields, Outcome, RequestRecord};
use seawall_upstream::RequestBody;

/// The properties of a request that its response depends on.
struct RequestFacts {
    /// Recorded times begin here.
    arrived: Instant,
    now: Instant,
    version: Version,
    is_head: bool,
}

impl RequestFacts {
    fn of(head: &http::request::Parts, connection: &ConnectionState) -> RequestFacts {
        let now = Instant::now();
        RequestFacts {
            arrived: connection.take_waited_since().unwrap_or(now),
            now,
            version: head.version,
            is_head: head.method == Method::HEAD,
        }
    }

    /// Whether the viewer could take an incomplete response for a complete one: the close of the
    /// connection ends the body, and an aborted body looks the same. That is the case for HTTP/1.0
    /// on a Unix socket whose first request had another version.
    fn has_ambiguous_end(&self, response: &ViewerResponse, connection: &ConnectionState) -> bool {
        self.version <= Version::HTTP_10
            && !connection.can_reset()
            && !self.is_head
            && response.body.size_hint().exact().is_none()
            && !response.headers.contains_key(CONTENT_LENGTH)
    }
}

/// What happens to the body of an accepted request.
enum AcceptedBody {
    /// There is none, or it is read and discarded.
    Discarded,
    /// The handler forwards it to an origin.
    Forwarded(RequestBody),
    /// It stays unread, so no other request can follow on the connection.
    Unread,
}

/// Answers one request.
pub(super) async fn exchange<A: Handler>(
    context: Arc<ServerContext<A>>,
    channel: ResponseChannel,
    request: Request<Incoming>,
) -> Result<Response<RecordingBody>, Infallible> {
    let (head, body) = request.into_parts();
    let facts = RequestFacts::of(&head, channel.connection());
    let withdrawn = channel.connection().withdrawn_rejection(facts.arrived);
    let accepted = match withdrawn.or_else(|| check_head(&head, &context.limits)) {
        Some(status) => Err(status),
        None => accept_body(&head, body, channel.connection(), &context).await,
    };
    let body = match accepted {
        Ok(body) => body,
        Err(status) => return Ok(reject(status, &head, &facts, channel, &context)),
    };
    let is_repeatable = matches!(body, AcceptedBody::Discarded);
    let viewer = channel.connection();
    let repeated = http2_repeats::look_up(&context, viewer, &head, facts.arrived, is_repeatable);
    let key = match repeated {
        RepeatLookup::Remembered(response) => {
            match http2_repeats::admit(&response, &context, viewer, &head, facts.arrived) {
                Ok(meter) => {
                    let viewer = context.viewer_of(viewer, |field| lines_of(&head.headers, field));
                    let request = (facts.arrived, viewer);
                    return Ok(http2_repeats::respond(&response, request, channel, meter));
                }
                Err(_) => None,
            }
        }
        RepeatLookup::SeenBefore(key) => Some(key),
        RepeatLookup::New | RepeatLookup::Awaited(_) => None,
    };
    let is_left_unread = matches!(body, AcceptedBody::Unread);
    let is_upload = matches!(body, AcceptedBody::Forwarded(_));
    let mut request = viewer_request(head, body, &facts, channel.connection(), &context);
    request.wants_repeat = key.is_some();

    let abandon_guard = AbandonGuard {
        counters: &context.connections.counters,
        connection: channel.connection(),
    };
    let mut response = context.handler.answer(request).await;
    abandon_guard.disarm();

    if facts.has_ambiguous_end(&response, channel.connection()) {
        let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
        response = rejection(status, facts.arrived, response.record.log_fields.take());
    }
    let is_last = is_left_unread
        || is_malformed(&response)
        || (is_upload && channel.connection().has_unread_body());
    let repeatable = Repeatable::of(&mut response);
    let mut response = into_hyper_response(response, &facts, channel);
    if let Some((key, repeatable)) = key.zip(repeatable)
        && let Some(fields) = Http2Fields::of(response.headers())
    {
        let repeated = repeatable.with_head(fields);
        let arrived = facts.arrived.into_std();
        context.remember(&context.repeated.http2, key, repeated, arrived);
    }
    if is_last {
        disable_keep_alive(&mut response, &facts);
    }
    Ok(response)
}

/// Counts and rejects a request before the handler sees it. It is the last of its connection.
fn reject<A: Handler>(
    status: StatusCode,
    head: &http::request::Parts,
    facts: &RequestFacts,
    channel: ResponseChannel,
    context: &ServerContext<A>,
) -> Response<RecordingBody> {
    context.count(ConnectionEvent::HeadRefused);
    channel.connection().leave_unread();
    let response = rejection(
        status,
        facts.arrived,
        Some(log_fields(head, channel.connection(), context)),
    );
    let mut response = into_hyper_response(response, facts, channel);
    disable_keep_alive(&mut response, facts);
    response
}

fn viewer_request<A>(
    head: http::request::Parts,
    body: AcceptedBody,
    facts: &RequestFacts,
    connection: &ConnectionState,
    context: &ServerContext<A>,
) -> ViewerRequest {
    ViewerRequest {
        address: context.viewer_of(connection, |field| lines_of(&head.headers, field)),
        method: head.method,
        uri: head.uri,
        version: head.version,
        headers: head.headers,
        tls: connection.tls,
        certificate: connection.certificate.get().cloned(),
        arrived: facts.arrived.into_std(),
        now: facts.now.into_std(),
        wants_repeat: false,
        is_counted: connection.take_is_counted(),
        is_cut_by_drain: Some(connection.is_cut_by_drain.clone()),
        class: None,
        body: match body {
            AcceptedBody::Forwarded(body) => Some(body),
            AcceptedBody::Discarded | AcceptedBody::Unread => None,
        },
    }
}

/// Counts a viewer that closes before there is a response. The handler records the request.
struct AbandonGuard<'a> {
    counters: &'a ConnectionCounters,
    connection: &'a ConnectionState,
}

impl AbandonGuard<'_> {
    /// There is a response: nothing is counted.
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for AbandonGuard<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() && !self.connection.is_cut_by_drain() {
            self.counters.count(ConnectionEvent::Abandoned);
        }
    }
}

/// The status for an unacceptable head. hyper has already rejected heads that it could not parse.
fn check_head(head: &http::request::Parts, limits: &Limits) -> Option<StatusCode> {
    let headers = &head.headers;
    limit_rejection(&head.uri, headers, limits)
        .or_else(|| header_list_rejection(head, limits))
        .or_else(|| framing_rejection(headers, limits))
}

/// The status for an HTTP/2 head over the limit, because h2 reads larger ones. For HTTP/1, hyper
/// enforces the limit itself.
fn header_list_rejection(head: &http::request::Parts, limits: &Limits) -> Option<StatusCode> {
    /// The overhead of a field in addition to its text (RFC 9113 §6.5.2).
    const FIELD_COST: usize = 32;
    if head.version < Version::HTTP_2 {
        return None;
    }
    let field_bytes = |(name, value): (&http::HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + FIELD_COST
    };
    let target_bytes = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let list_bytes = target_bytes + head.headers.iter().map(field_bytes).sum::<usize>();
    (list_bytes > limits.head_bytes_max).then_some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
}

/// The status for a head that exceeds a limit.
pub(super) fn limit_rejection(
    uri: &Uri,
    headers: &HeaderMap,
    limits: &Limits,
) -> Option<StatusCode> {
    let target_bytes = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let authority_bytes = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len());
    if target_bytes + authority_bytes > limits.uri_bytes_max {
        return Some(StatusCode::URI_TOO_LONG);
    }
    if headers.len() > limits.headers_max {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let too_large = |(name, value): (&http::HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() > limits.header_bytes_max
    };
    if headers.iter().any(too_large) {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    None
}

/// The status for a body whose framing is ambiguous or whose announced length exceeds the limit.
/// hyper accepts any list of transfer codings that ends in `chunked`, in several field lines too.
/// Two recipients could read such a list differently.
fn framing_rejection(headers: &HeaderMap, limits: &Limits) -> Option<StatusCode> {
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

/// Accepts the body for the handler if the method may have one. Otherwise reads and discards it,
/// but does not wait for bytes that have not arrived.
async fn accept_body<A>(
    head: &http::request::Parts,
    body: Incoming,
    connection: &Arc<ConnectionState>,
    context: &ServerContext<A>,
) -> Result<AcceptedBody, StatusCode> {
    if body.is_end_stream() {
        return Ok(AcceptedBody::Discarded);
    }
    if !matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        let (limits, connections) = (context.limits.clone(), context.connections.clone());
        let upload = ViewerUpload::new(body, limits, connections, connection.clone());
        return Ok(AcceptedBody::Forwarded(Box::pin(upload)));
    }
    // A client that waits for `100 Continue` gets the response instead.
    if head.headers.contains_key(EXPECT) {
        connection.leave_unread();
        return Ok(AcceptedBody::Unread);
    }
    let mut unwanted = DrainedBody::new(body, &context.limits);
    match unwanted.read_available().await {
        Some(Ok(())) => connection.finish_request_body(),
        Some(Err(DrainError::Broken)) => return Err(StatusCode::BAD_REQUEST),
        Some(Err(DrainError::TooLong)) => {
            connection.leave_unread();
            return Ok(AcceptedBody::Unread);
        }
        None => unwanted.spawn_drain(
            &context.limits,
            context.connections.clone(),
            connection.clone(),
        ),
    }
    Ok(AcceptedBody::Discarded)
}

/// Converts a response into hyper's form.
fn into_hyper_response(
    mut response: ViewerResponse,
    facts: &RequestFacts,
    channel: ResponseChannel,
) -> Response<RecordingBody> {
    let now = Instant::now();
    let is_last = channel.connection().is_closing();
    let shared = response.shared_body().cloned();
    let mut headers = response.take_headers();
    if !headers.contains_key(DATE) {
        headers.insert(DATE, date_field(now.into_std()));
    }
    let ViewerResponse {
        status,
        body,
        mut record,
        meter,
        ..
    } = response;
    record.head_time = now.saturating_duration_since(facts.arrived);
    let is_empty = facts.is_head || has_no_content(status);
    let body = if is_empty { ResponseBody::Empty } else { body };
    let mut body = RecordingBody::new(body, record, channel);
    body.set_meter(meter);
    if let Some(shared) = shared.filter(|_| !is_empty) {
        body.add_stored_body(shared);
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if status.canonical_reason().is_none() {
        // hyper would write `<none>`.
        let empty_reason = ReasonPhrase::from_static(b"");
        response.extensions_mut().insert(empty_reason);
    }
    if is_last {
        disable_keep_alive(&mut response, facts);
    }
    response
}

/// Whether the handler rejected the head before it chose a route. The viewer may then also disagree
/// with this server on where the next request begins, so the connection is closed.
fn is_malformed(response: &ViewerResponse) -> bool {
    response.status == StatusCode::BAD_REQUEST
        && response.record.outcome == Outcome::Refused
        && response.record.route.is_none()
}

/// Whether a response with this status has no body.
pub(super) fn has_no_content(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Marks the last response of a connection. HTTP/2 does this itself.
fn disable_keep_alive(response: &mut Response<RecordingBody>, facts: &RequestFacts) {
    if facts.version < Version::HTTP_2 {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The access log fields of a request that is rejected here.
fn log_fields<A: Handler>(
    head: &http::request::Parts,
    connection: &ConnectionState,
    context: &ServerContext<A>,
) -> Box<AccessLogFields> {
    let address = context.viewer_of(connection, |field| lines_of(&head.headers, field));
    let mut log_fields = AccessLogFields::of(
        &head.method,
        &head.uri,
        head.version,
        &head.headers,
        address,
    );
    let path = context.handler.without_token(&log_fields.path).to_owned();
    log_fields.path = path;
    Box::new(log_fields)
}

fn rejection(
    status: StatusCode,
    arrived: Instant,
    log_fields: Option<Box<AccessLogFields>>,
) -> ViewerResponse {
    let record = RequestRecord {
        status,
        log_fields,
        ..RequestRecord::begin(arrived.into_std())
    };
    ViewerResponse {
        status,
        headers: HeaderMap::new(),
        stored: None,
        body: ResponseBody::Empty,
        part_of: None,
        repeat: None,
        record,
        meter: None,
    }
}

/// Records that an HTTP/1 request begins, and returns the channel for its response.
pub(super) fn begin_http1_request(connection: &Arc<ConnectionState>) -> ResponseChannel {
    connection.begin_request();
    ResponseChannel::Connection(connection.clone())
}

/// Records that an HTTP/2 request begins, and returns the channel for its response.
pub(super) fn begin_http2_request(connection: &Arc<ConnectionState>) -> ResponseChannel {
    ResponseChannel::Stream(connection.clone(), begin_stream(connection))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(request: http::request::Builder) -> http::request::Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn limits() -> Limits {
        Limits {
            header_bytes_max: 30,
            headers_max: 2,
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
    fn accepts_heads_at_the_limits() {
        let request = Request::get("/345678901".trim_end_matches('1'));
        assert_eq!(verdict(request), None);
        let request = Request::get("/")
            .header("a", "1")
            .header("b", "x".repeat(29));
        assert_eq!(verdict(request), None);
    }

    #[test]
    fn rejects_heads_over_the_limits() {
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
    fn accepts_only_a_single_chunked_transfer_coding() {
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
