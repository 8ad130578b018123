//! Parses `Range` and `If-Range` (RFC 9110 §14) and resolves ranges against a length.

mod multipart;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::header::{DATE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use http::{HeaderMap, HeaderValue};

pub use self::multipart::{Multipart, multipart};
use super::conditional::etag::EntityTag;
use super::fields;

/// The ranges of a `Range` header, before the length is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedRange {
    /// No range, an unknown unit, malformed, or too many: the whole object.
    Whole,
    /// One or more byte ranges, in the order of the request.
    Ranges(Vec<RangeSpec>),
}

/// One requested range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `a-b`, both inclusive.
    Closed(u64, u64),
    /// `a-`.
    From(u64),
    /// `-n`: the last n bytes.
    Suffix(u64),
}

/// One satisfiable range: half-open, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSpan {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// Ranges resolved against a length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvedRange {
    /// 200 with the whole object.
    Whole,
    /// 206 with one span.
    One(ByteSpan),
    /// 206 `multipart/byteranges`.
    Many(Vec<ByteSpan>),
    /// 416 with `Content-Range: bytes */length`.
    Unsatisfiable,
}

/// Parses `Range` (GET only). [`RequestedRange::Whole`] if it is malformed or has more than
/// `ranges_max` ranges.
pub fn requested(request: &HeaderMap, ranges_max: usize) -> RequestedRange {
    if !request.contains_key(RANGE) {
        return RequestedRange::Whole;
    }
    fields::single(request, RANGE)
        .and_then(|value| specs(value.as_bytes(), ranges_max))
        .map_or(RequestedRange::Whole, RequestedRange::Ranges)
}

/// Whether a requested range includes, or may include, bytes at or after `length`.
pub fn reaches(request: &HeaderMap, ranges_max: usize, length: u64) -> bool {
    match requested(request, ranges_max) {
        RequestedRange::Whole => true,
        RequestedRange::Ranges(specs) => specs.iter().any(|spec| match spec {
            RangeSpec::Closed(_, last) => *last >= length,
            RangeSpec::From(_) | RangeSpec::Suffix(_) => true,
        }),
    }
}

/// Whether `If-Range`, if present, matches a stored response. Uses the strong comparison.
pub fn if_range_holds(request: &HeaderMap, stored: &HeaderMap) -> bool {
    if !request.contains_key(IF_RANGE) {
        return true;
    }
    let Some(value) = fields::single(request, IF_RANGE) else {
        return false;
    };
    if let Some(tag) = EntityTag::of(value.as_bytes()) {
        return stored
            .get(ETAG)
            .and_then(|stored_tag| EntityTag::of(stored_tag.as_bytes()))
            .is_some_and(|stored_tag| tag.matches_strongly(stored_tag));
    }
    date_holds(request, stored)
}

/// Resolves ranges against a length. Overlapping ranges become [`ResolvedRange::Whole`].
pub fn resolve(requested: &RequestedRange, length: u64) -> ResolvedRange {
    let RequestedRange::Ranges(specs) = requested else {
        return ResolvedRange::Whole;
    };
    match specs.as_slice() {
        [] => ResolvedRange::Whole,
        [only] => match only.span(length) {
            Some(span) => ResolvedRange::One(span),
            None => only.unsatisfied_at(length),
        },
        several => resolve_several(several, length),
    }
}

/// `bytes a-b/length`.
pub fn content_range(span: ByteSpan, length: u64) -> HeaderValue {
    let last = span.end.saturating_sub(1);
    printed(format!("bytes {}-{last}/{length}", span.start))
}

/// `bytes a-b/*`, for a body whose length is not known yet.
pub fn content_range_so_far(span: ByteSpan) -> HeaderValue {
    let last = span.end.saturating_sub(1);
    printed(format!("bytes {}-{last}/*", span.start))
}

/// `bytes */length`.
pub fn unsatisfied(length: u64) -> HeaderValue {
    printed(format!("bytes */{length}"))
}

/// Parses an origin's `Content-Range: bytes a-b/total`; `None` if malformed or without a total.
pub fn read_content_range(value: &HeaderValue) -> Option<(ByteSpan, u64)> {
    let value = value.as_bytes();
    let (unit, rest) = value.split_at_checked(b"bytes ".len())?;
    if !unit.eq_ignore_ascii_case(b"bytes ") {
        return None;
    }
    let (range, total) = cut(rest, b'/')?;
    let (first, last) = cut(range, b'-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = number(total)?;
    // RFC 9110 §14.4: invalid if it ends before it starts, or past the length.
    let sound = first <= last && last < total;
    sound.then_some((
        ByteSpan {
            start: first,
            end: last + 1,
        },
        total,
    ))
}

impl ByteSpan {
    /// Number of bytes.
    pub fn length(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

impl RangeSpec {
    /// `int-range / suffix-range`. A position above `u64::MAX` counts as `u64::MAX`.
    fn of(text: &[u8]) -> Option<RangeSpec> {
        let (first, last) = cut(text, b'-')?;
        match (first, last) {
            (b"", last) => Some(RangeSpec::Suffix(saturated(last)?)),
            (first, b"") => Some(RangeSpec::From(saturated(first)?)),
            (first, last) => {
                let (first, last) = (saturated(first)?, saturated(last)?);
                // RFC 9110 §14.1.1: invalid if the last position is less than the first.
                (first <= last).then_some(RangeSpec::Closed(first, last))
            }
        }
    }

    /// RFC 9110 §14.1.2: satisfiable if it starts before the end, or is a suffix of at least one
    /// byte.
    fn span(self, length: u64) -> Option<ByteSpan> {
        let (start, end) = match self {
            RangeSpec::Closed(first, last) => (first, last.saturating_add(1).min(length)),
            RangeSpec::From(first) => (first, length),
            RangeSpec::Suffix(count) => (length.saturating_sub(count), length),
        };
        (start < end).then_some(ByteSpan { start, end })
    }

    /// A suffix of an empty object is satisfiable by the RFC, but `Content-Range` cannot express
    /// it.
    fn unsatisfied_at(self, length: u64) -> ResolvedRange {
        match self {
            RangeSpec::Suffix(count) if count > 0 && length == 0 => ResolvedRange::Whole,
            _ => ResolvedRange::Unsatisfiable,
        }
    }
}

/// Overlapping ranges could make the response larger than the object, so the whole object is sent
/// (RFC 9110 §14.2 allows a server to ignore the field).
fn resolve_several(specs: &[RangeSpec], length: u64) -> ResolvedRange {
    let spans: Vec<ByteSpan> = specs.iter().filter_map(|spec| spec.span(length)).collect();
    match spans.as_slice() {
        [] => specs
            .first()
            .map_or(ResolvedRange::Whole, |first| first.unsatisfied_at(length)),
        [only] => ResolvedRange::One(*only),
        _ => {
            let mut sorted = spans.clone();
            sorted.sort_unstable_by_key(|span| span.start);
            let overlap = sorted.windows(2).any(|pair| pair[1].start < pair[0].end);
            if overlap {
                ResolvedRange::Whole
            } else {
                ResolvedRange::Many(spans)
            }
        }
    }
}

/// Parses `bytes=` and a list of ranges; `None` if any part is malformed, or if there are too many.
fn specs(value: &[u8], ranges_max: usize) -> Option<Vec<RangeSpec>> {
    let (unit, set) = cut(value, b'=')?;
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for text in set.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        // RFC 9110 §5.6.1.2: empty elements are ignored.
        if text.is_empty() {
            continue;
        }
        if specs.len() == ranges_max {
            return None;
        }
        specs.push(RangeSpec::of(text)?);
    }
    (!specs.is_empty()).then_some(specs)
}

/// RFC 9110 §13.1.5: a date matches if it equals the stored `Last-Modified` and that is a strong
/// validator. §8.8.2.2 allows a cache to conclude this if `Date` is at least one second later.
fn date_holds(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let (Some(requested), Some(modified), Some(date)) = (
        fields::date(request, IF_RANGE),
        fields::date(stored, LAST_MODIFIED),
        fields::date(stored, DATE),
    ) else {
        return false;
    };
    requested == modified
        && date
            .duration_since(modified)
            .is_ok_and(|apart| apart >= Duration::from_secs(1))
}

/// The parts before and after the first `separator`.
fn cut(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// `1*DIGIT` that fits into 64 bits.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// `1*DIGIT`, or the largest number if it does not fit.
fn saturated(digits: &[u8]) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    all_digits.then(|| number(digits).unwrap_or(u64::MAX))
}

#[expect(clippy::expect_used, reason = "callers print ASCII letters and digits")]
fn printed(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("visible ASCII is a field value")
}
