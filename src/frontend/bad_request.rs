//! Creates the record of a request that hyper or h2 could not parse.

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::connection_state::ConnectionState;
use crate::telemetry::{AccessLogFields, RequestRecord};

/// The record of a head that hyper refused. `unread` is its beginning, as far as known.
pub(super) fn http1_record(
    error: &hyper::Error,
    unread: &[u8],
    gauge: &ConnectionState,
) -> RequestRecord {
    // hyper has one predicate for both statuses.
    let status = if error.is_parse_too_large() && error.to_string().contains("URI") {
        StatusCode::URI_TOO_LONG
    } else if error.is_parse_too_large() {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    } else {
        StatusCode::BAD_REQUEST
    };
    let began = gauge.since().into_std();
    let total_time = began.elapsed();
    RequestRecord {
        status,
        head_time: total_time,
        total_time,
        line: Some(Box::new(line(unread, gauge))),
        ..RequestRecord::begun(began)
    }
}

/// The record of a malformed HTTP/2 stream or connection. h2 does not report what was requested.
pub(super) fn http2_record(gauge: &ConnectionState) -> RequestRecord {
    let line = AccessLogFields {
        method: None,
        path: String::new(),
        host: String::new(),
        peer: gauge.peer,
        protocol: "HTTP/2.0",
        request_id: String::new(),
    };
    RequestRecord {
        status: StatusCode::BAD_REQUEST,
        line: Some(Box::new(line)),
        ..RequestRecord::begun(Instant::now().into_std())
    }
}

fn line(unread: &[u8], gauge: &ConnectionState) -> AccessLogFields {
    let end = unread.iter().position(|&byte| byte == b'\n');
    let first = &unread[..end.unwrap_or(unread.len())];
    let mut words = first.trim_ascii_end().split(|&byte| byte == b' ');
    let method = words
        .next()
        .filter(|word| word.iter().all(u8::is_ascii_alphanumeric));
    let target = String::from_utf8_lossy(words.next().unwrap_or_default());
    let path = target.split(['?', '#']).next().unwrap_or_default();
    // Absolute form: the authority is the host and may contain a password.
    let (host, path) = match path.split_once("://") {
        Some((_, rest)) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", path),
    };
    AccessLogFields {
        method: method.and_then(|word| Method::from_bytes(word).ok()),
        path: path.to_owned(),
        host: host.to_owned(),
        peer: gauge.peer,
        protocol: match words.next() {
            Some(b"HTTP/1.0") => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
        request_id: String::new(),
    }
}
