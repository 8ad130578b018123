//! Detects objects left over from before a restart. Players with the old playlist still request
//! them, and the restarted packager will reuse their names. A part of [`ManifestTracker`], whose
//! file lists the parts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::names_since_restart::{NamesSinceRestart, name_hash};
use super::{LiveStreams, ManifestTracker};
use seawall_manifest::Kind;
use seawall_policy::access::CacheRequest;
use seawall_policy::{Key, Now, Rules};

impl ManifestTracker {
    /// It has restarted and not yet passed the end of the timeline before: names that it does not
    /// list may be from before the restart.
    pub(super) fn has_unfinished_restart(&self, now: Instant) -> bool {
        let state = self.state.lock();
        let names = state.listed_since_restart.as_ref();
        names.is_some_and(|names| {
            let has_evidence = !names.is_empty() || !state.representations.has_no_templates();
            names.is_own_restart() && !names.is_over(now) && has_evidence
        })
    }

    /// Ends the handling of a restart that is not believed.
    pub(super) fn forget_restart(&self) {
        self.state.lock().listed_since_restart = None;
    }

    /// Records the restart of another manifest in the same directory: from now on this one
    /// remembers what it lists.
    pub(super) fn record_neighbor_restart(&self, now: Instant) {
        let mut state = self.state.lock();
        let begin = || Box::new(NamesSinceRestart::new(false, now));
        state.listed_since_restart.get_or_insert_with(begin);
    }

    /// Has it listed this object since the restart?
    pub(super) fn has_listed_since_restart(
        &self,
        rules: &Rules,
        request: &CacheRequest,
        now: Now,
    ) -> bool {
        let (listed, representations) = {
            let state = self.state.lock();
            let Some(names) = &state.listed_since_restart else {
                return false;
            };
            let listed = names.contains(name_hash(&state.hasher, request));
            (listed, Arc::clone(&state.representations))
        };
        listed || representations.has_available(rules, &self.request, request, now.wall)
    }
}

impl LiveStreams {
    /// May this object be left over from before a restart? A manifest of its directory has
    /// restarted and not yet come as far as before, and none has listed this name since.
    pub(crate) fn is_left_over(&self, rules: &Rules, request: &CacheRequest, now: Now) -> bool {
        let is_never_left_over = request.kind.is_manifest()
            || matches!(request.kind, Kind::DecryptionKey | Kind::TimeServer);
        if is_never_left_over || !self.has_restarts.load(Ordering::Relaxed) {
            return false;
        }
        let location = self.location_of(request);
        let trackers_of = |directory: &Option<Key>| {
            self.trackers_of_directories_with_unstored(directory.as_slice())
        };
        let beside = trackers_of(&location.directory);
        let around = trackers_of(&location.numbered_directory);
        if belongs_to_others(&beside, &around, now.mono) {
            return false;
        }
        let all = || beside.iter().chain(&around);
        let has_restarted = all().any(|tracker| tracker.has_unfinished_restart(now.mono));
        let is_listed =
            |tracker: &Arc<ManifestTracker>| tracker.has_listed_since_restart(rules, request, now);
        has_restarted && !all().any(is_listed)
    }
}

/// Do only unaffected manifests list from a directory: ones that have not restarted, and that list
/// nothing in the numbered directory that contains it? `beside`: the manifests that list from the
/// directory itself; `around`: those that list from the numbered one.
fn belongs_to_others(
    beside: &[Arc<ManifestTracker>],
    around: &[Arc<ManifestTracker>],
    now: Instant,
) -> bool {
    let is_other = |tracker: &Arc<ManifestTracker>| {
        let takes_part = around.iter().any(|other| Arc::ptr_eq(tracker, other));
        !takes_part && !tracker.has_unfinished_restart(now)
    };
    !beside.is_empty() && beside.iter().all(is_other)
}

/// The lifetime of an object that no manifest lists.
pub(crate) const UNLISTED_FOR: Duration = Duration::from_secs(1);
