//! Negotiates content codings. For origins `Accept-Encoding` is reduced to two forms, which keeps
//! the number of variants small. The shield itself encodes with more codings.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue};

use super::fields;
use seawall_manifest::Kind;

/// A coding that the shield can apply. The order is the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl ContentCoding {
    /// All codings, in order of preference.
    pub const ALL: [ContentCoding; 3] = [
        ContentCoding::Brotli,
        ContentCoding::Zstd,
        ContentCoding::Gzip,
    ];

    /// The name in `Content-Encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            ContentCoding::Brotli => "br",
            ContentCoding::Zstd => "zstd",
            ContentCoding::Gzip => "gzip",
        }
    }

    /// RFC 9110 §8.4.1.3: `x-gzip` is the same coding.
    fn named(name: &[u8]) -> Option<ContentCoding> {
        if name.eq_ignore_ascii_case(b"x-gzip") {
            return Some(ContentCoding::Gzip);
        }
        let is_named = |one: &ContentCoding| name.eq_ignore_ascii_case(one.as_str().as_bytes());
        ContentCoding::ALL.into_iter().find(is_named)
    }
}

/// The codings that a viewer accepts and the shield can apply, in order of preference: those it
/// names, or gzip for `*`.
pub fn accepted(request: &HeaderMap) -> impl Iterator<Item = ContentCoding> {
    let accept_encoding = AcceptEncoding::of(request);
    let is_accepted = move |coding: &ContentCoding| accept_encoding.accepts(*coding);
    ContentCoding::ALL.into_iter().filter(is_accepted)
}

/// The codings of a response, in the order in which they were applied. `None` if one is unknown or
/// there are more than `codings_max`.
pub fn content_codings(response: &HeaderMap, codings_max: usize) -> Option<Vec<ContentCoding>> {
    let names = fields::elements(response, CONTENT_ENCODING);
    let names = names.filter(|name| !name.eq_ignore_ascii_case(b"identity"));
    let codings: Vec<ContentCoding> = names
        .take(codings_max + 1)
        .map(ContentCoding::named)
        .collect::<Option<_>>()?;
    (codings.len() <= codings_max).then_some(codings)
}

/// The canonical `Accept-Encoding` for the origin and for variants: `gzip` if the viewer accepts it
/// (by name or `*`, q > 0), otherwise none.
pub fn canonical(request: &HeaderMap) -> Option<HeaderValue> {
    let gzip = AcceptEncoding::of(request).accepts(ContentCoding::Gzip);
    gzip.then(|| HeaderValue::from_static(ContentCoding::Gzip.as_str()))
}

/// Whether the shield requests the identity coding from the origin, whatever the viewer accepts. It
/// parses manifests and compresses them itself. Media are already compressed, so one response
/// serves all viewers, even if the origin says that its responses vary. Subtitles are text.
pub fn is_requested_uncoded(kind: Kind, path: &str) -> bool {
    const TEXT: [&str; 2] = ["vtt", "webvtt"];
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    let is_text = || TEXT.iter().any(|text| extension.eq_ignore_ascii_case(text));
    match kind {
        Kind::Hls | Kind::Dash => true,
        Kind::Segment | Kind::Init => !is_text(),
        Kind::DecryptionKey | Kind::TimeServer | Kind::Other => false,
    }
}

/// The accepted codings.
///
/// A refusal by name overrides `*` (RFC 9110 §12.5.3). Without the field no coding is used: the RFC
/// allows any, but such clients often cannot decode any.
#[derive(Default)]
struct AcceptEncoding {
    by_name: [Option<bool>; ContentCoding::ALL.len()],
    by_star: bool,
}

impl AcceptEncoding {
    fn of(request: &HeaderMap) -> AcceptEncoding {
        let mut accepted = AcceptEncoding::default();
        for element in fields::elements(request, ACCEPT_ENCODING) {
            let (name, is_acceptable) = match element.iter().position(|&byte| byte == b';') {
                Some(at) => (element[..at].trim_ascii(), has_weight(&element[at + 1..])),
                None => (element, true),
            };
            if let Some(coding) = ContentCoding::named(name) {
                let earlier = &mut accepted.by_name[coding as usize];
                *earlier = Some(earlier.unwrap_or(true) && is_acceptable);
            } else if name == b"*" {
                accepted.by_star = is_acceptable;
            }
        }
        accepted
    }

    fn accepts(&self, coding: ContentCoding) -> bool {
        self.by_name[coding as usize].unwrap_or(self.by_star && coding == ContentCoding::Gzip)
    }
}

/// Whether `q=…` is above zero. `( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`; a malformed
/// weight counts as a refusal, because every client can read an uncoded body.
fn has_weight(parameters: &[u8]) -> bool {
    let Some(value) = parameters
        .trim_ascii()
        .split_at_checked(2)
        .and_then(|(name, value)| name.eq_ignore_ascii_case(b"q=").then_some(value))
    else {
        return false;
    };
    let (whole, fraction) = match value {
        [whole] | [whole, b'.'] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return false,
    };
    match whole {
        b'0' => {
            fraction.iter().all(u8::is_ascii_digit) && fraction.iter().any(|&digit| digit != b'0')
        }
        b'1' => fraction.iter().all(|&digit| digit == b'0'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn takes_gzip(lines: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_static(line));
        }
        canonical(&headers).is_some_and(|value| value == "gzip")
    }

    // RFC 9110 §12.5.3.
    #[test]
    fn accepts_gzip_by_name_or_wildcard() {
        for value in [
            "gzip",
            "br, GZIP;q=0.001",
            "deflate, x-gzip ; q=1.000",
            "*",
            "br;q=0, *;q=0.5",
            "gzip;q=1.",
        ] {
            assert!(takes_gzip(&[value]), "{value}");
        }
        assert!(takes_gzip(&["br", "identity, gzip"]));
    }

    // RFC 9110 §12.4.2: a weight of 0 means "not acceptable".
    #[test]
    fn no_gzip_if_absent_malformed_or_weight_zero() {
        for value in [
            "",
            "identity",
            "br, zstd",
            "gzip;q=0",
            "gzip;q=0.000, *",
            "*, gzip;Q=0.",
            "*;q=0",
            "gzip;q=2",
            "gzip;q=0.0001",
            "gzip;q=",
            "gzip;level=1",
            "gzip, gzip;q=0",
            "gzipped",
        ] {
            assert!(!takes_gzip(&[value]), "{value}");
        }
        assert!(!takes_gzip(&[]));
    }

    #[test]
    fn picks_the_best_named_coding() {
        for (value, expected) in [
            ("gzip, deflate, br, zstd", Some(ContentCoding::Brotli)),
            ("zstd, gzip", Some(ContentCoding::Zstd)),
            ("br;q=0, zstd;q=0.1, gzip", Some(ContentCoding::Zstd)),
            ("X-Gzip", Some(ContentCoding::Gzip)),
            ("*", Some(ContentCoding::Gzip)),
            ("deflate", None),
        ] {
            let value = HeaderValue::from_static(value);
            let request = HeaderMap::from_iter([(ACCEPT_ENCODING, value)]);
            assert_eq!(accepted(&request).next(), expected, "{request:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_value_does_not_panic(value in "[gzip*;q=01., \\\\\"]{0,40}") {
            if let Ok(value) = HeaderValue::try_from(value) {
                canonical(&HeaderMap::from_iter([(ACCEPT_ENCODING, value)]));
            }
        }
    }
}
