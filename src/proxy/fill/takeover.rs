//! A fill's body is delivered by one endpoint, and others may take over. Which endpoints are asked last after that, for
//! the same and for what is listed with it?

use std::time::Instant;

use http::StatusCode;

use super::FillTask;
use super::delivery::{Delivery, FillBody};
use crate::cache::{ExpiringMemo, KeyMemo};
use crate::policy::EndpointSet;
use crate::proxy::race::{AVOIDED, BodyEvent};
use crate::upstream::{Origin, UpstreamBody, UpstreamResponse};

impl FillTask {
    /// Waits for the next piece of a body, or for another endpoint to take over.
    pub(super) async fn piece(
        &self,
        inflow: &mut UpstreamBody,
        delivery: &mut Delivery,
    ) -> BodyEvent {
        let Delivery { begun, race } = delivery;
        let body = FillBody { job: self, begun };
        let event = race.next(inflow, &body, self.given_up(false)).await;
        if matches!(event, BodyEvent::TakenOver(_)) {
            self.leave(race.endpoint());
        }
        event
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.shield.origins[self.entry.route.origin_index]
    }

    /// Whom to ask last, where these must not be asked.
    fn others(&self, than: EndpointSet) -> EndpointSet {
        let all = self.avoided().and(than);
        if self.origin().another_stands(all) {
            all
        } else {
            than
        }
    }

    /// The endpoints that are asked last, since they gave something unfit: for a manifest, or for what
    /// that lists.
    pub(super) fn avoided(&self) -> EndpointSet {
        let now = Instant::now();
        if let Some(left) = self.left_before(now) {
            return left;
        }
        if self.entry.kind.is_manifest() {
            let watch = self.watched();
            return watch.map(|watch| watch.avoided(now)).unwrap_or_default();
        }
        let listing = self.shield.streams.listing(&self.entry);
        let none = EndpointSet::default();
        listing
            .iter()
            .fold(none, |set, watch| set.and(watch.avoided(now)))
    }

    /// The endpoints that stopped in the middle of this a moment ago.
    pub(super) fn left_before(&self, now: Instant) -> Option<EndpointSet> {
        match self.shield.cache.noted(&self.fill.found().slot, now) {
            Some(KeyMemo::Avoid(left)) => Some(left),
            _ => None,
        }
    }

    /// An endpoint is no good for what the manifests list: others are asked first for a while, for
    /// the manifests too.
    pub(super) fn avoid_for_media(&self, endpoint: usize, why: &str) {
        let now = Instant::now();
        let path = self.entry.target.path();
        for watch in self.shield.streams.listing(&self.entry) {
            if !watch.avoided(now).contains(endpoint) {
                tracing::warn!(path, endpoint, "another endpoint is asked first: {why}");
                watch.avoid(endpoint, now);
            }
        }
    }

    /// What another endpoint than this one says.
    pub(super) async fn elsewhere(&self, than: usize) -> Option<UpstreamResponse> {
        let origin = self.origin();
        if !origin.has_others() {
            return None;
        }
        let avoided = self.others(EndpointSet::of(than));
        let reply = self.fetch(self.fill.upstream().clone(), avoided).await?;
        let reply = reply.ok()?;
        let fit = reply.status == StatusCode::OK && reply.endpoint != than;
        fit.then_some(reply)
    }

    /// An endpoint broke off: for the same others are asked first, and for what is listed with it.
    pub(super) fn leave(&self, endpoint: usize) {
        self.avoid_for_media(endpoint, "it stopped in the middle");
        let now = Instant::now();
        let left = self.left_before(now).unwrap_or_default().with(endpoint);
        self.fill.note(ExpiringMemo {
            until: now + AVOIDED,
            what: KeyMemo::Avoid(left),
        });
    }
}
