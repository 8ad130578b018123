//! Counts and judges one attempt at an endpoint, once, at its end.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use crate::endpoint::{AttemptEnd, EndpointSlot, EndpointState, std_now};
use crate::guard::breaker::{BreakerAdmission, BreakerDecision};
use crate::guard::{EndpointFault, FailureSubject};
use crate::limit::Permit;
use crate::{CauseCounters, Failure};

/// One attempt at an endpoint; counted as abandoned unless its end is recorded before the drop.
pub(crate) struct AttemptGuard {
    endpoint: Arc<EndpointState>,
    slot: EndpointSlot,
    subject: FailureSubject,
    started: Instant,
    admission: Option<BreakerAdmission>,
    end: Option<Result<StatusCode, Failure>>,
    cause: Option<Arc<CauseCounters>>,
}

impl AttemptGuard {
    /// `None` if the endpoint's breaker refuses the request.
    pub(crate) fn open(
        endpoint: &Arc<EndpointState>,
        slot: EndpointSlot,
        subject: FailureSubject,
        now: Instant,
    ) -> Option<AttemptGuard> {
        let admission = match endpoint.guards.lock().breaker.admit(subject, now) {
            BreakerDecision::Admit(admission) | BreakerDecision::Probe(admission) => admission,
            BreakerDecision::Refuse { .. } => return None,
        };
        endpoint.counters.record_start();
        Some(AttemptGuard {
            endpoint: Arc::clone(endpoint),
            slot,
            subject,
            started: now,
            admission: Some(admission),
            end: None,
            cause: None,
        })
    }

    /// Counts the attempt for what caused it.
    pub(crate) fn set_cause(&mut self, cause: Arc<CauseCounters>) {
        cause.record_request();
        self.cause = Some(cause);
    }

    pub(crate) fn endpoint(&self) -> &Arc<EndpointState> {
        &self.endpoint
    }

    /// Hands over the endpoint's permit, if the endpoint has a concurrency limit.
    pub(crate) fn endpoint_permit(&mut self) -> Option<Permit> {
        self.slot.permit.take()
    }

    /// Releases the extra group permit: this is now the request's only attempt.
    pub(crate) fn release_group_permit(&mut self) {
        self.slot.group_permit = None;
    }

    /// The response head arrived; an error status counts against the endpoint at once.
    pub(crate) fn record_head(&mut self, status: StatusCode) {
        self.endpoint.record_response_head();
        if let Some(fault) = fault_of_status(status) {
            self.record_result(Err((fault, AttemptEnd::Status(status))));
        }
    }

    pub(crate) fn record_bytes(&self, bytes: usize) {
        self.endpoint.counters.record_bytes(bytes);
        if let Some(cause) = &self.cause {
            cause.record_bytes(bytes);
        }
    }

    /// The response arrived complete.
    pub(crate) fn complete(mut self, status: StatusCode) {
        self.record_result(Ok(()));
        self.end = Some(Ok(status));
    }

    /// The attempt failed, and the endpoint is to blame.
    pub(crate) fn fail(mut self, failure: Failure) {
        if let Some(fault) = fault_of_failure(failure) {
            self.record_result(Err((fault, AttemptEnd::Failure(failure))));
        }
        self.end = Some(Err(failure));
    }

    /// The attempt failed, perhaps through another's fault: counted, but not held against the
    /// endpoint.
    pub(crate) fn abort(mut self, failure: Failure) {
        self.end = Some(Err(failure));
    }

    fn record_result(&mut self, result: Result<(), (EndpointFault, AttemptEnd)>) {
        let Some(admission) = self.admission.take() else {
            return;
        };
        match result {
            Ok(()) => self.endpoint.record_success(admission, self.started),
            Err((fault, reason)) => {
                self.endpoint.record_failure(
                    Some(admission),
                    self.started,
                    (self.subject, fault),
                    reason,
                );
            }
        }
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take() {
            self.endpoint
                .guards
                .lock()
                .breaker
                .record_abandoned(admission, std_now());
        }
        self.endpoint.counters.record_end(self.end);
    }
}

/// The fault that a status counts as in the breaker; `None` for an ordinary response. Narrower than
/// [`crate::response_value`]: a response that another endpoint may improve on is not always a
/// fault.
fn fault_of_status(status: StatusCode) -> Option<EndpointFault> {
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Some(EndpointFault::Gateway)
        }
        // An unsupported method says nothing about the health of the endpoint.
        StatusCode::NOT_IMPLEMENTED => None,
        StatusCode::TOO_MANY_REQUESTS => Some(EndpointFault::Url),
        status if status.is_server_error() => Some(EndpointFault::Url),
        _ => None,
    }
}

/// The fault that a failure means; `None` if this host or the viewer caused it.
fn fault_of_failure(failure: Failure) -> Option<EndpointFault> {
    match failure {
        Failure::Resolve | Failure::Connect | Failure::Tls => Some(EndpointFault::Unreachable),
        Failure::Timeout => Some(EndpointFault::Silent),
        Failure::Reset => Some(EndpointFault::Gateway),
        Failure::Protocol | Failure::Truncated => Some(EndpointFault::Url),
        Failure::Busy
        | Failure::BreakerOpen
        | Failure::Credentials
        | Failure::Exhausted
        | Failure::UploadTooLarge
        | Failure::UploadTooSlow
        | Failure::UploadBroken => None,
    }
}
