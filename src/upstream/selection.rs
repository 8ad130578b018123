//! Whose turn is it? The endpoints that one request goes to, one after another.
//!
//! One at its cap or at its rate is passed over, and keeps its turn: it may have room when the request is tried again. Only
//! who has not been asked yet waits for room. Knows nothing of what is asked for.

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
use crate::policy::missing_manifest::is_absence;

/// Whom one request goes to, and how far it has come.
pub(super) struct EndpointSelection {
    /// Places of endpoints, the first to be asked first.
    pub(super) order: Vec<usize>,
    /// So many of them, the first ones, are in good standing.
    pub(super) good: usize,
    /// How many of them had their turn.
    pub(super) turns: usize,
    pub(super) reach: CandidateSet,
    pub(super) rank: Priority,
    pub(super) subject: FailureSubject,
    /// Whose rate it counts against.
    pub(super) class: RequestClass,
    /// Which answers are good.
    pub(super) question: ResponseExpectation,
    /// It waits at the endpoint, and takes no place among what that has to do.
    pub(super) held_back: bool,
    /// What is held back should have come after so long.
    pub(super) overdue: Option<Duration>,
    /// Another endpoint is asked as well when one is late.
    pub(super) hedged: bool,
    /// Who says of something that should be there that it is not.
    pub(super) absent: Option<usize>,
    /// Who failed it, and since when it had been asked.
    pub(super) failed: Vec<(usize, std::time::Instant)>,
    /// Not before somebody waits for it.
    pub(super) upgrade: Option<Upgrade>,
    /// Why there is no answer yet.
    pub(super) failure: Failure,
    /// For room somewhere.
    pub(super) queue_until: Instant,
    /// For everything.
    pub(super) until: Instant,
}

/// Which endpoints may be next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CandidateSet {
    /// No endpoint has seen the request: any that had no turn yet, after a wait if need be.
    First,
    /// One of those that had no turn yet.
    Others,
    /// One of those, else one that had.
    All,
}

impl EndpointSelection {
    /// The start of one, over endpoints of which the first so many are in good standing.
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
            turns: 0,
            reach: CandidateSet::First,
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

    /// Resolves when somebody waits for the answer.
    pub(super) async fn until_urgent(&mut self) {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.when.as_mut().await;
            self.rank = upgrade.rank;
            self.upgrade = None;
        }
    }

    /// An endpoint failed it, or gave an answer as good as none.
    pub(super) fn failed_at(&mut self, site: &EndpointState, asked: std::time::Instant) {
        if self.absent != Some(site.place) {
            self.failed.push((site.place, asked));
        }
    }

    /// An endpoint may say that something is not there which another one has.
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

    /// Of two, the one that is worth more; the earlier one where both are worth the same, unless one
    /// endpoint gave both.
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

    /// Those that had their turn.
    pub(super) fn asked(&self) -> &[usize] {
        &self.order[..self.turns]
    }

    /// Those that may be next: the ones in doubt only where all others had their turn.
    pub(super) fn unasked(&self) -> &[usize] {
        let end = if self.turns < self.good {
            self.good
        } else {
            self.order.len()
        };
        &self.order[self.turns..end]
    }

    /// It is this one's turn; those it overtakes come after it.
    fn take(&mut self, at: usize) {
        self.order[self.turns..=at].rotate_right(1);
        self.turns += 1;
    }
}

impl OriginGroup {
    /// Opens an entry with the next endpoint that takes the request.
    pub(super) async fn next(&self, tour: &mut EndpointSelection) -> Option<AttemptGuard> {
        match tour.reach {
            CandidateSet::First => self.first(tour).await,
            CandidateSet::Others => self.unasked(tour),
            CandidateSet::All => self.unasked(tour).or_else(|| self.asked_before(tour)),
        }
    }

    /// The first one to see the request. While those that could be asked are all at their caps or their rates,
    /// it waits for whichever of them has room first.
    async fn first(&self, tour: &mut EndpointSelection) -> Option<AttemptGuard> {
        loop {
            if let Some(entry) = self.unasked(tour) {
                return Some(entry);
            }
            let (at, slot) = self.first_slot(tour).await?;
            tour.take(at);
            let site = &self.sites[tour.order[tour.turns - 1]];
            if let Some(entry) = AttemptGuard::open(site, slot, tour.subject, now()) {
                return Some(entry);
            }
        }
    }

    /// Waits at all that may be next, and leaves the other queues when one of them has room.
    async fn first_slot(&self, tour: &mut EndpointSelection) -> Option<(usize, EndpointSlot)> {
        let patience = tour.queue_until.saturating_duration_since(Instant::now());
        let (whose, held_back) = ((tour.rank, tour.class), tour.held_back);
        let wait = |(number, place): (usize, &usize)| {
            let waiting = self.sites[*place].wait_for_slot(whose, held_back, patience);
            (tour.turns + number, Box::pin(waiting))
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
            // One request that waited in vain counts once.
            if Instant::now() >= tour.queue_until {
                break;
            }
        }
        None
    }

    /// One that had no turn yet and has room. Those in doubt are not asked while others merely have none.
    fn unasked(&self, tour: &mut EndpointSelection) -> Option<AttemptGuard> {
        let now = now();
        let mut at = tour.turns;
        while at < tour.order.len() && !(at == tour.good && at > tour.turns) {
            let site = &self.sites[tour.order[at]];
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

    /// One that had its turn, the one that waited longest first.
    fn asked_before(&self, tour: &mut EndpointSelection) -> Option<AttemptGuard> {
        let now = now();
        (0..tour.turns).find_map(|_| {
            tour.order[..tour.turns].rotate_left(1);
            let site = &self.sites[tour.order[tour.turns - 1]];
            site.slot_for(tour.class, tour.held_back)
                .and_then(|slot| AttemptGuard::open(site, slot, tour.subject, now))
        })
    }
}
