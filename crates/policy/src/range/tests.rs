//! Tests the requirements of RFC 9110 §14 on ranges, and malicious ranges.

use proptest::prelude::*;

use super::*;

const MAX: usize = 8;

fn request(range: &str) -> HeaderMap {
    HeaderValue::from_str(range)
        .map(|value| HeaderMap::from_iter([(RANGE, value)]))
        .unwrap_or_default()
}

fn ask(range: &str) -> RequestedRange {
    requested(&request(range), MAX)
}

fn answer(range: &str, length: u64) -> ResolvedRange {
    resolve(&ask(range), length)
}

fn span(start: u64, end: u64) -> ByteSpan {
    ByteSpan { start, end }
}

fn one(start: u64, end: u64) -> ResolvedRange {
    ResolvedRange::One(span(start, end))
}

// §14.1.2, and the unit is case-insensitive (§14.1).
#[test]
fn resolves_single_ranges() {
    assert_eq!(answer("bytes=0-499", 10_000), one(0, 500));
    assert_eq!(answer("Bytes=9500-", 10_000), one(9500, 10_000));
    assert_eq!(answer("BYTES=-500", 10_000), one(9500, 10_000));
    assert_eq!(answer("bytes=9999-20000", 10_000), one(9999, 10_000));
    // "If the selected representation is shorter than the suffix, the entire is used."
    assert_eq!(answer("bytes=-20000", 10_000), one(0, 10_000));
    assert_eq!(answer("bytes= , 0-0 ,\t,", 1), one(0, 1));
}

// §14.2: an invalid or unknown specifier is ignored.
#[test]
fn malformed_range_is_ignored() {
    for range in [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=0-1,5-2",
        "bytes=0 - 1",
        "bytes =0-1",
        "bytes=0-1;x",
        "bytes=+0-1",
        "bytes=--1",
        "bytes=0x1-2",
        "bytes=1-2-3",
        "items=0-1",
        "bytes 0-1",
        "none",
    ] {
        assert_eq!(ask(range), RequestedRange::Whole, "{range}");
    }
    let mut twice = request("bytes=0-1");
    twice.append(RANGE, HeaderValue::from_static("bytes=2-3"));
    assert_eq!(requested(&twice, MAX), RequestedRange::Whole);
    assert_eq!(requested(&HeaderMap::new(), MAX), RequestedRange::Whole);
}

// §15.5.17 and §14.1.2: no range starts within the object, or the suffix is empty.
#[test]
fn range_outside_the_object_is_unsatisfiable() {
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=11-,-0"] {
        assert_eq!(answer(range, 10), ResolvedRange::Unsatisfiable, "{range}");
    }
    assert_eq!(answer("bytes=0-", 0), ResolvedRange::Unsatisfiable);
    assert_eq!(answer("bytes=-5", 0), ResolvedRange::Whole);
}

#[test]
fn huge_range_numbers_are_clamped_or_unsatisfiable() {
    assert_eq!(answer("bytes=0-18446744073709551616", 10), one(0, 10));
    assert_eq!(answer("bytes=0-18446744073709551615", 10), one(0, 10));
    assert_eq!(answer("bytes=-99999999999999999999999", 10), one(0, 10));
    assert_eq!(
        answer("bytes=18446744073709551616-", 10),
        ResolvedRange::Unsatisfiable
    );
}

#[test]
fn resolves_multiple_ranges_in_request_order() {
    let expected = vec![span(5, 7), span(0, 1), span(9, 10)];
    assert_eq!(
        answer("bytes=5-6,0-0,-1", 10),
        ResolvedRange::Many(expected)
    );
    // §15.3.7.2: if only one of several ranges is left, it is sent alone.
    assert_eq!(answer("bytes=5-6,100-", 10), one(5, 7));
}

// §14.2: a server may ignore sets of overlapping or many small ranges.
#[test]
fn overlapping_or_many_ranges_get_the_whole_object() {
    for range in [
        "bytes=0-5,3-9",
        "bytes=0-,0-",
        "bytes=0-0,-10",
        "bytes=1-1,1-1",
    ] {
        assert_eq!(answer(range, 10), ResolvedRange::Whole, "{range}");
    }
    let many: Vec<String> = (0..1000).map(|n| format!("{n}-{n}")).collect();
    assert_eq!(
        ask(&format!("bytes={}", many.join(","))),
        RequestedRange::Whole
    );
    assert_eq!(requested(&request("bytes=0-0"), 0), RequestedRange::Whole);
}

fn if_range(value: &'static str, stored: &[(http::HeaderName, &'static str)]) -> bool {
    let request = HeaderMap::from_iter([(IF_RANGE, HeaderValue::from_static(value))]);
    let stored = stored
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
        .collect();
    if_range_holds(&request, &stored)
}

// §13.1.5: strong comparison for tags.
#[test]
fn if_range_needs_strong_etag_match() {
    assert!(if_range("\"a\"", &[(ETAG, "\"a\"")]));
    assert!(!if_range("\"b\"", &[(ETAG, "\"a\"")]));
    assert!(!if_range("W/\"a\"", &[(ETAG, "W/\"a\"")]));
    assert!(!if_range("\"a\"", &[(ETAG, "W/\"a\"")]));
    assert!(!if_range("\"a\"", &[]));
    assert!(!if_range("a", &[(ETAG, "a")]));
    assert!(if_range_holds(&HeaderMap::new(), &HeaderMap::new()));
}

// §13.1.5: an exact match of a date that is a strong validator (§8.8.2.2).
#[test]
fn if_range_needs_exact_strong_date() {
    const MODIFIED: &str = "Tue, 15 Nov 1994 12:45:26 GMT";
    const SECOND_LATER: &str = "Tue, 15 Nov 1994 12:45:27 GMT";
    let dated = |date| [(LAST_MODIFIED, MODIFIED), (DATE, date)];
    assert!(if_range(MODIFIED, &dated(SECOND_LATER)));
    assert!(!if_range(MODIFIED, &dated(MODIFIED)));
    assert!(!if_range(SECOND_LATER, &dated(SECOND_LATER)));
    assert!(!if_range(MODIFIED, &[(LAST_MODIFIED, MODIFIED)]));
}

// §14.4.
#[test]
fn content_range_round_trips_and_rejects_malformed() {
    let written = content_range(span(42, 1234), 1234);
    assert_eq!(written, "bytes 42-1233/1234");
    assert_eq!(read_content_range(&written), Some((span(42, 1234), 1234)));
    assert_eq!(unsatisfied(47), "bytes */47");
    for bad in [
        "bytes */47",
        "bytes 0-1/*",
        "bytes 2-1/5",
        "bytes 0-5/5",
        "bytes 0-0/0",
        "bytes 0-1",
        "bytes=0-1/5",
        "items 0-1/5",
        "bytes 0-18446744073709551616/18446744073709551617",
        "bytes +0-1/5",
        "",
    ] {
        assert_eq!(
            read_content_range(&HeaderValue::from_static(bad)),
            None,
            "{bad}"
        );
    }
}

fn body(framing: &Multipart, spans: &[ByteSpan], object: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (place, delimiter) in framing.delimiters.iter().enumerate() {
        body.extend_from_slice(delimiter);
        if let Some(span) = spans.get(place) {
            let from_start = object
                .iter()
                .skip(usize::try_from(span.start).unwrap_or(usize::MAX));
            body.extend(from_start.take(usize::try_from(span.length()).unwrap_or(0)));
        }
    }
    body
}

// §14.6, RFC 2046 §5.1.1.
#[test]
fn multipart_byteranges_are_framed() {
    let spans = [span(0, 2), span(8, 10)];
    let part_type = HeaderValue::from_static("video/mp2t");
    let framing = multipart(&spans, 10, Some(&part_type), "B");
    assert_eq!(framing.content_type, "multipart/byteranges; boundary=B");
    let expected = "--B\r\nContent-Type: video/mp2t\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
        \r\n--B\r\nContent-Type: video/mp2t\r\nContent-Range: bytes 8-9/10\r\n\r\n89\
        \r\n--B--\r\n";
    let body = body(&framing, &spans, b"0123456789");
    assert_eq!(String::from_utf8_lossy(&body), expected);
    assert_eq!(framing.length, body.len() as u64);
}

fn any_spec() -> impl Strategy<Value = RangeSpec> {
    let near = prop_oneof![4 => 0_u64..120, 1 => any::<u64>()];
    (near.clone(), near, 0..3).prop_map(|(one, other, shape)| match shape {
        0 => RangeSpec::Closed(one.min(other), one.max(other)),
        1 => RangeSpec::From(one),
        _ => RangeSpec::Suffix(one),
    })
}

proptest! {
    #[test]
    fn arbitrary_range_does_not_panic(range in "(bytes)?[=a-z0-9, \\-]{0,60}", length in any::<u64>()) {
        resolve(&ask(&range), length);
        if let Ok(value) = HeaderValue::from_str(&range) {
            read_content_range(&value);
        }
    }

    #[test]
    fn resolved_ranges_lie_within_the_object(
        specs in proptest::collection::vec(any_spec(), 0..6),
        length in prop_oneof![0_u64..200, any::<u64>()],
    ) {
        let spans = match resolve(&RequestedRange::Ranges(specs), length) {
            ResolvedRange::One(only) => vec![only],
            ResolvedRange::Many(spans) => {
                prop_assert!(spans.len() > 1);
                spans
            }
            ResolvedRange::Whole | ResolvedRange::Unsatisfiable => Vec::new(),
        };
        let mut sum = 0_u64;
        for span in spans {
            prop_assert!(span.start < span.end && span.end <= length);
            sum = sum.saturating_add(span.length());
        }
        prop_assert!(sum <= length);
    }

    #[test]
    fn formatted_ranges_parse_back(specs in proptest::collection::vec(any_spec(), 1..MAX)) {
        let text: Vec<String> = specs
            .iter()
            .map(|spec| match spec {
                RangeSpec::Closed(first, last) => format!("{first}-{last}"),
                RangeSpec::From(first) => format!("{first}-"),
                RangeSpec::Suffix(count) => format!("-{count}"),
            })
            .collect();
        prop_assert_eq!(ask(&format!("bytes={}", text.join(", "))), RequestedRange::Ranges(specs));
    }

    #[test]
    fn multipart_body_has_the_stated_length(
        cuts in proptest::collection::btree_set(0_u64..300, 2..12),
        part_type in proptest::option::of("[a-z]{1,8}/[a-z]{1,8}"),
        boundary in "[A-Za-z0-9]{1,70}",
    ) {
        let cuts: Vec<u64> = cuts.into_iter().collect();
        let spans: Vec<ByteSpan> = cuts.windows(2).map(|pair| span(pair[0], pair[1])).collect();
        let part_type = part_type.and_then(|text| HeaderValue::try_from(text).ok());
        let framing = multipart(&spans, 300, part_type.as_ref(), &boundary);
        prop_assert_eq!(framing.delimiters.len(), spans.len() + 1);
        let body = body(&framing, &spans, &[b'x'; 300]);
        prop_assert_eq!(framing.length, body.len() as u64);
    }
}
