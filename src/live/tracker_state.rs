//! Holds what is known of one live manifest from its versions and polls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::avoided::AvoidedEndpoints;
use super::blocking_reload::BlockingReload;
use super::listed_window::ListedWindow;
use super::names_since_restart::NamesSinceRestart;
use super::numbered_directories::NumberedDirectories;
use super::representations::Representations;
use super::variants::VariantTimelines;
use seawall_manifest::ManifestInfo;
use seawall_policy::Key;
use seawall_policy::access::CacheRequest;
use seawall_policy::cadence::Cadence;

/// Upper limit of a segment duration, as used for poll intervals.
const SEGMENT_MAX: Duration = Duration::from_secs(30);

/// Least interval assumed between versions of a manifest that states no update interval.
const UNSTATED_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of one manifest. [`super::PlaylistTracker`] holds its lock.
pub(super) struct TrackerState {
    /// The timeline of each variant.
    pub(super) variants: VariantTimelines,
    pub(super) cadence: Cadence,
    /// Interval between versions; low latency: the part duration.
    pub(super) period: Duration,
    /// Segment duration, or the target duration where that is longer.
    pub(super) segment: Duration,
    /// Segment duration: players request one segment per such interval.
    pub(super) step: Duration,
    /// When the current version was found.
    pub(super) found: Instant,
    pub(super) avoided: Vec<AvoidedEndpoints>,
    pub(super) good_until: Option<Instant>,
    /// No poll before this moment: the last poll failed or was very recent.
    pub(super) rests_until: Instant,
    /// Number of polls that the origin answered.
    pub(super) responses: u64,
    /// When the last changed version was taken, of any variant.
    pub(super) taken: Option<Instant>,
    pub(super) blocking: BlockingReload,
    /// Objects announced by preload hints; true: the whole object, not a byte range of it.
    pub(super) announced: Vec<(CacheRequest, bool)>,
    /// Fingerprints of what the last version listed, sorted, and the directories of these objects;
    /// the directory found last is at the end.
    pub(super) listed: Box<[u64]>,
    pub(super) directories: Vec<Key>,
    pub(super) numbered: NumberedDirectories,
    /// The end offsets in bytes of the files of which the last version lists ranges, by hashes of
    /// their keys.
    pub(super) files: Box<[(u64, u64)]>,
    /// What has been listed since a restart of this manifest, or of another one that lists from the
    /// same directories.
    pub(super) listed_since_restart: Option<Box<NamesSinceRestart>>,
    /// Media sequence number of the last complete listed segment.
    pub(super) reached: Option<u64>,
    pub(super) representations: Arc<Representations>,
    pub(super) hasher: ahash::RandomState,
    pub(super) window: ListedWindow,
    pub(super) ended: bool,
    /// When a version last said that the stream is live.
    pub(super) live: Option<Instant>,
    /// Header fields of the last viewer's request, so that the request can be repeated. `None`: it
    /// was made with that viewer's credentials and must not be repeated without the viewer.
    pub(super) background_fields: Option<Arc<HeaderMap>>,
}

/// The longest expected time between two versions.
fn segment(facts: &ManifestInfo) -> Option<Duration> {
    let segment = facts.segment_duration().max(facts.reload_interval())?;
    Some(segment.min(SEGMENT_MAX))
}

/// The segment duration; an MPD may be updated far less often than it grows.
fn step(facts: &ManifestInfo, period: Duration) -> Duration {
    facts
        .segment_duration_max()
        .unwrap_or(period)
        .min(SEGMENT_MAX)
}

impl TrackerState {
    /// Starts with the first version, requested at `sent`.
    pub(super) fn new(facts: &ManifestInfo, sent: Instant) -> TrackerState {
        let period = facts.version_interval().unwrap_or_default();
        TrackerState {
            variants: VariantTimelines::default(),
            cadence: Cadence::new(period, sent),
            period,
            segment: segment(facts).unwrap_or(period),
            step: step(facts, period),
            found: sent,
            avoided: Vec::new(),
            good_until: None,
            rests_until: sent,
            responses: 0,
            taken: None,
            blocking: BlockingReload::default(),
            announced: Vec::new(),
            listed: Box::default(),
            directories: Vec::new(),
            numbered: NumberedDirectories::default(),
            files: Box::default(),
            listed_since_restart: None,
            reached: None,
            representations: Arc::default(),
            hasher: ahash::RandomState::new(),
            window: ListedWindow::default(),
            ended: false,
            live: None,
            background_fields: None,
        }
    }

    /// Takes the durations and the liveness that a version states.
    pub(super) fn record_facts(&mut self, facts: &ManifestInfo, seen: Instant) {
        self.ended = !facts.is_live();
        if !self.ended {
            self.live = Some(seen);
        }
        if let Some(period) = facts.version_interval() {
            self.period = period;
            self.segment = segment(facts).unwrap_or(period);
            self.step = step(facts, period);
            self.variants.pace(self.segment);
        }
        self.blocking.update(facts);
    }

    /// Stops remembering what is listed once the restarted manifest has reached its former
    /// position, or nothing from before the restart can be stored any more.
    pub(super) fn end_finished_restart(&mut self, seen: Instant) {
        let Some(names) = &self.listed_since_restart else {
            return;
        };
        let is_passed = names.is_own() && !self.variants.has_unfinished_restart();
        if is_passed || names.is_over(seen) {
            self.listed_since_restart = None;
        }
    }

    pub(super) fn record_response(&mut self, sent: Instant) {
        self.responses += 1;
        self.rests_until = sent + self.poll_interval_min();
    }

    /// The interval between versions, or a segment duration where that is unknown.
    pub(super) fn pace(&self) -> Duration {
        if self.period.is_zero() {
            self.segment.max(UNSTATED_INTERVAL)
        } else {
            self.period
        }
    }

    /// Least interval between two polls.
    pub(super) fn poll_interval_min(&self) -> Duration {
        const SHARE: u32 = 64;
        self.pace() / SHARE
    }
}
