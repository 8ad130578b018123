//! Every response says how it was produced, in `Cache-Status`, `Age`, `Via` and `X-Request-Id`.

use std::collections::HashSet;

use crate::support::metrics::{FILLS, WAITERS};
use crate::support::shield::NAME;
use crate::support::viewer::CacheStatus;
use crate::support::{Gate, Origin, Shield, get, noise, segment, status};

const PATH: &str = "/live/seg1.ts";

/// No object was stored for the URI, or none for this variant (RFC 9211 has a word for each).
fn is_miss(status: &CacheStatus) -> bool {
    matches!(status.value("fwd"), Some("miss" | "uri-miss" | "vary-miss"))
}

/// A miss says that it was forwarded and stored; a hit states its remaining freshness.
#[tokio::test]
async fn cache_status_describes_miss_and_hit() {
    let origin = Origin::start()
        .await
        .on(PATH, segment("x").cache_control("max-age=100"));
    let shield = Shield::in_front_of(&origin).start().await;
    let missed = shield.get(PATH).await.cache_status();
    assert_eq!(missed.cache(), NAME);
    assert!(is_miss(&missed), "{missed:?}");
    assert!(
        !missed.has_parameter("hit") && !missed.has_parameter("collapsed"),
        "{missed:?}"
    );
    let answer = shield.get(PATH).await;
    let hit = answer.cache_status();
    assert_eq!(hit.cache(), NAME);
    assert!(
        hit.has_parameter("hit") && !hit.has_parameter("fwd"),
        "{hit:?}"
    );
    assert!(hit.value("ttl").is_some(), "{hit:?}");
    assert!(answer.age() < 100);
}

/// A response from another request's fill says `collapsed`.
#[tokio::test]
async fn cache_status_marks_collapsed_requests() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(PATH, segment("x").hold_head(&gate));
    let shield = Shield::in_front_of(&origin).start().await;
    let crowd = shield.crowd(10, get(PATH)).await;
    shield.wait_gauge(WAITERS, |waiting| waiting >= 10).await;
    gate.open();
    let answers = crowd.read_all().await;
    let collapsed = answers
        .iter()
        .filter(|answer| answer.cache_status().has_parameter("collapsed"));
    assert_eq!(collapsed.count(), 9);
    assert!(answers.iter().all(|answer| is_miss(&answer.cache_status())));
}

/// `X-Cache` is sent when the route is configured to.
#[tokio::test]
async fn x_cache_is_sent_only_when_enabled() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin).route(|route| route.x_cache = true);
    let shield = shield.start().await;
    let words = [shield.get(PATH).await, shield.get(PATH).await];
    let words = words.map(|answer| answer.header("x-cache").unwrap_or("none").to_owned());
    assert_eq!(words, ["MISS", "HIT"]);
    let shield = Shield::in_front_of(&origin).route(|route| route.x_cache = false);
    assert_eq!(shield.start().await.get(PATH).await.header("x-cache"), None);
}

/// With `cmsd` players learn of origin failures; an origin's CMSD of another response is never
/// stored.
#[tokio::test]
async fn cmsd_reports_origin_failure_only_when_enabled() {
    let overdue = || {
        let reply = segment("x").header("cmsd-static", "ot=v").age(1);
        reply
            .header("cmsd-dynamic", "\"origin\";etp=9")
            .cache_control("max-age=1, stale-if-error=60")
    };
    let origin = Origin::start().await.on(PATH, overdue());
    for (wanted, well, ill) in [
        (false, None, None),
        (true, Some("\"seawall\""), Some("\"seawall\";du")),
    ] {
        let shield = Shield::in_front_of(&origin).route(|route| route.cmsd = wanted);
        let shield = shield.start().await;
        let answer = shield.get(PATH).await;
        assert_eq!(answer.header("cmsd-dynamic"), well);
        assert_eq!(answer.header("cmsd-static"), Some("ot=v"));
        origin.set_script(PATH, status(500));
        let stale = shield.get(PATH).await;
        assert_eq!(stale.assert_whole("x").header("cmsd-dynamic"), ill);
        origin.set_script(PATH, overdue());
    }
}

/// The key is shown only when the route is configured to.
#[tokio::test]
async fn cache_status_shows_key_only_when_enabled() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    for wanted in [false, true] {
        let shield = Shield::in_front_of(&origin).route(|route| route.show_key = wanted);
        let status = shield.start().await.get(PATH).await.cache_status();
        assert_eq!(status.has_parameter("key"), wanted, "{status:?}");
    }
}

/// Every response has its own request id.
#[tokio::test]
async fn every_response_has_its_own_request_id() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut ids = HashSet::new();
    for _ in 0..10 {
        let answer = shield.get(PATH).await;
        ids.insert(
            answer
                .header("x-request-id")
                .expect("a request id")
                .to_owned(),
        );
    }
    assert_eq!(ids.len(), 10);
}

/// Hop-by-hop fields of the origin connection are removed; the others arrive, with Seawall's `Via`.
#[tokio::test]
async fn removes_hop_by_hop_fields_of_origin_response() {
    let object = segment("x")
        .header("Connection", "X-Between-Us")
        .header("X-Between-Us", "secret")
        .header("Keep-Alive", "timeout=5")
        .header("Surrogate-Control", "max-age=60")
        .header("X-For-All", "kept");
    let origin = Origin::start().await.on(PATH, object);
    let shield = Shield::in_front_of(&origin).start().await;
    for answer in [shield.get(PATH).await, shield.get(PATH).await] {
        for name in ["x-between-us", "keep-alive", "surrogate-control", "warning"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        assert_eq!(answer.header("x-for-all"), Some("kept"));
        assert_eq!(answer.header("content-type"), Some("video/mp2t"));
        assert!(
            answer.header("via").is_some_and(|via| via.contains(NAME)),
            "{answer:?}"
        );
        assert_eq!(answer.fields.all("date").len(), 1);
    }
}

/// `Connection` cannot remove fields whose loss would change the meaning of the response.
#[tokio::test]
async fn connection_field_cannot_remove_cache_control_or_etag() {
    let object = segment("x")
        .header("Connection", "Cache-Control, ETag, Content-Type")
        .header("ETag", "\"1\"")
        .cache_control("no-store");
    let origin = Origin::start().await.on(PATH, object);
    let shield = Shield::in_front_of(&origin).start().await;
    for fetch in 1..=2 {
        let answer = shield.get(PATH).await;
        assert_eq!(
            answer.assert_whole("x").header("content-type"),
            Some("video/mp2t")
        );
        assert_eq!(origin.hits(PATH), fetch, "no-store was read");
    }
}

/// `Via` and `Cache-Status` use the configured name.
#[tokio::test]
async fn cache_status_uses_configured_name() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.rules.name = "shield-7".into())
        .start()
        .await;
    for target in [PATH, PATH, "/nowhere.ts"] {
        let status = shield.get(target).await.cache_status();
        assert_eq!(status.cache(), "shield-7", "{target}: {status:?}");
    }
}

/// `stored` is said only of objects that are stored: not of responses that forbid it, and not of
/// too large ones.
#[tokio::test]
async fn cache_status_says_stored_only_for_stored_objects() {
    let once = segment("x")
        .cache_control("no-cache")
        .header("ETag", "\"1\"");
    let forbidden = status(304)
        .cache_control("no-store")
        .header("ETag", "\"1\"");
    let large = noise(1, 2 << 20);
    let origin = Origin::start()
        .await
        .on(PATH, once.then(forbidden))
        .on("/large.ts", segment(large.clone()));
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.object_bytes_max = 1 << 20)
        .start()
        .await;
    let first = shield.get(PATH).await;
    assert!(
        first
            .assert_whole("x")
            .cache_status()
            .has_parameter("stored")
    );
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
    let second = shield.get(PATH).await;
    let status = second.assert_whole("x").cache_status();
    assert!(!status.has_parameter("stored"), "{status:?}");
    let too_large = shield.get("/large.ts").await;
    let status = too_large.assert_whole(&large).cache_status();
    assert!(!status.has_parameter("stored"), "{status:?}");
}

/// A pass-through response has the `Age` that the origin states.
#[tokio::test]
async fn passed_responses_keep_origin_age() {
    let aged = segment("x").cache_control("private, max-age=60").age(55);
    let origin = Origin::start().await.on(PATH, aged);
    let shield = Shield::in_front_of(&origin).start().await;
    for _ in 0..2 {
        let answer = shield.get(PATH).await;
        assert!(
            (55..=65).contains(&answer.assert_whole("x").age()),
            "{answer:?}"
        );
        assert_eq!(answer.fields.all("age").len(), 1);
    }
}
