//! What is known of live streams, and the decisions that follow from it.
//!
//! [`LiveStreams`] is the only interface. Its input is what happens: a manifest is parsed, a
//! request or the origin's response arrives, time passes. Its output is decisions: which stored
//! objects became invalid, what to prefetch, when to poll next, whether a version is behind,
//! whether an absent object is due. `proxy` carries them out. This module starts no fetch and no
//! task, reads no clock and does not know the cache's content.
//!
//! **State.** A [`ManifestTracker`] per requested live manifest, found by key and by the
//! directories of what it lists (`index`, `directories`); trackers of manifests that are not stored
//! (`unstored`); one `LiveStream` for the manifests that belong together (`stream`); the URLs that
//! manifests name as uncacheable; the limits and counters of prefetches.
//!
//! **The path of a version**, file by file:
//!
//! 1. [`LiveStreams::tracker_or_new`] finds or creates the tracker.
//! 2. [`ManifestTracker::progress_of`] compares the version with the latest one of its variant
//!    (`variants`): the same, newer, behind, or a restart.
//! 3. [`LiveStreams::record_version`] (`version_effects`) records it: `tracker` updates the
//!    cadence and the durations in its `tracker_state`; `manifest_diff` and `listed_window` find
//!    what was added and dropped, `expected_segment` what to prefetch; `names_since_restart`
//!    remembers what is listed since a restart. It returns [`VersionEffects`].
//! 4. [`ManifestTracker::next_poll`] (`poll_schedule`) plans the next poll, plain or
//!    blocking (`blocking_reload`).
//!
//! **The questions about a requested object**: is it new, complete, due (`availability`, with
//! `representations` and `mpd_horizon` for MPDs), longer than what is stored (`growing_files`),
//! left over from before a restart (`restart_leftovers`)?

mod availability;
mod avoided;
mod blocking_reload;
mod clock_prefetch;
mod demand;
mod directories;
mod expected_segment;
#[cfg(test)]
mod fixtures;
mod growing_files;
mod index;
mod listed_window;
mod manifest_diff;
mod mpd_horizon;
mod names_since_restart;
mod numbered_directories;
mod owned_request;
mod poll_schedule;
mod prefetch;
mod reject_reason;
mod representations;
mod restart_leftovers;
mod snapshot;
mod standstill;
mod stream;
mod stream_numbers;
mod tracker;
mod tracker_size;
mod tracker_state;
mod uncacheable_urls;
mod unstored;
mod variants;
mod version_effects;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

pub(crate) use availability::Availability;
pub(crate) use blocking_reload::{PlannedPoll, ReloadStatus, is_too_far};
pub(crate) use clock_prefetch::ClockPrefetch;
pub(crate) use expected_segment::{ExpectedSegment, PrefetchInterest};
use index::TrackerIndex;
pub(crate) use listed_window::WindowChange;
use manifest_diff::ManifestDiff;
pub(crate) use manifest_diff::{AnnouncedPart, ManifestVersion};
pub(crate) use numbered_directories::{Location, unlisted};
pub(crate) use prefetch::{Prefetch, PrefetchedObject};
pub use prefetch::{PrefetchSource, PrefetchStats};
pub use reject_reason::RejectReason;
pub(crate) use restart_leftovers::UNLISTED_FOR;
pub use snapshot::{ManifestState, StreamDetails, StreamsSnapshot, TrackedManifest};
use stream::LiveStream;
pub use stream::{StreamAudience, StreamFailure, StreamStats};
pub(crate) use tracker::ManifestTracker;
pub(crate) use variants::Variant;
pub(crate) use version_effects::VersionEffects;

use seawall_cache::eviction::LivePosition;
use seawall_manifest::{Kind, Manifest, ManifestInfo};
use seawall_policy::access::CacheRequest;
use seawall_policy::{Key, Now, Rules, StreamNumber};

/// All trackers and streams of the process.
pub(crate) struct LiveStreams {
    index: Mutex<TrackerIndex>,
    unstored: Mutex<unstored::UnstoredManifests>,
    pub(crate) prefetch_limits: prefetch::PrefetchLimits,
    uncacheable: uncacheable_urls::UncacheableUrls,
    hasher: ahash::RandomState,
    /// Set once any stream has restarted.
    has_restarts: AtomicBool,
    /// Set once any manifest has listed byte ranges of files.
    has_byte_ranges: AtomicBool,
    /// Set once any manifest has listed segments in numbered directories.
    has_numbered_directories: AtomicBool,
    rejected: [AtomicU64; RejectReason::ALL.len()],
}

/// The manifests of one stream.
pub(crate) struct StreamManifests {
    /// Keys of the manifests that other manifests list.
    pub(crate) manifests: Vec<Key>,
    pub(crate) trackers: Vec<Arc<ManifestTracker>>,
}

impl LiveStreams {
    /// `memory_bytes`: the size of the store. The trackers may use a share of it.
    pub(crate) fn new(memory_bytes: u64) -> LiveStreams {
        LiveStreams {
            index: Mutex::new(TrackerIndex::new(memory_bytes)),
            unstored: Mutex::default(),
            prefetch_limits: prefetch::PrefetchLimits::default(),
            uncacheable: uncacheable_urls::UncacheableUrls::default(),
            hasher: ahash::RandomState::new(),
            has_restarts: AtomicBool::new(false),
            has_byte_ranges: AtomicBool::new(false),
            has_numbered_directories: AtomicBool::new(false),
            rejected: Default::default(),
        }
    }

    /// The tracker of a live manifest; created with its first version. `generation`: of the
    /// settings by which the manifest was requested.
    pub(crate) fn tracker_or_new(
        &self,
        request: &CacheRequest,
        generation: u64,
        info: &ManifestInfo,
        current_at: Instant,
    ) -> Option<Arc<ManifestTracker>> {
        if info.is_multivariant() || info.is_patch() {
            return None;
        }
        let mut index = self.index.lock();
        if let Some(tracker) = index.trackers.get(request.base_key()) {
            return Some(Arc::clone(tracker));
        }
        // After a reload, perhaps nobody can request what was on its way.
        if !info.is_live() || generation < index.generation {
            return None;
        }
        let stream = index.stream_of(request);
        let tracker = Arc::new(ManifestTracker::new(
            request.without_directives(),
            stream,
            info,
            current_at,
        ));
        index.add(&tracker, current_at);
        Some(tracker)
    }

    /// Follows a reload: forgets the manifests that viewers cannot request any more, and gives the
    /// others the settings of their route.
    pub(crate) fn follow(&self, rules: &Rules, generation: u64) {
        let trackers: Vec<_> = {
            let mut index = self.index.lock();
            index.generation = generation;
            index.trackers.values().cloned().collect()
        };
        let gone = trackers.iter().filter(|tracker| !tracker.follow(rules));
        let gone: Vec<_> = gone.collect();
        let mut index = self.index.lock();
        for tracker in gone {
            index.drop_tracker(&tracker.request.key);
        }
    }

    /// The variant that these header values select.
    pub(crate) fn variant(&self, values: Option<&[u8]>) -> Variant {
        Variant(values.map(|values| self.hasher.hash_one(values)))
    }

    /// The tracker of the manifest that this request is for, with or without delivery directives.
    pub(crate) fn tracker(&self, request: &CacheRequest) -> Option<Arc<ManifestTracker>> {
        self.index.lock().trackers.get(request.base_key()).cloned()
    }

    /// Assigns a multivariant manifest and the playlists that it lists to one stream.
    fn join_stream(
        &self,
        rules: &Rules,
        request: &CacheRequest,
        manifest: &Manifest,
        now: Instant,
    ) {
        let children: Vec<Key> = manifest
            .listing
            .renditions
            .iter()
            .filter_map(|name| request.resolve_same_host(rules, name))
            .map(|child| child.key)
            .collect();
        let mut index = self.index.lock();
        index.sweep(now);
        let base_key = request.base_key();
        let stream = index.stream_of(request);
        let all = children.into_iter().chain([base_key.clone()]);
        index.assign_stream(&stream, all, now);
    }

    /// Has a manifest listed this key recently, so that it is at the live edge?
    pub(crate) fn is_new(&self, key: &Key, now: Instant) -> bool {
        let hash = self.hasher.hash_one(key);
        let until = self.index.lock().new_segments.get(&hash).copied();
        until.is_some_and(|until| now < until)
    }

    /// The target duration of the playlists that a multivariant playlist lists, if one has been
    /// read.
    pub(crate) fn target_duration(&self, key: &Key) -> Option<Duration> {
        self.index.lock().parents.get(key)?.0.target_duration()
    }

    /// The kind of the requested object: from a manifest that names it, else from its path.
    pub(crate) fn kind_of(&self, request: &CacheRequest) -> Kind {
        self.uncacheable.kind_of(request).unwrap_or(request.kind)
    }

    /// The trackers of manifests, stored or not, that list something in one of these directories.
    fn trackers_of_directories_with_unstored(
        &self,
        directories: &[Key],
    ) -> Vec<Arc<ManifestTracker>> {
        let index = self.index.lock();
        let stored = directories
            .iter()
            .filter_map(|directory| index.directories.get(directory));
        let mut trackers: Vec<_> = stored.flatten().filter_map(Weak::upgrade).collect();
        drop(index);
        let unstored = self.unstored.lock();
        trackers.extend(
            directories
                .iter()
                .flat_map(|directory| unstored.trackers_of(directory)),
        );
        trackers
    }

    /// The directories of an object, according to the listed manifests.
    pub(crate) fn location_of(&self, request: &CacheRequest) -> Location {
        let directory_only = Location::only(request.directory());
        if !self.has_numbered_directories.load(Ordering::Relaxed) {
            return directory_only;
        }
        let (index, unstored) = (self.index.lock(), self.unstored.lock());
        let is_listed = |directory: &Key| {
            index.directories.contains_key(directory) || unstored.lists_from(directory)
        };
        Location {
            numbered_directory: request.numbered_directories().find(is_listed),
            ..directory_only
        }
    }

    /// Has a preload hint announced this key, and has it not appeared yet?
    pub(crate) fn is_announced(&self, key: &Key, now: Instant) -> bool {
        let until = self.index.lock().announced.get(key).copied();
        until.is_some_and(|until| now < until)
    }

    /// All manifests of the stream that this manifest belongs to.
    pub(crate) fn stream_manifests(&self, request: &CacheRequest) -> Option<StreamManifests> {
        let index = self.index.lock();
        let streams = index.streams_with(request);
        if streams.is_empty() {
            return None;
        }
        let is_one = |stream: &Arc<LiveStream>| streams.iter().any(|one| Arc::ptr_eq(one, stream));
        let mut found = StreamManifests {
            manifests: Vec::new(),
            trackers: Vec::new(),
        };
        for (key, (stream, _)) in &index.parents {
            if is_one(stream) {
                found.manifests.push(key.clone());
            }
        }
        for tracker in index.trackers.values() {
            if is_one(&tracker.stream) {
                found.trackers.push(Arc::clone(tracker));
            }
        }
        Some(found)
    }

    /// Forgets the history of a URL's manifests, one per key: the next version counts as the first.
    pub(crate) fn forget_url(&self, request: &CacheRequest) {
        let index = self.index.lock();
        index.of_url(request).for_each(|tracker| tracker.forget());
    }

    /// The same for all manifests whose key matches.
    pub(crate) fn forget_where(&self, matches: impl Fn(&Key) -> bool) {
        let index = self.index.lock();
        let trackers = index.trackers.iter();
        let matching: Vec<_> = trackers
            .filter(|(key, _)| matches(key))
            .map(|(_, tracker)| Arc::clone(tracker))
            .collect();
        drop(index);
        for tracker in matching {
            tracker.forget();
        }
    }

    /// The trackers of stored manifests that list something in the directory of this object, or in
    /// the numbered directory around it; the most recent last.
    pub(crate) fn trackers_beside(&self, request: &CacheRequest) -> Vec<Arc<ManifestTracker>> {
        let directories = self.location_of(request);
        let mut beside: Vec<Arc<ManifestTracker>> = Vec::new();
        let index = self.index.lock();
        let directories = directories
            .numbered_directory
            .iter()
            .chain(&directories.directory);
        let known = directories.filter_map(|directory| index.directories.get(directory));
        for tracker in known.flatten().filter_map(Weak::upgrade) {
            beside.retain(|other| !Arc::ptr_eq(other, &tracker));
            beside.push(tracker);
        }
        beside
    }

    /// Other manifests that list something in the directories of this one, and are in use
    /// (`is_in_use`).
    fn neighbors_in_use(
        &self,
        tracker: &Arc<ManifestTracker>,
        now: Instant,
    ) -> Vec<Arc<ManifestTracker>> {
        let mut others: Vec<Arc<ManifestTracker>> = Vec::new();
        let directories = tracker.directories();
        let index = self.index.lock();
        let beside = directories
            .iter()
            .filter_map(|directory| index.directories.get(directory));
        for other in beside.flatten().filter_map(Weak::upgrade) {
            let is_known = |known: &Arc<ManifestTracker>| Arc::ptr_eq(known, &other);
            if !is_known(tracker) && !others.iter().any(is_known) {
                others.push(other);
            }
        }
        drop(index);
        others.retain(|other| other.is_in_use(now));
        others
    }

    /// By which requests for an object are counted, if it belongs to a live stream.
    pub(crate) fn stream_number(&self, request: &CacheRequest) -> Option<StreamNumber> {
        self.stream_of(request)?.number()
    }

    /// The stream that an object belongs to.
    fn stream_of(&self, request: &CacheRequest) -> Option<Arc<LiveStream>> {
        {
            let index = self.index.lock();
            if let Some(tracker) = index.trackers.get(request.base_key()) {
                return Some(Arc::clone(&tracker.stream));
            }
            if let Some((stream, _)) = index.parents.get(request.base_key()) {
                return Some(Arc::clone(stream));
            }
        }
        let beside = self.trackers_beside(request).pop()?;
        Some(Arc::clone(&beside.stream))
    }

    /// Counts an origin request for the stream that the object belongs to.
    pub(crate) fn count_origin_request(&self, request: &CacheRequest) {
        let tracker = self.tracker(request);
        if let Some(tracker) = tracker.or_else(|| self.trackers_beside(request).pop()) {
            tracker.stream.count_request();
        }
    }

    /// Records that a fetch failed for the stream that the object belongs to.
    pub(crate) fn record_failure(&self, request: &CacheRequest, why: &str, at: SystemTime) {
        if let Some(stream) = self.stream_of(request) {
            let text = format!("{}: {why}", request.target.path());
            stream.record_failure(StreamFailure { at, text });
        }
    }

    pub(crate) fn count_rejection(&self, why: RejectReason) {
        self.rejected[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The position of an object in a live stream that lists it.
    pub(crate) fn live_position(
        &self,
        rules: &Rules,
        request: &CacheRequest,
        now: Now,
    ) -> Option<LivePosition> {
        let beside = self.trackers_beside(request).into_iter();
        let mut positions = beside.filter_map(|tracker| tracker.position(rules, request, now.wall));
        positions.next()
    }

    /// May the origin block this request until the object exists?
    pub(crate) fn may_be_blocking(&self, request: &CacheRequest, now: Instant) -> bool {
        request.directives().msn.is_some() || self.is_announced(&request.key, now)
    }
}
