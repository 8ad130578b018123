//! How does an answer's head look on the wire? HTTP/1.1, with the date and the length.

use std::cell::Cell;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, header};

use crate::cache::write_field;
use crate::shield::Answer;

/// Fits most heads with a playlist behind them, so that they are written without growing.
const HEAD_BYTES: usize = 4 << 10;

/// As written: `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_BYTES: usize = 29;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// A date, and until when it is right.
type Dated = ([u8; DATE_BYTES], Instant);

thread_local! {
    /// Written once a second, not once an answer.
    static DATE: Cell<Option<Dated>> = const { Cell::new(None) };
}

/// The head of an answer that is at hand; `length` is that of its body, where it may have one.
pub(super) fn head(answer: &Answer, length: Option<u64>) -> Vec<u8> {
    let Answer {
        status,
        headers,
        held,
        tale,
        ..
    } = answer;
    let held = held.as_deref();
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
    if let Some(object) = held {
        head.extend_from_slice(&object.lines);
    }
    for (name, value) in headers {
        write_field(&mut head, name, value);
    }
    if let Some(length) = length
        && !headers.contains_key(header::CONTENT_LENGTH)
    {
        // Writing to a vector cannot fail.
        let _ = write!(head, "content-length: {length}\r\n");
    }
    let dated = |headers: &HeaderMap| headers.contains_key(header::DATE);
    if !dated(headers) && !held.is_some_and(|object| dated(&object.head.headers)) {
        // It was at hand: the moment it was asked for is the moment it was made.
        head.extend_from_slice(b"date: ");
        head.extend_from_slice(&date(tale.arrived));
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn date(now: Instant) -> [u8; DATE_BYTES] {
    match DATE.get() {
        Some((text, until)) if now < until => text,
        _ => {
            let (text, lasts) = written(SystemTime::now());
            DATE.set(Some((text, now + lasts)));
            text
        }
    }
}

/// A date in the form of RFC 9110 §5.6.7, and how long it stays right.
fn written(wall: SystemTime) -> ([u8; DATE_BYTES], Duration) {
    let mut text = [b' '; DATE_BYTES];
    let _ = write!(&mut text[..], "{}", httpdate::HttpDate::from(wall));
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = NANOS_PER_SECOND - since.subsec_nanos();
    (text, Duration::from_nanos(left.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, StatusCode};

    use crate::edge::scene;
    use crate::shield::Body;

    fn text(status: u16, headers: &HeaderMap, length: Option<u64>) -> String {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.clone(),
            held: None,
            body: Body::Empty,
            tale: scene::tale(Instant::now()),
        };
        String::from_utf8(head(&answer, length)).unwrap()
    }

    #[test]
    fn a_head_has_its_fields_a_length_and_a_date() {
        let mut headers = HeaderMap::new();
        headers.append("a", HeaderValue::from_static("1"));
        headers.append("a", HeaderValue::from_static("2"));
        let head = text(200, &headers, Some(7));
        let (start, date) = head.split_once("date: ").unwrap();
        assert_eq!(
            start,
            "HTTP/1.1 200 OK\r\na: 1\r\na: 2\r\ncontent-length: 7\r\n"
        );
        let date = date.strip_suffix("\r\n\r\n").unwrap();
        let age = SystemTime::now()
            .duration_since(httpdate::parse_http_date(date).unwrap())
            .unwrap();
        assert!(age < Duration::from_mins(1), "{age:?}");
    }

    #[test]
    fn given_lengths_and_dates_stay_and_304_has_none() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("9"));
        headers.insert(header::DATE, HeaderValue::from_static("then"));
        let given = "content-length: 9\r\ndate: then\r\n\r\n";
        let head = text(200, &headers, Some(0));
        assert_eq!(head, format!("HTTP/1.1 200 OK\r\n{given}"));
        let head = text(304, &HeaderMap::new(), None);
        assert!(!head.contains("content-length"), "{head}");
        assert!(head.starts_with("HTTP/1.1 304 Not Modified\r\ndate: "));
    }

    #[test]
    fn a_date_is_right_to_the_end_of_its_second() {
        let wall = UNIX_EPOCH + Duration::from_millis(784_111_777_250);
        let (text, lasts) = written(wall);
        assert_eq!(&text, b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(lasts, Duration::from_millis(750));
    }
}
