//! Limits how many objects are prefetched at once, and counts prefetches by what announced the
//! object.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use seawall_cache::AccessTracker;

/// Most prefetches at once of objects that exist …
const LISTED_MAX: usize = 64;
/// … of announced objects, one per rendition of a low-latency stream …
const ANNOUNCED_MAX: usize = 512;
/// … and of objects that players name (CMCD), who may be wrong.
const NOR_MAX: usize = 16;
/// … and of objects that operators want stored.
const WARM_MAX: usize = 16;
/// Requests of operators at once that hold lists of what manifests name, which may be large.
const WARM_LISTS_MAX: usize = 2;

/// What announced that an object will be requested. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefetchSource {
    /// A new version of a manifest lists it.
    Playlist,
    /// A player announces its next request (CMCD `nor`).
    Nor,
    /// An MPD's template and the clock say that it is available.
    Template,
    /// An operator wants it stored.
    Warm,
}

impl PrefetchSource {
    /// Every source.
    pub const ALL: [PrefetchSource; 4] = [
        PrefetchSource::Playlist,
        PrefetchSource::Nor,
        PrefetchSource::Template,
        PrefetchSource::Warm,
    ];

    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            PrefetchSource::Playlist => "playlist",
            PrefetchSource::Nor => "nor",
            PrefetchSource::Template => "template",
            PrefetchSource::Warm => "warm",
        }
    }
}

/// Whether the object of a prefetch exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrefetchedObject {
    /// It is believed to exist.
    Exists,
    /// A preload hint announces it: the origin blocks the request until it exists.
    Announced,
}

/// Counters since the process start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefetchStats {
    /// Prefetched objects, by source.
    pub fetched: [(PrefetchSource, u64); PrefetchSource::ALL.len()],
    /// Those that a viewer requested later.
    pub used: u64,
    /// Prefetches skipped because a limit was reached.
    pub skipped: u64,
}

/// The limits of prefetches, and their counters.
pub(crate) struct PrefetchLimits {
    listed: Arc<Semaphore>,
    announced: Arc<Semaphore>,
    nor: Arc<Semaphore>,
    warm: Arc<Semaphore>,
    warm_lists: Arc<Semaphore>,
    fetched: [AtomicU64; PrefetchSource::ALL.len()],
    used: Arc<AtomicU64>,
    skipped: AtomicU64,
}

/// A prefetch in progress. It counts against its limit until dropped.
pub(crate) struct Prefetch {
    pub(crate) source: PrefetchSource,
    /// Counts the first viewer that requests the object.
    pub(crate) access_tracker: Arc<AccessTracker>,
    _permit: OwnedSemaphorePermit,
}

impl Default for PrefetchLimits {
    fn default() -> PrefetchLimits {
        PrefetchLimits {
            listed: Arc::new(Semaphore::new(LISTED_MAX)),
            announced: Arc::new(Semaphore::new(ANNOUNCED_MAX)),
            nor: Arc::new(Semaphore::new(NOR_MAX)),
            warm: Arc::new(Semaphore::new(WARM_MAX)),
            warm_lists: Arc::new(Semaphore::new(WARM_LISTS_MAX)),
            fetched: Default::default(),
            used: Arc::default(),
            skipped: AtomicU64::new(0),
        }
    }
}

impl PrefetchLimits {
    /// Admits one more prefetch. `None`: its limit is reached.
    pub(crate) fn admit(
        &self,
        source: PrefetchSource,
        object: PrefetchedObject,
    ) -> Option<OwnedSemaphorePermit> {
        let limit = match (object, source) {
            (PrefetchedObject::Announced, _) => &self.announced,
            (PrefetchedObject::Exists, PrefetchSource::Nor) => &self.nor,
            (PrefetchedObject::Exists, PrefetchSource::Warm) => &self.warm,
            (PrefetchedObject::Exists, PrefetchSource::Playlist | PrefetchSource::Template) => {
                &self.listed
            }
        };
        Arc::clone(limit).try_acquire_owned().ok()
    }

    /// Waits until one more request of an operator may hold lists.
    pub(crate) async fn warm_list_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.warm_lists).acquire_owned().await.ok()
    }

    /// Counts an admitted prefetch that begins at `now`.
    pub(crate) fn begin(
        &self,
        permit: OwnedSemaphorePermit,
        source: PrefetchSource,
        now: Instant,
    ) -> Prefetch {
        self.fetched[source as usize].fetch_add(1, Ordering::Relaxed);
        let used = Arc::clone(&self.used);
        Prefetch {
            source,
            access_tracker: Arc::new(AccessTracker::counted(now, used)),
            _permit: permit,
        }
    }

    /// Counts a prefetch that is skipped for lack of capacity.
    pub(crate) fn count_skipped(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> PrefetchStats {
        let count = |source| {
            let fetched = &self.fetched[source as usize];
            (source, fetched.load(Ordering::Relaxed))
        };
        PrefetchStats {
            fetched: PrefetchSource::ALL.map(count),
            used: self.used.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
        }
    }
}
