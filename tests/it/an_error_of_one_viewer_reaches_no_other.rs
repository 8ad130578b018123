//! An error that one viewer's request provokes at the origin reaches no other viewer.

use std::time::Duration;

use crate::support::metrics::WAITERS;
use crate::support::origin::{Reply, Script, hang_up};
use crate::support::shield::NAME;
use crate::support::viewer::Ask;
use crate::support::{Gate, Origin, Shield, computed, get, manifest, playlist, segment, status};

const PATH: &str = "/live/index.m3u8";

/// A request with fields that an origin may reject.
fn evil() -> Ask {
    get(PATH).header("CDN-Loop", "evil")
}

/// A refusal is for the viewer who provoked it. Stored objects stay stored, and later viewers share
/// one request as usual.
#[tokio::test]
async fn provoked_4xx_or_508_drops_no_stored_object() {
    for code in [400, 401, 403, 508] {
        let (gate, old) = (Gate::new(), manifest(playlist(1)).header("ETag", "\"1\""));
        let old = old.cache_control("max-age=1, stale-if-error=60").age(10);
        let origin = Origin::start().await.on(PATH, old.then(status(code)));
        let shield = Shield::in_front_of(&origin)
            .proxy_settings(|waits| waits.stale_wait_max = Duration::from_hours(1))
            .start()
            .await;
        shield.get(PATH).await.assert_whole(playlist(1));
        assert_eq!(shield.ask(evil()).await.status, code);
        let new = manifest(playlist(2)).cache_control("max-age=60");
        origin.set_script(PATH, new.hold_head(&gate));
        let crowd = shield.crowd(10, get(PATH)).await;
        origin.wait_hits(PATH, 3).await;
        shield.wait_gauge(WAITERS, |waiting| waiting >= 10).await;
        gate.open();
        for answer in crowd.read_all().await {
            answer.assert_whole(playlist(2));
        }
        assert_eq!(origin.hits(PATH), 3, "after {code}");
        let asked = origin.latest(PATH);
        assert_eq!(asked.header("if-none-match"), Some("\"1\""), "after {code}");
    }
}

/// Viewers who waited for a refused request are not refused with it.
#[tokio::test]
async fn provoked_4xx_or_508_is_not_shared_with_waiting_requests() {
    for code in [400, 401, 403, 508] {
        let gate = Gate::new();
        let held = gate.clone();
        let script = computed(move |request| match request.header("cdn-loop") {
            Some(nodes) if nodes.contains("evil") => status(code).hold_head(&held),
            _ => manifest(playlist(1)).cache_control("max-age=60"),
        });
        let origin = Origin::start().await.on(PATH, script);
        let shield = Shield::in_front_of(&origin).start().await;
        let culprit = shield.crowd(1, evil()).await;
        origin.wait_hits(PATH, 1).await;
        let others = shield.crowd(5, get(PATH)).await;
        shield.wait_gauge(WAITERS, |waiting| waiting >= 6).await;
        gate.open();
        assert_eq!(culprit.read_all().await[0].status, code);
        for answer in others.read_all().await {
            answer.assert_whole(playlist(1));
        }
    }
}

/// A private error is shared by all who wait, without the fields meant for one viewer.
#[tokio::test]
async fn private_error_is_shared_without_its_body_and_cookie() {
    let errors = [
        status(503).header("Set-Cookie", "id=1"),
        status(503).cache_control("private"),
        status(503).cache_control("no-store"),
    ];
    for error in errors {
        let gate = Gate::new();
        let error = error.body("dear viewer number one").hold_head(&gate);
        let origin = Origin::start().await.on(PATH, error);
        let shield = Shield::in_front_of(&origin).start().await;
        let crowd = shield.crowd(20, get(PATH)).await;
        shield.wait_gauge(WAITERS, |waiting| waiting >= 20).await;
        gate.open();
        for answer in crowd.read_all().await {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert_eq!(answer.header("set-cookie"), None);
            assert!(!answer.text().contains("dear viewer"), "{answer:?}");
        }
        assert_eq!(origin.hits(PATH), 2, "one retry for all of them");
    }
}

/// `proxy-revalidate` does not allow a response to one viewer's credentials to be shared.
#[tokio::test]
async fn proxy_revalidate_does_not_share_authorized_response() {
    let personal = computed(|request| {
        let who = request.header("authorization").unwrap_or("nobody");
        segment(format!("for {who}")).cache_control("proxy-revalidate, max-age=60")
    });
    let origin = Origin::start().await.on("/own.ts", personal);
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.forward_headers = vec![http::header::AUTHORIZATION])
        .start()
        .await;
    for who in ["alice", "bob", "alice"] {
        let answer = shield
            .ask(get("/own.ts").header("Authorization", who))
            .await;
        answer.assert_whole(format!("for {who}"));
    }
}

/// An error body in a coding that its first reader accepts is not sent to a viewer who does not.
#[tokio::test]
async fn compressed_error_body_is_not_sent_to_plain_viewers() {
    let gate = Gate::new();
    let held = gate.clone();
    let failing = computed(move |request| match request.header("accept-encoding") {
        Some(_) => status(503)
            .header("Content-Encoding", "gzip")
            .body("coded")
            .hold_head(&held),
        None => status(503).body("plain"),
    });
    let origin = Origin::start().await.on(PATH, failing);
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.failure_backoff = Duration::from_hours(1))
        .start()
        .await;
    let modern = shield
        .crowd(1, get(PATH).header("Accept-Encoding", "gzip"))
        .await;
    origin.wait_hits(PATH, 1).await;
    let plain = shield.crowd(3, get(PATH)).await;
    shield.wait_gauge(WAITERS, |waiting| waiting >= 4).await;
    gate.open();
    assert_eq!(modern.read_all().await[0].status, 503);
    let mut plain = plain.read_all().await;
    plain.push(shield.get(PATH).await);
    for answer in plain {
        assert_eq!(
            (answer.status, answer.header("content-encoding")),
            (503, None)
        );
        assert_ne!(answer.text(), "coded");
    }
}

/// Responses of an origin to fields that it rejects.
fn touchy(fault: impl Fn() -> Reply + Send + Sync + 'static) -> Script {
    computed(move |request| {
        let lines = ["via", "cdn-loop", "user-agent", "x-trace"];
        let is_evil = |name: &&str| request.header(name).is_some_and(|it| it.contains("evil"));
        if lines.iter().any(is_evil) {
            fault()
        } else {
            segment("good").cache_control("max-age=1, stale-if-error=60")
        }
    })
}

fn faults() -> Vec<Reply> {
    let kept = |code| status(code).cache_control("max-age=60");
    vec![
        status(500),
        status(503).header("Retry-After", "9"),
        status(429),
        kept(400),
        kept(403),
        kept(404),
        kept(404).cache_control("no-store"),
        kept(405),
        kept(410),
        kept(413),
        kept(414),
        kept(431),
        kept(501),
        segment("evil").cache_control("no-store"),
        hang_up(),
    ]
}

const FIELDS: [&str; 4] = ["Via", "CDN-Loop", "User-Agent", "X-Trace"];

async fn with_unkeyed_fields(origin: &Origin) -> Shield {
    let unkeyed = vec!["user-agent".parse().unwrap(), "x-trace".parse().unwrap()];
    Shield::in_front_of(origin)
        .route(|route| {
            route.unkeyed_headers = unkeyed;
            route.lifetimes.negative_max = Duration::from_hours(1);
        })
        .origin(|group| group.guards.breaker.failed_urls_min = 1000)
        .proxy_settings(|waits| {
            waits.failure_backoff = Duration::from_hours(1);
            waits.uncacheable_ttl = Duration::from_hours(1);
        })
        .start()
        .await
}

/// An error that one viewer's unkeyed field provokes is not remembered for others.
#[tokio::test]
async fn error_provoked_by_unkeyed_field_is_not_remembered() {
    for (number, fault) in faults().into_iter().enumerate() {
        for field in FIELDS {
            let fault = fault.clone();
            let origin = Origin::start()
                .await
                .on("/1.ts", touchy(move || fault.clone()));
            let shield = with_unkeyed_fields(&origin).await;
            shield.ask(get("/1.ts").header(field, "evil")).await;
            shield.get("/1.ts").await.assert_whole("good");
            let hits = origin.hits("/1.ts");
            shield.get("/1.ts").await.assert_whole("good");
            assert_eq!(origin.hits("/1.ts"), hits, "{field}, fault {number}");
        }
    }
}

/// Nor is it shared with those who wait for the same object, nor does it drop a stored one.
#[tokio::test]
async fn error_provoked_by_unkeyed_field_is_not_shared() {
    // All but the one without a head that could be stored.
    let faults = faults().into_iter().rev().skip(1);
    for (number, fault) in faults.enumerate() {
        for field in ["CDN-Loop", "User-Agent"] {
            let (gate, fault) = (Gate::new(), fault.clone());
            let held = gate.clone();
            let script = touchy(move || fault.clone().hold_head(&held));
            let origin = Origin::start().await.on("/1.ts", script);
            let shield = with_unkeyed_fields(&origin).await;
            let culprit = shield.crowd(1, get("/1.ts").header(field, "evil")).await;
            origin.wait_hits("/1.ts", 1).await;
            let others = shield.crowd(5, get("/1.ts")).await;
            shield.wait_gauge(WAITERS, |waiting| waiting >= 6).await;
            gate.open();
            culprit.read_all().await;
            for answer in others.read_all().await {
                answer.assert_whole("good");
            }
            let label = format!("{field}, fault {number}");
            assert!(origin.hits("/1.ts") <= 3, "{label}: one for the others");
        }
    }
    let gone = touchy(|| status(404).cache_control("max-age=60"));
    let origin = Origin::start().await.on("/1.ts", gone);
    let shield = with_unkeyed_fields(&origin).await;
    let old = segment("good")
        .cache_control("max-age=1, stale-if-error=60")
        .age(10);
    origin.set_script("/1.ts", old.then(status(404)).then(segment("good")));
    shield.get("/1.ts").await.assert_whole("good");
    let answer = shield.ask(get("/1.ts").header("CDN-Loop", "evil")).await;
    answer.assert_whole("good");
    assert_eq!(
        origin.latest("/1.ts").header("cdn-loop"),
        Some(NAME),
        "asked without his words"
    );
}

/// A refused viewer does not get a response that another viewer's credentials brought, whichever
/// field carries them.
#[tokio::test]
async fn forwarded_header_is_part_of_the_cache_key() {
    const PATHS: [&str; 2] = ["/own.ts", "/own.vtt"];
    for field in ["x-token", "authorization", "cookie", "user-agent"] {
        let door = move |body: String| {
            computed(move |request| match request.header(field) {
                Some(who) if who.contains("good") => {
                    segment(format!("{who} {body}")).cache_control("public, max-age=60")
                }
                _ => status(403),
            })
        };
        let origin = Origin::start()
            .await
            .on(PATHS[0], door("media".to_owned()))
            .on(PATHS[1], door("other".to_owned()));
        let shield = Shield::in_front_of(&origin)
            .route(|route| route.forward_headers = vec![field.parse().unwrap()])
            .start()
            .await;
        for path in PATHS {
            let ask = |who| get(path).header(field, who);
            for who in ["good one", "good two", "good one"] {
                let answer = shield.ask(ask(who)).await;
                assert!(answer.text().starts_with(who), "{field}: {answer:?}");
            }
            assert_eq!(origin.hits(path), 2, "{field}: each is held");
            assert_eq!(shield.ask(ask("bad")).await.status, 403, "{field}");
            assert_eq!(shield.get(path).await.status, 403, "{field}");
            assert_eq!(shield.ask(ask("good one")).await.status, 200, "{field}");
        }
        let hits = origin.hits(PATHS[0]);
        shield.purge(PATHS[0]).await;
        for who in ["good one", "good two"] {
            shield.ask(get(PATHS[0]).header(field, who)).await;
        }
        assert_eq!(origin.hits(PATHS[0]), hits + 2, "{field}: all were purged");
    }
}
