//! Prefetches new segments: each is fetched once, at the lowest priority, before the first viewer
//! requests it. `live` says which segments are new; this file asks the cache which of them viewers
//! want, and starts the fills.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};
use tokio::sync::OwnedSemaphorePermit;

use super::Shield;
use super::fill::FillTrigger;
use super::pipeline::is_stored;
use crate::live::{
    AnnouncedPart, ExpectedSegment, PrefetchInterest, PrefetchSource, PrefetchedObject,
};
use seawall_cache::Follower;
use seawall_policy::access::CacheRequest;
use seawall_policy::encoding::is_requested_uncoded;

impl Shield {
    /// The new segments that viewers want: a preceding segment was requested within `idle_max`.
    pub(super) fn segments_wanted(
        &self,
        expected: Vec<ExpectedSegment>,
        client_headers: &HeaderMap,
        idle_max: Duration,
    ) -> Vec<CacheRequest> {
        let now = Instant::now();
        let was_requested = |segment: &CacheRequest| {
            let idle_time = self.idle_time(segment, client_headers, now);
            idle_time.is_some_and(|idle_time| idle_time <= idle_max)
        };
        let is_wanted = |segment: &ExpectedSegment| match &segment.interest {
            PrefetchInterest::Always => true,
            PrefetchInterest::IfAnyRequested(preceding) => preceding.iter().any(was_requested),
        };
        let wanted = expected.into_iter().filter(is_wanted);
        wanted.map(|segment| segment.request).collect()
    }

    /// Time since a viewer last requested a stored object; `None`: never.
    fn idle_time(
        &self,
        request: &CacheRequest,
        client_headers: &HeaderMap,
        now: Instant,
    ) -> Option<Duration> {
        let client_headers = with_player_encoding(client_headers, request);
        let upstream_headers = || self.upstream_headers_for(&client_headers, request);
        let lookup = self
            .cache
            .lookup(&request.key, request.kind, now, upstream_headers);
        if !is_stored(&lookup) {
            return None;
        }
        let head = &lookup.object.as_ref()?.head;
        match &head.access_tracker {
            Some(access_tracker) => access_tracker.idle_time(now),
            // A viewer's request fetched it.
            None => Some(now.saturating_duration_since(head.lifetime.received)),
        }
    }

    /// Prefetches objects that are neither stored nor being fetched. `client_headers`: the header
    /// fields of the requests. Returns a follower for each fill that it started.
    pub(super) fn prefetch(
        self: &Arc<Self>,
        objects: &[CacheRequest],
        source: PrefetchSource,
        client_headers: &HeaderMap,
    ) -> Vec<Follower> {
        let started = objects.iter().filter_map(|object| {
            self.prefetch_one(object, PrefetchedObject::Exists, source, client_headers)
        });
        started.collect()
    }

    /// Requests the objects that a new version announces: the origin responds when they exist.
    pub(super) fn prefetch_announced_parts(
        self: &Arc<Self>,
        announced: Vec<AnnouncedPart>,
        client_headers: &HeaderMap,
    ) {
        for part in announced.into_iter().filter(|part| part.whole && part.new) {
            self.prefetch_one(
                &part.request,
                PrefetchedObject::Announced,
                PrefetchSource::Playlist,
                client_headers,
            );
        }
    }

    /// Starts the fill of one object. `None`: it is known, is being fetched, has just failed, or a
    /// limit is reached.
    fn prefetch_one(
        self: &Arc<Self>,
        request: &CacheRequest,
        object: PrefetchedObject,
        source: PrefetchSource,
        client_headers: &HeaderMap,
    ) -> Option<Follower> {
        let client_headers = with_player_encoding(client_headers, request);
        let upstream_headers = || self.upstream_headers_for(&client_headers, request);
        let now = Instant::now();
        let mut lookup = self
            .cache
            .lookup(&request.key, request.kind, now, upstream_headers);
        // A client error of a listed object came from a request that was too early. A player's
        // announcement proves nothing.
        if source != PrefetchSource::Nor
            && let Some(stored) = &lookup.object
            && stored.head.status.is_client_error()
        {
            self.cache.purge(&request.key, request.kind);
            lookup.object = None;
        }
        let is_known = lookup.object.is_some() || lookup.has_variants();
        if !request.route.live.prefetch
            || is_known
            || self.handover.has_successor()
            || self.is_backing_off(&lookup, &client_headers, request, now)
        {
            return None;
        }
        let Some(permit) = self.prefetch_permit(request, object, source) else {
            self.live.prefetch_limits.count_skipped();
            return None;
        };
        let fill = self.cache.lead(&lookup, upstream_headers)?;
        let limits = &self.live.prefetch_limits;
        let prefetch = limits.begin(permit, source, Instant::now());
        let follower = fill.follower();
        self.spawn_fill(request, fill, FillTrigger::Prefetch(prefetch, None));
        Some(follower)
    }

    /// The permit for one more prefetch, if the origin, the memory and the limits have room.
    pub(super) fn prefetch_permit(
        &self,
        request: &CacheRequest,
        object: PrefetchedObject,
        source: PrefetchSource,
    ) -> Option<OwnedSemaphorePermit> {
        let origin = self.origin_of(&request.route);
        let origin_has_room = match object {
            PrefetchedObject::Exists => origin.has_room_for_prefetch(),
            PrefetchedObject::Announced => origin.has_room_for_blocking(),
        };
        if !origin_has_room || !self.cache.has_room_for_background_fill() {
            return None;
        }
        self.live.prefetch_limits.admit(source, object)
    }
}

/// Sends the request as players will: an object that is not always requested uncompressed is
/// requested with gzip.
fn with_player_encoding<'h>(
    client_headers: &'h HeaderMap,
    request: &CacheRequest,
) -> Cow<'h, HeaderMap> {
    let is_uncoded = is_requested_uncoded(request.kind, request.target.path());
    if is_uncoded || client_headers.contains_key(ACCEPT_ENCODING) {
        return Cow::Borrowed(client_headers);
    }
    let mut with_gzip = client_headers.clone();
    with_gzip.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    Cow::Owned(with_gzip)
}
