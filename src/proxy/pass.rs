//! Requests what may not be shared from the origin, for one viewer alone.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, Method, header};

use super::clients::PrivateFetch;
use super::context::{ForwardReason, RequestContext};
use super::manifest_tap::ManifestTap;
use super::pass_through_response::PassThroughResponse;
use super::{Shield, ViewerResponse, priority, rejections, responses};
use seawall_policy::{EndpointSet, headers};
use seawall_upstream::{
    BudgetUse, ExpectedContent, Failure, RequestBody, UpstreamRequest, UpstreamResponse,
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
            priority: priority::waited_for(entry.kind, || {
                self.live.is_new(&entry.key, context.now)
            }),
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
