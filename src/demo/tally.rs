//! What was the origin asked? Counts by kind and by target; what a shield must keep small.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::place::Kind;

/// Targets are remembered up to this many; the longest known are forgotten first.
const TARGETS_MAX: usize = 100_000;

/// Counts requests. Its copies are the same book.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    targets: HashMap<String, (Kind, Count)>,
    order: VecDeque<String>,
    kinds: BTreeMap<Kind, Count>,
}

/// How often something was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests.
    pub requests: u64,
    /// Of these, under way.
    pub in_flight: u64,
    /// The most that were under way at once.
    pub in_flight_max: u64,
}

impl Count {
    fn enter(&mut self) {
        self.requests += 1;
        self.in_flight += 1;
        self.in_flight_max = self.in_flight_max.max(self.in_flight);
    }

    fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Visit {
    book: Tally,
    kind: Kind,
    target: String,
}

impl Tally {
    pub(super) fn enter(&self, kind: Kind, target: &str) -> Visit {
        let mut book = self.0.lock();
        book.kinds.entry(kind).or_default().enter();
        if let Some((_, count)) = book.targets.get_mut(target) {
            count.enter();
        } else {
            book.remember(kind, target);
        }
        Visit {
            book: self.clone(),
            kind,
            target: target.to_owned(),
        }
    }

    /// Requests for a target: a path, and its query.
    pub fn of(&self, target: &str) -> Count {
        let book = self.0.lock();
        book.targets
            .get(target)
            .map_or_else(Count::default, |(_, count)| *count)
    }

    /// Requests for things of a kind.
    pub fn of_kind(&self, kind: Kind) -> Count {
        self.0.lock().kinds.get(&kind).copied().unwrap_or_default()
    }

    /// Requests in all.
    pub fn requests(&self) -> u64 {
        self.0
            .lock()
            .kinds
            .values()
            .map(|count| count.requests)
            .sum()
    }

    /// Every target of a kind with how often it was asked for, in order.
    pub fn targets(&self, kind: Kind) -> Vec<(String, Count)> {
        let book = self.0.lock();
        let of_kind = book.targets.iter().filter(|(_, (of, _))| *of == kind);
        let mut targets: Vec<_> = of_kind
            .map(|(target, (_, count))| (target.clone(), *count))
            .collect();
        targets.sort_by(|one, other| one.0.cmp(&other.0));
        targets
    }

    /// Media that were asked for more than once.
    pub fn duplicates(&self) -> Vec<(String, u64)> {
        [Kind::Init, Kind::Segment, Kind::Part]
            .into_iter()
            .flat_map(|kind| self.targets(kind))
            .filter(|(_, count)| count.requests > 1)
            .map(|(target, count)| (target, count.requests))
            .collect()
    }

    /// A few lines for people: requests by kind, and what was asked for twice.
    pub fn report(&self) -> String {
        let mut lines: Vec<String> = self
            .0
            .lock()
            .kinds
            .iter()
            .map(|(kind, count)| format!("{kind:?} {}\n", count.requests))
            .collect();
        let twice = self.duplicates();
        lines.push(format!("asked for more than once: {}\n", twice.len()));
        lines.concat()
    }

    /// Forgets everything but what is under way.
    pub fn reset(&self) {
        let mut book = self.0.lock();
        book.targets.clear();
        book.order.clear();
        for count in book.kinds.values_mut() {
            count.requests = 0;
            count.in_flight_max = count.in_flight;
        }
    }
}

impl Book {
    fn remember(&mut self, kind: Kind, target: &str) {
        if self.targets.len() >= TARGETS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.targets.remove(&oldest);
        }
        let mut count = Count::default();
        count.enter();
        self.targets.insert(target.to_owned(), (kind, count));
        self.order.push_back(target.to_owned());
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut book = self.book.0.lock();
        if let Some(count) = book.kinds.get_mut(&self.kind) {
            count.leave();
        }
        if let Some((_, count)) = book.targets.get_mut(&self.target) {
            count.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_while_and_after_they_are_under_way() {
        let tally = Tally::default();
        let first = tally.enter(Kind::Segment, "/1");
        let second = tally.enter(Kind::Segment, "/1");
        drop(first);
        let third = tally.enter(Kind::Segment, "/1");
        drop(tally.enter(Kind::Part, "/2"));
        let count = Count {
            requests: 3,
            in_flight: 2,
            in_flight_max: 2,
        };
        assert_eq!(tally.of("/1"), count);
        assert_eq!(tally.of_kind(Kind::Segment), count);
        assert_eq!(tally.of_kind(Kind::Mpd), Count::default());
        assert_eq!(tally.requests(), 4);
        assert_eq!(tally.duplicates(), [("/1".to_owned(), 3)]);
        drop((second, third));
        assert_eq!(tally.of("/1").in_flight, 0);
        tally.reset();
        assert_eq!((tally.requests(), tally.duplicates().len()), (0, 0));
    }

    #[test]
    fn the_book_has_a_last_page() {
        let tally = Tally::default();
        for number in 0..=TARGETS_MAX {
            drop(tally.enter(Kind::Segment, &number.to_string()));
        }
        assert_eq!(tally.targets(Kind::Segment).len(), TARGETS_MAX);
        assert_eq!(tally.of("0"), Count::default());
        assert_eq!(
            tally.of_kind(Kind::Segment).requests,
            TARGETS_MAX as u64 + 1
        );
    }
}
