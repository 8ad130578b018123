//! Writes the HTTP/1.1 head of a response from memory, with `Date` and `Content-Length`.

use std::io::Write as _;
use std::time::Instant;

use http::header;

use crate::frontend::date::date;
use crate::proxy::ViewerResponse;
use seawall_cache::write_field;

/// Holds most heads followed by a playlist without a reallocation.
pub(super) const HEAD_BYTES: usize = 4 << 10;

/// Writes the head of a response that is generated now. `length` is the length of the body if it
/// may have one.
pub(super) fn head(response: &ViewerResponse, length: Option<u64>, now: Instant) -> Vec<u8> {
    let ViewerResponse {
        status,
        headers,
        stored,
        ..
    } = response;
    let stored = stored.as_deref();
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
    if let Some(object) = stored {
        head.extend_from_slice(object.head.headers.shared(headers));
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
    let has_stored_date = stored.is_some_and(|object| object.head.headers.contains(&header::DATE));
    if !has_stored_date && !headers.contains_key(header::DATE) {
        head.extend_from_slice(b"date: ");
        head.extend_from_slice(&date(now));
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, StatusCode};
    use std::time::{Duration, SystemTime};

    use crate::frontend::test_support;
    use crate::proxy::ResponseBody;

    fn text(status: u16, headers: &HeaderMap, length: Option<u64>) -> String {
        let response = ViewerResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.clone(),
            stored: None,
            body: ResponseBody::Empty,
            part_of: None,
            repeat: None,
            record: test_support::record(Instant::now()),
            meter: None,
        };
        String::from_utf8(head(&response, length, Instant::now())).unwrap()
    }

    #[test]
    fn writes_fields_length_and_date() {
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
    fn keeps_given_length_and_date_and_omits_the_length_of_304() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("9"));
        headers.insert(header::DATE, HeaderValue::from_static("then"));
        let given = "content-length: 9\r\ndate: then\r\n\r\n";
        let head = text(200, &headers, Some(0));
        assert_eq!(head, format!("HTTP/1.1 200 OK\r\n{given}"));
        let head = text(304, &HeaderMap::new(), None);
        assert!(!head.contains("content-length"), "{head}");
        assert!(head.starts_with("HTTP/1.1 304 Not Modified\r\ndate: "));
        let head = text(599, &HeaderMap::new(), None);
        assert!(head.starts_with("HTTP/1.1 599 \r\n"), "{head}");
    }
}
