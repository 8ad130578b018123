//! Indexes the trackers and what their manifests list, by key, and evicts entries when the memory
//! limit is reached.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::directories::DirectoryIndex;
use super::stream::LiveStream;
use super::stream_numbers::{OwnNumber, StreamNumbers};
use super::{ManifestDiff, ManifestTracker};
use seawall_policy::Key;
use seawall_policy::access::CacheRequest;

/// Most manifests tracked at once; others are cached and refreshed like any object.
const TRACKERS_MAX: usize = 20_000;
/// The trackers use at most this fraction (1/n) of the store's memory …
const MEMORY_PART: u64 = 8;
/// … but may always use this many bytes.
const BYTES_MIN: u64 = 1 << 20;
/// Approximate least size of a tracker, in bytes.
const TRACKER_BYTES: usize = 4 << 10;
/// A sweep drops a tracker after this time without a request. Its segments may be stored as long,
/// and a restarted packager may reuse their names.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);
/// The relation of a playlist to its multivariant playlist is swept this long after that was read.
const PARENT_VALID_FOR: Duration = Duration::from_mins(5);
/// Most announced objects per tracker. Objects beyond that are requested as if they existed.
const ANNOUNCED_EACH: usize = 4;
/// An announced object is expected for this long at most.
const ANNOUNCED_FOR_MAX: Duration = Duration::from_secs(20);
/// When the index is full, 1/n of the entries are dropped at once.
const DROPPED_PART: usize = 10;
/// This many manifests with the same path, on any host, are a crowd: a client may have invented
/// their queries.
const CROWD: usize = 256;
/// A manifest counts as requested repeatedly when a request comes this long after the first one.
const REPEATED_AFTER: Duration = Duration::from_millis(500);
/// Most known parent relations per tracker.
const PARENTS_EACH: usize = 4;
/// Most segments per tracker that count as new at once.
const NEW_SEGMENTS_EACH: usize = 16;
/// Fewer entries than this are not swept.
const SWEEP_MIN: usize = 256;

/// The order in which trackers are dropped when room is needed, the least first: crowds, then
/// trackers that were never requested again, then those requested longest ago.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct KeepRank {
    is_outside_crowds: bool,
    was_requested_repeatedly: bool,
    last_request: Instant,
}

impl KeepRank {
    fn of(tracker: &ManifestTracker, is_in_crowd: bool, now: Instant) -> KeepRank {
        let since = tracker.access.since();
        let idle_time = tracker.access.idle_time(now);
        let last_request = idle_time.and_then(|idle_time| now.checked_sub(idle_time));
        let last_request = last_request.unwrap_or(since);
        KeepRank {
            is_outside_crowds: !is_in_crowd,
            was_requested_repeatedly: last_request > since + REPEATED_AFTER,
            last_request,
        }
    }
}

pub(super) struct TrackerIndex {
    bytes_max: usize,
    /// Bytes used by the trackers, as of their last versions.
    bytes: usize,
    /// The number of the last reload's settings. Older ones give no new trackers.
    pub(super) generation: u64,
    pub(super) trackers: HashMap<Key, Arc<ManifestTracker>, ahash::RandomState>,
    /// The stream of a manifest that another manifest lists, and when it was listed.
    pub(super) parents: HashMap<Key, (Arc<LiveStream>, Instant), ahash::RandomState>,
    /// Recently listed segments, by a hash of their keys, and until when they count as new.
    pub(super) new_segments: HashMap<u64, Instant, ahash::RandomState>,
    /// The manifests that list objects in a directory, the most recent last.
    pub(super) directories: DirectoryIndex,
    /// Announced objects that do not exist yet (LL-HLS preload hints), and until when they are
    /// expected.
    pub(super) announced: HashMap<Key, Instant, ahash::RandomState>,
    numbers: Arc<StreamNumbers>,
    sweep_at: usize,
}

impl TrackerIndex {
    /// `memory_bytes`: the size of the store.
    pub(super) fn new(memory_bytes: u64) -> TrackerIndex {
        let bytes_max = (memory_bytes / MEMORY_PART).max(BYTES_MIN);
        TrackerIndex {
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            bytes: 0,
            generation: 0,
            trackers: HashMap::default(),
            parents: HashMap::default(),
            new_segments: HashMap::default(),
            directories: HashMap::default(),
            announced: HashMap::default(),
            numbers: Arc::default(),
            sweep_at: 0,
        }
    }

    fn trackers_max(&self) -> usize {
        TRACKERS_MAX.min(self.bytes_max / TRACKER_BYTES)
    }

    /// Adds a tracker.
    pub(super) fn add(&mut self, tracker: &Arc<ManifestTracker>, now: Instant) {
        self.sweep(now);
        if self.trackers.len() >= self.trackers_max() {
            self.make_room(now);
        }
        let key = tracker.request.key.clone();
        self.trackers.insert(key, Arc::clone(tracker));
        self.update_size(tracker, tracker.weight_bytes(), now);
    }

    /// Updates the size of a tracker.
    pub(super) fn update_size(
        &mut self,
        tracker: &Arc<ManifestTracker>,
        bytes: usize,
        now: Instant,
    ) {
        let known = self.trackers.get(&tracker.request.key);
        if known.is_some_and(|known| Arc::ptr_eq(known, tracker)) {
            let before = tracker.counted_bytes.swap(bytes, Ordering::Relaxed);
            self.bytes = self.bytes - before + bytes;
            if self.bytes > self.bytes_max {
                self.make_room(now);
            }
        }
    }

    /// Assigns listed manifests to a stream.
    pub(super) fn assign_stream(
        &mut self,
        stream: &Arc<LiveStream>,
        manifests: impl Iterator<Item = Key>,
        now: Instant,
    ) {
        let parents_max = PARENTS_EACH * self.trackers_max();
        for key in manifests {
            if self.parents.len() >= parents_max && !self.parents.contains_key(&key) {
                self.forget_parents();
            }
            self.parents.insert(key, (Arc::clone(stream), now));
        }
    }

    /// Drops the relations that were listed longest ago.
    fn forget_parents(&mut self) {
        let mut listed: Vec<Instant> = self.parents.values().map(|(_, at)| *at).collect();
        let dropped = listed.len().div_ceil(DROPPED_PART);
        let (_, last, _) = listed.select_nth_unstable(dropped - 1);
        let last = *last;
        self.parents.retain(|_, (_, at)| *at > last);
    }

    /// Marks segments as new until `until`, by the hashes of their keys.
    pub(super) fn mark_new(&mut self, hashes: impl Iterator<Item = u64>, until: Instant) {
        if self.new_segments.len() < NEW_SEGMENTS_EACH * self.trackers_max() {
            self.new_segments.extend(hashes.map(|hash| (hash, until)));
        }
    }

    /// The trackers of one URL: several where viewers' header fields are part of the key.
    pub(super) fn of_url(
        &self,
        request: &CacheRequest,
    ) -> impl Iterator<Item = &Arc<ManifestTracker>> {
        let (url, path) = (request.url(), request.target.path());
        let trackers = url.is_some().then(|| self.trackers.values());
        let trackers = trackers.into_iter().flatten();
        // Comparing paths first is cheaper than building a key for each tracker under the lock.
        let named = trackers.filter(move |tracker| tracker.request.target.path() == path);
        named.filter(move |tracker| tracker.request.url() == url)
    }

    /// The streams that a manifest belongs to: several where viewers' header fields are part of its
    /// key.
    pub(super) fn streams_with(&self, request: &CacheRequest) -> Vec<&Arc<LiveStream>> {
        let base_key = request.base_key();
        let mut streams = Vec::new();
        if let Some(tracker) = self.trackers.get(base_key) {
            streams.push(&tracker.stream);
        } else if let Some((stream, _)) = self.parents.get(base_key) {
            streams.push(stream);
        }
        streams.extend(self.of_url(request).map(|tracker| &tracker.stream));
        streams
    }

    /// The stream of a manifest, as its parent says; else a new stream.
    pub(super) fn stream_of(&self, request: &CacheRequest) -> Arc<LiveStream> {
        let parent = self.parents.get(request.base_key());
        let known = parent.map(|(stream, _)| Arc::clone(stream));
        known.unwrap_or_else(|| {
            let number = OwnNumber::next(&self.numbers);
            Arc::new(LiveStream::new(request.target.path(), number))
        })
    }

    /// Drops a tenth of the trackers, and more of them until the others use a tenth less memory
    /// than they may. [`KeepRank`] says in which order.
    fn make_room(&mut self, now: Instant) {
        let ranked = self.keys_by_rank(now);
        let dropped_min = ranked.len().div_ceil(DROPPED_PART);
        let bytes_wanted = self.bytes_max - self.bytes_max / DROPPED_PART;
        for (dropped, key) in ranked.iter().enumerate() {
            if dropped >= dropped_min && self.bytes <= bytes_wanted {
                break;
            }
            self.drop_tracker(key);
        }
    }

    /// The keys of all trackers, in the order in which they are dropped.
    fn keys_by_rank(&self, now: Instant) -> Vec<Key> {
        let path_counts = self.count_paths();
        let mut ranked: Vec<(KeepRank, Key)> = Vec::with_capacity(self.trackers.len());
        for (key, tracker) in &self.trackers {
            let count = path_counts.get(tracker.request.target.path());
            let is_in_crowd = count.is_some_and(|count| *count >= CROWD);
            ranked.push((KeepRank::of(tracker, is_in_crowd, now), key.clone()));
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, key)| key).collect()
    }

    /// The number of trackers of each path.
    fn count_paths(&self) -> HashMap<&str, usize, ahash::RandomState> {
        let mut counts: HashMap<&str, usize, ahash::RandomState> = HashMap::default();
        for tracker in self.trackers.values() {
            *counts.entry(tracker.request.target.path()).or_default() += 1;
        }
        counts
    }

    pub(super) fn drop_tracker(&mut self, key: &Key) {
        if let Some(tracker) = self.trackers.remove(key) {
            self.bytes -= tracker.counted_bytes.swap(0, Ordering::Relaxed);
        }
    }

    /// Replaces the announced objects of the previous version by those of this one.
    pub(super) fn record_announced(&mut self, diff: &ManifestDiff) {
        for key in &diff.no_longer_announced {
            self.announced.remove(key);
        }
        let until = diff.current_at + ANNOUNCED_FOR_MAX;
        if self.announced.len() < ANNOUNCED_EACH * self.trackers_max() {
            let keys = diff.announced.iter().map(|part| part.request.key.clone());
            self.announced.extend(keys.map(|key| (key, until)));
        }
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        if self.len() < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        let idle_time = |tracker: &ManifestTracker| {
            let since = now.saturating_duration_since(tracker.access.since());
            tracker.access.idle_time(now).unwrap_or(since)
        };
        let bytes = &mut self.bytes;
        self.trackers.retain(|_, tracker| {
            let is_kept = idle_time(tracker) < FORGOTTEN_AFTER;
            if !is_kept {
                *bytes -= tracker.counted_bytes.swap(0, Ordering::Relaxed);
            }
            is_kept
        });
        self.parents
            .retain(|_, (_, listed)| now.saturating_duration_since(*listed) < PARENT_VALID_FOR);
        let is_known = |tracker: &Weak<ManifestTracker>| tracker.strong_count() > 0;
        self.directories
            .retain(|_, beside| beside.iter().any(is_known));
        self.new_segments.retain(|_, until| now < *until);
        self.announced.retain(|_, until| now < *until);
        self.sweep_at = 2 * self.len();
    }

    fn len(&self) -> usize {
        let timed = self.new_segments.len() + self.announced.len();
        self.trackers.len() + self.parents.len() + self.directories.len() + timed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::LiveStreams;
    use crate::live::fixtures::{one_segment, playlist, publish, request};

    /// 20,000 trackers may exist, in addition to `memory`.
    #[test]
    fn tracker_takes_under_8_kib_for_any_playlist_length() {
        let line = |number| format!("#EXTINF:4,\nsegment-{number}.ts\n");
        for segments in [30, 900] {
            let lines: String = (0..segments).map(line).collect();
            let live = LiveStreams::new(1 << 30);
            let (tracker, ..) = publish(&live, "/live/a.m3u8", &playlist(&lines), Instant::now());
            let bytes = tracker.weight_bytes();
            assert!(bytes < 8 << 10, "{segments}: {bytes}");
        }
    }

    #[test]
    fn invented_queries_do_not_evict_active_trackers() {
        for memory_bytes in [1 << 30, 16 << 20] {
            keeps_what_is_watched(memory_bytes);
        }
    }

    fn keeps_what_is_watched(memory_bytes: u64) {
        let (live, start) = (LiveStreams::new(memory_bytes), Instant::now());
        let info = one_segment(1).info;
        let at = |millis: usize| start + Duration::from_millis(millis as u64);
        let tracker = |uri: String, at| live.tracker_or_new(&request(&uri), 1, &info, at);
        let watched = ["/live/a.m3u8", "/live/b.m3u8?session=1"];
        let trackers = watched.map(|uri| tracker(uri.to_owned(), start).unwrap());
        let invented = TRACKERS_MAX * 3 / 2;
        for number in 0..invented {
            if number % 1000 == 0 {
                let asked = at(1000 + number);
                for tracker in &trackers {
                    tracker.access.record_access(asked);
                }
            }
            let uri = format!("/live/a.m3u8?{number}");
            assert!(tracker(uri, at(1000 + number)).is_some());
        }
        let new = tracker("/live/new.m3u8".to_owned(), at(1000 + invented));
        assert!(new.is_some());
        for (uri, tracker) in watched.into_iter().zip(&trackers) {
            let known = live.tracker(&request(uri));
            assert!(
                known.is_some_and(|known| Arc::ptr_eq(&known, tracker)),
                "{uri}"
            );
        }
        let index = live.index.lock();
        assert!(index.trackers.len() <= index.trackers_max());
        assert!(index.bytes <= index.bytes_max);
        let all = index.trackers.values();
        let all: usize = all.map(|tracker| tracker.weight_bytes()).sum();
        assert_eq!(index.bytes, all);
        assert!(trackers[0].weight_bytes() < TRACKER_BYTES);
    }

    #[test]
    fn least_recently_listed_parent_is_evicted_first() {
        let (mut index, start) = (TrackerIndex::new(BYTES_MIN), Instant::now());
        let stream = Arc::new(LiveStream::new("/live/master.m3u8", OwnNumber::default()));
        let key = |number: u64| Key::of(&[&number.to_be_bytes()]);
        let parents_max = PARENTS_EACH * index.trackers_max();
        for number in 0..3 * parents_max as u64 {
            let now = start + Duration::from_millis(number);
            index.assign_stream(&stream, [key(number)].into_iter(), now);
            index.assign_stream(&stream, [key(0)].into_iter(), now);
            assert!(index.parents.contains_key(&key(number)));
        }
        assert!(
            index.parents.contains_key(&key(0)),
            "it is listed again and again"
        );
        assert!(index.parents.len() <= parents_max);
    }
}
