//! When is a moment that is written as a date (ISO 8601, as RFC 3339 narrows it)? Without a time
//! zone it counts as UTC, and a zone may lack its colon: packagers write both.

use std::time::{Duration, SystemTime};

use crate::media::calendar;

/// `None` when it is malformed, or before 1970.
pub(super) fn moment(text: &str) -> Option<SystemTime> {
    let text = text.trim_ascii();
    let (date, time) = text.split_at_checked("YYYY-MM-DD".len())?;
    let time = time.strip_prefix(['T', 't', ' '])?;
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone_at);
    let local = days(date)?
        .checked_mul(86_400)?
        .checked_add_unsigned(seconds_of_day(time)?)?;
    let since_epoch = local.checked_sub(zone_seconds(zone)?)?;
    let since_epoch = Duration::from_secs(u64::try_from(since_epoch).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since_epoch.checked_add(fraction(time)?)?)
}

/// From 1970-01-01 to `YYYY-MM-DD`.
fn days(date: &str) -> Option<i64> {
    let (year, rest) = date.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let number = |text, count| i64::try_from(digits(text, count)?).ok();
    calendar::days(number(year, 4)?, number(month, 2)?, number(day, 2)?)
}

/// `hh:mm:ss`, without its fraction. A leap second is the next minute's first.
fn seconds_of_day(time: &str) -> Option<u64> {
    let whole = time.split('.').next()?;
    let (hours, rest) = whole.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    let (hours, minutes, seconds) = (digits(hours, 2)?, digits(minutes, 2)?, digits(seconds, 2)?);
    let sound = hours < 24 && minutes < 60 && seconds <= 60;
    sound.then_some(hours * 3600 + minutes * 60 + seconds)
}

/// What follows the dot, if there is one; nine digits of it count.
fn fraction(time: &str) -> Option<Duration> {
    let Some((_, fraction)) = time.split_once('.') else {
        return Some(Duration::ZERO);
    };
    let all_digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.is_empty() || !all_digits {
        return None;
    }
    Some(Duration::new(0, calendar::nanos(fraction)))
}

/// Seconds east of Greenwich: `Z`, `±hh:mm`, `±hhmm`, `±hh` or nothing.
fn zone_seconds(zone: &str) -> Option<i64> {
    let (sign, zone) = match zone.as_bytes().first() {
        None => return Some(0),
        Some(b'Z' | b'z') => return (zone.len() == 1).then_some(0),
        Some(b'-') => (-1, &zone[1..]),
        Some(_) => (1, &zone[1..]),
    };
    let (hours, minutes) = zone.split_at_checked(2)?;
    let minutes = match minutes.strip_prefix(':').unwrap_or(minutes) {
        "" => 0,
        minutes => digits(minutes, 2)?,
    };
    let hours = digits(hours, 2)?;
    let offset = i64::try_from(hours * 3600 + minutes * 60).ok()?;
    (hours < 24 && minutes < 60).then_some(sign * offset)
}

/// Just so many digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    let all_digits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(text: &str) -> Option<u128> {
        let since = moment(text)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(since.as_millis())
    }

    // Expected values are those of `date -u +%s`.
    #[test]
    fn dates() {
        assert_eq!(millis("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(millis("2000-02-29T23:59:59.999Z"), Some(951_868_799_999));
        assert_eq!(millis("2024-12-31T23:59:60Z"), Some(1_735_689_600_000));
        for text in [
            "2026-11-21T10:00:00.25Z",
            "2026-11-21T10:00:00.250",
            "2026-11-21 10:00:00.250000000001z",
            " 2026-11-21T12:30:00.250+02:30 ",
            "2026-11-21T10:00:00.250+0000",
            "2026-11-21T03:00:00.250-07",
        ] {
            assert_eq!(millis(text), Some(1_795_255_200_250), "{text}");
        }
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T",
            "2026-11-21T10:00Z",
            "2026-13-21T10:00:00Z",
            "2026-02-29T10:00:00Z",
            "2100-02-29T10:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T10:00:00.Z",
            "2026-11-21T10:00:00Zz",
            "2026-11-21T10:00:00+1",
            "2026-11-21T10:00:00+01:60",
            "1969-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
            "+026-11-21T10:00:00Z",
        ] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_next_day_is_a_day_later(days in 0_u64..2_900_000) {
            // From the number of days to a date by counting, the slow way.
            let (mut year, mut left) = (1970, days);
            let length = |year: u64| 365 + u64::from(
                year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400));
            while left >= length(year) {
                left -= length(year);
                year += 1;
            }
            let lengths = [31, length(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let mut month = 0;
            while left >= lengths[month] {
                left -= lengths[month];
                month += 1;
            }
            let text = format!("{year:04}-{:02}-{:02}T00:00:00Z", month + 1, left + 1);
            prop_assert_eq!(millis(&text), Some(u128::from(days) * 86_400_000), "{}", text);
        }

        #[test]
        fn no_text_panics(text in "[0-9TZ:.+é-]{0,30}", date in "[0-9]{4}-[01][0-9]-[0-3][0-9]T") {
            let _ = moment(&text);
            let _ = moment(&(date + &text));
        }
    }
}
