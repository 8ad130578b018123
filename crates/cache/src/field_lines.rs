//! The fields of a stored head, as one text of exactly their size in HTTP/1 form.
//!
//! A `HeaderMap` of ten fields takes over two kilobytes, and its values keep whole read buffers of
//! the connection alive. The text takes only its own size. HTTP/1 responses copy it unchanged;
//! other callers convert it into a map.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use seawall_policy::freshness::FRESHNESS_FIELDS_SENT;

/// Fields that a response sets or omits itself, whatever the origin sent.
pub static REPLACED_FIELDS: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    HeaderName::from_static("x-request-id"),
];

/// A response adds up to this many fields to a copy of the stored ones. A map with this room is not
/// rebuilt.
pub const FIELDS_ADDED: usize = 10;

/// Every hit checks whether these fields exist, so the result is stored as bits.
static MARKED: [HeaderName; 5] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::DATE,
    HeaderName::from_static("x-cache"),
];

/// The field lines of a stored response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldLines {
    /// Lines of the form `name: value\r\n`: most fields, then [`FRESHNESS_FIELDS_SENT`], then the
    /// replaced ones.
    text: Box<[u8]>,
    /// Offset of the [`FRESHNESS_FIELDS_SENT`] lines.
    lasting_bytes: u32,
    /// Offset of the lines that a response replaces.
    shared_bytes: u32,
    /// Number of lines.
    count: u16,
    /// One bit for each field of [`MARKED`].
    marks: u8,
}

impl FieldLines {
    /// The lines to send in a response that adds these fields: all except the replaced ones, and
    /// except [`FRESHNESS_FIELDS_SENT`] when `added` contains one of those.
    pub fn shared(&self, added: &HeaderMap) -> &[u8] {
        let tells = FRESHNESS_FIELDS_SENT
            .iter()
            .any(|name| added.contains_key(name));
        let end = if tells {
            self.lasting_bytes
        } else {
            self.shared_bytes
        };
        &self.text[..end as usize]
    }

    /// Length of the text in bytes.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Whether a field of this name exists.
    pub fn contains(&self, name: &HeaderName) -> bool {
        match MARKED.iter().position(|marked| marked == name) {
            Some(bit) => self.marks & 1 << bit != 0,
            None => self.get(name).is_some(),
        }
    }

    /// The first value of a field.
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        let mut lines = FieldLineIter::of(&self.text);
        let line = lines.find(|line| line.name == name.as_str().as_bytes())?;
        Some(line.value)
    }

    /// All fields, with room for those that a response adds.
    pub fn to_map(&self) -> HeaderMap {
        self.map_of(&self.text)
    }

    /// As [`FieldLines::shared`], as a map with room for the added fields.
    pub fn shared_map(&self, added: &HeaderMap) -> HeaderMap {
        self.map_of(self.shared(added))
    }

    /// The fields with these names.
    pub fn only(&self, names: &[HeaderName]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in FieldLineIter::of(&self.text) {
            let named = |name: &&HeaderName| name.as_str().as_bytes() == line.name;
            if let Some(name) = names.iter().find(named)
                && let Ok(value) = HeaderValue::from_bytes(line.value)
            {
                map.append(name, value);
            }
        }
        map
    }

    fn map_of(&self, text: &[u8]) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(usize::from(self.count) + FIELDS_ADDED);
        // All values share one copy and do not keep the stored text alive.
        let copy = Bytes::copy_from_slice(text);
        for line in FieldLineIter::of(text) {
            let value = copy.slice(line.value_at..line.value_at + line.value.len());
            // Both came from a map, so they are well-formed.
            if let Ok(name) = HeaderName::from_bytes(line.name)
                && let Ok(value) = HeaderValue::from_maybe_shared(value)
            {
                map.append(name, value);
            }
        }
        map
    }
}

impl From<&HeaderMap> for FieldLines {
    fn from(map: &HeaderMap) -> FieldLines {
        let line_bytes = |(name, value): (&HeaderName, &HeaderValue)| {
            name.as_str().len() + value.len() + b": \r\n".len()
        };
        let mut text = Vec::with_capacity(map.iter().map(line_bytes).sum());
        let mut marks = 0;
        for (name, value) in map {
            if let Some(bit) = MARKED.iter().position(|marked| marked == name) {
                marks |= 1 << bit;
            }
            if !REPLACED_FIELDS.contains(name) && !FRESHNESS_FIELDS_SENT.contains(name) {
                write_field(&mut text, name, value);
            }
        }
        let mut write_all = |names: &[HeaderName]| {
            let start = text.len();
            for name in names {
                for value in map.get_all(name) {
                    write_field(&mut text, name, value);
                }
            }
            // Heads are limited in size, so this always fits.
            u32::try_from(start).unwrap_or(u32::MAX)
        };
        let lasting_bytes = write_all(&FRESHNESS_FIELDS_SENT);
        let shared_bytes = write_all(&REPLACED_FIELDS);
        FieldLines {
            text: text.into(),
            lasting_bytes,
            shared_bytes,
            count: u16::try_from(map.len()).unwrap_or(u16::MAX),
            marks,
        }
    }
}

impl From<HeaderMap> for FieldLines {
    fn from(map: HeaderMap) -> FieldLines {
        FieldLines::from(&map)
    }
}

/// One line of the text.
struct FieldLine<'t> {
    name: &'t [u8],
    value: &'t [u8],
    /// Offset of the value in the text.
    value_at: usize,
}

/// Iterates over the lines of a text.
struct FieldLineIter<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> FieldLineIter<'t> {
    fn of(text: &'t [u8]) -> FieldLineIter<'t> {
        FieldLineIter { text, at: 0 }
    }
}

impl<'t> Iterator for FieldLineIter<'t> {
    type Item = FieldLine<'t>;

    fn next(&mut self) -> Option<FieldLine<'t>> {
        // A name contains no colon, and a value no CR.
        let rest = &self.text[self.at..];
        let colon = memchr::memchr(b':', rest)?;
        let end = colon + memchr::memchr(b'\r', &rest[colon..])?;
        let start = colon + b": ".len();
        let line = FieldLine {
            name: &rest[..colon],
            value: &rest[start..end],
            value_at: self.at + start,
        };
        self.at += end + b"\r\n".len();
        Some(line)
    }
}

/// Writes one field in HTTP/1 form.
pub fn write_field(lines: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    lines.extend_from_slice(name.as_str().as_bytes());
    lines.extend_from_slice(b": ");
    lines.extend_from_slice(value.as_bytes());
    lines.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn shared_lines_omit_fields_set_per_response() {
        let fields = FieldLines::from(map(&[
            ("access-control-allow-origin", "*"),
            ("etag", "\"a: b\""),
            ("x-request-id", "7"),
            ("x-empty", ""),
        ]));
        let nothing = HeaderMap::new();
        assert_eq!(fields.shared(&nothing), b"etag: \"a: b\"\r\nx-empty: \r\n");
        let shared = map(&[("etag", "\"a: b\""), ("x-empty", "")]);
        assert_eq!(fields.shared_map(&nothing), shared);
        assert_eq!(fields.to_map().len(), 4);
    }

    #[test]
    fn omits_stored_freshness_fields_when_response_sets_its_own() {
        let fields = FieldLines::from(map(&[
            ("cache-control", "max-age=3"),
            ("etag", "1"),
            ("cdn-cache-control", "max-age=60"),
            ("x-request-id", "7"),
        ]));
        let own = map(&[("cache-control", "max-age=9")]);
        assert_eq!(fields.shared(&own), b"etag: 1\r\n");
        assert_eq!(fields.shared_map(&HeaderMap::new()).len(), 3);
    }

    #[test]
    fn finds_marked_and_unmarked_fields() {
        let fields = FieldLines::from(map(&[("date", "then"), ("etag", "1"), ("x-cache", "HIT")]));
        for name in [header::DATE, header::ETAG, MARKED[4].clone()] {
            assert!(fields.contains(&name), "{name}");
        }
        for name in [header::ACCESS_CONTROL_ALLOW_CREDENTIALS, header::AGE] {
            assert!(!fields.contains(&name), "{name}");
        }
        assert_eq!(fields.get(&header::ETAG), Some(&b"1"[..]));
        let only = fields.only(&[header::ETAG, header::AGE]);
        assert_eq!(only, map(&[("etag", "1")]));
    }

    #[test]
    fn does_not_keep_the_read_buffer_of_a_value_alive() {
        let buffer = Bytes::from(b"max-age=1 and all the rest of what was read".to_vec());
        let value = HeaderValue::from_maybe_shared(buffer.slice(..9)).unwrap();
        let fields = FieldLines::from(HeaderMap::from_iter([(header::CACHE_CONTROL, value)]));
        assert!(buffer.is_unique());
        assert_eq!(fields.text_bytes(), b"cache-control: max-age=1\r\n".len());
    }

    proptest! {
        #[test]
        fn header_map_round_trips_through_text(
            fields in proptest::collection::vec(
                ("[!#$a-z0-9-]{1,12}|set-cookie|date|x-request-id", "[ -~\u{80}-\u{ff}]{0,20}"),
                0..12,
            ),
        ) {
            let mut map = HeaderMap::new();
            for (name, value) in &fields {
                if let (Ok(name), Ok(value)) = (
                    HeaderName::try_from(name),
                    HeaderValue::from_bytes(value.as_bytes()),
                ) {
                    map.append(name, value);
                }
            }
            prop_assert_eq!(FieldLines::from(&map).to_map(), map);
        }
    }
}
