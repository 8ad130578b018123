//! Selects the connection that must close to make room for a new one: the longest idle. Pure.
//!
//! A search checks every connection, so it runs rarely and returns many candidates.

use tokio::time::{Duration, Instant};

/// A connection is idle after this time without a request. A viewer that pauses between a playlist
/// and its segments is not idle.
const IDLE_MIN: Duration = Duration::from_secs(1);

/// Maximum number of connections asked to close that are still open, in addition to
/// `connections_max`.
pub(super) const LEAVING_MAX: usize = 32;

/// Minimum time between two searches, however many connections arrive.
const SEARCH_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum number of candidates per search.
const CANDIDATES_MAX: usize = 1024;

/// The connections that are asked to close next.
#[derive(Default)]
pub(super) struct ConnectionShedding {
    /// Sorted: the longest idle connection is the last.
    candidates: Vec<IdleConnection>,
    searched_at: Option<Instant>,
}

/// A connection without a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IdleConnection {
    pub(super) since: Instant,
    pub(super) id: u64,
}

impl ConnectionShedding {
    /// The next candidate. The caller must check that it is still idle.
    pub(super) fn next<I>(
        &mut self,
        now: Instant,
        idle: impl FnOnce() -> I,
    ) -> Option<IdleConnection>
    where
        I: Iterator<Item = IdleConnection>,
    {
        let may_search = self
            .searched_at
            .is_none_or(|searched_at| now >= searched_at + SEARCH_INTERVAL);
        if self.candidates.is_empty() && may_search {
            self.searched_at = Some(now);
            self.candidates = idle().filter(|idle| idle.since + IDLE_MIN <= now).collect();
            if self.candidates.len() > CANDIDATES_MAX {
                self.candidates.select_nth_unstable(CANDIDATES_MAX);
                self.candidates.truncate(CANDIDATES_MAX);
            }
            self.candidates
                .sort_unstable_by(|one, other| other.cmp(one));
        }
        self.candidates.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn idle(since: Instant, seconds: u64, id: u64) -> IdleConnection {
        IdleConnection {
            since: since + SECOND * u32::try_from(seconds).unwrap(),
            id,
        }
    }

    #[test]
    fn picks_the_longest_idle_first_and_skips_recently_idle() {
        let start = Instant::now();
        let now = start + SECOND * 10;
        let mut shedding = ConnectionShedding::default();
        let all = [
            idle(start, 5, 1),
            idle(start, 2, 2),
            idle(start, 9, 3),
            idle(start, 10, 4),
        ];
        let mut next = || Some(shedding.next(now, || all.into_iter())?.id);
        assert_eq!([(); 4].map(|()| next()), [Some(2), Some(1), Some(3), None]);
    }

    #[test]
    fn searches_rarely_and_keeps_many_candidates() {
        let start = Instant::now();
        let now = start + SECOND * 5_000;
        let (mut shedding, mut searches) = (ConnectionShedding::default(), 0);
        let mut next = |now, shedding: &mut ConnectionShedding| {
            shedding.next(now, || {
                searches += 1;
                (0..3_000).map(|id| idle(start, id, id))
            })
        };
        for id in 0..CANDIDATES_MAX as u64 {
            assert_eq!(next(now, &mut shedding).unwrap().id, id);
        }
        assert_eq!(next(now, &mut shedding), None, "not so soon");
        assert!(next(now + SEARCH_INTERVAL, &mut shedding).is_some());
        assert_eq!(searches, 2);
    }
}
