//! Parses the values of tags (RFC 8216 §4.2), without knowing the tags. Accepts more than the RFC:
//! blanks around a value, quoted numbers, durations with an exponent.

use std::time::Duration;

/// A line's tag, and the text after its colon.
pub(crate) fn tag_and_value(line: &str) -> (&str, &str) {
    line.split_once(':').unwrap_or((line, ""))
}

/// The names and values of an attribute list, without quotes.
pub(crate) fn attributes(list: &str) -> Attributes<'_> {
    Attributes { rest: list }
}

/// One value of an attribute list.
pub(crate) fn attribute<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    attributes(list)
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// See [`attributes`]. Ends at an unclosed quote.
pub(crate) struct Attributes<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.rest.as_bytes();
        let equals = bytes.iter().position(|&byte| byte == b'=')?;
        // An item without a value may precede it.
        let name = match bytes[..equals].iter().rposition(|&byte| byte == b',') {
            Some(comma) => &self.rest[comma + 1..equals],
            None => &self.rest[..equals],
        };
        let after = &self.rest[equals + 1..];
        let (value, rest) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        // Text between a closing quote and the comma is ignored.
        self.rest = rest.split_once(',').map_or("", |(_, rest)| rest);
        Some((name.trim_ascii(), value.trim_ascii()))
    }
}

/// A decimal integer.
pub(crate) fn count(text: &str) -> Option<u64> {
    let digits = text.trim_ascii();
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok()).flatten()
}

/// A decimal number of seconds, limited so that no arithmetic on it can overflow.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    const SECONDS_MAX: Duration = Duration::from_hours(24);
    let text = text.trim_ascii();
    if let Some(seconds) = plain_seconds(text) {
        return Some(seconds.min(SECONDS_MAX));
    }
    let count: f64 = text.parse().ok()?;
    (0.0..=f64::MAX)
        .contains(&count)
        .then(|| Duration::from_secs_f64(count.min(SECONDS_MAX.as_secs_f64())))
}

/// The common form, parsed without floating point: at most nine digits on either side.
fn plain_seconds(text: &str) -> Option<Duration> {
    let mut whole = None;
    let mut number = 0_u32;
    let mut digits = 0;
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' if digits < 9 => {
                number = number * 10 + u32::from(byte - b'0');
                digits += 1;
            }
            b'.' if whole.is_none() && digits > 0 => {
                whole = Some(number);
                (number, digits) = (0, 0);
            }
            _ => return None,
        }
    }
    match whole {
        _ if digits == 0 => None,
        None => Some(Duration::from_secs(u64::from(number))),
        Some(whole) => {
            let nanos = number * 10_u32.pow(9 - digits);
            Some(Duration::new(u64::from(whole), nanos))
        }
    }
}

/// `EXT-X-BYTERANGE` (RFC 8216 §4.3.2.2): `length[@offset]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) length: u64,
    pub(crate) offset: Option<u64>,
}

impl ByteRange {
    pub(crate) fn of(text: &str) -> Option<ByteRange> {
        let (length, offset) = match text.split_once('@') {
            Some((length, offset)) => (length, Some(count(offset)?)),
            None => (text, None),
        };
        let length = count(length)?;
        Some(ByteRange { length, offset })
    }
}

/// The end and the resource of the last range: a range without an offset continues there.
#[derive(Default)]
pub(crate) struct RangeEnd<'a> {
    uri: &'a str,
    end: u64,
}

impl<'a> RangeEnd<'a> {
    /// The offset of a range, if it is known.
    pub(crate) fn offset(&mut self, uri: &'a str, range: ByteRange) -> Option<u64> {
        let continues_range = self.uri == uri && !uri.is_empty();
        let offset = range.offset.or(continues_range.then_some(self.end));
        let end = offset.and_then(|offset| offset.checked_add(range.length));
        *self = end.map_or_else(RangeEnd::default, |end| RangeEnd { uri, end });
        end.and(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_attribute_lists_leniently() {
        let read = |list| attributes(list).collect::<Vec<_>>();
        assert_eq!(
            read("METHOD=AES-128,URI=\"k,=1.key\",IV=0x1"),
            [("METHOD", "AES-128"), ("URI", "k,=1.key"), ("IV", "0x1")]
        );
        assert_eq!(
            read(" A = 1 , B = 2,C,D=\"\"x,E=,F=\"open"),
            [("A", "1"), ("B", "2"), ("D", ""), ("E", "")]
        );
        assert_eq!(read(""), []);
        assert_eq!(read("=,=\"\""), [("", ""), ("", "")]);
        assert_eq!(attribute("X=\"Y=9,\",Y=3", "Y"), Some("3"));
    }

    #[test]
    fn parses_only_unsigned_decimal_integers() {
        assert_eq!(count(" 17 "), Some(17));
        for text in ["", "-1", "+1", "1.0", "x", "18446744073709551616"] {
            assert_eq!(count(text), None, "{text}");
        }
    }

    #[test]
    fn decimal_durations_are_exact_and_capped_at_a_day() {
        let nanos = |text| seconds(text).map(|seconds| seconds.as_nanos());
        assert_eq!(nanos("6"), Some(6_000_000_000));
        assert_eq!(nanos("0.33334"), Some(333_340_000));
        assert_eq!(nanos(" 6.006 "), Some(6_006_000_000));
        assert_eq!(nanos("6.0060000000001"), Some(6_006_000_000));
        assert_eq!(nanos(".5"), Some(500_000_000));
        assert_eq!(nanos("6."), Some(6_000_000_000));
        assert_eq!(nanos("1e1"), Some(10_000_000_000));
        assert_eq!(seconds("999999999"), Some(Duration::from_hours(24)));
        assert_eq!(seconds("1e300"), Some(Duration::from_hours(24)));
        for text in ["", ".", "-1", "NaN", "inf", "-inf", "x", "1.2.3", "6,"] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }

    #[test]
    fn byterange_without_offset_continues_the_previous_one() {
        let mut last = RangeEnd::default();
        let range = |text| ByteRange::of(text).unwrap();
        assert_eq!(last.offset("a", range("10")), None);
        assert_eq!(last.offset("a", range("10@5")), Some(5));
        assert_eq!(last.offset("a", range(" 7 ")), Some(15));
        assert_eq!(last.offset("b", range("7")), None);
        assert_eq!(last.offset("a", range("7")), None);
        assert_eq!(last.offset("a", range("7@18446744073709551615")), None);
        for text in ["", "@1", "1@", "a@1", "-1"] {
            assert_eq!(ByteRange::of(text), None, "{text}");
        }
    }
}
