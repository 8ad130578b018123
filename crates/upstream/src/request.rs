//! A request to an origin group, as callers describe it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};

use super::{Priority, RequestClass};
use seawall_policy::EndpointSet;

/// One request to an origin.
pub struct UpstreamRequest {
    /// GET for fills; other methods on routes that pass them.
    pub method: Method,
    /// The exact target that the cache key was built from.
    pub path_and_query: PathAndQuery,
    /// The viewer's canonical host, if the route forwards it.
    pub host: Option<HeaderValue>,
    /// Already filtered by `policy`; contains no hop-by-hop headers.
    pub headers: HeaderMap,
    /// The body, for methods that have one.
    pub body: Option<RequestBody>,
    /// The object existed a moment ago, or a manifest lists it: a refusal is not trusted while
    /// another endpoint can be requested.
    pub is_expected: bool,
    /// The content that a valid response carries.
    pub expected_content: ExpectedContent,
    /// The rate limit it counts against, where an endpoint has one per class.
    pub class: RequestClass,
    /// Another response is served if this request fails: no endpoint is requested twice.
    pub has_fallback: bool,
    /// Order in the queue before the origin.
    pub priority: Priority,
    /// The origin is known to block until new content exists (LL-HLS): the request waits outside
    /// the concurrency limits.
    pub is_blocking: bool,
    /// A blocking request is late after this time: another endpoint is requested too.
    pub late_after: Option<Duration>,
    /// Endpoints that returned unusable responses: the others are requested first.
    pub avoided: EndpointSet,
    /// Endpoints that must not be requested.
    pub excluded: EndpointSet,
    /// How it counts in the retry budget.
    pub budget: BudgetUse,
    /// Set when no viewer waits yet, and one may before the response arrives.
    pub priority_raise: Option<PriorityRaise>,
    /// Who caused the request, if that is counted: its attempts and their bytes are counted there
    /// too.
    pub cause: Option<Arc<CauseCounters>>,
}

/// What one cause has cost origins.
#[derive(Debug, Default)]
pub struct CauseCounters {
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl CauseCounters {
    pub(crate) fn record_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn record_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Requests sent, with retries and hedges.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Body bytes received.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The expected content: tells which responses carry nothing useful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedContent {
    /// A response without a body is acceptable.
    Anything,
    /// A segment, or an object needed to play one.
    Media,
    /// A manifest.
    Manifest,
}

/// How a request counts in the retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetUse {
    /// A first request: it adds a share of a retry to the budget.
    Earns,
    /// A second request, already paid for with [`super::Origin::take_over`].
    Paid,
}

/// Raises the priority of a request that is in progress.
pub struct PriorityRaise {
    /// Resolves when the priority rises.
    pub when: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The priority from then on.
    pub priority: Priority,
}

impl UpstreamRequest {
    /// A GET, which has no body.
    pub fn get(
        target: PathAndQuery,
        host: Option<HeaderValue>,
        headers: HeaderMap,
        priority: Priority,
    ) -> UpstreamRequest {
        UpstreamRequest {
            method: Method::GET,
            path_and_query: target,
            host,
            headers,
            body: None,
            is_expected: false,
            expected_content: ExpectedContent::Anything,
            class: RequestClass::Other,
            has_fallback: false,
            priority,
            is_blocking: false,
            late_after: None,
            avoided: EndpointSet::default(),
            excluded: EndpointSet::default(),
            budget: BudgetUse::Earns,
            priority_raise: None,
            cause: None,
        }
    }
}

/// A request body; `frontend` enforces its limits. It fails with an [`super::UploadFault`].
pub type RequestBody = Pin<
    Box<dyn http_body::Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Send>,
>;
