//! Learns how far an origin is ahead of its MPD's clock. A segment that is hours away by the MPD
//! need not be requested each time; but clocks and start times can be wrong, so the origin decides.
//! Pure: the time is an argument.

use std::time::{Duration, Instant};

/// Tolerance for clock differences and early packagers, in addition to one segment.
const TOLERANCE: Duration = Duration::from_secs(2);
/// An observed absence is valid for this time.
const ABSENT_FOR: Duration = Duration::from_secs(2);
/// An observed early presence is valid for this time.
const PRESENT_FOR: Duration = Duration::from_mins(10);
/// Most requests for distant segments that are forwarded within `ABSENT_FOR` if the origin has
/// reported an absence before …
const PROBES_MAX: u32 = 4;
/// … and if it has not.
const FIRST_PROBES_MAX: u32 = 64;

/// What the origin has shown about one MPD.
#[derive(Debug, Default)]
pub(super) struct MpdHorizon {
    /// The largest time by which a segment was early, and when that was seen.
    present: Option<(Duration, Instant)>,
    /// The shortest due time of a segment that was absent, and when that was seen.
    absent: Option<(Duration, Instant)>,
    /// Uncertain requests that were forwarded, and since when they are counted.
    probes: u32,
    counted_from: Option<Instant>,
}

/// What to do with a request for a segment that is not yet due by the MPD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HorizonDecision {
    /// Forward it to the origin.
    Forward,
    /// Report it absent: the origin has just said so of this segment or an earlier one.
    Absent,
    /// Do not forward it: the limit of such requests is reached.
    LimitReached,
}

impl MpdHorizon {
    /// Decides about a request for a segment that is due in `due_in`.
    pub(super) fn decide(
        &mut self,
        due_in: Duration,
        segment_duration: Duration,
        now: Instant,
    ) -> HorizonDecision {
        let since = |at: Instant| now.saturating_duration_since(at);
        let present = self.present.filter(|(_, at)| since(*at) < PRESENT_FOR);
        let early_max = present.map_or(Duration::ZERO, |(early_by, _)| early_by);
        let horizon = early_max
            .saturating_add(segment_duration)
            .saturating_add(TOLERANCE);
        if due_in <= horizon {
            return HorizonDecision::Forward;
        }
        let absent = self.absent.filter(|(_, at)| since(*at) < ABSENT_FOR);
        if absent.is_some_and(|(from, _)| from <= due_in) {
            return HorizonDecision::Absent;
        }
        if self
            .counted_from
            .is_none_or(|from| since(from) >= ABSENT_FOR)
        {
            (self.probes, self.counted_from) = (0, Some(now));
        }
        let probes_max = match self.absent {
            Some(_) => PROBES_MAX,
            None => FIRST_PROBES_MAX,
        };
        if self.probes >= probes_max {
            return HorizonDecision::LimitReached;
        }
        self.probes += 1;
        HorizonDecision::Forward
    }

    /// Records that the origin had a segment that is due in `due_in`.
    pub(super) fn record_present(&mut self, due_in: Duration, now: Instant) {
        let is_further = self.present.is_none_or(|(early_by, at)| {
            early_by <= due_in || now.saturating_duration_since(at) >= PRESENT_FOR
        });
        if is_further {
            self.present = Some((due_in, now));
        }
        // A segment that is due later than an available one may be available too.
        self.absent = self.absent.filter(|(from, _)| *from > due_in);
    }

    /// Records that the origin did not have it.
    pub(super) fn record_absent(&mut self, due_in: Duration, now: Instant) {
        let is_nearer = self.absent.is_none_or(|(from, at)| {
            due_in <= from || now.saturating_duration_since(at) >= ABSENT_FOR
        });
        if is_nearer {
            self.absent = Some((due_in, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn decide(horizon: &mut MpdHorizon, due_in: u32, now: Instant) -> HorizonDecision {
        horizon.decide(due_in * SECOND, 2 * SECOND, now)
    }

    #[test]
    fn asks_origin_each_time_for_segments_due_soon() {
        let (mut horizon, now) = (MpdHorizon::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(decide(&mut horizon, 4, now), HorizonDecision::Forward);
        }
        horizon.record_absent(4 * SECOND, now);
        assert_eq!(decide(&mut horizon, 4, now), HorizonDecision::Forward);
    }

    #[test]
    fn one_absent_segment_makes_later_ones_absent_for_a_while() {
        let (mut horizon, now) = (MpdHorizon::default(), Instant::now());
        assert_eq!(decide(&mut horizon, 3600, now), HorizonDecision::Forward);
        horizon.record_absent(3600 * SECOND, now);
        for due_in in [3600, 3601, 1_000_000] {
            assert_eq!(decide(&mut horizon, due_in, now), HorizonDecision::Absent);
        }
        assert_eq!(decide(&mut horizon, 3000, now), HorizonDecision::Forward);
        assert_eq!(
            decide(&mut horizon, 3600, now + ABSENT_FOR),
            HorizonDecision::Forward
        );
    }

    #[test]
    fn descending_requests_reach_the_origin_at_most_probes_max_times() {
        let (mut horizon, now) = (MpdHorizon::default(), Instant::now());
        let mut forwarded = 0;
        for due_in in (1000..5000).rev() {
            if decide(&mut horizon, due_in, now) == HorizonDecision::Forward {
                horizon.record_absent(due_in * SECOND, now);
                forwarded += 1;
            }
        }
        assert_eq!(forwarded, PROBES_MAX);
    }

    #[test]
    fn available_segment_corrects_the_horizon_of_a_wrong_clock() {
        let (mut horizon, now) = (MpdHorizon::default(), Instant::now());
        horizon.record_absent(10 * SECOND, now);
        horizon.record_present(3600 * SECOND, now);
        for due_in in [10, 3600, 3604] {
            assert_eq!(decide(&mut horizon, due_in, now), HorizonDecision::Forward);
        }
        horizon.record_absent(4000 * SECOND, now);
        assert_eq!(decide(&mut horizon, 4000, now), HorizonDecision::Absent);
    }

    proptest! {
        /// However early the origin has segments, and for any requests: no available segment is
        /// reported absent.
        #[test]
        fn available_segment_is_never_reported_absent(
            early_by in 0..10_000_u64,
            requests in prop::collection::vec((0..20_000_u64, 0..5_000_u64), 0..200),
        ) {
            let (mut horizon, mut now) = (MpdHorizon::default(), Instant::now());
            for (due_in, pause) in requests {
                now += Duration::from_millis(pause);
                let (has, due_in) = (due_in <= early_by, Duration::from_secs(due_in));
                match horizon.decide(due_in, 2 * SECOND, now) {
                    HorizonDecision::Forward if has => horizon.record_present(due_in, now),
                    HorizonDecision::Forward => horizon.record_absent(due_in, now),
                    HorizonDecision::Absent => prop_assert!(!has),
                    // Too many uncertain requests within 2 s.
                    HorizonDecision::LimitReached => {}
                }
            }
        }

        #[test]
        fn origin_is_asked_a_limited_number_of_times_per_window(
            requests in prop::collection::vec((5..u32::MAX, 0..100_u64), 1..500),
        ) {
            let (mut horizon, start) = (MpdHorizon::default(), Instant::now());
            let (mut now, mut forwarded) = (start, 0);
            for (due_in, pause) in requests {
                now += Duration::from_millis(pause);
                if decide(&mut horizon, due_in, now) == HorizonDecision::Forward {
                    horizon.record_absent(due_in * SECOND, now);
                    forwarded += 1;
                }
            }
            let windows = (now - start).as_secs() / ABSENT_FOR.as_secs() + 1;
            prop_assert!(forwarded <= windows * u64::from(PROBES_MAX));
        }
    }
}
