//! Compares a version of a manifest with the one before it: what is newly listed, and in which
//! directories.

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

/// A listed object counts as new for this many segment durations: players start about there.
const NEW_SEGMENTS: u32 = 3;

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
    /// When its request was sent; if the origin blocked that, when the response arrived. The version
    /// was the newest then.
    pub(crate) current_at: Instant,
    /// The origin may have delayed the response until the version existed: the request was one that
    /// it blocks.
    pub(crate) may_have_blocked: bool,
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
    init: bool,
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
    /// When the version was found.
    pub(super) found: Instant,
    /// Announced objects that do not exist yet.
    pub(super) announced: Vec<AnnouncedPart>,
    /// Objects that the previous version announced and this one does not.
    pub(super) no_longer_announced: Vec<Key>,
    /// Newly known directories of the listed objects, and directories that are forgotten.
    pub(super) directories: Vec<Key>,
    pub(super) forgotten: Vec<Key>,
    /// The directories from before the restart, if this is the first version after one.
    pub(super) restarted_directories: Vec<Key>,
    /// The manifest lists segments in numbered directories.
    pub(super) numbered: bool,
    /// The manifest lists byte ranges of files.
    pub(super) ranged: bool,
    /// The names that it lists are being remembered: an unlisted object in its directories may be
    /// from before the restart.
    pub(super) records_names: bool,
    /// Directories whose epoch has ended: this is the first version after a restart.
    pub(super) ended_directories: Vec<Key>,
    /// Segments added and dropped.
    pub(super) window_change: WindowChange,
}

impl ManifestDiff {
    /// The epochs that the new version ends: those of the directories from before a restart; and
    /// if it says what is listed, those of the unlisted objects in its `directories`.
    pub(super) fn epochs_to_end(&self, directories: &[Key]) -> Vec<Key> {
        let mut ended = self.ended_directories.clone();
        if self.records_names {
            ended.extend(directories.iter().map(unlisted));
        }
        ended
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
    /// Compares a version with the previous one.
    pub(super) fn compare_version(&mut self, comparison: &VersionComparison) -> ManifestDiff {
        let VersionComparison {
            request,
            rules,
            manifest,
            is_first,
            current_at,
            wall,
        } = *comparison;
        let Manifest { info, listing } = manifest;
        let window_change = self
            .window
            .slide((request, rules), manifest, self.segment_duration);
        self.record_file_ends(request, rules, listing);
        self.representations = Arc::new(Representations::of(listing, wall));
        let is_delta = info
            .playlist_edge()
            .is_some_and(|edge| edge.skipped_segments > 0);
        let low_latency = info.part_target().is_some();
        let known = self.directories.clone();
        let mut new = self.list(request, rules, listing, (low_latency, is_delta));
        let is_new = |directory: &&Key| !known.contains(directory);
        let directories = self.directories.iter().filter(is_new).cloned().collect();
        let forgotten = known
            .iter()
            .filter(|directory| !self.directories.contains(directory));
        let forgotten = forgotten.cloned().collect();
        let (announced, no_longer_announced) = self.announce(request, rules, listing);
        // An object that is no longer announced exists: listed, or a part of a segment that is now
        // complete.
        let appeared = no_longer_announced.iter().filter(|(_, whole)| *whole);
        for (request, _) in appeared {
            if new.iter().all(|new| new.request.key != request.key) {
                new.push(NewObject {
                    sequence: u64::MAX,
                    request: request.clone(),
                    init: false,
                });
            }
        }
        let playlist = info.playlist_edge();
        let last_sequence = playlist.map(|edge| edge.last_sequence);
        let before = std::mem::replace(&mut self.last_sequence, last_sequence);
        // A segment whose name is re-signed in each version is not new.
        let is_later = |sequence: u64| before.is_none_or(|before| sequence > before);
        let listed: Vec<Key> = new.iter().map(|new| new.request.key.clone()).collect();
        let to_prefetch = match (is_first, playlist) {
            (true, _) => Vec::new(),
            (_, Some(edge)) => {
                new.retain(|new| is_later(new.sequence));
                let new = at_the_edge(new, edge.last_sequence);
                new.into_iter().map(ExpectedSegment::always).collect()
            }
            (_, None) => {
                let new: HashSet<&Key> = listed.iter().collect();
                let is_new = |key: &Key| new.contains(key);
                ExpectedSegment::new_in_mpd(rules, request, listing, is_new)
            }
        };
        ManifestDiff {
            listed,
            new_until: current_at + self.reload_interval_max * NEW_SEGMENTS,
            to_prefetch,
            found: current_at,
            announced,
            no_longer_announced: no_longer_announced
                .into_iter()
                .map(|(request, _)| request.key)
                .collect(),
            directories,
            forgotten,
            restarted_directories: Vec::new(),
            numbered: !self.numbered.known().is_empty(),
            ranged: !self.file_ends.is_empty(),
            records_names: false,
            ended_directories: Vec::new(),
            window_change,
        }
    }

    /// Resolves and remembers the listed objects and their directories. Returns those with a new
    /// name, with their numbers. In a low-latency playlist only the parts count: a viewer that
    /// wants whole segments is behind, and requests them.
    fn list(
        &mut self,
        request: &CacheRequest,
        rules: &Rules,
        listing: &Listing,
        (low_latency, is_delta): (bool, bool),
    ) -> Vec<NewObject> {
        let segments: &[ListedResource] = if low_latency { &[] } else { &listing.segments };
        let media = segments.iter().chain(&listing.parts);
        let listed = listing.inits.iter().map(|init| (init, true));
        let listed = listed.chain(media.map(|one| (one, false)));
        let before = std::mem::take(&mut self.listed_names);
        let mut now: HashSet<u64, ahash::RandomState> = HashSet::default();
        if is_delta && before.len() < REMEMBERED_MAX {
            // Segments that a delta update skips are still listed.
            now.extend(&before);
        }
        let mut new = Vec::new();
        for (listed, init) in listed {
            let ListedResource { uri, range, .. } = listed;
            let whole = range.is_none();
            let fingerprint = self.hasher.hash_one((uri, whole));
            if !now.insert(fingerprint) || before.binary_search(&fingerprint).is_ok() {
                continue;
            }
            self.register_object(request.resolve_any_host(rules, uri));
            let sibling = request.resolve_same_host(rules, uri).filter(|_| whole);
            new.extend(sibling.map(|request| NewObject {
                sequence: listed.position,
                request,
                init,
            }));
        }
        let mut listed: Box<[u64]> = now.into_iter().collect();
        listed.sort_unstable();
        self.listed_names = listed;
        // Segments that are not prefetched have a directory too; and after a restart, a name to
        // remember.
        let last = listing.segments.last().filter(|_| low_latency);
        let unfetched = match &self.listed_since_restart {
            Some(_) if low_latency => &listing.segments[..],
            _ => last.map_or(&[][..], std::slice::from_ref),
        };
        let announced = listing
            .preload_hints
            .iter()
            .filter(|_| self.listed_since_restart.is_some());
        let besides = unfetched.iter().chain(&listing.files).chain(announced);
        let besides: Vec<&ListedResource> = besides.collect();
        for one in besides {
            self.register_object(request.resolve_any_host(rules, &one.uri));
        }
        let representations = Arc::clone(&self.representations);
        for example in representations.example_names() {
            if let Some(example) = request.resolve_any_host(rules, &example) {
                self.register_directory(&example);
            }
        }
        if self.directories.len() > DIRECTORIES_MAX {
            self.forget_directories(request, rules, listing);
        }
        new
    }

    /// Remembers a listed object and its directory.
    fn register_object(&mut self, listed: Option<CacheRequest>) {
        let Some(listed) = listed else { return };
        if let Some(names) = &mut self.listed_since_restart {
            names.record(name_hash(&self.hasher, &listed));
        }
        self.register_directory(&listed);
    }

    fn register_directory(&mut self, listed: &CacheRequest) {
        let around = self.numbered.list(listed);
        // The numbered directory stands for all further ones.
        let is_known = around
            .as_ref()
            .is_some_and(|directory| self.directories.contains(directory));
        let here = (!is_known).then(|| listed.place());
        for directory in here.into_iter().chain(around) {
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
        let listed = listed.filter_map(|one| request.resolve_any_host(rules, &one.uri));
        let in_use = listed.map(|one| one.place());
        let in_use = self.numbered.known().iter().cloned().chain(in_use);
        let in_use: HashSet<Key> = in_use.take(DIRECTORIES_MAX).collect();
        let mut excess = self.directories.len() - DIRECTORIES_MAX / 2;
        self.directories.retain(|directory| {
            let goes = excess > 0 && !in_use.contains(directory);
            excess -= usize::from(goes);
            !goes
        });
        self.directories.truncate(DIRECTORIES_MAX);
    }

    /// The objects announced now, and those no longer announced.
    fn announce(
        &mut self,
        request: &CacheRequest,
        rules: &Rules,
        listing: &Listing,
    ) -> (Vec<AnnouncedPart>, Vec<(CacheRequest, bool)>) {
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
        let still = |key: &Key| self.announced.iter().any(|(one, _)| one.key == *key);
        no_longer_announced.retain(|(request, _)| !still(&request.key));
        (announced, no_longer_announced)
    }
}

/// The new objects of a playlist, ending with segment `last`, that a player at the live edge will
/// request: first an initialization segment, then the newest segments. Of all that was added to a
/// long playlist while it was not watched, only the end will be requested.
fn at_the_edge(new: Vec<NewObject>, last: u64) -> Vec<CacheRequest> {
    let from = last.saturating_sub(EDGE_SEGMENTS as u64 - 1);
    let (inits, mut media): (Vec<NewObject>, Vec<NewObject>) =
        new.into_iter().partition(|new| new.init);
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
    use crate::live::fixtures::{playlist, request, rules, show};

    /// One directory per version, as with re-signed names, and one for all versions.
    #[test]
    fn above_limit_the_most_recent_directories_are_known() {
        let request = request("/live/a.m3u8");
        let signed = |version: usize| format!("{version:b}").replace('0', "a").replace('1', "b");
        let (live, now) = (LiveStreams::new(rules(), 1 << 30), Instant::now());
        let manifest = |version: usize| {
            playlist(&format!(
                "#EXT-X-MEDIA-SEQUENCE:{version}\n\
                 #EXT-X-MAP:URI=\"init/i.mp4\"\n#EXTINF:4,\n/{}/{version}.mp4\n",
                signed(version)
            ))
        };
        let last = 2 * DIRECTORIES_MAX;
        for version in 0..=last {
            let (tracker, ..) = show(&live, "/live/a.m3u8", &manifest(version), now);
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
