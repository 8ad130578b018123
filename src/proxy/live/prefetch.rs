//! Prefetches new segments: each is fetched once, at the lowest priority, before the first viewer
//! requests it. Limited in number and bytes; none while the origin is busy.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::Semaphore;

use super::manifest_diff::AnnouncedPart;
use super::representations::{ExpectedSegment, PrefetchInterest};
use crate::proxy::Shield;
use crate::proxy::fill::FillTrigger;
use seawall_cache::{AccessTracker, Follower};
use seawall_policy::access::CacheRequest;
use seawall_policy::encoding::is_asked_in_plain;

/// Most prefetches at once …
const AHEAD_MAX: usize = 64;
/// … of announced objects, one per rendition of a low-latency stream …
const ANNOUNCED_MAX: usize = 512;
/// … and of objects that viewers announce (CMCD), which may be wrong.
const TOLD_MAX: usize = 16;

/// The prefetches in progress, and their counters.
pub(in crate::proxy) struct Prefetcher {
    places: Arc<Semaphore>,
    announced: Arc<Semaphore>,
    told: Arc<Semaphore>,
    fetched: [AtomicU64; PrefetchSource::ALL.len()],
    used: Arc<AtomicU64>,
    left_out: AtomicU64,
}

/// What announced that an object will be requested. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefetchSource {
    /// A new version of a manifest lists it.
    Playlist,
    /// A player announces its next request (CMCD `nor`).
    Nor,
    /// An MPD's template and the clock say that it is available.
    Template,
}

impl PrefetchSource {
    /// Every source.
    pub const ALL: [PrefetchSource; 3] = [
        PrefetchSource::Playlist,
        PrefetchSource::Nor,
        PrefetchSource::Template,
    ];

    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            PrefetchSource::Playlist => "playlist",
            PrefetchSource::Nor => "nor",
            PrefetchSource::Template => "template",
        }
    }
}

/// Counters since the process start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefetchStats {
    /// Prefetched objects, by source.
    pub fetched: [(PrefetchSource, u64); PrefetchSource::ALL.len()],
    /// Those that a viewer requested later.
    pub used: u64,
    /// Prefetches skipped because a limit was reached.
    pub left_out: u64,
}

impl Default for Prefetcher {
    fn default() -> Prefetcher {
        Prefetcher {
            places: Arc::new(Semaphore::new(AHEAD_MAX)),
            announced: Arc::new(Semaphore::new(ANNOUNCED_MAX)),
            told: Arc::new(Semaphore::new(TOLD_MAX)),
            fetched: Default::default(),
            used: Arc::default(),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Prefetcher {
    pub(super) fn read(&self) -> PrefetchStats {
        PrefetchStats {
            fetched: PrefetchSource::ALL.map(|source| {
                (
                    source,
                    self.fetched[source as usize].load(Ordering::Relaxed),
                )
            }),
            used: self.used.load(Ordering::Relaxed),
            left_out: self.left_out.load(Ordering::Relaxed),
        }
    }
}

impl Shield {
    /// The new segments that viewers want: a preceding segment was requested within `patience`.
    pub(in crate::proxy) fn wanted(
        &self,
        coming: Vec<ExpectedSegment>,
        with: &HeaderMap,
        patience: Duration,
    ) -> Vec<CacheRequest> {
        let now = Instant::now();
        let lately = |entry: &CacheRequest| {
            let unasked = self.unasked_for(entry, with, now);
            unasked.is_some_and(|unasked| unasked <= patience)
        };
        let is_wanted = |coming: &ExpectedSegment| match &coming.wanted {
            PrefetchInterest::Surely => true,
            PrefetchInterest::AfterAny(before) => before.iter().any(lately),
        };
        let wanted = coming.into_iter().filter(is_wanted);
        wanted.map(|coming| coming.entry).collect()
    }

    /// Time since a viewer last requested a stored object; `None`: never.
    fn unasked_for(
        &self,
        entry: &CacheRequest,
        with: &HeaderMap,
        now: Instant,
    ) -> Option<Duration> {
        let with = as_players(with, entry);
        let upstream = || self.sent(&with, entry);
        let found = self.cache.lookup(&entry.key, entry.kind, now, upstream);
        let held = found
            .object
            .filter(|held| held.head.status == StatusCode::OK);
        let head = &held?.head;
        match &head.access_tracker {
            Some(attention) => attention.idle_time(now),
            // A viewer's request fetched it.
            None => Some(now.saturating_duration_since(head.lifetime.received)),
        }
    }

    /// Prefetches objects that are neither stored nor being fetched. `with`: the header fields of
    /// the requests. Returns a follower for each fill that it started.
    pub(in crate::proxy) fn prefetch(
        self: &Arc<Self>,
        coming: &[CacheRequest],
        source: PrefetchSource,
        with: &HeaderMap,
    ) -> Vec<Follower> {
        let ahead = &self.streams.ahead;
        let places = match source {
            PrefetchSource::Nor => &ahead.told,
            PrefetchSource::Playlist | PrefetchSource::Template => &ahead.places,
        };
        let begun = coming.iter().filter_map(|entry| {
            let origin = &self.origins[entry.route.origin_index];
            self.fetch_one((entry, with), source, places, || origin.has_room())
        });
        begun.collect()
    }

    /// Requests the objects that a new version announces: the origin responds when they exist.
    pub(in crate::proxy) fn fetch_announced(
        self: &Arc<Self>,
        announced: Vec<AnnouncedPart>,
        with: &HeaderMap,
    ) {
        for one in announced.into_iter().filter(|one| one.whole && one.new) {
            let origin = &self.origins[one.entry.route.origin_index];
            let places = &self.streams.ahead.announced;
            let has_room = || origin.has_room_to_wait();
            self.fetch_one(
                (&one.entry, with),
                PrefetchSource::Playlist,
                places,
                has_room,
            );
        }
    }

    fn fetch_one(
        self: &Arc<Self>,
        (entry, with): (&CacheRequest, &HeaderMap),
        source: PrefetchSource,
        places: &Arc<Semaphore>,
        has_room: impl FnOnce() -> bool,
    ) -> Option<Follower> {
        let ahead = &self.streams.ahead;
        let with = as_players(with, entry);
        let upstream = || self.sent(&with, entry);
        let now = Instant::now();
        let mut found = self.cache.lookup(&entry.key, entry.kind, now, upstream);
        let status = found.object.as_ref().map(|object| object.head.status);
        // A client error of a listed object came from a request that was too early. A player's
        // announcement proves nothing.
        if source != PrefetchSource::Nor && status.is_some_and(|status| status.is_client_error()) {
            self.cache.purge(&entry.key, entry.kind);
            found.object = None;
        }
        let known = found.object.is_some() || found.has_variants();
        let failed = || self.failed_lately(&found, &with, entry, now);
        if !entry.route.live.prefetch || known || failed() {
            return None;
        }
        let has_room = has_room() && self.cache.has_room_for_background_fill();
        let place = has_room.then(|| Arc::clone(places).try_acquire_owned().ok());
        let Some(place) = place.flatten() else {
            ahead.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let fill = self.cache.lead(&found, upstream)?;
        ahead.fetched[source as usize].fetch_add(1, Ordering::Relaxed);
        let used = Arc::clone(&ahead.used);
        let attention = Arc::new(AccessTracker::counted(Instant::now(), used));
        let coming = FillTrigger::Prefetch {
            source,
            attention,
            _place: place,
        };
        let follower = fill.follower();
        self.spawn_fill(entry, fill, coming);
        Some(follower)
    }
}

/// Sends the request as players will: an object that is not always requested uncompressed is
/// requested with gzip.
fn as_players<'w>(with: &'w HeaderMap, entry: &CacheRequest) -> Cow<'w, HeaderMap> {
    if is_asked_in_plain(entry.kind, entry.target.path()) || with.contains_key(ACCEPT_ENCODING) {
        return Cow::Borrowed(with);
    }
    let mut with = with.clone();
    with.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    Cow::Owned(with)
}
