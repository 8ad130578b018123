//! Tokens in each place of a request, and the request without them.

use http::header::COOKIE;

use super::*;

fn carriers() -> TokenCarriers {
    TokenCarriers {
        header: Some(HeaderName::from_static("cta-common-access-token")),
        cookie: Some("token".to_owned()),
        query: Some("token".to_owned()),
        path: Some("token".to_owned()),
    }
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let line = |(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    lines.iter().copied().map(line).collect()
}

/// The token, the carrier and the rest of the target.
fn find(
    target: &str,
    lines: &[(&'static str, &'static str)],
) -> Result<(String, TokenCarrier, String), TokenRejection> {
    let headers = headers(lines);
    let found = carriers().find(target, &headers)?;
    Ok((
        found.token.to_owned(),
        found.carrier,
        found.target.into_owned(),
    ))
}

fn found(token: &str, carrier: TokenCarrier, target: &str) -> (String, TokenCarrier, String) {
    (token.to_owned(), carrier, target.to_owned())
}

#[test]
fn finds_a_token_in_the_query_and_leaves_the_rest_as_sent() {
    for (target, rest) in [
        ("/a?token=T", "/a"),
        ("/a?token=T&b=1", "/a?b=1"),
        ("/a?b=1&token=T", "/a?b=1"),
        ("/a?b=%31&&token=T&c", "/a?b=%31&&c"),
        (
            "/a?tokens=1&token=T&Token=2&token",
            "/a?tokens=1&Token=2&token",
        ),
    ] {
        assert_eq!(
            find(target, &[]),
            Ok(found("T", TokenCarrier::Query, rest)),
            "{target}"
        );
    }
}

#[test]
fn finds_a_token_in_the_path_and_leaves_the_rest_as_sent() {
    let expected = Ok(found("T", TokenCarrier::Path, "/live/a?b"));
    assert_eq!(find("/token=T/live/a?b", &[]), expected);
    for target in [
        "/token=T",
        "/token=T?a/b",
        "/tokens=T/a",
        "/a/token=T/b",
        "token=T/a",
    ] {
        assert_eq!(find(target, &[]), Err(TokenRejection::Missing), "{target}");
    }
}

#[test]
fn finds_a_token_in_headers_and_cookies() {
    let header = ("cta-common-access-token", "T");
    assert_eq!(
        find("/a", &[header]),
        Ok(found("T", TokenCarrier::Header, "/a"))
    );
    for line in [
        "token=T",
        "a=1; token=T",
        "token=T;b=2",
        " token=T ; b",
        "a;token=T; tokens=2",
    ] {
        let cookie = [("cookie", line)];
        assert_eq!(
            find("/a", &cookie),
            Ok(found("T", TokenCarrier::Cookie, "/a")),
            "{line}"
        );
    }
    let lines = [("cookie", "a=1"), ("cookie", "token=T=")];
    assert_eq!(
        find("/a", &lines),
        Ok(found("T=", TokenCarrier::Cookie, "/a"))
    );
    for line in ["token", "tokens=T", "Token=T", "a=token=T"] {
        assert_eq!(
            find("/a", &[("cookie", line)]),
            Err(TokenRejection::Missing),
            "{line}"
        );
    }
}

#[test]
fn the_newer_carrier_counts_and_every_token_is_taken_out() {
    let target = "/token=P/a?token=Q";
    let cookie = ("cookie", "token=C");
    let header = ("cta-common-access-token", "H");
    assert_eq!(find(target, &[]), Ok(found("Q", TokenCarrier::Query, "/a")));
    assert_eq!(
        find(target, &[cookie]),
        Ok(found("C", TokenCarrier::Cookie, "/a"))
    );
    assert_eq!(
        find(target, &[cookie, header]),
        Ok(found("H", TokenCarrier::Header, "/a"))
    );
}

#[test]
fn token_twice_in_one_place_is_refused() {
    let header = ("cta-common-access-token", "H");
    assert_eq!(find("/a", &[header, header]), Err(TokenRejection::Repeated));
    for (target, lines) in [
        ("/a?token=T&token=T", &[][..]),
        ("/token=T/token=T/a", &[]),
        ("/a", &[("cookie", "token=T; token=T")]),
        ("/a", &[("cookie", "token=T"), ("cookie", "token=U")]),
        // Also where another carrier comes first.
        ("/a?token=T&token=T", &[("cookie", "token=C")]),
    ] {
        assert_eq!(
            find(target, lines),
            Err(TokenRejection::Repeated),
            "{target} {lines:?}"
        );
    }
}

#[test]
fn only_the_places_that_are_asked_for_are_searched() {
    let none = TokenCarriers::default();
    let headers = headers(&[("cookie", "token=C"), ("cta-common-access-token", "H")]);
    let found = none.find("/token=P/a?token=Q", &headers);
    assert_eq!(found, Err(TokenRejection::Missing));
    let mut kept = headers.clone();
    none.strip_headers(&mut kept);
    assert_eq!(kept, headers);
}

#[test]
fn strips_headers_of_tokens_only() {
    let strip = |lines: &[(&'static str, &'static str)]| {
        let mut headers = headers(lines);
        carriers().strip_headers(&mut headers);
        headers
    };
    let host = ("host", "media.test");
    let token = ("cta-common-access-token", "H");
    assert_eq!(
        strip(&[host, token, ("cookie", "token=C")]),
        headers(&[host])
    );
    let cookies = [("cookie", "a=1;token=C"), ("cookie", "b; c=\"2\"")];
    assert_eq!(strip(&cookies)[COOKIE], "a=1; b; c=\"2\"");
    let others = [("cookie", "a=1;b=2"), ("cookie", "c")];
    assert_eq!(strip(&others), headers(&others));
}

#[test]
fn strips_all_tokens_of_a_target_and_nothing_else() {
    let carriers = TokenCarriers {
        query: Some("t".to_owned()),
        path: Some("t".to_owned()),
        ..TokenCarriers::default()
    };
    for (target, expected) in [
        ("/a?b=1", "/a?b=1"),
        ("/a?", "/a?"),
        ("/a?t=1", "/a"),
        ("/a?t=1&t=2", "/a"),
        ("/a?b=1&t=2&c", "/a?b=1&c"),
        ("/a?&t=1", "/a"),
        ("/a?t=1&&", "/a?&"),
        ("/a?tt=1&T=2", "/a?tt=1&T=2"),
        ("/t=1/a", "/a"),
        ("/t=1/t=2/a?t=3", "/a"),
        ("/t=1", "/t=1"),
        ("/t=1?t=2", "/t=1"),
        ("/a/t=1/b", "/a/t=1/b"),
        ("//t=1/a", "//t=1/a"),
    ] {
        assert_eq!(carriers.strip_target(target), expected, "{target}");
    }
    assert_eq!(
        TokenCarriers::default().strip_target("/t=1/a?t=2"),
        "/t=1/a?t=2"
    );
}
