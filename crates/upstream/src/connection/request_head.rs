//! Builds the request head that is sent: the same for HTTP/1.1 and HTTP/2 except for the address.
//!
//! This module sets framing and connection headers itself: values from the caller or the settings
//! are dropped.

use std::time::Duration;

use http::header::{self, HeaderName};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri};
use pingora_http::RequestHeader;

use crate::guard::FailureSubject;
use crate::sign::{FIELDS, Message, RequestAuth};
use crate::{
    Deadlines, Endpoint, Failure, Priority, RequestBody, RequestClass, Settings, SetupError,
    UpstreamRequest,
};
use seawall_manifest::low_latency::is_blocking;

/// An [`UpstreamRequest`] without its body.
pub(crate) struct AttemptRequest {
    pub(crate) method: Method,
    /// The target as it is sent.
    pub(crate) target: PathAndQuery,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: PayloadSize,
    pub(crate) priority: Priority,
    /// The rate limit it counts against.
    pub(crate) class: RequestClass,
    /// The origin is expected to block until new content exists.
    pub(crate) is_blocking: bool,
    /// Credentials for the origin.
    pub(crate) auth: RequestAuth,
}

/// The size of the request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadSize {
    /// No body, and the method defines none.
    Nothing,
    /// This number of bytes.
    Bytes(u64),
    /// Unknown.
    Chunks,
}

/// Headers that a group adds to every request.
pub(crate) struct GroupHeaders {
    /// `Host` by endpoint, used if the request has none.
    pub(crate) hosts: Vec<HeaderValue>,
}

impl GroupHeaders {
    pub(crate) fn new(settings: &Settings) -> Result<GroupHeaders, SetupError> {
        let host_header = |endpoint: &Endpoint| {
            let host = settings
                .host
                .clone()
                .unwrap_or_else(|| endpoint.authority());
            let is_valid = host.parse::<Authority>().is_ok() && !host.contains('@');
            let value = HeaderValue::try_from(&host).ok().filter(|_| is_valid);
            value.ok_or(SetupError::Host { host })
        };
        let hosts = settings
            .endpoints
            .iter()
            .map(host_header)
            .collect::<Result<_, _>>()?;
        Ok(GroupHeaders { hosts })
    }
}

impl PayloadSize {
    pub(crate) fn of(method: &Method, body: Option<&RequestBody>) -> PayloadSize {
        use http_body::Body;
        match body {
            Some(body) if !body.is_end_stream() => body
                .size_hint()
                .exact()
                .map_or(PayloadSize::Chunks, PayloadSize::Bytes),
            _ if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
                PayloadSize::Bytes(0)
            }
            _ => PayloadSize::Nothing,
        }
    }

    /// No body bytes follow the head.
    pub(crate) fn is_empty(self) -> bool {
        matches!(self, PayloadSize::Nothing | PayloadSize::Bytes(0))
    }
}

/// See [`AttemptRequest::balance_hash`].
pub(crate) fn balance_hash(target: &PathAndQuery, host: Option<&HeaderValue>) -> u64 {
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    hasher.hash_one((target.as_str(), host))
}

/// See [`AttemptRequest::subject`].
pub(crate) fn subject(target: &PathAndQuery, host: Option<&HeaderValue>) -> FailureSubject {
    FailureSubject::of(target.path(), host.map(HeaderValue::as_bytes))
}

impl AttemptRequest {
    /// Splits a request into head and body. A request that cannot be sent to any endpoint fails
    /// here, so that no endpoint is blamed.
    pub(crate) fn of(
        request: UpstreamRequest,
        auth: RequestAuth,
    ) -> Result<(AttemptRequest, Option<RequestBody>), Failure> {
        let payload = PayloadSize::of(&request.method, request.body.as_ref());
        let head = AttemptRequest {
            method: request.method,
            target: auth.target(&request.path_and_query)?,
            host: request.host,
            headers: request.headers,
            payload,
            priority: request.priority,
            class: request.class,
            is_blocking: request.is_blocking,
            auth,
        };
        Ok((head, request.body))
    }

    /// The same request with the method HEAD.
    pub(crate) fn head_only(&self) -> AttemptRequest {
        AttemptRequest {
            method: Method::HEAD,
            payload: PayloadSize::Nothing,
            ..self.with_auth(self.auth.clone())
        }
    }

    /// The same request with other credentials.
    pub(crate) fn with_auth(&self, auth: RequestAuth) -> AttemptRequest {
        AttemptRequest {
            method: self.method.clone(),
            target: self.target.clone(),
            host: self.host.clone(),
            headers: self.headers.clone(),
            payload: self.payload,
            priority: self.priority,
            class: self.class,
            is_blocking: self.is_blocking,
            auth,
        }
    }

    /// The URL and directory that failures are counted under.
    pub(crate) fn subject(&self) -> FailureSubject {
        subject(&self.target, self.host.as_ref())
    }

    /// A hash of target and host, for load balancing.
    pub(crate) fn balance_hash(&self) -> u64 {
        balance_hash(&self.target, self.host.as_ref())
    }

    /// Can be sent twice: the method is idempotent and there is no body.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.method.is_idempotent() && self.payload.is_empty()
    }

    /// The origin may block until new content exists: it is known to, or a playlist is requested
    /// ahead of time. An LL-HLS query parameter extends the deadline but does not bypass the
    /// concurrency limits.
    pub(crate) fn may_block(&self) -> bool {
        self.is_blocking
            || (self.priority == Priority::Manifest && asks_for_future_version(&self.target))
    }

    /// Deadline for the end of the response head.
    pub(crate) fn head_timeout(&self, deadlines: &Deadlines) -> Duration {
        match self.priority {
            _ if self.may_block() => deadlines.blocking,
            Priority::Manifest => deadlines.manifest,
            Priority::Edge | Priority::Segment | Priority::Refresh | Priority::Prefetch => {
                deadlines.first_byte
            }
        }
    }

    /// The head for HTTP/1.1.
    pub(crate) fn h1(
        &self,
        endpoint: usize,
        group: &GroupHeaders,
    ) -> Result<Box<RequestHeader>, Failure> {
        let mut head = self.head(Uri::from(self.target.clone()), endpoint, group)?;
        append(&mut head, header::HOST, self.host(endpoint, group))?;
        match self.payload {
            PayloadSize::Nothing => {}
            PayloadSize::Bytes(length) => {
                append(&mut head, header::CONTENT_LENGTH, &length.into())?;
            }
            PayloadSize::Chunks => {
                let chunked = HeaderValue::from_static("chunked");
                append(&mut head, header::TRANSFER_ENCODING, &chunked)?;
            }
        }
        Ok(head)
    }

    /// The head for HTTP/2: the host becomes `:authority`.
    pub(crate) fn h2(
        &self,
        endpoint: usize,
        tls: bool,
        group: &GroupHeaders,
    ) -> Result<Box<RequestHeader>, Failure> {
        let uri = Uri::builder()
            .scheme(if tls { Scheme::HTTPS } else { Scheme::HTTP })
            .authority(self.host(endpoint, group).as_bytes())
            .path_and_query(self.target.clone())
            .build()
            .map_err(|_| Failure::Protocol)?;
        let mut head = self.head(uri, endpoint, group)?;
        if let PayloadSize::Bytes(length) = self.payload {
            append(&mut head, header::CONTENT_LENGTH, &length.into())?;
        }
        Ok(head)
    }

    /// The common head, without `Host` and body length; `Host` is only part of the signature here.
    fn head(
        &self,
        uri: Uri,
        endpoint: usize,
        group: &GroupHeaders,
    ) -> Result<Box<RequestHeader>, Failure> {
        let size = self.headers.len() + self.auth.headers().len() + 2;
        let mut head = RequestHeader::build_no_case(self.method.clone(), b"/", Some(size))
            .map_err(|_| Failure::Protocol)?;
        head.set_uri(uri);
        for (name, value) in self.headers.iter().filter(|(name, _)| !is_set_here(name)) {
            append(&mut head, name.clone(), value)?;
        }
        set(&mut head, self.auth.headers())?;
        let message = Message {
            method: &self.method,
            host: self.host(endpoint, group),
            target: &self.target,
            headers: &head.headers,
            bodiless: self.payload.is_empty(),
        };
        if let Some(signature) = self.auth.signature(endpoint, &message)? {
            for name in &FIELDS {
                head.remove_header(name);
            }
            set(&mut head, &signature)?;
        }
        Ok(Box::new(head))
    }

    fn host<'a>(&'a self, endpoint: usize, group: &'a GroupHeaders) -> &'a HeaderValue {
        self.host.as_ref().unwrap_or(&group.hosts[endpoint])
    }
}

/// Sets fields, replacing any others of these names.
fn set(head: &mut RequestHeader, fields: &[(HeaderName, HeaderValue)]) -> Result<(), Failure> {
    let fields = || fields.iter().filter(|(name, _)| !is_set_here(name));
    for (name, _) in fields() {
        head.remove_header(name);
    }
    for (name, value) in fields() {
        append(head, name.clone(), value)?;
    }
    Ok(())
}

fn append(head: &mut RequestHeader, name: HeaderName, value: &HeaderValue) -> Result<(), Failure> {
    head.append_header(name, value.clone())
        .map(drop)
        .map_err(|_| Failure::Protocol)
}

/// The query requests a future playlist version (LL-HLS).
fn asks_for_future_version(target: &PathAndQuery) -> bool {
    let query = target.query().unwrap_or_default();
    let blocking = |pair: &str| {
        let name = pair.split_once('=').map(|(name, _)| name);
        name.is_some_and(is_blocking)
    };
    query.split('&').any(blocking)
}

/// The header belongs to the connection or to body framing, or is `Host`, which has its own
/// settings. `Expect` is included because this client does not wait for a 100.
fn is_set_here(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 8] = [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
    ];
    NAMES.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, set: &[(&'static str, &'static str)]) -> AttemptRequest {
        let header = |(name, value): &(&'static str, &'static str)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        AttemptRequest {
            auth: RequestAuth::of(set.iter().map(header).collect()),
            method: Method::GET,
            target: path.parse().unwrap(),
            host: None,
            headers: HeaderMap::new(),
            payload: PayloadSize::Nothing,
            priority: Priority::Manifest,
            class: RequestClass::Other,
            is_blocking: false,
        }
    }

    fn additions() -> GroupHeaders {
        GroupHeaders {
            hosts: vec![HeaderValue::from_static("o.example")],
        }
    }

    #[test]
    fn path_and_query_are_sent_byte_for_byte() {
        let path = "//a/../%2e%2E/b;x|y\"?q=%20&q=&&a={é}";
        let request = request(path, &[]);
        let h1 = request.h1(0, &additions()).unwrap();
        assert_eq!(h1.raw_path(), path.as_bytes());
        let h2 = request.h2(0, true, &additions()).unwrap();
        assert_eq!(h2.raw_path(), path.as_bytes());
        assert_eq!(h2.uri.authority().unwrap(), "o.example");
        assert!(h2.headers.get("host").is_none());
    }

    #[test]
    fn added_headers_replace_and_framing_headers_are_dropped() {
        let mut request = request(
            "/x",
            &[("x-auth", "1"), ("x-auth", "2"), ("connection", "close")],
        );
        request.host = Some(HeaderValue::from_static("viewer.example"));
        request.headers.append("x-auth", "theirs".parse().unwrap());
        request
            .headers
            .append("content-length", "9".parse().unwrap());
        request.headers.append("host", "evil".parse().unwrap());
        let head = request.h1(0, &additions()).unwrap();
        let auth: Vec<_> = head.headers.get_all("x-auth").iter().collect();
        assert_eq!(auth, ["1", "2"]);
        assert_eq!(head.headers.get("host").unwrap(), "viewer.example");
        assert_eq!(head.headers.len(), 3);
    }

    #[test]
    fn blocking_request_is_recognized_by_hls_msn_query() {
        assert!(request("/x.m3u8?a=1&_HLS_msn=7&_HLS_part=2", &[]).may_block());
        assert!(request("/x.m3u8?%5FHLS%5fms%6E=7", &[]).may_block());
        assert!(!request("/x.m3u8?a_HLS_msn=7", &[]).may_block());
        assert!(!request("/_HLS_msn=7", &[]).may_block());
        let segment = AttemptRequest {
            priority: Priority::Segment,
            class: RequestClass::Other,
            ..request("/x.ts?_HLS_msn=7", &[])
        };
        assert!(!segment.may_block());
    }

    #[test]
    fn response_deadline_depends_on_request_kind() {
        let deadlines = Deadlines::default();
        let head_timeout = |path: &str, priority| {
            AttemptRequest {
                priority,
                ..request(path, &[])
            }
            .head_timeout(&deadlines)
        };
        assert_eq!(
            head_timeout("/x.m3u8", Priority::Manifest),
            deadlines.manifest
        );
        assert_eq!(
            head_timeout("/x.ts", Priority::Segment),
            deadlines.first_byte
        );
        assert_eq!(
            head_timeout("/x.ts", Priority::Refresh),
            deadlines.first_byte
        );
        assert_eq!(
            head_timeout("/x.m3u8?_HLS_msn=7", Priority::Manifest),
            deadlines.blocking
        );
    }

    #[test]
    fn post_without_body_has_length_zero() {
        assert_eq!(PayloadSize::of(&Method::POST, None), PayloadSize::Bytes(0));
        assert_eq!(PayloadSize::of(&Method::GET, None), PayloadSize::Nothing);
    }
}
