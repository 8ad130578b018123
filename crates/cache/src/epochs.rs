//! The epochs of all directories and URLs, by their keys.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::epoch::{EndedEpochs, Epoch, EpochMark, EpochToken};
use super::purge_mode::PurgeMode;
use seawall_policy::Key;

/// All directories and URLs with live tokens, in shards, so that scanning one shard is short.
pub(crate) struct Epochs {
    shards: [Mutex<EpochTable>; SHARDS],
    hasher: ahash::RandomState,
}

const SHARDS: usize = 64;

impl Default for Epochs {
    fn default() -> Epochs {
        Epochs {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: ahash::RandomState::new(),
        }
    }
}

#[derive(Default)]
struct EpochTable {
    epochs: HashMap<Key, Weak<Epoch>, ahash::RandomState>,
    /// At this length, epochs without tokens are removed from the table.
    sweep_at: usize,
}

/// A shorter table is not worth sweeping.
const SWEEP_MIN: usize = 64;

impl Epochs {
    pub(crate) fn token(&self, directory: Option<&Key>, url: Option<&Key>) -> EpochToken {
        EpochToken::of(
            directory.map(|directory| self.mark(directory)),
            url.map(|url| self.mark(url)),
        )
    }

    fn mark(&self, key: &Key) -> EpochMark {
        let mut table = self.shard(key).lock();
        let known = table.epochs.get(key).and_then(Weak::upgrade);
        EpochMark::now(known.unwrap_or_else(|| table.insert(key)))
    }

    pub(crate) fn end(&self, key: &Key) {
        let table = self.shard(key).lock();
        if let Some(epoch) = table.epochs.get(key).and_then(Weak::upgrade) {
            epoch.end(PurgeMode::Hard);
        }
    }

    /// Ends the epoch of a directory and records it in `ended`.
    pub(crate) fn end_for(&self, key: &Key, ended: &mut EndedEpochs) {
        let table = self.shard(key).lock();
        if let Some(epoch) = table.epochs.get(key).and_then(Weak::upgrade) {
            ended.end(epoch);
        }
    }

    /// Ends the epochs of all matching directories and records them in `ended`.
    pub(crate) fn end_where(&self, is_match: impl Fn(&Key) -> bool, ended: &mut EndedEpochs) {
        for shard in &self.shards {
            let table = shard.lock();
            let matching = table.epochs.iter().filter(|(key, _)| is_match(key));
            let epochs = matching.filter_map(|(_, epoch)| epoch.upgrade());
            epochs.for_each(|epoch| ended.end(epoch));
        }
    }

    /// The keys of a URL that may have stored objects.
    pub(crate) fn keys_of(&self, url: &Key) -> Vec<Key> {
        let table = self.shard(url).lock();
        let epoch = table.epochs.get(url).and_then(Weak::upgrade);
        drop(table);
        epoch.map_or_else(Vec::new, |epoch| epoch.stored_keys())
    }

    fn shard(&self, key: &Key) -> &Mutex<EpochTable> {
        let [low, ..] = self.hasher.hash_one(key).to_le_bytes();
        &self.shards[usize::from(low) % SHARDS]
    }
}

impl EpochTable {
    fn insert(&mut self, key: &Key) -> Arc<Epoch> {
        if self.epochs.len() >= self.sweep_at {
            self.epochs.retain(|_, epoch| epoch.strong_count() > 0);
            self.sweep_at = SWEEP_MIN.max(self.epochs.len() / 4 * 5);
        }
        let epoch = Arc::<Epoch>::default();
        self.epochs.insert(key.clone(), Arc::downgrade(&epoch));
        epoch
    }
}

#[cfg(test)]
mod tests;
