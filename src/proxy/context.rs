//! Holds the state of one viewer request on its way through the pipeline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::clients::Client;
use super::server_timing::write_server_timing;
use super::{ResponseBody, ViewerRequest, ViewerResponse};
use crate::telemetry::{AccessLogFields, Outcome, RequestRecord, viewer_hash};
use seawall_cache::{Lookup, Object, StoredHead};
use seawall_policy::Route;
use seawall_policy::access::CacheRequest;
use seawall_policy::directives::RequestDirectives;
use seawall_policy::freshness::{Freshness, freshness, freshness_for};

/// Names a request in the response and in the access log.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 128;

/// An admitted request.
pub(super) struct RequestContext {
    pub(super) request: CacheRequest,
    /// The client that sent it.
    pub(super) client: Client,
    /// The name of this shield in `Cache-Status`.
    pub(super) cache_name: Arc<str>,
    /// HEAD: no body.
    pub(super) head_only: bool,
    /// The viewer's headers.
    pub(super) headers: HeaderMap,
    /// The viewer's cache directives, if the route honours them.
    pub(super) directives: Option<RequestDirectives>,
    pub(super) now: Instant,
    /// The frontend wants to send the response again, if it comes with a [`super::RepeatPermit`].
    pub(super) wants_repeat: bool,
    /// It may be sent again at most until then.
    pub(super) repeat_until: Option<Instant>,
    /// Why the cache could not answer (RFC 9211 `fwd`).
    pub(super) forward: ForwardReason,
    /// The request joined a fill of another request.
    pub(super) collapsed: bool,
    /// Time waited for the origin.
    pub(super) origin_time: Option<Duration>,
    /// The part of it that passed in a shared wait, which ended without a response.
    pub(super) waited_before: Duration,
    record: RequestRecord,
}

/// Where a step leads.
pub(super) enum PipelineStep {
    /// The response.
    Respond(ViewerResponse),
    /// Look the key up again.
    Again(RequestContext),
}

/// Why a request was forwarded (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForwardReason {
    /// It was not forwarded.
    Nothing,
    /// Nothing is stored for this URI.
    UriMiss,
    /// This URI is stored, but for other request headers.
    VaryMiss,
    /// The stored object is stale.
    Stale,
    /// Only parts of the object are stored.
    Partial,
    /// The method is not cacheable.
    Method,
    /// Responses for this key are not cacheable.
    Bypass,
}

impl ForwardReason {
    pub(super) fn because(lookup: &Lookup) -> ForwardReason {
        if lookup.object.is_some() {
            ForwardReason::Stale
        } else if lookup.has_variants() {
            ForwardReason::VaryMiss
        } else {
            ForwardReason::UriMiss
        }
    }

    pub(super) fn as_str(self) -> Option<&'static str> {
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

impl RequestContext {
    /// Takes the headers out of the viewer's request.
    pub(super) fn new(
        viewer_request: &mut ViewerRequest,
        request: CacheRequest,
        cache_name: &Arc<str>,
        is_logged: bool,
    ) -> RequestContext {
        let route = &request.route;
        let directives = route
            .honour_request_directives
            .then(|| RequestDirectives::of(&viewer_request.headers));
        let now = viewer_request.now;
        let wants_timing = asks_for_timing(route, &viewer_request.headers);
        let waited_before = now.saturating_duration_since(viewer_request.arrived);
        let mut record = begin_record(viewer_request, is_logged);
        record.kind = request.kind;
        record.route = Some(route.index);
        if let Some(fields) = &mut record.log_fields {
            fields.route = Some(Arc::clone(&route.name));
            record.key_hash = request.key.fingerprint();
        }
        RequestContext {
            head_only: viewer_request.method == Method::HEAD,
            client: Client::of(viewer_request.address.viewer),
            request,
            cache_name: Arc::clone(cache_name),
            headers: std::mem::take(&mut viewer_request.headers),
            directives,
            now,
            // Each response takes its own time.
            wants_repeat: viewer_request.wants_repeat && !wants_timing,
            repeat_until: None,
            forward: ForwardReason::Nothing,
            collapsed: false,
            origin_time: (!waited_before.is_zero()).then_some(waited_before),
            waited_before,
            record,
        }
    }

    pub(super) fn is_logged(&self) -> bool {
        self.record.log_fields.is_some()
    }

    /// Whether the viewer chose the request id.
    pub(super) fn names_its_id(&self) -> bool {
        request_id_of(&self.headers).is_some()
    }

    pub(super) fn freshness(&self, object: &Object) -> Freshness {
        let lifetime = &object.head.lifetime;
        match &self.directives {
            None => freshness(lifetime, self.now),
            Some(directives) => freshness_for(lifetime, directives, self.now),
        }
    }

    /// Adds time for which the request waited for the origin's head.
    pub(super) fn waited_for_origin(&mut self, time: Duration) {
        *self.origin_time.get_or_insert_default() += time;
    }

    pub(super) fn only_if_cached(&self) -> bool {
        self.directives
            .as_ref()
            .is_some_and(|directives| directives.only_if_cached)
    }

    /// Builds the response. HEAD gets no body.
    pub(super) fn respond(
        self,
        status: StatusCode,
        mut headers: HeaderMap,
        body: ResponseBody,
        outcome: Outcome,
    ) -> ViewerResponse {
        let mut record = self.record;
        record.outcome = outcome;
        record.origin_time = self.origin_time;
        let rules = &self.request.route.header_rules;
        rules.apply_to_response(record.kind, status, &mut headers);
        if asks_for_timing(&self.request.route, &self.headers) {
            write_server_timing(&mut headers, &record);
        }
        add_request_id(&mut headers, &self.headers, &mut record);
        let body = if self.head_only {
            ResponseBody::Empty
        } else {
            body
        };
        finish(status, headers, body, record)
    }

    /// The same, with the headers and the body of a stored object, shared.
    pub(super) fn respond_with_stored(
        self,
        object: &Arc<Object>,
        added: HeaderMap,
        outcome: Outcome,
    ) -> ViewerResponse {
        let body = ResponseBody::whole(object.body.clone());
        let mut response = self.respond(object.head.status, added, body, outcome);
        response.stored = Some(Arc::clone(object));
        response
    }

    /// The record to write if the viewer leaves before there is a response.
    pub(super) fn abandoned_record(&self) -> RequestRecord {
        let mut record = self.record.clone();
        if let (Some(line), Some(id)) = (&mut record.log_fields, request_id_of(&self.headers)) {
            id.to_str()
                .unwrap_or_default()
                .clone_into(&mut line.request_id);
        }
        record
    }

    /// Records what the response really is.
    pub(super) fn describe(&mut self, head: &StoredHead) {
        self.record.kind = head.kind;
        self.record.stream = head.stream;
    }
}

/// Whether the viewer asks how long its response took.
fn asks_for_timing(route: &Route, viewer: &HeaderMap) -> bool {
    let name = route.server_timing.as_ref();
    name.is_some_and(|name| viewer.contains_key(name))
}

/// The record of a request that is answered without a key: it led to this route, if to any.
pub(super) fn unadmitted_record(
    viewer_request: &ViewerRequest,
    is_logged: bool,
    route: Option<&Arc<Route>>,
    outcome: Outcome,
) -> RequestRecord {
    let mut record = begin_record(viewer_request, is_logged);
    record.outcome = outcome;
    record.route = route.map(|route| route.index);
    if let Some(fields) = &mut record.log_fields {
        fields.route = route.map(|route| Arc::clone(&route.name));
    }
    record
}

/// Responds to a request that was not admitted.
pub(super) fn respond_unadmitted(
    viewer_request: &ViewerRequest,
    mut record: RequestRecord,
    status: StatusCode,
    mut headers: HeaderMap,
    body: ResponseBody,
) -> ViewerResponse {
    add_request_id(&mut headers, &viewer_request.headers, &mut record);
    finish(status, headers, body, record)
}

fn finish(
    status: StatusCode,
    headers: HeaderMap,
    body: ResponseBody,
    mut record: RequestRecord,
) -> ViewerResponse {
    record.status = status;
    ViewerResponse {
        status,
        headers,
        stored: None,
        body,
        part_of: None,
        repeat: None,
        record,
        meter: None,
    }
}

/// Puts the request id into the response and the access log: the viewer's own id if it is short
/// printable ASCII.
fn add_request_id(response: &mut HeaderMap, viewer: &HeaderMap, record: &mut RequestRecord) {
    let id = request_id_of(viewer).cloned().unwrap_or_else(|| {
        HeaderValue::from_bytes(&new_request_id()).unwrap_or(HeaderValue::from_static("-"))
    });
    if let Some(line) = &mut record.log_fields {
        id.to_str()
            .unwrap_or_default()
            .clone_into(&mut line.request_id);
    }
    response.insert(X_REQUEST_ID, id);
}

fn request_id_of(viewer: &HeaderMap) -> Option<&HeaderValue> {
    viewer.get(X_REQUEST_ID).filter(|id| {
        id.len() <= REQUEST_ID_BYTES_MAX && id.as_bytes().iter().all(u8::is_ascii_graphic)
    })
}

/// A random request id: 16 hexadecimal digits.
pub fn new_request_id() -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random = fastrand::u64(..);
    std::array::from_fn(|digit| DIGITS[(random >> (digit * 4) & 0xf) as usize])
}

fn begin_record(viewer_request: &ViewerRequest, is_logged: bool) -> RequestRecord {
    let class = viewer_request.class.as_ref();
    RequestRecord {
        class: class.map(|class| class.index),
        viewer_hash: viewer_hash(viewer_request.address.viewer),
        log_fields: is_logged.then(|| {
            let ViewerRequest {
                method,
                uri,
                version,
                headers,
                address,
                ..
            } = viewer_request;
            let fields = AccessLogFields::of(method, uri, *version, headers, *address);
            Box::new(AccessLogFields {
                class: class.map(|class| Arc::clone(&class.name)),
                ..fields
            })
        }),
        ..RequestRecord::begin(viewer_request.arrived)
    }
}
