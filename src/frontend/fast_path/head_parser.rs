//! Decides whether bytes are exactly one plain request. All other bytes are left to hyper.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use httparse::{Header, Request, Status};
use memchr::memchr_iter;

use crate::frontend::Limits;
use crate::frontend::request_key::write_field;
use seawall_policy::IgnoredFields;

/// More fields than players and CDNs send.
const FIELDS_MAX: usize = 64;

/// Header fields after which a request may continue behind its head.
const NON_PLAIN_FIELDS: [&str; 4] = ["content-length", "transfer-encoding", "expect", "upgrade"];

/// The kind of the bytes read.
pub(super) enum ParsedRequest<'b> {
    /// One complete GET request that keeps the connection open.
    Get(PlainGet<'b>),
    /// One complete request without a body that hyper must answer.
    NotFast,
    /// Anything else: an incomplete request, one with a body, more than one request.
    Other,
}

/// A GET request in the bytes read.
pub(super) struct PlainGet<'b> {
    received: &'b [u8],
    target: &'b str,
    fields: &'b [Header<'b>],
}

/// Memory for the fields of a request.
pub(super) type FieldBuffer<'b> = [MaybeUninit<Header<'b>>; FIELDS_MAX];

pub(super) const EMPTY_FIELDS: FieldBuffer<'static> = [const { MaybeUninit::uninit() }; FIELDS_MAX];

/// Parses the bytes read. Uses the parser and the settings of hyper, so both find the same request
/// in the same bytes.
pub(super) fn parse<'b>(received: &'b [u8], buffer: &'b mut FieldBuffer<'b>) -> ParsedRequest<'b> {
    let mut request = Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(received, buffer);
    if parsed != Ok(Status::Complete(received.len()))
        || request.version != Some(1)
        || has_bare_lf(received)
    {
        return ParsedRequest::Other;
    }
    let (Some(method @ ("GET" | "HEAD" | "OPTIONS")), Some(target)) =
        (request.method, request.path)
    else {
        return ParsedRequest::Other;
    };
    let fields: &[Header<'_>] = request.headers;
    if fields
        .iter()
        .any(|field| is_one_of(field, &NON_PLAIN_FIELDS))
    {
        return ParsedRequest::Other;
    }
    if method != "GET"
        || !target.starts_with('/')
        || target.contains('#')
        || !fields.iter().all(keeps_alive)
    {
        return ParsedRequest::NotFast;
    }
    ParsedRequest::Get(PlainGet {
        received,
        target,
        fields,
    })
}

impl PlainGet<'_> {
    /// Whether the request exceeds a limit: see [`super::super::exchange::limit_rejection`].
    pub(super) fn is_over_limit(&self, limits: &Limits) -> bool {
        let too_large =
            |field: &Header<'_>| field.name.len() + field.value.len() > limits.header_bytes_max;
        self.target.len() > limits.uri_bytes_max
            || self.fields.len() > limits.headers_max
            || self.fields.iter().any(too_large)
    }

    /// Appends everything that can change the response.
    pub(super) fn write_key(&self, ignored: &IgnoredFields, key: &mut Vec<u8>) {
        key.extend_from_slice(self.target.as_bytes());
        for field in self.fields {
            write_field(key, ignored, field.name, field.value);
        }
    }

    /// The lines of a field, the last one first.
    pub(super) fn lines_of(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        let fields = self.fields.iter().rev();
        let lines = fields.filter(move |field| is_one_of(field, &[name]));
        lines.map(|field| field.value)
    }

    /// The target and the fields, in one copy of the bytes. `None`: hyper must judge them.
    pub(super) fn to_parts(&self) -> Option<(Uri, HeaderMap)> {
        let bytes = Bytes::copy_from_slice(self.received);
        let part = |text: &[u8]| {
            let start = text.as_ptr().addr() - self.received.as_ptr().addr();
            bytes.slice(start..start + text.len())
        };
        let mut headers = HeaderMap::with_capacity(self.fields.len());
        for field in self.fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            let value = HeaderValue::from_maybe_shared(part(field.value)).ok()?;
            headers.append(name, value);
        }
        let uri = Uri::from_maybe_shared(part(self.target.as_bytes())).ok()?;
        Some((uri, headers))
    }
}

/// httparse accepts a bare LF as the end of a line. It rejects a bare CR.
fn has_bare_lf(head: &[u8]) -> bool {
    memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

fn is_one_of(field: &Header<'_>, names: &[&str]) -> bool {
    names
        .iter()
        .any(|name| name.len() == field.name.len() && field.name.eq_ignore_ascii_case(name))
}

fn keeps_alive(field: &Header<'_>) -> bool {
    !is_one_of(field, &["connection"]) || field.value.eq_ignore_ascii_case(b"keep-alive")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_result(received: &str) -> &'static str {
        match parse(received.as_bytes(), &mut { EMPTY_FIELDS }) {
            ParsedRequest::Get(_) => "get",
            ParsedRequest::NotFast => "not_fast",
            ParsedRequest::Other => "other",
        }
    }

    #[test]
    fn parses_a_plain_get_with_its_fields() {
        let received = "GET /a?b HTTP/1.1\r\nHost: c\r\nAccept: x\r\nAccept: y\r\nConnection: Keep-Alive\r\n\r\n";
        let mut buffer = EMPTY_FIELDS;
        let ParsedRequest::Get(get) = parse(received.as_bytes(), &mut buffer) else {
            panic!("not a plain GET");
        };
        let (uri, headers) = get.to_parts().unwrap();
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
