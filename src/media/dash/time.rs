//! What do `xs:duration` and `xs:dateTime` say (XML Schema part 2)? Odd forms say nothing.

use std::time::{Duration, SystemTime};

use crate::media::calendar::{days, nanos};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// However long it is said to take until something comes, it is reckoned with no longer time: what is held is gone
/// by then, and sums of it stay in range.
pub(super) const LONG: Duration = Duration::from_secs(365 * DAY);

/// How long so many ticks are. `scale`, how many a second has, is not zero.
pub(super) fn span(ticks: u64, scale: u64) -> Duration {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(scale);
    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
    Duration::from_nanos(nanos).min(LONG)
}

/// `xs:duration`: `PnYnMnDTnHnMnS`, the seconds perhaps with a fraction. A year counts as 365 days
/// and a month as 30. `None` when it is malformed or negative.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let period = text.strip_prefix('P')?;
    let (date, time) = match period.split_once('T') {
        Some((_, "")) => return None,
        Some((date, time)) => (date, time),
        None if period.is_empty() => return None,
        None => (period, ""),
    };
    let (date, rest) = units(date, &[('Y', 365 * DAY), ('M', 30 * DAY), ('D', DAY)])?;
    if !rest.is_empty() {
        return None;
    }
    let (time, rest) = units(time, &[('H', HOUR), ('M', MINUTE)])?;
    let seconds = match rest.strip_suffix('S') {
        Some(digits) => decimal(digits)?,
        None if rest.is_empty() => Duration::ZERO,
        None => return None,
    };
    date.checked_add(time)?.checked_add(seconds)
}

/// Counts of whole units, each at most once and in the order given; and what follows them.
fn units<'a>(text: &'a str, order: &[(char, u64)]) -> Option<(Duration, &'a str)> {
    let mut rest = text;
    let mut sum = 0_u64;
    for &(letter, seconds) in order {
        let after = rest.trim_start_matches(|it: char| it.is_ascii_digit());
        let digits = &rest[..rest.len() - after.len()];
        let Some(after) = after.strip_prefix(letter) else {
            continue;
        };
        let count: u64 = digits.parse().ok()?;
        sum = sum.checked_add(count.checked_mul(seconds)?)?;
        rest = after;
    }
    Some((Duration::from_secs(sum), rest))
}

/// Digits, perhaps with a fraction, of which nine digits count.
pub(super) fn decimal(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    Some(Duration::new(whole.parse().ok()?, nanos(fraction)))
}

/// `xs:dateTime` of the years 1 to 9999: `2024-01-31T23:59:59.5+01:00`. Without an offset it is UTC
/// (ISO/IEC 23009-1 has it so).
pub(super) fn date_time(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once('T')?;
    let (time, offset) = offset(time)?;
    let mut parts = date.split('-');
    let (year, month, day) = (
        digits(parts.next()?, 4)?,
        digits(parts.next()?, 2)?,
        digits(parts.next()?, 2)?,
    );
    let days = days(year, month, day).filter(|_| parts.next().is_none())?;
    let mut parts = time.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = parts
        .next()
        .filter(|text| text.as_bytes().get(2).is_none_or(|&it| it == b'.'))?;
    let second = decimal(second).filter(|_| second.len() >= 2 && parts.next().is_none())?;
    // The end of the day may be written as 24:00:00, and there are leap seconds.
    let is_midnight = hour == 24 && minute == 0 && second.is_zero();
    if (hour > 23 && !is_midnight) || minute > 59 || second.as_secs() > 60 {
        return None;
    }
    let seconds = days * i64::try_from(DAY).ok()? + hour * 3600 + minute * 60 - offset;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    moment?.checked_add(second)
}

/// Splits off `Z`, `+hh:mm` or `-hh:mm`: seconds east of Greenwich.
fn offset(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix('Z') {
        return Some((time, 0));
    }
    let Some(at) = time.find(['+', '-']) else {
        return Some((time, 0));
    };
    let (time, zone) = time.split_at(at);
    let (hours, minutes) = zone[1..].split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    if hours > 14 || minutes > 59 {
        return None;
    }
    let east = hours * 3600 + minutes * 60;
    Some((time, if zone.starts_with('-') { -east } else { east }))
}

/// A number of exactly so many digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    let fits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs_f64());
        assert_eq!(seconds("PT2S"), Some(2.0));
        assert_eq!(seconds("PT0S"), Some(0.0));
        assert_eq!(seconds("PT0.5S"), Some(0.5));
        assert_eq!(seconds("PT1M30.25S"), Some(90.25));
        assert_eq!(seconds("PT1H"), Some(3600.0));
        assert_eq!(seconds("P1DT1S"), Some(86_401.0));
        assert_eq!(seconds("P1Y2M"), Some(36_720_000.0));
        assert_eq!(seconds("P0Y0M0DT0H0M3.000S"), Some(3.0));
        assert_eq!(seconds("PT1.0000000009999S"), Some(1.0));
        for text in [
            "",
            "P",
            "PT",
            "2",
            "-PT2S",
            "PT2",
            "PTS",
            "PT1.5M",
            "PT2S1M",
            "P1S",
            "PT.S",
            "PT1.S",
            "PT99999999999999999999S",
            "P99999999999999999Y",
            "P1e300Y",
            "PT2S ",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
        let years = format!("P{}Y", "9".repeat(300));
        assert_eq!(seconds(&years), None);
    }

    #[test]
    fn moments() {
        let millis = |text| {
            let since = date_time(text)?.duration_since(SystemTime::UNIX_EPOCH);
            Some(match since {
                Ok(after) => i128::try_from(after.as_millis()).unwrap(),
                Err(before) => -i128::try_from(before.duration().as_millis()).unwrap(),
            })
        };
        assert_eq!(millis("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(millis("1970-01-01T00:00:00"), Some(0));
        assert_eq!(millis("2024-01-01T00:00:00Z"), Some(1_704_067_200_000));
        assert_eq!(millis("2024-02-29T12:00:00.25Z"), Some(1_709_208_000_250));
        assert_eq!(millis("2024-01-01T01:00:00+01:00"), Some(1_704_067_200_000));
        assert_eq!(millis("2023-12-31T18:30:00-05:30"), Some(1_704_067_200_000));
        assert_eq!(millis("2023-12-31T24:00:00Z"), Some(1_704_067_200_000));
        assert_eq!(millis("2016-12-31T23:59:60Z"), Some(1_483_228_800_000));
        assert_eq!(millis("1969-12-31T23:59:59.5Z"), Some(-500));
        assert_eq!(millis("0001-01-01T00:00:00Z"), Some(-62_135_596_800_000));
        assert_eq!(millis("2000-03-01T00:00:00Z"), Some(951_868_800_000));
        for text in [
            "",
            "T",
            "2024-01-01",
            "2024-01-01 00:00:00Z",
            "2024-1-01T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2024-00-10T00:00:00Z",
            "2024-01-00T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "-2024-01-01T00:00:00Z",
            "99999-01-01T00:00:00Z",
            "2024-01-01T24:00:01Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:61Z",
            "2024-01-01T00:00Z",
            "2024-01-01T00:00:0Z",
            "2024-01-01T00:00:000Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00:00Z",
            "2024-01-01T00:00:00+15:00",
            "2024-01-01T00:00:00+0100",
            "2024-01-01T00:00:00ZZ",
            "2024-01-01-01T00:00:00Z",
            "+024-01-01T00:00:00Z",
        ] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn later_days_are_later(day in 0..3_650_000_i64) {
            // Counts up through the calendar beside the formula.
            let year = 1 + day / 366;
            let after = days(year + 1, 1, 1).unwrap() - days(year, 1, 1).unwrap();
            prop_assert!(after == 365 || after == 366);
            prop_assert_eq!(days(year, 12, 31).unwrap() + 1, days(year + 1, 1, 1).unwrap());
            prop_assert_eq!(days(year, 3, 1).unwrap() - days(year, 1, 1).unwrap(), after - 306);
        }

        #[test]
        fn no_text_panics(text in "[-+PTZYMDHS:.0-9é ]{0,40}") {
            let _ = (duration(&text), date_time(&text));
        }
    }
}
