//! A purge in two steps. The first makes it impossible, in constant time, that anything old is served. The second
//! walks the whole store off the workers, frees what was dropped, and counts it.

use std::sync::Arc;
use std::time::Instant;

use super::epoch::EndedEpochs;
use super::{Cache, Inner, Object, registry};
use crate::media::Kind;
use crate::policy::Key;

type Meant = Box<dyn Fn(&Key) -> bool + Send>;

/// A purge that has begun.
pub struct Purge {
    inner: Arc<Inner>,
    ended: EndedEpochs,
    /// Removed already.
    removed: Vec<Arc<Object>>,
    meant: Option<Meant>,
}

impl Cache {
    /// Begins a purge.
    pub fn purging(&self) -> Purge {
        Purge {
            inner: Arc::clone(&self.inner),
            ended: EndedEpochs::default(),
            removed: Vec::new(),
            meant: None,
        }
    }
}

impl Purge {
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
        is_meant: impl Fn(&Key) -> bool + Send + 'static,
        whole: impl Fn(&Key) -> bool,
    ) {
        self.inner.epochs.end_where(whole, &mut self.ended);
        registry::doom(&self.inner, &is_meant);
        self.notes(&is_meant);
        self.meant = Some(Box::new(is_meant));
    }

    /// Frees what was dropped. Gives how many objects that were: each variant and each slice is one. Takes
    /// long where much is held, so it is not for threads that serve viewers.
    pub fn finish(self) -> u64 {
        let Purge {
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
        let meant = meant.unwrap_or_else(|| Box::new(|_| false));
        let is_meant = |key: &Key, object: Option<&Object>| {
            let tie = object.and_then(|object| object.head.tie.as_ref());
            tie.is_some_and(|tie| tie.ended_with(&ended)) || meant(key)
        };
        registry::remove_where(&inner, is_meant, |object| {
            dropped += u64::from(was_held(object));
        });
        dropped
    }
}
