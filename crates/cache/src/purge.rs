//! A purge in two steps. The first makes it impossible, in constant time, to serve an old object.
//! The second walks the whole store outside the worker threads, frees the dropped objects and
//! counts them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::epoch::EndedEpochs;
use super::epoch_bits::EpochBits;
use super::partition::ChargedObject;
use super::purge_mode::PurgeMode;
use super::{Cache, CacheInner, Object, registry};
use seawall_manifest::Kind;
use seawall_policy::Key;
use seawall_policy::lifetime::Rule;

type PurgeMatcher = dyn Fn(&Key) -> bool + Send + Sync;

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
    /// Objects removed or made stale so far; of a dry run, those that would be.
    removed: Vec<ChargedObject>,
    /// The slots of `removed` where the walk would find them once more.
    counted: HashSet<Key>,
    is_match: Option<Arc<PurgeMatcher>>,
    /// What arrived later under a key that matches was requested later, or is stored as stale.
    marked_at: Option<Instant>,
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
            ended: EndedEpochs::new(mode),
            removed: Vec::new(),
            counted: HashSet::new(),
            is_match: None,
            marked_at: None,
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
        let charged = match self.mode {
            PurgeMode::Hard => {
                let removed = registry::purge(&self.inner, key, kind, &mut self.ended);
                self.removed.extend(removed);
                return;
            }
            // Its slices stay: their keys have the `ETag` that the origin must confirm first.
            PurgeMode::Soft => registry::soft_purge(&self.inner, key, kind),
            PurgeMode::DryRun => {
                let slices = super::slice_directory(key);
                self.inner.epochs.end_for(&slices, &mut self.ended);
                self.inner.store.charged_objects(key, kind)
            }
        };
        for (slot, charged) in charged {
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
        if self.mode != PurgeMode::DryRun {
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
        if self.mode == PurgeMode::Hard {
            // First, so that new flights know the purge; the flights in progress are marked next.
            let in_progress = PurgeInProgress::begin(&self.inner, Arc::clone(&is_match));
            self.in_progress = Some(in_progress);
        }
        self.inner.epochs.end_where(whole, &mut self.ended);
        registry::mark_purged(&self.inner, self.mode, |flight| flight.is_of(&*is_match));
        self.marked_at = Some(Instant::now());
        self.memos(&*is_match);
    }

    /// Frees the dropped objects, or makes them stale, and counts those that were usable until the
    /// purge. Slow with a large store, so do not call it on threads that serve viewers.
    pub fn finish(mut self) -> PurgeCount {
        let now = Instant::now();
        let mut count = PurgeCount::default();
        for charged in std::mem::take(&mut self.removed) {
            self.record(&charged, now, &mut count);
        }
        if self.is_match.is_none() && self.ended.is_empty() {
            return count;
        }
        match self.mode {
            PurgeMode::Hard => self.remove_all(now, &mut count),
            PurgeMode::Soft => self.make_all_stale(now, &mut count),
            PurgeMode::DryRun => self.find_all(now, &mut count),
        }
        count
    }

    fn record(&self, charged: &ChargedObject, now: Instant, count: &mut PurgeCount) {
        let object = &charged.object;
        let token = object.head.epoch_token.as_ref();
        let was_valid = token.is_none_or(|token| token.was_valid_before(&self.ended));
        if was_valid && !object.retention_remaining(now).is_zero() {
            count.add(charged.bytes);
        }
    }

    fn is_of_key(&self, key: &Key) -> bool {
        let is_match = self.is_match.as_ref();
        is_match.is_some_and(|is_match| is_match(key))
    }

    fn selects(&self, key: &Key, object: Option<&Object>) -> bool {
        let token = object.and_then(|object| object.head.epoch_token.as_ref());
        token.is_some_and(|token| token.ended_with(&self.ended)) || self.is_of_key(key)
    }

    /// The epochs of one of which each selected object is. `None`: keys select some too.
    fn epochs(&self) -> Option<EpochBits> {
        self.is_match.is_none().then(|| self.ended.bits())
    }

    fn find_all(&self, now: Instant, count: &mut PurgeCount) {
        let is_new = |key: &Key| !self.counted.contains(key);
        self.inner.store.find_where(
            self.epochs(),
            |key, object| self.selects(key, object) && is_new(key),
            |charged| self.record(&charged, now, count),
        );
    }

    fn remove_all(&self, now: Instant, count: &mut PurgeCount) {
        self.wait_for_stores();
        self.inner.store.remove_where(
            self.epochs(),
            |key, object| self.selects(key, object),
            |charged| self.record(&charged, now, count),
        );
        // New requests must not join a refresh of an object that was dropped, or evicted before.
        registry::mark_purged(&self.inner, PurgeMode::Hard, |flight| {
            flight.is_refresh() && flight.is_of(|key| self.is_of_key(key))
        });
    }

    fn make_all_stale(&self, now: Instant, count: &mut PurgeCount) {
        self.wait_for_stores();
        let store = &self.inner.store;
        let was_stored_before = |object: &Object| {
            let received = object.head.lifetime.received;
            self.marked_at.is_some_and(|marked_at| received < marked_at)
        };
        // A lookup has made it stale since the purge began.
        let is_stale = |object: &Object| {
            let token = object.head.epoch_token.as_ref();
            object.head.lifetime.rule == Rule::SoftPurge
                && token.is_some_and(|token| token.was_renewed_after(&self.ended))
        };
        store.soft_purge_where(
            self.epochs(),
            |key, object| {
                let token = object.head.epoch_token.as_ref();
                token.is_some_and(|token| token.ended_with(&self.ended))
                    || is_stale(object)
                    || was_stored_before(object) && self.is_of_key(key)
            },
            |key, charged| {
                // A hard purge came between: it counts it.
                if charged.object.head.has_ended() {
                    return false;
                }
                if !self.counted.contains(key) {
                    self.record(charged, now, count);
                }
                !is_stale(&charged.object)
            },
        );
    }

    /// Waits until any store of an object of an ended epoch is complete.
    fn wait_for_stores(&self) {
        if self.is_match.is_none() {
            registry::mark_purged(&self.inner, self.mode, |_| false);
        }
    }
}
