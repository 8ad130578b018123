//! What comes in from a viewer and what goes back, free of any HTTP library's machinery.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, StatusCode, Uri, Version, header};

use super::ResponseBody;
use crate::cache::{Object, SharedBody};
use crate::telemetry::RequestRecord;
use crate::upstream::RequestBody;

/// A parsed request.
pub struct ViewerRequest {
    /// Method.
    pub method: Method,
    /// As parsed: origin-form with `Host`, or absolute (HTTP/2 always).
    pub uri: Uri,
    /// Version spoken.
    pub version: Version,
    /// All headers.
    pub headers: HeaderMap,
    /// The viewer's address; `None` on Unix sockets.
    pub peer: Option<IpAddr>,
    /// Came over TLS.
    pub tls: bool,
    /// When its head was complete.
    pub arrived: Instant,
    /// Its body. Dropped unread unless a route passes the method on.
    pub body: Option<RequestBody>,
}

impl ViewerRequest {
    /// The host as the viewer named it.
    pub(super) fn host(&self) -> &str {
        let field = self.headers.get(header::HOST);
        let named = field.and_then(|host| host.to_str().ok());
        self.uri.host().or(named).unwrap_or_default()
    }
}

/// An answer; its body may still be growing.
pub struct ViewerResponse {
    /// Status.
    pub status: StatusCode,
    /// Complete but for `Date` and framing, which the edge adds, and for the fields of `held`.
    pub headers: HeaderMap,
    /// An object whose fields are the answer's too, but for [`crate::cache::SAID_ANEW`], and but for those
    /// that tell freshness, where the answer does: shared, not copied.
    pub held: Option<Arc<Object>>,
    /// The body.
    pub body: ResponseBody,
    /// The object whose body this is, or parts of it, where it is not `held`.
    pub part_of: Option<Arc<Object>>,
    /// To be finished and told by the edge when the body is through.
    pub tale: RequestRecord,
}

impl ViewerResponse {
    /// What the body shares with a held object, where slow readers of that are counted.
    pub fn shared_body(&self) -> Option<&Arc<SharedBody>> {
        let object = self.held.as_ref().or(self.part_of.as_ref())?;
        object.shared_body()
    }

    /// All its fields in one map.
    pub fn take_headers(&mut self) -> HeaderMap {
        let added = std::mem::take(&mut self.headers);
        let Some(object) = self.held.take() else {
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
