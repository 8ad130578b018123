//! Indexes, for each directory, a few of the manifests that list objects in it. What one of them
//! says applies to all objects in the directory.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::PlaylistTracker;
use super::manifest_diff::ManifestDiff;
use seawall_policy::Key;

/// Most manifests remembered per directory.
const LISTING_MAX: usize = 16;

/// The manifests that list objects in a directory, the most recent last.
pub(super) type DirectoryIndex = HashMap<Key, Vec<Weak<PlaylistTracker>>, ahash::RandomState>;

/// Registers the directories of a version; `known` are all directories of the manifest.
pub(super) fn register_version(
    directories: &mut DirectoryIndex,
    diff: &ManifestDiff,
    known: &[Key],
    tracker: &Arc<PlaylistTracker>,
) {
    for place in &diff.forgotten {
        remove_listing(directories, place, tracker);
    }
    for place in &diff.directories {
        add_listing(directories, place, tracker, diff.found);
    }
    // Other manifests may have displaced it since.
    for place in known {
        if !is_registered(directories, place, tracker) {
            add_listing(directories, place, tracker, diff.found);
        }
    }
}

fn is_registered(
    directories: &DirectoryIndex,
    place: &Key,
    tracker: &Arc<PlaylistTracker>,
) -> bool {
    let mut listing = directories.get(place).into_iter().flatten();
    listing.any(|other| other.as_ptr() == Arc::as_ptr(tracker))
}

/// Registers a manifest for a directory, as the most recent one.
fn add_listing(
    directories: &mut DirectoryIndex,
    place: &Key,
    tracker: &Arc<PlaylistTracker>,
    now: Instant,
) {
    let listing = directories.entry(place.clone()).or_default();
    let own = Arc::as_ptr(tracker);
    listing.retain(|other| other.strong_count() > 0 && other.as_ptr() != own);
    if listing.len() >= LISTING_MAX {
        listing.remove(index_to_displace(listing, now));
    }
    listing.push(Arc::downgrade(tracker));
}

/// The manifest to displace. Clients can create manifests by inventing queries; these displace
/// neither manifests with a refresher nor those that show a restart. Of the latter, those without a
/// refresher may hold at most half of the slots: the others say what is listed now.
fn index_to_displace(listing: &[Weak<PlaylistTracker>], now: Instant) -> usize {
    let told = |tracker: &Weak<PlaylistTracker>| {
        let known = tracker.upgrade();
        known.map_or((false, false), |tracker| {
            let is_tended = tracker.access.has_refresher();
            (tracker.has_unfinished_restart(now), is_tended)
        })
    };
    let told: Vec<(bool, bool)> = listing.iter().map(told).collect();
    let short = told.iter().filter(|(is_short, _)| *is_short).count();
    let first = |is_it: &dyn Fn(&(bool, bool)) -> bool| told.iter().position(is_it);
    let left = || first(&|one| *one == (true, false)).filter(|_| short > LISTING_MAX / 2);
    let spare = first(&|one| *one == (false, false)).or_else(left);
    let spare = spare.or_else(|| first(&|(is_short, _)| !is_short));
    spare.unwrap_or_default()
}

/// Removes a manifest from a directory.
fn remove_listing(directories: &mut DirectoryIndex, place: &Key, tracker: &Arc<PlaylistTracker>) {
    if let Some(listing) = directories.get_mut(place) {
        let own = Arc::as_ptr(tracker);
        listing.retain(|other| other.as_ptr() != own);
        if listing.is_empty() {
            directories.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::fixtures::{at, one_segment, request, rules, version};
    use crate::live::stream::LiveStream;
    use crate::live::{LiveStreams, Variant, fixtures};

    /// As many other manifests list the directory as are remembered. A displaced one returns with
    /// its next version.
    #[test]
    fn who_was_pushed_out_of_a_place_returns_with_its_next_version() {
        let (live, now) = (LiveStreams::new(rules(), 1 << 30), Instant::now());
        let show = |uri: &str, first: usize| {
            let (tracker, ..) = fixtures::show(&live, uri, &one_segment(first), now);
            tracker
        };
        let is_listed = |tracker: &Arc<PlaylistTracker>| {
            let listing = live.trackers_listing(&request("/live/1.ts"));
            listing.iter().any(|other| Arc::ptr_eq(other, tracker))
        };
        let first = show("/live/a.m3u8", 1);
        assert!(is_listed(&first));
        for number in 0..LISTING_MAX {
            show(&format!("/live/{number}.m3u8"), 1);
        }
        assert!(!is_listed(&first));
        show("/live/a.m3u8", 2);
        assert!(is_listed(&first));
        // The most recent one is still registered.
        assert!(is_listed(&show("/live/15.m3u8", 1)));
    }

    /// Invented queries do not displace them, and they do not displace manifests that list current
    /// objects.
    #[test]
    fn those_that_began_anew_and_those_looked_after_stay_listed_in_a_place() {
        let now = Instant::now();
        let facts = one_segment(1).info;
        let stream = Arc::new(LiveStream::new("/live/a.m3u8"));
        let tracker = |uri: String| {
            let (entry, stream) = (request(&uri), Arc::clone(&stream));
            Arc::new(PlaylistTracker::new(entry, stream, &facts, now))
        };
        let anew = |uri: String| {
            let tracker = tracker(uri);
            for first in [5000, 1] {
                let manifest = one_segment(first);
                let progress = tracker.judge(Variant::default(), &manifest.info, now);
                let version = version(&tracker.entry, &manifest, progress, now);
                tracker.take_version(&rules(), &version, at(now));
            }
            assert!(tracker.has_unfinished_restart(now));
            tracker
        };
        let place = Key::of(&[b"place"]);
        for (began_anew, is_left) in [(1, true), (LISTING_MAX, true), (LISTING_MAX, false)] {
            let mut directories = DirectoryIndex::default();
            let mut known: Vec<_> = (0..began_anew)
                .map(|n| anew(format!("/live/{n}.m3u8")))
                .collect();
            for tracker in &known {
                tracker.access.set_has_refresher(!is_left);
                add_listing(&mut directories, &place, tracker, now);
            }
            let tended = tracker("/live/tended.m3u8".to_owned());
            tended.access.set_has_refresher(true);
            add_listing(&mut directories, &place, &tended, now);
            for number in 0..3 * LISTING_MAX {
                let invented = tracker(format!("/live/a.m3u8?{number}"));
                add_listing(&mut directories, &place, &invented, now);
                known.push(invented);
            }
            let listing = &directories[&place];
            let listed = |tracker: &Arc<PlaylistTracker>| {
                let mut listing = listing.iter();
                listing.any(|other| other.as_ptr() == Arc::as_ptr(tracker))
            };
            assert_eq!(listing.len(), LISTING_MAX);
            assert!(listed(known.last().unwrap()), "the last one is known");
            let stay = known[..began_anew]
                .iter()
                .filter(|tracker| listed(tracker))
                .count();
            let half = if is_left { 2 } else { 1 };
            let expected = began_anew.min(LISTING_MAX / half - 2 + half);
            assert!(stay >= expected, "{stay} of {began_anew}");
            assert!(listed(&tended) || !is_left);
        }
    }
}
