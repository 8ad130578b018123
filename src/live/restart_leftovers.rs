//! Detects objects left over from before a restart. Players with the old playlist still request
//! them, and the restarted packager will reuse their names.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{LiveStreams, PlaylistTracker};
use seawall_manifest::Kind;
use seawall_policy::access::CacheRequest;
use seawall_policy::{Key, Now, Rules};

/// A restart is remembered as long as objects may be stored.
const REMEMBERED_FOR: Duration = Duration::from_hours(24);
/// At least this many of the last listed names are remembered, and at most twice as many.
const LISTED_MIN: usize = 2048;

/// The names that a manifest has listed since a restart in one of its directories. Two sets: when
/// `later` is full it replaces `earlier`.
pub(super) struct RestartLeftovers {
    began: Instant,
    /// The manifest itself restarted, not another one in the same directory.
    own: bool,
    later: HashSet<u64, ahash::RandomState>,
    earlier: HashSet<u64, ahash::RandomState>,
}

impl RestartLeftovers {
    pub(super) fn new(own: bool, now: Instant) -> RestartLeftovers {
        RestartLeftovers {
            began: now,
            own,
            later: HashSet::default(),
            earlier: HashSet::default(),
        }
    }

    pub(super) fn is_own(&self) -> bool {
        self.own
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= REMEMBERED_FOR
    }

    /// Records a name that is listed after the restart.
    pub(super) fn lists(&mut self, name_hash: u64) {
        self.later.insert(name_hash);
        if self.later.len() >= LISTED_MIN {
            self.earlier = std::mem::take(&mut self.later);
        }
    }

    pub(super) fn has_listed(&self, name_hash: u64) -> bool {
        self.later.contains(&name_hash) || self.earlier.contains(&name_hash)
    }

    /// No known name has been listed: nothing can be said about what is listed.
    pub(super) fn is_silent(&self) -> bool {
        self.later.is_empty() && self.earlier.is_empty()
    }

    /// Approximate bytes of memory.
    pub(super) fn weight_bytes(&self) -> usize {
        (self.later.capacity() + self.earlier.capacity()) * (size_of::<u64>() + 1)
    }
}

impl PlaylistTracker {
    /// It has restarted and not yet reached its former position: names that it does not list may be
    /// from before the restart.
    pub(super) fn has_unfinished_restart(&self, now: Instant) -> bool {
        let state = self.state.lock();
        let leftovers = state.leftovers.as_ref();
        leftovers.is_some_and(|leftovers| {
            let tells = !leftovers.is_silent() || !state.representations.has_no_templates();
            leftovers.is_own() && !leftovers.is_over(now) && tells
        })
    }

    /// Ends the handling of a restart that is not believed.
    pub(super) fn forget_restart(&self) {
        self.state.lock().leftovers = None;
    }

    /// Records the restart of another manifest in the same directory: from now on this one
    /// remembers what it lists.
    pub(super) fn record_neighbor_restart(&self, now: Instant) {
        let mut state = self.state.lock();
        let begin = || Box::new(RestartLeftovers::new(false, now));
        state.leftovers.get_or_insert_with(begin);
    }

    /// Has it listed this object since the restart?
    pub(super) fn has_listed_since_restart(
        &self,
        rules: &Rules,
        entry: &CacheRequest,
        now: Now,
    ) -> bool {
        let (listed, representations) = {
            let state = self.state.lock();
            let Some(leftovers) = &state.leftovers else {
                return false;
            };
            let listed = leftovers.has_listed(name_hash(&state.hasher, entry));
            (listed, Arc::clone(&state.representations))
        };
        listed || representations.have(rules, &self.entry, entry, now.wall)
    }
}

impl LiveStreams {
    /// May this object be left over from before a restart? The manifests of its directory have
    /// listed other names since the restart, and will reach this one.
    pub(crate) fn is_left_over(&self, entry: &CacheRequest, now: Now) -> bool {
        let apart = entry.kind.is_manifest() || matches!(entry.kind, Kind::Key | Kind::Clock);
        if apart || !self.has_restarts.load(Ordering::Relaxed) {
            return false;
        }
        let directories = self.location_of(entry);
        let in_place = |place: &Option<Key>| self.trackers_in(place.as_slice());
        let (here, around) = (in_place(&directories.here), in_place(&directories.around));
        let is_short = |tracker: &Arc<PlaylistTracker>| tracker.has_unfinished_restart(now.mono);
        let is_around =
            |tracker: &Arc<PlaylistTracker>| around.iter().any(|other| Arc::ptr_eq(tracker, other));
        // A real directory may also be listed by manifests that do not take part in its numbered
        // directory.
        let is_others = |tracker: &Arc<PlaylistTracker>| !is_short(tracker) && !is_around(tracker);
        if !here.is_empty() && here.iter().all(is_others) {
            return false;
        }
        let mut listing = here.iter().chain(&around);
        listing.any(is_short)
            && !(here.iter().chain(&around))
                .any(|tracker| tracker.has_listed_since_restart(&self.rules, entry, now))
    }
}

/// The lifetime of an object that no manifest lists.
pub(crate) const UNLISTED_FOR: Duration = Duration::from_secs(1);

/// A hash of the object's name.
pub(super) fn name_hash(hasher: &ahash::RandomState, entry: &CacheRequest) -> u64 {
    hasher.hash_one(entry.path_key())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_listed_last_are_remembered() {
        let mut leftovers = RestartLeftovers::new(true, Instant::now());
        assert!(leftovers.is_silent());
        for name_hash in 0..3 * LISTED_MIN as u64 {
            leftovers.lists(name_hash);
            assert!(leftovers.has_listed(name_hash));
        }
        let last = 3 * LISTED_MIN as u64 - 1;
        assert!(leftovers.has_listed(last - LISTED_MIN as u64 + 1));
        assert!(!leftovers.has_listed(0) && !leftovers.is_silent());
    }
}
