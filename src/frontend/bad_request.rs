//! Creates the record of a request that hyper or h2 could not parse.

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::connection_state::ConnectionState;
use crate::telemetry::{AccessLogFields, RequestRecord};

/// The record of a head that hyper rejected. `head` is its beginning, as far as known.
pub(super) fn http1_record(
    error: &hyper::Error,
    head: &[u8],
    connection: &ConnectionState,
) -> RequestRecord {
    // hyper has one predicate for both statuses.
    let status = if error.is_parse_too_large() && error.to_string().contains("URI") {
        StatusCode::URI_TOO_LONG
    } else if error.is_parse_too_large() {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    } else {
        StatusCode::BAD_REQUEST
    };
    let started = connection.phase_since().into_std();
    let total_time = started.elapsed();
    RequestRecord {
        status,
        head_time: total_time,
        total_time,
        log_fields: Some(Box::new(log_fields(head, connection))),
        ..RequestRecord::begin(started)
    }
}

/// The record of a malformed HTTP/2 stream or connection. h2 does not report what was requested.
pub(super) fn http2_record(connection: &ConnectionState) -> RequestRecord {
    let log_fields = AccessLogFields {
        method: None,
        path: String::new(),
        host: String::new(),
        address: connection.address(),
        protocol: "HTTP/2.0",
        route: None,
        class: None,
        refusal: None,
        request_id: String::new(),
    };
    RequestRecord {
        status: StatusCode::BAD_REQUEST,
        log_fields: Some(Box::new(log_fields)),
        ..RequestRecord::begin(Instant::now().into_std())
    }
}

fn log_fields(head: &[u8], connection: &ConnectionState) -> AccessLogFields {
    let end = head.iter().position(|&byte| byte == b'\n');
    let request_line = &head[..end.unwrap_or(head.len())];
    let mut parts = request_line.trim_ascii_end().split(|&byte| byte == b' ');
    let method = parts
        .next()
        .filter(|part| part.iter().all(u8::is_ascii_alphanumeric));
    let target = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let path = target.split(['?', '#']).next().unwrap_or_default();
    // Absolute form: the authority is the host and may contain a password.
    let (host, path) = match path.split_once("://") {
        Some((_, rest)) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", path),
    };
    AccessLogFields {
        method: method.and_then(|part| Method::from_bytes(part).ok()),
        path: path.to_owned(),
        host: host.to_owned(),
        address: connection.address(),
        protocol: match parts.next() {
            Some(b"HTTP/1.0") => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
        route: None,
        class: None,
        refusal: None,
        request_id: String::new(),
    }
}
