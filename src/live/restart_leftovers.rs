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
    pub(super) fn lists(&mut self, spot: u64) {
        self.later.insert(spot);
        if self.later.len() >= LISTED_MIN {
            self.earlier = std::mem::take(&mut self.later);
        }
    }

    pub(super) fn has_listed(&self, spot: u64) -> bool {
        self.later.contains(&spot) || self.earlier.contains(&spot)
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
        let course = self.state.lock();
        let aftermath = course.leftovers.as_ref();
        aftermath.is_some_and(|aftermath| {
            let tells = !aftermath.is_silent() || !course.lanes.has_no_templates();
            aftermath.is_own() && !aftermath.is_over(now) && tells
        })
    }

    /// Ends the handling of a restart that is not believed.
    pub(super) fn forget_restart(&self) {
        self.state.lock().leftovers = None;
    }

    /// Records the restart of another manifest in the same directory: from now on this one
    /// remembers what it lists.
    pub(super) fn record_neighbor_restart(&self, now: Instant) {
        let mut course = self.state.lock();
        let begin = || Box::new(RestartLeftovers::new(false, now));
        course.leftovers.get_or_insert_with(begin);
    }

    /// Has it listed this object since the restart?
    pub(super) fn has_listed_since_restart(
        &self,
        rules: &Rules,
        entry: &CacheRequest,
        now: Now,
    ) -> bool {
        let (listed, lanes) = {
            let course = self.state.lock();
            let Some(aftermath) = &course.leftovers else {
                return false;
            };
            let listed = aftermath.has_listed(spot(&course.hasher, entry));
            (listed, Arc::clone(&course.lanes))
        };
        listed || lanes.have(rules, &self.entry, entry, now.wall)
    }
}

impl LiveStreams {
    /// May this object be left over from before a restart? The manifests of its directory have
    /// listed other names since the restart, and will reach this one.
    pub(crate) fn is_left_over(&self, entry: &CacheRequest, now: Now) -> bool {
        let apart = entry.kind.is_manifest() || matches!(entry.kind, Kind::Key | Kind::Clock);
        if apart || !self.any_anew.load(Ordering::Relaxed) {
            return false;
        }
        let places = self.places_of(entry);
        let in_place = |place: &Option<Key>| self.trackers_in(place.as_slice());
        let (here, around) = (in_place(&places.here), in_place(&places.around));
        let is_short = |watch: &Arc<PlaylistTracker>| watch.has_unfinished_restart(now.mono);
        let is_around =
            |watch: &Arc<PlaylistTracker>| around.iter().any(|other| Arc::ptr_eq(watch, other));
        // A real directory may also be listed by manifests that do not take part in its numbered
        // directory.
        let is_others = |watch: &Arc<PlaylistTracker>| !is_short(watch) && !is_around(watch);
        if !here.is_empty() && here.iter().all(is_others) {
            return false;
        }
        let mut listing = here.iter().chain(&around);
        listing.any(is_short)
            && !(here.iter().chain(&around))
                .any(|watch| watch.has_listed_since_restart(&self.rules, entry, now))
    }
}

/// The lifetime of an object that no manifest lists.
pub(crate) const UNLISTED_FOR: Duration = Duration::from_secs(1);

/// A hash of the object's name.
pub(super) fn spot(hasher: &ahash::RandomState, entry: &CacheRequest) -> u64 {
    hasher.hash_one(entry.path_key())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_listed_last_are_remembered() {
        let mut aftermath = RestartLeftovers::new(true, Instant::now());
        assert!(aftermath.is_silent());
        for spot in 0..3 * LISTED_MIN as u64 {
            aftermath.lists(spot);
            assert!(aftermath.has_listed(spot));
        }
        let last = 3 * LISTED_MIN as u64 - 1;
        assert!(aftermath.has_listed(last - LISTED_MIN as u64 + 1));
        assert!(!aftermath.has_listed(0) && !aftermath.is_silent());
    }
}
