//! A sharded hash table. Readers share a shard's lock and hold it only while they copy a pointer.
//! The table knows neither limits nor expiry: the eviction policy does.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::RwLock;

use seawall_policy::Key;

/// A shard that grows moves its entries while its readers wait, and a scan holds up its writers.
/// With many shards, each has few entries: 1,000 of a million.
const SHARDS: usize = 1024;
/// A shard shrinks when less than 1/4 of its capacity is used.
const TAKEN_PART_MIN: usize = 4;

/// On its own cache line, because every reader of a shard writes to its lock.
#[repr(align(64))]
struct TableShard<V>(RwLock<HashTable<(Key, V)>>);

pub(super) struct ObjectTable<V> {
    shards: Box<[TableShard<V>]>,
    hasher: ahash::RandomState,
}

impl<V> ObjectTable<V> {
    pub(super) fn new() -> ObjectTable<V> {
        let shards = (0..SHARDS).map(|_| TableShard(RwLock::new(HashTable::new())));
        ObjectTable {
            shards: shards.collect(),
            hasher: ahash::RandomState::new(),
        }
    }

    /// Applies `read` to the value of a key, under the shard's lock.
    pub(super) fn read<R>(&self, key: &Key, read: impl FnOnce(&V) -> R) -> Option<R> {
        let (hash, shard) = self.shard(key);
        let shard = shard.read();
        let (_, value) = shard.find(hash, |(other, _)| other == key)?;
        Some(read(value))
    }

    /// Stores a value. Returns the previous one, for the caller to drop without a lock.
    pub(super) fn insert(&self, key: Key, value: V) -> Option<V> {
        let (hash, shard) = self.shard(&key);
        let mut shard = shard.write();
        let rehash = |(key, _): &(Key, V)| self.hasher.hash_one(key);
        match shard.entry(hash, |(other, _)| *other == key, rehash) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(&mut entry.get_mut().1, value)),
            Entry::Vacant(entry) => {
                entry.insert((key, value));
                None
            }
        }
    }

    pub(super) fn remove(&self, key: &Key) -> Option<V> {
        let (hash, shard) = self.shard(key);
        let mut shard = shard.write();
        let entry = shard.find_entry(hash, |(other, _)| other == key).ok()?;
        let ((_, value), _) = entry.remove();
        let len = shard.len();
        if len < shard.capacity() / TAKEN_PART_MIN {
            shard.shrink_to(2 * len, |(key, _)| self.hasher.hash_one(key));
        }
        Some(value)
    }

    /// The keys of all matching entries. Scans one shard at a time; meanwhile that shard's writers
    /// wait, and readers that come after them.
    pub(super) fn keys_where(&self, is_match: impl Fn(&Key, &V) -> bool) -> Vec<Key> {
        let mut keys = Vec::new();
        for shard in &self.shards {
            let shard = shard.0.read();
            let matching = shard.iter().filter(|(key, value)| is_match(key, value));
            keys.extend(matching.map(|(key, _)| key.clone()));
        }
        keys
    }

    fn shard(&self, key: &Key) -> (u64, &RwLock<HashTable<(Key, V)>>) {
        let hash = self.hasher.hash_one(key);
        // The table inside uses the lowest and the highest bits.
        let [.., low, high, _] = hash.to_le_bytes();
        let shard = usize::from(u16::from_le_bytes([low, high])) % SHARDS;
        (hash, &self.shards[shard].0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u16) -> Key {
        Key::of(&[&number.to_be_bytes()])
    }

    proptest! {
        #[test]
        fn matches_hash_map_after_random_operations(
            steps in proptest::collection::vec((0..500_u16, any::<bool>()), 1..2000)
        ) {
            let (table, mut map) = (ObjectTable::new(), HashMap::new());
            for (at, (number, is_kept)) in steps.into_iter().enumerate() {
                let key = key(number);
                let (before, now) = if is_kept {
                    (map.insert(number, at), table.insert(key, at))
                } else {
                    (map.remove(&number), table.remove(&key))
                };
                prop_assert_eq!(before, now);
            }
            for number in 0..500 {
                let held = table.read(&key(number), |at| *at);
                prop_assert_eq!(held.as_ref(), map.get(&number));
            }
        }
    }

    #[test]
    fn shrinks_after_most_objects_are_removed() {
        let table = ObjectTable::new();
        let capacity = |table: &ObjectTable<u16>| {
            let shards = table.shards.iter();
            shards.map(|shard| shard.0.read().capacity()).sum::<usize>()
        };
        (0..50_000).for_each(|number| assert_eq!(table.insert(key(number), number), None));
        assert!(capacity(&table) >= 50_000);
        (100..50_000).for_each(|number| assert_eq!(table.remove(&key(number)), Some(number)));
        assert!(capacity(&table) <= 100 * TAKEN_PART_MIN + 8 * SHARDS);
        assert!((0..100).all(|number| table.read(&key(number), |held| *held) == Some(number)));
    }
}
