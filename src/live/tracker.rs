//! Keeps the state of one live manifest across its versions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use http::HeaderMap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::avoided::AvoidedEndpoints;
use super::blocking::{BlockingReload, PlannedPoll};
use super::horizon::MpdHorizon;
use super::manifest_diff::ManifestDiff;
use super::numbered::NumberedDirectories;
use super::representations::Representations;
use super::restart_leftovers::RestartLeftovers;
use super::stream::LiveStream;
use super::variants::{Variant, VariantTimelines};
use super::version_effects::ManifestVersion;
use super::watch_size::owned;
use super::window::ListedWindow;
use seawall_cache::AccessTracker;
use seawall_manifest::ManifestInfo;
use seawall_manifest::low_latency::ReloadDirectives;
use seawall_policy::access::CacheRequest;
use seawall_policy::cadence::Cadence;
use seawall_policy::progress::Progress;
use seawall_policy::{Key, Now, Rules};

/// A manifest counts as unwatched after this many segment durations without a request.
pub(super) const UNASKED_SEGMENTS: u32 = 3;
/// All manifests of a stream show a restart within this many segment durations.
const RESTARTED_SEGMENTS: u32 = 4;
/// Least interval assumed between versions of a manifest that states no update interval.
const UNTOLD_PACE: Duration = Duration::from_secs(1);
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
    pub(crate) filed: Notify,
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
    cadence: Cadence,
    /// Interval between versions; low latency: the part duration.
    period: Duration,
    /// Segment duration, or the target duration where that is longer.
    pub(super) segment: Duration,
    /// Segment duration: players request one segment per such interval.
    pub(super) step: Duration,
    /// When the current version was found.
    found: Instant,
    pub(super) avoided: Vec<AvoidedEndpoints>,
    good_until: Option<Instant>,
    /// No poll before this moment: the last poll failed or was very recent.
    rests_until: Instant,
    /// Number of polls that the origin answered.
    responses: u64,
    /// When the last changed version was taken, of any variant.
    taken: Option<Instant>,
    blocking: BlockingReload,
    /// Objects announced by preload hints; true: the whole object, not a byte range of it.
    pub(super) announced: Vec<(CacheRequest, bool)>,
    /// Fingerprints of what the last version listed, sorted, and the directories of these objects;
    /// the directory found last is at the end.
    pub(super) listed: Box<[u64]>,
    pub(super) places: Vec<Key>,
    pub(super) numbered: NumberedDirectories,
    /// The end offsets in bytes of the files of which the last version lists ranges, by hashes of
    /// their keys.
    pub(super) files: Box<[(u64, u64)]>,
    /// What has been listed since a restart of this manifest, or of another one that lists from the
    /// same directories.
    pub(super) leftovers: Option<Box<RestartLeftovers>>,
    /// Media sequence number of the last complete listed segment.
    pub(super) reached: Option<u64>,
    pub(super) lanes: Arc<Representations>,
    pub(super) hasher: ahash::RandomState,
    pub(super) window: ListedWindow,
    pub(super) ended: bool,
    /// When a version last said that the stream is live.
    pub(super) live: Option<Instant>,
    /// Header fields of the last viewer's request, so that the request can be repeated. `None`: it
    /// was made with that viewer's credentials and must not be repeated without the viewer.
    pub(super) asked_with: Option<Arc<HeaderMap>>,
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
                places: Vec::new(),
                numbered: NumberedDirectories::default(),
                files: Box::default(),
                leftovers: None,
                reached: None,
                lanes: Arc::default(),
                hasher: ahash::RandomState::new(),
                window: ListedWindow::default(),
                ended: false,
                live: None,
                asked_with: None,
            }),
            horizon: Mutex::default(),
            turn: Mutex::default(),
            counted_bytes: AtomicUsize::new(0),
            filed: Notify::new(),
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
        let mut course = self.state.lock();
        course.variants.forget();
        course.live = None;
    }

    /// The directories of the listed objects.
    pub(crate) fn places(&self) -> Vec<Key> {
        self.state.lock().places.clone()
    }

    /// Has a version of this variant been taken after `then`?
    pub(crate) fn has_newer_version(&self, variant: Variant, then: Instant) -> bool {
        let course = self.state.lock();
        course
            .variants
            .taken(variant)
            .is_some_and(|taken| taken > then)
    }

    /// Compares a version with the latest one of its variant. The first version of all is current.
    pub(crate) fn judge(&self, variant: Variant, facts: &ManifestInfo, now: Instant) -> Progress {
        let mut course = self.state.lock();
        let period = course.segment;
        course.variants.of(variant, facts, (period, now)).judge(now)
    }

    /// The duration of a listed object, and whether that is a whole segment.
    pub(crate) fn listed_for(&self, entry: &CacheRequest) -> Option<(Duration, bool)> {
        let course = self.state.lock();
        let is_segment = course.window.is_segment(entry.key.fingerprint())?;
        let duration = if is_segment {
            course.step
        } else {
            course.period
        };
        Some((duration, is_segment))
    }

    /// The segment duration.
    pub(crate) fn segment_duration(&self) -> Duration {
        self.state.lock().step
    }

    /// The wait after which a blocking request for a version, or for an announced object, is
    /// overdue.
    pub(crate) fn overdue(&self, asked: ReloadDirectives, now: Instant) -> Option<Duration> {
        let course = self.state.lock();
        let newest = course.taken.unwrap_or(course.found);
        course
            .blocking
            .overdue(asked, now.saturating_duration_since(newest))
    }

    /// Does the request ask for a future version that the server will block for?
    pub(super) fn is_next(&self, asked: ReloadDirectives) -> bool {
        self.state.lock().blocking.is_next(asked)
    }

    /// The media sequence number of its last segment, if segments are numbered.
    pub(crate) fn reach(&self) -> Option<u64> {
        self.state.lock().variants.reach()
    }

    /// Records a poll, sent at `sent`, that found the known version.
    pub(crate) fn record_unchanged(&self, variant: Variant, sent: Instant) {
        let mut course = self.state.lock();
        course.cadence.unchanged(sent);
        course.variants.record_confirmation(variant, sent);
        course.record_response(sent);
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
            seen: sent,
            held_back,
            ..
        } = *version;
        let facts = &manifest.info;
        let mut course = self.state.lock();
        let first = course.listed.is_empty() && course.taken.is_none();
        let course = &mut *course;
        course.record_response(sent);
        let mut anew = Vec::new();
        let left = match progress {
            Progress::Restarted => {
                *self.horizon.lock() = MpdHorizon::default();
                course.listed = Box::default();
                course.window.clear();
                course.reached = None;
                course.leftovers = Some(Box::new(RestartLeftovers::new(true, sent)));
                let places = std::mem::take(&mut course.places);
                anew.clone_from(&places);
                let memory = course.segment * RESTARTED_SEGMENTS;
                let who = variant.name(self.entry.identity());
                self.stream.restarted(&who, places, (sent, memory))
            }
            _ => Vec::new(),
        };
        course
            .variants
            .of(variant, facts, (course.segment, sent))
            .take(progress, sent);
        if let Some(target) = facts.reload_interval() {
            self.stream.set_target_duration(target);
        }
        course.ended = !facts.is_live();
        if !course.ended {
            course.live = Some(sent);
        }
        if let Some(period) = facts.version_interval() {
            course.period = period;
            course.segment = segment(facts).unwrap_or(period);
            course.step = step(facts, period);
            course.variants.pace(course.segment);
        }
        course.blocking.update(facts);
        if held_back {
            // A held-back response is never late: the version did not exist earlier.
            course.cadence.unchanged(sent);
        }
        self.update_cadence(course, progress, (first, sent));
        if progress != Progress::Same {
            course.taken = Some(now.mono);
            course.variants.note_taken(variant, now.mono);
            self.stream.raise_floor(1);
        }
        let mut news =
            course.compare_version(&self.entry, rules, manifest, (first, left, sent), now.wall);
        news.restarted_directories = anew;
        if let Some(aftermath) = &course.leftovers {
            let passed = aftermath.is_own() && !course.variants.has_unfinished_restart();
            if passed || aftermath.is_over(sent) {
                course.leftovers = None;
            }
            news.recorded = progress != Progress::Same;
        }
        news
    }

    /// Updates the cadence with the result of a poll.
    fn update_cadence(
        &self,
        course: &mut TrackerState,
        progress: Progress,
        (first, sent): (bool, Instant),
    ) {
        match progress {
            Progress::Onward | Progress::Restarted if !first => {
                let change = course.cadence.changed(sent, course.period);
                let shown = sent.saturating_duration_since(course.found);
                // Without a refresher the last poll may be long ago.
                if self.access.has_refresher() {
                    self.stream.replaced(shown, change.late);
                }
                course.found = sent;
            }
            Progress::Onward | Progress::Restarted => course.found = sent,
            Progress::Same | Progress::Behind => course.cadence.unchanged(sent),
        }
    }

    /// The representations, if it is an MPD.
    pub(super) fn lanes(&self) -> Arc<Representations> {
        Arc::clone(&self.state.lock().lanes)
    }

    /// Counts new segments that viewers want.
    pub(crate) fn grew(&self, by: usize) {
        self.stream.raise_floor(by as u64);
    }

    /// Time until the next version is due.
    pub(super) fn next_version(&self, now: Instant) -> Option<Duration> {
        let course = self.state.lock();
        let changes = !course.ended && !course.period.is_zero();
        let due = course.cadence.next().checked_duration_since(now)?;
        (changes && !due.is_zero()).then_some(due)
    }

    /// Time and mode of the next poll; `None` when no viewer watches or the stream has ended.
    pub(crate) fn next_poll(&self, now: Instant) -> Option<PlannedPoll> {
        let course = self.state.lock();
        let idle = self.entry.route.live.idle;
        let patience = (course.segment * UNASKED_SEGMENTS).max(idle);
        let unasked = self.access.idle_time(now)?;
        let until = course.good_until?;
        let may_be_asked = course.asked_with.is_some() && !course.ended;
        let watched = unasked < patience && may_be_asked;
        // A lower bound for the lifetime that the origin gives.
        let until = until.max(course.rests_until + course.pace() / 8);
        let plainly = || {
            // An MPD that lists no segments may never change: it is revalidated before it is stale.
            let changes = (!course.period.is_zero()).then(|| course.cadence.next().min(until));
            PlannedPoll::At(changes.unwrap_or(until).max(course.rests_until))
        };
        watched.then(|| course.blocking.next(now).unwrap_or_else(plainly))
    }

    /// Number of polls that the origin has answered.
    pub(crate) fn responses(&self) -> u64 {
        self.state.lock().responses
    }

    /// Records a failed poll: no further one for `pause`.
    pub(crate) fn rest(&self, now: Instant, pause: Duration) {
        let mut course = self.state.lock();
        course.rests_until = now + pause.max(course.poll_interval_min());
    }

    /// Records the start of a blocking request. Returns when the latest version was taken.
    pub(crate) fn begin_blocking(&self, now: Instant) -> Option<Instant> {
        let mut course = self.state.lock();
        course.blocking.asked(now);
        course.taken
    }

    /// Records the end of a blocking request. If no version came since `taken`, plain polling
    /// replaces blocking requests for a time.
    pub(crate) fn end_blocking(&self, taken: Option<Instant>, now: Instant) {
        let mut course = self.state.lock();
        if course.taken == taken {
            let period = course.period;
            course.blocking.record_failure(now, period);
        }
    }

    /// The state of this tracker, for `/status`.
    pub(crate) fn followed(&self, now: Instant) -> TrackedManifest {
        let is_tended = self.access.has_refresher();
        let next_look = self.next_poll(now).filter(|_| is_tended);
        TrackedManifest {
            stream: self.stream.name(),
            is_tended,
            is_stalled: is_tended && self.stalled(now),
            unasked_for: self.access.idle_time(now),
            next_look_in: next_look.map(|look| look.at().saturating_duration_since(now)),
        }
    }

    /// The stored version is fresh for `span` from now; the next poll is planned before it expires.
    /// With a span of zero there is no refresher: viewers' requests fetch it.
    pub(crate) fn set_fresh_for(&self, span: Duration, now: Instant) {
        /// A poll takes time, and may need a second one.
        const SHARE: f64 = 0.9;
        let until = (!span.is_zero()).then(|| now + span.mul_f64(SHARE));
        self.state.lock().good_until = until;
    }
}

impl TrackerState {
    fn record_response(&mut self, sent: Instant) {
        self.responses += 1;
        self.rests_until = sent + self.poll_interval_min();
    }

    /// The interval between versions, or a segment duration where that is unknown.
    fn pace(&self) -> Duration {
        if self.period.is_zero() {
            self.segment.max(UNTOLD_PACE)
        } else {
            self.period
        }
    }

    /// Least interval between two polls.
    fn poll_interval_min(&self) -> Duration {
        const SHARE: u32 = 64;
        self.pace() / SHARE
    }
}
