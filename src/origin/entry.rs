//! What came of one attempt at an endpoint? Counted, and judged, once, at its end; as given up unless somebody tells.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::Failure;
use super::guard::breaker::{Admit, Pass};
use super::guard::{Fault, Subject};
use super::limit::Permit;
use super::site::{Site, Slot};

/// Why an attempt counts as failed, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    /// There was no whole answer.
    Failure(Failure),
    /// The answer was an error.
    Status(StatusCode),
    /// Another endpoint answered first.
    Late,
}

impl Reason {
    /// The word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Reason::Failure(_) | Reason::Status(_) => "failures",
            Reason::Late => "late",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Failure(failure) => failure.fmt(f),
            Reason::Status(status) => write!(f, "status {}", status.as_u16()),
            Reason::Late => f.write_str("late"),
        }
    }
}

/// One attempt at an endpoint: counted, and judged, once, at its end. Counted as given up unless that is told.
pub(super) struct Entry {
    site: Arc<Site>,
    slot: Slot,
    subject: Subject,
    asked: Instant,
    pass: Option<Pass>,
    end: Option<Result<StatusCode, Failure>>,
}

impl Entry {
    /// `None` while the endpoint's breaker lets nobody pass.
    pub(super) fn open(
        site: &Arc<Site>,
        slot: Slot,
        subject: Subject,
        now: Instant,
    ) -> Option<Entry> {
        let pass = match site.watched.lock().breaker.admit(subject, now) {
            Admit::Yes(pass) | Admit::Probe(pass) => pass,
            Admit::No { .. } => return None,
        };
        site.ledger.begun();
        Some(Entry {
            site: Arc::clone(site),
            slot,
            subject,
            asked: now,
            pass: Some(pass),
            end: None,
        })
    }

    pub(super) fn site(&self) -> &Arc<Site> {
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
            self.judge(Err((fault, Reason::Status(status))));
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
            self.judge(Err((fault, Reason::Failure(failure))));
        }
        self.end = Some(Err(failure));
    }

    /// It did not, and that may be somebody else's fault: counted, but not held against the endpoint.
    pub(super) fn broke_off(mut self, failure: Failure) {
        self.end = Some(Err(failure));
    }

    fn judge(&mut self, result: Result<(), (Fault, Reason)>) {
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

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.site.watched.lock().breaker.lost(pass, Instant::now());
        }
        self.site.ledger.ended(self.end);
    }
}

/// What a status says against the endpoint; nothing where it is an answer like others.
fn fault_of_status(status: StatusCode) -> Option<Fault> {
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Some(Fault::Gateway)
        }
        // It says something of how it was asked.
        StatusCode::NOT_IMPLEMENTED => None,
        StatusCode::TOO_MANY_REQUESTS => Some(Fault::Url),
        status if status.is_server_error() => Some(Fault::Url),
        _ => None,
    }
}

/// The same of a failure; nothing where it is this host's own, or the viewer's.
fn fault_of_failure(failure: Failure) -> Option<Fault> {
    match failure {
        Failure::Resolve | Failure::Connect | Failure::Tls => Some(Fault::Unreachable),
        Failure::Timeout => Some(Fault::Silent),
        Failure::Reset => Some(Fault::Gateway),
        Failure::Protocol | Failure::Truncated => Some(Fault::Url),
        Failure::Busy
        | Failure::Open
        | Failure::Credentials
        | Failure::Exhausted
        | Failure::UploadTooLarge
        | Failure::UploadTooSlow
        | Failure::UploadBroken => None,
    }
}
