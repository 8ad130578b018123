//! What has a stream cost its origin, measured against the least that it could cost? And how old were its
//! manifests, as viewers got them?
//!
//! Every version of a manifest and every new segment has to be asked for once, whatever the audience: that is
//! the floor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::policy::Key;

/// One stream: a manifest that players begin with, and what hangs on it.
pub(super) struct LiveStream {
    name: Arc<str>,
    asked: AtomicU64,
    floor: AtomicU64,
    restarts: AtomicU64,
    target_ms: AtomicU64,
    course: Mutex<StreamState>,
}

#[derive(Default)]
struct StreamState {
    restart: Option<Restart>,
    /// Seconds during which versions were the latest, and seconds squared by which they were late.
    watched: f64,
    late: f64,
}

/// The packager has begun anew, as far as its manifests have told.
struct Restart {
    since: Instant,
    /// Who told.
    told: Vec<Key>,
    /// Whose epoch it ended.
    places: Vec<Key>,
}

/// A stream's figures, for metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamStats {
    /// The path of the manifest that players begin with.
    pub name: Arc<str>,
    /// Requests to the origin.
    pub asked: u64,
    /// Requests that no shield could do without.
    pub floor: u64,
    /// Times the packager began anew.
    pub restarts: u64,
    /// How old manifests were on average, as served, beyond what the origin itself had to offer.
    pub staleness: Duration,
    /// By how many segments the manifests of the stream that are watched differ at their ends.
    pub skew: u64,
}

impl StreamStats {
    /// The figures of another stream of the same name are this one's.
    pub(super) fn add(&mut self, more: &StreamStats) {
        self.asked += more.asked;
        self.floor += more.floor;
        self.restarts += more.restarts;
        self.staleness = self.staleness.max(more.staleness);
        self.skew = self.skew.max(more.skew);
    }
}

impl LiveStream {
    pub(super) fn new(name: &str) -> LiveStream {
        LiveStream {
            name: name.into(),
            asked: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            target_ms: AtomicU64::new(0),
            course: Mutex::default(),
        }
    }

    /// The path of the manifest that players begin with.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// One of its playlists changes as often as that.
    pub(super) fn targets(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.target_ms.store(millis, Ordering::Relaxed);
    }

    pub(super) fn target_duration(&self) -> Option<Duration> {
        let millis = self.target_ms.load(Ordering::Relaxed);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// The origin is asked for something of it.
    pub(super) fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// So many things are there that were not there before.
    pub(super) fn grew(&self, by: u64) {
        self.floor.fetch_add(by, Ordering::Relaxed);
    }

    /// A version was shown for so long, and out of date for the last part of that. Viewers who came at
    /// any moment of it saw something that was on average half as old.
    pub(super) fn replaced(&self, shown: Duration, late: Duration) {
        let mut course = self.course.lock();
        course.watched += shown.as_secs_f64();
        course.late += late.as_secs_f64().powi(2) / 2.0;
    }

    /// The packager began anew, says a manifest. The stream's manifests say so one after the other, within
    /// `memory`; one that says so again tells of another restart. Gives which of the manifest's places have
    /// not seen their epoch end by this restart.
    pub(super) fn restarted(
        &self,
        manifest: &Key,
        mut places: Vec<Key>,
        (now, memory): (Instant, Duration),
    ) -> Vec<Key> {
        let mut course = self.course.lock();
        let same = course.restart.take().filter(|restart| {
            let recent = now.saturating_duration_since(restart.since) <= memory;
            recent && !restart.told.contains(manifest)
        });
        self.restarts
            .fetch_add(u64::from(same.is_none()), Ordering::Relaxed);
        let mut restart = same.unwrap_or(Restart {
            since: now,
            told: Vec::new(),
            places: Vec::new(),
        });
        restart.told.push(manifest.clone());
        places.retain(|place| !restart.places.contains(place));
        restart.places.extend_from_slice(&places);
        course.restart = Some(restart);
        places
    }

    pub(super) fn read(&self, skew: u64) -> StreamStats {
        let course = self.course.lock();
        let staleness = course.late / course.watched.max(f64::MIN_POSITIVE);
        StreamStats {
            name: Arc::clone(&self.name),
            asked: self.asked.load(Ordering::Relaxed),
            floor: self.floor.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            staleness: Duration::try_from_secs_f64(staleness).unwrap_or_default(),
            skew,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staleness_is_what_an_average_viewer_saw() {
        let stream = LiveStream::new("/a.m3u8");
        let second = Duration::from_secs(1);
        stream.replaced(4 * second, 2 * second);
        stream.replaced(4 * second, Duration::ZERO);
        // Two seconds out of eight, half as old on average.
        assert_eq!(stream.read(0).staleness, second / 4);
    }

    #[test]
    fn a_restart_counts_once_for_all_manifests_and_each_place_is_left_once() {
        let stream = LiveStream::new("/a.m3u8");
        let now = Instant::now();
        let memory = Duration::from_secs(16);
        let [one, other] = [b"1", b"2"].map(|name| Key::of(&[name]));
        let [shared, own] = [b"/a", b"/b"].map(|name| Key::of(&[name]));
        let restarted = |manifest: &Key, places: &[&Key], at| {
            let places = places.iter().map(|&place| place.clone()).collect();
            stream.restarted(manifest, places, (at, memory))
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
        assert_eq!(stream.read(0).restarts, 1);
        // It says so again: the packager has begun anew once more.
        assert_eq!(
            restarted(&other, &[&own], later),
            std::slice::from_ref(&own)
        );
        assert_eq!(
            restarted(&one, &[&shared], later),
            std::slice::from_ref(&shared)
        );
        assert_eq!(stream.read(0).restarts, 2);
        assert_eq!(restarted(&one, &[&shared], now + 60 * memory), [shared]);
        assert_eq!(stream.read(0).restarts, 3);
    }
}
