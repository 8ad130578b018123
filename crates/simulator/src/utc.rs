//! Times as durations since the UNIX epoch, and their ISO 8601 form.

use std::time::Duration;

use seawall_manifest::calendar_date;

/// Time since the UNIX epoch, in UTC.
pub type Utc = Duration;

/// `2026-01-02T03:04:05.678Z`.
pub fn iso(time: Utc) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = time.as_secs();
    let (year, month, day) = calendar_date(seconds / DAY);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = time.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_dates_by_the_calendar() {
        let text_of = |seconds: u64, millis| iso(Duration::from_millis(seconds * 1000 + millis));
        assert_eq!(text_of(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text_of(951_782_400, 1), "2000-02-29T00:00:00.001Z");
        assert_eq!(text_of(951_868_799, 999), "2000-02-29T23:59:59.999Z");
        assert_eq!(text_of(1_735_689_599, 0), "2024-12-31T23:59:59.000Z");
        assert_eq!(text_of(1_735_689_600, 0), "2025-01-01T00:00:00.000Z");
        assert_eq!(text_of(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }
}
