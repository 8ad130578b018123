//! What came of asking an endpoint, told to its guards; and what operators are told of that.

use std::time::{Duration, Instant};

use super::EndpointState;
use crate::upstream::attempt_guard::AttemptEnd;
use crate::upstream::guard::breaker::{BreakerPass, BreakerTransition};
use crate::upstream::guard::{EndpointFault, FailureSubject};

impl EndpointState {
    /// Another endpoint was asked later and answered first. Once says nothing; time after time, or
    /// while nothing is heard of this one at all, it means that this one is asked in vain.
    pub(in crate::upstream) fn beaten(&self, asked: Instant, subject: FailureSubject) {
        let now = Instant::now();
        let others = self.others_standing();
        let mut watched = self.watched.lock();
        let until = watched.ejection.outdone(now, asked, others, subject);
        drop(watched);
        match until {
            Some(until) => self.ejected(until.saturating_duration_since(now), "silent"),
            None => self.failed(
                None,
                asked,
                (subject, EndpointFault::Silent),
                AttemptEnd::Late,
            ),
        }
    }

    /// It failed a request that was sent at `asked`, and another endpoint answered it well.
    pub(in crate::upstream) fn made_good(&self, asked: Instant, subject: FailureSubject) {
        let now = Instant::now();
        let others = self.others_standing();
        let mut watched = self.watched.lock();
        let until = watched.ejection.made_good(now, asked, others, subject);
        drop(watched);
        if let Some(until) = until {
            self.ejected(until.saturating_duration_since(now), "others do better");
        }
    }

    /// It said something: it is not silent.
    pub(in crate::upstream) fn heard(&self) {
        self.watched.lock().ejection.heard();
    }

    /// A request that was sent at `asked` was answered well.
    pub(in crate::upstream) fn succeeded(&self, pass: BreakerPass, asked: Instant) {
        let now = Instant::now();
        let mut watched = self.watched.lock();
        watched.ejection.succeeded(now, asked);
        let change = watched.breaker.succeeded(pass, now);
        let line = change.and_then(|_| watched.breaker_lines[1].allows(now));
        drop(watched);
        self.tell(change, line, None);
    }

    /// It failed somebody, for a reason: its breaker may open for that, and it may be ejected.
    pub(in crate::upstream) fn failed(
        &self,
        pass: Option<BreakerPass>,
        asked: Instant,
        what: (FailureSubject, EndpointFault),
        reason: AttemptEnd,
    ) {
        let now = Instant::now();
        let others = self.others_standing();
        let mut watched = self.watched.lock();
        let change = pass.and_then(|pass| watched.breaker.failed(pass, now, what));
        let line = change.and_then(|_| watched.breaker_lines[0].allows(now));
        let until = watched.ejection.failed(now, asked, others, what);
        drop(watched);
        self.tell(change, line, Some(reason));
        if let Some(until) = until {
            self.ejected(until.saturating_duration_since(now), reason.as_str());
        }
    }

    /// Tells operators of its breaker. `left_out`: so often it was not told; `None`: nor is it now.
    pub(super) fn tell(
        &self,
        change: Option<BreakerTransition>,
        left_out: Option<u64>,
        last: Option<AttemptEnd>,
    ) {
        let Some((change, left_out)) = change.zip(left_out) else {
            return;
        };
        let endpoint = &*self.label;
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
                    "origin breaker opened: so many URLs failed, and nearly nothing succeeded"
                );
            }
            BreakerTransition::Closed => {
                tracing::warn!(
                    endpoint,
                    left_out,
                    "origin breaker closed: it answers again"
                );
            }
        }
    }

    pub(super) fn ejected(&self, span: Duration, reason: &str) {
        self.enrol(false);
        let now = Instant::now();
        let line = self.watched.lock().ejection_lines.allows(now);
        if let Some(left_out) = line {
            let (endpoint, seconds) = (&*self.label, span.as_secs());
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
