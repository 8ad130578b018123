//! Sends a request to endpoints, one after another, until one gives a usable response.
//!
//! A failed connection is not a retry: the next endpoint is tried at once. Any further attempt is a
//! retry, for requests that may be sent twice and within the retry budget. The same endpoint is
//! retried only after a quick failure and if no other response can be served: a timeout is not
//! repeated there.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::evaluate::{Judgement, ResponseJudge};
use super::hedge::HedgedSender;
use super::next_step::{AttemptVerdict, NextStep, RemainingOptions, next_step};
use crate::Failure;
use crate::attempt::{AttemptResponse, UpstreamUpload};
use crate::endpoint::std_now;
use crate::selection::{CandidateSet, EndpointSelection};

/// The attempts for one request.
pub(crate) struct AttemptSequence<'a> {
    pub(crate) sender: HedgedSender<'a>,
    pub(crate) upload: Option<UpstreamUpload>,
    pub(crate) selection: EndpointSelection,
    /// Another response is served on failure.
    pub(crate) has_fallback: bool,
}

impl AttemptSequence<'_> {
    /// Makes attempts until one gives a good response or no more are allowed. Returns the best
    /// response, or the latest failure.
    pub(crate) async fn run(mut self) -> Result<AttemptResponse, Failure> {
        let HedgedSender {
            selector, retry, ..
        } = self.sender;
        let mut judge = ResponseJudge::new(selector, &retry.statuses);
        let mut retries = 0;
        while let Some(attempt) = selector.next(&mut self.selection).await {
            let endpoint = Arc::clone(attempt.endpoint());
            let sent_at = std_now();
            let outcome = self
                .sender
                .send(attempt, &mut self.upload, &mut self.selection)
                .await;
            let remaining = selector.remaining(&self.selection);
            let judgement = judge.judge(outcome, &endpoint, sent_at, &mut self.selection);
            if retries > 0 {
                let is_good = matches!(judgement.verdict, AttemptVerdict::Good);
                let helped = is_good && !judge.is_best_a_failure(&self.selection);
                selector.extra_requests.record_failover(helped);
            }
            match self.next_step(judgement, remaining, retries) {
                NextStep::End => break,
                NextStep::Next => continue,
                NextStep::Retry(candidates) => self.selection.candidates = candidates,
            }
            let Some(backoff) = self.acquire_retry(retries, judgement.retry_after) else {
                break;
            };
            if !backoff.is_zero() {
                sleep(backoff).await;
            }
            endpoint.counters.record_retry();
            retries += 1;
        }
        judge.into_result(&self.selection)
    }

    fn next_step(&self, judgement: Judgement, remaining: usize, retries: u32) -> NextStep {
        let HedgedSender { request, retry, .. } = self.sender;
        let may_send_again = request.is_repeatable() && retries < retry.attempts_max;
        let options = RemainingOptions {
            untried: remaining,
            has_fallback: self.has_fallback,
            may_send_again,
        };
        next_step(judgement.verdict, options)
    }

    /// Acquires a retry; returns the wait before it. `None`: no retry is allowed.
    fn acquire_retry(&self, retries: u32, retry_after: Option<Duration>) -> Option<Duration> {
        let backoff = self.backoff(retries, retry_after)?;
        let is_granted = self
            .sender
            .selector
            .extra_requests
            .try_retry(self.is_urgent_failover());
        is_granted.then_some(backoff)
    }

    /// Wait before a retry: zero if an endpoint not tried yet has a free slot. `None`: no
    /// endpoint has one, or the one to retry requires a longer pause.
    fn backoff(&self, retries: u32, retry_after: Option<Duration>) -> Option<Duration> {
        let HedgedSender {
            selector, retry, ..
        } = self.sender;
        let selection = &self.selection;
        if selector.has_any_free_slot(selection.next_candidates(), selection) {
            return Some(Duration::ZERO);
        }
        let may_repeat = selection.candidates == CandidateSet::All;
        if !may_repeat || !selector.has_any_free_slot(selection.tried(), selection) {
            return None;
        }
        retry.backoff.wait(retries, fastrand::f64(), retry_after)
    }

    /// A viewer waits and another endpoint is in good standing: a failing endpoint must not cause
    /// viewer errors because the budget is spent. A group that fails as a whole is retried within
    /// the budget only. A manifest that is not renewed freezes its viewers, whatever is served
    /// meanwhile.
    fn is_urgent_failover(&self) -> bool {
        let is_urgent = !self.has_fallback || self.selection.request.expectation.is_of_manifest();
        is_urgent
            && self.selection.has_preferred_candidate()
            && self.sender.selector.extra_requests.failover_helps()
    }
}
