//! What came of one attempt at an endpoint? Counted, and judged, once, at its end; as given up unless somebody tells.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::Failure;
use super::guard::breaker::{Admit, Pass};
use super::limit::Permit;
use super::site::{Site, Slot};

/// One attempt at an endpoint: counted, and judged, once, at its end. Counted as given up unless that is told.
pub(super) struct Entry {
    site: Arc<Site>,
    slot: Slot,
    asked: Instant,
    pass: Option<Pass>,
    end: Option<Result<StatusCode, Failure>>,
}

impl Entry {
    /// `None` while the endpoint's breaker lets nobody pass.
    pub(super) fn open(site: &Arc<Site>, slot: Slot, now: Instant) -> Option<Entry> {
        let pass = match site.watched.lock().breaker.admit(now) {
            Admit::Yes(pass) | Admit::Probe(pass) => pass,
            Admit::No { .. } => return None,
        };
        site.ledger.begun();
        Some(Entry {
            site: Arc::clone(site),
            slot,
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
        if is_bad(status) {
            self.judge(false);
        }
    }

    pub(super) fn received(&self, bytes: usize) {
        self.site.ledger.received(bytes);
    }

    /// The answer arrived whole.
    pub(super) fn whole(mut self, status: StatusCode) {
        self.judge(true);
        self.end = Some(Ok(status));
    }

    /// It did not, and that is the endpoint's fault.
    pub(super) fn failed(mut self, failure: Failure) {
        self.judge(false);
        self.end = Some(Err(failure));
    }

    /// It did not, and that may be somebody else's fault: counted, but not held against the endpoint.
    pub(super) fn broke_off(mut self, failure: Failure) {
        self.end = Some(Err(failure));
    }

    fn judge(&mut self, good: bool) {
        let Some(pass) = self.pass.take() else {
            return;
        };
        let now = Instant::now();
        let mut watched = self.site.watched.lock();
        watched.breaker.record(pass, now, good);
        if good {
            watched.ejection.succeeded(now, self.asked);
        } else {
            drop(watched);
            self.site.failed(self.asked, "failures");
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

/// Says more about the endpoint than about what it was asked for, or how.
fn is_bad(status: StatusCode) -> bool {
    let how = status == StatusCode::NOT_IMPLEMENTED;
    (status.is_server_error() && !how) || status == StatusCode::TOO_MANY_REQUESTS
}
