//! Where a route says that objects of a kind are no viewer's own, they are stored although the
//! origin sends cookies, `private` or `no-store` with them, and nobody gets the cookies.

use seawall_manifest::Kind;

use crate::support::metrics::PRIVATE_OVERRIDDEN;
use crate::support::{Origin, Shield, computed, ended_playlist, get, manifest, segment, status};

const SEGMENT: &str = "/vod/1.ts";

#[tokio::test]
async fn kind_is_stored_despite_cookie_private_and_no_store() {
    for reply in [
        segment("x").header("Set-Cookie", "session=1"),
        segment("x").cache_control("private, max-age=60"),
        segment("x").cache_control("no-store"),
    ] {
        let reply = reply.header("X-Other", "1");
        let origin = Origin::start().await.on(SEGMENT, reply).on(
            "/vod/i.m3u8",
            manifest(ended_playlist(1)).cache_control("private"),
        );
        let shield = Shield::in_front_of(&origin)
            .route(|route| route.store_private = vec![Kind::Segment])
            .start()
            .await;
        for is_hit in [false, true] {
            let response = shield.get(SEGMENT).await;
            response.assert_whole("x");
            assert_eq!(response.is_hit(), is_hit, "{response:?}");
            assert_eq!(response.header("set-cookie"), None);
            assert_eq!(response.header("x-other"), Some("1"));
            let said = response.header("cache-control").unwrap_or_default();
            assert!(
                !said.contains("private") && !said.contains("no-store"),
                "{said}"
            );
        }
        assert_eq!(shield.counter(PRIVATE_OVERRIDDEN, &[]).await, 1);
        // Another kind is each viewer's own.
        shield.get("/vod/i.m3u8").await;
        assert!(!shield.get("/vod/i.m3u8").await.is_hit());
        assert_eq!(origin.hits(SEGMENT), 1);
    }
}

/// An error may well be one viewer's own; and so is what is sent for a viewer's credentials.
#[tokio::test]
async fn errors_and_authorized_responses_stay_private() {
    let refusal = status(403)
        .cache_control("private")
        .header("Set-Cookie", "session=1");
    let own = segment("x")
        .cache_control("private, s-maxage=60")
        .header("Set-Cookie", "session=1");
    let origin = Origin::start()
        .await
        .on(SEGMENT, refusal)
        .on("/vod/2.ts", own);
    let shield = Shield::in_front_of(&origin)
        .route(|route| {
            route.store_private = vec![Kind::Segment];
            route.forward_headers = vec!["authorization".parse().unwrap()];
        })
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(
            shield.get(SEGMENT).await.header("set-cookie"),
            Some("session=1")
        );
        let asked = get("/vod/2.ts").header("Authorization", "Basic eA==");
        let response = shield.ask(asked).await;
        assert_eq!(response.header("set-cookie"), Some("session=1"));
        assert!(!response.is_hit(), "{response:?}");
    }
    assert_eq!(origin.hits("/vod/2.ts"), 2);
}

/// What an origin says when it confirms a stored object changes nothing of that either.
#[tokio::test]
async fn confirmation_with_a_cookie_keeps_the_object_shared() {
    let reply = computed(|request| {
        let reply = match request.header("if-none-match") {
            Some(_) => status(304),
            None => segment("x"),
        };
        reply
            .header("ETag", "\"1\"")
            .cache_control("private, no-cache")
            .header("Set-Cookie", "session=1")
    });
    let origin = Origin::start().await.on(SEGMENT, reply);
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.store_private = vec![Kind::Segment])
        .start()
        .await;
    for asked in 1..=3 {
        let response = shield.get(SEGMENT).await;
        response.assert_whole("x");
        assert_eq!(response.header("set-cookie"), None, "{response:?}");
        assert_eq!(origin.hits(SEGMENT), asked);
        let conditional = origin.latest(SEGMENT).header("if-none-match").is_some();
        assert_eq!(conditional, asked > 1);
    }
}
