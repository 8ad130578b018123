//! What came of asking an origin? Counters, each request counted once, at its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

use super::Failure;

/// A reading of one group's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The group.
    pub name: Arc<str>,
    /// Whole answers, 2xx.
    pub success: u64,
    /// Whole answers, 3xx (304 among them).
    pub redirect: u64,
    /// Whole answers, 4xx.
    pub client_error: u64,
    /// Whole answers, 5xx.
    pub server_error: u64,
    /// Given up by the asker before their end.
    pub abandoned: u64,
    /// Without a whole answer, by reason.
    pub failures: [(Failure, u64); Failure::ALL.len()],
    /// Body bytes received.
    pub bytes_received: u64,
    /// Connections made (and HTTP/2 connections, not streams).
    pub connections_new: u64,
    /// Times an open connection was used again (HTTP/2: a further stream).
    pub connections_reused: u64,
    /// Requests sent a second time because a reused connection had been closed.
    pub retries: u64,
    /// Under way now.
    pub in_flight: usize,
    /// Waiting for a permit now.
    pub queued: usize,
}

/// The counters behind [`Stats`].
#[derive(Default)]
pub(super) struct Ledger {
    /// 2xx, 3xx, 4xx, 5xx.
    classes: [AtomicU64; 4],
    abandoned: AtomicU64,
    failures: [AtomicU64; Failure::ALL.len()],
    bytes_received: AtomicU64,
    connections_new: AtomicU64,
    connections_reused: AtomicU64,
    retries: AtomicU64,
}

impl Ledger {
    pub(super) fn received(&self, bytes: usize) {
        self.bytes_received
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn connected(&self, reused: bool) {
        let counter = if reused {
            &self.connections_reused
        } else {
            &self.connections_new
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self, name: Arc<str>, in_flight: usize, queued: usize) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [success, redirect, client_error, server_error] = self.classes.each_ref().map(get);
        Stats {
            name,
            success,
            redirect,
            client_error,
            server_error,
            abandoned: get(&self.abandoned),
            failures: Failure::ALL.map(|failure| (failure, get(&self.failures[failure.index()]))),
            bytes_received: get(&self.bytes_received),
            connections_new: get(&self.connections_new),
            connections_reused: get(&self.connections_reused),
            retries: get(&self.retries),
            in_flight,
            queued,
        }
    }
}

/// One request's entry: counted as abandoned unless its end is told.
pub(super) struct Entry {
    ledger: Arc<Ledger>,
    told: bool,
}

impl Entry {
    pub(super) fn open(ledger: &Arc<Ledger>) -> Entry {
        let ledger = Arc::clone(ledger);
        Entry {
            ledger,
            told: false,
        }
    }

    /// The answer arrived whole.
    pub(super) fn whole(mut self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(2, 5) - 2;
        self.ledger.classes[class].fetch_add(1, Ordering::Relaxed);
        self.told = true;
    }

    /// It did not.
    pub(super) fn failed(mut self, failure: Failure) {
        self.ledger.failures[failure.index()].fetch_add(1, Ordering::Relaxed);
        self.told = true;
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.told {
            self.ledger.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_counted_once() {
        let ledger = Arc::new(Ledger::default());
        Entry::open(&ledger).whole(StatusCode::PARTIAL_CONTENT);
        Entry::open(&ledger).whole(StatusCode::NOT_MODIFIED);
        Entry::open(&ledger).whole(StatusCode::NOT_FOUND);
        Entry::open(&ledger).whole(StatusCode::BAD_GATEWAY);
        Entry::open(&ledger).failed(Failure::Truncated);
        drop(Entry::open(&ledger));
        let stats = ledger.read("main".into(), 0, 0);
        let classes = (stats.success, stats.redirect, stats.client_error);
        assert_eq!(classes, (1, 1, 1));
        assert_eq!((stats.server_error, stats.abandoned), (1, 1));
        assert_eq!(stats.failures[7], (Failure::Truncated, 1));
    }
}
