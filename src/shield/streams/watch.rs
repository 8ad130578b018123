//! What is known of one live manifest, from version to version?

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::stream::Stream;
use crate::cache::Attention;
use crate::media::{Facts, Listing, Liveness, Manifest};
use crate::policy::access::Entry;
use crate::policy::cadence::Cadence;
use crate::policy::progress::{Progress, Track};
use crate::policy::{Key, Rules};

/// When nobody has asked for so many periods, nobody watches any more.
const UNASKED_PERIODS: u32 = 3;
/// What was listed so many periods ago is not new any more: players start about there.
const NEW_PERIODS: u32 = 3;
/// An endpoint that gave something unfit is asked last for so many periods.
const AVOIDED_PERIODS: u32 = 5;

/// One manifest that has been asked for.
pub(in crate::shield) struct Watch {
    /// How it is asked for.
    pub(in crate::shield) entry: Entry,
    pub(in crate::shield) attention: Arc<Attention>,
    pub(super) stream: Arc<Stream>,
    course: Mutex<Course>,
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
    /// Fingerprints of what the last version listed, and where that lies.
    listed: HashSet<u64, ahash::RandomState>,
    places: Vec<Key>,
    hasher: ahash::RandomState,
    ended: bool,
}

/// What a version brought.
pub(in crate::shield) struct News {
    /// What it lists that the one before did not; nothing for the first version.
    pub(in crate::shield) coming: Vec<Entry>,
    /// So long that counts as new.
    pub(in crate::shield) new_until: Instant,
    /// When it was found.
    pub(in crate::shield) found: Instant,
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
                listed: HashSet::default(),
                places: Vec::new(),
                hasher: ahash::RandomState::new(),
                ended: false,
            }),
        }
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

    /// A version that is shown from now on, found by a look that was sent then.
    pub(in crate::shield) fn takes(
        &self,
        rules: &Rules,
        Manifest { facts, listing }: &Manifest,
        progress: Progress,
        sent: Instant,
    ) -> News {
        let mut course = self.course.lock();
        let first = course.listed.is_empty();
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
        let mut coming = course.list(&self.entry, rules, listing);
        if first {
            coming.clear();
        }
        if progress != Progress::Same {
            self.stream.grew(1 + coming.len() as u64);
        }
        News {
            coming,
            new_until: sent + course.period * NEW_PERIODS,
            found: sent,
            places: course.places[known..].to_vec(),
            left,
        }
    }

    /// When to look at it next; `None` once nobody watches, or it has ended.
    pub(in crate::shield) fn next_look(&self, now: Instant) -> Option<Instant> {
        let course = self.course.lock();
        let idle = self.entry.route.live.idle;
        let patience = (course.period * UNASKED_PERIODS).max(idle);
        let unasked = self.attention.unasked_for(now)?;
        let until = course.good_until?;
        let watched = unasked < patience && !course.ended && !course.period.is_zero();
        // However short the origin says that it is good.
        let until = until.max(course.rests_until + course.period / 8);
        let next = course.cadence.next().min(until);
        watched.then(|| next.max(course.rests_until))
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

    /// Resolves what is listed whole, remembers it and where it lies, and says which of it is new.
    fn list(&mut self, entry: &Entry, rules: &Rules, listing: &Listing) -> Vec<Entry> {
        let Listing {
            inits,
            segments,
            parts,
            coming,
            ..
        } = listing;
        let segments = inits.iter().chain(segments).chain(parts).chain(coming);
        let whole = segments.filter(|listed| listed.range.is_none());
        let names = whole.map(|listed| &listed.uri);
        let before = std::mem::take(&mut self.listed);
        let mut new = Vec::new();
        for name in names {
            let fingerprint = self.hasher.hash_one(name);
            if !self.listed.insert(fingerprint) || before.contains(&fingerprint) {
                continue;
            }
            if let Some(sibling) = entry.sibling(rules, name) {
                let place = sibling.place();
                if !self.places.contains(&place) {
                    self.places.push(place);
                }
                new.push(sibling);
            }
        }
        new
    }
}
