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
pub(super) type ListingWatches = HashMap<Key, Vec<Weak<PlaylistTracker>>, ahash::RandomState>;

/// Registers the directories of a version; `known` are all directories of the manifest.
pub(super) fn register_version(
    places: &mut ListingWatches,
    news: &ManifestDiff,
    known: &[Key],
    watch: &Arc<PlaylistTracker>,
) {
    for place in &news.forgotten {
        lies_no_more(places, place, watch);
    }
    for place in &news.places {
        lies_in(places, place, watch, news.found);
    }
    // Other manifests may have displaced it since.
    for place in known {
        if !is_filed(places, place, watch) {
            lies_in(places, place, watch, news.found);
        }
    }
}

fn is_filed(places: &ListingWatches, place: &Key, watch: &Arc<PlaylistTracker>) -> bool {
    let mut listing = places.get(place).into_iter().flatten();
    listing.any(|other| other.as_ptr() == Arc::as_ptr(watch))
}

/// Registers a manifest for a directory, as the most recent one.
fn lies_in(places: &mut ListingWatches, place: &Key, watch: &Arc<PlaylistTracker>, now: Instant) {
    let listing = places.entry(place.clone()).or_default();
    let own = Arc::as_ptr(watch);
    listing.retain(|other| other.strong_count() > 0 && other.as_ptr() != own);
    if listing.len() >= LISTING_MAX {
        listing.remove(index_to_displace(listing, now));
    }
    listing.push(Arc::downgrade(watch));
}

/// The manifest to displace. Clients can create manifests by inventing queries; these displace
/// neither manifests with a refresher nor those that show a restart. Of the latter, those without a
/// refresher may hold at most half of the slots: the others say what is listed now.
fn index_to_displace(listing: &[Weak<PlaylistTracker>], now: Instant) -> usize {
    let told = |watch: &Weak<PlaylistTracker>| {
        let known = watch.upgrade();
        known.map_or((false, false), |watch| {
            let is_tended = watch.access.has_refresher();
            (watch.has_unfinished_restart(now), is_tended)
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
fn lies_no_more(places: &mut ListingWatches, place: &Key, watch: &Arc<PlaylistTracker>) {
    if let Some(listing) = places.get_mut(place) {
        let own = Arc::as_ptr(watch);
        listing.retain(|other| other.as_ptr() != own);
        if listing.is_empty() {
            places.remove(place);
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
            let (watch, ..) = fixtures::show(&live, uri, &one_segment(first), now);
            watch
        };
        let is_listed = |watch: &Arc<PlaylistTracker>| {
            let listing = live.listing(&request("/live/1.ts"));
            listing.iter().any(|other| Arc::ptr_eq(other, watch))
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
        let watch = |uri: String| {
            let (entry, stream) = (request(&uri), Arc::clone(&stream));
            Arc::new(PlaylistTracker::new(entry, stream, &facts, now))
        };
        let anew = |uri: String| {
            let watch = watch(uri);
            for first in [5000, 1] {
                let manifest = one_segment(first);
                let progress = watch.judge(Variant::default(), &manifest.info, now);
                let version = version(&watch.entry, &manifest, progress, now);
                watch.take_version(&rules(), &version, at(now));
            }
            assert!(watch.has_unfinished_restart(now));
            watch
        };
        let place = Key::of(&[b"place"]);
        for (began_anew, is_left) in [(1, true), (LISTING_MAX, true), (LISTING_MAX, false)] {
            let mut places = ListingWatches::default();
            let mut known: Vec<_> = (0..began_anew)
                .map(|n| anew(format!("/live/{n}.m3u8")))
                .collect();
            for watch in &known {
                watch.access.set_has_refresher(!is_left);
                lies_in(&mut places, &place, watch, now);
            }
            let tended = watch("/live/tended.m3u8".to_owned());
            tended.access.set_has_refresher(true);
            lies_in(&mut places, &place, &tended, now);
            for number in 0..3 * LISTING_MAX {
                let invented = watch(format!("/live/a.m3u8?{number}"));
                lies_in(&mut places, &place, &invented, now);
                known.push(invented);
            }
            let listing = &places[&place];
            let listed = |watch: &Arc<PlaylistTracker>| {
                let mut listing = listing.iter();
                listing.any(|other| other.as_ptr() == Arc::as_ptr(watch))
            };
            assert_eq!(listing.len(), LISTING_MAX);
            assert!(listed(known.last().unwrap()), "the last one is known");
            let stay = known[..began_anew]
                .iter()
                .filter(|watch| listed(watch))
                .count();
            let half = if is_left { 2 } else { 1 };
            let expected = began_anew.min(LISTING_MAX / half - 2 + half);
            assert!(stay >= expected, "{stay} of {began_anew}");
            assert!(listed(&tended) || !is_left);
        }
    }
}
