//! What is known of one live manifest, from version to version?

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::blocking::{Blocking, Look};
use super::stream::Stream;
use crate::cache::Attention;
use crate::media::{Facts, Listed, Listing, Liveness, Manifest};
use crate::policy::access::Entry;
use crate::policy::cadence::Cadence;
use crate::policy::progress::{Progress, Track};
use crate::policy::{Key, Rules};

/// When nobody has asked for so many periods, nobody watches any more.
const UNASKED_PERIODS: u32 = 3;
/// What was listed so many periods ago is not new any more: players start about there.
const NEW_PERIODS: u32 = 3;
/// So many names are remembered of a manifest that leaves out what was listed before.
const LISTED_MAX: usize = 1024;
/// An endpoint that gave something unfit is asked last for so many periods.
const AVOIDED_PERIODS: u32 = 5;

/// One manifest that has been asked for.
pub(in crate::shield) struct Watch {
    /// How it is asked for.
    pub(in crate::shield) entry: Entry,
    pub(in crate::shield) attention: Arc<Attention>,
    pub(super) stream: Arc<Stream>,
    course: Mutex<Course>,
    /// Versions are shown one after the other.
    turn: Mutex<()>,
}

struct Course {
    track: Track,
    cadence: Cadence,
    period: Duration,
    /// When the version that is shown was found.
    found: Instant,
    avoided: Option<(usize, Instant)>,
    good_until: Option<Instant>,
    /// Not looked at before: the last look failed, or was a moment ago.
    rests_until: Instant,
    /// Looks that the origin answered.
    heard: u64,
    /// When the last version was taken that went on.
    taken: Option<Instant>,
    blocking: Blocking,
    /// What is announced; and whether that is all of something.
    hints: Vec<(Entry, bool)>,
    /// Fingerprints of what the last version listed, and where that lies.
    listed: HashSet<u64, ahash::RandomState>,
    places: Vec<Key>,
    hasher: ahash::RandomState,
    ended: bool,
}

/// Something that may be asked for before it is there (`EXT-X-PRELOAD-HINT`).
pub(in crate::shield) struct Hint {
    pub(in crate::shield) entry: Entry,
    /// All of it, and not a part of something that grows.
    pub(in crate::shield) whole: bool,
    /// The version before did not announce it.
    pub(in crate::shield) new: bool,
}

/// What a version brought.
pub(in crate::shield) struct News {
    /// What it lists that the one before did not; nothing for the first version.
    pub(in crate::shield) coming: Vec<Entry>,
    /// So long that counts as new.
    pub(in crate::shield) new_until: Instant,
    /// When it was found.
    pub(in crate::shield) found: Instant,
    /// What it announces that is not there yet.
    pub(in crate::shield) hinted: Vec<Hint>,
    /// What the one before announced and this one does not.
    pub(in crate::shield) unhinted: Vec<Key>,
    /// Where what it lists lies, as far as that was not known.
    pub(in crate::shield) places: Vec<Key>,
    /// Places whose epoch has ended: it is the first version of a new generation.
    pub(in crate::shield) left: Vec<Key>,
}

/// How often a live manifest changes, as far as it says so.
pub(super) fn period(facts: &Facts) -> Option<Duration> {
    facts.edge.as_ref()?;
    let parts = facts.part_target;
    parts
        .or(facts.segment)
        .or(facts.target_duration)
        .filter(|period| !period.is_zero())
}

impl Watch {
    /// Begins with the first version.
    pub(super) fn new(entry: Entry, stream: Arc<Stream>, facts: &Facts, sent: Instant) -> Watch {
        let period = period(facts).unwrap_or_default();
        Watch {
            entry,
            attention: Arc::new(Attention::new(sent)),
            stream,
            course: Mutex::new(Course {
                track: Track::new(facts, period, sent),
                cadence: Cadence::new(period, sent),
                period,
                found: sent,
                avoided: None,
                good_until: None,
                rests_until: sent,
                heard: 0,
                taken: None,
                blocking: Blocking::default(),
                hints: Vec::new(),
                listed: HashSet::default(),
                places: Vec::new(),
                hasher: ahash::RandomState::new(),
                ended: false,
            }),
            turn: Mutex::default(),
        }
    }

    /// For as long as a version is judged, filed and shown.
    pub(in crate::shield) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// A version has been taken since then.
    pub(in crate::shield) fn overtakes(&self, then: Instant) -> bool {
        self.course.lock().taken.is_some_and(|taken| taken > then)
    }

    /// What a version is to the latest one.
    pub(in crate::shield) fn judge(&self, facts: &Facts, now: Instant) -> Progress {
        self.course.lock().track.judge(facts, now)
    }

    /// An endpoint gave something that is not for viewers: others are asked first for a while.
    pub(in crate::shield) fn avoid(&self, endpoint: usize, now: Instant) {
        let mut course = self.course.lock();
        let until = now + course.period * AVOIDED_PERIODS;
        course.avoided = Some((endpoint, until));
    }

    pub(in crate::shield) fn avoided(&self, now: Instant) -> Option<usize> {
        let avoided = self.course.lock().avoided;
        avoided
            .filter(|(_, until)| *until > now)
            .map(|(endpoint, _)| endpoint)
    }

    /// It should have changed long ago.
    pub(in crate::shield) fn stalled(&self, now: Instant) -> bool {
        let course = self.course.lock();
        !course.ended && course.track.stalled(now)
    }

    /// The number of its last segment, where segments are numbered.
    pub(in crate::shield) fn reach(&self) -> Option<u64> {
        self.course.lock().track.reach()
    }

    /// A look that was sent then found the version that is known.
    pub(in crate::shield) fn unchanged(&self, sent: Instant) {
        let mut course = self.course.lock();
        course.cadence.unchanged(sent);
        course.hears(sent);
    }

    /// A version that is shown from now on, found by a look that was sent then; or, where the origin held
    /// its answer back, at the very moment when it became the newest.
    pub(in crate::shield) fn takes(
        &self,
        rules: &Rules,
        Manifest { facts, listing }: &Manifest,
        progress: Progress,
        sent: Instant,
        held_back: bool,
    ) -> News {
        let mut course = self.course.lock();
        let first = course.listed.is_empty() && course.taken.is_none();
        let course = &mut *course;
        course.hears(sent);
        let left = match progress {
            Progress::Restarted if self.stream.restarted(sent, course.period) => {
                course.listed.clear();
                std::mem::take(&mut course.places)
            }
            _ => Vec::new(),
        };
        course.track.take(facts, progress, sent);
        course.ended = facts.liveness == Liveness::Ended;
        if let Some(period) = period(facts) {
            course.period = period;
            course.track.paced(period);
        }
        course.blocking.follows(facts);
        if held_back {
            // It is not late: it was not there before.
            course.cadence.unchanged(sent);
        }
        match progress {
            Progress::Onward | Progress::Restarted if !first => {
                let change = course.cadence.changed(sent, course.period);
                let shown = sent.saturating_duration_since(course.found);
                self.stream.replaced(shown, change.late);
                course.found = sent;
            }
            Progress::Onward | Progress::Restarted => course.found = sent,
            Progress::Same | Progress::Behind => course.cadence.unchanged(sent),
        }
        let known = course.places.len();
        let is_delta = facts.edge.as_ref().is_some_and(|edge| edge.skipped > 0);
        let low_latency = facts.part_target.is_some();
        let mut coming = course.list(&self.entry, rules, listing, low_latency, is_delta);
        let (hinted, past) = course.hint(&self.entry, rules, listing);
        // What was announced and is so no more is there: listed, or a part of a segment that is whole now.
        let come = past.iter().filter(|(_, whole)| *whole);
        for (entry, _) in come {
            if coming.iter().all(|coming| coming.key != entry.key) {
                coming.push(entry.clone());
            }
        }
        if first {
            coming.clear();
        }
        if progress != Progress::Same {
            course.taken = Some(Instant::now());
            self.stream.grew(1 + coming.len() as u64);
        }
        News {
            coming,
            new_until: sent + course.period * NEW_PERIODS,
            found: sent,
            hinted,
            unhinted: past.into_iter().map(|(entry, _)| entry.key).collect(),
            places: course.places[known..].to_vec(),
            left,
        }
    }

    /// When to look at it next, and how; `None` once nobody watches, or it has ended.
    pub(in crate::shield) fn next_look(&self, now: Instant) -> Option<Look> {
        let course = self.course.lock();
        let idle = self.entry.route.live.idle;
        let patience = (course.period * UNASKED_PERIODS).max(idle);
        let unasked = self.attention.unasked_for(now)?;
        let until = course.good_until?;
        let watched = unasked < patience && !course.ended && !course.period.is_zero();
        // However short the origin says that it is good.
        let until = until.max(course.rests_until + course.period / 8);
        let plainly = || Look::At(course.cadence.next().min(until).max(course.rests_until));
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

    /// What is held is good for so long from now on, and has to be looked at before that is over. What is
    /// good for nothing is looked at by nobody but those who want it.
    pub(in crate::shield) fn good_for(&self, span: Duration, now: Instant) {
        /// A look takes a while, and the origin may ask for a second one.
        const SHARE: f64 = 0.9;
        let until = (!span.is_zero()).then(|| now + span.mul_f64(SHARE));
        self.course.lock().good_until = until;
    }
}

impl Course {
    fn hears(&mut self, sent: Instant) {
        self.heard += 1;
        self.rests_until = sent + self.breath();
    }

    /// Between two looks at least.
    fn breath(&self) -> Duration {
        const SHARE: u32 = 64;
        self.period / SHARE
    }

    /// Resolves what is listed whole, remembers it and where it lies, and says which of it is new. Of a
    /// low-latency playlist viewers want the parts; who wants whole segments is behind, and asks for them.
    fn list(
        &mut self,
        entry: &Entry,
        rules: &Rules,
        listing: &Listing,
        low_latency: bool,
        is_delta: bool,
    ) -> Vec<Entry> {
        let segments = &listing.segments[..if low_latency {
            0
        } else {
            listing.segments.len()
        }];
        let listed = listing.inits.iter().chain(segments).chain(&listing.parts);
        let whole = listed.filter(|listed| listed.range.is_none());
        let before = std::mem::take(&mut self.listed);
        if is_delta && before.len() < LISTED_MAX {
            // What it leaves out is listed all the same.
            self.listed.clone_from(&before);
        }
        let mut new = Vec::new();
        for Listed { uri, .. } in whole {
            let fingerprint = self.hasher.hash_one(uri);
            if !self.listed.insert(fingerprint) || before.contains(&fingerprint) {
                continue;
            }
            if let Some(sibling) = entry.sibling(rules, uri) {
                self.lies_in(sibling.place());
                new.push(sibling);
            }
        }
        // Segments that are not fetched ahead have their place all the same.
        let last = listing.segments.last().filter(|_| low_latency);
        if let Some(sibling) = last.and_then(|last| entry.sibling(rules, &last.uri)) {
            self.lies_in(sibling.place());
        }
        new
    }

    fn lies_in(&mut self, place: Key) {
        if !self.places.contains(&place) {
            self.places.push(place);
        }
    }

    /// What is announced now, and what is no more.
    fn hint(
        &mut self,
        entry: &Entry,
        rules: &Rules,
        listing: &Listing,
    ) -> (Vec<Hint>, Vec<(Entry, bool)>) {
        let mut past = std::mem::take(&mut self.hints);
        let mut hinted = Vec::new();
        for Listed { uri, range, .. } in &listing.coming {
            let Some(entry) = entry.sibling(rules, uri) else {
                continue;
            };
            let whole = range.is_none();
            self.hints.push((entry.clone(), whole));
            hinted.push(Hint {
                new: past.iter().all(|(before, _)| before.key != entry.key),
                whole,
                entry,
            });
        }
        let still = |key: &Key| self.hints.iter().any(|(hint, _)| hint.key == *key);
        past.retain(|(entry, _)| !still(&entry.key));
        (hinted, past)
    }
}
