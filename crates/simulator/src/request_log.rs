//! Counts requests by kind and by target, to show how many requests a shield makes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::resource::ResourceKind;

/// Remembered targets; the oldest ones are forgotten first.
const TARGETS_MAX: usize = 100_000;

/// Counts requests. Its clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct RequestLog(Arc<Mutex<RequestLogInner>>);

#[derive(Debug, Default)]
struct RequestLogInner {
    targets: HashMap<String, (ResourceKind, RequestCount)>,
    order: VecDeque<String>,
    kinds: BTreeMap<ResourceKind, RequestCount>,
}

/// Request counts of a target or a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCount {
    /// Requests.
    pub requests: u64,
    /// Of these, in progress.
    pub in_flight: u64,
    /// The highest number in progress at once.
    pub in_flight_max: u64,
}

impl RequestCount {
    fn enter(&mut self) {
        self.requests += 1;
        self.in_flight += 1;
        self.in_flight_max = self.in_flight_max.max(self.in_flight);
    }

    fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub(super) struct OpenRequest {
    log: RequestLog,
    kind: ResourceKind,
    target: String,
}

impl RequestLog {
    pub(super) fn enter(&self, kind: ResourceKind, target: &str) -> OpenRequest {
        let mut log = self.0.lock();
        log.kinds.entry(kind).or_default().enter();
        if let Some((_, count)) = log.targets.get_mut(target) {
            count.enter();
        } else {
            log.record_target(kind, target);
        }
        OpenRequest {
            log: self.clone(),
            kind,
            target: target.to_owned(),
        }
    }

    /// Requests for a target: a path and its query.
    pub fn count_of_target(&self, target: &str) -> RequestCount {
        let log = self.0.lock();
        log.targets
            .get(target)
            .map_or_else(RequestCount::default, |(_, count)| *count)
    }

    /// Requests for resources of a kind.
    pub fn count_of_kind(&self, kind: ResourceKind) -> RequestCount {
        self.0.lock().kinds.get(&kind).copied().unwrap_or_default()
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.0
            .lock()
            .kinds
            .values()
            .map(|count| count.requests)
            .sum()
    }

    /// All targets of a kind with their counts, in order.
    pub fn targets(&self, kind: ResourceKind) -> Vec<(String, RequestCount)> {
        let log = self.0.lock();
        let of_kind = log
            .targets
            .iter()
            .filter(|(_, (target_kind, _))| *target_kind == kind);
        let mut targets: Vec<_> = of_kind
            .map(|(target, (_, count))| (target.clone(), *count))
            .collect();
        targets.sort_by(|one, other| one.0.cmp(&other.0));
        targets
    }

    /// Media that were requested more than once.
    pub fn duplicates(&self) -> Vec<(String, u64)> {
        [
            ResourceKind::Init,
            ResourceKind::Segment,
            ResourceKind::Part,
        ]
        .into_iter()
        .flat_map(|kind| self.targets(kind))
        .filter(|(_, count)| count.requests > 1)
        .map(|(target, count)| (target, count.requests))
        .collect()
    }

    /// A short report: requests by kind, and duplicates.
    pub fn report(&self) -> String {
        let mut lines: Vec<String> = self
            .0
            .lock()
            .kinds
            .iter()
            .map(|(kind, count)| format!("{kind:?} {}\n", count.requests))
            .collect();
        let duplicates = self.duplicates();
        lines.push(format!("requested more than once: {}\n", duplicates.len()));
        lines.concat()
    }

    /// Resets all counts except those in progress.
    pub fn reset(&self) {
        let mut log = self.0.lock();
        log.targets.clear();
        log.order.clear();
        for count in log.kinds.values_mut() {
            count.requests = 0;
            count.in_flight_max = count.in_flight;
        }
    }
}

impl RequestLogInner {
    fn record_target(&mut self, kind: ResourceKind, target: &str) {
        if self.targets.len() >= TARGETS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.targets.remove(&oldest);
        }
        let mut count = RequestCount::default();
        count.enter();
        self.targets.insert(target.to_owned(), (kind, count));
        self.order.push_back(target.to_owned());
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut log = self.log.0.lock();
        if let Some(count) = log.kinds.get_mut(&self.kind) {
            count.leave();
        }
        if let Some((_, count)) = log.targets.get_mut(&self.target) {
            count.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_requests_in_progress_and_finished() {
        let log = RequestLog::default();
        let first = log.enter(ResourceKind::Segment, "/1");
        let second = log.enter(ResourceKind::Segment, "/1");
        drop(first);
        let third = log.enter(ResourceKind::Segment, "/1");
        drop(log.enter(ResourceKind::Part, "/2"));
        let count = RequestCount {
            requests: 3,
            in_flight: 2,
            in_flight_max: 2,
        };
        assert_eq!(log.count_of_target("/1"), count);
        assert_eq!(log.count_of_kind(ResourceKind::Segment), count);
        assert_eq!(
            log.count_of_kind(ResourceKind::Mpd),
            RequestCount::default()
        );
        assert_eq!(log.requests(), 4);
        assert_eq!(log.duplicates(), [("/1".to_owned(), 3)]);
        drop((second, third));
        assert_eq!(log.count_of_target("/1").in_flight, 0);
        log.reset();
        assert_eq!((log.requests(), log.duplicates().len()), (0, 0));
    }

    #[test]
    fn limits_the_number_of_recorded_targets() {
        let log = RequestLog::default();
        for number in 0..=TARGETS_MAX {
            drop(log.enter(ResourceKind::Segment, &number.to_string()));
        }
        assert_eq!(log.targets(ResourceKind::Segment).len(), TARGETS_MAX);
        assert_eq!(log.count_of_target("0"), RequestCount::default());
        assert_eq!(
            log.count_of_kind(ResourceKind::Segment).requests,
            TARGETS_MAX as u64 + 1
        );
    }
}
