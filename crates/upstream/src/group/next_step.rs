//! Decides what follows an attempt: return, retry, or try the next endpoint. Pure function.

use crate::selection::CandidateSet;

/// Result of an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AttemptVerdict {
    /// A good response: it is returned.
    Good,
    /// A response with a status that is retried.
    RetriedStatus,
    /// A response that another endpoint may improve on, but this one will not.
    Improvable,
    /// No response, and the endpoint may have seen the request.
    Failed {
        /// The connection broke before any resend: the same endpoint may succeed at once. False
        /// after a timeout, which is not repeated at the same endpoint.
        quick: bool,
    },
    /// The endpoint cannot have seen the request.
    NotSent,
    /// This host has no sockets left.
    NoSockets,
}

/// What is still possible.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemainingOptions {
    /// Endpoints not tried yet that accept the request.
    pub(crate) untried: usize,
    /// Another response is served on failure.
    pub(crate) has_fallback: bool,
    /// The request may be sent once more.
    pub(crate) may_send_again: bool,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// Stop, with the best response so far.
    End,
    /// Try the next endpoint. An endpoint that was not reached costs no retry.
    Next,
    /// Try again, if a retry is granted.
    Retry(CandidateSet),
}

/// Decides what follows an attempt with this verdict.
pub(crate) fn next_step(verdict: AttemptVerdict, options: RemainingOptions) -> NextStep {
    let RemainingOptions {
        untried,
        has_fallback,
        may_send_again,
    } = options;
    let same_may_succeed = match verdict {
        AttemptVerdict::Good | AttemptVerdict::NoSockets => return NextStep::End,
        AttemptVerdict::NotSent if untried > 0 => return NextStep::Next,
        AttemptVerdict::NotSent | AttemptVerdict::Improvable => false,
        AttemptVerdict::RetriedStatus => true,
        AttemptVerdict::Failed { quick } => quick,
    };
    let repeat_at_same = same_may_succeed && !has_fallback;
    if !may_send_again || (untried == 0 && !repeat_at_same) {
        NextStep::End
    } else if repeat_at_same {
        NextStep::Retry(CandidateSet::All)
    } else {
        NextStep::Retry(CandidateSet::Others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRIED: AttemptVerdict = AttemptVerdict::RetriedStatus;
    const RESET: AttemptVerdict = AttemptVerdict::Failed { quick: true };
    const LATE: AttemptVerdict = AttemptVerdict::Failed { quick: false };

    fn then(verdict: AttemptVerdict, untried: usize, has_fallback: bool) -> NextStep {
        let options = RemainingOptions {
            untried,
            has_fallback,
            may_send_again: true,
        };
        next_step(verdict, options)
    }

    #[test]
    fn retries_same_endpoint_only_without_a_covering_response() {
        for (verdict, untried, has_fallback, expected) in [
            (AttemptVerdict::Good, 1, false, NextStep::End),
            (RETRIED, 1, false, NextStep::Retry(CandidateSet::All)),
            (RETRIED, 0, false, NextStep::Retry(CandidateSet::All)),
            (RETRIED, 1, true, NextStep::Retry(CandidateSet::Others)),
            (RETRIED, 0, true, NextStep::End),
            (
                AttemptVerdict::Improvable,
                1,
                false,
                NextStep::Retry(CandidateSet::Others),
            ),
            (AttemptVerdict::Improvable, 0, false, NextStep::End),
            (RESET, 0, false, NextStep::Retry(CandidateSet::All)),
            (RESET, 0, true, NextStep::End),
        ] {
            assert_eq!(
                then(verdict, untried, has_fallback),
                expected,
                "{verdict:?} {untried} {has_fallback}"
            );
        }
    }

    #[test]
    fn timed_out_request_is_not_retried_at_same_endpoint() {
        assert_eq!(then(LATE, 1, false), NextStep::Retry(CandidateSet::Others));
        assert_eq!(then(LATE, 0, false), NextStep::End);
    }

    #[test]
    fn unreached_endpoint_costs_no_retry() {
        let options = |untried| RemainingOptions {
            untried,
            has_fallback: false,
            may_send_again: false,
        };
        assert_eq!(
            next_step(AttemptVerdict::NotSent, options(1)),
            NextStep::Next
        );
        assert_eq!(
            next_step(AttemptVerdict::NotSent, options(0)),
            NextStep::End
        );
        assert_eq!(next_step(RETRIED, options(1)), NextStep::End);
    }
}
