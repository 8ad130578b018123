//! Reads the counters and states of all streams and trackers, for metrics and `/status`. A part of
//! [`ManifestTracker`], whose file lists the parts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use seawall_policy::StreamNumber;

use super::prefetch::PrefetchStats;
use super::reject_reason::RejectReason;
use super::stream::{LiveEdge, LiveStream, StreamAudience, StreamStats};
use super::{LiveStreams, ManifestTracker};

/// Counters of all streams, for metrics.
#[derive(Clone, Debug)]
pub struct StreamsSnapshot {
    /// One item per stream.
    pub streams: Vec<StreamStats>,
    /// Approximate bytes of memory that the trackers use.
    pub bytes: u64,
    /// Manifests that have a running refresher, and those of them that have stalled.
    pub refreshed: u64,
    /// See `refreshed`.
    pub stalled: u64,
    /// Manifests that were rejected, by reason.
    pub rejected: [(RejectReason, u64); RejectReason::ALL.len()],
    /// Prefetched objects, those that a viewer requested later, and those skipped for lack of
    /// capacity.
    pub prefetches: PrefetchStats,
}

/// A live manifest with a tracker.
#[derive(Clone, Debug)]
pub struct TrackedManifest {
    /// The manifest by which the stream is named.
    pub stream: Arc<str>,
    /// The refresher keeps it current.
    pub is_refreshed: bool,
    /// The refresher keeps it current, and it should have changed long ago.
    pub is_stalled: bool,
    /// Time since the last viewer request; `None`: no viewer has requested it.
    pub idle_for: Option<Duration>,
    /// Time to the next poll; `None`: at the next viewer request.
    pub next_poll_in: Option<Duration>,
}

/// The tracked manifests of a stream.
#[derive(Clone, Debug)]
pub struct StreamDetails {
    /// The URL of the manifest that players start with.
    pub url: String,
    /// Its tracked manifests, by their paths.
    pub manifests: Vec<ManifestState>,
}

/// A manifest of a stream.
#[derive(Clone, Debug)]
pub struct ManifestState {
    /// Its path.
    pub path: String,
    /// How it is followed.
    pub tracked: TrackedManifest,
    /// The time since its last new version. `None`: it has ended.
    pub age: Option<Duration>,
    /// The longest time that may pass between two versions.
    pub interval_max: Duration,
    /// The number of its last complete segment.
    pub last_sequence: Option<u64>,
}

impl ManifestTracker {
    fn manifest_state(&self, now: Instant) -> ManifestState {
        let interval_max = self.state.lock().reload_interval_max;
        ManifestState {
            path: self.request.target.path().to_owned(),
            tracked: self.tracked_manifest(now),
            age: self.live_edge(now).map(|edge| edge.age),
            interval_max,
            last_sequence: self.last_sequence(),
        }
    }

    /// `None`: the stream has ended.
    fn live_edge(&self, now: Instant) -> Option<LiveEdge> {
        let is_stalled = self.is_stalled(now);
        let state = self.state.lock();
        (!state.ended).then(|| LiveEdge {
            age: now.saturating_duration_since(state.current_since),
            interval: state.version_interval_or_default(),
            is_stalled,
        })
    }

    /// The state of this tracker, for `/status`.
    pub(crate) fn tracked_manifest(&self, now: Instant) -> TrackedManifest {
        let is_refreshed = self.access.has_refresher();
        let next_poll = self.next_poll(now).filter(|_| is_refreshed);
        TrackedManifest {
            stream: self.stream.name(),
            is_refreshed,
            is_stalled: is_refreshed && self.is_stalled(now),
            idle_for: self.access.idle_time(now),
            next_poll_in: next_poll.map(|poll| poll.at().saturating_duration_since(now)),
        }
    }
}

impl LiveStreams {
    /// The manifests of the streams with this name.
    pub(crate) fn stream_details(&self, name: &str, now: Instant) -> Option<StreamDetails> {
        let index = self.index.lock();
        let trackers = index.trackers.values();
        let of_stream = trackers.filter(|tracker| &*tracker.stream.name() == name);
        let trackers: Vec<_> = of_stream.cloned().collect();
        drop(index);
        let host = trackers.first()?.request.host.to_str().unwrap_or_default();
        let states = trackers.iter().map(|tracker| tracker.manifest_state(now));
        let mut manifests: Vec<_> = states.collect();
        manifests.sort_by(|a, b| a.path.cmp(&b.path));
        Some(StreamDetails {
            url: format!("http://{host}{name}"),
            manifests,
        })
    }

    /// The counters now. `audience_of` says what is counted under a number.
    pub(crate) fn snapshot(
        &self,
        now: Instant,
        audience_of: impl Fn(StreamNumber) -> StreamAudience,
    ) -> StreamsSnapshot {
        let trackers: Vec<_> = self.index.lock().trackers.values().cloned().collect();
        let is_refreshed = |tracker: &&Arc<ManifestTracker>| tracker.access.has_refresher();
        let refreshed = trackers.iter().filter(is_refreshed).count();
        let stalled = trackers
            .iter()
            .filter(is_refreshed)
            .filter(|tracker| tracker.is_stalled(now));
        let stalled = stalled.count();
        let bytes = trackers
            .iter()
            .map(|tracker| tracker.weight_bytes() as u64)
            .sum();
        StreamsSnapshot {
            streams: streams_of(&trackers, now, audience_of),
            bytes,
            refreshed: refreshed as u64,
            stalled: stalled as u64,
            rejected: RejectReason::ALL
                .map(|why| (why, self.rejected[why as usize].load(Ordering::Relaxed))),
            prefetches: self.prefetch_limits.stats(),
        }
    }
}

/// A stream, its live edge, and the least and the greatest last sequence number of its manifests.
struct SequenceRange {
    stream: Arc<LiveStream>,
    low: u64,
    high: u64,
    live_edge: Option<LiveEdge>,
}

/// The counters of all streams, one item per name.
fn streams_of(
    trackers: &[Arc<ManifestTracker>],
    now: Instant,
    audience_of: impl Fn(StreamNumber) -> StreamAudience,
) -> Vec<StreamStats> {
    let mut ranges: HashMap<*const LiveStream, SequenceRange> = HashMap::new();
    for tracker in trackers {
        let range = ranges
            .entry(Arc::as_ptr(&tracker.stream))
            .or_insert_with(|| SequenceRange {
                stream: Arc::clone(&tracker.stream),
                low: u64::MAX,
                high: 0,
                live_edge: None,
            });
        // A manifest without a refresher is not up to date: it says nothing.
        if !tracker.access.has_refresher() {
            continue;
        }
        range.live_edge = LiveEdge::older(range.live_edge, tracker.live_edge(now));
        if let Some(last) = tracker.last_sequence() {
            range.low = range.low.min(last);
            range.high = range.high.max(last);
        }
    }
    let mut streams: Vec<_> = ranges
        .into_values()
        .map(|range| {
            let skew = range.high.saturating_sub(range.low);
            let audience = range.stream.number().map(&audience_of);
            StreamStats {
                audience: audience.unwrap_or_default(),
                ..range.stream.stats(skew, range.live_edge)
            }
        })
        .collect();
    merge_same_names(&mut streams);
    streams
}

/// Manifests that differ only in the query or the host have no common parent, but share a name.
fn merge_same_names(streams: &mut Vec<StreamStats>) {
    streams.sort_by(|a, b| a.name.cmp(&b.name));
    streams.dedup_by(|more, stream| {
        let is_same = more.name == stream.name;
        if is_same {
            stream.add(more);
        }
        is_same
    });
}
