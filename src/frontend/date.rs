//! Writes the `Date` of every response, for hyper and for the fast path.
//!
//! When the wall clock is set back by an hour, hyper's own cached date does not change for an hour:
//! responses of one server would have two dates, the correct one and that one. Here the monotonic
//! clock limits the life of a cached date, so that it follows every change of the wall clock.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// For example `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_BYTES: usize = 29;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

type DateText = [u8; DATE_BYTES];

thread_local! {
    /// Formatted once per second, not once per response.
    static DATE: RefCell<Option<CachedDate>> = const { RefCell::new(None) };
}

/// A formatted date and the end of its validity.
struct CachedDate {
    text: DateText,
    field: HeaderValue,
    until: Instant,
}

impl CachedDate {
    /// The date at a moment given by both clocks.
    fn at(now: Instant, wall: SystemTime) -> CachedDate {
        let (text, valid_for) = format(wall);
        CachedDate {
            text,
            // All bytes of a date are valid in a field value.
            field: HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("")),
            until: now + valid_for,
        }
    }
}

/// The current date for a head written here. `now` may be slightly old, but not in the future.
pub(super) fn date(now: Instant) -> DateText {
    with(now, SystemTime::now, |dated| dated.text)
}

/// The current date as a field value.
pub(super) fn date_field(now: Instant) -> HeaderValue {
    with(now, SystemTime::now, |dated| dated.field.clone())
}

/// Until when the current date stays the same.
pub(super) fn date_valid_until(now: Instant) -> Instant {
    with(now, SystemTime::now, |dated| dated.until)
}

fn with<T>(
    now: Instant,
    wall: impl FnOnce() -> SystemTime,
    read: impl FnOnce(&CachedDate) -> T,
) -> T {
    DATE.with_borrow_mut(|dated| match dated {
        Some(dated) if now < dated.until => read(dated),
        _ => read(dated.insert(CachedDate::at(now, wall()))),
    })
}

/// A date in the form of RFC 9110 §5.6.7, and how long it is valid.
fn format(wall: SystemTime) -> (DateText, Duration) {
    let mut text = [b' '; DATE_BYTES];
    // The array is large enough, so the write cannot fail.
    let _ = write!(&mut text[..], "{}", httpdate::HttpDate::from(wall));
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos_remaining = NANOS_PER_SECOND - since.subsec_nanos();
    (text, Duration::from_nanos(nanos_remaining.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_date_until_the_end_of_its_second() {
        let wall = UNIX_EPOCH + Duration::from_millis(784_111_777_250);
        let (text, valid_for) = format(wall);
        assert_eq!(&text, b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(valid_for, Duration::from_millis(750));
    }

    #[test]
    fn date_follows_clock_set_back_after_at_most_a_second() {
        let (now, wall) = (
            Instant::now(),
            UNIX_EPOCH + Duration::from_secs(784_111_777),
        );
        let at = |now, wall| with(now, || wall, |dated| dated.text);
        assert_eq!(&at(now, wall), b"Sun, 06 Nov 1994 08:49:37 GMT");
        let (later, set_back) = (now + Duration::from_secs(1), wall - Duration::from_hours(1));
        let expected = b"Sun, 06 Nov 1994 07:49:37 GMT";
        assert_eq!(&at(later, set_back), expected);
        assert_eq!(
            date_field(later),
            HeaderValue::from_bytes(expected).unwrap()
        );
    }
}
