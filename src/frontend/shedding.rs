//! Which connection makes room for a newcomer? The one that has been idle for longest. Pure.
//!
//! Looking for it takes a look at every connection, so one look finds many, and looks are rare.

use tokio::time::{Duration, Instant};

/// A viewer between a playlist and the segments that it lists is not idle.
const IDLE_MIN: Duration = Duration::from_secs(1);

/// So many may be told to leave and not have left, at most: they are open besides those that may be.
pub(super) const LEAVING_MAX: usize = 32;

/// Newcomers cannot cause more than one look in this time.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// So many does one look find.
const FOUND_MAX: usize = 1024;

/// The connections that may make room next.
#[derive(Default)]
pub(super) struct ConnectionShedding {
    /// The longest idle is the last.
    found: Vec<IdleConnection>,
    looked: Option<Instant>,
}

/// A connection without a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IdleConnection {
    pub(super) since: Instant,
    pub(super) member: u64,
}

impl ConnectionShedding {
    /// The next that may make room. Whether it is still idle since then is for the caller to see.
    pub(super) fn next<I>(
        &mut self,
        now: Instant,
        idle: impl FnOnce() -> I,
    ) -> Option<IdleConnection>
    where
        I: Iterator<Item = IdleConnection>,
    {
        let is_time = self.looked.is_none_or(|looked| now >= looked + LOOK_EVERY);
        if self.found.is_empty() && is_time {
            self.looked = Some(now);
            self.found = idle().filter(|idle| idle.since + IDLE_MIN <= now).collect();
            if self.found.len() > FOUND_MAX {
                self.found.select_nth_unstable(FOUND_MAX);
                self.found.truncate(FOUND_MAX);
            }
            self.found.sort_unstable_by(|one, other| other.cmp(one));
        }
        self.found.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn idle(since: Instant, seconds: u64, member: u64) -> IdleConnection {
        IdleConnection {
            since: since + SECOND * u32::try_from(seconds).unwrap(),
            member,
        }
    }

    #[test]
    fn the_longest_idle_go_first_and_those_just_idle_never() {
        let start = Instant::now();
        let now = start + SECOND * 10;
        let mut shedding = ConnectionShedding::default();
        let all = [
            idle(start, 5, 1),
            idle(start, 2, 2),
            idle(start, 9, 3),
            idle(start, 10, 4),
        ];
        let mut next = || Some(shedding.next(now, || all.into_iter())?.member);
        assert_eq!([(); 4].map(|()| next()), [Some(2), Some(1), Some(3), None]);
    }

    #[test]
    fn looks_are_rare_and_find_many() {
        let start = Instant::now();
        let now = start + SECOND * 5_000;
        let (mut shedding, mut looks) = (ConnectionShedding::default(), 0);
        let mut next = |now, shedding: &mut ConnectionShedding| {
            shedding.next(now, || {
                looks += 1;
                (0..3_000).map(|member| idle(start, member, member))
            })
        };
        for member in 0..FOUND_MAX as u64 {
            assert_eq!(next(now, &mut shedding).unwrap().member, member);
        }
        assert_eq!(next(now, &mut shedding), None, "not so soon");
        assert!(next(now + LOOK_EVERY, &mut shedding).is_some());
        assert_eq!(looks, 2);
    }
}
