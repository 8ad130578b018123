//! Decides whether a body arrives fast enough for its players. Pure: the clock is an argument.

use std::time::{Duration, Instant};

/// No body is too slow before this time: a connection needs a moment to reach its rate.
const MEASURED_AFTER: Duration = Duration::from_millis(700);
/// The rate is averaged over at least this time: the first bytes alone give no rate.
const MEASURED_OVER_MIN: Duration = Duration::from_millis(200);
/// The current rate is measured over this time, and over at most twice this time.
const WINDOW: Duration = Duration::from_secs(1);
/// The rest of a body must arrive within the duration of its media, limited to these bounds.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(10);
/// The same when the duration is unknown.
const REST_UNKNOWN: Duration = Duration::from_secs(4);
/// A body of unknown duration with at least this rate is large, not slow.
const BYTES_PER_S_ENOUGH: u64 = 250_000;
/// Minimum rate of a complete body of unknown length; below it, any body counts as a dribble. Less
/// would not even be audio.
const BYTES_PER_S_MIN: u64 = 2_000;
/// Media that takes this many times its duration to arrive is of no use to any player.
const DRIBBLE_FACTOR: u32 = 10;

/// What is known of a body when it begins.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct ExpectedBody {
    pub(in crate::proxy) length: Option<u64>,
    /// Playing time of the media.
    pub(in crate::proxy) duration: Option<Duration>,
    /// The origin has the complete body. If false, the body arrives at its encoder's rate.
    pub(in crate::proxy) is_complete: bool,
}

/// Bytes received at a moment.
#[derive(Clone, Copy, Debug)]
struct RatePoint {
    at: Instant,
    received: u64,
}

/// The rate at which a body arrives.
#[derive(Debug)]
pub(in crate::proxy) struct BodyRate {
    expected: ExpectedBody,
    began: Instant,
    received: u64,
    /// Two past points; the first is the start of the measuring window.
    marks: [RatePoint; 2],
}

impl BodyRate {
    pub(in crate::proxy) fn new(expected: ExpectedBody, now: Instant) -> BodyRate {
        let mark = RatePoint {
            at: now,
            received: 0,
        };
        BodyRate {
            expected,
            began: now,
            received: 0,
            marks: [mark; 2],
        }
    }

    /// Starts judging anew from now.
    pub(in crate::proxy) fn restart(&mut self, now: Instant) {
        let received = self.received;
        self.began = now;
        self.marks = [RatePoint { at: now, received }; 2];
    }

    /// Bytes received.
    pub(in crate::proxy) fn received(&self) -> u64 {
        self.received
    }

    /// The origin has the complete body.
    pub(in crate::proxy) fn is_complete(&self) -> bool {
        self.expected.is_complete
    }

    /// Marks the body as complete at the origin: until now it came as it was produced.
    pub(in crate::proxy) fn complete(&mut self, now: Instant) {
        self.expected.is_complete = true;
        self.restart(now);
    }

    /// Time since judging began.
    pub(in crate::proxy) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// Counts received bytes.
    pub(in crate::proxy) fn add(&mut self, bytes: usize, now: Instant) {
        self.received += bytes as u64;
        if now.saturating_duration_since(self.marks[1].at) >= WINDOW {
            let received = self.received;
            self.marks = [self.marks[1], RatePoint { at: now, received }];
        }
    }

    /// Excludes time that the body's reader took: the endpoint is not responsible for it.
    pub(in crate::proxy) fn pause(&mut self, span: Duration) {
        self.began += span;
        for mark in &mut self.marks {
            mark.at += span;
        }
    }

    /// The rest cannot arrive in time at the current rate.
    pub(in crate::proxy) fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= MEASURED_AFTER && self.is_behind(now)
    }

    /// The same, without waiting for `MEASURED_AFTER`.
    pub(in crate::proxy) fn is_behind(&self, now: Instant) -> bool {
        if !self.expected.is_complete {
            return false;
        }
        let can_arrive = |bytes, within| self.can_arrive(bytes, within, now);
        let second = Duration::from_secs(1);
        let Some(length) = self.expected.length else {
            let so_far = now.saturating_duration_since(self.began);
            return so_far > self.time_allowed() || !can_arrive(BYTES_PER_S_MIN, second);
        };
        let rest = length.saturating_sub(self.received);
        let is_large = self.expected.duration.is_none() && can_arrive(BYTES_PER_S_ENOUGH, second);
        !is_large && !can_arrive(rest, self.time_allowed())
    }

    /// The rate is too low to be of any use.
    pub(in crate::proxy) fn is_dribble(&self, now: Instant) -> bool {
        let ExpectedBody {
            length, duration, ..
        } = self.expected;
        let rest = length.map(|length| length.saturating_sub(self.received));
        let is_useless = duration.and(rest).is_some_and(|rest| {
            let within = self.time_allowed() * DRIBBLE_FACTOR;
            !self.can_arrive(rest, within, now)
        });
        is_useless || !self.can_arrive(BYTES_PER_S_MIN, Duration::from_secs(1), now)
    }

    /// At the current rate, this many bytes arrive within this time.
    fn can_arrive(&self, bytes: u64, within: Duration, now: Instant) -> bool {
        let [since, _] = self.marks;
        let span = now
            .saturating_duration_since(since.at)
            .max(MEASURED_OVER_MIN);
        let came = self.received - since.received;
        u128::from(came) * within.as_millis() >= u128::from(bytes) * span.as_millis()
    }

    fn time_allowed(&self) -> Duration {
        let duration = self.expected.duration;
        duration.map_or(REST_UNKNOWN, |duration| duration.clamp(REST_MIN, REST_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: ExpectedBody = ExpectedBody {
        length: Some(600_000),
        duration: Some(Duration::from_secs(6)),
        is_complete: true,
    };

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Milliseconds until a body is late that delivers `bytes` every `every` milliseconds.
    fn late_after(expected: ExpectedBody, bytes: usize, every: u64) -> Option<u64> {
        let start = Instant::now();
        let mut rate = BodyRate::new(expected, start);
        let mut received = 0;
        for after in (0..60_000 / every).map(|turn| turn * every) {
            let now = start + millis(after);
            received += bytes as u64;
            if expected.length.is_some_and(|length| received >= length) {
                return None;
            }
            rate.add(bytes, now);
            if rate.is_late(now) {
                return Some(after);
            }
        }
        None
    }

    #[test]
    fn body_too_slow_for_its_duration_is_late() {
        assert_eq!(late_after(SEGMENT, 2, 250), Some(750));
        assert_eq!(late_after(SEGMENT, 400, 100), Some(700));
        assert_eq!(late_after(SEGMENT, 4_000, 100), Some(700));
    }

    #[test]
    fn body_fast_enough_for_its_duration_is_not_late() {
        assert_eq!(late_after(SEGMENT, 12_000, 100), None);
        assert_eq!(late_after(SEGMENT, 65_536, 500), None);
    }

    #[test]
    fn dribble_without_known_duration_is_late() {
        let unknown = ExpectedBody {
            duration: None,
            ..SEGMENT
        };
        assert_eq!(late_after(unknown, 800, 200), Some(800));
        let large = ExpectedBody {
            length: Some(100_000_000),
            ..unknown
        };
        assert_eq!(late_after(large, 400_000, 1_000), None);
    }

    #[test]
    fn slow_complete_body_without_length_is_late() {
        let complete = ExpectedBody {
            length: None,
            ..SEGMENT
        };
        assert_eq!(late_after(complete, 2, 250), Some(750));
        // Audio at 48 kbit/s, while it is produced.
        assert_eq!(late_after(complete, 3_000, 500), Some(6_500));
        // It should have ended by now.
        assert_eq!(late_after(complete, 10_000, 1_000), Some(7_000));
    }

    #[test]
    fn body_being_produced_is_never_late() {
        let produced = ExpectedBody {
            length: None,
            is_complete: false,
            ..SEGMENT
        };
        assert_eq!(late_after(produced, 1, 1_000), None);
        assert_eq!(late_after(produced, 0, 1_000), None);
    }

    #[test]
    fn rate_of_produced_body_counts_from_its_completion() {
        let (start, second) = (Instant::now(), millis(1_000));
        let mut rate = BodyRate::new(
            ExpectedBody {
                length: None,
                is_complete: false,
                ..SEGMENT
            },
            start,
        );
        for after in 1..=6 {
            rate.add(5, start + second * after);
        }
        let complete = start + second * 6;
        rate.complete(complete);
        assert!(!rate.is_late(complete));
        rate.add(5, complete + millis(700));
        assert!(rate.is_late(complete + millis(700)));
    }

    #[test]
    fn lateness_follows_the_recent_rate() {
        let start = Instant::now();
        let mut rate = BodyRate::new(SEGMENT, start);
        rate.add(300_000, start + millis(10));
        // From then on, eight bytes a second.
        let mut late = None;
        for after in 1..10 {
            let now = start + millis(after * 1_000);
            rate.add(8, now);
            late = late.or(rate.is_late(now).then_some(after));
        }
        assert_eq!(late, Some(2));
        for after in 10..14 {
            rate.add(60_000, start + millis(after * 1_000));
        }
        assert!(!rate.is_late(start + millis(13_000)));
    }

    #[test]
    fn distinguishes_dribble_from_slow_body() {
        let unknown = ExpectedBody {
            length: Some(100_000_000),
            duration: None,
            is_complete: true,
        };
        let is_dribble = |expected, bytes: usize| {
            let start = Instant::now();
            let mut rate = BodyRate::new(expected, start);
            for after in 1..=20 {
                rate.add(bytes / 10, start + millis(100 * after));
            }
            rate.is_dribble(start + millis(2_000))
        };
        assert!(is_dribble(unknown, 1_000));
        assert!(!is_dribble(unknown, 3_000));
        assert!(!is_dribble(unknown, 200_000));
        // Six seconds of media in a minute.
        assert!(is_dribble(SEGMENT, 9_000));
        assert!(!is_dribble(SEGMENT, 11_000));
    }

    #[test]
    fn pause_of_a_slow_reader_does_not_make_the_body_late() {
        let start = Instant::now();
        let mut rate = BodyRate::new(SEGMENT, start);
        rate.add(100_000, start + millis(100));
        rate.pause(millis(60_000));
        assert!(!rate.is_late(start + millis(60_800)));
    }

    #[test]
    fn first_bytes_do_not_count_as_speed() {
        let start = Instant::now();
        let mut rate = BodyRate::new(SEGMENT, start);
        rate.add(8, start);
        assert!(rate.is_behind(start) && !rate.is_late(start));
        rate.add(32_768, start);
        assert!(!rate.is_behind(start));
    }
}
