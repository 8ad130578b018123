//! Writes the `Date` of every answer, on both ways to a viewer.
//!
//! hyper has a cache of its own for it, which stands still for as long as a clock was set back: answers
//! of one server then carried two times, the right one and the frozen one. Here how long a written date
//! lasts is measured by the monotonic clock, so that it follows the wall clock wherever that goes.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// As written: `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_BYTES: usize = 29;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

type DateText = [u8; DATE_BYTES];

thread_local! {
    /// Written once a second, not once an answer.
    static DATE: RefCell<Option<CachedDate>> = const { RefCell::new(None) };
}

/// A date, and until when it is right.
struct CachedDate {
    text: DateText,
    field: HeaderValue,
    until: Instant,
}

impl CachedDate {
    /// The date at a moment that two clocks tell.
    fn at(now: Instant, wall: SystemTime) -> CachedDate {
        let (text, lasts) = written(wall);
        CachedDate {
            text,
            // Letters, digits, blanks, commas and colons are a field's value.
            field: HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("")),
            until: now + lasts,
        }
    }
}

/// The date now, for a head that is written here. `now` may be a little old, and never in the future.
pub(super) fn date(now: Instant) -> DateText {
    with(now, SystemTime::now, |dated| dated.text)
}

/// The date now, as a header field.
pub(super) fn date_field(now: Instant) -> HeaderValue {
    with(now, SystemTime::now, |dated| dated.field.clone())
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

/// A date in the form of RFC 9110 §5.6.7, and how long it stays right.
fn written(wall: SystemTime) -> (DateText, Duration) {
    let mut text = [b' '; DATE_BYTES];
    // Writing to an array that is large enough cannot fail.
    let _ = write!(&mut text[..], "{}", httpdate::HttpDate::from(wall));
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = NANOS_PER_SECOND - since.subsec_nanos();
    (text, Duration::from_nanos(left.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_right_to_the_end_of_its_second() {
        let wall = UNIX_EPOCH + Duration::from_millis(784_111_777_250);
        let (text, lasts) = written(wall);
        assert_eq!(&text, b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(lasts, Duration::from_millis(750));
    }

    #[test]
    fn follows_a_clock_that_was_set_back_within_a_second() {
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
