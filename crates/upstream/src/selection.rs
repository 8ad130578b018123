//! Selects the endpoints that one request goes to, one after another.
//!
//! An endpoint at its concurrency or rate limit is skipped but stays in the order: it may have room
//! at a retry. Only a request that no endpoint has seen yet waits for room.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::AttemptResponse;
use super::attempt_guard::AttemptGuard;
use super::endpoint::{EndpointSlot, EndpointState};
use super::group::{OriginGroup, now};
use super::guard::FailureSubject;
use super::response_value::{ResponseExpectation, ResponseValue};
use super::{Failure, Priority, RequestClass, Upgrade};
use seawall_policy::missing_manifest::is_absence;

/// The endpoints for one request, and its progress.
pub(super) struct EndpointSelection {
    /// Endpoint indices in the order to try them.
    pub(super) order: Vec<usize>,
    /// How many of them, from the start, are in good standing.
    pub(super) good: usize,
    /// How many of them, from the start, were tried.
    pub(super) tried: usize,
    pub(super) candidates: CandidateSet,
    pub(super) rank: Priority,
    pub(super) subject: FailureSubject,
    /// The rate limit it counts against.
    pub(super) class: RequestClass,
    /// Which responses are good.
    pub(super) question: ResponseExpectation,
    /// A blocking request: it takes no capacity of the endpoint.
    pub(super) held_back: bool,
    /// A blocking request is late after this time.
    pub(super) overdue: Option<Duration>,
    /// Another endpoint is asked too when one is late.
    pub(super) hedged: bool,
    /// Index of an endpoint that answered that an expected object is missing.
    pub(super) absent: Option<usize>,
    /// Endpoints that failed it, and when each was asked.
    pub(super) failed: Vec<(usize, std::time::Instant)>,
    /// Set while no viewer waits: until then only blocking requests are hedged.
    pub(super) upgrade: Option<Upgrade>,
    /// Latest failure.
    pub(super) failure: Failure,
    /// Deadline for capacity at an endpoint.
    pub(super) queue_until: Instant,
    /// Deadline for everything.
    pub(super) until: Instant,
}

/// Which endpoints may be tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CandidateSet {
    /// No endpoint has seen the request: any untried one, after a wait if needed.
    First,
    /// An untried one.
    Others,
    /// An untried one, else one that was tried.
    All,
}

impl EndpointSelection {
    /// Starts a selection over `order`, of which the first `good` are in good standing.
    pub(super) fn new(
        (order, good): (Vec<usize>, usize),
        (rank, subject): (Priority, FailureSubject),
        question: ResponseExpectation,
        queue_until: Instant,
        until: Instant,
    ) -> EndpointSelection {
        EndpointSelection {
            order,
            good,
            tried: 0,
            candidates: CandidateSet::First,
            rank,
            subject,
            class: RequestClass::Other,
            question,
            held_back: false,
            overdue: None,
            hedged: false,
            absent: None,
            failed: Vec::new(),
            upgrade: None,
            failure: Failure::Open,
            queue_until,
            until,
        }
    }

    /// Resolves when a viewer waits for the response.
    pub(super) async fn until_urgent(&mut self) {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.when.as_mut().await;
            self.rank = upgrade.rank;
            self.upgrade = None;
        }
    }

    /// Records that an endpoint failed, or answered with a status that is retried.
    pub(super) fn failed_at(&mut self, site: &EndpointState, asked: std::time::Instant) {
        if self.absent != Some(site.place) {
            self.failed.push((site.place, asked));
        }
    }

    /// Detects an endpoint that answers that an object is missing while another one has it.
    pub(super) fn compare(&mut self, answer: &mut AttemptResponse, is_poor: bool) {
        let status = answer.head.status;
        if is_poor && is_absence(status) {
            self.absent = Some(answer.entry.site().place);
        } else if !is_poor && status.is_success() {
            answer.outdone = answer.outdone.or(self.absent);
        }
    }

    pub(super) fn worth(&self, answer: &AttemptResponse) -> ResponseValue {
        self.question.worth(answer.head.status)
    }

    /// The more valuable of two responses; the earlier one if they are equal, unless both came from
    /// one endpoint.
    pub(super) fn better(
        &self,
        later: AttemptResponse,
        earlier: AttemptResponse,
    ) -> AttemptResponse {
        let is_same = later.entry.site().place == earlier.entry.site().place;
        if is_same || self.worth(&later) > self.worth(&earlier) {
            earlier.dismiss();
            later
        } else {
            later.dismiss();
            earlier
        }
    }

    /// The tried endpoints.
    pub(super) fn asked(&self) -> &[usize] {
        &self.order[..self.tried]
    }

    /// The untried endpoints; those not in good standing only after all others.
    pub(super) fn unasked(&self) -> &[usize] {
        let end = if self.tried < self.good {
            self.good
        } else {
            self.order.len()
        };
        &self.order[self.tried..end]
    }

    /// Marks an endpoint as tried; those skipped come after it.
    fn take(&mut self, at: usize) {
        self.order[self.tried..=at].rotate_right(1);
        self.tried += 1;
    }
}

impl OriginGroup {
    /// Starts an attempt at the next endpoint that accepts the request.
    pub(super) async fn next(&self, tour: &mut EndpointSelection) -> Option<AttemptGuard> {
        match tour.candidates {
            CandidateSet::First => self.first(tour).await,
            CandidateSet::Others => self.unasked(tour),
            CandidateSet::All => self.unasked(tour).or_else(|| self.asked_before(tour)),
        }
    }

    /// The first endpoint. While all candidates are at a limit, waits for the first that has room.
    async fn first(&self, tour: &mut EndpointSelection) -> Option<AttemptGuard> {
        loop {
            if let Some(entry) = self.unasked(tour) {
                return Some(entry);
            }
            let (at, slot) = self.first_slot(tour).await?;
            tour.take(at);
            let site = &self.endpoints[tour.order[tour.tried - 1]];
            if let Some(entry) = AttemptGuard::open(site, slot, tour.subject, now()) {
                return Some(entry);
            }
        }
    }

    /// Waits at all candidates, and leaves the other queues when one has room.
    async fn first_slot(&self, tour: &mut EndpointSelection) -> Option<(usize, EndpointSlot)> {
        let patience = tour.queue_until.saturating_duration_since(Instant::now());
        let (whose, held_back) = ((tour.rank, tour.class), tour.held_back);
        let wait = |(number, place): (usize, &usize)| {
            let waiting = self.endpoints[*place].wait_for_slot(whose, held_back, patience);
            (tour.tried + number, Box::pin(waiting))
        };
        let mut waits: Vec<_> = tour.unasked().iter().enumerate().map(wait).collect();
        while !waits.is_empty() {
            let (at, end) = poll_fn(|context| {
                for index in 0..waits.len() {
                    if let Poll::Ready(end) = waits[index].1.as_mut().poll(context) {
                        return Poll::Ready((waits.swap_remove(index).0, end));
                    }
                }
                Poll::Pending
            })
            .await;
            match end {
                Ok(slot) => return Some((at, slot)),
                Err(failure) => tour.failure = failure,
            }
            // A request that timed out in several queues counts once.
            if Instant::now() >= tour.queue_until {
                break;
            }
        }
        None
    }

    /// An untried endpoint that has room. Those not in good standing are skipped while the others
    /// only lack room.
    fn unasked(&self, tour: &mut EndpointSelection) -> Option<AttemptGuard> {
        let now = now();
        let mut at = tour.tried;
        while at < tour.order.len() && !(at == tour.good && at > tour.tried) {
            let site = &self.endpoints[tour.order[at]];
            let slot = site.slot_for(tour.class, tour.held_back);
            if slot.is_some() || site.refuses(tour.subject, now) {
                tour.take(at);
                let entry = slot.and_then(|slot| AttemptGuard::open(site, slot, tour.subject, now));
                if entry.is_some() {
                    return entry;
                }
            }
            at += 1;
        }
        None
    }

    /// A tried endpoint, the least recently tried first.
    fn asked_before(&self, tour: &mut EndpointSelection) -> Option<AttemptGuard> {
        let now = now();
        (0..tour.tried).find_map(|_| {
            tour.order[..tour.tried].rotate_left(1);
            let site = &self.endpoints[tour.order[tour.tried - 1]];
            site.slot_for(tour.class, tour.held_back)
                .and_then(|slot| AttemptGuard::open(site, slot, tour.subject, now))
        })
    }
}
