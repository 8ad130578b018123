//! Reads a fill's body, with takeover by other endpoints, and records which endpoints to ask last
//! for this object and for the objects listed with it.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::FillTask;
use super::delivery::{Delivery, FillBody};
use crate::proxy::race::{AVOIDED, BodyEvent};
use seawall_cache::{ExpiringMemo, KeyMemo};
use seawall_policy::{EndpointAvoidance, EndpointSet};
use seawall_upstream::{Origin, UpstreamBody, UpstreamResponse};

impl FillTask {
    /// Waits for the next chunk of a body, or for another endpoint to take over.
    pub(super) async fn next_chunk(
        &self,
        upstream_body: &mut UpstreamBody,
        delivery: &mut Delivery,
    ) -> BodyEvent {
        let Delivery { progress, race } = delivery;
        let body = FillBody {
            task: self,
            progress,
        };
        let event = race
            .next(upstream_body, &body, self.wait_until_cancelled(false))
            .await;
        if matches!(event, BodyEvent::TakenOver(_)) {
            self.avoid_endpoint(race.endpoint());
        }
        event
    }

    pub(super) fn origin(&self) -> &Arc<Origin> {
        self.shield.origin_of(&self.request.route)
    }

    /// `excluded` and the avoided endpoints; `excluded` alone if no other endpoint is in good
    /// standing.
    fn endpoints_to_avoid(&self, excluded: EndpointSet) -> EndpointSet {
        let all = self.avoided().union(excluded);
        if self.origin().has_another_in_good_standing(all) {
            all
        } else {
            excluded
        }
    }

    /// The endpoints to ask last, because they gave an unusable response for a manifest or for an
    /// object it lists.
    pub(super) fn avoided(&self) -> EndpointSet {
        let now = Instant::now();
        if let Some(failed_endpoints) = self.failed_before(now) {
            return failed_endpoints;
        }
        if self.request.kind.is_manifest() {
            let tracker = self.tracker();
            return tracker
                .map(|tracker| tracker.avoided(now))
                .unwrap_or_default();
        }
        let beside = self.shield.live.trackers_beside(&self.request);
        let none = EndpointSet::default();
        beside
            .iter()
            .fold(none, |set, tracker| set.union(tracker.avoided(now)))
    }

    /// The endpoints that stopped inside this object a moment ago.
    pub(super) fn failed_before(&self, now: Instant) -> Option<EndpointSet> {
        match self.shield.cache.memo(&self.fill.lookup().slot, now) {
            Some(KeyMemo::Avoid(avoided)) => Some(avoided.at(now)),
            _ => None,
        }
    }

    /// Puts an endpoint behind the others for a while: for the objects of the manifests that list
    /// this one, and for these manifests.
    pub(super) fn avoid_for_media(&self, endpoint: usize, why: &str) {
        let now = Instant::now();
        let path = self.request.target.path();
        for tracker in self.shield.live.trackers_beside(&self.request) {
            if !tracker.avoided(now).contains(endpoint) {
                tracing::warn!(path, endpoint, "another endpoint is asked first: {why}");
                tracker.avoid(endpoint, now);
            }
        }
    }

    /// Requests the object from another endpoint than `first`.
    pub(super) async fn request_elsewhere(&self, first: usize) -> Option<UpstreamResponse> {
        let origin = self.origin();
        if !origin.has_several_endpoints() {
            return None;
        }
        let avoided = self.endpoints_to_avoid(EndpointSet::of(first));
        let response = self
            .fetch(self.fill.upstream_headers().clone(), avoided)
            .await?;
        let response = response.ok()?;
        let fit = response.status == StatusCode::OK && response.endpoint != first;
        fit.then_some(response)
    }

    /// The endpoint's body broke off: others are asked first for this object, and for those listed
    /// with it.
    pub(super) fn avoid_endpoint(&self, endpoint: usize) {
        self.avoid_for_media(endpoint, "it stopped inside a body");
        let now = Instant::now();
        let failed_endpoints = self.failed_before(now).unwrap_or_default().with(endpoint);
        self.fill.write_memo(ExpiringMemo {
            until: now + AVOIDED,
            memo: KeyMemo::Avoid(EndpointAvoidance::of(failed_endpoints, now + AVOIDED)),
        });
    }
}
