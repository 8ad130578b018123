//! Applies a 304: the stored body gets updated headers and a new lifetime.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, header};

use super::FillTask;
use crate::live::{ManifestTracker, Variant};
use seawall_cache::{EncodedBodies, Object, StoredHead, Verdict};
use seawall_policy::lifetime::{ManifestContext, StorageDecision, storage};
use seawall_policy::progress::Progress;
use seawall_policy::{Lifetime, Now, conditional, headers};
use seawall_upstream::UpstreamResponse;

impl FillTask {
    /// Updates the stored headers first; the lifetime follows from the result (RFC 9111 §4.3.4).
    pub(super) fn apply_not_modified(self, response: &UpstreamResponse, stored: &Arc<Object>) {
        let tracker = self.tracker();
        // Takes its turn like any version: another request may have brought a newer one.
        let _lock = tracker.as_ref().map(|tracker| tracker.lock_publishing());
        let name = &self.shield.rules.name;
        let update = headers::downstream(response.headers.clone(), name);
        let updated = conditional::updated(&stored.head.headers.to_map(), &update);
        let variant = self.variant(&updated);
        let newer = tracker.as_ref();
        let newer = newer.and_then(|tracker| self.newer(tracker, variant, stored));
        if let Some(newer) = newer {
            return self.fill.settle(Verdict::Object(newer));
        }
        let targeted = headers::targeted(&response.headers);
        let (object, is_storable) =
            self.revalidated_object((stored, true), updated, targeted, response);
        let object = Arc::new(object);
        if is_storable {
            self.record_not_modified(response, &object.head, variant);
        }
        let verdict = Verdict::Revalidated(Arc::clone(&object));
        if is_storable {
            self.fill.set_vary(self.vary(&object.head.headers.to_map()));
            self.fill.store_and_publish(&object, verdict);
        } else {
            self.fill.remove_previous();
            self.fill.settle(verdict);
        }
    }

    /// The version that viewers have seen since, if the origin confirmed an older one.
    fn newer(
        &self,
        tracker: &ManifestTracker,
        variant: Variant,
        stored: &Object,
    ) -> Option<Arc<Object>> {
        let info = stored.head.manifest_info.as_deref()?;
        if tracker.progress_of(variant, info, Instant::now()) != Progress::Behind {
            return None;
        }
        self.newest().filter(|newest| newest.body != stored.body)
    }

    /// The stored object with these headers and a new lifetime, as the requested version or as the
    /// current one; and whether it may be stored. `targeted`: the response's directives for this
    /// kind of cache.
    pub(super) fn revalidated_object(
        &self,
        (stored_object, as_requested_version): (&Arc<Object>, bool),
        headers: HeaderMap,
        targeted: Option<Box<HeaderMap>>,
        response: &UpstreamResponse,
    ) -> (Object, bool) {
        let now = Now::read();
        let stored_targeted = || Some(Box::new(stored_object.head.targeted.as_ref()?.to_map()));
        let targeted = targeted.or_else(stored_targeted);
        let mut storage_headers = headers.clone();
        storage_headers.extend(targeted.iter().flat_map(|fields| (**fields).clone()));
        storage_headers.remove(header::AGE);
        storage_headers.extend(headers::age(&response.headers));
        let mut response_facts = self.response_facts(
            response,
            &storage_headers,
            stored_object.head.kind,
            stored_object.head.manifest_info.as_deref(),
        );
        if response_facts.context == ManifestContext::RequestedVersion && !as_requested_version {
            response_facts.context = ManifestContext::CurrentVersion;
        }
        let (lifetime, is_storable) = match storage(&response_facts, &self.request.route, now) {
            StorageDecision::Store(lifetime) => (self.limit_unlisted_lifetime(lifetime), true),
            _ => (Lifetime::none(now.mono), false),
        };
        let head = StoredHead {
            headers: headers.into(),
            targeted: targeted.map(|fields| Box::new((*fields).into())),
            lifetime,
            will_be_stored: is_storable,
            ..stored_object.head.clone()
        };
        let mut object = stored_object.with_head(head);
        object.set_encodings(stored_object.encodings().map(EncodedBodies::for_other_head));
        let delta = stored_object.delta().map(|delta| {
            let delta = Object::clone(delta).with_lifetime(&object.head.lifetime);
            Arc::new(delta)
        });
        object.set_delta(delta);
        (object, is_storable)
    }
}
