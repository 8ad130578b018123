//! Tracks the live manifests that viewers request and the streams that they belong to. A tracker
//! keeps what is known of a manifest beyond the stored version, whichever URL or origin it came
//! from.

mod availability;
mod avoided;
mod blocking;
mod clock_prefetch;
mod demand;
#[cfg(test)]
mod fixtures;
mod growth;
mod horizon;
mod lists;
mod manifest_diff;
mod numbered;
mod places;
mod prefetch;
mod reject_reason;
mod representations;
mod restart_leftovers;
mod standstill;
mod stream;
mod tracker;
mod uncacheable_urls;
mod unstored;
mod variants;
mod version_effects;
mod watch_size;
mod window;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub(crate) use availability::Availability;
pub(crate) use blocking::PlannedPoll;
pub(crate) use clock_prefetch::ClockPrefetch;
use lists::ListedKeys;
pub(crate) use manifest_diff::AnnouncedPart;
use manifest_diff::ManifestDiff;
pub(crate) use numbered::{Location, unlisted};
pub(crate) use prefetch::{Prefetch, PrefetchedObject};
pub use prefetch::{PrefetchSource, PrefetchStats};
pub use reject_reason::RejectReason;
pub(crate) use representations::{ExpectedSegment, PrefetchInterest};
pub(crate) use restart_leftovers::UNLISTED_FOR;
use stream::LiveStream;
pub use stream::StreamStats;
pub(crate) use tracker::PlaylistTracker;
pub use tracker::TrackedManifest;
pub(crate) use variants::Variant;
pub(crate) use version_effects::ManifestVersion;
pub(crate) use window::WindowChange;

use seawall_cache::eviction::LivePosition;
use seawall_manifest::{Kind, Manifest, ManifestInfo};
use seawall_policy::access::CacheRequest;
use seawall_policy::{Key, Now, Rules};

/// All trackers and streams of the process.
pub(crate) struct LiveStreams {
    /// Needed to resolve the URLs that manifests list.
    rules: Rules,
    lists: Mutex<ListedKeys>,
    unstored: Mutex<unstored::UnstoredManifests>,
    pub(crate) prefetch_limits: prefetch::PrefetchLimits,
    uncacheable: uncacheable_urls::UncacheableUrls,
    hasher: ahash::RandomState,
    /// Set once any stream has restarted.
    any_anew: AtomicBool,
    /// Set once any manifest has listed byte ranges of files.
    any_ranged: AtomicBool,
    /// Set once any manifest has listed segments in numbered directories.
    any_numbered: AtomicBool,
    unfit: [AtomicU64; RejectReason::ALL.len()],
}

/// The manifests of one stream.
pub(crate) struct StreamId {
    /// Keys of the manifests that other manifests list.
    pub(crate) manifests: Vec<Key>,
    pub(crate) watches: Vec<Arc<PlaylistTracker>>,
}

/// Counters of all streams, for metrics.
#[derive(Clone, Debug)]
pub struct StreamsSnapshot {
    /// One item per stream.
    pub streams: Vec<StreamStats>,
    /// Approximate bytes of memory that the trackers use.
    pub bytes: u64,
    /// Manifests that have a running refresher, and those of them that have stalled.
    pub watched: u64,
    /// See `watched`.
    pub stalled: u64,
    /// Manifests that were rejected, by reason.
    pub unfit: [(RejectReason, u64); RejectReason::ALL.len()],
    /// Prefetched objects, those that a viewer requested later, and those skipped for lack of
    /// capacity.
    pub ahead: PrefetchStats,
}

impl LiveStreams {
    /// `memory_bytes`: the size of the store. The trackers may use a share of it.
    pub(crate) fn new(rules: Rules, memory_bytes: u64) -> LiveStreams {
        LiveStreams {
            rules,
            lists: Mutex::new(ListedKeys::new(memory_bytes)),
            unstored: Mutex::default(),
            prefetch_limits: prefetch::PrefetchLimits::default(),
            uncacheable: uncacheable_urls::UncacheableUrls::default(),
            hasher: ahash::RandomState::new(),
            any_anew: AtomicBool::new(false),
            any_ranged: AtomicBool::new(false),
            any_numbered: AtomicBool::new(false),
            unfit: Default::default(),
        }
    }

    /// The tracker of a live manifest; created with its first version.
    pub(crate) fn watch(
        &self,
        entry: &CacheRequest,
        facts: &ManifestInfo,
        sent: Instant,
    ) -> Option<Arc<PlaylistTracker>> {
        if facts.is_multivariant() || facts.is_patch() {
            return None;
        }
        let mut lists = self.lists.lock();
        if let Some(watch) = lists.watches.get(entry.identity()) {
            return Some(Arc::clone(watch));
        }
        if !facts.is_live() {
            return None;
        }
        let stream = lists.stream_of(entry);
        let watch = Arc::new(PlaylistTracker::new(entry.plain(), stream, facts, sent));
        lists.begin(&watch, sent);
        Some(watch)
    }

    /// The variant that these header values select.
    pub(crate) fn variant(&self, values: Option<&[u8]>) -> Variant {
        Variant(values.map(|values| self.hasher.hash_one(values)))
    }

    /// The tracker of the manifest that this request is for, with or without delivery directives.
    pub(crate) fn watched(&self, entry: &CacheRequest) -> Option<Arc<PlaylistTracker>> {
        self.lists.lock().watches.get(entry.identity()).cloned()
    }

    /// Assigns a multivariant manifest and the playlists that it lists to one stream.
    fn join_stream(&self, entry: &CacheRequest, manifest: &Manifest, now: Instant) {
        let children: Vec<Key> = manifest
            .listing
            .renditions
            .iter()
            .filter_map(|name| entry.resolve_same_host(&self.rules, name))
            .map(|child| child.key)
            .collect();
        let mut lists = self.lists.lock();
        lists.sweep(now);
        let identity = entry.identity();
        let stream = lists.stream_of(entry);
        let all = children.into_iter().chain([identity.clone()]);
        lists.assign_stream(&stream, all, now);
    }

    /// Has a manifest listed this key recently, so that it is at the live edge?
    pub(crate) fn is_new(&self, key: &Key, now: Instant) -> bool {
        let hash = self.hasher.hash_one(key);
        let until = self.lists.lock().new.get(&hash).copied();
        until.is_some_and(|until| now < until)
    }

    /// The target duration of the playlists that a multivariant playlist lists, if one has been
    /// read.
    pub(crate) fn target_duration(&self, key: &Key) -> Option<Duration> {
        self.lists.lock().parents.get(key)?.0.target_duration()
    }

    /// The kind of the requested object: from a manifest that names it, else from its path.
    pub(crate) fn kind_of(&self, entry: &CacheRequest) -> Kind {
        self.uncacheable.kind_of(entry).unwrap_or(entry.kind)
    }

    /// The trackers of manifests, stored or not, that list something in one of these directories.
    fn trackers_in(&self, places: &[Key]) -> Vec<Arc<PlaylistTracker>> {
        let lists = self.lists.lock();
        let stored = places.iter().filter_map(|place| lists.places.get(place));
        let mut watches: Vec<_> = stored.flatten().filter_map(Weak::upgrade).collect();
        drop(lists);
        let unstored = self.unstored.lock();
        watches.extend(places.iter().flat_map(|place| unstored.listing(place)));
        watches
    }

    /// The directories of an object, according to the listed manifests.
    pub(crate) fn places_of(&self, entry: &CacheRequest) -> Location {
        let here = Location::only(entry.place());
        if !self.any_numbered.load(Ordering::Relaxed) {
            return here;
        }
        let (lists, unstored) = (self.lists.lock(), self.unstored.lock());
        let is_listed = |place: &Key| lists.places.contains_key(place) || unstored.lists(place);
        Location {
            around: entry.numbered_places().find(is_listed),
            ..here
        }
    }

    /// Has a preload hint announced this key, and has it not appeared yet?
    pub(crate) fn is_announced(&self, key: &Key, now: Instant) -> bool {
        let until = self.lists.lock().announced.get(key).copied();
        until.is_some_and(|until| now < until)
    }

    /// All manifests of the stream that this manifest belongs to.
    pub(crate) fn stream_manifests(&self, entry: &CacheRequest) -> Option<StreamId> {
        let lists = self.lists.lock();
        let identity = entry.identity();
        let watch = lists.watches.get(identity).map(|watch| &watch.stream);
        let parent = lists.parents.get(identity).map(|(stream, _)| stream);
        let keyed = lists.of_url(entry).map(|watch| &watch.stream);
        let streams: Vec<_> = watch.or(parent).into_iter().chain(keyed).collect();
        if streams.is_empty() {
            return None;
        }
        let is_one = |of: &Arc<LiveStream>| streams.iter().any(|stream| Arc::ptr_eq(of, stream));
        let listed = lists.parents.iter();
        let listed = listed.filter(|(_, (of, _))| is_one(of));
        let watches = lists.watches.values();
        let watches = watches.filter(|watch| is_one(&watch.stream));
        Some(StreamId {
            manifests: listed.map(|(key, _)| key.clone()).collect(),
            watches: watches.cloned().collect(),
        })
    }

    /// Forgets the timelines of a URL under each of its keys: the next version counts as the first.
    pub(crate) fn forget_url(&self, entry: &CacheRequest) {
        let lists = self.lists.lock();
        lists.of_url(entry).for_each(|watch| watch.forget());
    }

    /// The same for all manifests whose key matches.
    pub(crate) fn forget_where(&self, is_meant: impl Fn(&Key) -> bool) {
        let lists = self.lists.lock();
        let watches = lists.watches.iter();
        let meant: Vec<_> = watches
            .filter(|(key, _)| is_meant(key))
            .map(|(_, watch)| Arc::clone(watch))
            .collect();
        drop(lists);
        for watch in meant {
            watch.forget();
        }
    }

    /// The manifests that list objects in the directory of this one; the most recent last.
    pub(crate) fn listing(&self, entry: &CacheRequest) -> Vec<Arc<PlaylistTracker>> {
        let places = self.places_of(entry);
        let mut listing: Vec<Arc<PlaylistTracker>> = Vec::new();
        let lists = self.lists.lock();
        let places = places.around.iter().chain(&places.here);
        let known = places.filter_map(|place| lists.places.get(place));
        for watch in known.flatten().filter_map(Weak::upgrade) {
            listing.retain(|other| !Arc::ptr_eq(other, &watch));
            listing.push(watch);
        }
        listing
    }

    /// Other watched manifests that list objects in the same directories.
    fn beside(&self, watch: &Arc<PlaylistTracker>, now: Instant) -> Vec<Arc<PlaylistTracker>> {
        let mut others: Vec<Arc<PlaylistTracker>> = Vec::new();
        let places = watch.places();
        let lists = self.lists.lock();
        let listing = places.iter().filter_map(|place| lists.places.get(place));
        for other in listing.flatten().filter_map(Weak::upgrade) {
            let is_known = |known: &Arc<PlaylistTracker>| Arc::ptr_eq(known, &other);
            if !is_known(watch) && !others.iter().any(is_known) {
                others.push(other);
            }
        }
        drop(lists);
        others.retain(|other| other.is_followed(now));
        others
    }

    /// Counts an origin request for the stream that the object belongs to.
    pub(crate) fn count_origin_request(&self, entry: &CacheRequest) {
        let watch = self.watched(entry);
        if let Some(watch) = watch.or_else(|| self.listing(entry).pop()) {
            watch.stream.ask();
        }
    }

    pub(crate) fn unfit(&self, why: RejectReason) {
        self.unfit[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, now: Instant) -> StreamsSnapshot {
        let watches: Vec<_> = self.lists.lock().watches.values().cloned().collect();
        let tended = |watch: &&Arc<PlaylistTracker>| watch.access.has_refresher();
        let watched = watches.iter().filter(tended).count();
        let stalled = watches
            .iter()
            .filter(tended)
            .filter(|watch| watch.stalled(now));
        let stalled = stalled.count();
        let mut ends: HashMap<*const LiveStream, (Arc<LiveStream>, u64, u64)> = HashMap::new();
        for watch in &watches {
            let (_, low, high) = ends
                .entry(Arc::as_ptr(&watch.stream))
                .or_insert_with(|| (Arc::clone(&watch.stream), u64::MAX, 0));
            // A manifest without a refresher is not up to date, so it says nothing about skew.
            if let Some(reach) = watch.reach().filter(|_| watch.access.has_refresher()) {
                *low = reach.min(*low);
                *high = reach.max(*high);
            }
        }
        let streams = ends.into_values();
        let mut streams: Vec<_> = streams
            .map(|(stream, low, high)| stream.read(high.saturating_sub(low)))
            .collect();
        // Manifests that differ only in the query have no common parent, but share a name.
        streams.sort_by(|a, b| a.name.cmp(&b.name));
        streams.dedup_by(|more, stream| {
            let same = more.name == stream.name;
            if same {
                stream.add(more);
            }
            same
        });
        let bytes = watches
            .iter()
            .map(|watch| watch.weight_bytes() as u64)
            .sum();
        StreamsSnapshot {
            streams,
            bytes,
            watched: watched as u64,
            stalled: stalled as u64,
            unfit: RejectReason::ALL
                .map(|why| (why, self.unfit[why as usize].load(Ordering::Relaxed))),
            ahead: self.prefetch_limits.read(),
        }
    }

    /// The position of an object in a live stream that lists it.
    pub(crate) fn live_position(&self, entry: &CacheRequest, now: Now) -> Option<LivePosition> {
        let listing = self.listing(entry).into_iter();
        let mut positions =
            listing.filter_map(|watch| watch.position(&self.rules, entry, now.wall));
        positions.next()
    }

    /// May the origin hold the response back until the object exists?
    pub(crate) fn may_be_held_back(&self, entry: &CacheRequest, now: Instant) -> bool {
        entry.directives().msn.is_some() || self.is_announced(&entry.key, now)
    }
}
