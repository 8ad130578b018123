//! Circuit breaker of one endpoint. By default it stays closed while any request succeeds, and
//! opens when all of them fail. While it is open, one probe at a time tests whether the endpoint
//! has recovered.
//!
//! A shield sends few requests to an endpoint, so one failing URL or channel may be most of the
//! traffic. Therefore failures are counted once per URL, error responses must come from several
//! directories, and an open breaker still admits a request for a directory that has not failed.
//!
//! The breaker has no clock and does no I/O.

#[cfg(test)]
mod tests;
mod votes;

use std::time::{Duration, Instant};

use super::window::SlidingWindow;
use super::{EndpointFault, FailureSubject};
use votes::Votes;

/// Minimum wait before the next probe after a probe ended without a result.
const LOST_WAIT_MIN: Duration = Duration::from_millis(100);

/// When the breaker opens, and how soon it sends a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Opens when failures are at least this share of all results, each failed URL counted once. 1
    /// means when nothing succeeds; a value above 1 means never.
    pub error_share: f64,
    /// The period over which the share is measured.
    pub window: Duration,
    /// Number of URLs that must have failed. Errors that concern the URL rather than the endpoint
    /// count half.
    pub failed_urls_min: u32,
    /// Wait between opening and the first probe. Doubles with each failed probe, and with each
    /// opening within two windows after a closing.
    pub probe_after: Duration,
    /// Maximum wait between two probes. This is how long a recovered origin may go unnoticed, so it
    /// should be well under two seconds.
    pub probe_after_max: Duration,
    /// After this time a probe without a result no longer keeps the next probe from being sent. (It
    /// may be a blocking request, which the origin answers when the object exists.) If the late
    /// probe succeeds, it still closes the breaker.
    pub probe_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            error_share: 1.0,
            window: Duration::from_secs(10),
            failed_urls_min: 10,
            probe_after: Duration::from_millis(500),
            probe_after_max: Duration::from_secs(1),
            probe_timeout: Duration::from_secs(2),
        }
    }
}

/// The breaker's state. Also a metric label and a word of the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Requests are admitted.
    Closed,
    /// Requests are refused, except for probes, and for directories in which nothing failed.
    Open {
        /// When the next request may be admitted as a probe.
        until: Instant,
    },
    /// A probe is in progress; other requests are refused as while open.
    Probing {
        /// When another probe may be admitted, even if this one has no result.
        until: Instant,
    },
}

impl State {
    /// The state's name, as used in metrics and on the status page.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::Probing { .. } => "probing",
        }
    }
}

/// What [`Breaker::admit`] would decide now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BreakerOutlook {
    /// The request would be admitted.
    Clear,
    /// The request would be admitted as a probe, and would wait for an endpoint that is probably
    /// down.
    ProbeDue,
    /// The request would be refused.
    Refused { until: Instant },
}

/// The breaker's decision about one request.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum BreakerDecision {
    /// Admitted.
    Admit(BreakerAdmission),
    /// Admitted as a probe; other requests are refused until it has a result.
    Probe(BreakerAdmission),
    /// Refused.
    Refuse { until: Instant },
}

/// The admission of one request. It ends in [`Breaker::record_success`],
/// [`Breaker::record_failure`], [`Breaker::record_abandoned`] or [`Breaker::release`]. Results of
/// admissions from before the last opening or closing are out of date and change nothing.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct BreakerAdmission {
    round: u64,
    /// Issued while the breaker was open, for a directory that had not failed.
    admitted_while_open: bool,
}

/// A state change, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BreakerTransition {
    /// The number of failed URLs, of their directories, and of successes in the window.
    Opened {
        urls: usize,
        directories: usize,
        successes: u32,
    },
    /// The endpoint responds again.
    Closed,
}

/// The circuit breaker of one endpoint.
#[derive(Debug)]
pub(crate) struct Breaker {
    settings: Settings,
    /// Successful requests.
    successes: SlidingWindow,
    votes: Votes,
    state: State,
    /// The number given to new admissions. Increases with each opening, closing and probe.
    round: u64,
    /// While the breaker is not closed, admissions with a higher number are probes of this outage.
    outage_round: u64,
    wait: Duration,
    closed_at: Option<Instant>,
    opened_total: u64,
}

impl Breaker {
    pub(crate) fn new(settings: Settings, now: Instant) -> Breaker {
        Breaker {
            settings,
            successes: SlidingWindow::new(settings.window, now),
            votes: Votes::new(settings.window),
            state: State::Closed,
            round: 0,
            outage_round: 0,
            wait: Duration::ZERO,
            closed_at: None,
            opened_total: 0,
        }
    }

    /// Uses other thresholds from now on. What was counted stays: an open breaker stays open.
    pub(crate) fn set_settings(&mut self, settings: Settings, now: Instant) {
        if settings.window != self.settings.window {
            self.successes.set_span(settings.window, now);
            self.votes.set_window(settings.window);
        }
        self.wait = self.wait.min(settings.probe_after_max);
        self.settings = settings;
    }

    /// What [`Breaker::admit`] would decide, without starting a probe. Used to choose an endpoint.
    pub(crate) fn outlook(&self, now: Instant) -> BreakerOutlook {
        match self.state {
            State::Closed => BreakerOutlook::Clear,
            State::Open { until } | State::Probing { until } if now < until => {
                BreakerOutlook::Refused { until }
            }
            State::Open { .. } | State::Probing { .. } => BreakerOutlook::ProbeDue,
        }
    }

    /// The same for one subject: an open breaker admits requests for directories that have not
    /// failed.
    pub(crate) fn outlook_for(&self, subject: FailureSubject, now: Instant) -> BreakerOutlook {
        match self.outlook(now) {
            BreakerOutlook::Refused { .. } if !self.votes.has_failed_directory(subject, now) => {
                BreakerOutlook::Clear
            }
            outlook => outlook,
        }
    }

    /// Decides whether a request may be sent.
    pub(crate) fn admit(&mut self, subject: FailureSubject, now: Instant) -> BreakerDecision {
        match self.outlook_for(subject, now) {
            BreakerOutlook::Clear => BreakerDecision::Admit(BreakerAdmission {
                round: self.round,
                admitted_while_open: self.state != State::Closed,
            }),
            BreakerOutlook::Refused { until } => BreakerDecision::Refuse { until },
            BreakerOutlook::ProbeDue => {
                self.round += 1;
                let until = now + self.settings.probe_timeout;
                self.state = State::Probing { until };
                BreakerDecision::Probe(BreakerAdmission {
                    round: self.round,
                    admitted_while_open: false,
                })
            }
        }
    }

    /// Records that a request succeeded.
    pub(crate) fn record_success(
        &mut self,
        BreakerAdmission {
            round,
            admitted_while_open,
        }: BreakerAdmission,
        now: Instant,
    ) -> Option<BreakerTransition> {
        let is_of_this_outage = if admitted_while_open {
            round >= self.outage_round
        } else {
            round > self.outage_round
        };
        match self.state {
            State::Closed => {
                if round == self.round {
                    self.count_success(now);
                }
                None
            }
            State::Open { .. } | State::Probing { .. } if is_of_this_outage => {
                self.close(now);
                Some(BreakerTransition::Closed)
            }
            State::Open { .. } | State::Probing { .. } => None,
        }
    }

    /// Records that a request failed.
    pub(crate) fn record_failure(
        &mut self,
        BreakerAdmission {
            round,
            admitted_while_open,
        }: BreakerAdmission,
        now: Instant,
        (subject, fault): (FailureSubject, EndpointFault),
    ) -> Option<BreakerTransition> {
        match self.state {
            State::Closed if round == self.round => {
                self.votes.cast(subject, fault, now);
                self.judge(now)
            }
            State::Closed => None,
            State::Open { .. } | State::Probing { .. } => {
                if admitted_while_open || round >= self.outage_round {
                    self.votes.cast(subject, fault, now);
                }
                let is_probing = matches!(self.state, State::Probing { .. });
                if is_probing && !admitted_while_open && round == self.round {
                    self.wait = self.next_wait();
                    self.state = self.open_for_a_while(now);
                }
                None
            }
        }
    }

    /// Records that a request ended without a result because its client left. If it was the probe,
    /// the next probe waits again, so that clients that leave early do not raise the probe rate of
    /// a failing endpoint.
    pub(crate) fn record_abandoned(&mut self, admission: BreakerAdmission, now: Instant) {
        let wait = self.wait.max(LOST_WAIT_MIN);
        self.end_probe(admission, now + wait);
    }

    /// Takes back an admission whose request says nothing about viewers' requests. If it was the
    /// probe, the next request may be a probe at once.
    pub(crate) fn release(&mut self, admission: BreakerAdmission, now: Instant) {
        self.end_probe(admission, now);
    }

    fn end_probe(
        &mut self,
        BreakerAdmission {
            round,
            admitted_while_open,
        }: BreakerAdmission,
        until: Instant,
    ) {
        let is_probe = matches!(self.state, State::Probing { .. }) && !admitted_while_open;
        if is_probe && round == self.round {
            self.state = State::Open { until };
        }
    }

    /// The current state.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Number of times the breaker opened after being closed.
    pub(crate) fn opened_total(&self) -> u64 {
        self.opened_total
    }

    fn count_success(&mut self, now: Instant) {
        let slice = self.successes.slice(now);
        slice.all = slice.all.saturating_add(1);
    }

    /// Called only after a failure, so that the breaker never opens right after a success.
    fn judge(&mut self, now: Instant) -> Option<BreakerTransition> {
        if !self.votes.is_decisive(self.settings.failed_urls_min, now) {
            return None;
        }
        let successes = self.successes.counts(now).all;
        let failed = f64::from(self.votes.weight());
        let all = failed + f64::from(successes);
        if failed < all * self.settings.error_share {
            return None;
        }
        self.open(now);
        Some(BreakerTransition::Opened {
            urls: self.votes.urls(),
            directories: self.votes.directories(),
            successes,
        })
    }

    /// Whether the breaker closed within the last two windows. In the first of them it opens less
    /// easily, because the success that closed it still counts.
    fn closed_recently(&self, now: Instant) -> bool {
        let lately = self.settings.window * 2;
        self.closed_at.is_some_and(|closed| now < closed + lately)
    }

    fn open(&mut self, now: Instant) {
        self.wait = if self.closed_recently(now) {
            self.next_wait()
        } else {
            let first = self.settings.probe_after;
            first.min(self.settings.probe_after_max)
        };
        self.round += 1;
        self.outage_round = self.round;
        self.opened_total += 1;
        self.state = self.open_for_a_while(now);
    }

    fn open_for_a_while(&self, now: Instant) -> State {
        let until = now + self.wait;
        State::Open { until }
    }

    fn close(&mut self, now: Instant) {
        self.round += 1;
        self.state = State::Closed;
        self.closed_at = Some(now);
        self.successes.clear(now);
        self.votes.clear();
        // The success that closed the breaker counts against the next failures.
        self.count_success(now);
    }

    fn next_wait(&self) -> Duration {
        let doubled = self.wait.saturating_mul(2);
        doubled.min(self.settings.probe_after_max)
    }
}
