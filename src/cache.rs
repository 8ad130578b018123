//! What is remembered, and what is being fetched right now?
//!
//! Four calls: [`Cache::lookup`], [`Cache::join`] (and [`Cache::lead`]), [`Cache::purge`],
//! [`Cache::stats`]. Knows nothing of origins, viewers' sockets or clocks: a fill is fed from
//! outside, and whether an object is fresh is judged by `policy`.

mod access_tracker;
mod budget;
mod encoded_bodies;
mod epoch;
pub mod eviction;
mod field_lines;
mod fill;
mod flight;
mod follower;
mod key_memos;
mod object;
mod partition;
mod pinned;
mod purge;
mod registry;
mod shares;
mod store;
mod table;
mod weight;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::HeaderMap;

pub use access_tracker::AccessTracker;
pub use encoded_bodies::{EncodedBodies, EncodedBodySet};
pub use epoch::EpochToken;
pub use field_lines::{FIELDS_ADDED, FieldLines, SAID_ANEW, write_field};
pub use fill::{Fill, FillControl};
pub use flight::Verdict;
pub use follower::{BodyExtent, BodyTruncated, FillHead, Follower};
pub use key_memos::{ExpiringMemo, KeyMemo, SliceSet};
pub use object::{Object, StoredHead};
pub use pinned::{BodyConsumer, SharedBody, SlowReader};
pub use purge::CachePurge;
pub use registry::JoinOutcome;
pub use shares::MemoryShares;
pub use store::{Lookup, StoreOutcome};

use self::eviction::{Advance, EvictionReason};
use crate::manifest::Kind;
use crate::policy::Key;

/// Bounds of the memory store and of fills.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of finished objects, overhead included.
    pub memory_bytes: u64,
    /// The largest object that is stored; larger ones stream through.
    pub object_bytes_max: u64,
    /// Bytes held by fills still under way, and by bodies that slow viewers read after the store has let
    /// them go; apart from `memory_bytes`.
    pub fill_bytes_max: u64,
    /// Viewers waiting on one key at most.
    pub waiters_max: usize,
    /// Variants (`Vary`) of one key at most.
    pub variants_max: usize,
    /// Kinds that get a store of their own, with its bytes (taken out of `memory_bytes`).
    pub kind_bytes_max: Vec<(Kind, u64)>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            memory_bytes: 1 << 30,
            object_bytes_max: 64 << 20,
            fill_bytes_max: 256 << 20,
            waiters_max: 100_000,
            variants_max: 16,
            kind_bytes_max: Vec::new(),
        }
    }
}

/// The memory of one shield. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<CacheInner>,
}

pub(crate) struct CacheInner {
    settings: Settings,
    store: store::Store,
    registry: registry::FlightRegistry,
    notes: key_memos::KeyMemos,
    budget: Arc<budget::FillBudget>,
    pinned: Arc<pinned::PinnedBodies>,
    epochs: epoch::Epochs,
    walks: purge::PurgeWalks,
}

impl CacheInner {
    fn object_bytes_max(&self, place: Kind) -> u64 {
        let room = self.store.shares().object_bytes_max(place);
        room.min(self.settings.object_bytes_max)
    }
}

/// What the cache holds and does, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Objects (and variant markers) stored.
    pub objects: u64,
    /// Bytes stored, overhead included.
    pub bytes: u64,
    /// The bound of `bytes`.
    pub bytes_max: u64,
    /// Objects dropped to make room, by what they were, since start.
    pub evictions: [(EvictionReason, u64); EvictionReason::ALL.len()],
    /// Objects stored, since start.
    pub insertions: u64,
    /// Variants not stored because their key had too many, since start.
    pub too_varied: u64,
    /// Fills under way.
    pub fills: u64,
    /// Viewers following a fill.
    pub followers: u64,
    /// Bytes held by fills under way.
    pub fill_bytes: u64,
    /// The bound of `fill_bytes`.
    pub fill_bytes_max: u64,
    /// Bytes of bodies that the store has let go and that slow viewers still read.
    pub pinned_bytes: u64,
    /// The bound of `pinned_bytes`; a part of `fill_bytes_max`.
    pub pinned_bytes_max: u64,
    /// Viewers turned away because a key had too many waiting, since start.
    pub crowded: u64,
    /// Fills that streamed through a window because they were too large to hold, since start.
    pub windowed: u64,
}

impl Cache {
    /// An empty memory.
    pub fn new(settings: Settings) -> Cache {
        let notes = key_memos::KeyMemos::new(settings.memory_bytes);
        let budget = Arc::new(budget::FillBudget::new(settings.fill_bytes_max));
        let pinned = Arc::new(pinned::PinnedBodies::new(Arc::clone(&budget)));
        let store = store::Store::new(&settings, &pinned);
        Cache {
            inner: Arc::new(CacheInner {
                settings,
                store,
                registry: registry::FlightRegistry::default(),
                notes,
                budget,
                pinned,
                epochs: epoch::Epochs::default(),
                walks: purge::PurgeWalks::default(),
            }),
        }
    }

    /// What is held for a key. `upstream` gives the request headers as they would be sent to the
    /// origin; it is only called when the key has variants.
    pub fn lookup(
        &self,
        key: &Key,
        kind: Kind,
        now: Instant,
        upstream: impl FnOnce() -> HeaderMap,
    ) -> Lookup {
        self.inner.store.lookup(key, kind, now, upstream)
    }

    /// Joins the fill for what was looked up, or becomes its leader.
    /// `upstream`: the request's headers as they would be sent to the origin.
    pub fn join(&self, found: &Lookup, upstream: &HeaderMap) -> JoinOutcome {
        registry::join(&self.inner, found, upstream)
    }

    /// A fill for what was looked up is under way.
    pub fn is_being_filled(&self, found: &Lookup) -> bool {
        registry::is_being_filled(&self.inner, found)
    }

    /// Becomes the leader of a fill that no viewer waits for; `None` when one is under way, or when
    /// something else is held by now than was found.
    pub fn lead(&self, found: &Lookup, upstream: impl FnOnce() -> HeaderMap) -> Option<Fill> {
        registry::lead(&self.inner, found, upstream)
    }

    /// What is known about a slot that holds no fresh object.
    pub fn noted(&self, slot: &Key, now: Instant) -> Option<KeyMemo> {
        self.inner.notes.read(slot, now)
    }

    /// Remembers something about what was looked up, if it has no object.
    pub fn note(&self, found: &Lookup, note: ExpiringMemo) {
        self.inner.notes.write(&found.slot, note);
    }

    /// Forgets what was noted about what was looked up.
    pub fn forget_note(&self, found: &Lookup) {
        self.inner.notes.erase(&found.slot);
    }

    /// Files under a key what another key's fill brought: the newest state of a playlist is the playlist.
    /// Not where variants are held, nor what belongs to an epoch that has ended.
    pub fn file(&self, key: &Key, kind: Kind, object: &Arc<Object>) {
        registry::file(&self.inner, key, kind, object);
    }

    /// Forgets a key with all its variants; a fill under way for it will not be stored, nor joined.
    pub fn purge(&self, key: &Key, kind: Kind) {
        self.purging().key(key, kind);
    }

    /// Everything that is held for a key, in all variants; and of a URL with several keys for each of these.
    pub fn held(&self, key: &Key, url: Option<&Key>, kind: Kind) -> Vec<Arc<Object>> {
        let inner = &self.inner;
        let now = Instant::now();
        let others = url.map(|url| inner.epochs.keys_of(url));
        let keys = others.unwrap_or_default();
        let keys = keys.iter().filter(|other| *other != key).chain([key]);
        keys.flat_map(|key| inner.store.objects_of(key, kind, now))
            .collect()
    }

    /// What is asked for now belongs to a place until the place's epoch ends, and to a URL that has
    /// many keys until the URL is purged.
    pub fn tie(&self, place: Option<&Key>, url: Option<&Key>) -> EpochToken {
        self.inner.epochs.tie(place, url)
    }

    /// The slices of an object belong together until its key is purged.
    pub fn tie_slices(&self, key: &Key) -> EpochToken {
        self.inner.epochs.tie(Some(&slices_of(key)), None)
    }

    /// Drops everything that belongs to a place, what is being fetched included, in one step.
    pub fn end_epoch(&self, place: &Key) {
        self.inner.epochs.end(place);
    }

    /// Live renditions have new segments; and no live manifest lists these any more, by the fingerprints of
    /// their keys: they are the first to go where memory is short.
    pub fn slide(&self, advances: &[Advance], departed: &[u64]) {
        self.inner.store.slide(advances, departed);
    }

    /// The largest body of a kind that is stored.
    pub fn object_bytes_max(&self, place: Kind) -> u64 {
        self.inner.object_bytes_max(place)
    }

    /// Fills hold less than half of what they may: there is room for some that nobody waits for.
    pub fn fills_have_room(&self) -> bool {
        let inner = &self.inner;
        inner.budget.used() < inner.settings.fill_bytes_max / 2
    }

    /// A snapshot for metrics.
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        inner.store.expire();
        let counts = &inner.registry.counts;
        Stats {
            objects: inner.store.objects(),
            bytes: inner.store.bytes(),
            bytes_max: inner.settings.memory_bytes,
            evictions: inner.store.evictions(),
            insertions: inner.store.insertions(),
            too_varied: inner.store.too_varied(),
            fills: counts.fills.load(Ordering::Relaxed),
            followers: counts.followers.load(Ordering::Relaxed),
            fill_bytes: inner.budget.used().saturating_sub(inner.pinned.bytes()),
            fill_bytes_max: inner.settings.fill_bytes_max,
            pinned_bytes: inner.pinned.bytes(),
            pinned_bytes_max: inner.pinned.bytes_max(),
            crowded: counts.crowded.load(Ordering::Relaxed),
            windowed: counts.windowed.load(Ordering::Relaxed),
        }
    }
}

/// Among the places whose epochs end: an object's slices.
fn slices_of(key: &Key) -> Key {
    Key::of(&[b"slices", key.bytes()])
}

#[cfg(test)]
mod tests;
