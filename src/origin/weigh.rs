//! What follows from an answer, or from none? It is judged by what was asked and by who else may be asked, and
//! the best answer so far is kept.

use std::time::Duration;

use http::StatusCode;

use super::attempt::{Answer, Trouble};
use super::fetch::{Desk, now};
use super::site::Site;
use super::step::Tried;
use super::tour::Tour;
use super::worth::Worth;
use crate::policy::absence::is_absence;

impl Desk {
    /// What follows from an outcome, and how long the endpoint wants to be left alone. An answer is
    /// kept, whatever it is.
    pub(super) fn weigh(
        &self,
        outcome: Result<Answer, Trouble>,
        (site, asked): (&Site, std::time::Instant),
        tour: &mut Tour,
        kept: &mut Option<Answer>,
    ) -> (Tried, Option<Duration>) {
        let mut answer = match outcome {
            Ok(answer) => answer,
            Err(trouble) => {
                tour.failure = trouble.failure;
                tour.failed_at(site, asked);
                let is_void = |answer: &mut Answer| tour.worth(answer) == Worth::Nothing;
                if let Some(void) = kept.take_if(is_void) {
                    void.dismiss();
                }
                return (trouble.tried(), None);
            }
        };
        answer.entry.alone();
        let status = answer.head.status;
        let tried = if self.retry.statuses.contains(&status) {
            Tried::Poor
        } else if tour.worth(&answer) < Worth::Answer && self.another_may(tour, status) {
            Tried::Doubtful
        } else {
            Tried::Good
        };
        let is_poor = !matches!(tried, Tried::Good);
        tour.compare(&mut answer, is_poor);
        if is_poor {
            tour.failed_at(site, asked);
        } else {
            self.make_good(tour, &answer);
        }
        let wait = answer.head.retry_after();
        let answer = match kept.take() {
            Some(former) => tour.better(answer, former),
            None => answer,
        };
        *kept = Some(answer);
        (tried, wait)
    }

    /// Another endpoint may answer better, and has not been asked.
    fn another_may(&self, tour: &Tour, status: StatusCode) -> bool {
        if is_absence(status) {
            // Even one in doubt may have what should be there.
            self.left(tour) > 0
        } else {
            self.another_stands(tour)
        }
    }

    pub(super) fn another_stands(&self, tour: &Tour) -> bool {
        let now = now();
        let mut unasked = tour.order[tour.turns..].iter().map(|&at| &self.sites[at]);
        unasked.any(|site| self.stands(site, now) && !site.refuses(tour.subject, now))
    }

    /// Whoever failed where this answer came failed by its own fault.
    fn make_good(&self, tour: &Tour, answer: &Answer) {
        let status = answer.head.status;
        let place = answer.entry.site().place;
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            for &(failed, asked) in tour.failed.iter().filter(|(failed, _)| *failed != place) {
                self.sites[failed].made_good(asked, tour.subject);
            }
        }
    }

    /// Nothing that another endpoint could better.
    pub(super) fn is_good_answer(&self, answer: &Answer, tour: &Tour) -> bool {
        let is_listed = self.retry.statuses.contains(&answer.head.status);
        !is_listed && tour.worth(answer) == Worth::Answer
    }
}
