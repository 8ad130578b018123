//! Should an endpoint be left alone for a while, going by the requests it was sent? It is ejected
//! after failures in a row, when another endpoint had to answer too many of them, when it is silent
//! while another endpoint answers, or when it is much slower than its peers; for longer each time.
//!
//! Knows one endpoint; of its peers only what it is told.

use std::time::{Duration, Instant};

use super::window::SlidingWindow;
use super::{EndpointFault, FailureSubject};

/// Over how long failures are counted that another endpoint made good …
const MADE_GOOD_WITHIN: Duration = Duration::from_secs(10);
/// … how many URLs at most, and which share of all requests is too much.
const MADE_GOOD_MAX: usize = 64;
const MADE_GOOD_SHARE: f64 = 0.1;

/// So many directories whose answers failed are remembered.
const BAD_DIRECTORIES_MAX: usize = 32;

/// What gets an endpoint ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Failures in a row, one per URL. One is enough for an endpoint that has not succeeded since its
    /// return.
    pub failures: u32,
    /// Silent is when, for so long, it answered nothing at all while others answered in its place.
    pub silence: Duration,
    /// Slow is when the median is more than so many times the peers' median ...
    pub slow_factor: f64,
    /// ... and more than this.
    pub slow_floor: Duration,
    /// Judgements in a row that it is slow.
    pub slow_judgements: u32,
    /// How far apart judgements are, at least; whoever asks for them keeps to it.
    pub judged_every: Duration,
    /// For how long the first time. Times the number of ejections in a row; the number goes down
    /// by one with a success after each such time without ejection.
    pub base: Duration,
    /// For how long at most.
    pub max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            failures: 5,
            silence: Duration::from_millis(400),
            slow_factor: 4.0,
            slow_floor: Duration::from_millis(500),
            slow_judgements: 3,
            judged_every: Duration::from_secs(1),
            base: Duration::from_secs(5),
            max: Duration::from_mins(1),
        }
    }
}

/// Whether an endpoint may be ejected while so many others stand: the last one may not, for one that
/// may fail is better than none.
///
/// Two that are judged in the same instant may each count the other. Whoever owns them judges one at
/// a time, or falls back on the ejected where nobody stands.
fn may_eject(others_standing: usize) -> bool {
    others_standing > 0
}

/// The middle one of some times, the shorter of two.
pub(in crate::upstream) fn median(times: &mut [Duration]) -> Option<Duration> {
    times.sort_unstable();
    let middle = times.len().checked_sub(1)? / 2;
    times.get(middle).copied()
}

/// Judges one endpoint. What it hears of requests sent before the endpoint's last return is of the
/// time before, and changes nothing.
#[derive(Debug)]
pub(in crate::upstream) struct Ejection {
    settings: Settings,
    /// The URLs that failed in a row.
    failed: Vec<u64>,
    /// URLs that failed, and that another endpoint then answered well; and when.
    made_good: Vec<(u64, Instant)>,
    successes: Option<SlidingWindow>,
    /// Directories whose answers failed since something succeeded.
    bad_directories: Vec<u64>,
    /// When the first request was sent that another endpoint had to answer, and for which URL, while
    /// nothing was heard of this one since.
    silent_since: Option<(Instant, u64)>,
    /// Judgements in a row that it is slow.
    slow: u32,
    /// Ejections in a row.
    ejections: u32,
    /// No success since the last return.
    on_trial: bool,
    /// When it returns, or returned, from the last ejection.
    back: Option<Instant>,
    /// When the number of ejections in a row goes down next, if there is a success; none while it
    /// is zero.
    eased_from: Option<Instant>,
    ejected_total: u64,
}

impl Ejection {
    /// It is back, and has not succeeded since.
    pub(in crate::upstream) fn on_trial(&self) -> bool {
        self.on_trial
    }

    pub(in crate::upstream) fn new(settings: Settings) -> Ejection {
        Ejection {
            settings,
            failed: Vec::new(),
            made_good: Vec::new(),
            successes: None,
            bad_directories: Vec::new(),
            silent_since: None,
            slow: 0,
            ejections: 0,
            on_trial: false,
            back: None,
            eased_from: None,
            ejected_total: 0,
        }
    }

    /// Until when it is ejected, if it is.
    pub(in crate::upstream) fn until(&self, now: Instant) -> Option<Instant> {
        self.back.filter(|&back| now < back)
    }

    /// How often it was ejected.
    pub(in crate::upstream) fn ejected_total(&self) -> u64 {
        self.ejected_total
    }

    /// A request that was sent at `asked` succeeded.
    pub(in crate::upstream) fn succeeded(&mut self, now: Instant, asked: Instant) {
        if self.is_past(asked) {
            return;
        }
        self.failed.clear();
        self.bad_directories.clear();
        self.silent_since = None;
        self.on_trial = false;
        let successes = self.successes(now).slice(now);
        successes.all = successes.all.saturating_add(1);
        if self.eased_from.is_some_and(|from| now >= from) {
            self.ejections -= 1;
            self.eased_from = (self.ejections > 0).then(|| now + self.settings.base);
        }
    }

    /// A request that was sent at `asked` failed, and so many other endpoints stand. Says until
    /// when the endpoint is ejected for that.
    pub(in crate::upstream) fn failed(
        &mut self,
        now: Instant,
        asked: Instant,
        others_standing: usize,
        (subject, fault): (FailureSubject, EndpointFault),
    ) -> Option<Instant> {
        if self.is_past(asked) {
            return None;
        }
        let known = self.bad_directories.contains(&subject.directory);
        if !fault.is_silence() && !known {
            if self.bad_directories.len() == BAD_DIRECTORIES_MAX {
                self.bad_directories.remove(0);
            }
            self.bad_directories.push(subject.directory);
        }
        if self.on_trial {
            // It answers. What failed before its return may fail still: that is no relapse.
            let unrelated = fault.is_of_url() || (!fault.is_silence() && known);
            return (!unrelated && may_eject(others_standing)).then(|| self.eject(now));
        }
        let needed = usize::try_from(self.settings.failures).unwrap_or(usize::MAX);
        if self.failed.len() < needed && !self.failed.contains(&subject.url) {
            self.failed.push(subject.url);
        }
        let enough = self.failed.len() >= needed;
        (enough && may_eject(others_standing)).then(|| self.eject(now))
    }

    /// A request that was sent at `asked` failed here, and another endpoint answered it well: what it
    /// was for is not to blame. Says until when the endpoint is ejected for that.
    pub(in crate::upstream) fn made_good(
        &mut self,
        now: Instant,
        asked: Instant,
        others_standing: usize,
        subject: FailureSubject,
    ) -> Option<Instant> {
        if self.is_past(asked) {
            return None;
        }
        self.made_good.retain(|&(url, at)| {
            url != subject.url && now.saturating_duration_since(at) < MADE_GOOD_WITHIN
        });
        if self.made_good.len() == MADE_GOOD_MAX {
            self.made_good.remove(0);
        }
        self.made_good.push((subject.url, now));
        let failed = u32::try_from(self.made_good.len()).unwrap_or(u32::MAX);
        let succeeded = f64::from(self.successes(now).tally(now).all);
        let too_much = f64::from(failed) >= (f64::from(failed) + succeeded) * MADE_GOOD_SHARE;
        let enough = failed >= self.settings.failures.max(1) && too_much;
        (enough && may_eject(others_standing)).then(|| self.eject(now))
    }

    fn successes(&mut self, now: Instant) -> &mut SlidingWindow {
        let new = || SlidingWindow::new(MADE_GOOD_WITHIN, now);
        self.successes.get_or_insert_with(new)
    }

    /// It said something.
    pub(in crate::upstream) fn heard(&mut self) {
        self.silent_since = None;
    }

    /// Another endpoint answered what this one was asked at `asked` and has not answered yet. Says
    /// until when the endpoint is ejected, if it has been silent for too long, and to more than one
    /// URL: one may be slow by itself.
    pub(in crate::upstream) fn outdone(
        &mut self,
        now: Instant,
        asked: Instant,
        others_standing: usize,
        subject: FailureSubject,
    ) -> Option<Instant> {
        if self.is_past(asked) {
            return None;
        }
        let (since, first) = *self.silent_since.get_or_insert((asked, subject.url));
        let silent = now.saturating_duration_since(since) >= self.settings.silence;
        (silent && subject.url != first && may_eject(others_standing)).then(|| self.eject(now))
    }

    /// The median of its response times is compared with its peers': now and then, not for each
    /// request. Says until when the endpoint is ejected for that; its old response times are then
    /// best forgotten.
    pub(in crate::upstream) fn judged(
        &mut self,
        now: Instant,
        own: Duration,
        peers: Duration,
        others_standing: usize,
    ) -> Option<Instant> {
        if self.until(now).is_some() {
            return None;
        }
        let Settings {
            slow_factor,
            slow_floor,
            slow_judgements,
            ..
        } = self.settings;
        let out_of_line = own.as_secs_f64() > peers.as_secs_f64() * slow_factor;
        self.slow = if out_of_line && own > slow_floor {
            self.slow.saturating_add(1)
        } else {
            0
        };
        let enough = self.slow > 0 && self.slow >= slow_judgements;
        (enough && may_eject(others_standing)).then(|| self.eject(now))
    }

    fn is_past(&self, asked: Instant) -> bool {
        self.back.is_some_and(|back| asked < back)
    }

    fn eject(&mut self, now: Instant) -> Instant {
        self.failed.clear();
        self.made_good.clear();
        self.silent_since = None;
        self.slow = 0;
        self.on_trial = true;
        self.ejections = self.ejections.saturating_add(1);
        self.ejected_total += 1;
        let Settings { base, max, .. } = self.settings;
        let back = now + base.saturating_mul(self.ejections).min(max);
        self.back = Some(back);
        self.eased_from = Some(back + base);
        back
    }
}

#[cfg(test)]
mod tests;
