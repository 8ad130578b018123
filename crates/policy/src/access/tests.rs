//! Tests host normalization, unchanged paths, and rejected requests.

use super::*;
use crate::route::QueryPolicy;

fn route(hosts: &[&str], prefix: &str) -> Route {
    Route {
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        path_prefix: prefix.to_owned(),
        forward_host: true,
        query: QueryPolicy::Except(vec!["utm".into()]).into(),
        ..Route::everything("o")
    }
}

fn rules(hosts: &[&str]) -> Rules {
    Rules {
        routes: vec![Arc::new(route(hosts, "/"))],
        name: "seawall".into(),
        trusted_proxies: crate::TrustedProxies::default(),
        client_classes: crate::ClientClasses::default(),
    }
}

fn ask(target: &str, host: Option<&str>) -> Admission {
    ask_at(&rules(&[]), target, host)
}

fn ask_at(rules: &Rules, target: &str, host: Option<&str>) -> Admission {
    ask_over(Version::HTTP_11, rules, target, host)
}

fn ask_over(version: Version, rules: &Rules, target: &str, host: Option<&str>) -> Admission {
    let mut headers = HeaderMap::new();
    if let Some(host) = host {
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
    }
    let uri: Uri = target.parse().unwrap();
    access(
        rules,
        &Method::GET,
        &uri,
        version,
        &headers,
        Requester::Unrestricted,
    )
}

fn entered(access: Admission) -> CacheRequest {
    match access {
        Admission::Cache(entry) => entry,
        other => panic!("expected to enter, got {other:?}"),
    }
}

fn status(access: Admission) -> u16 {
    match access {
        Admission::Reject(rejection) => rejection.status.as_u16(),
        other => panic!("expected a rejection, got {other:?}"),
    }
}

#[test]
fn host_key_ignores_case_port_and_trailing_dot() {
    let one = entered(ask("/a", Some("live.example")));
    for other in [
        "LIVE.example",
        "live.example:80",
        "live.example.",
        "Live.Example.:8080",
        "live.example:",
        "live.example:00080",
    ] {
        assert_eq!(entered(ask("/a", Some(other))).key, one.key, "{other}");
        let target = format!("http://{other}/a");
        let named = ask_over(Version::HTTP_2, &rules(&[]), &target, None);
        assert_eq!(entered(named).key, one.key, "{target}");
    }
    assert_eq!(one.sent_host().unwrap(), "live.example");
}

#[test]
fn rejects_malformed_host_with_400() {
    for host in [
        "a,b",
        "user@host",
        "user:word@host",
        "user@[::1]",
        "host:port",
        "host:+80",
        "host:65536",
        "host:80:80",
        "::1",
        "a b",
        "",
        ":80",
        ":",
        ".",
        "..",
        "..host",
        ".host",
        "a..host",
        "host..",
        "[::1]:junk",
        "[::1]80",
        "[::1]@x",
        "[::1",
        "[]",
        "[x]",
        "[fe80::1%25eth0]",
        "[127.0.0.1]",
    ] {
        assert_eq!(status(ask("/a", Some(host))), 400, "{host:?}");
        let target = ask("http://host/a", Some(host));
        assert_eq!(status(target), 400, "a target does not mend {host:?}");
    }
    assert_eq!(status(ask("/a", None)), 400);
    assert_eq!(status(ask("http://host/a", None)), 400);
    for target in [
        "http://user@host/a",
        "http://..host/a",
        "http://host:65536/a",
    ] {
        assert_eq!(status(ask(target, Some("host"))), 400, "{target}");
        let named = ask_over(Version::HTTP_2, &rules(&[]), target, None);
        assert_eq!(status(named), 400, "{target}");
    }
}

#[test]
fn rejects_absolute_target_that_differs_from_host() {
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        for (target, host, is_same) in [
            ("http://one.example/a", "one.example", true),
            ("http://one.example/a", "ONE.example.:80", true),
            ("http://ONE.example.:80/a", "one.example:", true),
            ("http://one.example/a", "one.example:81", false),
            ("http://one.example:81/a", "one.example", false),
            ("http://one.example/a", "other.example", false),
            ("https://one.example/a", "one.example:443", true),
            ("https://one.example/a", "one.example:80", false),
            ("http://[::1]/a", "[0::1]:80", true),
            ("http://[::1]/a", "[::2]", false),
        ] {
            match ask_over(version, &rules(&[]), target, Some(host)) {
                Admission::Cache(entry) if is_same => assert_eq!(entry.host, host_in(target)),
                other => assert!(
                    !is_same && status(other) == 400,
                    "{target} {host} {version:?}"
                ),
            }
        }
    }
}

fn host_in(target: &str) -> &str {
    if target.contains('[') {
        "[::1]"
    } else {
        "one.example"
    }
}

#[test]
fn http10_request_may_omit_host() {
    for host in [None, Some("")] {
        let asked = ask_over(Version::HTTP_10, &rules(&[]), "/a", host);
        assert_eq!(entered(asked).host, "");
        let asked = ask_over(Version::HTTP_10, &rules(&[]), "http://one.example/a", host);
        assert_eq!(entered(asked).host, "one.example");
    }
}

#[test]
fn ipv6_host_is_normalized() {
    for host in ["[::1]", "[::1]:8080", "[0:0::0:1]:", "[::0001]"] {
        assert_eq!(entered(ask("/a", Some(host))).sent_host().unwrap(), "[::1]");
    }
    let upper = entered(ask("/a", Some("[2001:DB8::A]")));
    assert_eq!(upper.sent_host().unwrap(), "[2001:db8::a]");
}

#[test]
fn unknown_host_gets_421() {
    assert_eq!(
        status(ask_at(&rules(&["live.example"]), "/a", Some("x.example"))),
        421
    );
}

#[test]
fn rejects_paths_that_escape_the_root_in_any_encoding() {
    for path in [
        "/..",
        "/a/../..",
        "/%2e%2e/x",
        "/a/..%2f..%2f",
        "/a%5c..%5c..",
        "/.%2E/x",
        "/x%00",
    ] {
        assert_eq!(status(ask(path, Some("h"))), 400, "{path}");
    }
}

#[test]
fn paths_are_forwarded_byte_for_byte() {
    for path in [
        "/a/../b", "//a", "/a/./b", "/a%2Fb", "/a%2fb", "/%7Ea", "/a;x.ts",
    ] {
        assert_eq!(entered(ask(path, Some("h"))).target.as_str(), path);
    }
}

#[test]
fn query_parameter_outside_the_key_is_not_sent_upstream() {
    let plain = entered(ask("/a?x=1", Some("h")));
    let tracked = entered(ask("/a?utm=9&x=1", Some("h")));
    assert_eq!(plain.key, tracked.key);
    assert_eq!(tracked.target.as_str(), "/a?x=1");
}

#[test]
fn path_prefix_matches_whole_path_segments_only() {
    let rules = Rules {
        routes: vec![Arc::new(route(&[], "/live"))],
        name: "seawall".into(),
        trusted_proxies: crate::TrustedProxies::default(),
        client_classes: crate::ClientClasses::default(),
    };
    entered(ask_at(&rules, "/live/a", Some("h")));
    entered(ask_at(&rules, "/live", Some("h")));
    assert_eq!(status(ask_at(&rules, "/lively", Some("h"))), 421);
    for elsewhere in [
        "/live/../admin/x",
        "/live/%2e%2e/admin/x",
        "/live/a/../../x",
    ] {
        assert_eq!(
            status(ask_at(&rules, elsewhere, Some("h"))),
            400,
            "{elsewhere}"
        );
    }
}

#[test]
fn delivery_directives_are_normalized_and_put_last() {
    let one = entered(ask(
        "/a.m3u8?t=1&_HLS_msn=7&_HLS_part=2&_HLS_skip=v2",
        Some("h"),
    ));
    assert_eq!(
        one.target.as_str(),
        "/a.m3u8?t=1&_HLS_msn=7&_HLS_part=2&_HLS_skip=v2"
    );
    for other in [
        "/a.m3u8?_HLS_skip=v2&_HLS_part=02&t=1&_HLS_msn=7",
        "/a.m3u8?_HLS_part=2&utm=x&_HLS_msn=007&t=1&_HLS_skip=v2",
    ] {
        assert_eq!(entered(ask(other, Some("h"))).key, one.key, "{other}");
    }
    let plain = entered(ask("/a.m3u8?t=1", Some("h")));
    assert!(one.has_delivery_directives() && !plain.has_delivery_directives());
    assert_eq!(one.base_key(), &plain.key);
    assert_eq!(
        (
            one.without_directives().target,
            one.without_directives().key
        ),
        (plain.target.clone(), plain.key.clone())
    );
    let asking = plain.with_directives(one.directives()).unwrap();
    assert_eq!((asking.key, asking.target), (one.key, one.target));
}

#[test]
fn query_policy_never_drops_delivery_directives() {
    for (policy, expected) in [
        (QueryPolicy::None, "/a.m3u8?_HLS_msn=7"),
        (QueryPolicy::All, "/a.m3u8?b=1&b=2&_HLS_msn=7"),
        (
            QueryPolicy::Only(vec!["b".into()]),
            "/a.m3u8?b=1&_HLS_msn=7",
        ),
    ] {
        let mut rules = rules(&[]);
        Arc::make_mut(&mut rules.routes[0]).query = policy.into();
        let entry = entered(ask_at(&rules, "/a.m3u8?b=1&_HLS_msn=7&b=2", Some("h")));
        assert_eq!(entry.target.as_str(), expected);
    }
}

#[test]
fn malformed_delivery_directives_are_forwarded_unchanged() {
    let entry = entered(ask("/a.m3u8?_HLS_part=1&utm=x&_HLS_msn=x&t=1", Some("h")));
    assert_eq!(entry.target.as_str(), "/a.m3u8?t=1&_HLS_part=1&_HLS_msn=x");
    assert!(!entry.has_delivery_directives());
    let escaped = entered(ask("/a.m3u8?%5FHLS_msn=7&utm=x&t=1", Some("h")));
    assert_eq!(escaped.target.as_str(), "/a.m3u8?t=1&%5FHLS_msn=7");
    assert!(!escaped.has_delivery_directives());
    let segment = entered(ask("/a.ts?_HLS_part=1&_HLS_msn=7", Some("h")));
    assert_eq!(segment.target.as_str(), "/a.ts?_HLS_part=1&_HLS_msn=7");
}

#[test]
fn skip_yes_is_not_forwarded_but_skip_v2_is() {
    let rules = rules(&[]);
    let entry = entered(ask_at(&rules, "/a.m3u8?_HLS_skip=YES", Some("h")));
    assert_eq!(entry.target.as_str(), "/a.m3u8");
    assert!(entry.takes_delta() && !entry.has_delivery_directives());
    let entry = entered(ask_at(
        &rules,
        "/a.m3u8?_HLS_skip=YES&_HLS_msn=7",
        Some("h"),
    ));
    assert_eq!(entry.target.as_str(), "/a.m3u8?_HLS_msn=7");
    assert!(entry.takes_delta() && entry.without_directives().takes_delta());
    // The shield cannot skip date ranges, so the origin makes these delta updates.
    let entry = entered(ask_at(&rules, "/a.m3u8?_HLS_skip=v2", Some("h")));
    assert_eq!(entry.target.as_str(), "/a.m3u8?_HLS_skip=v2");
    assert!(!entry.takes_delta());
}

mod keys {
    use http::header::{ACCEPT_ENCODING, HeaderName};
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::*;

    /// Fields that viewers send and routes may name.
    const FIELDS: [&str; 16] = [
        "accept",
        "accept-encoding",
        "authorization",
        "cdn-loop",
        "connection",
        "cookie",
        "forwarded",
        "if-none-match",
        "origin",
        "range",
        "traceparent",
        "user-agent",
        "via",
        "x-forwarded-for",
        "x-request-id",
        "x-tenant",
    ];
    const VALUES: [&str; 5] = ["", "1", "gzip", "x-tenant", "1, 2"];

    fn viewer() -> impl Strategy<Value = (HeaderMap, &'static str)> {
        let line = (select(&FIELDS[..]), select(&VALUES[..]));
        let host = select(&["a.test", "A.test:80", "b.test"][..]);
        let targets = [
            "/a?x=1&x=2",
            "/a?x=1",
            "/a?x=1&utm=2",
            "/%61?x=1",
            "/a?x=1&CMCD=1",
        ];
        let lines = proptest::collection::vec(line, 0..5);
        (lines, host, select(targets.to_vec())).prop_map(|(lines, host, target)| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            for (name, value) in lines {
                headers.append(name, HeaderValue::from_static(value));
            }
            (headers, target)
        })
    }

    fn named(names: Vec<&'static str>) -> Vec<HeaderName> {
        names.into_iter().map(HeaderName::from_static).collect()
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_if_upstream_requests_are(
            one in viewer(),
            other in viewer(),
            same in any::<bool>(),
            forwarded in subsequence(FIELDS.to_vec(), 0..6),
            unkeyed in subsequence(FIELDS.to_vec(), 0..3),
            forward_host in any::<bool>(),
            all in any::<bool>(),
        ) {
            let other = if same { (other.0, one.1) } else { other };
            let mut route = Route { forward_host, ..route(&[], "/") };
            route.forward_headers = named(forwarded);
            route.unkeyed_headers = named(unkeyed);
            if all {
                route.query = QueryPolicy::All.into();
            }
            let rules = Rules { routes: vec![Arc::new(route)], name: "seawall".into(), trusted_proxies: crate::TrustedProxies::default(), client_classes: crate::ClientClasses::default() };
            let sent = |(viewer, target): &(HeaderMap, &'static str)| {
                let uri = Uri::from_static(target);
                let (get, version, operator) = (Method::GET, Version::HTTP_11, Requester::Unrestricted);
                let entry = entered(access(&rules, &get, &uri, version, viewer, operator));
                let forwarded = entry.forwarded.as_deref();
                let mut sent = headers::upstream(viewer, forwarded, &entry.route, &rules.name);
                // The fields that are sent without being in the key.
                sent.remove(ACCEPT_ENCODING);
                sent.remove("cdn-loop");
                for field in &entry.route.unkeyed_headers {
                    if !entry.route.forward_headers.contains(field) && field.as_str() != "via" {
                        sent.remove(field);
                    }
                }
                let host = entry.sent_host().cloned();
                (entry.key, (entry.target, host, sent))
            };
            let ((one, one_sent), (other, other_sent)) = (sent(&one), sent(&other));
            prop_assert_eq!(one == other, one_sent == other_sent);
        }
    }
}
