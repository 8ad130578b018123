//! Measures the origin requests of a stream against the least possible number, and the age of its
//! manifests as viewers got them.
//!
//! Every version of a manifest and every new segment costs one origin request, whatever the
//! audience: these are the ideal requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::stream_numbers::OwnNumber;
use seawall_policy::{Key, StreamNumber};

/// One stream: the manifest that players start with, and the manifests that it lists.
pub(super) struct LiveStream {
    name: Arc<str>,
    number: OwnNumber,
    origin_requests: AtomicU64,
    ideal_requests: AtomicU64,
    restarts: AtomicU64,
    target_ms: AtomicU64,
    failures: AtomicU64,
    last_failure: Mutex<Option<StreamFailure>>,
    state: Mutex<StreamState>,
}

#[derive(Default)]
struct StreamState {
    restart: Option<Restart>,
    /// Total seconds for which replaced versions were served as the current one.
    current_seconds: f64,
    /// The age beyond the age at the origin, summed over these seconds, in seconds². A version that
    /// was out of date for its last `n` seconds adds `n²/2`.
    lateness: f64,
}

/// A restart of the packager, as its manifests have reported it.
struct Restart {
    since: Instant,
    /// The manifests that have reported it.
    reported_by: Vec<Key>,
    /// The directories whose epoch it has ended.
    directories: Vec<Key>,
}

/// A fetch for a stream that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFailure {
    /// When.
    pub at: SystemTime,
    /// Of which object, and why.
    pub text: String,
}

/// The viewers of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamAudience {
    /// Their requests.
    pub requests: u64,
    /// Body bytes sent to them.
    pub bytes: u64,
    /// About how many there are now.
    pub viewers: u64,
}

/// The live edge of a stream: of its refreshed manifest that has been unchanged for longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveEdge {
    /// The time since its last new version, as far as known.
    pub age: Duration,
    /// The expected time between two versions.
    pub interval: Duration,
    /// It should have changed long ago.
    pub is_stalled: bool,
}

/// A stream's counters, for metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamStats {
    /// The path of the manifest that players start with.
    pub name: Arc<str>,
    /// Number of requests to the origin.
    pub origin_requests: u64,
    /// Number of requests that an ideal cache would make.
    pub ideal_requests: u64,
    /// Number of restarts of the packager.
    pub restarts: u64,
    /// Average age of manifests as served, beyond the age at the origin.
    pub staleness: Duration,
    /// By how many segments the ends of the stream's refreshed manifests differ.
    pub skew: u64,
    /// `None`: no manifest of it is refreshed.
    pub live_edge: Option<LiveEdge>,
    /// Its viewers.
    pub audience: StreamAudience,
    /// Number of fetches that failed.
    pub failures: u64,
    /// The last of them.
    pub last_failure: Option<StreamFailure>,
}

impl StreamStats {
    /// Adds the counters of another stream of the same name.
    pub(super) fn add(&mut self, more: &StreamStats) {
        self.origin_requests += more.origin_requests;
        self.ideal_requests += more.ideal_requests;
        self.restarts += more.restarts;
        self.staleness = self.staleness.max(more.staleness);
        self.skew = self.skew.max(more.skew);
        self.live_edge = LiveEdge::older(self.live_edge, more.live_edge);
        self.audience.requests += more.audience.requests;
        self.audience.bytes += more.audience.bytes;
        self.audience.viewers += more.audience.viewers;
        self.failures += more.failures;
        let at = |failure: &Option<StreamFailure>| failure.as_ref().map(|failure| failure.at);
        if at(&more.last_failure) > at(&self.last_failure) {
            self.last_failure.clone_from(&more.last_failure);
        }
    }
}

impl LiveEdge {
    /// The one that has been unchanged for longer.
    pub(super) fn older(one: Option<LiveEdge>, other: Option<LiveEdge>) -> Option<LiveEdge> {
        one.into_iter().chain(other).max_by_key(|edge| edge.age)
    }
}

impl LiveStream {
    pub(super) fn new(name: &str, number: OwnNumber) -> LiveStream {
        LiveStream {
            name: name.into(),
            number,
            origin_requests: AtomicU64::new(0),
            ideal_requests: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            target_ms: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_failure: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// The path of the manifest that players start with.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// By which requests for its objects are counted.
    pub(super) fn number(&self) -> Option<StreamNumber> {
        self.number.get()
    }

    /// Sets the target duration of one of its playlists.
    pub(super) fn set_target_duration(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.target_ms.store(millis, Ordering::Relaxed);
    }

    pub(super) fn target_duration(&self) -> Option<Duration> {
        let millis = self.target_ms.load(Ordering::Relaxed);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// Counts an origin request for this stream.
    pub(super) fn count_request(&self) {
        self.origin_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts new versions or segments: an ideal cache requests each once.
    pub(super) fn add_ideal_requests(&self, by: u64) {
        self.ideal_requests.fetch_add(by, Ordering::Relaxed);
    }

    /// Counts a fetch that failed.
    pub(super) fn record_failure(&self, failure: StreamFailure) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_failure.lock() = Some(failure);
    }

    /// Records a replaced version: it was served for `current_for`, and was out of date for the
    /// last `late` of that. A viewer in that last part saw on average half of this age.
    pub(super) fn record_replaced(&self, current_for: Duration, late: Duration) {
        let mut state = self.state.lock();
        state.current_seconds += current_for.as_secs_f64();
        state.lateness += late.as_secs_f64().powi(2) / 2.0;
    }

    /// Records a restart reported by a manifest. The manifests of a stream report it one after the
    /// other, all within `restarted_within`; a manifest that reports one again reports another
    /// restart. Returns the directories whose epoch this restart has not ended yet.
    pub(super) fn record_restart(
        &self,
        manifest: &Key,
        mut directories: Vec<Key>,
        (now, restarted_within): (Instant, Duration),
    ) -> Vec<Key> {
        let mut state = self.state.lock();
        let same = state.restart.take().filter(|restart| {
            let is_recent = now.saturating_duration_since(restart.since) <= restarted_within;
            is_recent && !restart.reported_by.contains(manifest)
        });
        self.restarts
            .fetch_add(u64::from(same.is_none()), Ordering::Relaxed);
        let mut restart = same.unwrap_or(Restart {
            since: now,
            reported_by: Vec::new(),
            directories: Vec::new(),
        });
        restart.reported_by.push(manifest.clone());
        directories.retain(|directory| !restart.directories.contains(directory));
        restart.directories.extend_from_slice(&directories);
        state.restart = Some(restart);
        directories
    }

    pub(super) fn stats(&self, skew: u64, live_edge: Option<LiveEdge>) -> StreamStats {
        let state = self.state.lock();
        let staleness = state.lateness / state.current_seconds.max(f64::MIN_POSITIVE);
        StreamStats {
            name: Arc::clone(&self.name),
            origin_requests: self.origin_requests.load(Ordering::Relaxed),
            ideal_requests: self.ideal_requests.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            staleness: Duration::try_from_secs_f64(staleness).unwrap_or_default(),
            skew,
            live_edge,
            audience: StreamAudience::default(),
            failures: self.failures.load(Ordering::Relaxed),
            last_failure: self.last_failure.lock().clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staleness_is_the_average_age_seen_by_viewers() {
        let stream = LiveStream::new("/a.m3u8", OwnNumber::default());
        let second = Duration::from_secs(1);
        stream.record_replaced(4 * second, 2 * second);
        stream.record_replaced(4 * second, Duration::ZERO);
        // 2 s out of 8 s, at half of that age on average.
        assert_eq!(stream.stats(0, None).staleness, second / 4);
    }

    #[test]
    fn restart_counts_once_per_stream_and_ends_each_epoch_once() {
        let stream = LiveStream::new("/a.m3u8", OwnNumber::default());
        let now = Instant::now();
        let memory = Duration::from_secs(16);
        let [one, other] = [b"1", b"2"].map(|name| Key::of(&[name]));
        let [shared, own] = [b"/a", b"/b"].map(|name| Key::of(&[name]));
        let restarted = |manifest: &Key, directories: &[&Key], at| {
            let directories = directories
                .iter()
                .map(|&directory| directory.clone())
                .collect();
            stream.record_restart(manifest, directories, (at, memory))
        };
        assert_eq!(
            restarted(&one, &[&shared], now),
            std::slice::from_ref(&shared)
        );
        let later = now + memory / 2;
        assert_eq!(
            restarted(&other, &[&shared, &own], later),
            std::slice::from_ref(&own)
        );
        assert_eq!(stream.stats(0, None).restarts, 1);
        // The same manifest again: a second restart.
        assert_eq!(
            restarted(&other, &[&own], later),
            std::slice::from_ref(&own)
        );
        assert_eq!(
            restarted(&one, &[&shared], later),
            std::slice::from_ref(&shared)
        );
        assert_eq!(stream.stats(0, None).restarts, 2);
        assert_eq!(restarted(&one, &[&shared], now + 60 * memory), [shared]);
        assert_eq!(stream.stats(0, None).restarts, 3);
    }
}
