//! Decides what follows an attempt: return, retry, or try the next endpoint. Pure function.

use super::selection::CandidateSet;

/// Result of an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) enum AttemptVerdict {
    /// A response to return.
    Good,
    /// A response with a status that is retried.
    Poor,
    /// A response that another endpoint may improve on, but this one will not.
    Doubtful,
    /// No response, and the endpoint may have seen the request.
    Failed {
        /// The connection broke before any resend: the same endpoint may succeed at once. False
        /// after a timeout, which is not repeated at the same endpoint.
        quick: bool,
    },
    /// The endpoint cannot have seen the request.
    Unreached,
    /// This host has no sockets left.
    Unable,
}

/// What is still possible.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemainingOptions {
    /// Endpoints not tried yet that accept the request.
    pub(super) left: usize,
    /// Another response is served on failure.
    pub(super) covered: bool,
    /// The request may be sent once more.
    pub(super) again: bool,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// Stop, with the best response so far.
    End,
    /// Try the next endpoint. An endpoint that was not reached costs no retry.
    Next,
    /// Try again, if a retry is granted.
    Retry(CandidateSet),
}

pub(super) fn step(tried: AttemptVerdict, chances: RemainingOptions) -> NextStep {
    let RemainingOptions {
        left,
        covered,
        again,
    } = chances;
    let quick = match tried {
        AttemptVerdict::Good | AttemptVerdict::Unable => return NextStep::End,
        AttemptVerdict::Unreached if left > 0 => return NextStep::Next,
        AttemptVerdict::Unreached | AttemptVerdict::Doubtful => false,
        AttemptVerdict::Poor => true,
        AttemptVerdict::Failed { quick } => quick,
    };
    let soon = quick && !covered;
    if !again || (left == 0 && !soon) {
        NextStep::End
    } else if soon {
        NextStep::Retry(CandidateSet::All)
    } else {
        NextStep::Retry(CandidateSet::Others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOR: AttemptVerdict = AttemptVerdict::Poor;
    const RESET: AttemptVerdict = AttemptVerdict::Failed { quick: true };
    const LATE: AttemptVerdict = AttemptVerdict::Failed { quick: false };

    fn then(tried: AttemptVerdict, left: usize, covered: bool) -> NextStep {
        let again = true;
        step(
            tried,
            RemainingOptions {
                left,
                covered,
                again,
            },
        )
    }

    #[test]
    fn others_are_asked_first_and_the_same_one_only_where_nothing_covers() {
        for (tried, left, covered, expected) in [
            (AttemptVerdict::Good, 1, false, NextStep::End),
            (POOR, 1, false, NextStep::Retry(CandidateSet::All)),
            (POOR, 0, false, NextStep::Retry(CandidateSet::All)),
            (POOR, 1, true, NextStep::Retry(CandidateSet::Others)),
            (POOR, 0, true, NextStep::End),
            (
                AttemptVerdict::Doubtful,
                1,
                false,
                NextStep::Retry(CandidateSet::Others),
            ),
            (AttemptVerdict::Doubtful, 0, false, NextStep::End),
            (RESET, 0, false, NextStep::Retry(CandidateSet::All)),
            (RESET, 0, true, NextStep::End),
        ] {
            assert_eq!(
                then(tried, left, covered),
                expected,
                "{tried:?} {left} {covered}"
            );
        }
    }

    #[test]
    fn nobody_waits_for_a_timeout_twice_at_one_place() {
        assert_eq!(then(LATE, 1, false), NextStep::Retry(CandidateSet::Others));
        assert_eq!(then(LATE, 0, false), NextStep::End);
    }

    #[test]
    fn who_was_not_reached_costs_no_retry() {
        let chances = |left| RemainingOptions {
            left,
            covered: false,
            again: false,
        };
        assert_eq!(step(AttemptVerdict::Unreached, chances(1)), NextStep::Next);
        assert_eq!(step(AttemptVerdict::Unreached, chances(0)), NextStep::End);
        assert_eq!(step(POOR, chances(1)), NextStep::End);
    }
}
