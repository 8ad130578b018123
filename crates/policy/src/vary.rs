//! Parses `Vary` and computes the values that separate variants.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ORIGIN, VARY};
use http::{HeaderMap, HeaderName};

use super::fields;

/// A response that varies on more fields than this counts as `Vary: *`.
const NAMES_MAX: usize = 16;

/// The selecting header fields of a response, by `Vary` and its content coding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// One response for all requests.
    Nothing,
    /// These request fields: sorted, lower case, without duplicates.
    On(Vec<HeaderName>),
    /// `*`: never stored. A malformed `Vary` counts as `*`.
    Everything,
}

impl Vary {
    /// Reads a response's headers. A `Content-Encoding` without `Vary: Accept-Encoding` counts as
    /// if it had it, because a coded response must not reach a viewer that cannot decode it.
    /// `Origin` is left out because the shield never forwards it, so its value was the same for all
    /// requests.
    pub fn of(response: &HeaderMap) -> Vary {
        let mut names: Vec<HeaderName> = Vec::new();
        for element in fields::elements(response, VARY) {
            // RFC 9110 §12.5.5: `*` anywhere means that more than header fields took part. It is a
            // token, so it would parse as a field name.
            let name = match HeaderName::from_bytes(element) {
                Ok(name) if element != b"*" => name,
                _ => return Vary::Everything,
            };
            if name != ORIGIN && !names.contains(&name) {
                if names.len() == NAMES_MAX {
                    return Vary::Everything;
                }
                names.push(name);
            }
        }
        if is_coded(response) && !names.contains(&ACCEPT_ENCODING) {
            names.push(ACCEPT_ENCODING);
        }
        if names.is_empty() {
            return Vary::Nothing;
        }
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        Vary::On(names)
    }

    /// The same for a request without `Accept-Encoding`: it too was the same for all requests. Does
    /// not apply if the response is coded anyway.
    pub fn of_uncoded_request(response: &HeaderMap) -> Vary {
        match Vary::of(response) {
            Vary::On(mut names) if !is_coded(response) => {
                names.retain(|name| name != ACCEPT_ENCODING);
                if names.is_empty() {
                    Vary::Nothing
                } else {
                    Vary::On(names)
                }
            }
            vary => vary,
        }
    }

    /// The values of the selecting fields in an upstream request (already canonical),
    /// length-framed. Two requests share a variant exactly if these are equal.
    ///
    /// Several lines of a field are one value (RFC 9111 §4.1); an absent field differs from an
    /// empty one.
    pub fn values(names: &[HeaderName], upstream: &HeaderMap) -> Vec<u8> {
        let mut framed = Vec::with_capacity(names.len() * 16);
        for name in names {
            let mut lines = upstream.get_all(name).into_iter();
            let Some(first) = lines.next() else {
                framed.push(0);
                continue;
            };
            framed.push(1);
            let length_at = framed.len();
            framed.extend_from_slice(&[0; 8]);
            framed.extend_from_slice(first.as_bytes());
            for line in lines {
                framed.extend_from_slice(b", ");
                framed.extend_from_slice(line.as_bytes());
            }
            let length = (framed.len() - length_at - 8) as u64;
            framed[length_at..length_at + 8].copy_from_slice(&length.to_be_bytes());
        }
        framed
    }
}

fn is_coded(response: &HeaderMap) -> bool {
    fields::elements(response, CONTENT_ENCODING)
        .any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::{COOKIE, USER_AGENT};
    use proptest::prelude::*;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.append(name, value);
            }
        }
        headers
    }

    #[test]
    fn vary_names_are_sorted_and_deduplicated() {
        let response = headers(&[
            (VARY, "User-Agent, accept-encoding"),
            (VARY, "ORIGIN, user-agent, cookie"),
        ]);
        let expected = vec![ACCEPT_ENCODING, COOKIE, USER_AGENT];
        assert_eq!(Vary::of(&response), Vary::On(expected));
        assert_eq!(Vary::of(&HeaderMap::new()), Vary::Nothing);
        assert_eq!(Vary::of(&headers(&[(VARY, "Origin")])), Vary::Nothing);
    }

    // RFC 9111 §4.1: a stored response with `*` always fails to match.
    #[test]
    fn vary_with_star_malformed_or_too_many_names_is_everything() {
        for value in ["*", "accept, *", "a b", "\"x\"", "é"] {
            assert_eq!(Vary::of(&headers(&[(VARY, value)])), Vary::Everything);
        }
        let many: Vec<String> = (0..=NAMES_MAX).map(|n| format!("x-{n}")).collect();
        let many = headers(&[(VARY, &many.join(","))]);
        assert_eq!(Vary::of(&many), Vary::Everything);
    }

    #[test]
    fn encoded_body_varies_on_accept_encoding() {
        let coded = headers(&[(CONTENT_ENCODING, "gzip")]);
        assert_eq!(Vary::of(&coded), Vary::On(vec![ACCEPT_ENCODING]));
        let plain = headers(&[(CONTENT_ENCODING, "identity")]);
        assert_eq!(Vary::of(&plain), Vary::Nothing);
    }

    #[test]
    fn identity_response_does_not_vary_on_accept_encoding() {
        let plain = headers(&[(VARY, "Origin, Accept-Encoding")]);
        assert_eq!(Vary::of_uncoded_request(&plain), Vary::Nothing);
        let more = headers(&[(VARY, "accept-encoding, cookie")]);
        assert_eq!(Vary::of_uncoded_request(&more), Vary::On(vec![COOKIE]));
        let coded = headers(&[(VARY, "Accept-Encoding"), (CONTENT_ENCODING, "gzip")]);
        assert_eq!(
            Vary::of_uncoded_request(&coded),
            Vary::On(vec![ACCEPT_ENCODING])
        );
        let star = headers(&[(VARY, "*")]);
        assert_eq!(Vary::of_uncoded_request(&star), Vary::Everything);
    }

    // RFC 9111 §4.1: absent fields match only absent ones; lines of one field may be combined.
    #[test]
    fn variant_values_are_equal_if_combined_fields_are() {
        let names = [COOKIE, USER_AGENT];
        let values = |lines: &[(HeaderName, &str)]| Vary::values(&names, &headers(lines));
        assert_eq!(
            values(&[(COOKIE, "a"), (COOKIE, "b")]),
            values(&[(COOKIE, "a, b")])
        );
        assert_ne!(values(&[]), values(&[(COOKIE, "")]));
        assert_ne!(values(&[(COOKIE, "a")]), values(&[(USER_AGENT, "a")]));
    }

    proptest! {
        #[test]
        fn variant_values_do_not_collide(
            [one, two, three, four] in proptest::array::uniform4(
                proptest::option::of("[!-~][ -~]{0,12}")
            ),
        ) {
            let names = [COOKIE, USER_AGENT];
            let of = |first: &Option<String>, second: &Option<String>| {
                let lines: Vec<(HeaderName, &str)> = names
                    .iter()
                    .cloned()
                    .zip([first, second])
                    .filter_map(|(name, value)| Some((name, value.as_deref()?)))
                    .collect();
                Vary::values(&names, &headers(&lines))
            };
            let same = (&one, &two) == (&three, &four);
            prop_assert_eq!(of(&one, &two) == of(&three, &four), same);
        }

        #[test]
        fn arbitrary_vary_does_not_panic(value in proptest::collection::vec(0x20_u8..=0xff, 0..100)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                Vary::of(&HeaderMap::from_iter([(VARY, value)]));
            }
        }
    }
}
