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

/// The origin had, or did not have, a segment that was due in `due_in` by the MPD.
#[derive(Clone, Copy, Debug)]
struct Observation {
    due_in: Duration,
    at: Instant,
}

impl Observation {
    fn is_valid(self, valid_for: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < valid_for
    }
}

/// What has been observed at the origin about the segments of one MPD.
#[derive(Debug, Default)]
pub(super) struct MpdHorizon {
    /// Of the segments that were present before their time: the one that was due last.
    present: Option<Observation>,
    /// Of the segments that were absent: the one that was due first.
    absent: Option<Observation>,
    /// Requests for distant segments that were forwarded, and since when they are counted.
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
    /// Whether a request for a segment that is due in `due_in` is forwarded to the origin. Counts
    /// it, if it is forwarded although the segment is distant.
    pub(super) fn decide_forwarding(
        &mut self,
        due_in: Duration,
        segment_duration: Duration,
        now: Instant,
    ) -> HorizonDecision {
        if due_in <= self.horizon(segment_duration, now) {
            return HorizonDecision::Forward;
        }
        if self.is_observed_absent(due_in, now) {
            return HorizonDecision::Absent;
        }
        if self.try_count_probe(now) {
            HorizonDecision::Forward
        } else {
            HorizonDecision::LimitReached
        }
    }

    /// A segment that is due within this time may exist: it is requested each time.
    fn horizon(&self, segment_duration: Duration, now: Instant) -> Duration {
        let present = self.present.filter(|seen| seen.is_valid(PRESENT_FOR, now));
        let early_max = present.map_or(Duration::ZERO, |present| present.due_in);
        early_max
            .saturating_add(segment_duration)
            .saturating_add(TOLERANCE)
    }

    /// Whether a segment that is due as soon or sooner was absent within [`ABSENT_FOR`].
    fn is_observed_absent(&self, due_in: Duration, now: Instant) -> bool {
        self.absent
            .is_some_and(|absent| absent.is_valid(ABSENT_FOR, now) && absent.due_in <= due_in)
    }

    /// Counts one more request for a distant segment. False if the limit is reached.
    fn try_count_probe(&mut self, now: Instant) -> bool {
        let is_window_over = self
            .counted_from
            .is_none_or(|from| now.saturating_duration_since(from) >= ABSENT_FOR);
        if is_window_over {
            self.probes = 0;
            self.counted_from = Some(now);
        }
        let probes_max = if self.absent.is_some() {
            PROBES_MAX
        } else {
            FIRST_PROBES_MAX
        };
        if self.probes >= probes_max {
            return false;
        }
        self.probes += 1;
        true
    }

    /// Records that the origin had a segment that is due in `due_in`.
    pub(super) fn record_present(&mut self, due_in: Duration, now: Instant) {
        let is_due_later = self
            .present
            .is_none_or(|known| due_in >= known.due_in || !known.is_valid(PRESENT_FOR, now));
        if is_due_later {
            self.present = Some(Observation { due_in, at: now });
        }
        // A segment that is due later than an available one may be available too.
        self.absent = self.absent.filter(|absent| absent.due_in > due_in);
    }

    /// Records that the origin did not have it.
    pub(super) fn record_absent(&mut self, due_in: Duration, now: Instant) {
        let is_due_sooner = self
            .absent
            .is_none_or(|known| due_in <= known.due_in || !known.is_valid(ABSENT_FOR, now));
        if is_due_sooner {
            self.absent = Some(Observation { due_in, at: now });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn decide(horizon: &mut MpdHorizon, due_in: u32, now: Instant) -> HorizonDecision {
        horizon.decide_forwarding(due_in * SECOND, 2 * SECOND, now)
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
                match horizon.decide_forwarding(due_in, 2 * SECOND, now) {
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
