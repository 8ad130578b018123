//! Parses any CMCD, from a query and from a header.

#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use seawall_manifest::{Cmcd, strip_query};

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    if let Ok(line) = HeaderValue::from_bytes(data) {
        headers.insert("cmcd-session", line);
    }
    let _ = Cmcd::of(None, &headers);
    if let Ok(query) = std::str::from_utf8(data) {
        let _ = Cmcd::of(Some(&format!("CMCD={query}")), &headers);
        assert_eq!(Cmcd::of(Some(&strip_query(query)), &HeaderMap::new()), None);
    }
});
