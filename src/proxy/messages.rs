//! The viewer's request and response, independent of any HTTP library.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use http::{HeaderMap, Method, StatusCode, Uri, Version, header};

use super::rate_limits::{ByteMeter, RequestLimiter};
use super::{RepeatPermit, ResponseBody};
use crate::telemetry::RequestRecord;
use seawall_cache::{AwaitedFill, Object, SharedBody};
use seawall_policy::{CertificateNames, ClientClass, ViewerAddress};
use seawall_upstream::RequestBody;

/// A parsed request.
pub struct ViewerRequest {
    /// The method.
    pub method: Method,
    /// As parsed: origin-form with `Host`, or absolute (HTTP/2 always).
    pub uri: Uri,
    /// The HTTP version.
    pub version: Version,
    /// All headers.
    pub headers: HeaderMap,
    /// Where it comes from.
    pub address: ViewerAddress,
    /// The connection uses TLS.
    pub tls: bool,
    /// Whom the viewer's certificate names. `None`: it has none.
    pub certificate: Option<Arc<CertificateNames>>,
    /// When the request head was complete, or its first byte arrived if it is answered from memory
    /// before it is parsed in full. Recorded times begin here.
    pub arrived: Instant,
    /// The current time: later than `arrived` if the request has waited before.
    pub now: Instant,
    /// The caller can send the response to other requests in the same words: see
    /// [`ViewerResponse::repeat`] and [`SharedWait`].
    pub wants_repeat: bool,
    /// The class of its client. The proxy finds it.
    pub class: Option<Arc<ClientClass>>,
    /// The request was taken from the rate limits of its route before.
    pub is_counted: bool,
    /// Set before this server cuts the connection at the end of a drain. `None` if the request is
    /// answered without waiting.
    pub is_cut_by_drain: Option<Arc<AtomicBool>>,
    /// The body. Dropped unread unless the route passes the method on.
    pub body: Option<RequestBody>,
}

impl ViewerRequest {
    /// The host, as the viewer named it.
    pub(super) fn host(&self) -> &str {
        let field = self.headers.get(header::HOST);
        let named = field.and_then(|host| host.to_str().ok());
        self.uri.host().or(named).unwrap_or_default()
    }
}

/// The result of a request that is answered from memory only.
#[expect(
    clippy::large_enum_variant,
    reason = "a hit must not pay for an allocation"
)]
pub enum MemoryAnswer {
    /// The response. The length of its body is known.
    Respond(ViewerResponse),
    /// There will be a response for all that send this request: only if the caller can share it.
    Wait(Box<SharedWait>),
    /// Nothing: the same request may be handled in full.
    Unknown,
}

/// A wait that all viewers with the same request may share. They differ in ignored fields only.
pub struct SharedWait {
    /// The generation of the settings that the request was admitted under.
    pub generation: u64,
    /// The fill; each further viewer joins it.
    pub fill: AwaitedFill,
    /// Nobody may join after it: the token that all send ends then.
    pub join_until: Option<Instant>,
    /// The response for all. `None`: each request must be handled by itself.
    pub response: Pin<Box<dyn Future<Output = Option<ViewerResponse>> + Send>>,
    /// The record of a viewer that leaves before there is a response.
    pub record: RequestRecord,
    /// What takes the bytes of the first viewer's response.
    pub meter: Option<ByteMeter>,
    /// What decides whether another viewer may wait, if a rate limit does.
    pub limiter: Option<Arc<RequestLimiter>>,
}

/// A response; its body may still be arriving.
pub struct ViewerResponse {
    /// The status.
    pub status: StatusCode,
    /// All header fields except `Date` and the fields of `stored`. The frontend adds `Date`, and
    /// the framing of a body; the `Content-Length` of a response to HEAD is here.
    pub headers: HeaderMap,
    /// An object whose header fields are also the response's, shared instead of copied; except
    /// [`seawall_cache::REPLACED_FIELDS`], and except the freshness fields if `headers` has any.
    pub stored: Option<Arc<Object>>,
    /// The body.
    pub body: ResponseBody,
    /// The object that the body, or parts of it, comes from, if that is not `stored`.
    pub part_of: Option<Arc<Object>>,
    /// Set if the request asked for it, and the response may be sent again.
    pub repeat: Option<RepeatPermit>,
    /// The frontend completes and records it when the body has ended.
    pub record: RequestRecord,
    /// Takes the bytes of the body as they are sent, if a rate limit counts them.
    pub meter: Option<ByteMeter>,
}

impl ViewerResponse {
    pub(super) fn with_meter(self, meter: Option<ByteMeter>) -> ViewerResponse {
        ViewerResponse { meter, ..self }
    }

    /// The body shared with a stored object; its slow readers are counted.
    pub fn shared_body(&self) -> Option<&Arc<SharedBody>> {
        let object = self.stored.as_ref().or(self.part_of.as_ref())?;
        object.shared_body()
    }

    /// All header fields in one map.
    pub fn take_headers(&mut self) -> HeaderMap {
        let added = std::mem::take(&mut self.headers);
        let Some(object) = self.stored.take() else {
            return added;
        };
        let mut headers = object.head.headers.shared_map(&added);
        for (name, value) in &added {
            debug_assert!(
                *name == header::VARY
                    || name.as_str() == "cache-status"
                    || !headers.contains_key(name),
                "{name} would be said twice"
            );
            headers.append(name, value.clone());
        }
        headers
    }
}
