//! Asks the process before an upgrade for an object before the origin, and applies what it gives as
//! a response of the origin with its age. What is stale by now is stored first: requests then
//! decide about it as about any stale object, and the origin revalidates it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use seawall_cache::{Object, Verdict};
use seawall_manifest::Kind;
use seawall_policy::Now;
use seawall_policy::freshness::{Freshness, freshness};
use seawall_policy::lifetime::StorageDecision;
use seawall_policy::progress::Progress;
use seawall_upstream::{Framing, UpstreamBody, UpstreamResponse};

use super::empty::has_bytes;
use super::manifest::ManifestOutcome;
use super::{FillTask, StoredAs};
use crate::proxy::handover::{GivenObject, ObjectQuestion};

/// No endpoint of the origin has sent the response: no set of endpoints has this one.
const NO_ENDPOINT: usize = usize::MAX;

impl FillTask {
    /// Ends the fill with what the other process has. Returns it if the origin has to be asked.
    pub(super) async fn take_over_object(mut self) -> Option<FillTask> {
        if !self.may_be_given() {
            return Some(self);
        }
        let lookup = self.fill.lookup();
        let question = ObjectQuestion::new(
            lookup.key.bytes(),
            lookup.kind.as_str(),
            self.fill.upstream_headers(),
            self.shield.cache.object_bytes_max(lookup.kind),
        );
        let reserve = |bytes| self.fill.reserve(bytes);
        let given = match self.shield.handover.source() {
            Some(source) => source.ask_for_response(&question, reserve).await,
            None => None,
        };
        let Some(given) = given else {
            return Some(self);
        };
        let GivenObject {
            status,
            headers,
            body,
            sliced_length,
            age,
            terms,
        } = given;
        self.given = Some(Box::new(terms));
        let response = UpstreamResponse {
            status,
            headers,
            framing: Framing::Length(sliced_length.unwrap_or(body.len() as u64)),
            body: UpstreamBody::received(body.clone()),
            // With its age, it counts as a response that was under way for as long.
            waited: age,
            endpoint: NO_ENDPOINT,
            endpoint_to_avoid: None,
        };
        let kind = self.kind(status, &response.headers);
        let refused = if let Some(length) = sliced_length {
            self.slice_given(response, kind, length)
        } else if status == StatusCode::OK && kind.is_manifest() {
            self.publish_given(response).await
        } else {
            self.store_given(response, kind, body)
        };
        refused.map(|task| FillTask {
            given: None,
            ..task
        })
    }

    /// The other process may have it stored. What has a stored object here has its own history.
    fn may_be_given(&self) -> bool {
        let request = &self.request;
        let may_be_stored = match request.kind {
            Kind::TimeServer => false,
            Kind::DecryptionKey => request.route.store_keys,
            Kind::Hls | Kind::Dash | Kind::Segment | Kind::Init | Kind::Other => true,
        };
        may_be_stored
            && self.fill.lookup().object.is_none()
            && !self.may_be_blocking
            && !request.has_delivery_directives()
    }

    /// Stores an object that is no manifest. Returns the fill if it may not be used.
    fn store_given(self, response: UpstreamResponse, kind: Kind, body: Bytes) -> Option<FillTask> {
        let decision = self.decide_storage(&response, kind, None, StoredAs::Newest);
        let is_empty = has_bytes(kind, response.status) && body.is_empty();
        let StorageDecision::Store(lifetime) = decision else {
            return Some(self);
        };
        if is_empty || !self.fill.fits(body.len() as u64) {
            return Some(self);
        }
        let (live, rules) = (&self.shield.live, &self.shield.rules);
        live.record_presence(rules, &self.request, response.status, Now::read());
        let lifetime = self.limit_unlisted_lifetime(lifetime);
        let vary = self.vary(&response.headers);
        let head = self.head(response.status, response.headers, kind, lifetime, true);
        let object = Arc::new(Object::new(head, body));
        if !self.fill.has_room_for(&object) {
            return Some(self);
        }
        self.fill.set_vary(vary);
        let verdict = self.verdict_of(&object);
        self.fill.store_and_publish(&object, verdict);
        None
    }

    /// Has the slices of an object requested, each of which is asked for by itself. Returns the
    /// fill if its slices may not be used.
    fn slice_given(self, response: UpstreamResponse, kind: Kind, length: u64) -> Option<FillTask> {
        let decision = self.decide_storage(&response, kind, None, StoredAs::Newest);
        let StorageDecision::Store(lifetime) = decision else {
            return Some(self);
        };
        match self.slice_etag(&response, &lifetime) {
            Some(etag) if self.is_sliced(length) => {
                self.hand_to_slices(response, kind, lifetime, length, etag);
                None
            }
            _ => Some(self),
        }
    }

    /// Publishes a manifest, so that what viewers have seen of the stream goes on. Returns the fill
    /// if it may not be used.
    async fn publish_given(self, response: UpstreamResponse) -> Option<FillTask> {
        let ManifestOutcome::Servable(fetched) = self.read_manifest(response).await else {
            return Some(self);
        };
        let may_be_stored = matches!(self.storage_as_newest(&fetched), StorageDecision::Store(_));
        let is_next = matches!(fetched.progress(), Progress::Newer | Progress::Same);
        if fetched.manifest.is_none() || !may_be_stored || !is_next {
            return Some(self);
        }
        self.publish(*fetched).await;
        None
    }

    /// How the fill ends with this object.
    pub(super) fn verdict_of(&self, object: &Arc<Object>) -> Verdict {
        let is_stale = || freshness(&object.head.lifetime, Instant::now()) != Freshness::Fresh;
        if self.given.is_some() && is_stale() {
            Verdict::StoredStale
        } else {
            Verdict::Object(Arc::clone(object))
        }
    }
}
