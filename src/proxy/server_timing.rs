//! Writes `Server-Timing` (W3C) into the response of a viewer who asks for it.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::telemetry::RequestRecord;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Says how a response was produced, and how long that took so far.
pub(super) fn write_server_timing(headers: &mut HeaderMap, record: &RequestRecord) {
    let mut text = format!("cache;desc=\"{}\"", record.outcome.as_str());
    let origin = record.origin_time.map(|time| ("origin", time));
    let total = ("total", record.arrived.elapsed());
    for (name, time) in origin.into_iter().chain([total]) {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {name};dur={:.1}", time.as_secs_f64() * 1e3);
    }
    if let Ok(timing) = HeaderValue::try_from(text) {
        // The origin may have said what it did.
        headers.append(SERVER_TIMING, timing);
    }
}
