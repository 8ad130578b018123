//! What is known of one live manifest, from version to version?

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
use super::watch_size::owned;
use super::window::ListedWindow;
use crate::cache::AccessTracker;
use crate::manifest::low_latency::ReloadDirectives;
use crate::manifest::{Liveness, ManifestInfo, ParsedText};
use crate::policy::access::CacheRequest;
use crate::policy::cadence::Cadence;
use crate::policy::progress::Progress;
use crate::policy::{Key, Rules};
use crate::proxy::TrackedManifest;

/// When nobody has asked for so many segments' time, nobody watches any more.
pub(super) const UNASKED_SEGMENTS: u32 = 3;
/// Within so many segments' time all manifests of a stream tell that the packager began anew.
const RESTARTED_SEGMENTS: u32 = 4;
/// What does not say how long its segments are is looked at as if they took so long.
const UNTOLD_PACE: Duration = Duration::from_secs(1);
/// No manifest is left alone for longer than this counts as a segment.
const SEGMENT_MAX: Duration = Duration::from_secs(30);

/// One manifest that has been asked for.
pub(in crate::proxy) struct PlaylistTracker {
    /// How it is asked for.
    pub(in crate::proxy) entry: CacheRequest,
    pub(in crate::proxy) attention: Arc<AccessTracker>,
    pub(super) stream: Arc<LiveStream>,
    /// Somebody foresees what its clock says.
    pub(super) foreseen: AtomicBool,
    /// Tells those who wait for a version when one is filed, whoever asked for it.
    pub(in crate::proxy) filed: Notify,
    pub(super) course: Mutex<TrackerState>,
    /// Of an MPD: how far its origin is ahead of its clock.
    pub(super) horizon: Mutex<MpdHorizon>,
    /// Versions are shown one after the other.
    turn: Mutex<()>,
    /// What it is counted to take, among all.
    pub(super) counted_bytes: AtomicUsize,
}

pub(super) struct TrackerState {
    /// How far each variant has come.
    pub(super) variants: VariantTimelines,
    cadence: Cadence,
    /// How often it changes: with each part, in low latency.
    period: Duration,
    /// How long its segments are, or how long it may take to change where that is longer.
    pub(super) segment: Duration,
    /// How long its segments are: players ask about so often for one.
    pub(super) step: Duration,
    /// When the version that is shown was found.
    found: Instant,
    pub(super) avoided: Vec<AvoidedEndpoints>,
    good_until: Option<Instant>,
    /// Not looked at before: the last look failed, or was a moment ago.
    rests_until: Instant,
    /// Looks that the origin answered.
    heard: u64,
    /// When the last version was taken that went on, of any variant.
    taken: Option<Instant>,
    blocking: BlockingReload,
    /// What is announced; and whether that is all of something.
    pub(super) announced: Vec<(CacheRequest, bool)>,
    /// Fingerprints of what the last version listed, in order, and where that lies, the place that was
    /// found last at the end.
    pub(super) listed: Box<[u64]>,
    pub(super) places: Vec<Key>,
    pub(super) numbered: NumberedDirectories,
    /// How far the files reach of which the last version listed ranges, by hashes of their keys.
    pub(super) files: Box<[(u64, u64)]>,
    /// Since the packager began anew, here or in a place that is listed here too.
    pub(super) aftermath: Option<Box<RestartLeftovers>>,
    /// The number of the last whole segment that was listed.
    pub(super) reached: Option<u64>,
    pub(super) lanes: Arc<Representations>,
    pub(super) hasher: ahash::RandomState,
    pub(super) window: ListedWindow,
    pub(super) ended: bool,
    /// When it last said that it was live.
    pub(super) live: Option<Instant>,
    /// What the last viewer's request said besides, so that it can be made again. `None`: it was made
    /// in that viewer's name, and is not made without him.
    pub(super) asked_with: Option<Arc<HeaderMap>>,
}

/// How long it takes to change, at the most, if all is well.
fn segment(facts: &ManifestInfo) -> Option<Duration> {
    let segment = facts.segment.max(facts.target_duration)?;
    Some(segment.min(SEGMENT_MAX))
}

/// How long its segments are; an MPD may be updated far less often than it grows.
fn step(facts: &ManifestInfo, period: Duration) -> Duration {
    facts.segment_max().unwrap_or(period).min(SEGMENT_MAX)
}

impl PlaylistTracker {
    /// Begins with the first version.
    pub(super) fn new(
        entry: CacheRequest,
        stream: Arc<LiveStream>,
        facts: &ManifestInfo,
        sent: Instant,
    ) -> PlaylistTracker {
        let period = facts.changes_every().unwrap_or_default();
        let segment = segment(facts).unwrap_or(period);
        PlaylistTracker {
            entry: owned(entry),
            attention: Arc::new(AccessTracker::new(sent)),
            stream,
            foreseen: AtomicBool::new(false),
            course: Mutex::new(TrackerState {
                variants: VariantTimelines::default(),
                cadence: Cadence::new(period, sent),
                period,
                segment,
                step: step(facts, period),
                found: sent,
                avoided: Vec::new(),
                good_until: None,
                rests_until: sent,
                heard: 0,
                taken: None,
                blocking: BlockingReload::default(),
                announced: Vec::new(),
                listed: Box::default(),
                places: Vec::new(),
                numbered: NumberedDirectories::default(),
                files: Box::default(),
                aftermath: None,
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

    /// For as long as a version is judged, filed and shown.
    pub(in crate::proxy) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// A new version is kept back so long at most, until what it lists has begun to come.
    pub(in crate::proxy) fn keeps_for(&self) -> Duration {
        const SHARE: u32 = 20;
        self.course.lock().segment / SHARE
    }

    /// For how long an answer is good that the origin gave before it had what was asked for: half of that
    /// spares an origin that never waits most of the players who ask again at once.
    pub(in crate::proxy) fn early_for(&self) -> Duration {
        self.course.lock().period / 2
    }

    /// Whatever comes next is the first.
    pub(in crate::proxy) fn forget(&self) {
        let mut course = self.course.lock();
        course.variants.forget();
        course.live = None;
    }

    /// Where lies what it lists.
    pub(in crate::proxy) fn places(&self) -> Vec<Key> {
        self.course.lock().places.clone()
    }

    /// A version of this variant has been taken since then.
    pub(in crate::proxy) fn overtakes(&self, variant: Variant, then: Instant) -> bool {
        let course = self.course.lock();
        course
            .variants
            .taken(variant)
            .is_some_and(|taken| taken > then)
    }

    /// What a version is to the latest one of its variant. The first one of all is as far as is known.
    pub(in crate::proxy) fn judge(
        &self,
        variant: Variant,
        facts: &ManifestInfo,
        now: Instant,
    ) -> Progress {
        let mut course = self.course.lock();
        let period = course.segment;
        course.variants.of(variant, facts, (period, now)).judge(now)
    }

    /// How long something plays that it lists, and whether that is a whole segment.
    pub(in crate::proxy) fn listed_for(&self, entry: &CacheRequest) -> Option<(Duration, bool)> {
        let course = self.course.lock();
        let is_segment = course.window.is_segment(entry.key.fingerprint())?;
        let duration = if is_segment {
            course.step
        } else {
            course.period
        };
        Some((duration, is_segment))
    }

    /// How long its segments play.
    pub(in crate::proxy) fn segment_duration(&self) -> Duration {
        self.course.lock().step
    }

    /// After how long a request for a state of it, or for what it announces, is held back too long.
    pub(in crate::proxy) fn overdue(
        &self,
        asked: ReloadDirectives,
        now: Instant,
    ) -> Option<Duration> {
        let course = self.course.lock();
        let newest = course.taken.unwrap_or(course.found);
        course
            .blocking
            .overdue(asked, now.saturating_duration_since(newest))
    }

    /// The next state is asked for, or one after it, which its server holds back.
    pub(super) fn is_next(&self, asked: ReloadDirectives) -> bool {
        self.course.lock().blocking.is_next(asked)
    }

    /// The number of its last segment, where segments are numbered.
    pub(in crate::proxy) fn reach(&self) -> Option<u64> {
        self.course.lock().variants.reach()
    }

    /// A look that was sent then found the version that is known.
    pub(in crate::proxy) fn unchanged(&self, variant: Variant, sent: Instant) {
        let mut course = self.course.lock();
        course.cadence.unchanged(sent);
        course.variants.hear(variant, sent);
        course.hears(sent);
    }

    /// A version that is shown from now on, found by a look that was sent then; or, where the origin held
    /// its answer back, at the very moment when it became the newest.
    pub(in crate::proxy) fn takes(
        &self,
        rules: &Rules,
        manifest: &ParsedText,
        (variant, progress): (Variant, Progress),
        (sent, held_back): (Instant, bool),
    ) -> ManifestDiff {
        let facts = &manifest.facts;
        let mut course = self.course.lock();
        let first = course.listed.is_empty() && course.taken.is_none();
        let course = &mut *course;
        course.hears(sent);
        let mut anew = Vec::new();
        let left = match progress {
            Progress::Restarted => {
                *self.horizon.lock() = MpdHorizon::default();
                course.listed = Box::default();
                course.window.clear();
                course.reached = None;
                course.aftermath = Some(Box::new(RestartLeftovers::new(true, sent)));
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
        if let Some(target) = facts.target_duration {
            self.stream.targets(target);
        }
        course.ended = facts.liveness == Liveness::Ended;
        if !course.ended {
            course.live = Some(sent);
        }
        if let Some(period) = facts.changes_every() {
            course.period = period;
            course.segment = segment(facts).unwrap_or(period);
            course.step = step(facts, period);
            course.variants.pace(course.segment);
        }
        course.blocking.follows(facts);
        if held_back {
            // It is not late: it was not there before.
            course.cadence.unchanged(sent);
        }
        self.keep_pace(course, progress, (first, sent));
        if progress != Progress::Same {
            let taken = Instant::now();
            course.taken = Some(taken);
            course.variants.note_taken(variant, taken);
            self.stream.grew(1);
        }
        let mut news = course.news(&self.entry, rules, manifest, (first, left, sent));
        news.anew = anew;
        if let Some(aftermath) = &course.aftermath {
            let passed = aftermath.is_own() && !course.variants.are_short_of_former();
            if passed || aftermath.is_over(sent) {
                course.aftermath = None;
            }
            news.recorded = progress != Progress::Same;
        }
        news
    }

    /// What a look found says when the next version comes.
    fn keep_pace(
        &self,
        course: &mut TrackerState,
        progress: Progress,
        (first, sent): (bool, Instant),
    ) {
        match progress {
            Progress::Onward | Progress::Restarted if !first => {
                let change = course.cadence.changed(sent, course.period);
                let shown = sent.saturating_duration_since(course.found);
                // Nobody may have looked for long, where nobody watched.
                if self.attention.is_tended() {
                    self.stream.replaced(shown, change.late);
                }
                course.found = sent;
            }
            Progress::Onward | Progress::Restarted => course.found = sent,
            Progress::Same | Progress::Behind => course.cadence.unchanged(sent),
        }
    }

    /// Its representations, where it is an MPD.
    pub(super) fn lanes(&self) -> Arc<Representations> {
        Arc::clone(&self.course.lock().lanes)
    }

    /// So many segments of it are new, and wanted.
    pub(in crate::proxy) fn grew(&self, by: usize) {
        self.stream.grew(by as u64);
    }

    /// In how long the next version is due.
    pub(super) fn next_version(&self, now: Instant) -> Option<Duration> {
        let course = self.course.lock();
        let changes = !course.ended && !course.period.is_zero();
        let due = course.cadence.next().checked_duration_since(now)?;
        (changes && !due.is_zero()).then_some(due)
    }

    /// When to look at it next, and how; `None` once nobody watches, or it has ended.
    pub(in crate::proxy) fn next_look(&self, now: Instant) -> Option<PlannedPoll> {
        let course = self.course.lock();
        let idle = self.entry.route.live.idle;
        let patience = (course.segment * UNASKED_SEGMENTS).max(idle);
        let unasked = self.attention.unasked_for(now)?;
        let until = course.good_until?;
        let may_be_asked = course.asked_with.is_some() && !course.ended;
        let watched = unasked < patience && may_be_asked;
        // However short the origin says that it is good.
        let until = until.max(course.rests_until + course.pace() / 8);
        let plainly = || {
            // An MPD that lists no segments may never change: it is confirmed before it is stale.
            let changes = (!course.period.is_zero()).then(|| course.cadence.next().min(until));
            PlannedPoll::At(changes.unwrap_or(until).max(course.rests_until))
        };
        watched.then(|| course.blocking.next(now).unwrap_or_else(plainly))
    }

    /// How many looks the origin has answered so far.
    pub(super) fn heard(&self) -> u64 {
        self.course.lock().heard
    }

    /// A look came to nothing: the origin is left alone for so long.
    pub(super) fn rest(&self, now: Instant, pause: Duration) {
        let mut course = self.course.lock();
        course.rests_until = now + pause.max(course.breath());
    }

    /// The origin is asked now for the next version, and will answer when it is there. How far the
    /// manifest has come before that.
    pub(super) fn waits(&self, now: Instant) -> Option<Instant> {
        let mut course = self.course.lock();
        course.blocking.asked(now);
        course.taken
    }

    /// It has answered. If it said nothing new since then, it is asked in the other way for a while.
    pub(super) fn waited(&self, taken: Option<Instant>, now: Instant) {
        let mut course = self.course.lock();
        if course.taken == taken {
            let period = course.period;
            course.blocking.fails(now, period);
        }
    }

    /// What can be said of it to people.
    pub(in crate::proxy) fn followed(&self, now: Instant) -> TrackedManifest {
        let is_tended = self.attention.is_tended();
        let next_look = self.next_look(now).filter(|_| is_tended);
        TrackedManifest {
            stream: self.stream.name(),
            is_tended,
            is_stalled: is_tended && self.stalled(now),
            unasked_for: self.attention.unasked_for(now),
            next_look_in: next_look.map(|look| look.at().saturating_duration_since(now)),
        }
    }

    /// What is held is good for so long from now on, and has to be looked at before that is over. What is
    /// good for nothing is looked at by nobody but those who want it.
    pub(in crate::proxy) fn good_for(&self, span: Duration, now: Instant) {
        /// A look takes a while, and the origin may ask for a second one.
        const SHARE: f64 = 0.9;
        let until = (!span.is_zero()).then(|| now + span.mul_f64(SHARE));
        self.course.lock().good_until = until;
    }
}

impl TrackerState {
    fn hears(&mut self, sent: Instant) {
        self.heard += 1;
        self.rests_until = sent + self.breath();
    }

    /// How long a version lasts, or, where nothing says so, a segment.
    fn pace(&self) -> Duration {
        if self.period.is_zero() {
            self.segment.max(UNTOLD_PACE)
        } else {
            self.period
        }
    }

    /// Between two looks at least.
    fn breath(&self) -> Duration {
        const SHARE: u32 = 64;
        self.pace() / SHARE
    }
}
