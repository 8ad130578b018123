//! Passes uncacheable responses from the origin to one viewer, at that viewer's rate.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::body::checked;
use super::clients::PrivateFetch;
use super::context::RequestContext;
use super::manifest_tap::ManifestTap;
use super::status::ForwardReason;
use super::{ResponseBody, Shield, ViewerResponse, priority, rejections, responses};
use seawall_cache::BodyTruncated;
use seawall_policy::lifetime::UncacheableReason;
use seawall_policy::{EndpointSet, headers};
use seawall_upstream::{
    BudgetUse, ExpectedContent, Failure, Framing, RequestBody, UpstreamBody, UpstreamRequest,
    UpstreamResponse, ViewerRelay,
};

/// Request headers that an uncached request needs besides those that the route allows.
const OF_A_PASSED_READ: [HeaderName; 6] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// An origin response for one viewer.
pub(super) struct PassThroughResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: PassThroughBody,
    pub(super) reason: Option<UncacheableReason>,
    /// Parses the body on the way, if it is a manifest.
    manifest_tap: Option<Box<ManifestTap>>,
    /// Counts as abandoned if it is dropped before the end of the body.
    pub(super) private_fetch: Option<PrivateFetch>,
}

/// The body; a manifest was read completely before it turned out to be uncacheable.
pub(super) enum PassThroughBody {
    Flowing(UpstreamBody, Framing),
    Whole(Bytes),
}

impl PassThroughResponse {
    /// Its status, headers, reason and body.
    pub(super) fn parts(
        self,
    ) -> (
        StatusCode,
        HeaderMap,
        Option<UncacheableReason>,
        ResponseBody,
    ) {
        let body = self.body.into_body(self.private_fetch, self.manifest_tap);
        (self.status, self.headers, self.reason, body)
    }

    /// `bodiless`: the response to a HEAD, which keeps the origin's `Content-Length`.
    pub(super) fn of(
        reply: UpstreamResponse,
        reason: Option<UncacheableReason>,
        bodiless: bool,
        name: &str,
    ) -> PassThroughResponse {
        let length = reply.headers.get(header::CONTENT_LENGTH).cloned();
        let mut headers = passed_headers(reply.headers, name);
        headers.extend(
            length
                .filter(|_| bodiless)
                .map(|length| (header::CONTENT_LENGTH, length)),
        );
        PassThroughResponse {
            status: reply.status,
            headers,
            body: PassThroughBody::Flowing(reply.body, reply.framing),
            reason,
            manifest_tap: None,
            private_fetch: None,
        }
    }

    /// Charges the client if it leaves before the end of the body.
    fn left_by(self, private_fetch: PrivateFetch) -> PassThroughResponse {
        let private_fetch = Some(private_fetch);
        PassThroughResponse {
            private_fetch,
            ..self
        }
    }

    pub(super) fn whole(
        reply: UpstreamResponse,
        body: Bytes,
        reason: UncacheableReason,
        name: &str,
    ) -> PassThroughResponse {
        PassThroughResponse {
            status: reply.status,
            headers: passed_headers(reply.headers, name),
            body: PassThroughBody::Whole(body),
            reason: Some(reason),
            manifest_tap: None,
            private_fetch: None,
        }
    }
}

/// The shield does not store the response, so it keeps the origin's `Age`.
fn passed_headers(origin: HeaderMap, name: &str) -> HeaderMap {
    let age = headers::age(&origin);
    let mut headers = headers::downstream(origin, name);
    headers.extend(age);
    headers
}

impl PassThroughBody {
    fn into_body(
        self,
        private_fetch: Option<PrivateFetch>,
        manifest_tap: Option<Box<ManifestTap>>,
    ) -> ResponseBody {
        let ended = |private_fetch: Option<PrivateFetch>| {
            private_fetch.map(|mut private_fetch| private_fetch.ended())
        };
        match self {
            PassThroughBody::Whole(bytes) => {
                ended(private_fetch);
                ResponseBody::whole(bytes)
            }
            PassThroughBody::Flowing(_, Framing::Length(0)) => {
                ended(private_fetch);
                ResponseBody::Empty
            }
            PassThroughBody::Flowing(upstream_body, framing) => ResponseBody::Passing(Box::new(
                PassThroughStream::new(upstream_body, framing, private_fetch, manifest_tap),
            )),
        }
    }
}

impl Shield {
    /// Requests the object with GET or HEAD for this viewer alone.
    pub(super) async fn pass(self: &Arc<Self>, mut context: RequestContext) -> ViewerResponse {
        context.forward = ForwardReason::Bypass;
        let mut headers = self.upstream(&context);
        for name in OF_A_PASSED_READ {
            if let Some(value) = context.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let head_only = context.head_only;
        let method = if head_only { Method::HEAD } else { Method::GET };
        let sent = headers.clone();
        match self.ask_origin(&mut context, method, headers, None).await {
            Ok((reply, private_fetch)) => {
                let manifest_tap = (!head_only)
                    .then(|| ManifestTap::of(self, &context.entry, &sent, &reply))
                    .flatten();
                let mut passed = PassThroughResponse::of(reply, None, head_only, &self.rules.name);
                passed.manifest_tap = manifest_tap;
                responses::passing(context, passed.left_by(private_fetch))
            }
            Err(failure) => rejections::failed(context, failure),
        }
    }

    /// Forwards another method on a route that allows it. Success invalidates the stored objects of
    /// the URI. `host`: as the viewer named it.
    pub(super) async fn pass_method(
        self: &Arc<Self>,
        mut context: RequestContext,
        host: &str,
        method: Method,
        body: Option<RequestBody>,
    ) -> ViewerResponse {
        context.forward = ForwardReason::Method;
        if headers::loops(&context.headers, &self.rules.name) {
            return rejections::looped(context);
        }
        let (route, forwarded) = (&context.entry.route, context.entry.forwarded.as_deref());
        let headers = headers::passed(&context.headers, forwarded, route, &self.rules.name);
        if !self.clients.admit(context.client).await {
            return rejections::client_limited(context);
        }
        let (reply, private_fetch) = match self
            .ask_origin(&mut context, method.clone(), headers, body)
            .await
        {
            Ok(reply) => reply,
            Err(failure) => return rejections::failed(context, failure),
        };
        if !method.is_safe() && (reply.status.is_success() || reply.status.is_redirection()) {
            self.invalidate(&context.entry, host, &reply.headers);
        }
        let passed = PassThroughResponse::of(reply, None, false, &self.rules.name);
        responses::passing(context, passed.left_by(private_fetch))
    }

    async fn ask_origin(
        &self,
        context: &mut RequestContext,
        method: Method,
        headers: HeaderMap,
        body: Option<RequestBody>,
    ) -> Result<(UpstreamResponse, PrivateFetch), Failure> {
        let mut private_fetch = PrivateFetch::new(self.clients.begin_fetch(context.client));
        let entry = &context.entry;
        let upstream_request = UpstreamRequest {
            upgrade: None,
            expected: false,
            expected_content: ExpectedContent::Anything,
            class: self.live.kind_of(entry).into(),
            has_fallback: false,
            method,
            path_and_query: entry.target.clone(),
            host: entry.sent_host().cloned(),
            headers,
            body,
            rank: priority::waited_for(entry.kind, || self.live.is_new(&entry.key, context.now)),
            is_blocking: false,
            late_after: None,
            avoided: EndpointSet::default(),
            excluded: EndpointSet::default(),
            budget: BudgetUse::Earns,
        };
        let origin = &self.origins[entry.route.origin_index];
        let asked = Instant::now();
        let reply = origin.fetch(upstream_request).await;
        let waited = reply.as_ref().map(|reply| reply.waited);
        context.waited_for_origin(waited.unwrap_or_else(|_| asked.elapsed()));
        match reply {
            Ok(reply) => Ok((reply, private_fetch)),
            Err(failure) => {
                private_fetch.ended();
                Err(failure)
            }
        }
    }
}

/// An origin's body, read as fast as one viewer takes it.
pub struct PassThroughStream {
    relay: ViewerRelay,
    left: Option<u64>,
    over: bool,
    private_fetch: Option<PrivateFetch>,
    manifest_tap: Option<Box<ManifestTap>>,
}

impl PassThroughStream {
    fn new(
        upstream_body: UpstreamBody,
        framing: Framing,
        private_fetch: Option<PrivateFetch>,
        manifest_tap: Option<Box<ManifestTap>>,
    ) -> PassThroughStream {
        PassThroughStream {
            relay: upstream_body.relay(),
            left: match framing {
                Framing::Length(length) => Some(length),
                Framing::Delimited | Framing::UntilClose => None,
            },
            over: false,
            private_fetch,
            manifest_tap,
        }
    }

    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }

    pub(super) fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyTruncated>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = ready!(self.relay.poll_next(cx));
        self.over = !matches!(next, Some(Ok(_)));
        let cut = if self.relay.viewer_was_cut() {
            BodyTruncated::Viewer
        } else {
            BodyTruncated::Origin
        };
        let next = next.map(|bytes| bytes.map_err(|_| cut));
        let next = checked(next, &mut self.left);
        if let Some(Ok(bytes)) = &next
            && let Some(manifest_tap) = &mut self.manifest_tap
            && !manifest_tap.push(bytes)
        {
            self.manifest_tap = None;
        }
        // The viewer may not poll again after the last byte.
        if self.over || self.left == Some(0) {
            self.private_fetch.iter_mut().for_each(PrivateFetch::ended);
            let is_whole = !matches!(next, Some(Err(_)));
            let manifest_tap = self.manifest_tap.take().filter(|_| is_whole);
            manifest_tap.into_iter().for_each(ManifestTap::learn);
        }
        Poll::Ready(next)
    }
}
