//! Compares a version of a manifest with the one before it: what is newly listed, what to prefetch
//! of it, and in which directories. A part of [`TrackerState`]; `tracker` lists the parts.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::expected_segment::{EDGE_SEGMENTS, ExpectedSegment};
use super::listed_window::WindowChange;
use super::names_since_restart::name_hash;
use super::numbered_directories::unlisted;
use super::representations::Representations;
use super::tracker_state::TrackerState;
use super::variants::Variant;
use seawall_manifest::{ListedResource, Listing, Manifest};
use seawall_policy::access::CacheRequest;
use seawall_policy::progress::Progress;
use seawall_policy::{Key, Rules};

/// A listed object counts as new for this many reload intervals: players start about there.
const NEW_INTERVALS: u32 = 3;

/// Most names remembered of a manifest that sends delta updates.
const REMEMBERED_MAX: usize = 1024;

/// Most directories remembered per manifest: those found last.
const DIRECTORIES_MAX: usize = 256;

/// A version that is published from now on.
pub(crate) struct ManifestVersion<'a> {
    pub(crate) request: &'a CacheRequest,
    pub(crate) manifest: &'a Manifest,
    pub(crate) variant: Variant,
    pub(crate) progress: Progress,
    /// When its request was sent; when its response arrived, if the origin blocked the request. The
    /// version was the newest then.
    pub(crate) current_at: Instant,
    /// The origin may have blocked the request until the version existed.
    pub(crate) may_be_from_blocking_request: bool,
}

/// An object that may be requested before it exists (`EXT-X-PRELOAD-HINT`).
pub(crate) struct AnnouncedPart {
    pub(crate) request: CacheRequest,
    /// The whole object, not a byte range of a growing one.
    pub(crate) whole: bool,
    /// The previous version did not announce it.
    pub(crate) new: bool,
}

/// A listed object with a new name.
struct NewObject {
    sequence: u64,
    request: CacheRequest,
    /// An initialization segment; its number is that of the first segment that uses it.
    is_init: bool,
}

/// An object that a preload hint announces; true: the whole object, not a byte range of it.
type Announced = (CacheRequest, bool);

/// The directories that a manifest listed before a restart.
#[derive(Default)]
pub(super) struct RestartedDirectories {
    pub(super) all: Vec<Key>,
    /// Those whose epoch no other manifest of the stream has ended yet.
    pub(super) epochs_to_end: Vec<Key>,
}

/// What a version changed.
pub(super) struct ManifestDiff {
    /// Newly listed objects, without byte ranges.
    pub(super) listed: Vec<Key>,
    /// Until when `listed` counts as new.
    pub(super) new_until: Instant,
    /// Newly listed objects to prefetch if viewers want them, the newest first; empty for the first
    /// version.
    pub(super) to_prefetch: Vec<ExpectedSegment>,
    /// When the version was the newest.
    pub(super) current_at: Instant,
    /// Announced objects that do not exist yet.
    pub(super) announced: Vec<AnnouncedPart>,
    /// Objects that the previous version announced and this one does not.
    pub(super) no_longer_announced: Vec<Key>,
    /// Directories in which this version is the first to list something.
    pub(super) new_directories: Vec<Key>,
    /// Directories that are forgotten, since there are too many.
    pub(super) forgotten_directories: Vec<Key>,
    /// If this is the first version after a restart.
    pub(super) restart: RestartedDirectories,
    /// The manifest lists segments in numbered directories.
    pub(super) has_numbered_directories: bool,
    /// The manifest lists byte ranges of files.
    pub(super) has_byte_ranges: bool,
    /// The names that it lists are being remembered: an unlisted object in its directories may be
    /// from before the restart.
    pub(super) records_names: bool,
    /// Segments added and dropped.
    pub(super) window_change: WindowChange,
}

impl ManifestDiff {
    /// The epochs that the new version ends: those of the directories from before a restart; and,
    /// while listed names are remembered, those of the unlisted objects in its `directories`.
    pub(super) fn epochs_to_end(&self, directories: &[Key]) -> Vec<Key> {
        let mut epochs = self.restart.epochs_to_end.clone();
        if self.records_names {
            epochs.extend(directories.iter().map(unlisted));
        }
        epochs
    }
}

/// A version that is compared with the previous one.
pub(super) struct VersionComparison<'a> {
    /// The request for the manifest.
    pub(super) request: &'a CacheRequest,
    pub(super) rules: &'a Rules,
    pub(super) manifest: &'a Manifest,
    /// There is no previous version.
    pub(super) is_first: bool,
    pub(super) current_at: Instant,
    pub(super) wall: SystemTime,
}

impl TrackerState {
    /// Compares a version with the previous one, and remembers what it lists and announces.
    pub(super) fn compare_version(&mut self, comparison: &VersionComparison) -> ManifestDiff {
        let VersionComparison {
            request,
            rules,
            manifest,
            current_at,
            ..
        } = *comparison;
        let listing = &manifest.listing;
        let window_change = self
            .window
            .update((request, rules), manifest, self.segment_duration);
        self.record_file_ends(request, rules, listing);
        self.representations = Arc::new(Representations::of(listing, comparison.wall));
        let directories_before = self.directories.clone();
        let mut new = self.record_listed(request, rules, manifest);
        self.record_unprefetched(request, rules, manifest);
        if self.directories.len() > DIRECTORIES_MAX {
            self.forget_directories(request, rules, listing);
        }
        let (announced, no_longer_announced) = self.record_announced(request, rules, listing);
        add_appeared(&mut new, &no_longer_announced);
        let listed: Vec<Key> = new.iter().map(|new| new.request.key.clone()).collect();
        ManifestDiff {
            to_prefetch: self.select_prefetches(comparison, new, &listed),
            listed,
            new_until: current_at + self.reload_interval_max * NEW_INTERVALS,
            current_at,
            announced,
            no_longer_announced: no_longer_announced
                .into_iter()
                .map(|(request, _)| request.key)
                .collect(),
            new_directories: difference(&self.directories, &directories_before),
            forgotten_directories: difference(&directories_before, &self.directories),
            restart: RestartedDirectories::default(),
            has_numbered_directories: !self.numbered.known().is_empty(),
            has_byte_ranges: !self.file_ends.is_empty(),
            records_names: false,
            window_change,
        }
    }

    /// Selects the new objects to prefetch, and records the number of the last listed segment. In a
    /// playlist, only an object with a higher number than before is selected: a new name may be an
    /// old segment's that was signed again.
    fn select_prefetches(
        &mut self,
        comparison: &VersionComparison,
        mut new: Vec<NewObject>,
        listed: &[Key],
    ) -> Vec<ExpectedSegment> {
        let Manifest { info, listing } = comparison.manifest;
        let last_sequence = info.playlist_edge().map(|edge| edge.last_sequence);
        let before = std::mem::replace(&mut self.last_sequence, last_sequence);
        if comparison.is_first {
            return Vec::new();
        }
        let Some(last_sequence) = last_sequence else {
            let new: HashSet<&Key> = listed.iter().collect();
            let is_new = |key: &Key| new.contains(key);
            return ExpectedSegment::new_in_mpd(
                comparison.rules,
                comparison.request,
                listing,
                is_new,
            );
        };
        new.retain(|new| before.is_none_or(|before| new.sequence > before));
        let newest = newest_at_edge(new, last_sequence);
        newest.into_iter().map(ExpectedSegment::always).collect()
    }

    /// Remembers the names of the objects that may be prefetched, and their directories. Returns
    /// the objects with a new name.
    fn record_listed(
        &mut self,
        request: &CacheRequest,
        rules: &Rules,
        manifest: &Manifest,
    ) -> Vec<NewObject> {
        let before = std::mem::take(&mut self.listed_names);
        let mut names = still_listed(&before, manifest);
        let mut new = Vec::new();
        for (listed, is_init) in prefetchable(manifest) {
            let is_whole = listed.range.is_none();
            let name = self.hasher.hash_one((&listed.uri, is_whole));
            let is_known = !names.insert(name) || before.binary_search(&name).is_ok();
            if is_known {
                continue;
            }
            self.register_object(request.resolve_any_host(rules, &listed.uri));
            if !is_whole {
                continue;
            }
            if let Some(object) = request.resolve_same_host(rules, &listed.uri) {
                new.push(NewObject {
                    sequence: listed.position,
                    request: object,
                    is_init,
                });
            }
        }
        self.listed_names = sorted(names);
        new
    }

    /// Remembers the directories of objects that are never prefetched, and after a restart their
    /// names too: the whole segments of a low-latency playlist, files of which ranges are listed,
    /// announced objects, and segments whose names are computed.
    fn record_unprefetched(&mut self, request: &CacheRequest, rules: &Rules, manifest: &Manifest) {
        let listing = &manifest.listing;
        let is_after_restart = self.listed_since_restart.is_some();
        let segments = match listing.segments.as_slice() {
            _ if !is_low_latency(manifest) => &[],
            segments if is_after_restart => segments,
            // The directory of the last one is enough.
            segments => &segments[segments.len().saturating_sub(1)..],
        };
        let hints = listing.preload_hints.iter().filter(|_| is_after_restart);
        for listed in segments.iter().chain(&listing.files).chain(hints) {
            self.register_object(request.resolve_any_host(rules, &listed.uri));
        }
        let representations = Arc::clone(&self.representations);
        for name in representations.example_names() {
            if let Some(example) = request.resolve_any_host(rules, &name) {
                self.register_directory(&example);
            }
        }
    }

    /// Remembers a listed object and its directory.
    fn register_object(&mut self, listed: Option<CacheRequest>) {
        let Some(listed) = listed else { return };
        if let Some(names) = &mut self.listed_since_restart {
            names.record(name_hash(&self.hasher, &listed));
        }
        self.register_directory(&listed);
    }

    /// Remembers the directory of a listed object, and the numbered directory around it. If that is
    /// known, it stands for all directories in it.
    fn register_directory(&mut self, listed: &CacheRequest) {
        let numbered = self.numbered.list(listed);
        let is_in_known = numbered
            .as_ref()
            .is_some_and(|numbered| self.directories.contains(numbered));
        if is_in_known {
            return;
        }
        for directory in [Some(listed.directory()), numbered].into_iter().flatten() {
            if !self.directories.contains(&directory) {
                self.directories.push(directory);
            }
        }
    }

    /// Each version may list a new directory. Forgets those found longest ago, except those in
    /// which this version lists something.
    fn forget_directories(&mut self, request: &CacheRequest, rules: &Rules, listing: &Listing) {
        let Listing {
            inits,
            segments,
            parts,
            files,
            ..
        } = listing;
        let listed = inits.iter().chain(segments).chain(parts).chain(files);
        let listed = listed.filter_map(|listed| request.resolve_any_host(rules, &listed.uri));
        let in_use = listed.map(|listed| listed.directory());
        let in_use = self.numbered.known().iter().cloned().chain(in_use);
        let in_use: HashSet<Key> = in_use.take(DIRECTORIES_MAX).collect();
        let mut excess = self.directories.len() - DIRECTORIES_MAX / 2;
        self.directories.retain(|directory| {
            let is_forgotten = excess > 0 && !in_use.contains(directory);
            excess -= usize::from(is_forgotten);
            !is_forgotten
        });
        self.directories.truncate(DIRECTORIES_MAX);
    }

    /// Remembers what the version announces. Returns these objects, and those that are no longer
    /// announced.
    fn record_announced(
        &mut self,
        request: &CacheRequest,
        rules: &Rules,
        listing: &Listing,
    ) -> (Vec<AnnouncedPart>, Vec<Announced>) {
        let mut no_longer_announced = std::mem::take(&mut self.announced);
        let mut announced = Vec::new();
        for ListedResource { uri, range, .. } in &listing.preload_hints {
            let Some(request) = request.resolve_same_host(rules, uri) else {
                continue;
            };
            let whole = range.is_none();
            self.announced.push((request.clone(), whole));
            announced.push(AnnouncedPart {
                new: no_longer_announced
                    .iter()
                    .all(|(before, _)| before.key != request.key),
                whole,
                request,
            });
        }
        let still = |key: &Key| {
            self.announced
                .iter()
                .any(|(request, _)| request.key == *key)
        };
        no_longer_announced.retain(|(request, _)| !still(&request.key));
        (announced, no_longer_announced)
    }
}

/// The listed objects that may be prefetched; true: an initialization segment. Of a low-latency
/// playlist only the parts: a viewer that wants whole segments is far behind, and requests them.
fn prefetchable(manifest: &Manifest) -> impl Iterator<Item = (&ListedResource, bool)> {
    let listing = &manifest.listing;
    let segments: &[ListedResource] = if is_low_latency(manifest) {
        &[]
    } else {
        &listing.segments
    };
    let media = segments.iter().chain(&listing.parts);
    let inits = listing.inits.iter().map(|init| (init, true));
    inits.chain(media.map(|listed| (listed, false)))
}

fn is_low_latency(manifest: &Manifest) -> bool {
    manifest.info.part_target().is_some()
}

/// The names of the version before that a delta update does not repeat, although they are still
/// listed; none for a whole manifest.
fn still_listed(before: &[u64], manifest: &Manifest) -> HashSet<u64, ahash::RandomState> {
    if is_delta_update(manifest) && before.len() < REMEMBERED_MAX {
        before.iter().copied().collect()
    } else {
        HashSet::default()
    }
}

fn sorted(names: HashSet<u64, ahash::RandomState>) -> Box<[u64]> {
    let mut names: Box<[u64]> = names.into_iter().collect();
    names.sort_unstable();
    names
}

fn is_delta_update(manifest: &Manifest) -> bool {
    let edge = manifest.info.playlist_edge();
    edge.is_some_and(|edge| edge.skipped_segments > 0)
}

/// The items of `these` that are not in `those`.
fn difference(these: &[Key], those: &[Key]) -> Vec<Key> {
    let only_here = these.iter().filter(|key| !those.contains(key));
    only_here.cloned().collect()
}

/// Adds the objects that are no longer announced: they exist now, as listed parts, or as parts of a
/// segment that is complete.
fn add_appeared(new: &mut Vec<NewObject>, no_longer_announced: &[Announced]) {
    for (request, _) in no_longer_announced.iter().filter(|(_, whole)| *whole) {
        if new.iter().all(|new| new.request.key != request.key) {
            new.push(NewObject {
                sequence: u64::MAX,
                request: request.clone(),
                is_init: false,
            });
        }
    }
}

/// The new objects of a playlist, ending with segment `last`, that a player at the live edge will
/// request: first an initialization segment, then the newest segments. Of all that was added to a
/// long playlist while it was not watched, only the end will be requested.
fn newest_at_edge(new: Vec<NewObject>, last: u64) -> Vec<CacheRequest> {
    let from = last.saturating_sub(EDGE_SEGMENTS as u64 - 1);
    let (inits, mut media): (Vec<NewObject>, Vec<NewObject>) =
        new.into_iter().partition(|new| new.is_init);
    let init = inits.into_iter().max_by_key(|init| init.sequence);
    media.retain(|new| new.sequence >= from);
    // The last part of a segment is the newest.
    media.reverse();
    media.sort_by_key(|new| Reverse(new.sequence));
    init.into_iter()
        .chain(media)
        .map(|new| new.request)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::LiveStreams;
    use crate::live::fixtures::{playlist, publish, request, rules};

    /// One directory per version, as with re-signed names, and one for all versions.
    #[test]
    fn above_limit_the_most_recent_directories_are_known() {
        let request = request("/live/a.m3u8");
        let signed = |version: usize| format!("{version:b}").replace('0', "a").replace('1', "b");
        let (live, now) = (LiveStreams::new(1 << 30), Instant::now());
        let manifest = |version: usize| {
            playlist(&format!(
                "#EXT-X-MEDIA-SEQUENCE:{version}\n\
                 #EXT-X-MAP:URI=\"init/i.mp4\"\n#EXTINF:4,\n/{}/{version}.mp4\n",
                signed(version)
            ))
        };
        let last = 2 * DIRECTORIES_MAX;
        for version in 0..=last {
            let (tracker, ..) = publish(&live, "/live/a.m3u8", &manifest(version), now);
            assert!(tracker.directories().len() <= DIRECTORIES_MAX);
        }
        let listing = |name: &str| {
            let listed = request.resolve_same_host(&rules(), name).unwrap();
            live.trackers_beside(&listed).len()
        };
        assert_eq!(listing(&format!("/{}/x.mp4", signed(last))), 1);
        assert_eq!(listing(&format!("/{}/x.mp4", signed(last - 100))), 1);
        assert_eq!(listing("init/x.mp4"), 1, "it is listed all the time");
        assert_eq!(listing("/b/x.mp4"), 0);
    }
}
