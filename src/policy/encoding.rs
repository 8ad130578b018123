//! Which content coding can the viewer read? Reduced to two forms, so that variants stay few.

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

use super::fields;

/// The canonical `Accept-Encoding` to send upstream and to tell variants apart: `gzip` when the
/// viewer takes it (by name or `*`, q > 0), nothing otherwise.
///
/// A refusal by name beats `*` (RFC 9110 §12.5.3). A viewer that sends no field at all gets no
/// coding: the RFC would allow any, but such viewers tend to be the ones that read none.
pub fn canonical(request: &HeaderMap) -> Option<HeaderValue> {
    let mut by_name = None;
    let mut by_star = false;
    for element in fields::elements(request, ACCEPT_ENCODING) {
        let (coding, wanted) = match element.iter().position(|&byte| byte == b';') {
            Some(at) => (element[..at].trim_ascii(), has_weight(&element[at + 1..])),
            None => (element, true),
        };
        // RFC 9110 §8.4.1.3: `x-gzip` is the same coding.
        if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
            by_name = Some(by_name.unwrap_or(true) && wanted);
        } else if coding == b"*" {
            by_star = wanted;
        }
    }
    by_name
        .unwrap_or(by_star)
        .then(|| HeaderValue::from_static("gzip"))
}

/// Is `q=…` above zero? `( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`; what is malformed
/// counts as a refusal, because an uncoded body can always be read.
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
    fn gzip_by_name_or_star() {
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
    fn a_refusal_is_a_refusal() {
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

    proptest! {
        #[test]
        fn no_value_panics(value in "[gzip*;q=01., \\\\\"]{0,40}") {
            if let Ok(value) = HeaderValue::try_from(value) {
                canonical(&HeaderMap::from_iter([(ACCEPT_ENCODING, value)]));
            }
        }
    }
}
