//! Parses `xs:duration` (XML Schema part 2). Malformed values are absent.

use std::time::Duration;

use crate::date_time::nanos;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Upper limit of all durations. Stored objects have expired by then, and sums stay in range.
pub(super) const LONG: Duration = Duration::from_secs(365 * DAY);

/// The duration of `ticks`. `scale`, in ticks per second, is not zero.
pub(super) fn span(ticks: u64, scale: u64) -> Duration {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(scale);
    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
    Duration::from_nanos(nanos).min(LONG)
}

/// `xs:duration`: `PnYnMnDTnHnMnS`, seconds may have a fraction. A year counts as 365 days and a
/// month as 30. `None` if malformed or negative.
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

/// Parses counts of whole units, each at most once and in the given order; returns the rest too.
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

/// A decimal number; digits after the ninth of the fraction are ignored.
fn decimal(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    Some(Duration::new(whole.parse().ok()?, nanos(fraction)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_xs_duration_and_rejects_malformed_ones() {
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

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(text in "[-+PTZYMDHS:.0-9é ]{0,40}") {
            let _ = duration(&text);
        }
    }
}
