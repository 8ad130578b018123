//! The format of an access log line: flat JSON, always the same fields, `null` for missing values,
//! times in milliseconds. Removes queries, credentials and control characters.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use seawall_manifest::calendar_date;
use serde::{Serialize, Serializer};

use super::super::{AbortCause, AccessLogFields, RequestRecord};

/// Maximum lengths of the logged path, host, method and request id. Longer ones are truncated.
const PATH_BYTES_MAX: usize = 2048;
const HOST_BYTES_MAX: usize = 255;
const WORD_BYTES_MAX: usize = 128;

/// A request record in the writer's queue.
pub(super) struct AccessLogEntry {
    record: RequestRecord,
    /// Number of requests that this line represents.
    weight: u32,
    /// When the request ended.
    ended: SystemTime,
}

impl AccessLogEntry {
    /// Copies the fields that the line needs, and truncates long ones.
    pub(super) fn of(record: &RequestRecord, weight: u32, ended: SystemTime) -> AccessLogEntry {
        let fields = record
            .log_fields
            .as_deref()
            .map(|fields| Box::new(bounded(fields)));
        AccessLogEntry {
            record: RequestRecord {
                log_fields: fields,
                ..*record
            },
            weight,
            ended,
        }
    }

    /// Appends the line and its newline.
    pub(super) fn write_line(&self, out: &mut Vec<u8>) {
        // Writing to a `Vec` cannot fail, and these fields can always be serialized.
        let _ = serde_json::to_writer(&mut *out, &LineFields::of(self));
        out.push(b'\n');
    }
}

fn bounded(fields: &AccessLogFields) -> AccessLogFields {
    let shorten = |text: &str, bytes_max| text[..text.floor_char_boundary(bytes_max)].to_owned();
    AccessLogFields {
        // A prefix of a method is a valid method.
        method: fields
            .method
            .as_ref()
            .and_then(|method| shorten(method.as_str(), WORD_BYTES_MAX).parse().ok()),
        path: shorten(&fields.path, PATH_BYTES_MAX),
        host: shorten(&fields.host, HOST_BYTES_MAX),
        address: fields.address,
        protocol: fields.protocol,
        route: fields.route.clone(),
        class: fields.class.clone(),
        refusal: fields.refusal,
        request_id: shorten(&fields.request_id, WORD_BYTES_MAX),
    }
}

/// The fields of a line, in the order in which they are written.
#[derive(Serialize)]
struct LineFields<'a> {
    ts: DisplayJson<Timestamp>,
    method: Option<&'a str>,
    host: Option<Cow<'a, str>>,
    path: Option<Cow<'a, str>>,
    status: u16,
    outcome: &'static str,
    kind: &'static str,
    route: Option<&'a str>,
    class: Option<&'a str>,
    reason: Option<&'static str>,
    reason_detail: Option<&'static str>,
    key: Option<DisplayJson<KeyHash>>,
    bytes: u64,
    response_time_ms: f64,
    head_time_ms: f64,
    origin_time_ms: Option<f64>,
    aborted: bool,
    aborted_by: Option<&'static str>,
    peer: Option<IpAddr>,
    proxy: Option<IpAddr>,
    protocol: Option<&'static str>,
    request_id: Option<Cow<'a, str>>,
    weight: u32,
}

impl<'a> LineFields<'a> {
    fn of(entry: &'a AccessLogEntry) -> LineFields<'a> {
        let record = &entry.record;
        let fields = record.log_fields.as_deref();
        let refusal = fields.and_then(|fields| fields.refusal);
        // The clock may have been set to a time before the epoch.
        let arrived = entry
            .ended
            .checked_sub(record.total_time)
            .unwrap_or(UNIX_EPOCH);
        LineFields {
            ts: DisplayJson(Timestamp(arrived)),
            method: fields.and_then(|fields| fields.method.as_ref().map(http::Method::as_str)),
            host: fields.and_then(|fields| known(without_credentials(&fields.host))),
            path: fields.and_then(|fields| known(without_query(&fields.path))),
            status: record.status.as_u16(),
            outcome: record.outcome.as_str(),
            kind: record.kind.as_str(),
            route: fields.and_then(|fields| fields.route.as_deref()),
            class: fields.and_then(|fields| fields.class.as_deref()),
            reason: refusal.map(|refusal| refusal.word),
            reason_detail: refusal.and_then(|refusal| refusal.detail),
            key: (record.key_hash != 0).then_some(DisplayJson(KeyHash(record.key_hash))),
            bytes: record.bytes,
            response_time_ms: milliseconds(record.total_time),
            head_time_ms: milliseconds(record.head_time),
            origin_time_ms: record.origin_time.map(milliseconds),
            aborted: record.aborted_by.is_some(),
            aborted_by: record.aborted_by.map(AbortCause::as_str),
            peer: fields.and_then(|fields| fields.address.viewer),
            proxy: fields.and_then(|fields| fields.address.proxy),
            protocol: fields.map(|fields| fields.protocol),
            request_id: fields.and_then(|fields| known(&fields.request_id)),
            weight: entry.weight,
        }
    }
}

/// An empty text means unknown.
fn known(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then(|| printable(text))
}

/// Rounded to microseconds.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// JSON escapes control characters only up to U+001F; the others (DEL, C1) are replaced here.
fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.replace(char::is_control, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// An authority may contain `user:password@`.
fn without_credentials(host: &str) -> &str {
    host.rsplit('@').next().unwrap_or(host)
}

/// The record's path has no query already. This check makes sure that no token is logged.
fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// Serializes through `Display`, without an intermediate string.
struct DisplayJson<T>(T);

impl<T: Display> Serialize for DisplayJson<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct KeyHash(u64);

impl Display for KeyHash {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// RFC 3339 in UTC, to the millisecond.
pub(crate) struct Timestamp(pub(crate) SystemTime);

impl Display for Timestamp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (year, month, day) = calendar_date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let millis = since.subsec_millis();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::super::super::{Outcome, RefusalReason, tests::record_of};
    use super::*;
    use seawall_manifest::Kind;
    use seawall_policy::ViewerAddress;

    const ENDED: Duration = Duration::from_millis(1_709_210_096_789);

    fn fields() -> AccessLogFields {
        AccessLogFields {
            method: Some(Method::GET),
            path: "/live/a.m3u8".into(),
            host: "tv.example".into(),
            address: ViewerAddress {
                viewer: Some("2001:db8::1".parse().unwrap()),
                proxy: Some("10.0.0.1".parse().unwrap()),
            },
            protocol: "HTTP/1.1",
            route: Some("live".into()),
            class: Some("cdn".into()),
            refusal: Some(RefusalReason {
                word: "token",
                detail: Some("expired"),
            }),
            request_id: "r-1".into(),
        }
    }

    fn line_of(record: &RequestRecord) -> String {
        let mut bytes = Vec::new();
        AccessLogEntry::of(record, 1, UNIX_EPOCH + ENDED).write_line(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn writes_all_fields_in_a_fixed_order() {
        let record = RequestRecord {
            route: Some(0),
            key_hash: 0xbeef,
            status: StatusCode::PARTIAL_CONTENT,
            origin_time: Some(Duration::from_micros(12_345)),
            bytes: 4096,
            log_fields: Some(Box::new(fields())),
            ..record_of(Outcome::Miss, Kind::Hls, 200)
        };
        let expected = concat!(
            r#"{"ts":"2024-02-29T12:34:56.786Z","method":"GET","host":"tv.example","#,
            r#""path":"/live/a.m3u8","status":206,"outcome":"miss","kind":"hls","#,
            r#""route":"live","class":"cdn","reason":"token","reason_detail":"expired","#,
            r#""key":"000000000000beef","bytes":4096,"#,
            r#""response_time_ms":3.0,"head_time_ms":0.08,"origin_time_ms":12.345,"#,
            r#""aborted":false,"aborted_by":null,"#,
            r#""peer":"2001:db8::1","proxy":"10.0.0.1","protocol":"HTTP/1.1","request_id":"r-1","#,
            r#""weight":1}"#,
            "\n",
        );
        assert_eq!(line_of(&record), expected);
    }

    #[test]
    fn writes_unknown_values_as_null() {
        let text = line_of(&record_of(Outcome::Refused, Kind::Other, 400));
        let fields: serde_json::Value = serde_json::from_str(&text).unwrap();
        for name in [
            "method",
            "path",
            "host",
            "route",
            "reason",
            "reason_detail",
            "key",
            "origin_time_ms",
            "peer",
            "proxy",
        ] {
            assert!(
                fields[name].is_null() && text.contains(name),
                "{name}: {text}"
            );
        }
    }

    #[test]
    fn omits_secrets_and_control_characters() {
        let fields = AccessLogFields {
            path: "/a\u{1b}[2J\u{9b}\"\n/b.ts?token=secret".into(),
            host: "user:secret@tv.example".into(),
            request_id: "\u{7f}".into(),
            ..fields()
        };
        let record = RequestRecord {
            log_fields: Some(Box::new(fields)),
            ..record_of(Outcome::Hit, Kind::Segment, 200)
        };
        let text = line_of(&record);
        assert!(!text.contains("secret"), "{text}");
        assert!(!text.trim_end().chars().any(char::is_control), "{text:?}");
        let fields: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(fields["path"], "/a\u{fffd}[2J\u{fffd}\"\u{fffd}/b.ts");
        assert_eq!(fields["host"], "tv.example");
    }

    #[test]
    fn truncates_texts_between_characters() {
        let path = format!("/{}", "ü".repeat(PATH_BYTES_MAX));
        let fields = AccessLogFields { path, ..fields() };
        let record = RequestRecord {
            log_fields: Some(Box::new(fields)),
            ..record_of(Outcome::Hit, Kind::Segment, 200)
        };
        let fields: serde_json::Value = serde_json::from_str(&line_of(&record)).unwrap();
        assert_eq!(fields["path"].as_str().unwrap().len(), PATH_BYTES_MAX - 1);
    }

    #[test]
    fn formats_dates_by_the_calendar() {
        let dates = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ];
        for (seconds, text) in dates {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Timestamp(time).to_string(), text);
        }
        assert_eq!(
            Timestamp(UNIX_EPOCH - Duration::from_secs(1)).to_string(),
            dates[0].1
        );
    }
}
