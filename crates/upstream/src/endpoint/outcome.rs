//! Reports the outcome of attempts and checks to an endpoint's guards, and logs what they decide.

use std::fmt;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::{EndpointState, std_now};
use crate::Failure;
use crate::guard::breaker::{BreakerAdmission, BreakerTransition};
use crate::guard::{EndpointFault, FailureSubject};

/// Why an attempt failed, for the log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AttemptEnd {
    /// No complete response arrived.
    Failure(Failure),
    /// The response was an error.
    Status(StatusCode),
    /// Another endpoint answered first.
    Late,
}

impl AttemptEnd {
    /// The log word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            AttemptEnd::Failure(_) | AttemptEnd::Status(_) => "failures",
            AttemptEnd::Late => "late",
        }
    }
}

impl fmt::Display for AttemptEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttemptEnd::Failure(failure) => failure.fmt(f),
            AttemptEnd::Status(status) => write!(f, "status {}", status.as_u16()),
            AttemptEnd::Late => f.write_str("late"),
        }
    }
}

/// Why a check failed.
#[derive(Debug)]
pub(crate) enum CheckFailure {
    /// No complete response.
    Failure(Failure),
    /// An unexpected status.
    Status(StatusCode),
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckFailure::Failure(failure) => failure.fmt(f),
            CheckFailure::Status(status) => write!(f, "status {}", status.as_u16()),
        }
    }
}

impl EndpointState {
    /// Another endpoint was requested later and answered first. This counts as a failure; if this
    /// endpoint has sent nothing at all for a while, it is ejected as silent.
    pub(crate) fn record_overtaken(&self, sent_at: Instant, subject: FailureSubject) {
        let now = std_now();
        let others = self.count_others_in_good_standing();
        let mut guards = self.guards.lock();
        let until = guards
            .ejection
            .record_silence(now, sent_at, others, subject);
        drop(guards);
        match until {
            Some(until) => self.record_ejection(until.saturating_duration_since(now), "silent"),
            None => self.record_failure(
                None,
                sent_at,
                (subject, EndpointFault::Silent),
                AttemptEnd::Late,
            ),
        }
    }

    /// It failed a request sent at `sent_at`, which another endpoint answered well.
    pub(crate) fn record_own_fault(&self, sent_at: Instant, subject: FailureSubject) {
        let now = std_now();
        let others = self.count_others_in_good_standing();
        let mut guards = self.guards.lock();
        let until = guards
            .ejection
            .record_success_elsewhere(now, sent_at, others, subject);
        drop(guards);
        if let Some(until) = until {
            self.record_ejection(
                until.saturating_duration_since(now),
                "failed URLs succeed elsewhere",
            );
        }
    }

    /// A response head arrived: the endpoint is not silent.
    pub(crate) fn record_response_head(&self) {
        self.guards.lock().ejection.record_contact();
    }

    /// A request sent at `sent_at` succeeded.
    pub(crate) fn record_success(&self, admission: BreakerAdmission, sent_at: Instant) {
        let now = std_now();
        let mut guards = self.guards.lock();
        guards.ejection.record_success(now, sent_at);
        let change = guards.breaker.record_success(admission, now);
        let suppressed = change.and_then(|_| guards.breaker_log[1].allows(now));
        drop(guards);
        self.log_breaker_transition(change, suppressed, None);
    }

    /// Records a failure: the breaker may open, and the endpoint may be ejected.
    pub(crate) fn record_failure(
        &self,
        admission: Option<BreakerAdmission>,
        sent_at: Instant,
        what: (FailureSubject, EndpointFault),
        reason: AttemptEnd,
    ) {
        let now = std_now();
        let others = self.count_others_in_good_standing();
        let mut guards = self.guards.lock();
        let change =
            admission.and_then(|admission| guards.breaker.record_failure(admission, now, what));
        let suppressed = change.and_then(|_| guards.breaker_log[0].allows(now));
        let until = guards.ejection.record_failure(now, sent_at, others, what);
        drop(guards);
        self.log_breaker_transition(change, suppressed, Some(reason));
        if let Some(until) = until {
            self.record_ejection(until.saturating_duration_since(now), reason.as_str());
        }
    }

    /// Logs a change of the breaker. `left_out`: number of suppressed messages; `None`: suppress
    /// this one too.
    pub(super) fn log_breaker_transition(
        &self,
        change: Option<BreakerTransition>,
        left_out: Option<u64>,
        last: Option<AttemptEnd>,
    ) {
        let Some((change, left_out)) = change.zip(left_out) else {
            return;
        };
        let endpoint = &*self.url;
        match change {
            BreakerTransition::Opened {
                urls,
                directories,
                successes,
            } => {
                let last = last.map(tracing::field::display);
                tracing::warn!(
                    endpoint,
                    urls,
                    directories,
                    successes,
                    last,
                    left_out,
                    "origin breaker opened: too many URLs failed, and almost none succeeded"
                );
            }
            BreakerTransition::Closed => {
                tracing::warn!(
                    endpoint,
                    left_out,
                    "origin breaker closed: the endpoint answers again"
                );
            }
        }
    }

    pub(super) fn record_ejection(&self, span: Duration, reason: &str) {
        self.set_in_good_standing(false);
        let now = std_now();
        let suppressed = self.guards.lock().ejection_log.allows(now);
        if let Some(left_out) = suppressed {
            let (endpoint, seconds) = (&*self.url, span.as_secs());
            tracing::warn!(
                endpoint,
                seconds,
                reason,
                left_out,
                "origin endpoint ejected"
            );
        }
    }
}
