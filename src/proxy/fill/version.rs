//! Stores a version of a manifest under the key that was requested. A version of a low-latency
//! playlist that was requested by number is also stored as the newest version.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, header};

use super::FillTask;
use super::manifest::FetchedManifest;
use crate::live::{Location, Variant};
use seawall_cache::{Object, Verdict};
use seawall_manifest::ManifestInfo;
use seawall_policy::Lifetime;
use seawall_policy::encoding::is_requested_uncoded;
use seawall_policy::lifetime::StorageDecision;
use seawall_policy::progress::Progress;
use seawall_policy::vary::Vary;

/// A version that is about to be stored.
pub(super) struct StoredVersion {
    /// The response to a plain request for the playlist.
    pub(super) object: Object,
    vary: Vary,
    /// Its lifetime as the requested version, or as the response in place of that version.
    as_requested_version: Option<Lifetime>,
}

impl FillTask {
    /// Builds the stored object of a manifest, with its delta update and codings.
    pub(super) fn build_version(
        &mut self,
        fetched: FetchedManifest,
        lifetime: Lifetime,
        progress: Progress,
    ) -> StoredVersion {
        if self.request.has_delivery_directives() && progress == Progress::Restarted {
            // It is the first version of the new epoch.
            let of_versions = Location::only(self.request.playlist_epoch_key());
            self.epoch_token = self.shield.epoch_token(&self.request, &of_versions);
        }
        let info = fetched.manifest.map(|manifest| manifest.info);
        let is_requested_version = info
            .as_ref()
            .is_some_and(|info| self.is_requested_version(info));
        let storage = is_requested_version
            .then(|| self.decide_storage(&fetched.response, fetched.kind, info.as_ref(), true));
        let as_requested_version = match storage {
            Some(StorageDecision::Store(lifetime)) => Some(lifetime),
            Some(_) => None,
            None => info
                .as_ref()
                .and_then(|info| self.early_lifetime(info, &lifetime)),
        };
        let vary = self.vary(&fetched.response.headers);
        let (status, headers) = (fetched.response.status, fetched.response.headers);
        let mut head = self.head(status, headers, fetched.kind, lifetime, true);
        head.manifest_info = info.map(Box::new);
        head.access_tracker = fetched.tracker.map(|tracker| Arc::clone(&tracker.access));
        let delta = fetched
            .delta
            .map(|delta| Object::new(head.clone(), delta.into()));
        let before = self.previous_version();
        let shield = &self.shield;
        let mut object = shield.with_encodings(Object::new(head, fetched.body), before.as_deref());
        let before = before.as_ref().and_then(|before| before.delta());
        let codable = |delta| Arc::new(shield.with_encodings(delta, before.map(Arc::as_ref)));
        object.set_delta(delta.map(codable));
        if !self.fill.has_room_for(&object) {
            object.set_unstored();
        }
        StoredVersion {
            object,
            vary,
            as_requested_version,
        }
    }

    /// The version before this one.
    fn previous_version(&self) -> Option<Arc<Object>> {
        if self.request.has_delivery_directives() {
            let upstream_headers = || self.fill.upstream_headers().clone();
            return self
                .shield
                .newest(&self.request, Instant::now(), upstream_headers);
        }
        self.fill.lookup().object.clone()
    }

    /// Whether this is the version that an LL-HLS request named, and not just the one that existed.
    pub(super) fn is_requested_version(&self, info: &ManifestInfo) -> bool {
        let requested = self.request.directives();
        let edge = info.playlist_edge();
        let has = |msn| edge.is_some_and(|edge| edge.has(msn, requested.part));
        info.is_live() && requested.msn.is_some_and(has)
    }

    /// Lifetime of a response that the origin sent before it had the requested version; `None`: it
    /// was not too early. All followers get it, but later requests must not get an old version in
    /// place of a new one. Half a part, or an eighth of the target duration, saves an origin that
    /// never blocks from most of the immediate repeats.
    fn early_lifetime(&self, info: &ManifestInfo, lifetime: &Lifetime) -> Option<Lifetime> {
        const TARGET_SHARE: u32 = 8;
        let is_live = info.is_live() && info.has_edge();
        let is_too_early = is_live && self.request.directives().msn.is_some();
        let target_duration = info.reload_interval().unwrap_or_default();
        let span = match info.part_target() {
            Some(part) => part / 2,
            None => target_duration / TARGET_SHARE,
        };
        is_too_early.then(|| Lifetime {
            fresh_for: lifetime.fresh_for.min(lifetime.age_received + span),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            ..lifetime.clone()
        })
    }

    /// The request headers that selected a response. Most kinds are only requested without a
    /// content coding.
    pub(super) fn vary(&self, response: &HeaderMap) -> Vary {
        if is_requested_uncoded(self.request.kind, self.request.target.path()) {
            Vary::of_uncoded_request(response)
        } else {
            Vary::of(response)
        }
    }

    /// The variant of a response with these headers: by its `Vary`, or by the `Vary` of earlier
    /// responses.
    pub(super) fn variant(&self, headers: &HeaderMap) -> Variant {
        let stated = match self.vary(headers) {
            Vary::On(names) => Some(names),
            Vary::Nothing | Vary::Everything => None,
        };
        let names = stated
            .as_deref()
            .or_else(|| self.fill.lookup().variant_names());
        // Manifests are requested without a content coding. One that arrives in a coding all the
        // same belongs to the same timeline.
        let names = names.into_iter().flatten();
        let names = names.filter(|name| *name != header::ACCEPT_ENCODING);
        let names: Vec<HeaderName> = names.cloned().collect();
        let values =
            (!names.is_empty()).then(|| Vary::values(&names, self.fill.upstream_headers()));
        self.shield.live.variant(values.as_deref())
    }

    /// Stores a version and gives it to all followers.
    pub(super) fn store_and_serve(self, version: StoredVersion) {
        let StoredVersion {
            object,
            vary,
            as_requested_version,
        } = version;
        let edge = object
            .head
            .manifest_info
            .as_ref()
            .and_then(|info| info.playlist_edge());
        let is_whole = edge.is_some_and(|edge| edge.skipped_segments == 0);
        let newest = self.request.has_delivery_directives() && is_whole && vary == Vary::Nothing;
        let object = Arc::new(object);
        if newest {
            let (key, kind) = (self.request.base_key(), self.request.kind);
            self.shield.cache.store_under(key, kind, &object);
        }
        let requested_version = match as_requested_version {
            Some(lifetime) => Arc::new(object.with_lifetime(&lifetime)),
            None => object,
        };
        self.fill.set_vary(vary);
        let verdict = Verdict::Object(Arc::clone(&requested_version));
        self.fill.store_and_publish(&requested_version, verdict);
    }
}
