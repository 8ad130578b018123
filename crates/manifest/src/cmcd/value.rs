//! Parses the values of CMCD (CTA-5004 §3.2): the forms, not the keys.

use std::time::Duration;

use percent_encoding::percent_decode_str;

/// Far more pairs than there are keys.
const PAIRS_MAX: usize = 64;

/// A value as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CmcdValue<'a> {
    /// The key stands alone.
    Bare,
    /// A number, a token, or other unquoted text.
    Unquoted(&'a str),
    /// The text between the quotes, including escapes.
    Quoted(&'a str),
}

/// Pairs `key=value`, separated by commas.
pub(super) struct CmcdPairs<'a> {
    rest: &'a str,
    /// How many more pairs are read.
    remaining: usize,
}

impl<'a> CmcdPairs<'a> {
    pub(super) fn of(text: &'a str) -> CmcdPairs<'a> {
        CmcdPairs {
            rest: text,
            remaining: PAIRS_MAX,
        }
    }
}

impl<'a> Iterator for CmcdPairs<'a> {
    type Item = (&'a str, CmcdValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        self.rest = self.rest.trim_ascii_start();
        let end = self.rest.find([',', '=']).unwrap_or(self.rest.len());
        let (key, rest) = self.rest.split_at(end);
        let (value, rest) = match rest.strip_prefix('=') {
            None => (CmcdValue::Bare, rest),
            Some(rest) => value(rest)?,
        };
        // Text between a closing quote and the next comma is ignored.
        let next = rest.find(',').map_or("", |comma| &rest[comma + 1..]);
        if key.is_empty() && rest.is_empty() {
            return None;
        }
        self.rest = next;
        Some((key.trim_ascii(), value))
    }
}

/// The value at the start, and the rest. An unclosed quote consumes the rest.
fn value(text: &str) -> Option<(CmcdValue<'_>, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, rest) = quoted.split_at(closing_quote(quoted)?);
        return Some((CmcdValue::Quoted(value), &rest[1..]));
    }
    let (value, rest) = text.split_at(text.find(',').unwrap_or(text.len()));
    Some((CmcdValue::Unquoted(value.trim_ascii()), rest))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

impl CmcdValue<'_> {
    /// A bare key is true; some players write it out.
    pub(super) fn is_true(self) -> bool {
        matches!(self, CmcdValue::Bare | CmcdValue::Unquoted("true" | "?1"))
    }

    /// A number; CMCD rounds them to integers.
    pub(super) fn number(self) -> Option<u32> {
        let digits = self.token()?;
        let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        all_digits.then(|| digits.parse().ok())?
    }

    pub(super) fn millis(self) -> Option<Duration> {
        self.number()
            .map(|count| Duration::from_millis(count.into()))
    }

    /// A non-negative decimal number.
    pub(super) fn decimal(self) -> Option<f32> {
        let text = self.token()?;
        let has_only_digits = text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number: f32 = text.parse().ok().filter(|_| has_only_digits)?;
        number.is_finite().then_some(number)
    }

    /// An unquoted token; quotes are tolerated.
    pub(super) fn token(&self) -> Option<&str> {
        match self {
            CmcdValue::Unquoted(text) | CmcdValue::Quoted(text) => Some(text),
            CmcdValue::Bare => None,
        }
    }

    /// Quoted text; missing quotes are tolerated. Not empty, no control characters, at most
    /// `chars_max` characters.
    pub(super) fn text(self, chars_max: usize) -> Option<String> {
        let text = match self {
            CmcdValue::Bare => return None,
            CmcdValue::Unquoted(text) => text.to_owned(),
            CmcdValue::Quoted(text) => unescaped(text),
        };
        let fits = !text.is_empty() && text.chars().count() <= chars_max;
        (fits && !text.chars().any(char::is_control)).then_some(text)
    }

    /// Percent-encoded text, decoded.
    pub(super) fn reference(self, chars_max: usize) -> Option<String> {
        let text = decoded(&self.text(chars_max)?)?;
        (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
    }
}

fn unescaped(text: &str) -> String {
    let mut unescaped = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => unescaped.extend(letters.next()),
            letter => unescaped.push(letter),
        }
    }
    unescaped
}

/// Percent-decodes; `None` if a `%` begins no escape, or the result is not UTF-8.
pub(super) fn decoded(text: &str) -> Option<String> {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    // Each escape is two bytes shorter when decoded; a `%` that begins none is kept.
    let is_well_formed = text.len() - bytes.len() == 2 * text.matches('%').count();
    String::from_utf8(bytes).ok().filter(|_| is_well_formed)
}
