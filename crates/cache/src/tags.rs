//! The tags of objects: a purge of a tag drops all objects that have it.
//!
//! Objects with the same tags share one set, and the set has an epoch. A purge of a tag ends the
//! epochs of the sets that it is in; it reads no object. The tags of an object are known only with
//! the head of its response, so each purge of a tag has a number, and a fill that began before a
//! purge of one of its tags is purged when its head arrives.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::epoch::{EndedEpochs, Epoch, EpochMark, Tag};
use super::purge_mode::PurgeMode;
use seawall_policy::Key;

const SHARDS: usize = 64;
/// A shorter table is not worth sweeping.
const SWEEP_MIN: usize = 64;
/// Purged tags that are remembered. A fill with tags that began before the purges of all of these
/// counts as purged.
const RECENT_MAX: usize = 1024;

/// The keys of an object's tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagKeys {
    /// One for each tag.
    pub keys: Vec<Key>,
    /// Stands for all tags of the origin, when there are too many: every purge of a tag of that
    /// origin includes it.
    pub overflow: Key,
}

/// All tags and sets of tags of stored objects.
pub(crate) struct TagTable {
    tags: WeakTable<Key, Tag>,
    /// By the addresses of the tags, sorted: a set keeps its tags at their addresses.
    sets: WeakTable<Box<[usize]>, Epoch>,
    tags_max: usize,
    count: Arc<AtomicU64>,
    overflowed: AtomicU64,
    recent: Mutex<VecDeque<(u64, Arc<Tag>)>>,
    /// The number of the last purge that is no longer remembered.
    forgotten: AtomicU64,
}

/// What binds an object to its tags.
pub(super) struct TagBinding {
    pub(super) mark: EpochMark,
    set: Arc<Epoch>,
}

impl TagTable {
    pub(crate) fn new(tags_max: usize) -> TagTable {
        TagTable {
            tags: WeakTable::default(),
            sets: WeakTable::default(),
            tags_max,
            count: Arc::default(),
            overflowed: AtomicU64::new(0),
            recent: Mutex::default(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Binds an object to its tags.
    pub(super) fn bind(&self, keys: &TagKeys) -> TagBinding {
        let is_full = self.len() >= self.tags_max as u64;
        let mut tags: Vec<Arc<Tag>> = if keys.keys.is_empty() || is_full {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            vec![self.tag(&keys.overflow)]
        } else {
            keys.keys.iter().map(|key| self.tag(key)).collect()
        };
        let address = |tag: &Arc<Tag>| Arc::as_ptr(tag).addr();
        tags.sort_unstable_by_key(address);
        tags.dedup_by_key(|tag| address(tag));
        let addresses: Box<[usize]> = tags.iter().map(address).collect();
        let set = self.sets.get_or_insert(addresses, || {
            let set = Arc::new(Epoch::of_tags(tags.into()));
            for tag in set.tags() {
                let mut sets = tag.sets.lock();
                if sets.len() >= SWEEP_MIN && sets.len() == sets.capacity() {
                    sets.retain(|set| set.strong_count() > 0);
                }
                sets.push(Arc::downgrade(&set));
            }
            set
        });
        TagBinding {
            mark: EpochMark::now(Arc::clone(&set)),
            set,
        }
    }

    /// How one of these tags was purged after the purge with this number.
    pub(super) fn purged_since(&self, binding: &TagBinding, started_at: u64) -> Option<PurgeMode> {
        let last = |number: fn(&Tag) -> &AtomicU64| {
            let tags = binding.set.tags().iter();
            let numbers = tags.map(|tag| number(tag).load(Ordering::Acquire));
            numbers.max().unwrap_or_default()
        };
        let forgotten = self.forgotten.load(Ordering::Acquire);
        if last(|tag| &tag.purged_at).max(forgotten) > started_at {
            Some(PurgeMode::Hard)
        } else if last(|tag| &tag.soft_purged_at) > started_at {
            Some(PurgeMode::Soft)
        } else {
            None
        }
    }

    fn tag(&self, key: &Key) -> Arc<Tag> {
        let new = || Arc::new(Tag::new(key.clone(), &self.count));
        self.tags.get_or_insert(key.clone(), new)
    }

    /// Purges a tag. `clock` has the number of the last purge of any tag.
    pub(super) fn end(&self, key: &Key, clock: &AtomicU64, ended: &mut EndedEpochs) {
        if ended.mode() == PurgeMode::DryRun {
            if let Some(tag) = self.tags.get(key) {
                let sets = tag.sets.lock();
                let sets = sets.iter().filter_map(Weak::upgrade);
                sets.for_each(|set| ended.end(set));
            }
            return;
        }
        let tag = self.tag(key);
        let mut recent = self.recent.lock();
        let number = clock.fetch_add(1, Ordering::AcqRel) + 1;
        recent.push_back((number, Arc::clone(&tag)));
        if recent.len() > RECENT_MAX
            && let Some((forgotten, _)) = recent.pop_front()
        {
            self.forgotten.store(forgotten, Ordering::Release);
        }
        // First the number: a fill that binds itself to the new epochs must find it.
        let purged_at = match ended.mode() {
            PurgeMode::Soft => &tag.soft_purged_at,
            _ => &tag.purged_at,
        };
        purged_at.fetch_max(number, Ordering::AcqRel);
        drop(recent);
        let sets = tag.sets.lock();
        let sets = sets.iter().filter_map(Weak::upgrade);
        sets.for_each(|set| ended.end(set));
    }

    /// Number of tags.
    pub(crate) fn len(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Objects that had too many tags, or came when there were too many.
    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }
}

/// Finds what is in use elsewhere, in shards.
struct WeakTable<K, V> {
    shards: Box<[Mutex<WeakShard<K, V>>]>,
    hasher: ahash::RandomState,
}

struct WeakShard<K, V> {
    values: HashMap<K, Weak<V>, ahash::RandomState>,
    /// At this length, values that are not used any more are removed.
    sweep_at: usize,
}

impl<K, V> Default for WeakTable<K, V> {
    fn default() -> WeakTable<K, V> {
        let shard = |_| {
            Mutex::new(WeakShard {
                values: HashMap::default(),
                sweep_at: SWEEP_MIN,
            })
        };
        WeakTable {
            shards: (0..SHARDS).map(shard).collect(),
            hasher: ahash::RandomState::new(),
        }
    }
}

impl<K: Eq + Hash, V> WeakTable<K, V> {
    fn shard(&self, key: &K) -> &Mutex<WeakShard<K, V>> {
        let [low, ..] = self.hasher.hash_one(key).to_le_bytes();
        &self.shards[usize::from(low) % SHARDS]
    }

    fn get(&self, key: &K) -> Option<Arc<V>> {
        self.shard(key).lock().values.get(key)?.upgrade()
    }

    fn get_or_insert(&self, key: K, new: impl FnOnce() -> Arc<V>) -> Arc<V> {
        let mut shard = self.shard(&key).lock();
        if let Some(value) = shard.values.get(&key).and_then(Weak::upgrade) {
            return value;
        }
        if shard.values.len() >= shard.sweep_at {
            shard.values.retain(|_, value| value.strong_count() > 0);
            shard.sweep_at = SWEEP_MIN.max(shard.values.len() / 4 * 5);
        }
        let value = new();
        shard.values.insert(key, Arc::downgrade(&value));
        value
    }
}
