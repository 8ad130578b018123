//! Holds what is known of one live manifest from its versions and polls. `tracker` lists which file
//! has the methods for which subject.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::avoided::AvoidedEndpoint;
use super::blocking_reload::BlockingReload;
use super::listed_window::ListedWindow;
use super::names_since_restart::NamesSinceRestart;
use super::numbered_directories::NumberedDirectories;
use super::representations::Representations;
use super::variants::VariantHistories;
use seawall_manifest::ManifestInfo;
use seawall_policy::Key;
use seawall_policy::access::CacheRequest;
use seawall_policy::cadence::Cadence;

/// Upper limit of the durations that a version states, so that an absurd one stops no poll.
const INTERVAL_MAX: Duration = Duration::from_secs(30);

/// Least interval assumed between versions of a manifest that states no update interval.
const UNSTATED_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of one manifest. [`super::ManifestTracker`] holds its lock.
pub(super) struct TrackerState {
    /// The history of each variant.
    pub(super) variants: VariantHistories,
    pub(super) cadence: Cadence,
    /// Interval between versions; low latency: the part duration.
    pub(super) version_interval: Duration,
    /// The longest time that may pass between two versions: the segment duration, or the target
    /// duration (an MPD: `minimumUpdatePeriod`) where that is longer.
    pub(super) reload_interval_max: Duration,
    /// Segment duration: players request one segment per such interval.
    pub(super) segment_duration: Duration,
    /// The `current_at` of the last changed version: it has been the newest since then, as far as
    /// known.
    pub(super) current_since: Instant,
    pub(super) avoided: Vec<AvoidedEndpoint>,
    /// The stored version stops being fresh soon after. `None`: no poll in the background.
    pub(super) poll_before: Option<Instant>,
    /// No poll before this moment: the last poll failed or was very recent.
    pub(super) no_poll_before: Instant,
    /// Number of polls that the origin answered.
    pub(super) responses: u64,
    /// When the last changed version of any variant was accepted: from then on viewers get it. Its
    /// `current_since` is earlier, usually when it was requested.
    pub(super) accepted_at: Option<Instant>,
    pub(super) blocking: BlockingReload,
    /// Objects announced by preload hints; true: the whole object, not a byte range of it.
    pub(super) announced: Vec<(CacheRequest, bool)>,
    /// Fingerprints of what the last version listed, sorted, and the directories of these objects;
    /// the directory found last is at the end.
    pub(super) listed_names: Box<[u64]>,
    pub(super) directories: Vec<Key>,
    pub(super) numbered: NumberedDirectories,
    /// The end offsets in bytes of the files of which the last version lists ranges, by hashes of
    /// their keys.
    pub(super) file_ends: Box<[(u64, u64)]>,
    /// What has been listed since a restart of this manifest, or of another one that lists from the
    /// same directories.
    pub(super) listed_since_restart: Option<Box<NamesSinceRestart>>,
    /// Media sequence number of the last complete listed segment.
    pub(super) last_sequence: Option<u64>,
    pub(super) representations: Arc<Representations>,
    pub(super) hasher: ahash::RandomState,
    pub(super) window: ListedWindow,
    pub(super) ended: bool,
    /// When a version last said that the stream is live.
    pub(super) last_live: Option<Instant>,
    /// Header fields of the last viewer's request, so that the request can be repeated. `None`: it
    /// was made with that viewer's credentials and must not be repeated without the viewer.
    pub(super) background_headers: Option<Arc<HeaderMap>>,
}

/// The longest time that may pass between two versions.
fn reload_interval_max(info: &ManifestInfo) -> Option<Duration> {
    let longest = info.segment_duration().max(info.stated_reload_interval())?;
    Some(longest.min(INTERVAL_MAX))
}

/// The segment duration; an MPD may be updated far less often than it grows.
fn segment_duration(info: &ManifestInfo, version_interval: Duration) -> Duration {
    info.segment_duration_max()
        .unwrap_or(version_interval)
        .min(INTERVAL_MAX)
}

impl TrackerState {
    /// Starts with the first version.
    pub(super) fn new(info: &ManifestInfo, current_at: Instant) -> TrackerState {
        let interval = info.version_interval().unwrap_or_default();
        TrackerState {
            variants: VariantHistories::default(),
            cadence: Cadence::new(interval, current_at),
            version_interval: interval,
            reload_interval_max: reload_interval_max(info).unwrap_or(interval),
            segment_duration: segment_duration(info, interval),
            current_since: current_at,
            avoided: Vec::new(),
            poll_before: None,
            no_poll_before: current_at,
            responses: 0,
            accepted_at: None,
            blocking: BlockingReload::default(),
            announced: Vec::new(),
            listed_names: Box::default(),
            directories: Vec::new(),
            numbered: NumberedDirectories::default(),
            file_ends: Box::default(),
            listed_since_restart: None,
            last_sequence: None,
            representations: Arc::default(),
            hasher: ahash::RandomState::new(),
            window: ListedWindow::default(),
            ended: false,
            last_live: None,
            background_headers: None,
        }
    }

    /// Records the durations and the liveness that a version states.
    pub(super) fn record_info(&mut self, info: &ManifestInfo, current_at: Instant) {
        self.ended = !info.is_live();
        if !self.ended {
            self.last_live = Some(current_at);
        }
        if let Some(interval) = info.version_interval() {
            self.version_interval = interval;
            self.reload_interval_max = reload_interval_max(info).unwrap_or(interval);
            self.segment_duration = segment_duration(info, interval);
            self.variants
                .set_reload_interval_max(self.reload_interval_max);
        }
        self.blocking.update(info);
    }

    /// Stops remembering what is listed once the restarted manifest has passed the end of the
    /// timeline before the restart, or nothing from before the restart can be stored any more.
    pub(super) fn end_finished_restart(&mut self, current_at: Instant) {
        let Some(names) = &self.listed_since_restart else {
            return;
        };
        let is_passed = names.is_own_restart() && !self.variants.is_before_previous_end();
        if is_passed || names.is_over(current_at) {
            self.listed_since_restart = None;
        }
    }

    /// Forgets what the last version listed. Returns the directories of these objects.
    pub(super) fn forget_listed(&mut self) -> Vec<Key> {
        self.listed_names = Box::default();
        self.window.clear();
        self.last_sequence = None;
        std::mem::take(&mut self.directories)
    }

    /// Does a preload hint announce the whole object of this key?
    pub(super) fn announces_whole(&self, key: &Key) -> bool {
        let mut announced = self.announced.iter();
        announced.any(|(request, is_whole)| *is_whole && request.key == *key)
    }

    pub(super) fn record_response(&mut self, current_at: Instant) {
        self.responses += 1;
        self.no_poll_before = current_at + self.poll_interval_min();
    }

    /// The interval between versions; where it is unknown, the longest that is possible.
    pub(super) fn version_interval_or_default(&self) -> Duration {
        if self.version_interval.is_zero() {
            self.reload_interval_max.max(UNSTATED_INTERVAL)
        } else {
            self.version_interval
        }
    }

    /// Least interval between two polls.
    pub(super) fn poll_interval_min(&self) -> Duration {
        const SHARE: u32 = 64;
        self.version_interval_or_default() / SHARE
    }
}
