//! Dates (ISO 8601, as profiled by RFC 3339 and XML Schema): reads all the forms that HLS and DASH
//! packagers write, and counts days in the calendar.

use std::time::{Duration, SystemTime};

const DAY: i64 = 86_400;

/// Reads an ISO 8601 date with a time, of the years 1 to 9999. Without a time zone it is UTC
/// (ISO/IEC 23009-1); a zone may omit its colon or its minutes.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
///
/// let time = UNIX_EPOCH + Duration::from_millis(1_767_323_045_250);
/// assert_eq!(seawall_manifest::date_time("2026-01-02T05:04:05.25+02"), Some(time));
/// ```
pub fn date_time(text: &str) -> Option<SystemTime> {
    let (date, time) = text.trim_ascii().split_at_checked("YYYY-MM-DD".len())?;
    let time = time.strip_prefix(['T', 't', ' '])?;
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone_at);
    let (time, fraction) = match time.split_once('.') {
        Some((time, digits)) => (time, fraction(digits)?),
        None => (time, Duration::ZERO),
    };
    let seconds = day(date)? * DAY + seconds_of_day(time)? - zone_seconds(zone)?;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    moment?.checked_add(fraction)
}

/// `YYYY-MM-DD`.
fn day(date: &str) -> Option<i64> {
    let (year, rest) = date.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    days(digits(year, 4)?, digits(month, 2)?, digits(day, 2)?)
}

/// `hh:mm:ss`. The end of the day may be 24:00:00, and there are leap seconds.
fn seconds_of_day(time: &str) -> Option<i64> {
    let (hours, rest) = time.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    let (hours, minutes, seconds) = (digits(hours, 2)?, digits(minutes, 2)?, digits(seconds, 2)?);
    let in_day = hours < 24 || (hours, minutes, seconds) == (24, 0, 0);
    let sound = in_day && minutes < 60 && seconds <= 60;
    sound.then_some(hours * 3600 + minutes * 60 + seconds)
}

fn fraction(digits: &str) -> Option<Duration> {
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    (all_digits && !digits.is_empty()).then(|| Duration::new(0, nanos(digits)))
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
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// A number of exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    let fits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok())?
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar.
///
/// Years are counted from 1 March, so that the leap day is a year's last day and needs no rule of
/// its own, and in eras of 400 years, after which the calendar repeats.
pub fn calendar_date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    const TO_MARCH_OF_YEAR_0: u64 = 719_468;
    let days = days + TO_MARCH_OF_YEAR_0;
    let (era, of_era) = (days / ERA, days % ERA);
    // Take out the leap days passed so far: one every 4 years, none every 100, one every 400.
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, five months have 153 days, however the months are cut.
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days from 1970-01-01 in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year == 0 || !(1..=length).contains(&day) {
        return None;
    }
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400;
    let month_index = usize::try_from(month - 1).ok()?;
    let in_year = BEFORE[month_index] + i64::from(is_leap && month > 2) + day - 1;
    // From 0001-01-01 to 1970-01-01: 719,162 days.
    Some(before * 365 + leaps + in_year - 719_162)
}

/// The nanoseconds of a decimal fraction; digits after the ninth are ignored.
pub(super) fn nanos(digits: &str) -> u32 {
    digits
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(text: &str) -> Option<i128> {
        let since = date_time(text)?.duration_since(SystemTime::UNIX_EPOCH);
        Some(match since {
            Ok(after) => i128::try_from(after.as_millis()).unwrap(),
            Err(before) => -i128::try_from(before.duration().as_millis()).unwrap(),
        })
    }

    #[test]
    fn calendar_dates_are_read_as_the_days_they_were() {
        for day in (0..200_000).step_by(7) {
            let (year, month, of_month) = calendar_date(day);
            let text = format!("{year:04}-{month:02}-{of_month:02}T00:00:00Z");
            assert_eq!(millis(&text), Some(i128::from(day) * 86_400_000), "{text}");
        }
    }

    // Expected values are those of `date -u +%s`.
    #[test]
    fn parses_dates_in_all_supported_forms() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00", 0),
            ("2000-02-29T23:59:59.999Z", 951_868_799_999),
            ("2000-03-01T00:00:00Z", 951_868_800_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("2024-01-01T01:00:00+01:00", 1_704_067_200_000),
            ("2023-12-31T18:30:00-05:30", 1_704_067_200_000),
            ("2023-12-31T24:00:00Z", 1_704_067_200_000),
            ("1969-12-31T23:59:59.5Z", -500),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
            ("2026-11-21T10:00:00.25Z", 1_795_255_200_250),
            ("2026-11-21T10:00:00.250", 1_795_255_200_250),
            ("2026-11-21 10:00:00.250000000001z", 1_795_255_200_250),
            (" 2026-11-21T12:30:00.250+02:30 ", 1_795_255_200_250),
            ("2026-11-21T10:00:00.250+0000", 1_795_255_200_250),
            ("2026-11-21T03:00:00.250-07", 1_795_255_200_250),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn rejects_malformed_dates() {
        for text in [
            "",
            "T",
            "2026-11-21",
            "2026-11-21T",
            "2026-1-21T10:00:00Z",
            "2026-13-21T10:00:00Z",
            "2026-00-21T10:00:00Z",
            "2026-11-00T10:00:00Z",
            "2026-02-29T10:00:00Z",
            "2100-02-29T10:00:00Z",
            "2026-11-21-01T10:00:00Z",
            "0000-01-01T00:00:00Z",
            "-2026-11-21T10:00:00Z",
            "+026-11-21T10:00:00Z",
            "99999-01-01T00:00:00Z",
            "2026-11-21T10:00Z",
            "2026-11-21T10:00:0Z",
            "2026-11-21T10:00:000Z",
            "2026-11-21T10:00:00:00Z",
            "2026-11-21T24:00:01Z",
            "2026-11-21T10:60:00Z",
            "2026-11-21T10:00:61Z",
            "2026-11-21T10:00:00.Z",
            "2026-11-21T10:00:00.5.5Z",
            "2026-11-21T10:00:00Zz",
            "2026-11-21T10:00:00+1",
            "2026-11-21T10:00:00+01:60",
            "2026-11-21T10:00:00+24:00",
        ] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn date_converts_to_its_day_count_since_1970(days in 0_u64..2_900_000) {
            // Converts a day count to a date by counting.
            let (mut year, mut remaining) = (1970, days);
            let length = |year: u64| 365 + u64::from(
                year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400));
            while remaining >= length(year) {
                remaining -= length(year);
                year += 1;
            }
            let lengths = [31, length(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let mut month = 0;
            while remaining >= lengths[month] {
                remaining -= lengths[month];
                month += 1;
            }
            let text = format!("{year:04}-{:02}-{:02}T00:00:00Z", month + 1, remaining + 1);
            prop_assert_eq!(millis(&text), Some(i128::from(days) * 86_400_000), "{}", text);
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "[0-9TZ:.+é-]{0,30}", date in "[0-9]{4}-[01][0-9]-[0-3][0-9]T") {
            let _ = date_time(&text);
            let _ = date_time(&(date + &text));
        }
    }
}
