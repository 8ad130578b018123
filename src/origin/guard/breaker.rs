//! Is an endpoint worth asking, or would it only fail again? Closed while few requests fail; open
//! when too many do; then one request at a time tries whether it answers again.
//!
//! Does not know what an error is, nor who asks: it hands out passes and hears what became of them.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::window::Window;

/// After a probe that came to nothing, the next goes no sooner.
const LOST_WAIT_MIN: Duration = Duration::from_millis(100);

/// When an endpoint is given up, and how soon it is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Opens when at least this share of the requests failed: 0.1 is one in ten, more than 1 never.
    pub error_share: f64,
    /// Over how long the share is taken.
    pub window: Duration,
    /// Fewer requests than this say nothing, except in the first window after it closed again.
    pub requests_min: u32,
    /// How long after opening a first probe may go. Doubles with each probe that fails, and with
    /// each opening that follows a closing within the window.
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
            error_share: 0.1,
            window: Duration::from_secs(10),
            requests_min: 20,
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
pub(in crate::origin) enum Outlook {
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
pub(in crate::origin) enum Admit {
    /// It may go.
    Yes(Pass),
    /// It may go, and all others wait for what becomes of it.
    Probe(Pass),
    /// It may not.
    No { until: Instant },
}

/// Leave to ask, once. Ends in [`Breaker::record`], [`Breaker::lost`] or [`Breaker::returned`];
/// what is heard of a pass from before the last opening or closing says nothing about the present,
/// and changes nothing.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(in crate::origin) struct Pass(u64);

/// Judges one endpoint.
#[derive(Debug)]
pub(in crate::origin) struct Breaker {
    settings: Settings,
    window: Window,
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
    pub(in crate::origin) fn new(settings: Settings, now: Instant) -> Breaker {
        Breaker {
            settings,
            window: Window::new(settings.window, now),
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
    pub(in crate::origin) fn outlook(&self, now: Instant) -> Outlook {
        match self.state {
            State::Closed => Outlook::Clear,
            State::Open { until } | State::Probing { until } if now < until => {
                Outlook::Refused { until }
            }
            State::Open { .. } | State::Probing { .. } => Outlook::ProbeDue,
        }
    }

    /// Asks for leave.
    pub(in crate::origin) fn admit(&mut self, now: Instant) -> Admit {
        match self.outlook(now) {
            Outlook::Clear => Admit::Yes(Pass(self.round)),
            Outlook::Refused { until } => Admit::No { until },
            Outlook::ProbeDue => {
                self.round += 1;
                let until = now + self.settings.probe_patience;
                self.state = State::Probing { until };
                Admit::Probe(Pass(self.round))
            }
        }
    }

    /// Hears what became of a pass.
    pub(in crate::origin) fn record(&mut self, Pass(round): Pass, now: Instant, ok: bool) {
        match self.state {
            State::Closed if round == self.round => self.count(now, ok),
            State::Closed => {}
            _ if ok && round > self.opened_in => self.close(now),
            State::Probing { .. } if !ok && round == self.round => {
                self.wait = self.longer_wait();
                self.state = self.open_for_a_while(now);
            }
            State::Open { .. } | State::Probing { .. } => {}
        }
    }

    /// A pass ended without a verdict: its asker left. If it was the probe, the next waits as long
    /// as this one had to: those who leave early are no reason to ask a sick endpoint at the pace
    /// they come.
    pub(in crate::origin) fn lost(&mut self, pass: Pass, now: Instant) {
        let wait = self.wait.max(LOST_WAIT_MIN);
        self.vacate(pass, now + wait);
    }

    /// A pass comes back as good as unused: it told nothing of what viewers ask for. If it was the
    /// probe, one of theirs may go at once.
    pub(in crate::origin) fn returned(&mut self, pass: Pass, now: Instant) {
        self.vacate(pass, now);
    }

    fn vacate(&mut self, Pass(round): Pass, until: Instant) {
        if matches!(self.state, State::Probing { .. }) && round == self.round {
            self.state = State::Open { until };
        }
    }

    /// How it stands.
    pub(in crate::origin) fn state(&self) -> State {
        self.state
    }

    /// How often it opened after having been closed.
    pub(in crate::origin) fn opened_total(&self) -> u64 {
        self.opened_total
    }

    /// Only an error opens: an endpoint that has just answered is not given up.
    fn count(&mut self, now: Instant, ok: bool) {
        let slice = self.window.slice(now);
        slice.all = slice.all.saturating_add(1);
        if ok {
            return;
        }
        slice.marked = slice.marked.saturating_add(1);
        let tally = self.window.tally(now);
        let tolerated = f64::from(tally.all) * self.settings.error_share;
        // One probe may have been luck: after it few requests say enough, or a half-broken origin would be
        // sent another `requests_min` of them each time.
        let telling = tally.all >= self.settings.requests_min || self.on_trial(now);
        if telling && f64::from(tally.marked) >= tolerated {
            self.open(now);
        }
    }

    /// It closed not long ago.
    fn on_trial(&self, now: Instant) -> bool {
        let window = self.settings.window;
        self.closed_at.is_some_and(|closed| now < closed + window)
    }

    fn open(&mut self, now: Instant) {
        self.wait = if self.on_trial(now) {
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
        self.window.clear(now);
    }

    fn longer_wait(&self) -> Duration {
        let doubled = self.wait.saturating_mul(2);
        doubled.min(self.settings.probe_after_max)
    }
}
