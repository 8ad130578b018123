//! Computes which segments of a live representation are available at a given time, and their names
//! (ISO/IEC 23009-1 §5.3.9.5.3). The time is an argument.
//!
//! A segment is identified by its *value*: the `$Number$` in its name, or the `$Time$` if segments
//! are named by their start. Values increase with time.

use std::time::{Duration, SystemTime};

use super::time::span;
use super::url_template::{SegmentPosition, UrlTemplate};

const NANOS: i128 = 1_000_000_000;

/// Five centuries. Limits the times computed from invented numbers.
const FAR: Duration = Duration::from_hours(500 * 365 * 24);

/// The names and availability times of one representation's segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentNaming {
    pub(super) url_template: UrlTemplate,
    pub(super) availability_base: AvailabilityBase,
    pub(super) pace: SegmentTiming,
    /// Wall-clock start of its period.
    pub(super) began: Option<SystemTime>,
    pub(super) availability_offset: AvailabilityTimeOffset,
    /// Value of the period's last segment, if the end is known.
    pub(super) last: Option<u64>,
}

/// The base from which values and times are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AvailabilityBase {
    /// A timeline lists the segments before this position: it is the next one.
    Listed(SegmentPosition),
    /// The position of the first segment; the clock determines how many have followed.
    Clock(SegmentPosition),
}

/// The segment timing, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentTiming {
    /// Ticks per second; not zero.
    pub(super) scale: u64,
    /// Segment duration in ticks; not zero.
    pub(super) step: u64,
    /// Start of the period on this time scale.
    pub(super) offset: u64,
}

/// `@availabilityTimeOffset`: how long before its end a segment may be requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AvailabilityTimeOffset {
    By(Duration),
    /// `INF`: all segments at once.
    Always,
}

impl AvailabilityTimeOffset {
    /// §5.3.9.5.3: the offsets of base URL and template add up.
    pub(super) fn sum(
        one: Option<AvailabilityTimeOffset>,
        other: Option<AvailabilityTimeOffset>,
    ) -> AvailabilityTimeOffset {
        match (one, other) {
            (Some(AvailabilityTimeOffset::By(one)), Some(AvailabilityTimeOffset::By(other))) => {
                AvailabilityTimeOffset::By(one.saturating_add(other))
            }
            (Some(AvailabilityTimeOffset::Always), _)
            | (_, Some(AvailabilityTimeOffset::Always)) => AvailabilityTimeOffset::Always,
            (one, other) => one
                .or(other)
                .unwrap_or(AvailabilityTimeOffset::By(Duration::ZERO)),
        }
    }
}

impl SegmentNaming {
    /// Value of the newest available segment at `now`; with a timeline, of the last listed one.
    pub fn newest(&self, now: SystemTime) -> Option<u64> {
        let first = match self.availability_base {
            AvailabilityBase::Listed(next) => return self.before(self.value(next), 1),
            AvailabilityBase::Clock(first) => first,
        };
        let AvailabilityTimeOffset::By(availability_offset) = self.availability_offset else {
            return self.last;
        };
        let begins = i128::from(first.time) - i128::from(self.pace.offset);
        let elapsed = nanos_between(self.began?, now)? + nanos(availability_offset)?;
        let ticks = elapsed
            .checked_mul(i128::from(self.pace.scale))?
            .div_euclid(NANOS);
        let whole = (ticks - begins).div_euclid(i128::from(self.pace.step));
        let steps = u64::try_from(whole - 1).ok()?;
        let after = steps.checked_mul(self.stride())?;
        let newest = self.value(first).checked_add(after)?;
        Some(self.last.map_or(newest, |last| last.min(newest)))
    }

    /// Value of the first segment.
    pub(super) fn first(&self) -> u64 {
        let (AvailabilityBase::Listed(first) | AvailabilityBase::Clock(first)) =
            self.availability_base;
        self.value(first)
    }

    /// Value of the newest available segment; of a presentation without a clock, of its last one.
    pub(super) fn newest_or_last(&self, now: SystemTime) -> Option<u64> {
        match self.began {
            Some(_) => self.newest(now),
            None => self.last,
        }
    }

    /// Value of the segment after another.
    pub(super) fn after(&self, value: u64) -> Option<u64> {
        value.checked_add(self.stride())
    }

    /// Value of the segment after [`SegmentNaming::newest`]; `None` at the end.
    pub fn next(&self, now: SystemTime) -> Option<u64> {
        let (AvailabilityBase::Listed(position) | AvailabilityBase::Clock(position)) =
            self.availability_base;
        let next = match self.newest(now) {
            Some(newest) => newest.checked_add(self.stride())?,
            None => self.value(position),
        };
        (self.last.is_none_or(|last| next <= last)).then_some(next)
    }

    /// Does the clock determine the available segments, rather than new versions of the MPD?
    pub fn is_by_clock(&self) -> bool {
        matches!(self.availability_base, AvailabilityBase::Clock(_))
    }

    /// Value of the segment `back` segments before another.
    pub fn before(&self, value: u64, back: u64) -> Option<u64> {
        value.checked_sub(back.checked_mul(self.stride())?)
    }

    /// The name of a segment, as in [`Listing::segments`](crate::Listing::segments).
    pub fn name(&self, value: u64) -> String {
        self.url_template.name(self.position(value))
    }

    /// Approximate bytes of memory.
    pub fn weight_bytes(&self) -> usize {
        size_of::<SegmentNaming>() + self.url_template.weight_bytes()
    }

    /// Value of the segment whose name the path ends with; the query is ignored.
    pub fn number_of(&self, path: &str) -> Option<u64> {
        let read = self.url_template.read(path)?;
        if self.is_by_time() {
            read.time
        } else {
            read.number
        }
    }

    /// When a segment becomes available. `None` for one beyond the end, or if the start of the
    /// presentation is unknown. For a segment in a timeline this is an estimate from the newest
    /// one's duration. Capped at `FAR`.
    pub fn available_at(&self, value: u64) -> Option<SystemTime> {
        match self.availability_offset {
            AvailabilityTimeOffset::By(availability_offset) => {
                self.before_end(value, availability_offset)
            }
            AvailabilityTimeOffset::Always => {
                self.before_end(value, Duration::ZERO).and(self.began)
            }
        }
    }

    /// When a segment ends, and is available in full whatever its offset.
    pub fn ends_at(&self, value: u64) -> Option<SystemTime> {
        self.before_end(value, Duration::ZERO)
    }

    fn before_end(&self, value: u64, span: Duration) -> Option<SystemTime> {
        let began = self.began?;
        let is_before = matches!(self.availability_base, AvailabilityBase::Clock(first) if value < self.value(first));
        if is_before || self.last.is_some_and(|last| value > last) {
            return None;
        }
        let ends = self.start(value).saturating_add(self.pace.step.into());
        let ends = ends.saturating_sub(self.pace.offset.into());
        // Rounded up: it is available at that moment.
        let nanoseconds = ends.saturating_mul(NANOS).max(-i128::MAX);
        let ends = -(-nanoseconds).div_euclid(self.pace.scale.into());
        at(began, ends.saturating_sub(nanos(span)?))
    }

    /// The segment duration: how often a new segment is expected.
    pub fn segment_duration(&self) -> Duration {
        span(self.pace.step, self.pace.scale)
    }

    /// Are values start times rather than numbers?
    fn is_by_time(&self) -> bool {
        !self.url_template.has_number()
    }

    fn value(&self, position: SegmentPosition) -> u64 {
        if self.is_by_time() {
            position.time
        } else {
            position.number
        }
    }

    /// Difference between the values of consecutive segments.
    fn stride(&self) -> u64 {
        if self.is_by_time() { self.pace.step } else { 1 }
    }

    fn position(&self, value: u64) -> SegmentPosition {
        SegmentPosition {
            number: value,
            time: u64::try_from(self.start(value)).unwrap_or_default(),
        }
    }

    /// Start of a segment, in ticks.
    fn start(&self, value: u64) -> i128 {
        if self.is_by_time() {
            return i128::from(value);
        }
        let (AvailabilityBase::Listed(from) | AvailabilityBase::Clock(from)) =
            self.availability_base;
        let steps = i128::from(value) - i128::from(from.number);
        let after = steps.saturating_mul(i128::from(self.pace.step));
        after.saturating_add(i128::from(from.time))
    }
}

fn nanos(duration: Duration) -> Option<i128> {
    i128::try_from(duration.as_nanos()).ok()
}

fn nanos_between(from: SystemTime, to: SystemTime) -> Option<i128> {
    match to.duration_since(from) {
        Ok(after) => nanos(after),
        Err(before) => nanos(before.duration()).map(|nanos| -nanos),
    }
}

fn at(from: SystemTime, nanos: i128) -> Option<SystemTime> {
    let by = Duration::from_nanos(u64::try_from(nanos.unsigned_abs()).unwrap_or(u64::MAX)).min(FAR);
    if nanos < 0 {
        from.checked_sub(by)
    } else {
        from.checked_add(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at_second(second: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(second)
    }

    /// Segments of 2 s, from second 100, numbered from 1.
    fn by_clock() -> SegmentNaming {
        SegmentNaming {
            url_template: UrlTemplate::new("", "$Number$.m4s", "", "").unwrap(),
            availability_base: AvailabilityBase::Clock(SegmentPosition { number: 1, time: 0 }),
            pace: SegmentTiming {
                scale: 1000,
                step: 2000,
                offset: 0,
            },
            began: Some(at_second(100.0)),
            availability_offset: AvailabilityTimeOffset::By(Duration::ZERO),
            last: None,
        }
    }

    /// The timeline ends at tick 50,000 with number 24; its period starts at tick 20,000.
    fn by_timeline(written: &str) -> SegmentNaming {
        SegmentNaming {
            url_template: UrlTemplate::new("", written, "", "").unwrap(),
            availability_base: AvailabilityBase::Listed(SegmentPosition {
                number: 25,
                time: 50_000,
            }),
            pace: SegmentTiming {
                scale: 1000,
                step: 2000,
                offset: 20_000,
            },
            ..by_clock()
        }
    }

    #[test]
    fn newest_number_follows_the_clock() {
        let template = by_clock();
        assert_eq!(template.newest(at_second(50.0)), None);
        assert_eq!(template.newest(at_second(101.9)), None);
        assert_eq!(template.next(at_second(101.9)), Some(1));
        assert_eq!(template.newest(at_second(102.0)), Some(1));
        assert_eq!(template.newest(at_second(107.0)), Some(3));
        assert_eq!(template.next(at_second(107.0)), Some(4));
        assert_eq!(template.available_at(1), Some(at_second(102.0)));
        assert_eq!(template.available_at(4), Some(at_second(108.0)));
        assert_eq!(template.available_at(0), None);
        assert_eq!(template.segment_duration(), Duration::from_secs(2));
        assert_eq!(
            (template.before(4, 2), template.before(1, 2)),
            (Some(2), None)
        );
        assert!(template.is_by_clock());
    }

    #[test]
    fn availability_time_offset_makes_segments_available_sooner() {
        let availability_offset = AvailabilityTimeOffset::By(Duration::from_millis(1500));
        let template = SegmentNaming {
            availability_offset,
            ..by_clock()
        };
        assert_eq!(template.newest(at_second(102.5)), Some(2));
        assert_eq!(template.available_at(2), Some(at_second(102.5)));
        let availability_offset = AvailabilityTimeOffset::Always;
        let template = SegmentNaming {
            availability_offset,
            last: Some(9),
            ..by_clock()
        };
        assert_eq!(template.newest(at_second(100.0)), Some(9));
        assert_eq!(template.available_at(9), Some(at_second(100.0)));
        assert_eq!(template.ends_at(9), Some(at_second(118.0)));
    }

    #[test]
    fn availability_time_offsets_add_up() {
        let by = |millis| AvailabilityTimeOffset::By(Duration::from_millis(millis));
        assert_eq!(AvailabilityTimeOffset::sum(None, None), by(0));
        assert_eq!(AvailabilityTimeOffset::sum(Some(by(5)), None), by(5));
        assert_eq!(
            AvailabilityTimeOffset::sum(Some(by(5)), Some(by(7))),
            by(12)
        );
        let always = AvailabilityTimeOffset::Always;
        assert_eq!(
            AvailabilityTimeOffset::sum(Some(by(5)), Some(always)),
            always
        );
    }

    #[test]
    fn no_segment_follows_the_last_number() {
        let template = SegmentNaming {
            last: Some(3),
            ..by_clock()
        };
        assert_eq!(template.newest(at_second(900.0)), Some(3));
        assert_eq!(template.next(at_second(900.0)), None);
        assert_eq!(template.available_at(4), None);
        assert!(template.available_at(3).is_some());
    }

    #[test]
    fn overflowing_availability_time_is_capped() {
        let far = at_second(100.0) + FAR;
        let mut slow = by_clock();
        slow.pace.step = u64::MAX;
        for number in [10_u64.pow(11), 10_u64.pow(17), u64::MAX] {
            for template in [by_clock(), by_timeline("$Number$.m4s"), slow.clone()] {
                assert_eq!(template.available_at(number), Some(far), "{number}");
            }
        }
        assert_eq!(by_timeline("$Time$").available_at(u64::MAX), Some(far));
    }

    #[test]
    fn timeline_gives_the_next_number_or_time() {
        let now = at_second(0.0);
        let numbered = by_timeline("$Number$.m4s");
        assert_eq!(
            (numbered.newest(now), numbered.next(now)),
            (Some(24), Some(25))
        );
        assert_eq!(numbered.name(25), "25.m4s");
        // It starts 30 s into the period, which starts at second 100.
        assert_eq!(numbered.available_at(25), Some(at_second(132.0)));
        let timed = by_timeline("$Time$.m4s");
        assert_eq!(
            (timed.newest(now), timed.next(now)),
            (Some(48_000), Some(50_000))
        );
        assert_eq!(timed.name(50_000), "50000.m4s");
        assert_eq!(timed.before(50_000, 2), Some(46_000));
        assert!(!timed.is_by_clock());
        assert_eq!(timed.number_of("/v/50000.m4s"), Some(50_000));
        assert_eq!(timed.available_at(50_000), Some(at_second(132.0)));
        let both = by_timeline("$Number$-$Time$.m4s");
        assert_eq!(both.name(25), "25-50000.m4s");
        assert_eq!(both.number_of("25-50000.m4s"), Some(25));
    }

    #[test]
    fn no_availability_without_a_start_time() {
        let template = SegmentNaming {
            began: None,
            ..by_clock()
        };
        assert_eq!(template.newest(at_second(107.0)), None);
        assert_eq!(template.available_at(1), None);
        assert_eq!(template.name(1), "1.m4s");
    }

    prop_compose! {
        fn any_template()(
            form in prop::sample::select(vec!["$Number$", "$Time$", "$Number$_$Time$"]),
            (number, time, offset) in (0..1_000_000_u64, 0..u64::MAX / 4, 0..u64::MAX / 4),
            (scale, step) in (1..20_000_000_u64, 1..100_000_000_u64),
            (listed, early) in (any::<bool>(), 0..4_000_u64),
        ) -> SegmentNaming {
            let position = SegmentPosition { number, time };
            SegmentNaming {
                url_template: UrlTemplate::new("", form, "", "").unwrap(),
                availability_base: if listed { AvailabilityBase::Listed(position) } else { AvailabilityBase::Clock(position) },
                pace: SegmentTiming { scale, step, offset },
                availability_offset: AvailabilityTimeOffset::By(Duration::from_millis(early)),
                ..by_clock()
            }
        }
    }

    proptest! {
        #[test]
        fn segment_name_and_value_round_trip(template in any_template(), value in 0..u64::MAX / 4) {
            prop_assert_eq!(template.number_of(&template.name(value)), Some(value));
        }

        #[test]
        fn later_segments_are_never_available_earlier(template in any_template(), value: u32, more: u32) {
            let (value, later) = (u64::from(value), u64::from(value) + u64::from(more));
            let (first, then) = (template.available_at(value), template.available_at(later));
            prop_assert!(first <= then);
        }

        #[test]
        fn segment_is_newest_exactly_from_its_availability_time(
            first in 0..1_000_000_u64, offset in 0..1_000_000_u64, after in 0..1_000_000_u64,
            scale in 1..20_000_000_u64, step in 1000..100_000_000_u64,
        ) {
            let template = SegmentNaming {
                availability_base: AvailabilityBase::Clock(SegmentPosition { number: first, time: offset }),
                pace: SegmentTiming { scale, step, offset },
                ..by_clock()
            };
            let number = first + after;
            let there = template.available_at(number).unwrap();
            prop_assume!(there < at_second(100.0) + FAR);
            prop_assert_eq!(template.newest(there), Some(number));
            let before = there - Duration::from_nanos(1);
            prop_assert_eq!(template.next(before), Some(number));
        }

        #[test]
        fn extreme_numbers_do_not_panic(
            numbers: [u64; 6], ends: bool, listed: bool, seconds: u32, always: bool,
            form in prop::sample::select(vec!["$Number$", "$Time$", "$Number$$Time$"]),
        ) {
            let [number, time, scale, step, offset, last] = numbers;
            let position = SegmentPosition { number, time };
            let template = SegmentNaming {
                url_template: UrlTemplate::new("", form, "", "").unwrap(),
                availability_base: if listed { AvailabilityBase::Listed(position) } else { AvailabilityBase::Clock(position) },
                pace: SegmentTiming { scale: scale.max(1), step: step.max(1), offset },
                began: Some(at_second(f64::from(seconds))),
                availability_offset: if always { AvailabilityTimeOffset::Always } else { AvailabilityTimeOffset::By(Duration::MAX) },
                last: ends.then_some(last),
            };
            for value in numbers {
                let _ = (template.name(value), template.available_at(value));
            }
            let now = at_second(1.0);
            let _ = (template.newest(now), template.next(now), template.segment_duration());
        }
    }
}
