//! Handles blocking requests: when one is overdue, and when another response ends the wait earlier.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use tokio::time::sleep;

use super::FillTask;
use crate::live::{ManifestTracker, RejectReason};
use crate::proxy::rejections;
use seawall_cache::{Object, Verdict};
use seawall_upstream::UpstreamResponse;

impl FillTask {
    /// The requested playlist, or the one that announces the requested object.
    pub(super) fn awaited_playlist(&self) -> Option<Arc<ManifestTracker>> {
        if self.request.has_delivery_directives() {
            return self.tracker();
        }
        let announced = self.may_be_blocking && !self.request.kind.is_manifest();
        let beside = announced.then(|| self.shield.live.trackers_beside(&self.request));
        beside?.pop()
    }

    /// The time after which another endpoint is requested too.
    pub(super) fn overdue_after(&self) -> Option<Duration> {
        let tracker = self
            .may_be_blocking
            .then(|| self.awaited_playlist())
            .flatten()?;
        tracker.overdue_after(self.request.directives(), Instant::now())
    }

    /// Resolves when another request has brought a version that answers this one.
    pub(super) async fn wait_for_newer_version(&self) -> Arc<Object> {
        let names_version = self.request.directives().msn.is_some();
        let Some(tracker) = self.tracker().filter(|_| names_version) else {
            return pending().await;
        };
        loop {
            let version_stored = tracker.version_stored.notified();
            let upstream_headers = || self.fill.upstream_headers().clone();
            if let Some(newest) = self
                .shield
                .stored_answer_for(&self.request, upstream_headers)
            {
                return newest;
            }
            version_stored.await;
        }
    }

    /// The endpoint rejects the request as too far ahead, but the newest stored version shows that
    /// it is not: the endpoint is behind.
    pub(super) fn is_endpoint_behind(&self, status: StatusCode) -> bool {
        let upstream_headers = || self.fill.upstream_headers().clone();
        status == StatusCode::BAD_REQUEST && self.shield.is_near(&self.request, upstream_headers)
    }

    /// Requests another endpoint. A 400 must not reach the player: if no other endpoint has the
    /// version, the current version is the answer, as from an origin that does not block.
    pub(super) async fn retry_elsewhere(self, response: UpstreamResponse) {
        let why = "this endpoint alone rejects the request as too far ahead";
        self.reject(
            self.tracker().as_deref(),
            response.endpoint,
            RejectReason::Behind,
            &why,
        );
        let other = tokio::select! {
            other = self.request_elsewhere(response.endpoint) => other,
            newest = self.wait_for_newer_version() => return self.fill.settle(Verdict::Object(newest)),
        };
        if let Some(other) = other {
            return self.handle_manifest(other).await;
        }
        let pause = self
            .tracker()
            .map(|tracker| tracker.pause_before_stored_version());
        let newest = tokio::select! {
            newest = self.wait_for_newer_version() => Some(newest),
            // Limits how often a player that repeats at once gets the same version.
            () = sleep(pause.unwrap_or_default()) => self.newest_stored_ok(),
        };
        if let Some(newest) = newest {
            return self.fill.settle(Verdict::Object(newest));
        }
        let soon = HeaderValue::from_static("1");
        let error_object =
            rejections::own_error_object(StatusCode::SERVICE_UNAVAILABLE, Some(soon));
        let error_object = Arc::new(error_object);
        self.back_off(None, &error_object);
        self.fill.settle(Verdict::Failed(error_object));
    }

    /// The endpoint still blocks a request for a version that another endpoint has.
    pub(super) fn avoid_blocking_endpoint(
        &self,
        tracker: Option<&ManifestTracker>,
        endpoint: Option<usize>,
    ) {
        if let Some((tracker, endpoint)) = tracker.zip(endpoint) {
            let path = self.request.target.path();
            tracing::warn!(
                path,
                endpoint,
                "endpoint blocks a request for what another endpoint has"
            );
            tracker.avoid(endpoint, Instant::now());
        }
    }
}
