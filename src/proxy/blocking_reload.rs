//! Answers LL-HLS blocking requests from the stored version once that is the requested one or a
//! later one, whichever request brought it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};

use super::Shield;
use super::context::RequestContext;
use crate::live::{ReloadStatus, is_too_far};
use seawall_cache::{Object, StoredHead};
use seawall_manifest::ManifestInfo;
use seawall_policy::access::CacheRequest;
use seawall_policy::freshness::{Freshness, freshness};

/// What to do with a request for a version by number.
pub(super) enum ReloadAction {
    /// Answer with this version.
    Serve(Arc<Object>),
    /// Reject the request.
    TooFar,
    /// Look the request's key up.
    LookUp,
}

impl Shield {
    /// Compares a request for a version by number with the newest stored one. Normalises the
    /// directives first; if they have no effect, the request becomes one for the current playlist.
    pub(super) fn look_up_requested_version(&self, context: &mut RequestContext) -> ReloadAction {
        if !context.request.has_delivery_directives() {
            return ReloadAction::LookUp;
        }
        let upstream_headers = || self.upstream_headers(context);
        let Some(newest) = self.newest_stored(&context.request, context.now, upstream_headers)
        else {
            return ReloadAction::LookUp;
        };
        let is_current = is_refreshed_low_latency(&newest, context.now);
        if let Some(playlist) = blocking_playlist(&newest) {
            let requested = context.request.directives();
            if is_current && is_too_far(playlist, requested) {
                return ReloadAction::TooFar;
            }
            let effective = requested.at(playlist);
            if effective != requested
                && let Some(request) = context.request.with_directives(effective)
            {
                context.request = request;
            }
        }
        let may_be_served = context.freshness(&newest) == Freshness::Fresh
            || context.directives.is_none() && is_current;
        match ReloadStatus::of(media_playlist(&newest), context.request.directives()) {
            ReloadStatus::HasVersion if may_be_served => ReloadAction::Serve(newest),
            ReloadStatus::LacksVersion => ReloadAction::LookUp,
            // A version that must not be served as it is: request the current one.
            ReloadStatus::HasVersion | ReloadStatus::NoEffect => {
                context.request = context.request.without_directives();
                ReloadAction::LookUp
            }
        }
    }

    /// The newest stored version of the requested playlist, or a stored error.
    pub(super) fn newest_stored(
        &self,
        request: &CacheRequest,
        now: Instant,
        upstream_headers: impl FnOnce() -> HeaderMap,
    ) -> Option<Arc<Object>> {
        let (key, kind) = (request.base_key(), request.kind);
        self.cache.lookup(key, kind, now, upstream_headers).object
    }

    /// The newest version, if it answers a request for a version by number and may be served.
    pub(super) fn stored_answer_for(
        &self,
        request: &CacheRequest,
        upstream_headers: impl FnOnce() -> HeaderMap,
    ) -> Option<Arc<Object>> {
        let now = Instant::now();
        let newest = self.newest_stored(request, now, upstream_headers)?;
        let is_fresh = freshness(&newest.head.lifetime, now) == Freshness::Fresh;
        if !is_fresh && !is_refreshed_low_latency(&newest, now) {
            return None;
        }
        match ReloadStatus::of(media_playlist(&newest), request.directives()) {
            ReloadStatus::HasVersion | ReloadStatus::NoEffect => Some(newest),
            ReloadStatus::LacksVersion => None,
        }
    }

    /// Is it certain that the origin blocks this request? A stored playlist must say so or announce
    /// the object; a viewer's directives alone are not enough.
    pub(super) fn is_known_to_be_blocking(
        &self,
        request: &CacheRequest,
        upstream_headers: &HeaderMap,
    ) -> bool {
        self.live.is_announced(&request.key, Instant::now())
            || self.is_near(request, || upstream_headers.clone())
    }

    /// The requested version is near enough to the newest version for a server to block on it.
    pub(super) fn is_near(
        &self,
        request: &CacheRequest,
        upstream_headers: impl FnOnce() -> HeaderMap,
    ) -> bool {
        let requested = request.directives();
        if requested.msn.is_none() {
            return false;
        }
        let newest = self.newest_stored(request, Instant::now(), upstream_headers);
        let playlist = newest.as_deref().and_then(blocking_playlist);
        playlist.is_some_and(|playlist| !is_too_far(playlist, requested))
    }
}

/// The info of a live playlist that supports blocking requests.
fn blocking_playlist(object: &Object) -> Option<&ManifestInfo> {
    let playlist = media_playlist(object)?;
    (playlist.is_live() && playlist.can_block_reload()).then_some(playlist)
}

fn media_playlist(object: &Object) -> Option<&ManifestInfo> {
    let head = &object.head;
    let info = head.manifest_info.as_deref();
    info.filter(|info| head.status == StatusCode::OK && !info.is_multivariant())
}

/// Whether this is the current version of a refreshed low-latency playlist: the refresher has
/// requested the next version, and the origin has not answered yet.
pub(super) fn is_refreshed_low_latency(object: &Object, now: Instant) -> bool {
    let info = object.head.manifest_info.as_deref();
    let blocks = info.is_some_and(ManifestInfo::can_block_reload);
    blocks && is_kept_current(object, now)
}

/// Whether the refresher keeps this manifest current; it is then valid for longer than its
/// freshness.
pub(super) fn is_kept_current(object: &Object, now: Instant) -> bool {
    kept_current_for(object, now).is_some()
}

/// How long the refresher keeps it current. `None`: it does not.
pub(super) fn kept_current_for(object: &Object, now: Instant) -> Option<Duration> {
    let StoredHead {
        lifetime,
        access_tracker,
        manifest_info,
        ..
    } = &object.head;
    let has_refresher = access_tracker
        .as_ref()
        .is_some_and(|access_tracker| access_tracker.has_refresher());
    let remaining = lifetime.refreshed_remaining(manifest_info.as_deref(), now);
    (has_refresher && remaining > Duration::ZERO).then_some(remaining)
}
