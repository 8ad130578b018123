//! A purge in two steps. The first makes it impossible, in constant time, to serve an old object.
//! The second walks the whole store outside the worker threads, frees the dropped objects and
//! counts them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::epoch::EndedEpochs;
use super::partition::ChargedObject;
use super::{Cache, CacheInner, Object, registry};
use seawall_manifest::Kind;
use seawall_policy::Key;

type PurgeMatcher = dyn Fn(&Key) -> bool + Send + Sync;

/// What a purge does with the objects that it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeMode {
    /// Drops them.
    Hard,
    /// Counts them and changes nothing.
    DryRun,
}

impl PurgeMode {
    /// All modes.
    pub const ALL: [PurgeMode; 2] = [PurgeMode::Hard, PurgeMode::DryRun];

    /// Its name in metrics and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            PurgeMode::Hard => "hard",
            PurgeMode::DryRun => "dry_run",
        }
    }
}

/// What a purge has dropped, or would drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeCount {
    /// Number of objects; each variant and each slice counts as one.
    pub objects: u64,
    /// Bytes that these objects took in the store, overhead included.
    pub bytes: u64,
}

impl PurgeCount {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// A purge in progress.
pub struct CachePurge {
    inner: Arc<CacheInner>,
    mode: PurgeMode,
    ended: EndedEpochs,
    /// Objects removed so far; of a dry run, those that would be.
    removed: Vec<ChargedObject>,
    /// The slots of `removed` in a dry run, which the walk would find once more.
    counted: HashSet<Key>,
    is_match: Option<Arc<PurgeMatcher>>,
    in_progress: Option<PurgeInProgress>,
}

/// The purges that still walk the store. A refresh of a matching object that begins during the walk
/// is not stored. There are as many as operators who purge at the same time.
#[derive(Default)]
pub(crate) struct PurgesInProgress(Mutex<Vec<Arc<PurgeMatcher>>>);

/// A purge that walks the store, until this is dropped.
struct PurgeInProgress {
    inner: Arc<CacheInner>,
    is_match: Arc<PurgeMatcher>,
}

impl PurgesInProgress {
    pub(crate) fn matches(&self, key: &Key) -> bool {
        self.0.lock().iter().any(|is_match| is_match(key))
    }
}

impl PurgeInProgress {
    fn begin(inner: &Arc<CacheInner>, is_match: Arc<PurgeMatcher>) -> PurgeInProgress {
        inner
            .purges_in_progress
            .0
            .lock()
            .push(Arc::clone(&is_match));
        PurgeInProgress {
            inner: Arc::clone(inner),
            is_match,
        }
    }
}

impl Drop for PurgeInProgress {
    fn drop(&mut self) {
        let mut purges_in_progress = self.inner.purges_in_progress.0.lock();
        purges_in_progress.retain(|is_match| !Arc::ptr_eq(is_match, &self.is_match));
    }
}

impl Cache {
    /// Begins a purge.
    pub fn purging(&self, mode: PurgeMode) -> CachePurge {
        CachePurge {
            inner: Arc::clone(&self.inner),
            mode,
            ended: match mode {
                PurgeMode::Hard => EndedEpochs::default(),
                PurgeMode::DryRun => EndedEpochs::dry_run(),
            },
            removed: Vec::new(),
            counted: HashSet::new(),
            is_match: None,
            in_progress: None,
        }
    }
}

impl CachePurge {
    /// What it does with the objects.
    pub fn mode(&self) -> PurgeMode {
        self.mode
    }

    /// Purges a key with all its variants. A fill in progress for it is not stored, and no request
    /// joins it.
    pub fn key(&mut self, key: &Key, kind: Kind) {
        if self.mode == PurgeMode::Hard {
            let removed = registry::purge(&self.inner, key, kind, &mut self.ended);
            self.removed.extend(removed);
            return;
        }
        let slices = super::slice_directory(key);
        self.inner.epochs.end_for(&slices, &mut self.ended);
        for (slot, charged) in self.inner.store.charged_objects(key, kind) {
            if self.counted.insert(slot) {
                self.removed.push(charged);
            }
        }
    }

    /// Purges all objects of a directory, including what is being fetched.
    pub fn epoch(&mut self, directory: &Key) {
        self.inner.epochs.end_for(directory, &mut self.ended);
    }

    /// Purges all objects with a tag, and what is being fetched and turns out to have it.
    pub fn tag(&mut self, key: &Key) {
        let clock = &self.inner.registry.counts.tag_clock;
        self.inner.tags.end(key, clock, &mut self.ended);
    }

    /// Purges the memos of matching keys and of keys derived from them. Call it outside the threads
    /// that serve viewers.
    pub fn memos(&self, is_match: impl Fn(&Key) -> bool) {
        if self.mode == PurgeMode::Hard {
            self.inner.memos.erase_where(is_match);
        }
    }

    /// Purges all objects with a matching key, or with a key derived from one. `whole` matches a
    /// directory when everything in it matches. Call it once, outside the threads that serve
    /// viewers.
    pub fn all(
        &mut self,
        is_match: impl Fn(&Key) -> bool + Send + Sync + 'static,
        whole: impl Fn(&Key) -> bool,
    ) {
        let is_match: Arc<PurgeMatcher> = Arc::new(is_match);
        self.is_match = Some(Arc::clone(&is_match));
        if self.mode == PurgeMode::DryRun {
            return;
        }
        // First, so that new flights know the purge; the flights in progress are marked next.
        self.in_progress = Some(PurgeInProgress::begin(&self.inner, Arc::clone(&is_match)));
        self.inner.epochs.end_where(whole, &mut self.ended);
        registry::mark_purged(&self.inner, |flight| flight.is_of(&*is_match));
        self.memos(&*is_match);
    }

    /// Frees the dropped objects and counts those that were usable until the purge. Slow with a
    /// large store, so do not call it on threads that serve viewers.
    pub fn finish(self) -> PurgeCount {
        let now = Instant::now();
        let was_valid = |object: &Object| {
            let token = object.head.epoch_token.as_ref();
            token.is_none_or(|token| token.was_valid_before(&self.ended))
                && !object.retention_remaining(now).is_zero()
        };
        let mut count = PurgeCount::default();
        let mut record = |charged: ChargedObject| {
            if was_valid(&charged.object) {
                count.add(charged.bytes);
            }
        };
        self.removed.into_iter().for_each(&mut record);
        let of_key = |key: &Key| {
            let is_match = self.is_match.as_ref();
            is_match.is_some_and(|is_match| is_match(key))
        };
        let is_match = |key: &Key, object: Option<&Object>| {
            let token = object.and_then(|object| object.head.epoch_token.as_ref());
            token.is_some_and(|token| token.ended_with(&self.ended)) || of_key(key)
        };
        if self.is_match.is_none() && self.ended.is_empty() {
            return count;
        }
        let store = &self.inner.store;
        if self.mode == PurgeMode::DryRun {
            let is_new = |key: &Key| !self.counted.contains(key);
            store.find_where(|key, object| is_match(key, object) && is_new(key), record);
            return count;
        }
        if self.is_match.is_none() {
            // Waits until any store of an object of an ended epoch is complete.
            registry::mark_purged(&self.inner, |_| false);
        }
        store.remove_where(is_match, record);
        // New requests must not join a refresh of an object that was dropped, or evicted before.
        registry::mark_purged(&self.inner, |flight| {
            flight.is_refresh() && flight.is_of(of_key)
        });
        drop(self.in_progress);
        count
    }
}
