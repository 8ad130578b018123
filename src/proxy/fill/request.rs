//! Builds and sends a fill's request: when, for what, with which priority, and with which endpoints
//! last.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode, header};

use super::{FillTask, FillTrigger, OriginOutcome};
use crate::live::{Availability, PrefetchSource};
use crate::proxy::priority;
use seawall_cache::Object;
use seawall_manifest::{Kind, ManifestInfo};
use seawall_policy::freshness::{Freshness, freshness};
use seawall_policy::{EndpointSet, Now, conditional, make_shareable, strip_set_cookie};
use seawall_upstream::{
    ExpectedContent, Failure, Priority, PriorityRaise, UpstreamRequest, UpstreamResponse,
};

impl FillTask {
    /// Requests the object, or revalidates the stored one.
    pub(super) async fn request_object(&self) -> Option<Result<OriginOutcome, Failure>> {
        let stored = self.fill.lookup().object.as_deref();
        let to_revalidate = self
            .stored_object()
            .filter(|stored| !self.is_forgotten(stored));
        let outcome = self.request_or_revalidate(to_revalidate).await;
        match &outcome {
            // The request was not conditional, or the 304 names another object: request the object
            // itself.
            Some(Ok(outcome))
                if outcome.response.status == StatusCode::NOT_MODIFIED
                    && !(outcome.conditional && same_object(&outcome.response, stored)) =>
            {
                self.request_or_revalidate(None).await
            }
            _ => outcome,
        }
    }

    /// A stored version of a live manifest whose tracker was evicted. A 304 would not rebuild the
    /// tracker.
    fn is_forgotten(&self, stored: &Object) -> bool {
        let info = stored.head.manifest_info.as_deref();
        let is_live = info.is_some_and(ManifestInfo::is_live);
        let has_versions = info.is_some_and(|info| !info.is_multivariant() && !info.is_patch());
        is_live
            && has_versions
            && !self.request.has_delivery_directives()
            && self.tracker().is_none()
    }

    /// Waits for a segment that is due in a moment, and requests it once then. Without this, all
    /// players whose clocks are ahead would request it repeatedly.
    pub(super) async fn await_availability(&self) {
        if matches!(self.trigger, FillTrigger::Prefetch(..)) {
            return;
        }
        match self.availability() {
            Some(Availability::DueIn(due_in, tracker)) => {
                self.shield.start_dash_prefetch(&tracker);
                if due_in <= self.request.route.live.hold_early {
                    tokio::time::sleep(due_in).await;
                }
            }
            Some(Availability::AvailableSince(_, tracker)) => {
                self.shield.start_dash_prefetch(&tracker);
            }
            Some(Availability::NextVersionIn(_)) | None => {}
        }
    }

    pub(super) fn availability(&self) -> Option<Availability> {
        let (live, rules) = (&self.shield.live, &self.shield.rules);
        live.availability_of(rules, &self.request, Now::read())
    }

    /// Time until an object exists that the origin does not have. A failed prefetch of a listed
    /// object leaves no memo that would affect viewers.
    pub(super) fn due_in(&self, status: StatusCode) -> Option<Duration> {
        match &self.trigger {
            _ if status == StatusCode::OK => None,
            FillTrigger::Prefetch(prefetch, _) if prefetch.source != PrefetchSource::Nor => {
                Some(Duration::ZERO)
            }
            _ => self.availability()?.absent_for(),
        }
    }

    /// Requests the object, or revalidates `stored`. `None` as in [`FillTask::fetch`].
    pub(super) async fn request_or_revalidate(
        &self,
        stored: Option<&Arc<Object>>,
    ) -> Option<Result<OriginOutcome, Failure>> {
        let mut headers = self.fill.upstream_headers().clone();
        let conditional = stored.is_some_and(|stored| {
            conditional::validators(&stored.head.headers.to_map(), &mut headers)
        });
        let response = self.fetch(headers, self.avoided()).await?;
        Some(response.map(|response| OriginOutcome {
            response,
            conditional,
        }))
    }

    /// Sends one request to the origin. `None`: the fill is to be cancelled, because all viewers
    /// have left.
    pub(super) async fn fetch(
        &self,
        headers: HeaderMap,
        avoided: EndpointSet,
    ) -> Option<Result<UpstreamResponse, Failure>> {
        let upstream_request = self.upstream_request(headers, avoided);
        let origin = self.origin();
        let mut response = tokio::select! {
            response = origin.fetch(upstream_request) => response,
            () = self.wait_until_cancelled(self.may_be_blocking) => return None,
        };
        if let Ok(response) = &mut response {
            self.apply_route(response);
        }
        Some(response)
    }

    /// Changes a response as the route says, before anything is decided about it.
    pub(super) fn apply_route(&self, response: &mut UpstreamResponse) {
        strip_set_cookie(&mut response.headers, &self.request.route.strip_set_cookie);
        self.override_private(response);
    }

    /// Makes a good response shareable if the route says that those of its kind are no viewer's
    /// own. What is for one viewer's credentials stays so.
    fn override_private(&self, response: &mut UpstreamResponse) {
        let kinds = &self.request.route.store_private;
        let is_good = response.status.is_success() || response.status == StatusCode::NOT_MODIFIED;
        let is_overridden = !kinds.is_empty()
            && is_good
            && !self.is_authorized()
            && kinds.contains(&self.shield.live.kind_of(&self.request));
        if is_overridden && make_shareable(&mut response.headers) {
            let overridden = &self.shield.private_overridden;
            overridden.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Builds a request to the origin, and counts it for its stream.
    pub(super) fn upstream_request(
        &self,
        headers: HeaderMap,
        avoided: EndpointSet,
    ) -> UpstreamRequest {
        self.shield.live.count_origin_request(&self.request);
        let (target, host) = (
            self.request.target.clone(),
            self.request.sent_host().cloned(),
        );
        UpstreamRequest {
            is_expected: self.is_expected(),
            expected_content: self.expected_content(),
            class: self.shield.live.kind_of(&self.request).into(),
            has_fallback: self.has_servable_object(),
            is_blocking: self.is_known_to_be_blocking(),
            late_after: self.overdue_after(),
            avoided,
            priority_raise: self.priority_raise(),
            cause: self.shield.cause_of(&self.request),
            ..UpstreamRequest::get(target, host, headers, self.priority())
        }
    }

    fn expected_content(&self) -> ExpectedContent {
        match self.shield.live.kind_of(&self.request) {
            Kind::Hls | Kind::Dash => ExpectedContent::Manifest,
            Kind::Segment | Kind::Init => ExpectedContent::Media,
            Kind::DecryptionKey | Kind::TimeServer | Kind::Other => ExpectedContent::Anything,
        }
    }

    /// The object should exist: it did before, or a manifest says so.
    pub(super) fn is_expected(&self) -> bool {
        let is_due = || self.availability().is_some_and(|due| due.is_expected());
        // An endpoint that does not block a request for an announced object lacks it; another
        // endpoint may have it.
        let is_announced = || !self.request.kind.is_manifest() && self.is_known_to_be_blocking();
        self.stored_object().is_some() || self.is_new() || is_announced() || is_due()
    }

    pub(super) fn is_known_to_be_blocking(&self) -> bool {
        let upstream_headers = self.fill.upstream_headers();
        self.may_be_blocking
            && self
                .shield
                .is_known_to_be_blocking(&self.request, upstream_headers)
    }

    pub(super) fn is_new(&self) -> bool {
        self.shield.live.is_new(&self.request.key, Instant::now())
    }

    /// The stored object, unless it is an error.
    pub(super) fn stored_object(&self) -> Option<&Arc<Object>> {
        let stored = self.fill.lookup().object.as_ref();
        stored.filter(|stored| stored.head.status == StatusCode::OK)
    }

    /// An object is stored that may be served if the origin fails.
    pub(super) fn has_servable_object(&self) -> bool {
        let stored = self.fill.lookup().object.as_ref();
        let now = Instant::now();
        stored.is_some_and(|stored| freshness(&stored.head.lifetime, now) != Freshness::Unusable)
    }

    pub(super) fn priority(&self) -> Priority {
        match self.trigger {
            FillTrigger::Viewer(..) => {
                priority::for_waiting_viewer(self.request.kind, || self.is_new())
            }
            FillTrigger::Refresh => priority::for_refresh(self.request.kind),
            FillTrigger::Prefetch(..) => Priority::Prefetch,
        }
    }

    /// What no viewer waits for gets a viewer's priority once one has joined.
    pub(super) fn priority_raise(&self) -> Option<PriorityRaise> {
        let waits = match self.trigger {
            FillTrigger::Viewer(..) => true,
            // It has the priority of a viewer's request already.
            FillTrigger::Refresh => self.request.kind.is_manifest(),
            FillTrigger::Prefetch(..) => false,
        };
        (!waits).then(|| PriorityRaise {
            when: Box::pin(self.fill.wait_for_join()),
            priority: priority::for_waiting_viewer(self.request.kind, || true),
        })
    }
}

/// Whether a 304 is about the stored object (RFC 9111 §4.3.4: by its validator, if it has one).
fn same_object(response: &UpstreamResponse, stored: Option<&Object>) -> bool {
    let weak = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    let stored_etag = stored.and_then(|stored| stored.head.headers.get(&header::ETAG));
    match (response.headers.get(header::ETAG), stored_etag) {
        (Some(etag), Some(stored_etag)) => weak(etag.as_bytes()) == weak(stored_etag),
        _ => true,
    }
}
