//! Which day is a date, and how long is a fraction of a second? What HLS and DASH write alike; what else their
//! dates may look like is each one's own.

/// Days from 1970-01-01 in the Gregorian calendar.
pub(super) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
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
    // 719,162 days lie between 0001-01-01 and 1970-01-01.
    Some(before * 365 + leaps + in_year - 719_162)
}

/// What digits after a decimal point stand for, of which nine count.
pub(super) fn nanos(digits: &str) -> u32 {
    digits
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'))
}
