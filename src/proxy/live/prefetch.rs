//! What will be asked for next? A new segment is fetched once, behind everything else, before the first
//! viewer asks for it. Bounded in number and bytes; where the origin is busy, nothing is fetched ahead.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::Semaphore;

use super::manifest_diff::AnnouncedPart;
use super::representations::{ExpectedSegment, PrefetchInterest};
use crate::cache::{AccessTracker, Follower};
use crate::policy::access::CacheRequest;
use crate::policy::encoding::is_asked_in_plain;
use crate::proxy::Shield;
use crate::proxy::fill::FillTrigger;

/// Fetched ahead at once, at most …
const AHEAD_MAX: usize = 64;
/// … announced and waited for: one a rendition of a low-latency stream …
const ANNOUNCED_MAX: usize = 512;
/// … and by what viewers say, who may say anything.
const TOLD_MAX: usize = 16;

/// What is being fetched ahead, and what came of it.
pub(in crate::proxy) struct Prefetcher {
    places: Arc<Semaphore>,
    announced: Arc<Semaphore>,
    told: Arc<Semaphore>,
    fetched: [AtomicU64; PrefetchSource::ALL.len()],
    used: Arc<AtomicU64>,
    left_out: AtomicU64,
}

/// What said that something will be asked for. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefetchSource {
    /// A new version of a manifest lists it.
    Playlist,
    /// A player says that it will ask for it next (CMCD).
    Nor,
    /// The clock says that it is there, by an MPD's template.
    Template,
}

impl PrefetchSource {
    /// Every source.
    pub const ALL: [PrefetchSource; 3] = [
        PrefetchSource::Playlist,
        PrefetchSource::Nor,
        PrefetchSource::Template,
    ];

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            PrefetchSource::Playlist => "playlist",
            PrefetchSource::Nor => "nor",
            PrefetchSource::Template => "template",
        }
    }
}

/// Counts, since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefetchStats {
    /// Fetched ahead of viewers, by what said so.
    pub fetched: [(PrefetchSource, u64); PrefetchSource::ALL.len()],
    /// Of these, asked for by a viewer later.
    pub used: u64,
    /// Not fetched ahead: too much was under way.
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
    /// What of all that is new anybody wants: viewers have asked for what it follows within `patience`.
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

    /// For how long no viewer has asked for something that is held; `None`: nobody ever has.
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
        match &head.attention {
            Some(attention) => attention.unasked_for(now),
            // A viewer's request brought it.
            None => Some(now.saturating_duration_since(head.lifetime.received)),
        }
    }

    /// Fetches what will be asked for, if nobody has or does. `with`: what the requests of those who
    /// will ask say besides. Gives a place at each fetch that this began.
    pub(in crate::proxy) fn fetch_ahead(
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

    /// Asks for what a new version announces: the origin answers when it is there.
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
        // Players may say anything; what a manifest lists was asked for too early, and is there now.
        if source != PrefetchSource::Nor && status.is_some_and(|status| status.is_client_error()) {
            self.cache.purge(&entry.key, entry.kind);
            found.object = None;
        }
        let known = found.object.is_some() || found.has_variants();
        let failed = || self.failed_lately(&found, &with, entry, now);
        if !entry.route.live.prefetch || known || failed() {
            return None;
        }
        let has_room = has_room() && self.cache.fills_have_room();
        let place = has_room.then(|| Arc::clone(places).try_acquire_owned().ok());
        let Some(place) = place.flatten() else {
            ahead.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let fill = self.cache.lead(&found, upstream)?;
        ahead.fetched[source as usize].fetch_add(1, Ordering::Relaxed);
        let used = Arc::clone(&ahead.used);
        let attention = Arc::new(AccessTracker::counted(Instant::now(), used));
        let coming = FillTrigger::Coming {
            source,
            attention,
            _place: place,
        };
        let follower = fill.follower();
        self.launch(entry, fill, coming);
        Some(follower)
    }
}

/// What will be asked for comes as players will ask for it: what is asked for in a coding at all, they take
/// in gzip.
fn as_players<'w>(with: &'w HeaderMap, entry: &CacheRequest) -> Cow<'w, HeaderMap> {
    if is_asked_in_plain(entry.kind, entry.target.path()) || with.contains_key(ACCEPT_ENCODING) {
        return Cow::Borrowed(with);
    }
    let mut with = with.clone();
    with.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    Cow::Owned(with)
}
