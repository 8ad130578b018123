//! Times as durations since the UNIX epoch, and their ISO 8601 form.

use std::time::Duration;

/// Time since the UNIX epoch, in UTC.
pub type Utc = Duration;

/// `2026-01-02T03:04:05.678Z`.
pub fn iso(time: Utc) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = time.as_secs();
    let (year, month, day) = date(seconds / DAY);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = time.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The Gregorian date of a day since 1970-01-01. Counts in eras of 400 years that begin in March,
/// so that the leap day is a year's last day.
fn date(day: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    let day = day + 719_468;
    let of_era = day % ERA_DAYS;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year + day / ERA_DAYS * 400 + u64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        let written = |seconds: u64, millis| iso(Duration::from_millis(seconds * 1000 + millis));
        assert_eq!(written(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(written(951_782_400, 1), "2000-02-29T00:00:00.001Z");
        assert_eq!(written(951_868_799, 999), "2000-02-29T23:59:59.999Z");
        assert_eq!(written(1_735_689_599, 0), "2024-12-31T23:59:59.000Z");
        assert_eq!(written(1_735_689_600, 0), "2025-01-01T00:00:00.000Z");
        assert_eq!(written(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }
}
