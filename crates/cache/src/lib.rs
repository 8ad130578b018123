//! The cache of a media shield: it stores complete responses in memory and merges concurrent
//! fetches of one object into one.
//!
//! It knows nothing of origins and client sockets. It keeps the lifetime of each object, but does
//! not decide whether an object is fresh: the caller looks a key up, decides with `seawall_policy`
//! whether the stored object may be used, and otherwise joins the fill of the key. Exactly one
//! caller becomes the leader and feeds the fill; every other caller follows it and reads each chunk
//! as it arrives.
//!
//! | part | does |
//! |---|---|
//! | [`Cache::lookup`] | finds the stored object of a key, or of its variant (`Vary`) |
//! | [`Cache::join`], [`Cache::lead`] | joins the fill of a key or starts it |
//! | [`Fill`] | takes the head and the body from the caller, stores the object |
//! | [`Follower`] | reads a fill: a truncated body is an error, never a clean end |
//! | [`Object`] | a complete response in memory |
//! | [`KeyMemo`] | what is remembered of a key without an object: it failed, or is uncacheable |
//! | [`EpochToken`], [`CachePurge`] | drop many objects in one step |
//! | [`eviction`] | decides which objects stay, with live streams in mind |
//!
//! Every limit is in bytes and counts what the allocator hands out: stored objects
//! ([`Settings::memory_bytes`]), and fills with the evicted bodies that slow viewers still read
//! ([`Settings::fill_bytes_max`]).
//!
//! # Example
//!
//! One request fetches, another one reads along, a third one finds the object in memory.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//!
//! use bytes::Bytes;
//! use http::{HeaderMap, StatusCode};
//! use seawall_cache::{Cache, FieldLines, FillHead, JoinOutcome, Settings, StoredHead};
//! use seawall_manifest::Kind;
//! use seawall_policy::{Key, Lifetime};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let cache = Cache::new(Settings::default());
//! let key = Key::of(&[b"origin", b"", b"/live/segment1.ts"]);
//! let look_up = || cache.lookup(&key, Kind::Segment, Instant::now(), HeaderMap::new);
//!
//! let headers = HeaderMap::new();
//! let JoinOutcome::Lead(fill, _follower) = cache.join(&look_up(), &headers) else {
//!     panic!("nothing is stored and no fill is in progress");
//! };
//! let JoinOutcome::Follow(mut second) = cache.join(&look_up(), &headers) else {
//!     panic!("the fill is in progress");
//! };
//!
//! fill.begin(Arc::new(StoredHead {
//!     status: StatusCode::OK,
//!     headers: FieldLines::default(),
//!     targeted: None,
//!     kind: Kind::Segment,
//!     lifetime: Lifetime::none(Instant::now()),
//!     manifest_info: None,
//!     length: None,
//!     will_be_stored: true,
//!     is_own: false,
//!     stream: None,
//!     epoch_token: None,
//!     access_tracker: None,
//! }));
//! assert!(matches!(second.wait_for_head().await, FillHead::Growing(_)));
//! fill.push(Bytes::from_static(b"media")).await;
//! fill.finish().await;
//!
//! let object = look_up().object.expect("it is stored");
//! assert_eq!(object.body, "media");
//! # }
//! ```

mod access_tracker;
mod budget;
mod class_marks;
mod encoded_bodies;
mod epoch;
mod epoch_bits;
mod epoch_span;
mod epochs;
pub mod eviction;
mod field_lines;
mod fill;
mod flight;
mod follower;
mod found_object;
mod key_memos;
mod object;
mod partition;
mod pinned;
mod purge;
mod purge_mode;
mod registry;
mod removals;
mod shares;
mod store;
mod table;
mod tags;
mod variants;
mod weight;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::HeaderMap;

pub use access_tracker::AccessTracker;
pub use class_marks::ClassMarks;
pub use encoded_bodies::EncodedBodySet;
pub use epoch::EpochToken;
pub use eviction::EvictionReason;
pub use field_lines::{FIELDS_ADDED, FieldLines, REPLACED_FIELDS, write_field};
pub use fill::{Fill, FillControl};
pub use flight::{BodyTruncated, Verdict};
pub use follower::{AwaitedFill, BodyExtent, FillHead, Follower};
pub use found_object::FoundObject;
pub use key_memos::{ExpiringMemo, KeyMemo, SliceSet};
pub use object::{EncodedBodies, Object, StoredHead};
pub use pinned::{BodyConsumer, SharedBody, SlowReader};
pub use purge::{CachePurge, PurgeCount};
pub use purge_mode::PurgeMode;
pub use registry::JoinOutcome;
pub use shares::MemoryShares;
pub use store::{Lookup, StoreOutcome};
pub use tags::TagKeys;

use self::eviction::Advance;
use seawall_manifest::Kind;
use seawall_policy::Key;

/// Memory limits of the store and of fills.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Maximum bytes of stored objects, overhead included.
    pub memory_bytes: u64,
    /// Maximum size of a stored object. Larger objects are streamed and not stored.
    pub object_bytes_max: u64,
    /// Maximum bytes of fills in progress, and of bodies that left the store while slow viewers
    /// still read them. Not part of `memory_bytes`.
    pub fill_bytes_max: u64,
    /// Maximum viewers that wait for one key.
    pub waiters_max: usize,
    /// Maximum variants (`Vary`) of one key.
    pub variants_max: usize,
    /// Maximum tags of all stored objects. Beyond it an object gets one that stands for all.
    pub tags_max: usize,
    /// Kinds with a partition of their own, and its bytes. These are part of `memory_bytes`.
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
            tags_max: 1_000_000,
            kind_bytes_max: Vec::new(),
        }
    }
}

/// The cache of one instance. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<CacheInner>,
}

pub(crate) struct CacheInner {
    settings: Settings,
    store: store::Store,
    registry: registry::FlightRegistry,
    memos: key_memos::KeyMemos,
    budget: Arc<budget::FillBudget>,
    pinned: Arc<pinned::PinnedBodies>,
    epochs: epochs::Epochs,
    tags: tags::TagTable,
    purges_in_progress: purge::PurgesInProgress,
}

impl CacheInner {
    fn object_bytes_max(&self, kind: Kind) -> u64 {
        let room = self.store.shares().object_bytes_max(kind);
        room.min(self.settings.object_bytes_max)
    }
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Objects (and variant markers) in the store.
    pub objects: u64,
    /// Bytes in the store, overhead included.
    pub bytes: u64,
    /// Limit of `bytes`.
    pub bytes_max: u64,
    /// Objects removed to free memory, by reason, since start.
    pub evictions: [(EvictionReason, u64); EvictionReason::ALL.len()],
    /// Objects stored, since start.
    pub insertions: u64,
    /// Variants not stored because the key already had the maximum, since start.
    pub too_varied: u64,
    /// Fills in progress.
    pub fills: u64,
    /// Viewers that follow a fill.
    pub followers: u64,
    /// Bytes held by fills in progress.
    pub fill_bytes: u64,
    /// Limit of `fill_bytes`.
    pub fill_bytes_max: u64,
    /// Bytes of bodies that left the store while slow viewers still read them.
    pub pinned_bytes: u64,
    /// Limit of `pinned_bytes`; part of `fill_bytes_max`.
    pub pinned_bytes_max: u64,
    /// Viewers rejected because too many waited for the same key, since start.
    pub crowded: u64,
    /// Fills that became too large to hold and were streamed through a window, since start.
    pub windowed: u64,
    /// Tags of stored objects, and recently purged ones.
    pub tags: u64,
    /// Responses whose tags were replaced by one that stands for all, since start.
    pub tags_overflowed: u64,
}

impl Cache {
    /// Creates an empty cache.
    pub fn new(settings: Settings) -> Cache {
        let memos = key_memos::KeyMemos::new(settings.memory_bytes);
        let budget = Arc::new(budget::FillBudget::new(settings.fill_bytes_max));
        let pinned = Arc::new(pinned::PinnedBodies::new(Arc::clone(&budget)));
        let store = store::Store::new(&settings, &pinned);
        let tags = tags::TagTable::new(settings.tags_max);
        Cache {
            inner: Arc::new(CacheInner {
                settings,
                store,
                registry: registry::FlightRegistry::default(),
                memos,
                budget,
                pinned,
                epochs: epochs::Epochs::default(),
                tags,
                purges_in_progress: purge::PurgesInProgress::default(),
            }),
        }
    }

    /// Looks up a key. `upstream_headers` returns the request headers as they would be sent to the
    /// origin. It is called only when the key has variants.
    pub fn lookup(
        &self,
        key: &Key,
        kind: Kind,
        now: Instant,
        upstream_headers: impl FnOnce() -> HeaderMap,
    ) -> Lookup {
        self.inner.store.lookup(key, kind, now, upstream_headers)
    }

    /// The object of a lookup, to be used again without a lookup. `None` if it is no longer stored.
    pub fn found_object(&self, lookup: &Lookup, now: Instant) -> Option<FoundObject> {
        self.inner.store.found_object(lookup, now)
    }

    /// Joins the fill for this lookup, or becomes its leader. `upstream_headers` holds the request
    /// headers as they would be sent to the origin.
    pub fn join(&self, lookup: &Lookup, upstream_headers: &HeaderMap) -> JoinOutcome<Fill> {
        Fill::join(&self.inner, lookup, upstream_headers)
    }

    /// Whether a fill for this lookup is in progress.
    pub fn is_being_filled(&self, lookup: &Lookup) -> bool {
        registry::is_being_filled(&self.inner, lookup)
    }

    /// The fill for this lookup, if it is in progress and has nothing to respond with yet.
    pub fn awaited_fill(&self, lookup: &Lookup) -> Option<AwaitedFill> {
        registry::awaited_fill(&self.inner, lookup)
    }

    /// Becomes the leader of a fill that no viewer waits for. `None` when such a fill is in
    /// progress, or when the stored object changed after the lookup.
    pub fn lead(
        &self,
        lookup: &Lookup,
        upstream_headers: impl FnOnce() -> HeaderMap,
    ) -> Option<Fill> {
        Fill::lead(&self.inner, lookup, upstream_headers)
    }

    /// The memo of a slot that has no fresh object.
    pub fn memo(&self, slot: &Key, now: Instant) -> Option<KeyMemo> {
        self.inner.memos.read(slot, now)
    }

    /// Writes a memo for the slot of a lookup. It has an effect while the slot has no fresh object.
    pub fn write_memo(&self, lookup: &Lookup, memo: ExpiringMemo) {
        self.inner.memos.write(&lookup.slot, memo);
    }

    /// Erases the memo of a lookup's slot.
    pub fn erase_memo(&self, lookup: &Lookup) {
        self.inner.memos.erase(&lookup.slot);
    }

    /// Stores under a key the object that a fill of another key brought: the newest version of a
    /// playlist also answers requests for the playlist itself. Does nothing for a key with
    /// variants, or for an object of an epoch that has ended.
    pub fn store_under(&self, key: &Key, kind: Kind, object: &Arc<Object>) {
        registry::store_under(&self.inner, key, kind, object);
    }

    /// Removes a key with all its variants. A fill in progress for it is not stored, and no request
    /// joins it.
    pub fn purge(&self, key: &Key, kind: Kind) {
        self.purging(PurgeMode::Hard).key(key, kind);
    }

    /// All objects of a key, in all variants. With `url`, also the objects of all keys of that URL.
    pub fn objects_of(&self, key: &Key, url: Option<&Key>, kind: Kind) -> Vec<Arc<Object>> {
        let inner = &self.inner;
        let now = Instant::now();
        let others = url.map(|url| inner.epochs.keys_of(url));
        let keys = others.unwrap_or_default();
        let keys = keys.iter().filter(|other| *other != key).chain([key]);
        keys.flat_map(|key| inner.store.objects_of(key, kind, now))
            .collect()
    }

    /// Binds what is requested now to a directory, until the directory's epoch ends, and to a URL
    /// with several keys, until the URL is purged.
    pub fn bind_epoch(&self, directory: Option<&Key>, url: Option<&Key>) -> EpochToken {
        self.inner.epochs.token(directory, url)
    }

    /// Binds the slices of an object together, until its key is purged.
    pub fn bind_slices(&self, key: &Key) -> EpochToken {
        self.inner.epochs.token(Some(&slice_directory(key)), None)
    }

    /// Drops everything in a directory in one step, including what is being fetched.
    pub fn end_epoch(&self, directory: &Key) {
        self.inner.epochs.end(directory);
    }

    /// Records that live renditions have new segments, and which objects no live manifest lists any
    /// more (by the fingerprints of their keys). Those are evicted first when memory is short.
    pub fn update_live_windows(&self, advances: &[Advance], departed: &[u64]) {
        self.inner.store.update_live_windows(advances, departed);
    }

    /// Maximum size of a stored body of this kind.
    pub fn object_bytes_max(&self, kind: Kind) -> u64 {
        self.inner.object_bytes_max(kind)
    }

    /// Whether fills use less than half of their memory. Only then may a fill start that no viewer
    /// waits for.
    pub fn has_room_for_background_fill(&self) -> bool {
        let inner = &self.inner;
        inner.budget.used() < inner.settings.fill_bytes_max / 2
    }

    /// Numbers for metrics, at this moment.
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
            tags: inner.tags.len(),
            tags_overflowed: inner.tags.overflowed(),
        }
    }
}

/// The directory of an object's slices.
fn slice_directory(key: &Key) -> Key {
    Key::of(&[b"slices", key.bytes()])
}

#[cfg(test)]
mod tests;
