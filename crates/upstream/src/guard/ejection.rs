//! Outlier ejection: removes an endpoint from selection for a time, judged by its requests. An
//! endpoint is ejected after consecutive failures, when another endpoint succeeds for too many of
//! its failed requests, when it is silent while another endpoint responds, or when it is much
//! slower than its peers. Each ejection in a row is longer.
//!
//! An instance knows one endpoint; the caller passes in what it needs of the peers.

use std::time::{Duration, Instant};

use super::window::SlidingWindow;
use super::{EndpointFault, FailureSubject};

/// How long a URL counts that failed here and succeeded at another endpoint.
const SUCCEEDED_ELSEWHERE_WINDOW: Duration = Duration::from_secs(10);
/// Maximum number of such URLs that are remembered.
const SUCCEEDED_ELSEWHERE_MAX: usize = 64;
/// An endpoint is ejected when such URLs are at least this share of all results.
const SUCCEEDED_ELSEWHERE_SHARE: f64 = 0.1;

/// Maximum number of remembered directories whose responses failed.
const BAD_DIRECTORIES_MAX: usize = 32;

/// What causes an ejection, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Consecutive failures, counted once per URL. An endpoint that has not succeeded since its
    /// return is ejected after one.
    pub failures: u32,
    /// An endpoint is silent when it sent nothing for this long while other endpoints responded
    /// instead.
    pub silence: Duration,
    /// An endpoint is slow when its median is more than this many times the peers' median ...
    pub slow_factor: f64,
    /// ... and longer than this.
    pub slow_min: Duration,
    /// Consecutive slow judgements that cause an ejection.
    pub slow_judgements: u32,
    /// Minimum time between judgements. The caller enforces it.
    pub judged_every: Duration,
    /// Duration of the first ejection, multiplied by the number of ejections in a row. A success
    /// lowers that number by one, at most once per `base` without an ejection.
    pub base: Duration,
    /// Maximum duration of an ejection.
    pub max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            failures: 5,
            silence: Duration::from_millis(400),
            slow_factor: 4.0,
            slow_min: Duration::from_millis(500),
            slow_judgements: 3,
            judged_every: Duration::from_secs(1),
            base: Duration::from_secs(5),
            max: Duration::from_mins(1),
        }
    }
}

/// Whether an endpoint may be ejected, given the number of other endpoints that are not. The last
/// one may not: an endpoint that may fail is better than none.
///
/// Two endpoints judged at the same instant may each count the other. The owner must judge one at a
/// time, or use ejected endpoints when no other is left.
fn may_eject(others_in_good_standing: usize) -> bool {
    others_in_good_standing > 0
}

/// The median; of an even number of times, the lower of the middle two.
pub(crate) fn median(times: &mut [Duration]) -> Option<Duration> {
    times.sort_unstable();
    let middle = times.len().checked_sub(1)? / 2;
    times.get(middle).copied()
}

/// Ejection state of one endpoint. Results of requests sent before the endpoint's last return are
/// out of date and change nothing.
#[derive(Debug)]
pub(crate) struct Ejection {
    settings: Settings,
    /// URLs that failed since the last success.
    failed_urls: Vec<u64>,
    /// URLs that failed here and then succeeded at another endpoint, and when.
    succeeded_elsewhere: Vec<(u64, Instant)>,
    successes: Option<SlidingWindow>,
    /// Directories whose responses failed since the last success.
    bad_directories: Vec<u64>,
    /// When the first request was sent for which another endpoint responded, and a hash of its URL.
    /// Cleared when this endpoint sends anything.
    silent_since: Option<(Instant, u64)>,
    /// Consecutive slow judgements.
    slow_judgements: u32,
    /// Ejections in a row.
    ejections: u32,
    /// No success since the last return.
    on_trial: bool,
    /// When the last ejection ends or ended.
    returns_at: Option<Instant>,
    /// From this time on, a success lowers the number of ejections in a row. `None` while that
    /// number is zero.
    next_decrease: Option<Instant>,
    ejected_total: u64,
}

impl Ejection {
    /// Whether the endpoint has not succeeded since its last ejection.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.on_trial
    }

    pub(crate) fn new(settings: Settings) -> Ejection {
        Ejection {
            settings,
            failed_urls: Vec::new(),
            succeeded_elsewhere: Vec::new(),
            successes: None,
            bad_directories: Vec::new(),
            silent_since: None,
            slow_judgements: 0,
            ejections: 0,
            on_trial: false,
            returns_at: None,
            next_decrease: None,
            ejected_total: 0,
        }
    }

    /// Uses other thresholds from now on. What was counted stays: an ejected endpoint stays ejected
    /// until the time that was set.
    pub(crate) fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The end of the current ejection, if the endpoint is ejected.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        self.returns_at.filter(|&back| now < back)
    }

    /// Number of ejections.
    pub(crate) fn ejected_total(&self) -> u64 {
        self.ejected_total
    }

    /// Records that a request sent at `sent_at` succeeded.
    pub(crate) fn record_success(&mut self, now: Instant, sent_at: Instant) {
        if self.is_out_of_date(sent_at) {
            return;
        }
        self.failed_urls.clear();
        self.bad_directories.clear();
        self.silent_since = None;
        self.on_trial = false;
        let successes = self.successes(now).slice(now);
        successes.all = successes.all.saturating_add(1);
        if self.next_decrease.is_some_and(|from| now >= from) {
            self.ejections -= 1;
            self.next_decrease = (self.ejections > 0).then(|| now + self.settings.base);
        }
    }

    /// Records that a request sent at `sent_at` failed while `others_in_good_standing` other
    /// endpoints are not ejected. Returns the end of the ejection if this caused one.
    pub(crate) fn record_failure(
        &mut self,
        now: Instant,
        sent_at: Instant,
        others_in_good_standing: usize,
        (subject, fault): (FailureSubject, EndpointFault),
    ) -> Option<Instant> {
        if self.is_out_of_date(sent_at) {
            return None;
        }
        let is_directory_known = self.bad_directories.contains(&subject.directory);
        if !fault.is_silence() && !is_directory_known {
            if self.bad_directories.len() == BAD_DIRECTORIES_MAX {
                self.bad_directories.remove(0);
            }
            self.bad_directories.push(subject.directory);
        }
        if self.on_trial {
            // If the endpoint responds, and what fails is one URL, or a directory that is known to
            // fail, that is no reason to eject it again.
            let is_relapse = !fault.is_of_url() && (fault.is_silence() || !is_directory_known);
            return self.eject_if(is_relapse, others_in_good_standing, now);
        }
        let needed = usize::try_from(self.settings.failures).unwrap_or(usize::MAX);
        if self.failed_urls.len() < needed && !self.failed_urls.contains(&subject.url) {
            self.failed_urls.push(subject.url);
        }
        let is_deserved = self.failed_urls.len() >= needed;
        self.eject_if(is_deserved, others_in_good_standing, now)
    }

    /// Records that a request sent at `sent_at` failed here and succeeded at another endpoint, so
    /// the requested object is not the cause. Returns the end of the ejection if this caused one.
    pub(crate) fn record_success_elsewhere(
        &mut self,
        now: Instant,
        sent_at: Instant,
        others_in_good_standing: usize,
        subject: FailureSubject,
    ) -> Option<Instant> {
        if self.is_out_of_date(sent_at) {
            return None;
        }
        self.succeeded_elsewhere.retain(|&(url, at)| {
            url != subject.url && now.saturating_duration_since(at) < SUCCEEDED_ELSEWHERE_WINDOW
        });
        if self.succeeded_elsewhere.len() == SUCCEEDED_ELSEWHERE_MAX {
            self.succeeded_elsewhere.remove(0);
        }
        self.succeeded_elsewhere.push((subject.url, now));
        let failed = u32::try_from(self.succeeded_elsewhere.len()).unwrap_or(u32::MAX);
        let succeeded = f64::from(self.successes(now).counts(now).all);
        let too_much =
            f64::from(failed) >= (f64::from(failed) + succeeded) * SUCCEEDED_ELSEWHERE_SHARE;
        let is_deserved = failed >= self.settings.failures.max(1) && too_much;
        self.eject_if(is_deserved, others_in_good_standing, now)
    }

    fn successes(&mut self, now: Instant) -> &mut SlidingWindow {
        let new = || SlidingWindow::new(SUCCEEDED_ELSEWHERE_WINDOW, now);
        self.successes.get_or_insert_with(new)
    }

    /// Records that the endpoint sent something.
    pub(crate) fn record_contact(&mut self) {
        self.silent_since = None;
    }

    /// Records that another endpoint responded to a request that this one was sent at `sent_at` and
    /// has not responded to yet. Returns the end of the ejection if the endpoint was silent for too
    /// long, for more than one URL (a single URL may be slow by itself).
    pub(crate) fn record_silence(
        &mut self,
        now: Instant,
        sent_at: Instant,
        others_in_good_standing: usize,
        subject: FailureSubject,
    ) -> Option<Instant> {
        if self.is_out_of_date(sent_at) {
            return None;
        }
        let (since, first) = *self.silent_since.get_or_insert((sent_at, subject.url));
        let is_silent = now.saturating_duration_since(since) >= self.settings.silence;
        let is_deserved = is_silent && subject.url != first;
        self.eject_if(is_deserved, others_in_good_standing, now)
    }

    /// Compares the median response time with that of the peers. Called periodically, not per
    /// request. Returns the end of the ejection if this caused one; the caller should then clear
    /// the old response times.
    pub(crate) fn judge_latency(
        &mut self,
        now: Instant,
        own: Duration,
        peers: Duration,
        others_in_good_standing: usize,
    ) -> Option<Instant> {
        if self.until(now).is_some() {
            return None;
        }
        let Settings {
            slow_factor,
            slow_min,
            slow_judgements: needed,
            ..
        } = self.settings;
        let is_outlier = own.as_secs_f64() > peers.as_secs_f64() * slow_factor;
        self.slow_judgements = if is_outlier && own > slow_min {
            self.slow_judgements.saturating_add(1)
        } else {
            0
        };
        let is_deserved = self.slow_judgements > 0 && self.slow_judgements >= needed;
        self.eject_if(is_deserved, others_in_good_standing, now)
    }

    fn is_out_of_date(&self, sent_at: Instant) -> bool {
        self.returns_at.is_some_and(|back| sent_at < back)
    }

    /// Ejects the endpoint if that is deserved and another endpoint is left. Returns the end of the
    /// ejection.
    fn eject_if(
        &mut self,
        is_deserved: bool,
        others_in_good_standing: usize,
        now: Instant,
    ) -> Option<Instant> {
        (is_deserved && may_eject(others_in_good_standing)).then(|| self.eject(now))
    }

    fn eject(&mut self, now: Instant) -> Instant {
        self.failed_urls.clear();
        self.succeeded_elsewhere.clear();
        self.silent_since = None;
        self.slow_judgements = 0;
        self.on_trial = true;
        self.ejections = self.ejections.saturating_add(1);
        self.ejected_total += 1;
        let Settings { base, max, .. } = self.settings;
        let back = now + base.saturating_mul(self.ejections).min(max);
        self.returns_at = Some(back);
        self.next_decrease = Some(back + base);
        back
    }
}

#[cfg(test)]
mod tests;
