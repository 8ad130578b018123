//! The cache key contains exactly what is sent upstream, and viewers' own fields are not sent.

use seawall_policy::route::QueryPolicy;

use crate::support::shield::{Builder, NAME};
use crate::support::{Origin, Shield, get, segment};

const PATH: &str = "/live/seg1.ts";

/// Viewers' own fields are not forwarded.
#[tokio::test]
async fn viewer_headers_are_not_forwarded() {
    const DROPPED: [(&str, &str); 14] = [
        ("Cookie", "session=1"),
        ("Authorization", "Bearer x"),
        ("Origin", "https://player.test"),
        ("Referer", "https://player.test/watch"),
        ("Range", "bytes=0-1"),
        ("If-Modified-Since", "Wed, 01 Jan 2025 00:00:00 GMT"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-Scheme", "https"),
        ("Forwarded", "host=evil.test"),
        ("X-Original-URL", "/admin"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("CMCD-Session", "sid=\"x\""),
        ("X-Anything", "else"),
        ("Connection", "X-Anything"),
    ];
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin).start().await;
    let ask = DROPPED
        .iter()
        .fold(get(PATH), |ask, (name, value)| ask.header(name, value));
    assert_eq!(shield.ask(ask).await.status, 206);
    let asked = origin.latest(PATH);
    for (name, value) in DROPPED {
        assert_ne!(asked.header(name), Some(value), "{name}");
    }
}

/// Fields named by the route are forwarded; the shield adds its name.
#[tokio::test]
async fn route_and_group_headers_reach_the_origin() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.forward_headers = vec!["x-tenant".parse().unwrap()])
        .origin(|group| {
            group.headers = vec![("x-cdn-auth".parse().unwrap(), "secret".parse().unwrap())];
        })
        .start()
        .await;
    let ask = get(PATH)
        .header("X-Tenant", "one")
        .header("X-CDN-Auth", "forged")
        .header("Connection", "X-CDN-Auth, Host");
    shield.ask(ask).await.assert_whole("whole");
    let asked = origin.latest(PATH);
    assert_eq!(asked.header("x-tenant"), Some("one"));
    assert_eq!(asked.fields.all("x-cdn-auth"), ["secret"]);
    assert!(
        asked.header("via").is_some_and(|via| via.contains(NAME)),
        "{asked:?}"
    );
    assert!(
        asked
            .header("cdn-loop")
            .is_some_and(|nodes| nodes.contains(NAME)),
        "{asked:?}"
    );
    assert_eq!(asked.fields.all("host").len(), 1);
}

/// A request that has passed here before is rejected as a loop.
#[tokio::test]
async fn rejects_request_loop_with_508() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin).start().await;
    for seen in [
        NAME.to_owned(),
        format!("other; v=1, {NAME}"),
        format!("{NAME}; x=y"),
    ] {
        let answer = shield.ask(get(PATH).header("CDN-Loop", &seen)).await;
        assert_eq!(answer.status, 508, "{seen}: {answer:?}");
    }
    assert_eq!(origin.hits(PATH), 0);
    shield
        .ask(get(PATH).header("CDN-Loop", "other"))
        .await
        .assert_whole("whole");
    assert_eq!(
        origin.latest(PATH).fields.all("cdn-loop").join(", "),
        format!("other, {NAME}")
    );
}

fn keeping(origin: &Origin, query: QueryPolicy) -> Builder {
    Shield::in_front_of(origin).route(|route| route.query = query.into())
}

/// Fails unless all of these requests cause one request for `upstream`.
async fn are_one(origin: &Origin, shield: &Shield, targets: &[&str], upstream: &str) {
    for target in targets {
        shield.get(target).await.assert_whole("whole");
    }
    let asked = origin.requests(PATH);
    let asked: Vec<_> = asked
        .iter()
        .map(|request| request.target.as_str())
        .collect();
    assert_eq!(asked, [upstream]);
}

/// Only the named parameters count, in the key and upstream alike.
#[tokio::test]
async fn query_only_keeps_named_parameters() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = keeping(
        &origin,
        QueryPolicy::Only(vec!["start".into(), "end".into()]),
    );
    let shield = shield.start().await;
    let targets = [
        "/live/seg1.ts?start=1&utm=a&end=2",
        "/live/seg1.ts?CMCD=bl%3D1&start=1&end=2",
        "/live/seg1.ts?start=1&end=2&",
        "/live/seg1.ts?start=1&end=2",
    ];
    are_one(&origin, &shield, &targets, "/live/seg1.ts?start=1&end=2").await;
}

/// All but the named parameters count.
#[tokio::test]
async fn query_except_drops_named_parameters() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = keeping(&origin, QueryPolicy::Except(vec!["token".into()]))
        .start()
        .await;
    let targets = ["/live/seg1.ts?token=1&a=2", "/live/seg1.ts?a=2&token=3"];
    are_one(&origin, &shield, &targets, "/live/seg1.ts?a=2").await;
}

/// No parameter counts.
#[tokio::test]
async fn query_none_drops_all_parameters() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = keeping(&origin, QueryPolicy::None).start().await;
    let targets = [
        "/live/seg1.ts?a=1",
        "/live/seg1.ts?b",
        "/live/seg1.ts",
        "/live/seg1.ts?",
    ];
    are_one(&origin, &shield, &targets, "/live/seg1.ts").await;
}

/// CMCD never counts, in the query or in headers, and is not forwarded.
#[tokio::test]
async fn cmcd_is_neither_keyed_nor_forwarded() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = keeping(&origin, QueryPolicy::All)
        .route(|route| route.forward_headers = vec!["cmcd-session".parse().unwrap()])
        .start()
        .await;
    for target in ["?CMCD=bl%3D1%2Cbr%3D2&a=1", "?a=1&CMCD=bl%3D2", "?a=1"] {
        let ask = get(&format!("{PATH}{target}")).header("CMCD-Session", "sid=\"x\"");
        shield.ask(ask).await.assert_whole("whole");
    }
    let [asked] = &origin.requests(PATH)[..] else {
        panic!("one request")
    };
    assert_eq!(asked.target, "/live/seg1.ts?a=1");
    assert_eq!(asked.header("cmcd-session"), None);
}

/// Different paths, and different kept queries, are different objects, byte for byte.
#[tokio::test]
async fn cache_key_is_the_target_byte_for_byte() {
    let targets = [
        "/a%2fb.ts",
        "/a/b.ts",
        "/a//b.ts",
        "/A/b.ts",
        "/a/b.ts?x",
        "/a/b.ts?x=",
    ];
    let origin = Origin::start().await;
    for target in targets {
        origin.set_script(target, segment(target));
    }
    let shield = keeping(&origin, QueryPolicy::All).start().await;
    for _round in 1..=2 {
        for target in targets {
            shield.get(target).await.assert_whole(target);
        }
    }
}

/// All spellings of a host are one key and one name upstream; an unknown host is refused.
#[tokio::test]
async fn host_is_normalized_and_unknown_host_gets_421() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| {
            route.hosts = vec!["media.test".to_owned()];
            route.forward_host = true;
        })
        .start()
        .await;
    for host in [
        "media.test",
        "MEDIA.test",
        "media.test:80",
        "media.test.",
        "Media.Test.:80",
    ] {
        shield.ask(get(PATH).host(host)).await.assert_whole("whole");
    }
    assert_eq!(origin.hits(PATH), 1);
    assert_eq!(origin.latest(PATH).header("host"), Some("media.test"));
    for host in ["other.test", "media.test.evil.test", "127.0.0.1"] {
        assert_eq!(shield.ask(get(PATH).host(host)).await.status, 421, "{host}");
    }
    assert_eq!(origin.hits(PATH), 1);
}

/// The host is part of the key only if it is forwarded.
#[tokio::test]
async fn host_is_keyed_only_if_forwarded() {
    for (forwarded, fetches) in [(true, 2), (false, 1)] {
        let origin = Origin::start().await.on(PATH, segment("whole"));
        let shield = Shield::in_front_of(&origin)
            .route(|route| route.forward_host = forwarded)
            .start()
            .await;
        for host in ["a.test", "b.test"] {
            shield.ask(get(PATH).host(host)).await.assert_whole("whole");
        }
        assert_eq!(origin.hits(PATH), fetches, "forwarded: {forwarded}");
    }
}

/// The upstream `Host` is the endpoint's name, or the one that the group sets.
#[tokio::test]
async fn upstream_host_is_endpoint_address_or_configured_host() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("whole");
    assert_eq!(
        origin.latest(PATH).header("host"),
        Some(&*origin.address().to_string())
    );
    let shield = Shield::in_front_of(&origin)
        .origin(|group| group.host = Some("origin.test".to_owned()))
        .start()
        .await;
    shield.get(PATH).await.assert_whole("whole");
    assert_eq!(origin.latest(PATH).header("host"), Some("origin.test"));
}
