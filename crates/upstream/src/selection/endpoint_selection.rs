//! The endpoints for one request: their order, which were tried, and what became of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::attempt::AttemptGuard;
use crate::endpoint::{EndpointSlot, EndpointState, SlotRequest, std_now};
use crate::guard::FailureSubject;
use crate::response_value::ResponseExpectation;
use crate::{CauseCounters, Failure, Priority, PriorityRaise, RequestClass};

/// Endpoint indices in the order to try them.
pub(crate) struct EndpointOrder {
    pub(crate) endpoints: Vec<usize>,
    /// How many of them, from the start, are preferred: in good standing, and not avoided by this
    /// request.
    pub(crate) preferred_count: usize,
}

/// What matters of a request when its endpoints are chosen.
pub(crate) struct RequestProfile {
    pub(crate) priority: Priority,
    /// Set while no viewer waits: until then only blocking requests are hedged.
    pub(crate) priority_raise: Option<PriorityRaise>,
    pub(crate) subject: FailureSubject,
    /// The rate limit it counts against.
    pub(crate) class: RequestClass,
    /// Which responses are good.
    pub(crate) expectation: ResponseExpectation,
    /// A blocking request: it takes no permit of the endpoint.
    pub(crate) is_blocking: bool,
    /// A blocking request is late after this time.
    pub(crate) late_after: Option<Duration>,
    /// Another endpoint is requested too when one is late.
    pub(crate) is_hedged: bool,
    /// Deadline for a slot at an endpoint.
    pub(crate) queue_until: Instant,
    /// Deadline for everything.
    pub(crate) until: Instant,
    /// Where its attempts are counted besides their endpoint.
    pub(crate) cause: Option<Arc<CauseCounters>>,
}

/// The endpoints for one request, and its progress.
pub(crate) struct EndpointSelection {
    pub(crate) request: RequestProfile,
    pub(crate) candidates: CandidateSet,
    /// Index of an endpoint that answered that an expected object is missing.
    pub(crate) without_object: Option<usize>,
    /// Latest failure.
    pub(crate) failure: Failure,
    order: EndpointOrder,
    /// How many endpoints, from the start of the order, were tried.
    tried: usize,
    failed: Vec<FailedEndpoint>,
}

/// An endpoint that failed a request, and when it was sent there.
#[derive(Clone, Copy)]
pub(crate) struct FailedEndpoint {
    pub(crate) endpoint: usize,
    pub(crate) sent_at: std::time::Instant,
}

/// Which endpoints may be tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CandidateSet {
    /// No endpoint has seen the request: any untried one, after a wait if needed.
    First,
    /// An untried one.
    Others,
    /// An untried one, else one that was tried.
    All,
}

impl EndpointSelection {
    pub(crate) fn new(order: EndpointOrder, request: RequestProfile) -> EndpointSelection {
        EndpointSelection {
            request,
            candidates: CandidateSet::First,
            without_object: None,
            failure: Failure::BreakerOpen,
            order,
            tried: 0,
            failed: Vec::new(),
        }
    }

    /// Resolves when a viewer waits for the response.
    pub(crate) async fn until_urgent(&mut self) {
        if let Some(priority_raise) = &mut self.request.priority_raise {
            priority_raise.when.as_mut().await;
            self.request.priority = priority_raise.priority;
            self.request.priority_raise = None;
        }
    }

    /// The priority that the request has once a viewer waits.
    pub(crate) fn final_priority(&self) -> Priority {
        let priority_raise = self.request.priority_raise.as_ref();
        priority_raise.map_or(self.request.priority, |priority_raise| {
            priority_raise.priority
        })
    }

    /// The slot that the request needs at an endpoint.
    pub(crate) fn slot_request(&self) -> SlotRequest {
        SlotRequest {
            priority: self.request.priority,
            class: self.request.class,
            is_blocking: self.request.is_blocking,
        }
    }

    /// A slot for the request at this endpoint, if one is free now.
    pub(crate) fn try_slot(&self, endpoint: &EndpointState) -> Option<EndpointSlot> {
        endpoint.try_slot(self.request.class, self.request.is_blocking)
    }

    /// Starts an attempt; `None`: the endpoint's breaker refuses the request.
    pub(crate) fn open_attempt(
        &self,
        endpoint: &Arc<EndpointState>,
        slot: EndpointSlot,
    ) -> Option<AttemptGuard> {
        let mut guard = AttemptGuard::open(endpoint, slot, self.request.subject, std_now())?;
        if let Some(cause) = &self.request.cause {
            guard.set_cause(Arc::clone(cause));
        }
        Some(guard)
    }

    /// Records that an endpoint failed, or answered with a status that is retried.
    pub(crate) fn record_failure(&mut self, endpoint: &EndpointState, sent_at: std::time::Instant) {
        if self.without_object != Some(endpoint.index) {
            self.failed.push(FailedEndpoint {
                endpoint: endpoint.index,
                sent_at,
            });
        }
    }

    /// The endpoints that failed the request.
    pub(crate) fn failed(&self) -> &[FailedEndpoint] {
        &self.failed
    }

    /// The tried endpoints.
    pub(crate) fn tried(&self) -> &[usize] {
        &self.order.endpoints[..self.tried]
    }

    /// The untried endpoints.
    pub(crate) fn untried(&self) -> &[usize] {
        &self.order.endpoints[self.tried..]
    }

    /// The untried endpoints that may be requested next: the preferred ones, and after all of them
    /// the others.
    pub(crate) fn next_candidates(&self) -> &[usize] {
        if self.has_preferred_candidate() {
            &self.order.endpoints[self.tried..self.order.preferred_count]
        } else {
            self.untried()
        }
    }

    /// A preferred endpoint was not tried yet.
    pub(crate) fn has_preferred_candidate(&self) -> bool {
        self.tried < self.order.preferred_count
    }

    /// The positions to look at for the next endpoint, from here on. Endpoints that are not
    /// preferred are left out while a preferred one was skipped for lack of a slot.
    pub(crate) fn candidate_at(&self, position: usize) -> Option<usize> {
        let others_only_lack_slot = position == self.order.preferred_count && position > self.tried;
        if others_only_lack_slot {
            return None;
        }
        self.order.endpoints.get(position).copied()
    }

    /// The position of the first untried endpoint.
    pub(crate) fn next_position(&self) -> usize {
        self.tried
    }

    /// Marks the endpoint at a position as tried; those skipped come after it. Returns its index.
    pub(crate) fn mark_tried(&mut self, position: usize) -> usize {
        self.order.endpoints[self.tried..=position].rotate_right(1);
        self.tried += 1;
        self.order.endpoints[self.tried - 1]
    }

    /// Moves on to the endpoint that was tried least recently, and returns its index.
    pub(crate) fn rotate_tried(&mut self) -> usize {
        self.order.endpoints[..self.tried].rotate_left(1);
        self.order.endpoints[self.tried - 1]
    }
}
