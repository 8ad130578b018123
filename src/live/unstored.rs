//! Tracks manifests that must not be stored because each viewer gets a different text. Such a text
//! affects other viewers only in two ways: it reports a restart, and the length of a growing file.
//! Both only invalidate stored objects, so the worst effect is an extra fetch.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::directories::{self, DirectoryIndex};
use super::manifest_diff::ManifestDiff;
use super::stream::LiveStream;
use super::stream_numbers::OwnNumber;
use super::variants::Variant;
use super::{LiveStreams, ManifestTracker, ManifestVersion};
use seawall_manifest::{Manifest, ManifestInfo};
use seawall_policy::access::CacheRequest;
use seawall_policy::progress::Progress;
use seawall_policy::{Key, Now, Rules};

/// Most of these manifests tracked at once. Tracked ones stay while they are requested: a restart
/// in one of them counts for all sessions, while the first text of a new session reports none.
const UNSTORED_MAX: usize = 2048;
/// A manifest is idle after this many segment durations without a request …
const IDLE_SEGMENTS: u32 = 5;
/// … and after this time at the latest.
const IDLE_AFTER_MAX: Duration = Duration::from_mins(1);
/// When the table is full, it is swept at most this often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Where viewers get segment numbers of their own under one URL, the texts of two viewers in turn
/// look like restarts. So restarts of one manifest are believed this many times …
const RESTARTS_MAX: u32 = 3;
/// … within this time.
const RESTARTS_WITHIN: Duration = Duration::from_mins(10);

/// All manifests that are tracked and not stored.
#[derive(Default)]
pub(super) struct UnstoredManifests {
    trackers: HashMap<Key, UnstoredManifest, ahash::RandomState>,
    /// The manifests that list objects in a directory, the most recent last.
    directories: DirectoryIndex,
    swept: Option<Instant>,
    /// Paths whose group of sessions got no more room in this sweep. Kept, because counting the
    /// sessions of all paths for each request is slow.
    full_groups: HashSet<Key, ahash::RandomState>,
}

struct UnstoredManifest {
    tracker: Arc<ManifestTracker>,
    /// The same for all sessions that differ only in the query.
    path_key: Key,
    last_request: Instant,
    /// Number of restarts, and since when they are counted.
    restarts: (u32, Instant),
}

impl UnstoredManifests {
    /// The tracker of a manifest; created with its first version. `None`: the table is full.
    fn tracker_or_new(
        &mut self,
        request: &CacheRequest,
        info: &ManifestInfo,
        now: Instant,
    ) -> Option<Arc<ManifestTracker>> {
        if let Some(known) = self.trackers.get_mut(request.base_key()) {
            known.last_request = now;
            return Some(Arc::clone(&known.tracker));
        }
        let request = request.without_directives();
        let path_key = request.path_key();
        if self.trackers.len() >= UNSTORED_MAX && !self.make_room(&path_key, now) {
            return None;
        }
        let key = request.key.clone();
        // The same playlist for another session reports the same restart.
        let mut others = self.trackers.values();
        let same = others.find(|known| known.path_key == path_key);
        let stream = same.map(|known| Arc::clone(&known.tracker.stream));
        let stream = stream.unwrap_or_else(|| {
            Arc::new(LiveStream::new(request.target.path(), OwnNumber::default()))
        });
        let tracker = Arc::new(ManifestTracker::new(request, stream, info, now));
        let known = UnstoredManifest {
            tracker: Arc::clone(&tracker),
            path_key,
            last_request: now,
            restarts: (0, now),
        };
        self.trackers.insert(key, known);
        Some(tracker)
    }

    /// Drops idle manifests. If there are none, it drops the half of the largest group (the
    /// sessions of one path) that was requested longest ago, if the new manifest's group is smaller
    /// than that half.
    fn make_room(&mut self, new: &Key, now: Instant) -> bool {
        let swept = self.swept;
        if swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY) {
            self.swept = Some(now);
            self.full_groups.clear();
            self.trackers.retain(|_, known| !known.is_idle(now));
        }
        if self.trackers.len() >= UNSTORED_MAX && !self.full_groups.contains(new) {
            self.halve_largest_group(new);
        }
        let has_room = self.trackers.len() < UNSTORED_MAX;
        if has_room {
            let is_known = |tracker: &Weak<ManifestTracker>| tracker.strong_count() > 0;
            self.directories
                .retain(|_, beside| beside.iter().any(is_known));
        }
        has_room
    }

    /// Drops half of the largest group, if the new manifest's group is smaller than that half;
    /// otherwise remembers the path as full.
    fn halve_largest_group(&mut self, new: &Key) {
        let mut sizes: HashMap<&Key, usize, ahash::RandomState> = HashMap::default();
        for known in self.trackers.values() {
            *sizes.entry(&known.path_key).or_default() += 1;
        }
        let new_size = sizes.get(new).copied().unwrap_or_default();
        let Some((largest, size)) = sizes.into_iter().max_by_key(|(_, size)| *size) else {
            return;
        };
        let half = size / 2;
        if new_size < half {
            let largest = largest.clone();
            self.drop_longest_idle(&largest, half);
        } else if self.full_groups.len() < UNSTORED_MAX {
            self.full_groups.insert(new.clone());
        }
    }

    /// Drops those manifests of a group that were requested longest ago.
    fn drop_longest_idle(&mut self, path_key: &Key, count: usize) {
        let group = self.trackers.iter();
        let group = group.filter(|(_, known)| known.path_key == *path_key);
        let mut group: Vec<_> = group
            .map(|(key, known)| (known.last_request, key.clone()))
            .collect();
        group.select_nth_unstable_by_key(count, |(last_request, _)| *last_request);
        for (_, key) in &group[..count] {
            self.trackers.remove(key);
        }
    }

    /// Is a restart of this manifest believed?
    fn admit_restart(&mut self, request: &CacheRequest, now: Instant) -> bool {
        let Some(known) = self.trackers.get_mut(request.base_key()) else {
            return false;
        };
        let (times, since) = &mut known.restarts;
        if now.saturating_duration_since(*since) >= RESTARTS_WITHIN {
            (*times, *since) = (0, now);
        }
        *times += 1;
        *times <= RESTARTS_MAX
    }

    pub(super) fn lists_from(&self, directory: &Key) -> bool {
        self.directories.contains_key(directory)
    }

    /// The manifests that list objects in this directory.
    pub(super) fn trackers_of(
        &self,
        directory: &Key,
    ) -> impl Iterator<Item = Arc<ManifestTracker>> {
        let beside = self.directories.get(directory).into_iter().flatten();
        beside.filter_map(Weak::upgrade)
    }
}

impl UnstoredManifest {
    fn is_idle(&self, now: Instant) -> bool {
        let segment_duration = self.tracker.segment_duration();
        let idle_after = segment_duration
            .saturating_mul(IDLE_SEGMENTS)
            .min(IDLE_AFTER_MAX);
        now.saturating_duration_since(self.last_request) > idle_after
    }
}

impl LiveStreams {
    /// The manifests that list objects in the directory of this one, including those that must not
    /// be stored.
    pub(super) fn trackers_beside_with_unstored(
        &self,
        request: &CacheRequest,
    ) -> Vec<Arc<ManifestTracker>> {
        let mut beside = self.trackers_beside(request);
        let has_unstored = !self.unstored.lock().trackers.is_empty();
        if has_unstored {
            let directories = self.location_of(request);
            let unstored = self.unstored.lock();
            let directories = directories
                .numbered_directory
                .iter()
                .chain(&directories.directory);
            beside.extend(directories.flat_map(|directory| unstored.trackers_of(directory)));
        }
        beside
    }

    /// Records a version of a manifest that is forwarded and not stored. Returns what the caller
    /// has to invalidate.
    pub(crate) fn record_unstored(
        &self,
        rules: &Rules,
        (request, variant): (&CacheRequest, Variant),
        manifest: &Manifest,
        current_at: Instant,
        now: Now,
    ) -> UnstoredEffects {
        self.apply_unstored(rules, (request, variant), manifest, current_at, now)
            .unwrap_or_default()
    }

    /// `None`: the manifest is not tracked, or the version changes nothing for other viewers.
    fn apply_unstored(
        &self,
        rules: &Rules,
        (request, variant): (&CacheRequest, Variant),
        manifest: &Manifest,
        current_at: Instant,
        now: Now,
    ) -> Option<UnstoredEffects> {
        let info = &manifest.info;
        // An ended manifest never restarts.
        if info.is_multivariant() || info.is_patch() || !info.is_live() {
            return None;
        }
        let tracker = self
            .unstored
            .lock()
            .tracker_or_new(request, info, current_at)?;
        let publishing = tracker.lock_publishing();
        let progress = self.progress_to_apply(&tracker, (request, variant, info), current_at)?;
        let version = ManifestVersion {
            request,
            manifest,
            variant,
            progress,
            current_at,
            may_be_from_blocking_request: false,
        };
        let diff = tracker.apply_version(rules, &version, now);
        drop(publishing);
        let directories = tracker.directories();
        self.register_unstored(&diff, &directories, &tracker);
        Some(UnstoredEffects {
            epochs_to_end: diff.epochs_to_end(&directories),
            is_restart: progress == Progress::Restarted,
        })
    }

    /// Registers what a version lists, and tells the other manifests of its `directories`.
    fn register_unstored(
        &self,
        diff: &ManifestDiff,
        directories: &[Key],
        tracker: &Arc<ManifestTracker>,
    ) {
        let mut unstored = self.unstored.lock();
        directories::register_version(&mut unstored.directories, diff, directories, tracker);
        drop(unstored);
        if diff.has_numbered_directories {
            self.has_numbered_directories.store(true, Ordering::Relaxed);
        }
        self.notify_others(diff, tracker);
    }

    /// Compares a version that is not stored with the latest one. `None`: it is not newer, or
    /// reports a restart that is not believed. The caller holds the tracker's `lock_publishing`.
    fn progress_to_apply(
        &self,
        tracker: &ManifestTracker,
        (request, variant, info): (&CacheRequest, Variant, &ManifestInfo),
        current_at: Instant,
    ) -> Option<Progress> {
        let progress = tracker.progress_of(variant, info, current_at);
        match progress {
            Progress::Behind => None,
            Progress::Same => {
                tracker.record_unchanged(variant, current_at);
                None
            }
            Progress::Restarted if !self.unstored.lock().admit_restart(request, current_at) => {
                tracker.forget_restart();
                None
            }
            Progress::Newer | Progress::Restarted => Some(progress),
        }
    }
}

/// What a version that is not stored changes: stored objects become invalid.
#[derive(Default)]
pub(crate) struct UnstoredEffects {
    /// Epochs to end, as in `VersionEffects`.
    pub(crate) epochs_to_end: Vec<Key>,
    pub(crate) is_restart: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::fixtures::{one_segment, request, seconds};

    const GROUP: usize = UNSTORED_MAX * 3 / 2;

    struct Viewers {
        unstored: UnstoredManifests,
        info: ManifestInfo,
    }

    impl Viewers {
        fn new() -> Viewers {
            Viewers {
                unstored: UnstoredManifests::default(),
                info: one_segment(1).info,
            }
        }

        /// Each session requests once. Returns the number of known and of new sessions.
        fn ask(
            &mut self,
            path: &str,
            sessions: std::ops::Range<usize>,
            now: Instant,
        ) -> (usize, usize) {
            let (mut known, mut new) = (0, 0);
            for session in sessions {
                let request = request(&format!("{path}?session={session}"));
                let is_known = self.unstored.trackers.contains_key(request.base_key());
                match self.unstored.tracker_or_new(&request, &self.info, now) {
                    Some(_) if is_known => known += 1,
                    Some(_) => new += 1,
                    None => {}
                }
                assert!(self.unstored.trackers.len() <= UNSTORED_MAX);
            }
            (known, new)
        }
    }

    #[test]
    fn known_sessions_stay_known_above_the_limit() {
        let (mut viewers, start) = (Viewers::new(), Instant::now());
        viewers.ask("/live/a.m3u8", 0..GROUP, start);
        for round in 1..20 {
            let asked = viewers.ask("/live/a.m3u8", 0..GROUP, start + seconds(4 * round));
            assert_eq!(asked, (UNSTORED_MAX, 0), "{round}");
        }
    }

    #[test]
    fn idle_sessions_are_replaced_after_20_seconds() {
        let (mut viewers, start) = (Viewers::new(), Instant::now());
        viewers.ask("/live/a.m3u8", 0..GROUP, start);
        let others = GROUP..2 * GROUP;
        let asked = viewers.ask("/live/a.m3u8", others.clone(), start + seconds(19));
        assert_eq!(asked, (0, 0));
        let asked = viewers.ask("/live/a.m3u8", others, start + seconds(21));
        assert_eq!(asked, (0, UNSTORED_MAX));
    }

    #[test]
    fn large_stream_leaves_room_for_sessions_of_other_streams() {
        let (mut viewers, start) = (Viewers::new(), Instant::now());
        viewers.ask("/live/a.m3u8", 0..GROUP, start);
        for path in ["/live/b.m3u8", "/live/c.m3u8"] {
            assert_eq!(viewers.ask(path, 0..10, start).1, 10, "{path}");
        }
        for round in 1..5 {
            let now = start + seconds(4 * round);
            let (known, _) = viewers.ask("/live/a.m3u8", 0..GROUP, now);
            assert!(known >= UNSTORED_MAX / 4, "{round}: {known}");
            for path in ["/live/b.m3u8", "/live/c.m3u8"] {
                assert_eq!(viewers.ask(path, 0..10, now), (10, 0), "{path}");
            }
        }
    }

    #[test]
    fn known_streams_stay_known_above_the_limit() {
        let (mut viewers, start) = (Viewers::new(), Instant::now());
        for round in 0..3 {
            let mut all = (0, 0);
            for stream in 0..GROUP {
                let path = format!("/live/{stream}.m3u8");
                let now = start + seconds(4 * round);
                let (known, new) = viewers.ask(&path, 0..1, now);
                all = (all.0 + known, all.1 + new);
            }
            let expected = if round == 0 {
                (0, UNSTORED_MAX)
            } else {
                (UNSTORED_MAX, 0)
            };
            assert_eq!(all, expected, "{round}");
        }
    }
}
