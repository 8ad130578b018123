//! What came of one attempt at an endpoint? Counted, and judged, once, at its end; as given up unless somebody tells.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::Failure;
use super::endpoint::{EndpointSlot, EndpointState};
use super::guard::breaker::{BreakerDecision, BreakerPass};
use super::guard::{EndpointFault, FailureSubject};
use super::limit::Permit;

/// Why an attempt counts as failed, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum AttemptEnd {
    /// There was no whole answer.
    Failure(Failure),
    /// The answer was an error.
    Status(StatusCode),
    /// Another endpoint answered first.
    Late,
}

impl AttemptEnd {
    /// The word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            AttemptEnd::Failure(_) | AttemptEnd::Status(_) => "failures",
            AttemptEnd::Late => "late",
        }
    }
}

impl fmt::Display for AttemptEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttemptEnd::Failure(failure) => failure.fmt(f),
            AttemptEnd::Status(status) => write!(f, "status {}", status.as_u16()),
            AttemptEnd::Late => f.write_str("late"),
        }
    }
}

/// One attempt at an endpoint: counted, and judged, once, at its end. Counted as given up unless that is told.
pub(super) struct AttemptGuard {
    site: Arc<EndpointState>,
    slot: EndpointSlot,
    subject: FailureSubject,
    asked: Instant,
    pass: Option<BreakerPass>,
    end: Option<Result<StatusCode, Failure>>,
}

impl AttemptGuard {
    /// `None` while the endpoint's breaker lets nobody pass.
    pub(super) fn open(
        site: &Arc<EndpointState>,
        slot: EndpointSlot,
        subject: FailureSubject,
        now: Instant,
    ) -> Option<AttemptGuard> {
        let pass = match site.watched.lock().breaker.admit(subject, now) {
            BreakerDecision::Yes(pass) | BreakerDecision::Probe(pass) => pass,
            BreakerDecision::No { .. } => return None,
        };
        site.ledger.begun();
        Some(AttemptGuard {
            site: Arc::clone(site),
            slot,
            subject,
            asked: now,
            pass: Some(pass),
            end: None,
        })
    }

    pub(super) fn site(&self) -> &Arc<EndpointState> {
        &self.site
    }

    /// Hands over its place among what the endpoint bears, where that has a bound.
    pub(super) fn endpoint_permit(&mut self) -> Option<Permit> {
        self.slot.permit.take()
    }

    /// It is its asker's only one now, under the asker's own permit.
    pub(super) fn alone(&mut self) {
        self.slot.of_group = None;
    }

    /// The answer's head is there; a bad one is held against the endpoint at once.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.site.heard();
        if let Some(fault) = fault_of_status(status) {
            self.judge(Err((fault, AttemptEnd::Status(status))));
        }
    }

    pub(super) fn received(&self, bytes: usize) {
        self.site.ledger.received(bytes);
    }

    /// The answer arrived whole.
    pub(super) fn whole(mut self, status: StatusCode) {
        self.judge(Ok(()));
        self.end = Some(Ok(status));
    }

    /// It did not, and that is the endpoint's fault.
    pub(super) fn failed(mut self, failure: Failure) {
        if let Some(fault) = fault_of_failure(failure) {
            self.judge(Err((fault, AttemptEnd::Failure(failure))));
        }
        self.end = Some(Err(failure));
    }

    /// It did not, and that may be somebody else's fault: counted, but not held against the endpoint.
    pub(super) fn broke_off(mut self, failure: Failure) {
        self.end = Some(Err(failure));
    }

    fn judge(&mut self, result: Result<(), (EndpointFault, AttemptEnd)>) {
        let Some(pass) = self.pass.take() else {
            return;
        };
        match result {
            Ok(()) => self.site.succeeded(pass, self.asked),
            Err((fault, reason)) => {
                self.site
                    .failed(Some(pass), self.asked, (self.subject, fault), reason);
            }
        }
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.site.watched.lock().breaker.lost(pass, Instant::now());
        }
        self.site.ledger.ended(self.end);
    }
}

/// What a status says against the endpoint; nothing where it is an answer like others.
fn fault_of_status(status: StatusCode) -> Option<EndpointFault> {
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Some(EndpointFault::Gateway)
        }
        // It says something of how it was asked.
        StatusCode::NOT_IMPLEMENTED => None,
        StatusCode::TOO_MANY_REQUESTS => Some(EndpointFault::Url),
        status if status.is_server_error() => Some(EndpointFault::Url),
        _ => None,
    }
}

/// The same of a failure; nothing where it is this host's own, or the viewer's.
fn fault_of_failure(failure: Failure) -> Option<EndpointFault> {
    match failure {
        Failure::Resolve | Failure::Connect | Failure::Tls => Some(EndpointFault::Unreachable),
        Failure::Timeout => Some(EndpointFault::Silent),
        Failure::Reset => Some(EndpointFault::Gateway),
        Failure::Protocol | Failure::Truncated => Some(EndpointFault::Url),
        Failure::Busy
        | Failure::Open
        | Failure::Credentials
        | Failure::Exhausted
        | Failure::UploadTooLarge
        | Failure::UploadTooSlow
        | Failure::UploadBroken => None,
    }
}
