//! Decides whether bytes are exactly one plain request. All other bytes are left to hyper.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use httparse::{Header, Request, Status};
use memchr::memchr_iter;

/// More fields than players and CDNs send.
const FIELDS_MAX: usize = 64;

/// Header fields after which a request may continue behind its head.
const NON_PLAIN_FIELDS: [HeaderName; 4] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::EXPECT,
    header::UPGRADE,
];

/// The kind of the bytes read.
pub(super) enum ParsedRequest {
    /// One complete GET request that keeps the connection open.
    Get { uri: Uri, headers: HeaderMap },
    /// One complete request without a body that hyper must answer.
    NotFast,
    /// Anything else: an incomplete request, one with a body, more than one request.
    Other,
}

/// Parses the bytes read. Uses the parser and the settings of hyper, so both find the same request
/// in the same bytes.
pub(super) fn parse(received: &[u8]) -> ParsedRequest {
    // One copy, shared by the target and all values.
    let bytes = Bytes::copy_from_slice(received);
    let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS_MAX];
    let mut request = Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(&bytes, &mut fields);
    if parsed != Ok(Status::Complete(received.len()))
        || request.version != Some(1)
        || has_bare_lf(&bytes)
    {
        return ParsedRequest::Other;
    }
    let (Some(method @ ("GET" | "HEAD" | "OPTIONS")), Some(target)) =
        (request.method, request.path)
    else {
        return ParsedRequest::Other;
    };
    let Some(headers) = headers(request.headers, &bytes) else {
        return ParsedRequest::Other;
    };
    if method != "GET"
        || !target.starts_with('/')
        || target.contains('#')
        || !is_keep_alive(&headers)
    {
        return ParsedRequest::NotFast;
    }
    match Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes())) {
        Ok(uri) => ParsedRequest::Get { uri, headers },
        Err(_) => ParsedRequest::NotFast,
    }
}

/// httparse accepts a bare LF as the end of a line. It rejects a bare CR.
fn has_bare_lf(head: &[u8]) -> bool {
    memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

/// `None` if a field says that the request continues after its head.
fn headers(fields: &[Header<'_>], bytes: &Bytes) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if NON_PLAIN_FIELDS.contains(&name) {
            return None;
        }
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?;
        headers.append(name, value);
    }
    Some(headers)
}

fn is_keep_alive(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .all(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_result(received: &str) -> &'static str {
        match parse(received.as_bytes()) {
            ParsedRequest::Get { .. } => "get",
            ParsedRequest::NotFast => "not_fast",
            ParsedRequest::Other => "other",
        }
    }

    #[test]
    fn parses_a_plain_get_with_its_fields() {
        let received = "GET /a?b HTTP/1.1\r\nHost: c\r\nAccept: x\r\nAccept: y\r\nConnection: Keep-Alive\r\n\r\n";
        let ParsedRequest::Get { uri, headers } = parse(received.as_bytes()) else {
            panic!("not a plain GET");
        };
        assert_eq!(uri, "/a?b");
        assert_eq!(headers["host"], "c");
        assert_eq!(headers.get_all("accept").iter().count(), 2);
    }

    #[test]
    fn recognises_complete_requests_that_hyper_must_answer() {
        for received in [
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-b\r\n\r\n",
        ] {
            assert_eq!(parse_result(received), "not_fast", "{received}");
        }
    }

    #[test]
    fn rejects_everything_except_one_complete_request() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for received in [
            &get[..get.len() - 1],
            &format!("{get}{get}"),
            &format!("{get}G"),
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\rc\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
        ] {
            assert_eq!(parse_result(received), "other", "{received}");
        }
        let too_many_fields = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(FIELDS_MAX + 1)
        );
        assert_eq!(parse_result(&too_many_fields), "other");
    }
}
