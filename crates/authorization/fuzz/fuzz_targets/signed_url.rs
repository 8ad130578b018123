//! A token that was not signed is refused, and the target without tokens has none.

#![no_main]

use std::sync::LazyLock;

use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use seawall_authorization::{
    SigningKeys, TokenCarriers, TokenRejection, TokenRequest, TokenRules, TokenVerifier,
    VerifiedTokens, explain,
};

static RULES: LazyLock<TokenRules> = LazyLock::new(|| {
    let secret = b"0123456789abcdef0123456789abcdef".as_slice();
    let keys = SigningKeys::new([("a", secret)]).expect("it is a key");
    let carriers = TokenCarriers {
        query: Some("t".to_owned()),
        path: Some("t".to_owned()),
        ..TokenCarriers::default()
    };
    TokenRules::new(carriers, TokenVerifier::SignedUrl(keys))
});

fuzz_target!(|target: &str| {
    let headers = HeaderMap::new();
    let Ok(found) = RULES.find(target, &headers) else {
        return;
    };
    let again = RULES.find(&found.target, &headers);
    assert_eq!(again, Err(TokenRejection::Missing), "{}", found.target);
    let _ = explain(found.token);
    let request = TokenRequest {
        method: "GET",
        scheme: "https",
        host: "media.test",
        port: None,
        target: &found.target,
        client: None,
        protocol: None,
    };
    let mut verified = VerifiedTokens::new(8, 1 << 16);
    let permit = RULES.admit(&found, &request, &mut verified, 0);
    assert!(permit.is_err(), "a forged token is valid");
});
