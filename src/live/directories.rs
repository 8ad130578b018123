//! Indexes, for each directory, a few of the manifests that list objects in it. What one of them
//! says applies to all objects in the directory.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::ManifestTracker;
use super::manifest_diff::ManifestDiff;
use seawall_policy::Key;

/// Most manifests remembered per directory.
const BESIDE_MAX: usize = 16;

/// The manifests that list objects in a directory, the most recent last.
pub(super) type DirectoryIndex = HashMap<Key, Vec<Weak<ManifestTracker>>, ahash::RandomState>;

/// Registers the directories of a version; `known` are all directories of the manifest.
pub(super) fn register_version(
    directories: &mut DirectoryIndex,
    diff: &ManifestDiff,
    known: &[Key],
    tracker: &Arc<ManifestTracker>,
) {
    for directory in &diff.forgotten_directories {
        remove_tracker(directories, directory, tracker);
    }
    for directory in &diff.new_directories {
        add_tracker(directories, directory, tracker, diff.current_at);
    }
    // Other manifests may have displaced it since.
    for directory in known {
        if !is_registered(directories, directory, tracker) {
            add_tracker(directories, directory, tracker, diff.current_at);
        }
    }
}

fn is_registered(
    directories: &DirectoryIndex,
    directory: &Key,
    tracker: &Arc<ManifestTracker>,
) -> bool {
    let mut beside = directories.get(directory).into_iter().flatten();
    beside.any(|other| other.as_ptr() == Arc::as_ptr(tracker))
}

/// Registers a manifest for a directory, as the most recent one.
fn add_tracker(
    directories: &mut DirectoryIndex,
    directory: &Key,
    tracker: &Arc<ManifestTracker>,
    now: Instant,
) {
    let beside = directories.entry(directory.clone()).or_default();
    beside.retain(|other| other.strong_count() > 0 && other.as_ptr() != Arc::as_ptr(tracker));
    if beside.len() >= BESIDE_MAX {
        beside.remove(index_to_displace(beside, now));
    }
    beside.push(Arc::downgrade(tracker));
}

/// The manifest to displace: the first of these that exists.
///
/// 1. One that is not refreshed and has not restarted.
/// 2. One that is not refreshed and has restarted, if more than half of all have restarted. So some
///    manifests that list the current objects remain.
/// 3. One that has not restarted.
///
/// Clients can create manifests by inventing queries. These displace each other before they
/// displace one that is refreshed or has restarted.
fn index_to_displace(beside: &[Weak<ManifestTracker>], now: Instant) -> usize {
    struct Slot {
        has_restarted: bool,
        is_refreshed: bool,
    }
    let slot = |tracker: &Weak<ManifestTracker>| {
        let tracker = tracker.upgrade();
        let tracker = tracker.as_ref();
        Slot {
            has_restarted: tracker.is_some_and(|tracker| tracker.has_unfinished_restart(now)),
            is_refreshed: tracker.is_some_and(|tracker| tracker.access.has_refresher()),
        }
    };
    let slots: Vec<Slot> = beside.iter().map(slot).collect();
    let restarts = slots.iter().filter(|slot| slot.has_restarted).count();
    let first = |is_it: fn(&Slot) -> bool| slots.iter().position(is_it);
    let unused = first(|slot| !slot.has_restarted && !slot.is_refreshed);
    let unrefreshed_restart = || {
        let first = first(|slot| slot.has_restarted && !slot.is_refreshed);
        first.filter(|_| restarts > BESIDE_MAX / 2)
    };
    let refreshed = || first(|slot| !slot.has_restarted);
    let index = unused.or_else(unrefreshed_restart).or_else(refreshed);
    index.unwrap_or_default()
}

/// Removes a manifest from a directory.
fn remove_tracker(
    directories: &mut DirectoryIndex,
    directory: &Key,
    tracker: &Arc<ManifestTracker>,
) {
    if let Some(beside) = directories.get_mut(directory) {
        beside.retain(|other| other.as_ptr() != Arc::as_ptr(tracker));
        if beside.is_empty() {
            directories.remove(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream_numbers::OwnNumber;
    use super::*;
    use crate::live::fixtures::{at, one_segment, request, rules, version};
    use crate::live::stream::LiveStream;
    use crate::live::{LiveStreams, Variant, fixtures};

    /// As many other manifests list the directory as are remembered. A displaced one returns with
    /// its next version.
    #[test]
    fn a_displaced_manifest_returns_with_its_next_version() {
        let (live, now) = (LiveStreams::new(1 << 30), Instant::now());
        let publish = |uri: &str, first: usize| {
            let (tracker, ..) = fixtures::publish(&live, uri, &one_segment(first), now);
            tracker
        };
        let is_listed = |tracker: &Arc<ManifestTracker>| {
            let beside = live.trackers_beside(&request("/live/1.ts"));
            beside.iter().any(|other| Arc::ptr_eq(other, tracker))
        };
        let first = publish("/live/a.m3u8", 1);
        assert!(is_listed(&first));
        for number in 0..BESIDE_MAX {
            publish(&format!("/live/{number}.m3u8"), 1);
        }
        assert!(!is_listed(&first));
        publish("/live/a.m3u8", 2);
        assert!(is_listed(&first));
        // The most recent one is still registered.
        assert!(is_listed(&publish("/live/15.m3u8", 1)));
    }

    /// Invented queries do not displace them, and they do not displace manifests that list current
    /// objects.
    #[test]
    fn restarted_and_refreshed_manifests_stay_registered_for_a_directory() {
        let now = Instant::now();
        let info = one_segment(1).info;
        let stream = Arc::new(LiveStream::new("/live/a.m3u8", OwnNumber::default()));
        let tracker = |uri: String| {
            let (request, stream) = (request(&uri), Arc::clone(&stream));
            Arc::new(ManifestTracker::new(request, stream, &info, now))
        };
        let restarted = |uri: String| {
            let tracker = tracker(uri);
            for first in [5000, 1] {
                let manifest = one_segment(first);
                let progress = tracker.progress_of(Variant::default(), &manifest.info, now);
                let version = version(&tracker.request, &manifest, progress, now);
                tracker.apply_version(&rules(), &version, at(now));
            }
            assert!(tracker.has_unfinished_restart(now));
            tracker
        };
        let directory = Key::of(&[b"directory"]);
        for (with_restart, is_idle) in [(1, true), (BESIDE_MAX, true), (BESIDE_MAX, false)] {
            let mut directories = DirectoryIndex::default();
            let mut known: Vec<_> = (0..with_restart)
                .map(|n| restarted(format!("/live/{n}.m3u8")))
                .collect();
            for tracker in &known {
                tracker.access.set_has_refresher(!is_idle);
                add_tracker(&mut directories, &directory, tracker, now);
            }
            let refreshed = tracker("/live/refreshed.m3u8".to_owned());
            refreshed.access.set_has_refresher(true);
            add_tracker(&mut directories, &directory, &refreshed, now);
            for number in 0..3 * BESIDE_MAX {
                let invented = tracker(format!("/live/a.m3u8?{number}"));
                add_tracker(&mut directories, &directory, &invented, now);
                known.push(invented);
            }
            let beside = &directories[&directory];
            let listed = |tracker: &Arc<ManifestTracker>| {
                let mut beside = beside.iter();
                beside.any(|other| other.as_ptr() == Arc::as_ptr(tracker))
            };
            assert_eq!(beside.len(), BESIDE_MAX);
            assert!(listed(known.last().unwrap()), "the last one is known");
            let stay = known[..with_restart]
                .iter()
                .filter(|tracker| listed(tracker))
                .count();
            let half = if is_idle { 2 } else { 1 };
            let expected = with_restart.min(BESIDE_MAX / half - 2 + half);
            assert!(stay >= expected, "{stay} of {with_restart}");
            assert!(listed(&refreshed) || !is_idle);
        }
    }
}
