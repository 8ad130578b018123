//! Splits field values into elements (RFC 9110 §5.6): lists, quoted strings and dates. It does not
//! interpret any field.

use std::time::SystemTime;

use http::header::{AsHeaderName, GetAll};
use http::{HeaderMap, HeaderValue};

/// The elements of a comma-separated field, over all of its lines: trimmed, never empty. Commas
/// inside quoted strings do not separate.
pub(super) fn elements(
    headers: &HeaderMap,
    name: impl AsHeaderName,
) -> impl Iterator<Item = &[u8]> {
    elements_of(headers.get_all(name))
}

/// The elements of all lines of a list field.
pub(super) fn elements_of(lines: GetAll<'_, HeaderValue>) -> impl Iterator<Item = &[u8]> {
    lines
        .into_iter()
        .flat_map(|line| split(line.as_bytes(), b','))
}

/// Whether a word is among the elements, ignoring case.
pub fn lists(headers: &HeaderMap, name: impl AsHeaderName, word: &[u8]) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(word))
}

/// The value of a field that may occur once; `None` if it is absent or repeated.
pub(super) fn single(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(name).into_iter();
    let only = lines.next()?;
    lines.next().is_none().then_some(only)
}

/// The date in a field that may occur once; `None` if it is absent, repeated or invalid.
pub(super) fn date(headers: &HeaderMap, name: impl AsHeaderName) -> Option<SystemTime> {
    http_date(single(headers, name)?.to_str().ok()?)
}

/// Parses a date. A wrong day of the week is accepted, because the rest states the time.
pub(super) fn http_date(text: &str) -> Option<SystemTime> {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    if let Ok(date) = httpdate::parse_http_date(text) {
        return Some(date);
    }
    let (day, rest) = text
        .split_once(", ")
        .filter(|(day, _)| DAYS.contains(day))?;
    let mut others = DAYS.into_iter().filter(|other| *other != day);
    others.find_map(|day| httpdate::parse_http_date(&format!("{day}, {rest}")).ok())
}

/// Splits at a delimiter outside quoted strings; elements are trimmed and never empty. An unclosed
/// quote extends to the end.
pub(super) fn split(value: &[u8], delimiter: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        loop {
            let bytes = rest?;
            let end = unquoted(bytes, delimiter);
            rest = bytes.get(end + 1..);
            let element = bytes[..end].trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
    })
}

/// The position of the first delimiter outside a quoted string, or the length.
fn unquoted(bytes: &[u8], delimiter: u8) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, &byte) in bytes.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if quoted && byte == b'\\' {
            escaped = true;
        } else if byte == b'"' {
            quoted = !quoted;
        } else if byte == delimiter && !quoted {
            return at;
        }
    }
    bytes.len()
}

/// An element's name, and what follows the first `=`, if there is one. The name is trimmed, so that
/// a misplaced space cannot hide a restriction. The value is not, so that it stays malformed.
pub(super) fn name_and_value(element: &[u8]) -> (&[u8], Option<&[u8]>) {
    match element.iter().position(|&byte| byte == b'=') {
        Some(at) => (element[..at].trim_ascii(), Some(&element[at + 1..])),
        None => (element, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(value: &[u8]) -> Vec<&str> {
        split(value, b',')
            .filter_map(|part| std::str::from_utf8(part).ok())
            .collect()
    }

    #[test]
    fn accepts_date_with_wrong_weekday() {
        let right = http_date("Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(right.is_some());
        assert_eq!(http_date("Tue, 06 Nov 1994 08:49:37 GMT"), right);
        for text in [
            "0",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
        ] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }

    // RFC 9110 §5.6.1.2: a recipient ignores a reasonable number of empty list elements.
    #[test]
    fn empty_list_elements_are_skipped() {
        assert_eq!(parts(b", a ,, b,\t,"), ["a", "b"]);
        assert!(parts(b" , ,").is_empty());
    }

    // RFC 9110 §5.6.4: within a quoted string commas are text and `\` quotes one character.
    #[test]
    fn commas_in_quoted_strings_do_not_split() {
        assert_eq!(parts(br#"a="x, \", y", b"#), [r#"a="x, \", y""#, "b"]);
        assert_eq!(parts(br#"a, b="open, c"#), ["a", r#"b="open, c"#]);
    }

    #[test]
    fn field_lines_are_combined_into_one_list() {
        let mut headers = HeaderMap::new();
        headers.append("x", HeaderValue::from_static("a, b"));
        headers.append("x", HeaderValue::from_static("c"));
        assert_eq!(elements(&headers, "x").count(), 3);
        assert!(single(&headers, "x").is_none());
    }
}
