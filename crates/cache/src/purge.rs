//! A purge in two steps. The first makes it impossible, in constant time, to serve an old object.
//! The second walks the whole store outside the worker threads, frees the dropped objects and
//! counts them.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::epoch::EndedEpochs;
use super::{Cache, CacheInner, Object, registry};
use seawall_manifest::Kind;
use seawall_policy::Key;

type PurgeMatcher = dyn Fn(&Key) -> bool + Send + Sync;

/// A purge in progress.
pub struct CachePurge {
    inner: Arc<CacheInner>,
    ended: EndedEpochs,
    /// Objects removed so far.
    removed: Vec<Arc<Object>>,
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
    pub fn purging(&self) -> CachePurge {
        CachePurge {
            inner: Arc::clone(&self.inner),
            ended: EndedEpochs::default(),
            removed: Vec::new(),
            in_progress: None,
        }
    }
}

impl CachePurge {
    /// Purges a key with all its variants. A fill in progress for it is not stored, and no request
    /// joins it.
    pub fn key(&mut self, key: &Key, kind: Kind) {
        let removed = registry::purge(&self.inner, key, kind, &mut self.ended);
        self.removed.extend(removed);
    }

    /// Purges all objects of a directory, including what is being fetched.
    pub fn epoch(&mut self, directory: &Key) {
        self.inner.epochs.end_for(directory, &mut self.ended);
    }

    /// Purges the memos of matching keys and of keys derived from them. Call it outside the threads
    /// that serve viewers.
    pub fn memos(&self, is_match: impl Fn(&Key) -> bool) {
        self.inner.memos.erase_where(is_match);
    }

    /// Purges all objects with a matching key, or with a key derived from one. `whole` matches a
    /// directory when everything in it matches. Call it once, outside the threads that serve
    /// viewers.
    pub fn all(
        &mut self,
        is_match: impl Fn(&Key) -> bool + Send + Sync + 'static,
        whole: impl Fn(&Key) -> bool,
    ) {
        // First, so that new flights know the purge; the flights in progress are marked next.
        let purge = PurgeInProgress::begin(&self.inner, Arc::new(is_match));
        self.inner.epochs.end_where(whole, &mut self.ended);
        registry::mark_purged(&self.inner, |flight| flight.is_of(&*purge.is_match));
        self.memos(&*purge.is_match);
        self.in_progress = Some(purge);
    }

    /// Frees the dropped objects. Returns their number; each variant and each slice counts as one.
    /// Slow with a large store, so do not call it on threads that serve viewers.
    pub fn finish(self) -> u64 {
        let CachePurge {
            inner,
            ended,
            removed,
            in_progress,
        } = self;
        let now = Instant::now();
        let was_valid = |object: &Object| {
            let token = object.head.epoch_token.as_ref();
            token.is_none_or(|token| token.was_valid_before(&ended))
                && !object.retention_remaining(now).is_zero()
        };
        let removed = removed.iter().filter(|object| was_valid(object)).count();
        let mut dropped = u64::try_from(removed).unwrap_or(u64::MAX);
        if in_progress.is_none() && ended.is_empty() {
            return dropped;
        }
        if in_progress.is_none() {
            // Waits until any store of an object of an ended epoch is complete.
            registry::mark_purged(&inner, |_| false);
        }
        let of_key = |key: &Key| {
            in_progress
                .as_ref()
                .is_some_and(|purge| (purge.is_match)(key))
        };
        let is_match = |key: &Key, object: Option<&Object>| {
            let token = object.and_then(|object| object.head.epoch_token.as_ref());
            token.is_some_and(|token| token.ended_with(&ended)) || of_key(key)
        };
        inner.store.remove_where(is_match, |object| {
            dropped += u64::from(was_valid(object));
        });
        // New requests must not join a refresh of an object that was dropped, or evicted before.
        registry::mark_purged(&inner, |flight| flight.is_refresh() && flight.is_of(of_key));
        dropped
    }
}
