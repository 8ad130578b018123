//! A route's header rules reach every response, and its rules for origins are part of the key.

use http::header::{CACHE_CONTROL, SERVER};
use http::{HeaderName, HeaderValue, StatusCode};
use seawall_manifest::Kind;
use seawall_policy::Route;
use seawall_policy::route::{HeaderRule, HeaderRules};

use crate::support::{Origin, Shield, ask, get, head, manifest, playlist, segment, status};

const PATH: &str = "/live/seg1.ts";
const PLAYLIST: &str = "/live/playlist.m3u8";
const MARK: HeaderName = HeaderName::from_static("x-mark");

fn set(name: HeaderName, value: &'static str) -> HeaderRule {
    HeaderRule {
        set: vec![(name, HeaderValue::from_static(value))],
        ..HeaderRule::default()
    }
}

fn remove(name: HeaderName) -> HeaderRule {
    HeaderRule {
        remove: vec![name],
        ..HeaderRule::default()
    }
}

fn to_viewer<const N: usize>(rules: [HeaderRule; N]) -> impl FnOnce(&mut Route) {
    |route: &mut Route| {
        route.header_rules = HeaderRules {
            to_viewer: rules.into(),
            to_origin: Vec::new(),
        }
    }
}

/// Misses, hits, repeated hits, HEAD, ranges, 304, 416, 404 and the shield's own errors, over both
/// protocols: all have the field that is set, and none has the one that is removed.
#[tokio::test]
async fn rules_reach_every_response_of_the_route() {
    let origin = Origin::start()
        .await
        .on(
            PATH,
            segment("whole").etag("\"1\"").header("Server", "packager"),
        )
        .on("/live/gone.ts", status(404).header("Server", "packager"))
        .on(
            "/live/private.ts",
            segment("own")
                .cache_control("private")
                .header("Server", "p"),
        )
        .on("/live/broken.ts", status(500).header("Server", "packager"));
    let rules = to_viewer([set(MARK, "set"), remove(SERVER)]);
    let shield = Shield::in_front_of(&origin).route(rules).start().await;
    let h2 = shield.h2_viewer().await;
    let mut viewer = shield.viewer().await;
    let asks = [
        (get(PATH), 200),
        (get(PATH), 200),
        (get(PATH), 200),
        (get(PATH), 200),
        (head(PATH), 200),
        (get(PATH).range("1-2"), 206),
        (get(PATH).range("0-0,2-3"), 206),
        (get(PATH).range("100-"), 416),
        (get(PATH).header("If-None-Match", "\"1\""), 304),
        (get("/live/gone.ts"), 404),
        (get("/live/gone.ts"), 404),
        (get("/live/private.ts"), 200),
        (get("/live/broken.ts"), 500),
    ];
    for (ask, expected) in asks {
        for response in [viewer.ask(ask.clone()).await, h2.ask(ask.clone()).await] {
            assert_eq!(response.status, expected, "{ask:?}");
            assert_eq!(response.header("x-mark"), Some("set"), "{ask:?}");
            assert_eq!(response.header("server"), None, "{ask:?}");
        }
    }
    origin.stop().await;
    let failed = shield.get("/live/new.ts").await;
    assert_eq!((failed.status, failed.header("x-mark")), (502, Some("set")));
}

/// A rule for playlists leaves segments as they are, and one for errors leaves successes.
#[tokio::test]
async fn rules_apply_to_their_kinds_and_statuses() {
    let origin = Origin::start()
        .await
        .on(PATH, segment("whole"))
        .on(PLAYLIST, manifest(playlist(1)))
        .on("/live/gone.ts", status(404));
    let playlists = HeaderRule {
        kinds: vec![Kind::Hls],
        ..set(MARK, "playlist")
    };
    let errors = HeaderRule {
        statuses: vec![StatusCode::NOT_FOUND],
        ..set(MARK, "error")
    };
    let rules = to_viewer([playlists, errors]);
    let shield = Shield::in_front_of(&origin).route(rules).start().await;
    for _ in 0..3 {
        assert_eq!(
            shield.get(PLAYLIST).await.header("x-mark"),
            Some("playlist")
        );
        assert_eq!(shield.get(PATH).await.header("x-mark"), None);
        assert_eq!(
            shield.get("/live/gone.ts").await.header("x-mark"),
            Some("error")
        );
    }
}

/// A lifetime that a rule states begins at the viewer: `Age` would take the time here away from it.
/// What is kept here, and for how long, still is as the origin said.
#[tokio::test]
async fn stated_lifetime_begins_at_the_viewer() {
    let reply = segment("whole").cache_control("max-age=100").age(90);
    let origin = Origin::start().await.on(PATH, reply);
    let rules = to_viewer([set(CACHE_CONTROL, "public, max-age=5")]);
    let shield = Shield::in_front_of(&origin).route(rules).start().await;
    for _ in 0..3 {
        let response = shield.get(PATH).await;
        assert_eq!(response.header("cache-control"), Some("public, max-age=5"));
        assert_eq!(response.header("age"), None);
    }
    assert_eq!(origin.hits(PATH), 1);
}

/// Two routes that send different values share no object, also where nothing else differs.
#[tokio::test]
async fn what_a_rule_sends_to_the_origin_is_in_the_key() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let route = |host: &str, value: &'static str| Route {
        name: host.into(),
        hosts: vec![host.to_owned()],
        header_rules: HeaderRules {
            to_viewer: Vec::new(),
            to_origin: vec![set(MARK, value)],
        },
        ..Route::everything("origin")
    };
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            let everything = &config.rules.routes[0];
            let mut routes = [
                route("a.test", "a"),
                route("b.test", "b"),
                route("c.test", "a"),
            ];
            for (index, route) in routes.iter_mut().enumerate() {
                route.origin = everything.origin.clone();
                route.index = index;
            }
            config.rules.routes = routes.into_iter().map(Into::into).collect();
        })
        .start()
        .await;
    for (host, sent, fetches) in [("a.test", "a", 1), ("b.test", "b", 2), ("c.test", "b", 2)] {
        let forged = get(PATH).host(host).header("X-Mark", "forged");
        shield.ask(forged).await.assert_whole("whole");
        assert_eq!(origin.hits(PATH), fetches, "{host}");
        assert_eq!(origin.latest(PATH).header("x-mark"), Some(sent), "{host}");
    }
}

/// `Server-Timing` comes when it is asked for, with the time of this response, and never else.
#[tokio::test]
async fn timing_is_said_to_those_who_ask() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.server_timing = Some(MARK))
        .start()
        .await;
    let mut viewer = shield.viewer().await;
    let asked = viewer.ask(get(PATH).header("X-Mark", "1")).await;
    let timing = asked.header("server-timing").unwrap();
    assert!(
        timing.starts_with("cache;desc=\"miss\", origin;dur="),
        "{timing}"
    );
    for _ in 0..4 {
        assert_eq!(viewer.get(PATH).await.header("server-timing"), None);
        let asked = viewer.ask(get(PATH).header("X-Mark", "1")).await;
        let timing = asked.header("server-timing").unwrap();
        assert!(
            timing.starts_with("cache;desc=\"hit\", total;dur="),
            "{timing}"
        );
    }
    assert_eq!(origin.latest(PATH).header("x-mark"), None);
    assert_eq!(origin.hits(PATH), 1);
    assert_eq!(shield.ask(ask("OPTIONS", PATH)).await.status, 204);
}
