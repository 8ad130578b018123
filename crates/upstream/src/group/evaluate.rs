//! Judges the responses to one request by what was requested and by the endpoints that remain, and
//! keeps the best one.

use std::time::Duration;

use http::StatusCode;
use seawall_policy::missing_manifest::is_absence;

use super::next_step::AttemptVerdict;
use crate::Failure;
use crate::attempt::{AttemptError, AttemptOutcome, AttemptResponse};
use crate::endpoint::EndpointState;
use crate::response_value::ResponseValue;
use crate::selection::{EndpointSelection, EndpointSelector};

/// Judges the outcomes of the attempts for one request.
pub(crate) struct ResponseJudge<'a> {
    selector: &'a EndpointSelector,
    /// Statuses that are retried.
    retried_statuses: &'a [StatusCode],
    /// The best response so far; it is returned only if no better one arrives.
    best: Option<AttemptResponse>,
}

/// The judgement on one attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judgement {
    pub(crate) verdict: AttemptVerdict,
    /// The endpoint's `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
}

impl<'a> ResponseJudge<'a> {
    pub(crate) fn new(
        selector: &'a EndpointSelector,
        retried_statuses: &'a [StatusCode],
    ) -> ResponseJudge<'a> {
        ResponseJudge {
            selector,
            retried_statuses,
            best: None,
        }
    }

    /// Judges the outcome of the attempts that began at `endpoint`, and keeps the best response.
    pub(crate) fn judge(
        &mut self,
        outcome: AttemptOutcome,
        endpoint: &EndpointState,
        sent_at: std::time::Instant,
        selection: &mut EndpointSelection,
    ) -> Judgement {
        match outcome {
            Ok(response) => self.judge_response(response, endpoint, sent_at, selection),
            Err(error) => {
                selection.failure = error.failure;
                selection.record_failure(endpoint, sent_at);
                let is_unrequested = |best: &mut AttemptResponse| {
                    rate(best, selection) == ResponseValue::Unrequested
                };
                if let Some(unrequested) = self.best.take_if(is_unrequested) {
                    unrequested.discard();
                }
                Judgement {
                    verdict: verdict_on_error(&error),
                    retry_after: None,
                }
            }
        }
    }

    fn judge_response(
        &mut self,
        mut response: AttemptResponse,
        endpoint: &EndpointState,
        sent_at: std::time::Instant,
        selection: &mut EndpointSelection,
    ) -> Judgement {
        response.guard.release_group_permit();
        let verdict = self.verdict_on_response(&response, selection);
        let is_good = matches!(verdict, AttemptVerdict::Good);
        record_absence(&mut response, is_good, selection);
        if is_good {
            self.record_own_faults(&response, selection);
        } else {
            selection.record_failure(endpoint, sent_at);
        }
        let retry_after = response.head.retry_after();
        self.best = Some(match self.best.take() {
            Some(earlier) => better(response, earlier, selection),
            None => response,
        });
        Judgement {
            verdict,
            retry_after,
        }
    }

    fn verdict_on_response(
        &self,
        response: &AttemptResponse,
        selection: &EndpointSelection,
    ) -> AttemptVerdict {
        let status = response.head.status;
        if self.retried_statuses.contains(&status) {
            AttemptVerdict::RetriedStatus
        } else if rate(response, selection) < ResponseValue::Answer
            && self.may_another_do_better(status, selection)
        {
            AttemptVerdict::Improvable
        } else {
            AttemptVerdict::Good
        }
    }

    /// An untried endpoint may answer better.
    fn may_another_do_better(&self, status: StatusCode, selection: &EndpointSelection) -> bool {
        if is_absence(status) {
            // Even an endpoint not in good standing may have the object.
            self.selector.remaining(selection) > 0
        } else {
            self.selector.has_untried_in_good_standing(selection)
        }
    }

    /// Records that the endpoints that failed this request, which another endpoint answered, failed
    /// by their own fault.
    fn record_own_faults(&self, answer: &AttemptResponse, selection: &EndpointSelection) {
        if !has_content(answer.head.status) {
            return;
        }
        for failed in selection.failed() {
            if failed.endpoint != answer.endpoint() {
                let endpoint = &self.selector.endpoints[failed.endpoint];
                endpoint.record_own_fault(failed.sent_at, selection.request.subject);
            }
        }
    }

    /// The best response so far says that its endpoint failed.
    pub(crate) fn is_best_a_failure(&self, selection: &EndpointSelection) -> bool {
        let best = self.best.as_ref();
        best.is_some_and(|best| rate(best, selection) == ResponseValue::Failure)
    }

    /// The best response, or the latest failure. An unrequested response is returned only if no
    /// untried endpoint is in good standing.
    pub(crate) fn into_result(
        self,
        selection: &EndpointSelection,
    ) -> Result<AttemptResponse, Failure> {
        let best = self.best.ok_or(selection.failure)?;
        let is_unrequested = rate(&best, selection) == ResponseValue::Unrequested;
        if is_unrequested && self.selector.has_untried_in_good_standing(selection) {
            return Err(Failure::Protocol);
        }
        Ok(best)
    }
}

fn verdict_on_error(error: &AttemptError) -> AttemptVerdict {
    if error.failure == Failure::Exhausted {
        AttemptVerdict::NoSockets
    } else if error.may_have_arrived {
        let quick = error.failure == Failure::Reset && !error.resent;
        AttemptVerdict::Failed { quick }
    } else {
        AttemptVerdict::NotSent
    }
}

/// Detects an endpoint that answers that an object is missing while another one has it.
fn record_absence(
    response: &mut AttemptResponse,
    is_good: bool,
    selection: &mut EndpointSelection,
) {
    let status = response.head.status;
    if !is_good && is_absence(status) {
        selection.without_object = Some(response.endpoint());
    } else if is_good && status.is_success() {
        response.endpoint_to_avoid = response.endpoint_to_avoid.or(selection.without_object);
    }
}

/// The value of a response for the request of this selection.
pub(crate) fn rate(response: &AttemptResponse, selection: &EndpointSelection) -> ResponseValue {
    selection.request.expectation.rate(response.head.status)
}

/// The status says that the endpoint has the object.
pub(crate) fn has_content(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::NOT_MODIFIED
}

/// The more valuable of two responses. Of two equal ones, the one with the object, else the earlier
/// one, unless both came from one endpoint.
pub(crate) fn better(
    later: AttemptResponse,
    earlier: AttemptResponse,
    selection: &EndpointSelection,
) -> AttemptResponse {
    let is_same_endpoint = later.endpoint() == earlier.endpoint();
    let value = |response: &AttemptResponse| {
        let has_object = has_content(response.head.status);
        (rate(response, selection), has_object)
    };
    if is_same_endpoint || value(&later) > value(&earlier) {
        earlier.discard();
        later
    } else {
        later.discard();
        earlier
    }
}
