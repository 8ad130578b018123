//! A purge in two steps. The first makes it impossible, in constant time, that anything old is served. The second
//! walks the whole store off the workers, frees what was dropped, and counts it.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::epoch::EndedEpochs;
use super::{Cache, CacheInner, Object, registry};
use crate::manifest::Kind;
use crate::policy::Key;

type PurgeMatcher = dyn Fn(&Key) -> bool + Send + Sync;

/// A purge that has begun.
pub struct CachePurge {
    inner: Arc<CacheInner>,
    ended: EndedEpochs,
    /// Removed already.
    removed: Vec<Arc<Object>>,
    meant: Option<PurgeWalk>,
}

/// What purges that walk through the store have yet to come to: a refresh of it that begins meanwhile is not
/// stored. As many as there are operators who purge at the same moment.
#[derive(Default)]
pub(crate) struct PurgeWalks(Mutex<Vec<Arc<PurgeMatcher>>>);

/// A purge walks through the store, until this is dropped.
struct PurgeWalk {
    inner: Arc<CacheInner>,
    is_meant: Arc<PurgeMatcher>,
}

impl PurgeWalks {
    pub(crate) fn mean(&self, key: &Key) -> bool {
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
    /// A key with all its variants; a fill under way for it will not be stored, nor joined.
    pub fn key(&mut self, key: &Key, kind: Kind) {
        let removed = registry::purge(&self.inner, key, kind, &mut self.ended);
        self.removed.extend(removed);
    }

    /// Everything that belongs to a place, what is being fetched included.
    pub fn epoch(&mut self, place: &Key) {
        self.inner.epochs.end_for(place, &mut self.ended);
    }

    /// The notes on such keys, and on those made of them. To be called off the threads that serve viewers.
    pub fn notes(&self, is_meant: impl Fn(&Key) -> bool) {
        self.inner.notes.erase_where(is_meant);
    }

    /// Everything with such a key, or with one that is made of such a one. `whole`: a place is meant where
    /// everything in it is. To be called once, off the threads that serve viewers.
    pub fn all(
        &mut self,
        is_meant: impl Fn(&Key) -> bool + Send + Sync + 'static,
        whole: impl Fn(&Key) -> bool,
    ) {
        // First: whatever begins is known to be meant, and what has begun is doomed.
        let walk = PurgeWalk::begin(&self.inner, Arc::new(is_meant));
        self.inner.epochs.end_where(whole, &mut self.ended);
        registry::doom(&self.inner, |flight| flight.is_of(&*walk.is_meant));
        self.notes(&*walk.is_meant);
        self.meant = Some(walk);
    }

    /// Frees what was dropped. Gives how many objects that were: each variant and each slice is one. Takes
    /// long where much is held, so it is not for threads that serve viewers.
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
            // Whoever was filing something of an epoch that has ended has filed it.
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
        // Nobody who comes now is given what was confirmed of something that was dropped, or evicted before.
        registry::doom(&inner, |flight| flight.is_refresh() && flight.is_of(of_key));
        dropped
    }
}
