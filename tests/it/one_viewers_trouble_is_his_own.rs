//! What one viewer's request provokes at the origin is not done to anybody else.

use std::time::Duration;

use crate::support::metrics::WAITERS;
use crate::support::viewer::Ask;
use crate::support::{Gate, Origin, Shield, answering, get, manifest, playlist, segment, status};

const PATH: &str = "/live/index.m3u8";

/// A request that an origin may take offence at.
fn evil() -> Ask {
    get(PATH).header("CDN-Loop", "evil")
}

/// A refusal is for the one who provoked it. What is held stays held, and the next viewers share one
/// request as ever.
#[tokio::test]
async fn a_provoked_refusal_costs_the_others_nothing() {
    for code in [400, 401, 403, 508] {
        let (gate, old) = (Gate::new(), manifest(playlist(1)).header("ETag", "\"1\""));
        let old = old.cache_control("max-age=1, stale-if-error=60").age(10);
        let origin = Origin::start().await.on(PATH, old.then(status(code)));
        let shield = Shield::in_front_of(&origin)
            .waits(|waits| waits.stale_wait_max = Duration::from_hours(1))
            .start()
            .await;
        shield.get(PATH).await.is_whole(playlist(1));
        assert_eq!(shield.ask(evil()).await.status, code);
        let new = manifest(playlist(2)).cache_control("max-age=60");
        origin.now(PATH, new.hold_head(&gate));
        let crowd = shield.crowd(10, get(PATH)).await;
        origin.wait_hits(PATH, 3).await;
        shield.wait_gauge(WAITERS, |waiting| waiting >= 10).await;
        gate.open();
        for answer in crowd.answers().await {
            answer.is_whole(playlist(2));
        }
        assert_eq!(origin.hits(PATH), 3, "after {code}");
        let asked = origin.latest(PATH);
        assert_eq!(asked.header("if-none-match"), Some("\"1\""), "after {code}");
    }
}

/// Who waited for a request that was refused is not refused with it.
#[tokio::test]
async fn a_provoked_refusal_is_not_shared() {
    for code in [400, 401, 403, 508] {
        let gate = Gate::new();
        let held = gate.clone();
        let script = answering(move |request| match request.header("cdn-loop") {
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
        assert_eq!(culprit.answers().await[0].status, code);
        for answer in others.answers().await {
            answer.is_whole(playlist(1));
        }
    }
}

/// An error that is meant for one viewer is shared by all who wait, but not what it says to him.
#[tokio::test]
async fn a_private_error_is_told_in_our_own_words() {
    let errors = [
        status(503).header("Set-Cookie", "id=1"),
        status(503).cache_control("private"),
    ];
    for error in errors {
        let gate = Gate::new();
        let error = error.body("dear viewer number one").hold_head(&gate);
        let origin = Origin::start().await.on(PATH, error);
        let shield = Shield::in_front_of(&origin).start().await;
        let crowd = shield.crowd(20, get(PATH)).await;
        shield.wait_gauge(WAITERS, |waiting| waiting >= 20).await;
        gate.open();
        for answer in crowd.answers().await {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert_eq!(answer.header("set-cookie"), None);
            assert!(!answer.text().contains("dear viewer"), "{answer:?}");
        }
        assert_eq!(origin.hits(PATH), 2, "one retry for all of them");
    }
}

/// `proxy-revalidate` does not say that an answer to one viewer's credentials may be shared.
#[tokio::test]
async fn credentials_open_the_door_for_one() {
    let personal = answering(|request| {
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
        answer.is_whole(format!("for {who}"));
    }
}

/// An error page in a coding that its first reader takes is not given so to one who does not.
#[tokio::test]
async fn a_coded_error_page_is_for_those_who_can_read_it() {
    let gate = Gate::new();
    let held = gate.clone();
    let failing = answering(move |request| match request.header("accept-encoding") {
        Some(_) => status(503)
            .header("Content-Encoding", "gzip")
            .body("coded")
            .hold_head(&held),
        None => status(503).body("plain"),
    });
    let origin = Origin::start().await.on(PATH, failing);
    let shield = Shield::in_front_of(&origin)
        .waits(|waits| waits.failure_backoff = Duration::from_hours(1))
        .start()
        .await;
    let modern = shield
        .crowd(1, get(PATH).header("Accept-Encoding", "gzip"))
        .await;
    origin.wait_hits(PATH, 1).await;
    let plain = shield.crowd(3, get(PATH)).await;
    shield.wait_gauge(WAITERS, |waiting| waiting >= 4).await;
    gate.open();
    assert_eq!(modern.answers().await[0].status, 503);
    let mut plain = plain.answers().await;
    plain.push(shield.get(PATH).await);
    for answer in plain {
        assert_eq!(
            (answer.status, answer.header("content-encoding")),
            (503, None)
        );
        assert_ne!(answer.text(), "coded");
    }
}
