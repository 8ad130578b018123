//! Parses and writes durations and sizes. Pure.

use std::fmt::Write;
use std::time::Duration;

use super::value_error::ValueError;

/// No wait is longer; it also keeps sums of instants and durations in range.
const DURATION_MAX: Duration = Duration::from_hours(366 * 24);

/// More than any machine's memory; it keeps sums of sizes in range.
const SIZE_MAX: u64 = 1 << 50;

const DURATION: &str = "a duration such as \"2s\", \"500ms\", \"1m30s\" or \"24h\"";
const SIZE: &str = "a size such as \"64MiB\", \"1GB\" or \"512KiB\"";

/// Reads `2s`, `500ms`, `24h`, `1m30s`, `14d`.
pub(crate) fn duration(text: &str) -> Result<Duration, ValueError> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ValueError::new(DURATION, "the unit is missing").suggestion(format!("{text}s")));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    let mut unit_before = u64::MAX;
    while !rest.is_empty() {
        let (count, unit);
        (count, unit, rest) = split_amount(rest).ok_or_else(|| not_a_duration(text))?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 3600 * 1000,
            "d" => 24 * 3600 * 1000,
            _ => {
                let error = ValueError::new(DURATION, "the units are ms, s, m, h and d");
                return Err(ValueError {
                    suggestion: with_short_units(text),
                    ..error
                });
            }
        };
        if millis >= unit_before {
            return Err(ValueError::new(
                DURATION,
                "larger units come first, each once",
            ));
        }
        unit_before = millis;
        let part = count.checked_mul(millis).map(Duration::from_millis);
        total = part
            .and_then(|part| total.checked_add(part))
            .unwrap_or(Duration::MAX);
    }
    if text.is_empty() || total > DURATION_MAX {
        let why = if text.is_empty() {
            "this is empty"
        } else {
            "must be at most 366d"
        };
        return Err(ValueError::new(DURATION, why));
    }
    Ok(total)
}

/// Suggests the text without spaces, or with short units, if that is a duration.
fn not_a_duration(text: &str) -> ValueError {
    let error = ValueError::new(DURATION, "not a duration");
    let suggestion = with_short_units(text).filter(|suggestion| suggestion != text);
    ValueError {
        suggestion,
        ..error
    }
}

/// The same duration with the supported units, if it uses other common ones.
fn with_short_units(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let mut rest = text.as_str();
    let mut short = String::new();
    while !rest.is_empty() {
        let (count, unit);
        (count, unit, rest) = split_amount(rest)?;
        let unit = match unit.to_ascii_lowercase().as_str() {
            "ms" | "msec" | "msecs" | "milli" | "millis" | "millisecond" | "milliseconds" => "ms",
            "s" | "sec" | "secs" | "second" | "seconds" => "s",
            "m" | "min" | "mins" | "minute" | "minutes" => "m",
            "h" | "hr" | "hrs" | "hour" | "hours" => "h",
            "d" | "day" | "days" => "d",
            _ => return None,
        };
        // Writing to a string does not fail.
        let _ = write!(short, "{count}{unit}");
    }
    duration(&short).is_ok().then_some(short)
}

/// Reads `64MiB`, `1GB`, `512KiB`, `500B`; a bare number is a number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, ValueError> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let count: u64 = number
        .parse()
        .map_err(|_| ValueError::new(SIZE, "not a size"))?;
    let bytes: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        short @ ("k" | "m" | "g" | "t") => {
            let suggestion = format!("{number}{}iB", short.to_ascii_uppercase());
            return Err(ValueError::new(SIZE, "is this 1000s or 1024s?").suggestion(suggestion));
        }
        _ => {
            return Err(ValueError::new(
                SIZE,
                "the units are B, KiB, MiB, GiB, kB, MB and GB",
            ));
        }
    };
    match count.checked_mul(bytes) {
        Some(size) if size <= SIZE_MAX => Ok(size),
        _ => Err(ValueError::new(SIZE, "must be at most 1024TiB")),
    }
}

/// Writes a duration as [`duration`] reads it, in the largest unit of which it is a whole number:
/// `75s`, `2m`; a single day as `24h`.
pub(crate) fn duration_text(duration: Duration) -> String {
    const DAY_MS: u128 = 24 * 3600 * 1000;
    const UNITS: [(&str, u128); 5] = [
        ("d", DAY_MS),
        ("h", 3600 * 1000),
        ("m", 60 * 1000),
        ("s", 1000),
        ("ms", 1),
    ];
    let total_ms = duration.as_millis();
    if total_ms == 0 {
        return "0s".to_owned();
    }
    let units = UNITS.iter().skip(usize::from(total_ms == DAY_MS));
    let mut whole = units.filter(|(_, millis)| total_ms.is_multiple_of(*millis));
    let largest = whole.next();
    largest.map_or_else(String::new, |(unit, millis)| {
        format!("{}{unit}", total_ms / millis)
    })
}

/// Writes a size as [`size`] reads it, in the unit with the smallest number: `64MiB`.
pub(crate) fn size_text(bytes: u64) -> String {
    const UNITS: [(&str, u64); 9] = [
        ("B", 1),
        ("kB", 1000),
        ("KiB", 1 << 10),
        ("MB", 1_000_000),
        ("MiB", 1 << 20),
        ("GB", 1_000_000_000),
        ("GiB", 1 << 30),
        ("TB", 1_000_000_000_000),
        ("TiB", 1 << 40),
    ];
    let whole = UNITS.iter().filter(|(_, unit)| bytes.is_multiple_of(*unit));
    let shortest = whole.min_by_key(|(_, unit)| bytes / unit);
    shortest.map_or_else(String::new, |(unit, bytes_per_unit)| {
        format!("{}{unit}", bytes / bytes_per_unit)
    })
}

/// The first number and its unit, and the rest of `text`.
fn split_amount(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let count = text[..digits].parse().ok()?;
    let tail = &text[digits..];
    let letters = tail
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(tail.len());
    Some((count, &tail[..letters], &tail[letters..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn written_durations_and_sizes_are_read_unchanged(
            millis in 0..=366 * 24 * 3_600_000_u64,
            days in 0..=366_u64,
            bytes in 0..=SIZE_MAX,
            mebibytes in 0..=SIZE_MAX >> 20,
        ) {
            for millis in [millis, millis / 1000 * 1000, days * 24 * 3_600_000] {
                let written = Duration::from_millis(millis);
                prop_assert_eq!(duration(&duration_text(written)), Ok(written));
            }
            for bytes in [bytes, mebibytes << 20] {
                prop_assert_eq!(size(&size_text(bytes)), Ok(bytes));
            }
        }
    }

    #[test]
    fn writes_durations_and_sizes_in_the_units_of_the_reference() {
        let durations = [0, 500, 75_000, 86_400_000, 129_600_000, 1_209_600_000];
        let texts = durations.map(|millis| duration_text(Duration::from_millis(millis)));
        assert_eq!(texts, ["0s", "500ms", "75s", "24h", "36h", "14d"]);
        let sizes = [0, 500, 8 << 10, 1_000_000_000, 1 << 30, 1536 << 20];
        let texts = sizes.map(size_text);
        assert_eq!(texts, ["0B", "500B", "8KiB", "1GB", "1GiB", "1536MiB"]);
    }

    #[test]
    fn reads_durations() {
        let cases = [
            ("2s", 2_000),
            ("500ms", 500),
            ("24h", 86_400_000),
            ("1m30s", 90_000),
            ("14d", 1_209_600_000),
            ("0s", 0),
            ("366d", 31_622_400_000),
        ];
        for (text, millis) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn rejects_wrong_durations() {
        let huge = "99999999999999999999s";
        for text in [
            "", "s", "2", "2 s", "-2s", "1.5s", "2x", "30s1m", "1s1s", "367d", huge, "1s2",
        ] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        let error = duration("5").expect_err("no unit");
        assert_eq!(error.suggestion.as_deref(), Some("5s"));
    }

    #[test]
    fn suggests_the_intended_unit() {
        let cases = [
            ("1sec", Some("1s")),
            ("10min", Some("10m")),
            ("10 min", Some("10m")),
            ("2 hours", Some("2h")),
            ("1min30sec", Some("1m30s")),
            ("500msec", Some("500ms")),
            ("5S", Some("5s")),
            ("1.5s", None),
            ("3 weeks", None),
            ("1x", None),
        ];
        for (text, suggestion) in cases {
            let error = duration(text).expect_err(text);
            assert_eq!(error.suggestion.as_deref(), suggestion, "{text}");
        }
        assert_eq!(size("64 mb ").unwrap_or(0), 64_000_000);
    }

    #[test]
    fn reads_sizes() {
        let cases = [
            ("64MiB", 64 << 20),
            ("1GB", 1_000_000_000),
            ("512KiB", 512 << 10),
            ("500B", 500),
            ("4096", 4096),
            ("1 gib", 1 << 30),
            ("0", 0),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn rejects_wrong_sizes() {
        for text in [
            "",
            "MiB",
            "-1",
            "1.5GiB",
            "64 potatoes",
            "9999999TiB",
            "99999999999999999999",
        ] {
            assert!(size(text).is_err(), "{text:?}");
        }
        let error = size("64m").expect_err("ambiguous");
        assert_eq!(error.suggestion.as_deref(), Some("64MiB"));
    }
}
