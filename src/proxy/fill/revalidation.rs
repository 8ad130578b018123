//! Applies a 304: the stored body gets updated headers and a new lifetime.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, header};

use super::{FillTask, StoredAs};
use crate::live::{ManifestTracker, Variant};
use seawall_cache::{EncodedBodies, EpochToken, Object, StoredHead, Verdict};
use seawall_policy::lifetime::{StorageDecision, storage};
use seawall_policy::progress::Progress;
use seawall_policy::{Lifetime, Now, conditional, headers};
use seawall_upstream::UpstreamResponse;

/// A stored object that the origin has confirmed.
pub(super) struct Revalidation<'a> {
    pub(super) stored: &'a Arc<Object>,
    pub(super) stored_as: StoredAs,
    /// The stored headers, updated by the response.
    pub(super) headers: HeaderMap,
    /// The directives for this kind of cache alone.
    pub(super) targeted: Option<Box<HeaderMap>>,
    /// The response that confirms it.
    pub(super) response: &'a UpstreamResponse,
}

impl Revalidation<'_> {
    /// The headers that decide about storage. The age counts from this response, not from the one
    /// that brought the body.
    fn storage_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        if let Some(targeted) = &self.targeted {
            headers.extend((**targeted).clone());
        }
        headers.remove(header::AGE);
        headers.extend(headers::age(&self.response.headers));
        headers
    }
}

impl FillTask {
    /// Updates the stored headers first; the lifetime follows from the result (RFC 9111 §4.3.4).
    pub(super) fn apply_not_modified(self, response: &UpstreamResponse, stored: &Arc<Object>) {
        let tracker = self.tracker();
        // Takes its turn like any version: another request may have brought a newer one.
        let _lock = tracker.as_ref().map(|tracker| tracker.lock_publishing());
        let update = self.downstream(response.headers.clone());
        let updated = conditional::updated(&stored.head.headers.to_map(), &update);
        let variant = self.variant(&updated);
        let newer = tracker
            .as_ref()
            .and_then(|tracker| self.newer_than_confirmed(tracker, variant, stored));
        if let Some(newer) = newer {
            return self.fill.settle(Verdict::Object(newer));
        }
        let targeted = headers::targeted(&response.headers);
        let object = Arc::new(self.revalidated_object(Revalidation {
            stored,
            stored_as: StoredAs::UnderRequestedKey,
            headers: updated,
            targeted: targeted.or_else(|| stored_targeted(stored)),
            response,
        }));
        let verdict = Verdict::Revalidated(Arc::clone(&object));
        if object.head.will_be_stored {
            self.record_not_modified(response, &object.head, variant);
            self.fill.set_vary(self.vary(&object.head.headers.to_map()));
            self.fill.store_and_publish(&object, verdict);
        } else {
            self.fill.remove_previous();
            self.fill.settle(verdict);
        }
    }

    /// The version that viewers have seen since, if the origin confirmed an older one.
    fn newer_than_confirmed(
        &self,
        tracker: &ManifestTracker,
        variant: Variant,
        stored: &Object,
    ) -> Option<Arc<Object>> {
        let info = stored.head.manifest_info.as_deref()?;
        if tracker.progress_of(variant, info, Instant::now()) != Progress::Behind {
            return None;
        }
        self.newest_stored_ok()
            .filter(|newest| newest.body != stored.body)
    }

    /// The stored object with updated headers and a new lifetime. Its head says whether it may be
    /// stored.
    pub(super) fn revalidated_object(&self, revalidation: Revalidation<'_>) -> Object {
        let lifetime = self.revalidated_lifetime(&revalidation);
        let epoch_token = self.revalidated_token(&revalidation);
        let Revalidation {
            stored,
            headers,
            targeted,
            ..
        } = revalidation;
        let head = StoredHead {
            headers: headers.into(),
            targeted: targeted.map(|fields| Box::new((*fields).into())),
            will_be_stored: lifetime.is_some(),
            lifetime: lifetime.unwrap_or_else(|| Lifetime::none(Instant::now())),
            epoch_token,
            ..stored.head.clone()
        };
        let with_lifetime = |delta: &Arc<Object>| delta.with_lifetime(&head.lifetime);
        let delta = stored.delta().map(with_lifetime).map(Arc::new);
        let mut object = stored.with_head(head);
        object.set_encodings(stored.encodings().map(EncodedBodies::for_other_head));
        object.set_delta(delta);
        object
    }

    /// A 304 with tags replaces those of the stored object. One that was purged meanwhile stays so.
    fn revalidated_token(&self, revalidation: &Revalidation<'_>) -> Option<EpochToken> {
        let token = revalidation.stored.head.epoch_token.clone();
        if revalidation.stored.head.is_valid() {
            self.bind_tags(token, &revalidation.response.headers)
        } else {
            token
        }
    }

    /// The lifetime of the revalidated object; `None`: it may not be stored any longer.
    fn revalidated_lifetime(&self, revalidation: &Revalidation<'_>) -> Option<Lifetime> {
        let head = &revalidation.stored.head;
        let headers = revalidation.storage_headers();
        let facts = self.facts_of_200(
            revalidation.response,
            &headers,
            head.kind,
            head.manifest_info.as_deref(),
            revalidation.stored_as,
        );
        match storage(&facts, &self.request.route, Now::read()) {
            StorageDecision::Store(lifetime) => Some(self.limit_unlisted_lifetime(lifetime)),
            _ => None,
        }
    }
}

/// The stored directives for this kind of cache alone.
pub(super) fn stored_targeted(stored: &Object) -> Option<Box<HeaderMap>> {
    let targeted = stored.head.targeted.as_ref()?;
    Some(Box::new(targeted.to_map()))
}
