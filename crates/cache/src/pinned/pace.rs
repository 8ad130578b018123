//! Measures how fast a reader reads, and orders readers for cutting. Pure; the clock is a
//! parameter.
//!
//! A body stays in memory until its last reader has finished, so it is ranked by its fastest
//! reader. While one reader is fast, cutting off the slow ones would free nothing, and cutting off
//! all would harm the fast one.

use std::time::{Duration, Instant};

/// The pace is measured over the last one to two spans, because the kernel accepts bytes in bursts.
const SPAN: Duration = Duration::from_secs(10);

/// A new reader is assumed to have read this many bytes before, in [`PRESUMED_TIME`].
const PRESUMED_BYTES: u64 = 128 << 10;
/// An average viewer's time for them, so that one burst or one short wait does not decide.
const PRESUMED_TIME: Duration = Duration::from_millis(500);

/// The bytes a reader has accepted, now and at two earlier times.
#[derive(Debug)]
pub(super) struct ReadPace {
    began: Instant,
    earlier: PaceMark,
    later: PaceMark,
    is_blocked: bool,
}

#[derive(Clone, Copy, Debug)]
struct PaceMark {
    at: Instant,
    taken: u64,
}

/// The lower value is cut first: the slower reader, and of equally slow ones the one that began
/// earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CutOrder {
    bytes_per_second: u64,
    began: Instant,
}

impl ReadPace {
    /// For a reader that blocks for the first time and has accepted `taken` bytes so far.
    pub(super) fn new(taken: u64, now: Instant) -> ReadPace {
        let mark = PaceMark { at: now, taken };
        ReadPace {
            began: now,
            earlier: mark,
            later: mark,
            is_blocked: true,
        }
    }

    /// Sets whether the viewer accepts no more bytes, or has accepted all available ones and waits.
    pub(super) fn set_blocked(&mut self, is_blocked: bool) {
        self.is_blocked = is_blocked;
    }

    /// Whether it is time for a new mark.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.later.at) >= SPAN
    }

    /// Records the bytes accepted by now.
    pub(super) fn record(&mut self, taken: u64, now: Instant) {
        if self.is_due(now) {
            self.earlier = std::mem::replace(&mut self.later, PaceMark { at: now, taken });
        }
    }

    pub(super) fn cut_order(&self, taken: u64, now: Instant) -> CutOrder {
        let bytes_per_second = if self.is_blocked {
            self.bytes_per_second(taken, now)
        } else {
            u64::MAX
        };
        CutOrder {
            bytes_per_second,
            began: self.began,
        }
    }

    fn bytes_per_second(&self, taken: u64, now: Instant) -> u64 {
        let is_new = self.earlier.at == self.began;
        let presumed = is_new.then_some((PRESUMED_BYTES, PRESUMED_TIME));
        let (bytes, time) = presumed.unwrap_or_default();
        let bytes = bytes.saturating_add(taken.saturating_sub(self.earlier.taken));
        let time = time + now.saturating_duration_since(self.earlier.at);
        let rate = u128::from(bytes) * 1000 / time.as_millis().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct ReadClock(Instant);

    impl ReadClock {
        fn after(&self, millis: u64) -> Instant {
            self.0 + Duration::from_millis(millis)
        }

        /// A reader that began at `began` and has accepted `bytes` per second until `now`.
        fn cut_order(&self, began: u64, bytes: u64, now: u64) -> CutOrder {
            let mut pace = ReadPace::new(0, self.after(began));
            let taken = |at: u64| (at - began) * bytes / 1000;
            for at in (began..now).step_by(1000) {
                pace.record(taken(at), self.after(at));
            }
            pace.cut_order(taken(now), self.after(now))
        }
    }

    #[test]
    fn ranks_slower_readers_first_then_earlier_ones() {
        let clock = ReadClock(Instant::now());
        let orders = [
            clock.cut_order(0, 0, 60_000),
            clock.cut_order(5_000, 0, 60_000),
            clock.cut_order(0, 1, 60_000),
            clock.cut_order(0, 100_000, 60_000),
            clock.cut_order(0, 1_000_000, 60_000),
        ];
        assert!(orders.is_sorted_by(|a, b| a < b), "{orders:?}");
        assert_eq!(orders[3].bytes_per_second, 100_000);
    }

    #[test]
    fn pace_follows_recent_reads_not_the_overall_average() {
        let clock = ReadClock(Instant::now());
        let mut fast_once = ReadPace::new(0, clock.after(0));
        for second in 1..60 {
            fast_once.record(100 << 20, clock.after(second * 1_000));
        }
        let steady = clock.cut_order(0, 1_000, 60_000);
        assert!(fast_once.cut_order(100 << 20, clock.after(60_000)) < steady);
    }

    #[test]
    fn new_reader_ranks_as_average_until_measured() {
        let clock = ReadClock(Instant::now());
        let orders = [
            clock.cut_order(0, 0, 100_000),
            clock.cut_order(98_000, 0, 100_000),
            clock.cut_order(0, 100_000, 100_000),
            clock.cut_order(99_900, 0, 100_000),
            clock.cut_order(0, 1_000_000, 100_000),
        ];
        assert!(orders.is_sorted_by(|a, b| a < b), "{orders:?}");
    }

    #[test]
    fn reader_waiting_for_data_does_not_count_as_slow() {
        let clock = ReadClock(Instant::now());
        let mut waiting = ReadPace::new(0, clock.after(0));
        waiting.set_blocked(false);
        let fast = clock.cut_order(0, 1 << 30, 60_000);
        assert!(fast < waiting.cut_order(0, clock.after(60_000)));
        waiting.set_blocked(true);
        assert!(waiting.cut_order(0, clock.after(60_000)) < fast);
    }
}
