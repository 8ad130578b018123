//! Keeps the state of one live manifest across its versions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use http::HeaderMap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::avoided::AvoidedEndpoints;
use super::blocking_reload::BlockingReload;
use super::listed_window::ListedWindow;
use super::manifest_diff::{ManifestDiff, VersionComparison};
use super::mpd_horizon::MpdHorizon;
use super::numbered_directories::NumberedDirectories;
use super::representations::Representations;
use super::restart_leftovers::RestartLeftovers;
use super::stream::LiveStream;
use super::tracker_size::owned;
use super::variants::{Variant, VariantTimelines};
use super::version_effects::ManifestVersion;
use seawall_cache::AccessTracker;
use seawall_manifest::ManifestInfo;
use seawall_manifest::low_latency::ReloadDirectives;
use seawall_policy::access::CacheRequest;
use seawall_policy::cadence::Cadence;
use seawall_policy::progress::Progress;
use seawall_policy::{Key, Now, Rules};

/// A manifest counts as unwatched after this many segment durations without a request.
pub(super) const IDLE_SEGMENTS: u32 = 3;
/// All manifests of a stream show a restart within this many segment durations.
const RESTARTED_SEGMENTS: u32 = 4;
/// Upper limit of a segment duration, as used for poll intervals.
const SEGMENT_MAX: Duration = Duration::from_secs(30);

/// The tracker of one requested manifest.
pub(crate) struct PlaylistTracker {
    /// The request for it, without delivery directives.
    pub(crate) entry: CacheRequest,
    pub(crate) access: Arc<AccessTracker>,
    pub(super) stream: Arc<LiveStream>,
    /// A task prefetches the segments whose times its clock gives.
    pub(super) is_prefetching: AtomicBool,
    /// Notifies requests that wait for a version when any fill registers one.
    pub(crate) version_stored: Notify,
    pub(super) state: Mutex<TrackerState>,
    /// MPD only: how far the origin is ahead of the MPD's clock.
    pub(super) horizon: Mutex<MpdHorizon>,
    /// Held while a version is compared and published: one version at a time.
    turn: Mutex<()>,
    /// The bytes of this tracker in the total of all trackers.
    pub(super) counted_bytes: AtomicUsize,
}

/// A live manifest with a tracker.
#[derive(Clone, Debug)]
pub struct TrackedManifest {
    /// The manifest by which the stream is named.
    pub stream: Arc<str>,
    /// The refresher keeps it current.
    pub is_tended: bool,
    /// The refresher keeps it current, and it should have changed long ago.
    pub is_stalled: bool,
    /// Time since the last viewer request; `None`: no viewer has requested it.
    pub unasked_for: Option<Duration>,
    /// Time to the next poll; `None`: at the next viewer request.
    pub next_look_in: Option<Duration>,
}

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
    pub(super) leftovers: Option<Box<RestartLeftovers>>,
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

impl PlaylistTracker {
    /// Starts with the first version.
    pub(super) fn new(
        entry: CacheRequest,
        stream: Arc<LiveStream>,
        facts: &ManifestInfo,
        sent: Instant,
    ) -> PlaylistTracker {
        let period = facts.version_interval().unwrap_or_default();
        let segment = segment(facts).unwrap_or(period);
        PlaylistTracker {
            entry: owned(entry),
            access: Arc::new(AccessTracker::new(sent)),
            stream,
            is_prefetching: AtomicBool::new(false),
            state: Mutex::new(TrackerState {
                variants: VariantTimelines::default(),
                cadence: Cadence::new(period, sent),
                period,
                segment,
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
                leftovers: None,
                reached: None,
                representations: Arc::default(),
                hasher: ahash::RandomState::new(),
                window: ListedWindow::default(),
                ended: false,
                live: None,
                background_fields: None,
            }),
            horizon: Mutex::default(),
            turn: Mutex::default(),
            counted_bytes: AtomicUsize::new(0),
            version_stored: Notify::new(),
        }
    }

    /// Locks the tracker while a version is compared, registered and published.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Longest time a new version is held back until its new segments begin to arrive.
    pub(crate) fn hold_max(&self) -> Duration {
        const SHARE: u32 = 20;
        self.state.lock().segment / SHARE
    }

    /// Lifetime of a response that the origin sent before the requested version existed: half an
    /// update period. It protects an origin that never blocks from players that repeat the request
    /// at once.
    pub(crate) fn early_for(&self) -> Duration {
        self.state.lock().period / 2
    }

    /// Forgets the timelines: the next version counts as the first.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock();
        state.variants.forget();
        state.live = None;
    }

    /// The directories of the listed objects.
    pub(crate) fn directories(&self) -> Vec<Key> {
        self.state.lock().directories.clone()
    }

    /// Has a version of this variant been taken after `then`?
    pub(crate) fn has_newer_version(&self, variant: Variant, then: Instant) -> bool {
        let state = self.state.lock();
        state
            .variants
            .taken(variant)
            .is_some_and(|taken| taken > then)
    }

    /// Compares a version with the latest one of its variant. The first version of all is current.
    pub(crate) fn judge(&self, variant: Variant, facts: &ManifestInfo, now: Instant) -> Progress {
        let mut state = self.state.lock();
        let period = state.segment;
        state.variants.of(variant, facts, (period, now)).judge(now)
    }

    /// The duration of a listed object, and whether that is a whole segment.
    pub(crate) fn listed_for(&self, entry: &CacheRequest) -> Option<(Duration, bool)> {
        let state = self.state.lock();
        let is_segment = state.window.is_segment(entry.key.fingerprint())?;
        let duration = if is_segment { state.step } else { state.period };
        Some((duration, is_segment))
    }

    /// The segment duration.
    pub(crate) fn segment_duration(&self) -> Duration {
        self.state.lock().step
    }

    /// The wait after which a blocking request for a version, or for an announced object, is
    /// overdue.
    pub(crate) fn overdue(&self, asked: ReloadDirectives, now: Instant) -> Option<Duration> {
        let state = self.state.lock();
        let newest = state.taken.unwrap_or(state.found);
        state
            .blocking
            .overdue(asked, now.saturating_duration_since(newest))
    }

    /// Does the request ask for a future version that the server will block for?
    pub(super) fn is_next(&self, asked: ReloadDirectives) -> bool {
        self.state.lock().blocking.is_next(asked)
    }

    /// The media sequence number of its last segment, if segments are numbered.
    pub(crate) fn last_sequence(&self) -> Option<u64> {
        self.state.lock().variants.last_sequence()
    }

    /// Records a poll, sent at `sent`, that found the known version.
    pub(crate) fn record_unchanged(&self, variant: Variant, sent: Instant) {
        let mut state = self.state.lock();
        state.cadence.unchanged(sent);
        state.variants.record_confirmation(variant, sent);
        state.record_response(sent);
    }

    /// Takes a version that is published from now on.
    pub(super) fn take_version(
        &self,
        rules: &Rules,
        version: &ManifestVersion,
        now: Now,
    ) -> ManifestDiff {
        let ManifestVersion {
            manifest,
            variant,
            progress,
            seen,
            held_back,
            ..
        } = *version;
        let facts = &manifest.info;
        let state = &mut *self.state.lock();
        let is_first = state.listed.is_empty() && state.taken.is_none();
        state.record_response(seen);
        let restart = if progress == Progress::Restarted {
            self.begin_restart(state, variant, seen)
        } else {
            RestartedDirectories::default()
        };
        let timelines = &mut state.variants;
        timelines
            .of(variant, facts, (state.segment, seen))
            .take(progress, seen);
        if let Some(target) = facts.reload_interval() {
            self.stream.set_target_duration(target);
        }
        state.record_facts(facts, seen);
        if held_back {
            // A held-back response is never late: the version did not exist earlier.
            state.cadence.unchanged(seen);
        }
        self.update_cadence(state, progress, is_first, seen);
        if progress != Progress::Same {
            state.taken = Some(now.mono);
            state.variants.note_taken(variant, now.mono);
            self.stream.raise_floor(1);
        }
        let comparison = VersionComparison {
            entry: &self.entry,
            rules,
            manifest,
            is_first,
            seen,
            wall: now.wall,
        };
        let mut diff = state.compare_version(&comparison);
        diff.restarted_directories = restart.all;
        diff.ended_directories = restart.newly_ended;
        diff.recorded = progress != Progress::Same && state.leftovers.is_some();
        state.end_finished_restart(seen);
        diff
    }

    /// Forgets what was listed before a restart.
    fn begin_restart(
        &self,
        state: &mut TrackerState,
        variant: Variant,
        seen: Instant,
    ) -> RestartedDirectories {
        *self.horizon.lock() = MpdHorizon::default();
        state.listed = Box::default();
        state.window.clear();
        state.reached = None;
        state.leftovers = Some(Box::new(RestartLeftovers::new(true, seen)));
        let all = std::mem::take(&mut state.directories);
        let shown_within = state.segment * RESTARTED_SEGMENTS;
        let manifest = variant.name(self.entry.base_key());
        let newly_ended = self
            .stream
            .restarted(&manifest, all.clone(), (seen, shown_within));
        RestartedDirectories { all, newly_ended }
    }

    /// Updates the cadence with the result of a poll.
    fn update_cadence(
        &self,
        state: &mut TrackerState,
        progress: Progress,
        is_first: bool,
        seen: Instant,
    ) {
        match progress {
            Progress::Onward | Progress::Restarted if !is_first => {
                let change = state.cadence.changed(seen, state.period);
                let shown = seen.saturating_duration_since(state.found);
                // Without a refresher the last poll may be long ago.
                if self.access.has_refresher() {
                    self.stream.replaced(shown, change.late);
                }
                state.found = seen;
            }
            Progress::Onward | Progress::Restarted => state.found = seen,
            Progress::Same | Progress::Behind => state.cadence.unchanged(seen),
        }
    }

    /// The representations, if it is an MPD.
    pub(super) fn representations(&self) -> Arc<Representations> {
        Arc::clone(&self.state.lock().representations)
    }

    /// Counts new segments that viewers want.
    pub(crate) fn count_new_segments(&self, by: usize) {
        self.stream.raise_floor(by as u64);
    }

    /// The state of this tracker, for `/status`.
    pub(crate) fn followed(&self, now: Instant) -> TrackedManifest {
        let is_tended = self.access.has_refresher();
        let next_check = self.next_poll(now).filter(|_| is_tended);
        TrackedManifest {
            stream: self.stream.name(),
            is_tended,
            is_stalled: is_tended && self.is_stalled(now),
            unasked_for: self.access.idle_time(now),
            next_look_in: next_check.map(|check| check.at().saturating_duration_since(now)),
        }
    }
}

/// The directories that a manifest listed before a restart.
#[derive(Default)]
struct RestartedDirectories {
    all: Vec<Key>,
    /// Those whose epoch no other manifest of the stream has ended yet.
    newly_ended: Vec<Key>,
}

impl TrackerState {
    /// Takes the durations and the liveness that a version states.
    fn record_facts(&mut self, facts: &ManifestInfo, seen: Instant) {
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
    fn end_finished_restart(&mut self, seen: Instant) {
        let Some(leftovers) = &self.leftovers else {
            return;
        };
        let is_passed = leftovers.is_own() && !self.variants.has_unfinished_restart();
        if is_passed || leftovers.is_over(seen) {
            self.leftovers = None;
        }
    }

    fn record_response(&mut self, sent: Instant) {
        self.responses += 1;
        self.rests_until = sent + self.poll_interval_min();
    }
}
