//! Counters by endpoint: each attempt is counted once, at its end.

use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::StatusCode;

use super::guard::latency_window::LatencyReading;
use super::latency::LatencyTimer;
use super::{Failure, LatencyHistogram, Priority, QuotaStats, Rejection};

/// A snapshot of one group's counters.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// The group's name.
    pub name: Arc<str>,
    /// All its endpoints together.
    pub total: AttemptCounts,
    /// Each endpoint.
    pub endpoints: Vec<EndpointStats>,
    /// Requests that hold a permit.
    pub in_flight: usize,
    /// Blocking requests in progress, not included in `in_flight`.
    pub blocking: usize,
    /// Requests with slow viewers, included in neither.
    pub slow_viewers: usize,
    /// Requests with slow viewers that were cut because there were too many.
    pub slow_viewers_cut: u64,
    /// Requests that wait for a permit.
    pub queued: usize,
    /// The same by priority.
    pub queued_by_priority: [(Priority, usize); Priority::COUNT],
    /// Rejected because the queue was full: new requests, and queued ones that they displaced.
    pub queue_full: u64,
    /// Rejected by the group's own limits, by reason.
    pub rejected: [(Rejection, u64); Rejection::ALL.len()],
}

/// A snapshot of one endpoint's counters.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointStats {
    /// Its URL.
    pub endpoint: Arc<str>,
    /// Attempts by outcome.
    pub counts: AttemptCounts,
    /// Concurrency limit of this endpoint, if it has one.
    pub concurrency_max: Option<usize>,
    /// Rate limits of this endpoint, if it has any.
    pub quotas: Vec<QuotaStats>,
    /// Its state.
    pub condition: EndpointCondition,
    /// Recent latency; `None` while there are too few responses.
    pub recent_latency: Option<LatencyReading>,
    /// Latency since the start.
    pub latency: LatencyHistogram,
}

/// Why an endpoint is not in good standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointOutage {
    /// Its URL.
    pub endpoint: Arc<str>,
    /// In words that follow "it is".
    pub reason: &'static str,
}

/// What is known of the state of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointCondition {
    /// At least one address is not marked unreachable.
    pub reachable: bool,
    /// It failed too often in a row, or was too slow, and is tried after all others for a while.
    pub ejected: bool,
    /// Number of ejections.
    pub ejections: u64,
    /// `closed`, `open` or `probing`.
    pub breaker: &'static str,
    /// Number of times the breaker opened.
    pub breaker_opened: u64,
    /// Health check results; `None` without health checks.
    pub health: Option<HealthCheckStats>,
}

/// Health check results of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckStats {
    /// Healthy; if not, it is tried after all others.
    pub healthy: bool,
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
}

/// Attempts by outcome, and related counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptCounts {
    /// Complete responses, 2xx.
    pub success: u64,
    /// Complete responses, 3xx (with 304).
    pub redirect: u64,
    /// Complete responses, 4xx.
    pub client_error: u64,
    /// Complete responses, 5xx.
    pub server_error: u64,
    /// Cancelled by the caller before the end.
    pub abandoned: u64,
    /// Without a complete response, by reason, in the order of [`Failure::ALL`].
    pub failures: [u64; Failure::ALL.len()],
    /// Body bytes received.
    pub bytes_received: u64,
    /// New connections (HTTP/2: connections, not streams).
    pub connections_new: u64,
    /// Attempts on an open connection (HTTP/2: a further stream).
    pub connections_reused: u64,
    /// Requests sent again because a reused connection was closed, or a header's new value was
    /// refused.
    pub resent: u64,
    /// Requests retried after this endpoint failed.
    pub retries: u64,
    /// Requests sent here because another endpoint was late.
    pub hedges: u64,
    /// Hedged requests that won.
    pub hedges_won: u64,
    /// Bodies that it sent too slowly or stopped sending, for which another endpoint was requested.
    pub takeovers: u64,
    /// The same, but no other endpoint was requested because the retry budget was spent.
    pub takeovers_refused: u64,
    /// Attempts in progress.
    pub in_flight: usize,
}

impl AttemptCounts {
    /// Attempts without a complete response, for this reason.
    pub fn failed(&self, failure: Failure) -> u64 {
        self.failures[failure.index()]
    }
}

impl AddAssign<&AttemptCounts> for AttemptCounts {
    fn add_assign(&mut self, other: &AttemptCounts) {
        self.success += other.success;
        self.redirect += other.redirect;
        self.client_error += other.client_error;
        self.server_error += other.server_error;
        self.abandoned += other.abandoned;
        for (sum, count) in self.failures.iter_mut().zip(other.failures) {
            *sum += count;
        }
        self.bytes_received += other.bytes_received;
        self.connections_new += other.connections_new;
        self.connections_reused += other.connections_reused;
        self.resent += other.resent;
        self.retries += other.retries;
        self.hedges += other.hedges;
        self.hedges_won += other.hedges_won;
        self.takeovers += other.takeovers;
        self.takeovers_refused += other.takeovers_refused;
        self.in_flight += other.in_flight;
    }
}

/// The counters behind [`AttemptCounts`].
#[derive(Default)]
pub(super) struct EndpointCounters {
    /// 2xx, 3xx, 4xx, 5xx.
    classes: [AtomicU64; 4],
    abandoned: AtomicU64,
    failures: [AtomicU64; Failure::ALL.len()],
    bytes_received: AtomicU64,
    connections_new: AtomicU64,
    connections_reused: AtomicU64,
    resent: AtomicU64,
    retries: AtomicU64,
    hedges: AtomicU64,
    hedges_won: AtomicU64,
    takeovers: AtomicU64,
    takeovers_refused: AtomicU64,
    pub(super) response_times: LatencyTimer,
    in_flight: AtomicUsize,
}

impl EndpointCounters {
    pub(super) fn record_start(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// `None`: cancelled.
    pub(super) fn record_end(&self, end: Option<Result<StatusCode, Failure>>) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let counter = match end {
            Some(Ok(status)) => &self.classes[usize::from(status.as_u16() / 100).clamp(2, 5) - 2],
            Some(Err(failure)) => &self.failures[failure.index()],
            None => &self.abandoned,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was never sent.
    pub(super) fn record_unsent(&self, failure: Failure) {
        self.failures[failure.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn record_bytes(&self, bytes: usize) {
        self.bytes_received
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn record_connection(&self, reused: bool) {
        let counter = if reused {
            &self.connections_reused
        } else {
            &self.connections_new
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn record_resent(&self) {
        self.resent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn record_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn record_hedge(&self) {
        self.hedges.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn record_hedge_won(&self) {
        self.hedges_won.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a takeover from this endpoint, or a refused one.
    pub(super) fn record_takeover(&self, is_granted: bool) {
        let counter = if is_granted {
            &self.takeovers
        } else {
            &self.takeovers_refused
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn read(&self) -> AttemptCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [success, redirect, client_error, server_error] = self.classes.each_ref().map(get);
        AttemptCounts {
            success,
            redirect,
            client_error,
            server_error,
            abandoned: get(&self.abandoned),
            failures: self.failures.each_ref().map(get),
            bytes_received: get(&self.bytes_received),
            connections_new: get(&self.connections_new),
            connections_reused: get(&self.connections_reused),
            resent: get(&self.resent),
            retries: get(&self.retries),
            hedges: get(&self.hedges),
            hedges_won: get(&self.hedges_won),
            takeovers: get(&self.takeovers),
            takeovers_refused: get(&self.takeovers_refused),
            in_flight: self.in_flight(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_is_counted_once() {
        let counters = EndpointCounters::default();
        let ends = [
            Some(Ok(StatusCode::PARTIAL_CONTENT)),
            Some(Ok(StatusCode::NOT_MODIFIED)),
            Some(Ok(StatusCode::NOT_FOUND)),
            Some(Ok(StatusCode::BAD_GATEWAY)),
            Some(Err(Failure::Truncated)),
            None,
        ];
        for end in ends {
            counters.record_start();
            counters.record_end(end);
        }
        let counts = counters.read();
        let classes = (counts.success, counts.redirect, counts.client_error);
        assert_eq!(classes, (1, 1, 1));
        assert_eq!((counts.server_error, counts.abandoned), (1, 1));
        assert_eq!(counts.failures[Failure::Truncated.index()], 1);
        assert_eq!(counts.in_flight, 0);
    }
}
