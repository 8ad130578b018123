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
        let mut headers = self.upstream_headers(&context);
        for name in OF_A_PASSED_READ {
            if let Some(value) = context.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let head_only = context.head_only;
        let method = if head_only { Method::HEAD } else { Method::GET };
        let upstream_headers = headers.clone();
        match self.ask_origin(&mut context, method, headers, None).await {
            Ok((response, private_fetch)) => {
                let manifest_tap = (!head_only)
                    .then(|| ManifestTap::of(self, &context.request, &upstream_headers, &response))
                    .flatten();
                let mut passed =
                    PassThroughResponse::of(response, None, head_only, &self.rules.name);
                passed.manifest_tap = manifest_tap;
                responses::respond_with_pass_through(context, passed.abandoned_with(private_fetch))
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
        let (route, forwarded) = (&context.request.route, context.request.forwarded.as_deref());
        let headers = headers::passed(&context.headers, forwarded, route, &self.rules.name);
        if !self.clients.admit(context.client).await {
            return rejections::client_limited(context);
        }
        let (response, private_fetch) = match self
            .ask_origin(&mut context, method.clone(), headers, body)
            .await
        {
            Ok(response) => response,
            Err(failure) => return rejections::failed(context, failure),
        };
        if !method.is_safe() && (response.status.is_success() || response.status.is_redirection()) {
            self.invalidate(&context.request, host, &response.headers);
        }
        let passed = PassThroughResponse::of(response, None, false, &self.rules.name);
        responses::respond_with_pass_through(context, passed.abandoned_with(private_fetch))
    }

    async fn ask_origin(
        &self,
        context: &mut RequestContext,
        method: Method,
        headers: HeaderMap,
        body: Option<RequestBody>,
    ) -> Result<(UpstreamResponse, PrivateFetch), Failure> {
        let mut private_fetch = PrivateFetch::new(self.clients.begin_fetch(context.client));
        let request = &context.request;
        let upstream_request = UpstreamRequest {
            priority_raise: None,
            cause: self.cause_of(request),
            is_expected: false,
            expected_content: ExpectedContent::Anything,
            class: self.live.kind_of(request).into(),
            has_fallback: false,
            method,
            path_and_query: request.target.clone(),
            host: request.sent_host().cloned(),
            headers,
            body,
            priority: priority::for_waiting_viewer(request.kind, || {
                self.live.is_new(&request.key, context.now)
            }),
            is_blocking: false,
            late_after: None,
            avoided: EndpointSet::default(),
            excluded: EndpointSet::default(),
            budget: BudgetUse::Earns,
        };
        let origin = self.origin_of(&request.route);
        let asked = Instant::now();
        let response = origin.fetch(upstream_request).await;
        let waited = response.as_ref().map(|response| response.waited);
        context.waited_for_origin(waited.unwrap_or_else(|_| asked.elapsed()));
        match response {
            Ok(response) => Ok((response, private_fetch)),
            Err(failure) => {
                private_fetch.ended();
                Err(failure)
            }
        }
    }
}
