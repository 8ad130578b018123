//! Renewal: when, where, and with which claims.

use super::*;

fn carriers() -> TokenCarriers {
    TokenCarriers {
        header: Some(HeaderName::from_static("cta-common-access-token")),
        cookie: Some("cat".to_owned()),
        ..TokenCarriers::default()
    }
}

/// `exp` of NOW + 30, an issuer, a name of the issuer's own, and `catr` with these parameters.
fn renewable(parameters: &str) -> String {
    format!("a4 041a6955b91e 0161 61 636f776e 8101 190143{parameters}")
}

fn renewed(parameters: &str, carrier: TokenCarrier, now: u64) -> Option<(String, String)> {
    let cat = verify(&renewable(parameters)).unwrap();
    let renewed = verifier().renew(&cat, &carriers(), carrier, now)?;
    let value = renewed.value.to_str().unwrap().to_owned();
    Some((renewed.name.to_string(), value))
}

#[test]
fn catr_renews_within_the_deadline_only() {
    let header = "a2000201190e10";
    let deadline_of_10 = "a3000201190e10020a";
    for (parameters, now, is_renewed) in [
        (header, NOW - 31, false),
        (header, NOW - 30, true),
        (header, NOW + 29, true),
        (header, NOW + 30, false),
        (deadline_of_10, NOW + 19, false),
        (deadline_of_10, NOW + 20, true),
        // It would end sooner.
        ("a20002010a", NOW, false),
        ("a2000201 1b7fffffffffffffff", NOW, false),
    ] {
        let renewed = renewed(parameters, TokenCarrier::Header, now);
        assert_eq!(renewed.is_some(), is_renewed, "{parameters} at {now}");
    }
}

#[test]
fn renewed_token_has_all_other_claims() {
    let (name, value) = renewed("a2000201190e10", TokenCarrier::Header, NOW).unwrap();
    assert_eq!(name, "cta-common-access-token");
    let explained = crate::explain(&value).unwrap();
    let fields: Vec<_> = explained
        .fields
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        fields,
        [
            "algorithm=HS256",
            "key id=a",
            "iss=\"a\"",
            "\"own\"=[1]",
            "catr=by header, extension 3600",
            "exp=1767229200 (Thu, 01 Jan 2026 01:00:00 GMT)",
            "iat=1767225600 (Thu, 01 Jan 2026 00:00:00 GMT)",
        ]
    );
    let cat = verifier().verify(&value).unwrap();
    assert_eq!(cat.expires_at(), Some(NOW + 3600));
    assert_eq!(cat.check(&request("/"), NOW), Ok(()));
}

#[test]
fn renewal_goes_where_the_route_reads_tokens() {
    let (automatic, cookie, header, redirect) = (
        "a2000001190e10",
        "a2000101190e10",
        "a2000201190e10",
        "a2000301190e10",
    );
    let field = |parameters: &str, carrier| {
        let (name, value) = renewed(parameters, carrier, NOW)?;
        Some((name, value.starts_with("cat=")))
    };
    let set_cookie = Some(("set-cookie".to_owned(), true));
    let in_header = Some(("cta-common-access-token".to_owned(), false));
    for (parameters, carrier, expected) in [
        (automatic, TokenCarrier::Cookie, &set_cookie),
        (automatic, TokenCarrier::Header, &in_header),
        (automatic, TokenCarrier::Query, &None),
        (automatic, TokenCarrier::Path, &None),
        (cookie, TokenCarrier::Query, &set_cookie),
        (header, TokenCarrier::Query, &in_header),
        (redirect, TokenCarrier::Query, &None),
        // Another name than the route's: nobody would read it.
        ("a3000101190e10036161", TokenCarrier::Cookie, &None),
        ("a3000201190e10046161", TokenCarrier::Header, &None),
    ] {
        assert_eq!(
            &field(parameters, carrier),
            expected,
            "{parameters} {carrier:?}"
        );
    }
}

#[test]
fn renewal_has_the_parameters_of_the_claim() {
    let parameters = "a4000101190e1003636361740582665365637572656a506174683d2f6c697665".to_owned();
    let (_, value) = renewed(&parameters, TokenCarrier::Cookie, NOW).unwrap();
    assert!(value.ends_with("; Secure; Path=/live"), "{value}");
    // A line end would begin another field.
    let parameters = "a3000101190e10058163610d0a";
    assert_eq!(renewed(parameters, TokenCarrier::Cookie, NOW), None);
}

#[test]
fn a_public_key_renews_nothing() {
    let claims = bytes(&renewable("a2000201190e10"));
    let mut cat = crate::cat::claims::read(&claims).unwrap().cat;
    cat.key_id = b"b".to_vec();
    assert_eq!(
        verifier().renew(&cat, &carriers(), TokenCarrier::Header, NOW),
        None
    );
}

#[test]
fn catr_that_is_not_understood_refuses_the_token() {
    for parameters in [
        "a0",
        "a10002",
        "a101190e10",
        "a2000401190e10",
        "a30002010a0800",
        "a3000201200300",
        "80",
        "a200026131 01",
    ] {
        let verified = verify(&renewable(parameters));
        assert!(verified.is_err(), "{parameters}");
    }
}
