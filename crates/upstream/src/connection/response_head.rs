//! Validates a response head and determines how its body ends. Pure functions without connections.

use std::time::{Duration, SystemTime};

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, RETRY_AFTER, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};

use crate::Failure;

/// A larger head is rejected.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Idle timeout of a connection where the origin does not send one.
const IDLE_MAX: Duration = Duration::from_secs(55);
/// Close this much earlier than the origin, so that no request meets the close.
const IDLE_MARGIN: Duration = Duration::from_secs(1);

/// How the end of a response body is known (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this number of bytes (`Content-Length`).
    Length(u64),
    /// Chunked, or HTTP/2 without a length: the end is explicit.
    Delimited,
    /// The body ends when the connection closes. That looks like a failure, so it is never stored.
    UntilClose,
}

/// A response's head.
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
}

impl ResponseHead {
    /// `Retry-After` of the response.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let said = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        let seconds = said.trim().parse().ok().map(Duration::from_secs);
        seconds.or_else(|| {
            let date = httpdate::parse_http_date(said).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        })
    }
}

/// Reads an HTTP/1 head. `raw` is the head as received: pingora drops a `Content-Length` that came
/// with `Transfer-Encoding`, and such a response must be rejected.
pub(crate) fn read_h1(
    method: &Method,
    version: Version,
    head: (StatusCode, HeaderMap),
    raw: &[u8],
) -> Result<ResponseHead, Failure> {
    let (status, headers) = head;
    if raw.len() > HEAD_BYTES_MAX || status.is_informational() {
        return Err(Failure::Protocol);
    }
    let chunked = is_chunked(&headers)?;
    if chunked && (version != Version::HTTP_11 || names_field(raw, &CONTENT_LENGTH)) {
        return Err(Failure::Protocol);
    }
    let framing = match length(&headers)? {
        _ if bodyless(method, status) => Framing::Length(0),
        _ if chunked => Framing::Delimited,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    Ok(ResponseHead {
        status,
        headers,
        framing,
    })
}

/// Reads an HTTP/2 head.
pub(crate) fn read_h2(
    method: &Method,
    status: StatusCode,
    headers: HeaderMap,
) -> Result<ResponseHead, Failure> {
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum();
    if size > HEAD_BYTES_MAX
        || headers.contains_key(TRANSFER_ENCODING)
        || headers.contains_key(CONNECTION)
    {
        return Err(Failure::Protocol);
    }
    let framing = match length(&headers)? {
        _ if bodyless(method, status) => Framing::Length(0),
        Some(length) => Framing::Length(length),
        None => Framing::Delimited,
    };
    Ok(ResponseHead {
        status,
        headers,
        framing,
    })
}

impl ResponseHead {
    /// The status is 401 or 403: the origin rejects the credentials.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        )
    }

    /// Idle timeout of the connection: a little less than the origin's.
    pub(crate) fn idle_timeout(&self) -> Duration {
        let timeout = self.headers.get("keep-alive").and_then(|value| {
            let mut parts = value.to_str().ok()?.split(',').map(str::trim);
            let seconds = parts.find_map(|part| part.strip_prefix("timeout="))?;
            seconds.trim().parse().ok().map(Duration::from_secs)
        });
        timeout.map_or(IDLE_MAX, |timeout: Duration| {
            timeout.saturating_sub(IDLE_MARGIN).min(IDLE_MAX)
        })
    }
}

fn bodyless(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// RFC 9112 §6.1 allows several codings. Any list other than a single `chunked` is rejected: two
/// readers may interpret the framing differently.
fn is_chunked(headers: &HeaderMap) -> Result<bool, Failure> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(Failure::Protocol),
    }
}

/// The `Content-Length`; RFC 9110 §8.6 allows it to be repeated with the same value.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let mut agreed = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for text in value.to_str().map_err(|_| Failure::Protocol)?.split(',') {
            let text = text.trim();
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let length: u64 = match text.parse() {
                Ok(length) if digits => length,
                _ => return Err(Failure::Protocol),
            };
            if agreed.replace(length).is_some_and(|other| other != length) {
                return Err(Failure::Protocol);
            }
        }
    }
    Ok(agreed)
}

/// The raw head has a field of this name.
fn names_field(raw: &[u8], field: &HeaderName) -> bool {
    raw.split(|&byte| byte == b'\n').any(|line| {
        let name = line.split(|&byte| byte == b':').next().unwrap_or(line);
        name.trim_ascii()
            .eq_ignore_ascii_case(field.as_str().as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &Method, status: u16, lines: &[(&str, &str)]) -> Result<Framing, Failure> {
        let mut raw = "HTTP/1.1 200 OK\r\n".to_owned();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            raw.extend([name, ": ", value, "\r\n"]);
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        if headers.contains_key(TRANSFER_ENCODING) {
            headers.remove(CONTENT_LENGTH);
        }
        let status = StatusCode::from_u16(status).unwrap();
        let head = read_h1(method, Version::HTTP_11, (status, headers), raw.as_bytes());
        head.map(|head| head.framing)
    }

    #[test]
    fn framing_follows_content_length_or_transfer_encoding() {
        let get = |lines: &[_]| read(&Method::GET, 200, lines);
        assert_eq!(get(&[("Content-Length", "5")]), Ok(Framing::Length(5)));
        assert_eq!(
            get(&[("Transfer-Encoding", "Chunked")]),
            Ok(Framing::Delimited)
        );
        assert_eq!(get(&[]), Ok(Framing::UntilClose));
        assert_eq!(get(&[("Content-Length", "5, 5")]), Ok(Framing::Length(5)));
    }

    #[test]
    fn head_204_and_304_responses_have_no_body() {
        let five = [("Content-Length", "5")];
        assert_eq!(read(&Method::HEAD, 200, &five), Ok(Framing::Length(0)));
        assert_eq!(read(&Method::GET, 304, &five), Ok(Framing::Length(0)));
        assert_eq!(read(&Method::GET, 204, &[]), Ok(Framing::Length(0)));
    }

    #[test]
    fn rejects_ambiguous_response_framing() {
        let refused = Err(Failure::Protocol);
        let get = |lines: &[_]| read(&Method::GET, 200, lines);
        for length in ["+5", "0x5", "", "-1", "5,6", "99999999999999999999"] {
            assert_eq!(get(&[("Content-Length", length)]), refused, "{length}");
        }
        for coding in [",chunked", "chunked, identity", "xchunked", "gzip, chunked"] {
            assert_eq!(get(&[("Transfer-Encoding", coding)]), refused, "{coding}");
        }
        let both = [("Transfer-Encoding", "chunked"), ("content-length", "5")];
        assert_eq!(get(&both), refused);
        let twice = [("Content-Length", "5"), ("Content-Length", "6")];
        assert_eq!(get(&twice), refused);
        assert_eq!(read(&Method::GET, 101, &[]), refused);
    }

    #[test]
    fn idle_time_is_shorter_than_keep_alive_timeout() {
        let mut headers = HeaderMap::new();
        headers.insert("keep-alive", "max=100, timeout=5".parse().unwrap());
        let head = read_h2(&Method::GET, StatusCode::OK, headers).ok().unwrap();
        assert_eq!(head.idle_timeout(), Duration::from_secs(4));
        let without = read_h2(&Method::GET, StatusCode::OK, HeaderMap::new());
        assert_eq!(without.ok().unwrap().idle_timeout(), IDLE_MAX);
    }
}
