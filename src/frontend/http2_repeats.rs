//! Answers HTTP/2 requests with responses of the same second. For HTTP/1 the fast path does this.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Response, Version};
use tokio::time::Instant;

use super::Handler;
use super::client_address::lines_of;
use super::connection_state::ConnectionState;
use super::recording_body::{RecordingBody, ResponseChannel};
use super::repeated_responses::{Http2Fields, RepeatLookup, RepeatedResponse};
use super::request_key::write_field;
use super::server_context::ServerContext;
use crate::proxy::{ByteMeter, RateRefusal, admit_repeat};
use seawall_policy::{IgnoredFields, ViewerAddress};

/// Looks for a response of the same second. Only a GET without a body may have one.
pub(super) fn look_up<A: Handler>(
    context: &ServerContext<A>,
    viewer: &ConnectionState,
    head: &Parts,
    arrived: Instant,
    has_no_body: bool,
) -> RepeatLookup<Http2Fields> {
    if head.version != Version::HTTP_2 || head.method != Method::GET || !has_no_body {
        return RepeatLookup::New;
    }
    let table = &context.repeated.http2;
    let address = || context.viewer_of(viewer, |field| lines_of(&head.headers, field));
    let viewer = (address, viewer);
    context.look_up_repeated(table, arrived.into_std(), viewer, |ignored, key| {
        write_key(head, ignored, key);
    })
}

/// Appends everything that can change the response.
fn write_key(head: &Parts, ignored: &IgnoredFields, key: &mut Vec<u8>) {
    let target = head.uri.path_and_query();
    key.extend_from_slice(target.map_or("", |target| target.as_str()).as_bytes());
    // The scheme decides which port of the authority is the default one.
    let scheme = head.uri.scheme_str().unwrap_or_default();
    let authority = head.uri.authority();
    let authority = authority.map_or("", |authority| authority.as_str());
    write_field(key, ignored, ":scheme", scheme.as_bytes());
    write_field(key, ignored, ":authority", authority.as_bytes());
    for (name, value) in &head.headers {
        write_field(key, ignored, name.as_str(), value.as_bytes());
    }
}

/// Takes the request from its rate limits, if it has any.
pub(super) fn admit<A>(
    repeated: &RepeatedResponse<Http2Fields>,
    context: &ServerContext<A>,
    viewer: &ConnectionState,
    head: &Parts,
    arrived: Instant,
) -> Result<Option<ByteMeter>, RateRefusal> {
    let viewer = || context.viewer_of(viewer, |field| lines_of(&head.headers, field));
    admit_repeat(repeated.permit().limiter(), viewer, arrived.into_std())
}

/// Sends a response of the same second again.
pub(super) fn respond(
    repeated: &RepeatedResponse<Http2Fields>,
    (arrived, viewer): (Instant, ViewerAddress),
    channel: ResponseChannel,
    meter: Option<ByteMeter>,
) -> Response<RecordingBody> {
    repeated.permit().record_hit(arrived.into_std());
    let mut record = repeated.record(arrived.into_std(), viewer);
    record.head_time = arrived.elapsed();
    let status = record.status;
    let mut body = RecordingBody::new(repeated.body(), record, channel);
    body.set_meter(meter);
    if let Some(object) = repeated.body_source()
        && let Some(shared) = object.shared_body()
    {
        body.add_stored_body(Arc::clone(shared));
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = repeated.head().with_new_id();
    response
}
