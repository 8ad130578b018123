//! Texts separated by a character. Tokens are long, and each request is searched for one: by
//! vectors, not by bytes.

use std::ops::Range;

use memchr::memchr;

/// The part before the first `separator`, and the part after it. It must be ASCII.
pub(crate) fn split_once(text: &str, separator: u8) -> Option<(&str, &str)> {
    debug_assert!(
        separator.is_ascii(),
        "other bytes may lie within a character"
    );
    let place = memchr(separator, text.as_bytes())?;
    Some((&text[..place], &text[place + 1..]))
}

/// Where the parts between the separators are: one part more than there are separators.
pub(crate) fn parts(text: &[u8], separator: u8) -> impl Iterator<Item = Range<usize>> {
    let mut start = Some(0);
    std::iter::from_fn(move || {
        let begin = start?;
        let end = memchr(separator, &text[begin..]).map(|len| begin + len);
        start = end.map(|end| end + 1);
        Some(begin..end.unwrap_or(text.len()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn splits_like_the_standard_library(text in "[&é=a]{0,8}") {
            let parts = parts(text.as_bytes(), b'&').map(|part| &text[part]);
            prop_assert!(parts.eq(text.split('&')));
            prop_assert_eq!(split_once(&text, b'='), text.split_once('='));
        }
    }
}
