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
    meant: Option<PurgeWalk>,
}

/// The purges that still walk the store. A refresh of a matching object that begins during the walk
/// is not stored. There are as many as operators who purge at the same time.
#[derive(Default)]
pub(crate) struct PurgeWalks(Mutex<Vec<Arc<PurgeMatcher>>>);

/// A purge that walks the store, until this is dropped.
struct PurgeWalk {
    inner: Arc<CacheInner>,
    is_meant: Arc<PurgeMatcher>,
}

impl PurgeWalks {
    pub(crate) fn matches(&self, key: &Key) -> bool {
        self.0.lock().iter().any(|is_meant| is_meant(key))
    }
}

impl PurgeWalk {
    fn begin(inner: &Arc<CacheInner>, is_meant: Arc<PurgeMatcher>) -> PurgeWalk {
        inner.walks.0.lock().push(Arc::clone(&is_meant));
        PurgeWalk {
            inner: Arc::clone(inner),
            is_meant,
        }
    }
}

impl Drop for PurgeWalk {
    fn drop(&mut self) {
        let mut walks = self.inner.walks.0.lock();
        walks.retain(|is_meant| !Arc::ptr_eq(is_meant, &self.is_meant));
    }
}

impl Cache {
    /// Begins a purge.
    pub fn purging(&self) -> CachePurge {
        CachePurge {
            inner: Arc::clone(&self.inner),
            ended: EndedEpochs::default(),
            removed: Vec::new(),
            meant: None,
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

    /// Purges all objects of a place, including what is being fetched.
    pub fn epoch(&mut self, place: &Key) {
        self.inner.epochs.end_for(place, &mut self.ended);
    }

    /// Purges the memos of matching keys and of keys derived from them. Call it outside the threads
    /// that serve viewers.
    pub fn notes(&self, is_meant: impl Fn(&Key) -> bool) {
        self.inner.notes.erase_where(is_meant);
    }

    /// Purges all objects with a matching key, or with a key derived from one. `whole` matches a
    /// place when everything in it matches. Call it once, outside the threads that serve viewers.
    pub fn all(
        &mut self,
        is_meant: impl Fn(&Key) -> bool + Send + Sync + 'static,
        whole: impl Fn(&Key) -> bool,
    ) {
        // First, so that new flights know the purge; the flights in progress are doomed next.
        let walk = PurgeWalk::begin(&self.inner, Arc::new(is_meant));
        self.inner.epochs.end_where(whole, &mut self.ended);
        registry::doom(&self.inner, |flight| flight.is_of(&*walk.is_meant));
        self.notes(&*walk.is_meant);
        self.meant = Some(walk);
    }

    /// Frees the dropped objects. Returns their number; each variant and each slice counts as one.
    /// Slow with a large store, so do not call it on threads that serve viewers.
    pub fn finish(self) -> u64 {
        let CachePurge {
            inner,
            ended,
            removed,
            meant,
        } = self;
        let now = Instant::now();
        let was_held = |object: &Object| {
            let tie = object.head.tie.as_ref();
            tie.is_none_or(|tie| tie.held_before(&ended)) && !object.kept_left(now).is_zero()
        };
        let removed = removed.iter().filter(|object| was_held(object)).count();
        let mut dropped = u64::try_from(removed).unwrap_or(u64::MAX);
        if meant.is_none() && ended.is_empty() {
            return dropped;
        }
        if meant.is_none() {
            // Waits until any store of an object of an ended epoch is complete.
            registry::doom(&inner, |_| false);
        }
        let of_key = |key: &Key| meant.as_ref().is_some_and(|walk| (walk.is_meant)(key));
        let is_meant = |key: &Key, object: Option<&Object>| {
            let tie = object.and_then(|object| object.head.tie.as_ref());
            tie.is_some_and(|tie| tie.ended_with(&ended)) || of_key(key)
        };
        inner.store.remove_where(is_meant, |object| {
            dropped += u64::from(was_held(object));
        });
        // New requests must not join a refresh of an object that was dropped, or evicted before.
        registry::doom(&inner, |flight| flight.is_refresh() && flight.is_of(of_key));
        dropped
    }
}
