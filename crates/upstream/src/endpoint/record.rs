//! What is known of an endpoint, and stays known when its group gets other settings: guards,
//! counters, limits and quotas in progress.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::{EndpointGuards, std_now};
use crate::limit::{ConcurrencyLimiter, LimiterCounts, LimiterSettings, reserved_for_manifests};
use crate::quota::Quotas;
use crate::stats::EndpointCounters;
use crate::{AttemptCounts, Check, Endpoint, Settings};

/// As many numbers as an [`seawall_policy::EndpointSet`] can hold.
const NUMBERS_MAX: usize = 64;

/// What is known of one endpoint. Groups that succeed each other share it: together they never
/// exceed its limits.
pub(crate) struct EndpointRecord {
    /// Names the endpoint outside the group, where settings may have changed in between.
    pub(crate) number: usize,
    identity: EndpointIdentity,
    /// The URL, for metrics and logs.
    pub(super) url: Arc<str>,
    pub(crate) counters: EndpointCounters,
    /// The concurrency limit of this endpoint alone. It counts requests also while there is none,
    /// so that one set later holds for them.
    pub(super) limiter: ConcurrencyLimiter,
    pub(super) quotas: Quotas,
    pub(crate) guards: Mutex<EndpointGuards>,
}

/// What makes two configured endpoints the same one.
#[derive(PartialEq, Eq)]
struct EndpointIdentity {
    tls: bool,
    host: String,
    port: u16,
}

impl EndpointIdentity {
    fn of(endpoint: &Endpoint) -> EndpointIdentity {
        EndpointIdentity {
            tls: endpoint.tls,
            host: endpoint.host.clone(),
            port: endpoint.port,
        }
    }
}

impl EndpointRecord {
    pub(super) fn new(number: usize, endpoint: &Endpoint, group: &Settings) -> EndpointRecord {
        EndpointRecord {
            number,
            identity: EndpointIdentity::of(endpoint),
            url: endpoint.url().into(),
            counters: EndpointCounters::default(),
            limiter: ConcurrencyLimiter::new(&limiter_settings(endpoint, group)),
            quotas: Quotas::new(endpoint.requests_per_second_max, group.queue_max),
            guards: Mutex::new(EndpointGuards::new(group, std_now())),
        }
    }

    /// Uses the limits and thresholds of these settings from now on.
    pub(crate) fn apply(&self, endpoint: &Endpoint, group: &Settings) {
        self.limiter.set_limits(&limiter_settings(endpoint, group));
        let quota = endpoint.requests_per_second_max;
        self.quotas.set(quota, group.queue_max);
        self.guards.lock().apply(group, std_now());
    }

    /// Requests that wait for the endpoint, and those rejected.
    pub(crate) fn waits(&self) -> LimiterCounts {
        let mut counts = self.limiter.counts();
        self.quotas.add_waits(&mut counts);
        counts
    }

    /// The concurrency limit, if there is one.
    pub(super) fn concurrency_max(&self) -> Option<usize> {
        Some(self.limiter.concurrency_max()).filter(|&max| max < usize::MAX)
    }
}

fn limiter_settings(endpoint: &Endpoint, group: &Settings) -> LimiterSettings {
    let reserved = match (endpoint.concurrency_max, endpoint.requests_per_second_max) {
        (Some(concurrency_max), Some(_)) => reserved_for_manifests(concurrency_max),
        _ => 0,
    };
    LimiterSettings {
        concurrency_max: endpoint.concurrency_max.unwrap_or(usize::MAX),
        reserved_for_manifests: reserved,
        queue_max: group.queue_max,
        requests_per_second_max: None,
    }
}

impl EndpointGuards {
    fn apply(&mut self, group: &Settings, now: Instant) {
        let settings = &group.guards;
        self.breaker.set_settings(settings.breaker, now);
        self.ejection.set_settings(settings.ejection);
        self.latency_window(now).set_settings(settings.latency);
        self.apply_check(group.health.as_ref());
    }

    fn apply_check(&mut self, check: Option<&Check>) {
        let Some(check) = check else {
            (self.check_kind, self.health) = (None, None);
            return;
        };
        let Some(health) = &mut self.health else {
            (self.check_kind, self.health) = EndpointGuards::health_of(Some(check));
            return;
        };
        health.set_settings(check.schedule);
        if self.check_kind.as_ref() != Some(&check.kind) {
            health.reset();
            self.check_kind = Some(check.kind.clone());
        }
    }
}

/// The endpoints that a group and those before it have had. One that leaves is remembered: if it
/// returns it has the same number and state, and the sums of the group's counters do not go back.
#[derive(Clone, Default)]
pub(crate) struct EndpointRecords {
    /// By number.
    records: Vec<Arc<EndpointRecord>>,
    /// The numbers of those that left, the longest ago first.
    left: Vec<usize>,
    /// The counts of those whose number was given to another endpoint.
    forgotten: ForgottenCounts,
}

/// Counts of endpoints that are remembered no longer.
#[derive(Clone, Default)]
struct ForgottenCounts {
    attempts: AttemptCounts,
    waits: LimiterCounts,
}

impl EndpointRecords {
    /// The records for a group with these settings, and those of its endpoints in order. Changes
    /// nothing of `self`.
    pub(crate) fn succeed(
        &self,
        settings: &Settings,
    ) -> (EndpointRecords, Vec<Arc<EndpointRecord>>) {
        let mut next = self.clone();
        let known = |endpoint: &Endpoint| {
            let identity = EndpointIdentity::of(endpoint);
            let mut records = self.records.iter();
            records.position(|record| record.identity == identity)
        };
        let known: Vec<_> = settings.endpoints.iter().map(known).collect();
        next.left.retain(|number| !known.contains(&Some(*number)));
        let gone = (0..self.records.len())
            .filter(|number| !known.contains(&Some(*number)) && !self.left.contains(number));
        next.left.extend(gone);
        let numbers = settings.endpoints.iter().zip(known);
        let numbers = numbers.map(|(endpoint, known)| {
            let number = known.unwrap_or_else(|| next.add(endpoint, settings));
            Arc::clone(&next.records[number])
        });
        let endpoints = numbers.collect();
        (next, endpoints)
    }

    /// Adds an endpoint. Numbers stand for one endpoint as long as possible: none is given again
    /// while there is an unused one, and then that of the endpoint that left the longest ago.
    fn add(&mut self, endpoint: &Endpoint, settings: &Settings) -> usize {
        let unused = self.records.len();
        if unused < NUMBERS_MAX || self.left.is_empty() {
            let record = EndpointRecord::new(unused, endpoint, settings);
            self.records.push(Arc::new(record));
            return unused;
        }
        let number = self.left.remove(0);
        let record = Arc::new(EndpointRecord::new(number, endpoint, settings));
        let former = std::mem::replace(&mut self.records[number], record);
        self.forgotten.attempts += &former.counters.read();
        self.forgotten.waits.add_waits(&former.waits());
        number
    }

    /// Attempts at all endpoints, also at those that left.
    pub(crate) fn attempts(&self) -> AttemptCounts {
        let mut sum = self.forgotten.attempts.clone();
        for record in &self.records {
            sum += &record.counters.read();
        }
        sum
    }

    /// Adds the requests that wait for an endpoint, and those rejected, also at those that left.
    pub(crate) fn add_waits(&self, sum: &mut LimiterCounts) {
        sum.add_waits(&self.forgotten.waits);
        for record in &self.records {
            sum.add_waits(&record.waits());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(ports: impl IntoIterator<Item = u16>) -> Settings {
        let endpoint = |port| Endpoint::new(false, "o.example", port);
        let endpoints = ports.into_iter().map(endpoint).collect();
        Settings {
            endpoints,
            ..Settings::single("main", endpoint(0))
        }
    }

    fn numbers(records: &mut EndpointRecords, ports: &[u16]) -> Vec<usize> {
        let (next, endpoints) = records.succeed(&settings(ports.iter().copied()));
        *records = next;
        endpoints.iter().map(|endpoint| endpoint.number).collect()
    }

    #[test]
    fn an_endpoint_keeps_its_number_wherever_it_is_in_the_list() {
        let mut records = EndpointRecords::default();
        assert_eq!(numbers(&mut records, &[1, 2, 3]), [0, 1, 2]);
        assert_eq!(numbers(&mut records, &[4, 3, 1]), [3, 2, 0]);
        assert_eq!(numbers(&mut records, &[5, 2]), [4, 1], "it returned");
        let mut with_tls = settings([5]);
        with_tls.endpoints[0].tls = true;
        let (_, endpoints) = records.succeed(&with_tls);
        assert_eq!(endpoints[0].number, 5, "another scheme: another endpoint");
    }

    #[test]
    fn a_number_is_given_again_only_when_all_are_used_and_counts_stay_in_the_sum() {
        let mut records = EndpointRecords::default();
        numbers(&mut records, &[0, 1]);
        records.records[0].counters.record_bytes(5);
        for port in 2..=64 {
            let expected = if port < 64 { port } else { 0 };
            let given = numbers(&mut records, &[1, port]);
            assert_eq!(given, [1, usize::from(expected)], "{port}");
            assert_eq!(records.attempts().bytes_received, 5);
        }
        assert_eq!(numbers(&mut records, &[2]), [2], "the others are known");
        let (_, many) = EndpointRecords::default().succeed(&settings(0..70));
        assert_eq!(many[69].number, 69);
    }
}
