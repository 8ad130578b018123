//! What follows from what came of one attempt? Pure: knows neither the clock nor the endpoints.

use super::tour::Reach;

/// What came of asking an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tried {
    /// An answer to hand on.
    Good,
    /// An answer as good as none.
    Poor,
    /// An answer that another endpoint may better, and this one will not.
    Doubtful,
    /// No answer, and the endpoint may have seen the request.
    Failed {
        /// A connection that broke, and not one that was broken already when it was sent again: the same
        /// endpoint may do better at once. Whoever waited for a timeout does not wait for another.
        quick: bool,
    },
    /// The endpoint cannot have seen the request.
    Unreached,
    /// This host could not ask anybody.
    Unable,
}

/// What may still be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chances {
    /// Endpoints that were not asked yet and may be.
    pub(super) left: usize,
    /// Something is served instead.
    pub(super) covered: bool,
    /// It may be sent once more.
    pub(super) again: bool,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing more: the best there is has to do.
    End,
    /// Ask the next one. Who was not reached was not asked: that is no retry.
    Next,
    /// Ask again, if a retry is granted.
    Retry(Reach),
}

pub(super) fn step(tried: Tried, chances: Chances) -> Step {
    let Chances {
        left,
        covered,
        again,
    } = chances;
    let quick = match tried {
        Tried::Good | Tried::Unable => return Step::End,
        Tried::Unreached if left > 0 => return Step::Next,
        Tried::Unreached | Tried::Doubtful => false,
        Tried::Poor => true,
        Tried::Failed { quick } => quick,
    };
    let soon = quick && !covered;
    if !again || (left == 0 && !soon) {
        Step::End
    } else if soon {
        Step::Retry(Reach::All)
    } else {
        Step::Retry(Reach::Others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOR: Tried = Tried::Poor;
    const RESET: Tried = Tried::Failed { quick: true };
    const LATE: Tried = Tried::Failed { quick: false };

    fn then(tried: Tried, left: usize, covered: bool) -> Step {
        let again = true;
        step(
            tried,
            Chances {
                left,
                covered,
                again,
            },
        )
    }

    #[test]
    fn others_are_asked_first_and_the_same_one_only_where_nothing_covers() {
        for (tried, left, covered, expected) in [
            (Tried::Good, 1, false, Step::End),
            (POOR, 1, false, Step::Retry(Reach::All)),
            (POOR, 0, false, Step::Retry(Reach::All)),
            (POOR, 1, true, Step::Retry(Reach::Others)),
            (POOR, 0, true, Step::End),
            (Tried::Doubtful, 1, false, Step::Retry(Reach::Others)),
            (Tried::Doubtful, 0, false, Step::End),
            (RESET, 0, false, Step::Retry(Reach::All)),
            (RESET, 0, true, Step::End),
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
        assert_eq!(then(LATE, 1, false), Step::Retry(Reach::Others));
        assert_eq!(then(LATE, 0, false), Step::End);
    }

    #[test]
    fn who_was_not_reached_costs_no_retry() {
        let chances = |left| Chances {
            left,
            covered: false,
            again: false,
        };
        assert_eq!(step(Tried::Unreached, chances(1)), Step::Next);
        assert_eq!(step(Tried::Unreached, chances(0)), Step::End);
        assert_eq!(step(POOR, chances(1)), Step::End);
    }
}
