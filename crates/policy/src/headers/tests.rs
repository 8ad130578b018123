//! Tests which header fields pass through the shield.

use http::header::{AUTHORIZATION, CACHE_CONTROL, ETAG, SET_COOKIE};
use proptest::prelude::*;

use super::*;

fn route(forward: &[&'static str]) -> Route {
    Route {
        forward_headers: forward
            .iter()
            .copied()
            .map(HeaderName::from_static)
            .collect(),
        ..Route::everything("origin")
    }
}

fn sent(viewer: &HeaderMap, route: &Route) -> HeaderMap {
    upstream(
        viewer,
        forwarded(viewer, route, Kind::Segment).as_ref(),
        route,
        "seawall",
    )
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    headers
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

// RFC 9110 §7.6.1.
#[test]
fn strips_hop_by_hop_fields() {
    let mut all = headers(&[
        ("connection", "close, X-One"),
        ("connection", "keep-alive, x-two"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("proxy-authenticate", "Basic"),
        ("proxy-authorization", "Basic x"),
        ("te", "trailers"),
        ("trailer", "x-sum"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("x-one", "1"),
        ("x-two", "1"),
        ("x-two", "2"),
        ("x-three", "1"),
    ]);
    strip_hop_by_hop(&mut all);
    assert_eq!(names(&all), ["x-three"]);
}

// RFC 9110 §7.6.1: `Connection` must not name a field intended for all recipients.
#[test]
fn connection_cannot_remove_end_to_end_fields() {
    let mut all = headers(&[
        (
            "connection",
            "host, Authorization, cache-control, ETag, Set-Cookie, vary",
        ),
        (
            "connection",
            "content-type, content-encoding, access-control-allow-origin",
        ),
        ("host", "a"),
        ("authorization", "b"),
        ("cache-control", "private"),
        ("etag", "\"1\""),
        ("set-cookie", "a=b"),
        ("vary", "cookie"),
        ("content-type", "video/mp4"),
        ("content-encoding", "gzip"),
        ("access-control-allow-origin", "*"),
    ]);
    let before = all.len() - 2;
    strip_hop_by_hop(&mut all);
    assert_eq!(all.len(), before);
    assert!(all.contains_key(AUTHORIZATION) && all.contains_key(SET_COOKIE));
    assert!(all.contains_key(CACHE_CONTROL) && all.contains_key(ETAG));
}

#[test]
fn only_allowed_headers_are_sent_upstream() {
    let viewer = headers(&[
        ("host", "viewer.example"),
        ("user-agent", "player"),
        ("accept", "*/*"),
        ("accept-encoding", "br, gzip"),
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("origin", "https://player.example"),
        ("range", "bytes=0-1"),
        ("if-none-match", "\"1\""),
        ("forwarded", "for=1"),
        ("x-forwarded-for", "1"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-proto", "http"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("x-http-method-override", "DELETE"),
        ("expect", "100-continue"),
        ("content-length", "5"),
        ("te", "trailers"),
        ("connection", "te"),
    ]);
    let sent = sent(&viewer, &route(&["user-agent"]));
    assert_eq!(
        names(&sent),
        ["accept-encoding", "cdn-loop", "user-agent", "via"]
    );
    assert_eq!(sent[ACCEPT_ENCODING], "gzip");
    assert_eq!(sent[VIA], "1.1 seawall");
    assert_eq!(sent[&CDN_LOOP], "seawall");
}

#[test]
fn route_may_forward_credentials_but_not_shield_owned_fields() {
    let viewer = headers(&[
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("cookie", "c=d"),
        ("range", "bytes=0-1"),
        ("if-none-match", "\"1\""),
        ("origin", "https://player.example"),
        ("host", "h"),
        ("te", "trailers"),
        ("via", "2 edge"),
    ]);
    let named = [
        "authorization",
        "cookie",
        "authorization",
        "range",
        "if-none-match",
        "origin",
        "host",
        "te",
        "via",
    ];
    let sent = sent(&viewer, &route(&named));
    assert_eq!(names(&sent), ["authorization", "cdn-loop", "cookie", "via"]);
    assert_eq!(sent.get_all(AUTHORIZATION).iter().count(), 1);
    // RFC 9113 §8.2.3.
    assert_eq!(sent.get_all(COOKIE).iter().count(), 1);
    assert_eq!(sent[COOKIE], "a=b; c=d");
    assert_eq!(sent[VIA], "1.1 seawall");
}

#[test]
fn header_named_in_connection_is_not_forwarded() {
    let viewer = headers(&[("connection", "x-a"), ("x-a", "1"), ("x-b", "2")]);
    let sent = sent(&viewer, &route(&["x-a", "x-b"]));
    assert!(!sent.contains_key("x-a") && sent.contains_key("x-b"));
}

#[test]
fn passed_request_keeps_content_type_and_preconditions() {
    let viewer = headers(&[
        ("content-type", "application/json"),
        ("content-length", "5"),
        ("if-match", "\"1\""),
        ("cookie", "a=b"),
    ]);
    let sent = passed(&viewer, None, &route(&[]), "seawall");
    assert_eq!(
        names(&sent),
        ["cdn-loop", "content-type", "if-match", "via"]
    );
}

// RFC 8586 §2.
#[test]
fn cdn_loop_with_own_name_is_a_loop() {
    let seen = |value| loops(&headers(&[("cdn-loop", value)]), "seawall");
    assert!(seen("seawall"));
    assert!(seen("foo.example:80; a=\"x, y\", SeaWall ; v=1"));
    assert!(!seen("foo; a=\"seawall, seawall\""));
    assert!(!seen("seawall2, x-seawall"));
    assert!(!loops(&HeaderMap::new(), "seawall"));
    let two = headers(&[("cdn-loop", "a"), ("cdn-loop", "seawall")]);
    assert!(loops(&two, "seawall"));
}

#[test]
fn overlong_cdn_loop_is_a_loop_and_overlong_via_is_dropped() {
    let mut viewer = HeaderMap::new();
    let long = "a".repeat(CHAIN_BYTES_MAX + 1);
    for name in ["via", "cdn-loop"] {
        if let Ok(value) = HeaderValue::from_str(&long) {
            viewer.insert(HeaderName::from_static(name), value);
        }
    }
    assert!(loops(&viewer, "seawall"));
    assert_eq!(sent(&viewer, &route(&[]))[VIA], "1.1 seawall");
}

// RFC 9111 §3.1, and the fields that the shield sets again.
#[test]
fn downstream_strips_hop_by_hop_age_and_surrogate_control() {
    let origin = headers(&[
        ("cache-control", "max-age=5"),
        ("cdn-cache-control", "max-age=60"),
        ("surrogate-control", "max-age=60"),
        ("age", "3"),
        ("content-length", "10"),
        ("content-type", "video/mp2t"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("warning", "110 - stale"),
        ("via", "1.1 packager"),
        ("set-cookie", "a=b"),
        ("set-cookie", "c=d"),
    ]);
    let stored = downstream(origin, "seawall");
    assert_eq!(
        names(&stored),
        [
            "cache-control",
            "cdn-cache-control",
            "content-type",
            "set-cookie",
            "via"
        ]
    );
    assert_eq!(stored[VIA], "1.1 packager, 1.1 seawall");
    assert_eq!(stored.get_all(SET_COOKIE).iter().count(), 2);
}

proptest! {
    #[test]
    fn arbitrary_viewer_headers_do_not_panic(value in proptest::collection::vec(0x20_u8..=0xff, 0..100)) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let mut viewer = HeaderMap::new();
        for name in ["connection", "via", "cdn-loop", "cookie", "accept-encoding", "x-a"] {
            viewer.append(HeaderName::from_static(name), value.clone());
            viewer.append(HeaderName::from_static(name), value.clone());
        }
        let route = route(&["x-a", "cookie"]);
        passed(&viewer, forwarded(&viewer, &route, Kind::Segment).as_ref(), &route, "seawall");
        loops(&viewer, "seawall");
        downstream(viewer, "seawall");
    }
}
