//! `explain` tells an operator which route takes a URL, what is stored and which rule decides for
//! how long, which endpoint would be used, and when the next poll is due.

use serde_json::Value;

use crate::support::{Origin, Shield, eventually, get, manifest, playlist, segment};

const PATH: &str = "/live/index.m3u8";

async fn explained(shield: &Shield, path: &str) -> Value {
    let url = format!("http%3A%2F%2Fmedia.test{}", path.replace('?', "%3F"));
    let answer = shield.admin(get(&format!("/explain?url={url}"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_str(answer.text()).unwrap()
}

#[tokio::test]
async fn explain_describes_live_playlist() {
    let live = manifest(playlist(7)).cache_control("max-age=60");
    let origin = Origin::start().await.on(PATH, live);
    let shield = Shield::in_front_of(&origin).start().await;
    let before = explained(&shield, PATH).await;
    assert_eq!(
        (&before["kind"], &before["held"]),
        (&"hls".into(), &Value::Null)
    );
    assert_eq!(before["endpoint"], format!("http://{}", origin.address()));
    assert_eq!(origin.hits(PATH), 0, "explain sends no request");
    shield.get(PATH).await;
    let explanation = explained(&shield, PATH).await;
    let held = &explanation["held"];
    assert_eq!(held["state"], "fresh");
    assert_eq!(held["fresh_for_seconds"], 3.0);
    assert_eq!(held["because"], "half a target duration of the playlist");
    assert_eq!(held["stale_if_error_seconds"], 60.0);
    let edge = &explanation["manifest"]["edge"];
    assert_eq!((&edge["first"], &edge["last"]), (&7.into(), &9.into()));
    let followed = &explanation["followed"];
    assert_eq!(followed["stream"], PATH);
    assert_eq!(followed["is_stalled"], false);
    shield.get(PATH).await;
    let followed = &explained(&shield, PATH).await["followed"];
    assert!(followed["idle_seconds"].is_number(), "{followed}");
}

#[tokio::test]
async fn explain_shows_segment_target_without_cmcd() {
    let origin = Origin::start().await.on("/live/a.ts", segment("a"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.name = "sport".into())
        .start()
        .await;
    shield.get("/live/a.ts").await;
    let explanation = explained(&shield, "/live/a.ts?CMCD=br%3D5").await;
    assert_eq!(explanation["route"], "sport");
    assert_eq!(explanation["target"], "/live/a.ts");
    assert_eq!(
        explanation["held"]["because"],
        "the route's default: no other rule applies"
    );
}

#[tokio::test]
async fn explain_says_that_responses_are_not_stored() {
    let own = segment("mine").cache_control("private");
    let origin = Origin::start().await.on("/live/a.ts", own);
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get("/live/a.ts").await;
    let explanation = explained(&shield, "/live/a.ts").await;
    let known = explanation["known"].as_str().unwrap_or_default();
    assert!(
        known.starts_with("answers to it are not kept"),
        "{explanation}"
    );
}

#[tokio::test]
async fn explain_answers_404_when_no_route_matches() {
    let origin = Origin::start().await;
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.hosts = vec!["media.test".to_owned()])
        .start()
        .await;
    let answer = shield
        .admin(get("/explain?url=http://other.test/a.ts"))
        .await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("no route serves this host and path"));
    assert_eq!(shield.admin(get("/explain?url=/a.ts")).await.status, 400);
}

/// An unwatched manifest is not polled: an old version says nothing about the origin.
#[tokio::test]
async fn explain_does_not_report_unwatched_stream_as_stalled() {
    let text = playlist(7).replace("TARGETDURATION:6", "TARGETDURATION:1");
    let origin = Origin::start().await.on(PATH, manifest(text));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await;
    eventually("the playlist to be older than it may get", async || {
        let explanation = explained(&shield, PATH).await;
        assert_eq!(
            explanation["followed"]["is_stalled"], false,
            "{explanation}"
        );
        explanation["held"]["age_seconds"].as_f64() > Some(4.0)
    })
    .await;
}
