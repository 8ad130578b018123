//! Judges responses by the request and by the endpoints that remain, and keeps the best one.

use std::time::Duration;

use http::StatusCode;

use super::attempt::{AttemptError, AttemptResponse};
use super::endpoint::EndpointState;
use super::group::{OriginGroup, now};
use super::next_step::AttemptVerdict;
use super::response_value::ResponseValue;
use super::selection::EndpointSelection;
use seawall_policy::missing_manifest::is_absence;

impl OriginGroup {
    /// The verdict on an outcome, and the endpoint's `Retry-After`. Keeps the best response.
    pub(super) fn weigh(
        &self,
        outcome: Result<AttemptResponse, AttemptError>,
        (site, asked): (&EndpointState, std::time::Instant),
        tour: &mut EndpointSelection,
        kept: &mut Option<AttemptResponse>,
    ) -> (AttemptVerdict, Option<Duration>) {
        let mut answer = match outcome {
            Ok(answer) => answer,
            Err(trouble) => {
                tour.failure = trouble.failure;
                tour.failed_at(site, asked);
                let is_void =
                    |answer: &mut AttemptResponse| tour.worth(answer) == ResponseValue::Nothing;
                if let Some(void) = kept.take_if(is_void) {
                    void.dismiss();
                }
                return (trouble.tried(), None);
            }
        };
        answer.entry.release_group_permit();
        let status = answer.head.status;
        let tried = if self.retry.statuses.contains(&status) {
            AttemptVerdict::Poor
        } else if tour.worth(&answer) < ResponseValue::Answer && self.another_may(tour, status) {
            AttemptVerdict::Doubtful
        } else {
            AttemptVerdict::Good
        };
        let is_poor = !matches!(tried, AttemptVerdict::Good);
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

    /// An untried endpoint may answer better.
    fn another_may(&self, tour: &EndpointSelection, status: StatusCode) -> bool {
        if is_absence(status) {
            // Even an endpoint not in good standing may have the object.
            self.left(tour) > 0
        } else {
            self.another_stands(tour)
        }
    }

    pub(super) fn another_stands(&self, tour: &EndpointSelection) -> bool {
        let now = now();
        let mut unasked = tour.order[tour.tried..]
            .iter()
            .map(|&at| &self.endpoints[at]);
        unasked.any(|site| self.is_in_good_standing(site, now) && !site.refuses(tour.subject, now))
    }

    /// Endpoints that failed this request, which another endpoint answered, failed by their own
    /// fault.
    fn make_good(&self, tour: &EndpointSelection, answer: &AttemptResponse) {
        let status = answer.head.status;
        let place = answer.entry.site().place;
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            for &(failed, asked) in tour.failed.iter().filter(|(failed, _)| *failed != place) {
                self.endpoints[failed].record_own_fault(asked, tour.subject);
            }
        }
    }

    /// A response that no other endpoint could improve on.
    pub(super) fn is_good_answer(
        &self,
        answer: &AttemptResponse,
        tour: &EndpointSelection,
    ) -> bool {
        let is_listed = self.retry.statuses.contains(&answer.head.status);
        !is_listed && tour.worth(answer) == ResponseValue::Answer
    }
}
