//! Ranges lie within the object, are not empty, and do not overlap.

#![no_main]

use http::header::{ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use seawall_policy::range::{self, ResolvedRange};

const RANGES_MAX: usize = 8;

fuzz_target!(|input: (u64, &[u8])| {
    let (length, text) = input;
    let mut lines = text.splitn(2, |&byte| byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in [RANGE, IF_RANGE] {
        let value = lines.next().map(HeaderValue::from_bytes);
        headers.extend(value.and_then(Result::ok).map(|value| (name, value)));
    }
    let stored = HeaderMap::from_iter([(ETAG, HeaderValue::from_static("\"a\""))]);
    let _ = range::if_range_holds(&headers, &stored);
    let spans = match range::resolve(&range::requested(&headers, RANGES_MAX), length) {
        ResolvedRange::Whole => return,
        ResolvedRange::Unsatisfiable => {
            let _ = range::unsatisfied(length);
            return;
        }
        ResolvedRange::One(span) => vec![span],
        ResolvedRange::Many(spans) => spans,
    };
    assert!(spans.len() <= RANGES_MAX);
    let sum: u128 = spans.iter().map(|span| u128::from(span.length())).sum();
    assert!(sum <= u128::from(length));
    for span in spans {
        assert!(span.start < span.end && span.end <= length);
        let read = range::read_content_range(&range::content_range(span, length));
        assert_eq!(read, Some((span, length)));
    }
});
