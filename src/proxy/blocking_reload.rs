//! Answers LL-HLS blocking requests from the stored version once that has the requested state,
//! whichever request brought it.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, StatusCode};

use super::Shield;
use super::context::RequestContext;
use crate::live::{ReloadStatus, is_too_far};
use seawall_cache::{Object, StoredHead};
use seawall_manifest::ManifestInfo;
use seawall_policy::access::CacheRequest;
use seawall_policy::freshness::{Freshness, freshness};

/// What to do with a request for a state.
pub(super) enum ReloadAction {
    /// Answer with this version.
    Answer(Arc<Object>),
    /// Refuse the request.
    TooFar,
    /// Look the request's key up.
    LookUp,
}

impl Shield {
    /// Compares a request for a state with the newest stored version. Normalises the directives
    /// first; if they have no effect, the request becomes one for the current playlist.
    pub(super) fn look_up_state(&self, context: &mut RequestContext) -> ReloadAction {
        if !context.entry.has_delivery_directives() {
            return ReloadAction::LookUp;
        }
        let upstream = || self.upstream(context);
        let Some(newest) = self.newest(&context.entry, context.now, upstream) else {
            return ReloadAction::LookUp;
        };
        let is_current = is_newest(&newest, context.now);
        if let Some(playlist) = blocking_playlist(&newest) {
            let requested = context.entry.directives();
            if is_current && is_too_far(playlist, requested) {
                return ReloadAction::TooFar;
            }
            let effective = requested.at(playlist);
            if effective != requested
                && let Some(entry) = context.entry.with_directives(effective)
            {
                context.entry = entry;
            }
        }
        let may_be_served = context.freshness(&newest) == Freshness::Fresh
            || context.directives.is_none() && is_current;
        match ReloadStatus::of(media_playlist(&newest), context.entry.directives()) {
            ReloadStatus::HasState if may_be_served => ReloadAction::Answer(newest),
            ReloadStatus::LacksState => ReloadAction::LookUp,
            // A version that must not be served as it is: request the current one.
            ReloadStatus::HasState | ReloadStatus::NoEffect => {
                context.entry = context.entry.without_directives();
                ReloadAction::LookUp
            }
        }
    }

    pub(super) fn newest(
        &self,
        entry: &CacheRequest,
        now: Instant,
        upstream: impl FnOnce() -> HeaderMap,
    ) -> Option<Arc<Object>> {
        let (key, kind) = (entry.base_key(), entry.kind);
        self.cache.lookup(key, kind, now, upstream).object
    }

    /// The newest version, if it answers a request for a state and may be served.
    pub(super) fn newest_for(
        &self,
        entry: &CacheRequest,
        upstream: impl FnOnce() -> HeaderMap,
    ) -> Option<Arc<Object>> {
        let now = Instant::now();
        let newest = self.newest(entry, now, upstream)?;
        let is_fresh = freshness(&newest.head.lifetime, now) == Freshness::Fresh;
        if !is_fresh && !is_newest(&newest, now) {
            return None;
        }
        match ReloadStatus::of(media_playlist(&newest), entry.directives()) {
            ReloadStatus::HasState | ReloadStatus::NoEffect => Some(newest),
            ReloadStatus::LacksState => None,
        }
    }

    /// Is a held-back response certain? A stored playlist must say so or announce the object; a
    /// viewer's directives alone are not enough.
    pub(super) fn is_known_to_be_held_back(
        &self,
        entry: &CacheRequest,
        upstream: &HeaderMap,
    ) -> bool {
        self.live.is_announced(&entry.key, Instant::now())
            || self.is_near(entry, || upstream.clone())
    }

    /// The requested state is near enough to the newest version for a server to block on it.
    pub(super) fn is_near(
        &self,
        entry: &CacheRequest,
        upstream: impl FnOnce() -> HeaderMap,
    ) -> bool {
        let requested = entry.directives();
        if requested.msn.is_none() {
            return false;
        }
        let newest = self.newest(entry, Instant::now(), upstream);
        let playlist = newest.as_deref().and_then(blocking_playlist);
        playlist.is_some_and(|playlist| !is_too_far(playlist, requested))
    }
}

/// The facts of a live playlist that supports blocking requests.
fn blocking_playlist(object: &Object) -> Option<&ManifestInfo> {
    let playlist = media_playlist(object)?;
    (playlist.is_live() && playlist.can_block_reload()).then_some(playlist)
}

fn media_playlist(object: &Object) -> Option<&ManifestInfo> {
    let head = &object.head;
    let facts = head.facts.as_deref();
    facts.filter(|facts| head.status == StatusCode::OK && !facts.is_multivariant())
}

/// Whether this is the current version of a refreshed low-latency playlist: the refresher has
/// requested the next version, and the origin has not answered yet.
pub(super) fn is_newest(object: &Object, now: Instant) -> bool {
    let facts = object.head.facts.as_deref();
    let blocks = facts.is_some_and(ManifestInfo::can_block_reload);
    blocks && is_tended(object, now)
}

/// Whether the refresher keeps this manifest current; it is then valid for longer than its
/// freshness.
pub(super) fn is_tended(object: &Object, now: Instant) -> bool {
    let StoredHead {
        lifetime,
        access_tracker: attention,
        facts,
        ..
    } = &object.head;
    let tended = attention
        .as_ref()
        .is_some_and(|attention| attention.has_refresher());
    tended && lifetime.age(now) < lifetime.refreshed_max_age(facts.as_deref())
}
