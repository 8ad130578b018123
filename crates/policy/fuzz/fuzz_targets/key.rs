//! An accepted request has a key, the same one each time, and a target in plain form.

#![no_main]

use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use libfuzzer_sys::fuzz_target;
use seawall_policy::access::{Requester, access};
use seawall_policy::{Admission, FileSecrets, Route, Rules};

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules {
    routes: vec![Arc::new(Route::everything("main"))],
    name: "seawall".into(),
        trusted_proxies: seawall_policy::TrustedProxies::default(),
        client_classes: seawall_policy::ClientClasses::default(),
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
    let viewer = Requester::Viewer {
        address: None,
        class: None,
        certificate: None,
        secrets: &FileSecrets::default(),
    };
    let admit = |uri: &Uri| access(&RULES, &method, uri, Version::HTTP_11, &headers, viewer);
    let (Admission::Cache(request), Admission::Cache(again)) = (admit(&uri), admit(&uri)) else {
        return;
    };
    assert_eq!(request.key, again.key);
    assert!(request.target.path().starts_with('/'));
    // The key is made from the target sent to the origin, so a request for that target is the same.
    let target = Uri::from(request.target.clone());
    if let Admission::Cache(resolved) = admit(&target) {
        assert_eq!(resolved.target, request.target);
    }
});
