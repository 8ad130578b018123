//! Selects the endpoints that one request goes to, one after another: by the balance of the group,
//! the standing of its endpoints, and their free slots.
//!
//! An endpoint at its concurrency or rate limit is skipped but stays in the order: it may have a
//! slot at a retry. Only a request that no endpoint has seen yet waits for a slot.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::Instant;

use parking_lot::Mutex;

use super::endpoint_selection::{CandidateSet, EndpointOrder, EndpointSelection, RequestProfile};
use super::extra_requests::ExtraRequests;
use super::order::{EndpointRank, WeightedRotation, order};
use super::outliers::OutlierDetection;
use crate::attempt::AttemptGuard;
use crate::connection::AttemptRequest;
use crate::connection::EndpointConnector;
use crate::endpoint::{EndpointRecord, EndpointSlot, EndpointState, StandingFlags, std_now};
use crate::group_limits::GroupLimits;
use crate::guard::FailureSubject;
use crate::{Balance, Failure, Settings};
use seawall_policy::EndpointSet;

/// Selects endpoints for the requests of one group.
pub(crate) struct EndpointSelector {
    pub(crate) endpoints: Vec<Arc<EndpointState>>,
    connector: Arc<EndpointConnector>,
    limits: Arc<GroupLimits>,
    balance: Balance,
    rotation: Mutex<WeightedRotation>,
    outlier_detection: OutlierDetection,
    /// Grants retries, hedges and takeovers.
    pub(crate) extra_requests: Arc<ExtraRequests>,
}

/// A slot at the endpoint at this position of a selection.
struct FreeSlot {
    position: usize,
    slot: EndpointSlot,
}

/// A wait for a slot at one endpoint of a selection.
struct SlotWait<F> {
    position: usize,
    slot: Pin<Box<F>>,
}

impl EndpointSelector {
    pub(crate) fn new(
        settings: &Settings,
        connector: Arc<EndpointConnector>,
        limits: Arc<GroupLimits>,
        records: &[Arc<EndpointRecord>],
        extra_requests: Arc<ExtraRequests>,
    ) -> EndpointSelector {
        let standing_flags: StandingFlags = records.iter().map(|_| AtomicBool::new(true)).collect();
        let endpoint = |(index, record)| {
            Arc::new(EndpointState::new(index, settings, record, &standing_flags))
        };
        let judged_every = settings.guards.ejection.judged_every;
        EndpointSelector {
            endpoints: records.iter().enumerate().map(endpoint).collect(),
            connector,
            balance: settings.balance,
            rotation: Mutex::new(WeightedRotation::default()),
            outlier_detection: OutlierDetection::new(judged_every, std_now()),
            extra_requests,
            limits,
        }
    }

    /// The breaker of every endpoint refuses requests for this subject.
    pub(crate) fn is_refused(&self, subject: FailureSubject) -> bool {
        self.endpoints
            .iter()
            .all(|endpoint| endpoint.refuses(subject, std_now()))
    }

    /// The endpoint is in good standing and reachable.
    pub(crate) fn is_in_good_standing(&self, endpoint: &EndpointState, now: Instant) -> bool {
        endpoint.is_in_good_standing(now) && self.connector.is_reachable(endpoint.index)
    }

    /// An endpoint outside `excluded` is in good standing.
    pub(crate) fn has_another_in_good_standing(&self, excluded: EndpointSet) -> bool {
        let now = std_now();
        let mut others = self
            .endpoints
            .iter()
            .filter(|other| !excluded.contains(other.number));
        others.any(|other| self.is_in_good_standing(other, now))
    }

    /// Updates the standing of all endpoints: retries unreachable addresses, ejects outliers, and
    /// records which are in good standing, for the ejection decisions of the others.
    pub(crate) fn update_standing(&self) {
        let now = std_now();
        self.connector.retry_unreachable();
        let in_good_standing = |endpoint: &EndpointState| self.is_in_good_standing(endpoint, now);
        self.outlier_detection
            .judge(&self.endpoints, now, in_good_standing);
        for endpoint in &self.endpoints {
            endpoint.set_in_good_standing(in_good_standing(endpoint));
        }
    }

    /// Chooses the order of endpoints without the excluded ones, and how many are preferred.
    /// Advances the rotation.
    pub(crate) fn choose_order(
        &self,
        request: &AttemptRequest,
        avoided: EndpointSet,
        excluded: EndpointSet,
    ) -> EndpointOrder {
        let ranks = self.ranks(avoided.union(excluded), std_now());
        let is_allowed = |index: &usize| !excluded.contains(self.endpoints[*index].number);
        let preferred = (0..ranks.len()).filter(|&index| ranks[index].is_preferred);
        let preferred_count = preferred.filter(is_allowed).count();
        let balance_hash = request.balance_hash();
        let mut endpoints = order(
            &ranks,
            self.balance,
            balance_hash,
            &mut self.rotation.lock(),
        );
        endpoints.retain(is_allowed);
        EndpointOrder {
            endpoints,
            preferred_count,
        }
    }

    /// The endpoints that are due for a probe, each claimed for the caller.
    pub(crate) fn claim_probes(&self) -> impl Iterator<Item = &Arc<EndpointState>> {
        let now = std_now();
        self.endpoints
            .iter()
            .filter(move |endpoint| endpoint.claim_probe(now))
    }

    /// Starts a probe, if the endpoint has a free slot and the group a permit.
    pub(crate) fn start_probe(
        &self,
        endpoint: &Arc<EndpointState>,
        request: &AttemptRequest,
    ) -> Option<AttemptGuard> {
        if !endpoint.has_slot(request.class) {
            return None;
        }
        let permit = self.limits.try_permit()?;
        let slot = endpoint
            .try_slot(request.class, false)?
            .with_group_permit(permit);
        AttemptGuard::open(endpoint, slot, request.subject(), std_now())
    }

    fn ranks(&self, avoided: EndpointSet, now: Instant) -> Vec<EndpointRank> {
        let is_preferred = |endpoint: &Arc<EndpointState>| {
            self.is_in_good_standing(endpoint, now) && !avoided.contains(endpoint.number)
        };
        // If all endpoints are avoided, the list has no effect.
        let any_preferred = self.endpoints.iter().any(is_preferred);
        let rank = |endpoint: &Arc<EndpointState>| EndpointRank {
            number: endpoint.number,
            priority: endpoint.priority,
            weight: endpoint.weight,
            in_flight: endpoint.counters.in_flight(),
            is_preferred: self.is_in_good_standing(endpoint, now)
                && (!any_preferred || !avoided.contains(endpoint.number)),
        };
        self.endpoints.iter().map(rank).collect()
    }

    /// The endpoint that a request with this hash would go to first; `None`: no endpoint accepts
    /// it.
    pub(crate) fn first_choice(
        &self,
        balance_hash: u64,
        subject: FailureSubject,
        avoided: EndpointSet,
    ) -> Option<&Arc<EndpointState>> {
        let now = std_now();
        let ranks = self.ranks(avoided, now);
        // Work on a copy, so that the rotation does not advance.
        let mut rotation = self.rotation.lock().clone();
        let order = order(&ranks, self.balance, balance_hash, &mut rotation);
        let mut endpoints = order.into_iter().map(|index| &self.endpoints[index]);
        endpoints.find(|endpoint| !endpoint.refuses(subject, now))
    }

    /// Starts an attempt at the next endpoint that accepts the request.
    pub(crate) async fn next(&self, selection: &mut EndpointSelection) -> Option<AttemptGuard> {
        match selection.candidates {
            CandidateSet::First => self.wait_for_first(selection).await,
            CandidateSet::Others => self.try_untried(selection),
            CandidateSet::All => self
                .try_untried(selection)
                .or_else(|| self.try_tried_again(selection)),
        }
    }

    /// The first endpoint. While all candidates are at a limit, waits for the first free slot.
    async fn wait_for_first(&self, selection: &mut EndpointSelection) -> Option<AttemptGuard> {
        loop {
            if let Some(attempt) = self.try_untried(selection) {
                return Some(attempt);
            }
            let free = self.wait_for_slot(selection).await?;
            let endpoint = &self.endpoints[selection.mark_tried(free.position)];
            let attempt = selection.open_attempt(endpoint, free.slot);
            if attempt.is_some() {
                return attempt;
            }
        }
    }

    /// Waits at all candidates, and leaves the other queues when one has a slot.
    async fn wait_for_slot(&self, selection: &mut EndpointSelection) -> Option<FreeSlot> {
        let queue_until = selection.request.queue_until;
        let timeout = queue_until.saturating_duration_since(tokio::time::Instant::now());
        let slot_request = selection.slot_request();
        let positions = selection.next_position()..;
        let candidates = selection.next_candidates().iter();
        let mut waits: Vec<_> = positions
            .zip(candidates)
            .map(|(position, &index)| SlotWait {
                position,
                slot: Box::pin(self.endpoints[index].wait_for_slot(slot_request, timeout)),
            })
            .collect();
        while !waits.is_empty() {
            match first_ended(&mut waits).await {
                (position, Ok(slot)) => return Some(FreeSlot { position, slot }),
                (_, Err(failure)) => selection.failure = failure,
            }
            // A request that timed out in several queues counts once.
            if tokio::time::Instant::now() >= queue_until {
                break;
            }
        }
        None
    }

    /// Starts an attempt at an untried endpoint that has a free slot. Those not in good standing
    /// are skipped while the others only lack a slot.
    fn try_untried(&self, selection: &mut EndpointSelection) -> Option<AttemptGuard> {
        let now = std_now();
        let mut position = selection.next_position();
        while let Some(index) = selection.candidate_at(position) {
            let endpoint = &self.endpoints[index];
            let slot = selection.try_slot(endpoint);
            let lacks_slot = slot.is_none() && !endpoint.refuses(selection.request.subject, now);
            if !lacks_slot {
                selection.mark_tried(position);
            }
            if let Some(slot) = slot
                && let Some(attempt) = selection.open_attempt(endpoint, slot)
            {
                return Some(attempt);
            }
            position += 1;
        }
        None
    }

    /// Starts an attempt at a tried endpoint that has a free slot, the least recently tried first.
    fn try_tried_again(&self, selection: &mut EndpointSelection) -> Option<AttemptGuard> {
        for _ in 0..selection.tried().len() {
            let endpoint = &self.endpoints[selection.rotate_tried()];
            if let Some(slot) = selection.try_slot(endpoint)
                && let Some(attempt) = selection.open_attempt(endpoint, slot)
            {
                return Some(attempt);
            }
        }
        None
    }

    /// Starts an attempt at the next endpoint for a request that is late at another. `None`: it has
    /// no free slot, is not in good standing, or the budget is spent.
    pub(crate) async fn next_hedge(
        &self,
        selection: &mut EndpointSelection,
    ) -> Option<AttemptGuard> {
        let position = selection.next_position();
        let endpoint = Arc::clone(&self.endpoints[*selection.untried().first()?]);
        let RequestProfile {
            priority,
            until,
            is_blocking,
            ..
        } = selection.request;
        let slot = if is_blocking {
            // Sent under the first attempt's permit, and without the retry budget: that is for
            // failing origins, and nothing indicates a failure here.
            self.limits.wait_for_token(priority, until).await.ok()?;
            selection.try_slot(&endpoint)?
        } else {
            self.slot_for_hedge(&endpoint, selection)?
        };
        selection.mark_tried(position);
        selection.open_attempt(&endpoint, slot)
    }

    fn slot_for_hedge(
        &self,
        endpoint: &EndpointState,
        selection: &EndpointSelection,
    ) -> Option<EndpointSlot> {
        if !self.is_in_good_standing(endpoint, std_now()) {
            return None;
        }
        self.extra_requests
            .try_hedge(endpoint, selection.request.class)
    }

    /// Number of endpoints not tried yet whose breaker accepts the request.
    pub(crate) fn remaining(&self, selection: &EndpointSelection) -> usize {
        let subject = selection.request.subject;
        let untried = selection.untried().iter();
        untried
            .filter(|&&index| !self.endpoints[index].refuses(subject, std_now()))
            .count()
    }

    /// An endpoint not tried yet is in good standing and accepts the request.
    pub(crate) fn has_untried_in_good_standing(&self, selection: &EndpointSelection) -> bool {
        let now = std_now();
        let mut untried = selection
            .untried()
            .iter()
            .map(|&index| &self.endpoints[index]);
        untried.any(|endpoint| {
            self.is_in_good_standing(endpoint, now)
                && !endpoint.refuses(selection.request.subject, now)
        })
    }

    /// One of these endpoints accepts the request and has a free slot.
    pub(crate) fn has_any_free_slot(
        &self,
        indices: &[usize],
        selection: &EndpointSelection,
    ) -> bool {
        let now = std_now();
        indices
            .iter()
            .map(|&index| &self.endpoints[index])
            .any(|endpoint| {
                !endpoint.refuses(selection.request.subject, now)
                    && endpoint.has_slot(selection.request.class)
            })
    }
}

/// Waits for the first wait to end, and removes it. There must be one.
async fn first_ended<F>(waits: &mut Vec<SlotWait<F>>) -> (usize, Result<EndpointSlot, Failure>)
where
    F: Future<Output = Result<EndpointSlot, Failure>>,
{
    poll_fn(|context| {
        for number in 0..waits.len() {
            if let Poll::Ready(end) = waits[number].slot.as_mut().poll(context) {
                return Poll::Ready((waits.swap_remove(number).position, end));
            }
        }
        Poll::Pending
    })
    .await
}
