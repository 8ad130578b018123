//! Stores a version of a manifest under the key that was requested. A version of a low-latency
//! playlist that was requested by number is also stored as the newest version.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};

use super::manifest::FetchedManifest;
use super::{FillTask, StoredAs};
use crate::live::{Location, Variant};
use seawall_cache::{Object, StoredHead};
use seawall_manifest::ManifestInfo;
use seawall_policy::Lifetime;
use seawall_policy::encoding::is_requested_uncoded;
use seawall_policy::lifetime::StorageDecision;
use seawall_policy::progress::Progress;
use seawall_policy::vary::Vary;

/// A version that is about to be stored.
pub(super) struct StoredVersion {
    /// The response to a plain request for the manifest.
    pub(super) object: Object,
    vary: Vary,
    /// The lifetime under the requested key, if it differs from that of the newest version.
    requested_key_lifetime: Option<Lifetime>,
}

impl FillTask {
    /// Builds the stored object of a manifest, with its delta update and codings. `lifetime` is
    /// that of the newest version.
    pub(super) fn build_version(
        &mut self,
        fetched: FetchedManifest,
        lifetime: Lifetime,
        progress: Progress,
    ) -> StoredVersion {
        if self.request.has_delivery_directives() && progress == Progress::Restarted {
            self.join_new_epoch();
        }
        let vary = self.vary(&fetched.response.headers);
        let requested_key_lifetime = self.requested_key_lifetime(&fetched, &lifetime);
        let FetchedManifest { response, kind, .. } = fetched;
        let mut head = self.head(response.status, response.headers, kind, lifetime, true);
        head.manifest_info = fetched.manifest.map(|manifest| Box::new(manifest.info));
        if let Some(tracker) = &fetched.tracker {
            head.stream = tracker.stream_number();
        }
        head.access_tracker = fetched.tracker.map(|tracker| Arc::clone(&tracker.access));
        let mut object = self.with_delta_and_codings(head, fetched.body, fetched.delta);
        if !self.fill.has_room_for(&object) {
            object.set_unstored();
        }
        StoredVersion {
            object,
            vary,
            requested_key_lifetime,
        }
    }

    /// After a restart the version belongs to the new epoch, as its first one.
    fn join_new_epoch(&mut self) {
        let of_versions = Location::only(self.request.playlist_epoch_key());
        self.epoch_token = self.shield.epoch_token(&self.request, &of_versions);
    }

    /// The lifetime under the requested key, if it differs from that of the newest version: a
    /// version that was requested by number never changes, and one that came before the requested
    /// version existed must be replaced soon.
    fn requested_key_lifetime(
        &self,
        fetched: &FetchedManifest,
        newest_lifetime: &Lifetime,
    ) -> Option<Lifetime> {
        let info = fetched.info()?;
        if self.is_requested_version(info) {
            let (response, kind) = (&fetched.response, fetched.kind);
            let stored_as = StoredAs::UnderRequestedKey;
            return match self.decide_storage(response, kind, Some(info), stored_as) {
                StorageDecision::Store(lifetime) => Some(lifetime),
                _ => None,
            };
        }
        let names_version = self.request.directives().msn.is_some();
        let is_premature = names_version && info.is_live() && info.has_edge();
        is_premature.then(|| premature_lifetime(info, newest_lifetime))
    }

    /// The object with its playlist delta update, both in the codings that viewers accept.
    fn with_delta_and_codings(
        &self,
        head: StoredHead,
        body: Bytes,
        delta: Option<String>,
    ) -> Object {
        let shield = &self.shield;
        let previous = self.previous_version();
        let previous_delta = previous.as_ref().and_then(|previous| previous.delta());
        let delta = delta.map(|delta| Object::new(head.clone(), delta.into()));
        // The whole playlist first: the queue of the compressors has a bound.
        let mut object = shield.with_encodings(Object::new(head, body), previous.as_deref());
        object.set_delta(
            delta.map(|delta| {
                Arc::new(shield.with_encodings(delta, previous_delta.map(Arc::as_ref)))
            }),
        );
        object
    }

    /// The version before this one.
    fn previous_version(&self) -> Option<Arc<Object>> {
        if self.request.has_delivery_directives() {
            let upstream_headers = || self.fill.upstream_headers().clone();
            return self
                .shield
                .newest_stored(&self.request, Instant::now(), upstream_headers);
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
        let object = Arc::new(version.object);
        if self.request.has_delivery_directives() && answers_plain_request(&object, &version.vary) {
            self.store_as_newest(&object);
        }
        let requested = match version.requested_key_lifetime {
            Some(lifetime) => Arc::new(object.with_lifetime(&lifetime)),
            None => object,
        };
        self.fill.set_vary(version.vary);
        let verdict = self.verdict_of(&requested);
        self.fill.store_and_publish(&requested, verdict);
    }
}

/// Whether the response to a request with delivery directives also answers one without: it is a
/// whole playlist, and the same for all viewers.
fn answers_plain_request(object: &Object, vary: &Vary) -> bool {
    let info = object.head.manifest_info.as_deref();
    let edge = info.and_then(ManifestInfo::playlist_edge);
    edge.is_some_and(|edge| edge.skipped_segments == 0) && *vary == Vary::Nothing
}

/// Lifetime of a premature response: the origin sent it before it had the requested version. All
/// followers get it, but later requests must not get an old version in place of a new one. Half a
/// part, or an eighth of the target duration, saves an origin that never blocks from most of the
/// immediate repeats.
fn premature_lifetime(info: &ManifestInfo, newest_lifetime: &Lifetime) -> Lifetime {
    const TARGET_SHARE: u32 = 8;
    let target_duration = info.stated_reload_interval().unwrap_or_default();
    let span = match info.part_target() {
        Some(part) => part / 2,
        None => target_duration / TARGET_SHARE,
    };
    Lifetime {
        fresh_for: newest_lifetime
            .fresh_for
            .min(newest_lifetime.age_received + span),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        ..newest_lifetime.clone()
    }
}
