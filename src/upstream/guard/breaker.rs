//! Is an endpoint worth asking, or would it only fail again? Closed while it answers anything well;
//! open when everything fails; then one request at a time tries whether it answers again.
//!
//! A shield asks an endpoint seldom, so one URL or one channel that fails may be most of what the
//! endpoint is asked for. So votes are counted by URL, answers that fail must come from several
//! directories, and an open breaker still lets a request pass for a directory that has not failed.
//!
//! It hands out passes and is told what became of them. It has no clock and does no I/O.

#[cfg(test)]
mod tests;
mod votes;

use std::time::{Duration, Instant};

use super::window::SlidingWindow;
use super::{EndpointFault, FailureSubject};
use votes::Votes;

/// After a probe that came to nothing, the next goes no sooner.
const LOST_WAIT_MIN: Duration = Duration::from_millis(100);

/// When an endpoint is given up, and how soon it is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Opens when at least this share of what came back is failures, each failed URL counted once:
    /// 1 is when nothing succeeds, more than 1 is never.
    pub error_share: f64,
    /// Over how long the share is taken.
    pub window: Duration,
    /// So many URLs must have failed. Errors that speak of a URL rather than of the endpoint count
    /// half.
    pub requests_min: u32,
    /// How long after opening a first probe may go. Doubles with each probe that fails, and with
    /// each opening that follows a closing within two windows.
    pub probe_after: Duration,
    /// Between two probes at most. Bounds how long an origin that came back goes unnoticed, so it
    /// is best well under two seconds.
    pub probe_after_max: Duration,
    /// A probe without a verdict for so long no longer keeps others from trying. (It may be a
    /// request that the origin answers late by intent, such as a blocking playlist request.) Its
    /// success still closes the breaker.
    pub probe_patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            error_share: 1.0,
            window: Duration::from_secs(10),
            requests_min: 10,
            probe_after: Duration::from_millis(500),
            probe_after_max: Duration::from_secs(1),
            probe_patience: Duration::from_secs(2),
        }
    }
}

/// How a breaker stands. Also a metric label and a word of the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Requests pass.
    Closed,
    /// Requests are refused.
    Open {
        /// From then on one may pass as a probe.
        until: Instant,
    },
    /// A probe is on its way, the others are refused.
    Probing {
        /// From then on another may pass, whatever became of this one.
        until: Instant,
    },
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::Probing { .. } => "probing",
        }
    }
}

/// What a request would be told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum BreakerOutlook {
    /// It would pass.
    Clear,
    /// It would pass as a probe, and its asker would wait for an endpoint that is likely dead.
    ProbeDue,
    /// It would be refused.
    Refused { until: Instant },
}

/// What a request is told.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(in crate::upstream) enum BreakerDecision {
    /// It may go.
    Yes(BreakerPass),
    /// It may go, and all others wait for what becomes of it.
    Probe(BreakerPass),
    /// It may not.
    No { until: Instant },
}

/// Leave to ask, once. Ends in [`Breaker::record`], [`Breaker::lost`] or [`Breaker::returned`];
/// what is heard of a pass from before the last opening or closing says nothing about the present,
/// and changes nothing.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(in crate::upstream) struct BreakerPass {
    round: u64,
    /// It was given while the breaker was open, for a directory that had not failed.
    spared: bool,
}

/// The state that a breaker has just changed to. Worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum BreakerTransition {
    /// So many URLs of so many directories failed, while so many requests succeeded.
    Opened {
        urls: usize,
        directories: usize,
        successes: u32,
    },
    /// It answers again.
    Closed,
}

/// Judges one endpoint.
#[derive(Debug)]
pub(in crate::upstream) struct Breaker {
    settings: Settings,
    /// Requests that succeeded.
    successes: SlidingWindow,
    votes: Votes,
    state: State,
    /// The number on passes: another one after each opening and closing, and for each probe.
    round: u64,
    /// Passes numbered higher than this, while not closed, are probes of this outage.
    opened_in: u64,
    wait: Duration,
    closed_at: Option<Instant>,
    opened_total: u64,
}

impl Breaker {
    pub(in crate::upstream) fn new(settings: Settings, now: Instant) -> Breaker {
        Breaker {
            settings,
            successes: SlidingWindow::new(settings.window, now),
            votes: Votes::new(settings.window),
            state: State::Closed,
            round: 0,
            opened_in: 0,
            wait: Duration::ZERO,
            closed_at: None,
            opened_total: 0,
        }
    }

    /// What [`Breaker::admit`] would say, without taking the probe's place: for choosing among
    /// endpoints.
    pub(in crate::upstream) fn outlook(&self, now: Instant) -> BreakerOutlook {
        match self.state {
            State::Closed => BreakerOutlook::Clear,
            State::Open { until } | State::Probing { until } if now < until => {
                BreakerOutlook::Refused { until }
            }
            State::Open { .. } | State::Probing { .. } => BreakerOutlook::ProbeDue,
        }
    }

    /// The same for a request for something: an open breaker spares what has not failed.
    pub(in crate::upstream) fn outlook_for(
        &self,
        subject: FailureSubject,
        now: Instant,
    ) -> BreakerOutlook {
        match self.outlook(now) {
            BreakerOutlook::Refused { .. } if !self.votes.implicates(subject, now) => {
                BreakerOutlook::Clear
            }
            outlook => outlook,
        }
    }

    /// Asks for leave.
    pub(in crate::upstream) fn admit(
        &mut self,
        subject: FailureSubject,
        now: Instant,
    ) -> BreakerDecision {
        match self.outlook_for(subject, now) {
            BreakerOutlook::Clear => BreakerDecision::Yes(BreakerPass {
                round: self.round,
                spared: self.state != State::Closed,
            }),
            BreakerOutlook::Refused { until } => BreakerDecision::No { until },
            BreakerOutlook::ProbeDue => {
                self.round += 1;
                let until = now + self.settings.probe_patience;
                self.state = State::Probing { until };
                BreakerDecision::Probe(BreakerPass {
                    round: self.round,
                    spared: false,
                })
            }
        }
    }

    /// A pass ended well.
    pub(in crate::upstream) fn succeeded(
        &mut self,
        BreakerPass { round, spared }: BreakerPass,
        now: Instant,
    ) -> Option<BreakerTransition> {
        let of_this_outage = if spared {
            round >= self.opened_in
        } else {
            round > self.opened_in
        };
        match self.state {
            State::Closed => {
                if round == self.round {
                    self.count_success(now);
                }
                None
            }
            State::Open { .. } | State::Probing { .. } if of_this_outage => {
                self.close(now);
                Some(BreakerTransition::Closed)
            }
            State::Open { .. } | State::Probing { .. } => None,
        }
    }

    /// A pass for something ended in a failure.
    pub(in crate::upstream) fn failed(
        &mut self,
        BreakerPass { round, spared }: BreakerPass,
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
                if spared || round >= self.opened_in {
                    self.votes.cast(subject, fault, now);
                }
                let probes = matches!(self.state, State::Probing { .. });
                if probes && !spared && round == self.round {
                    self.wait = self.longer_wait();
                    self.state = self.open_for_a_while(now);
                }
                None
            }
        }
    }

    /// A pass ended without a verdict: its asker left. If it was the probe, the next waits as long
    /// as this one had to: those who leave early are no reason to ask a sick endpoint at the pace
    /// they come.
    pub(in crate::upstream) fn lost(&mut self, pass: BreakerPass, now: Instant) {
        let wait = self.wait.max(LOST_WAIT_MIN);
        self.vacate(pass, now + wait);
    }

    /// A pass comes back as good as unused: it told nothing of what viewers ask for. If it was the
    /// probe, one of theirs may go at once.
    pub(in crate::upstream) fn returned(&mut self, pass: BreakerPass, now: Instant) {
        self.vacate(pass, now);
    }

    fn vacate(&mut self, BreakerPass { round, spared }: BreakerPass, until: Instant) {
        let probes = matches!(self.state, State::Probing { .. }) && !spared;
        if probes && round == self.round {
            self.state = State::Open { until };
        }
    }

    /// How it stands.
    pub(in crate::upstream) fn state(&self) -> State {
        self.state
    }

    /// How often it opened after having been closed.
    pub(in crate::upstream) fn opened_total(&self) -> u64 {
        self.opened_total
    }

    fn count_success(&mut self, now: Instant) {
        let slice = self.successes.slice(now);
        slice.all = slice.all.saturating_add(1);
    }

    /// Only a failure opens: an endpoint that has just answered is not given up.
    fn judge(&mut self, now: Instant) -> Option<BreakerTransition> {
        if !self.votes.carry(self.settings.requests_min, now) {
            return None;
        }
        let successes = self.successes.tally(now).all;
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

    /// It closed not long ago. In the first window after that it does not open easily: the success
    /// that closed it counts.
    fn relapses(&self, now: Instant) -> bool {
        let lately = self.settings.window * 2;
        self.closed_at.is_some_and(|closed| now < closed + lately)
    }

    fn open(&mut self, now: Instant) {
        self.wait = if self.relapses(now) {
            self.longer_wait()
        } else {
            let first = self.settings.probe_after;
            first.min(self.settings.probe_after_max)
        };
        self.round += 1;
        self.opened_in = self.round;
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
        // Whatever fails next: this one succeeded.
        self.count_success(now);
    }

    fn longer_wait(&self) -> Duration {
        let doubled = self.wait.saturating_mul(2);
        doubled.min(self.settings.probe_after_max)
    }
}
