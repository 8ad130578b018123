//! Whoever enters has one key, and asks the origin for a path in plain form.

#![no_main]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use libfuzzer_sys::fuzz_target;
use seawall::config::Config;
use seawall_policy::Rules;
use seawall_policy::access::{Admission, access};

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let config = Config::single("http://127.0.0.1:9", Vec::new());
    config.expect("this is an origin's address").rules
});

fuzz_target!(|text: &[u8]| {
    let mut lines = text.split(|&byte| byte == b'\n');
    let method = lines.next().and_then(|line| Method::from_bytes(line).ok());
    let uri = lines.next().and_then(|line| Uri::try_from(line).ok());
    let (Some(method), Some(uri)) = (method, uri) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(0));
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let enter = |uri: &Uri| access(&RULES, &method, uri, Version::HTTP_11, &headers);
    let (Admission::Cache(entry), Admission::Cache(again)) = (enter(&uri), enter(&uri)) else {
        return;
    };
    assert_eq!(entry.key, again.key);
    assert!(entry.target.path().starts_with('/'));
    // What is asked of the origin is what the key was made of, so asking for it is the same.
    let target = Uri::from(entry.target.clone());
    if let Admission::Cache(asked) = enter(&target) {
        assert_eq!(asked.target, entry.target);
    }
});
