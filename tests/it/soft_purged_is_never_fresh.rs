//! What a soft purge selects is served as stale at most, while one request to the origin brings the
//! new object, or while the origin fails.

use serde_json::Value;

use crate::support::metrics::{PURGED_OBJECTS, PURGES};
use crate::support::origin::Reply;
use crate::support::{
    Gate, Origin, Response, Shield, eventually, get, manifest, noise, percent_encoded, playlist,
    segment, status,
};

const PATH: &str = "/a/1.ts";

/// A segment that may be served stale while it is refreshed.
fn lasting(body: &'static str) -> Reply {
    segment(body)
        .etag(&format!("\"{body}\""))
        .cache_control("max-age=600, stale-while-revalidate=60, stale-if-error=600")
}

fn url(target: &str) -> String {
    percent_encoded(&format!("http://shield.test{target}"))
}

/// A purge of [`PATH`] by each scope.
fn scopes() -> Vec<String> {
    let of_url = |scope: &str, target: &str| format!("{scope}={}", url(target));
    vec![
        of_url("url", PATH),
        of_url("path", PATH),
        of_url("prefix", "/a/"),
        of_url("stream", "/a/i.m3u8"),
        "host=shield.test".to_owned(),
        "tag=film".to_owned(),
        "all".to_owned(),
    ]
}

async fn purge_softly(shield: &Shield, scope: &str) -> Value {
    shield.purge_answer(&format!("{scope}&soft")).await
}

/// Fails unless every cache that gets this response takes it for stale.
#[track_caller]
fn assert_stale(response: &Response) {
    let said = response.header("cache-control").unwrap_or_default();
    let max_age = said
        .rsplit("max-age=")
        .next()
        .and_then(|age| age.parse().ok());
    assert!(
        max_age.is_some_and(|max_age: u64| max_age <= response.age()),
        "{response:?}"
    );
    assert!(!said.contains("s-maxage"), "{response:?}");
}

#[tokio::test]
async fn every_scope_leaves_one_stale_response_and_one_conditional_request() {
    for scope in scopes() {
        let gate = Gate::new();
        let tagged = |reply: Reply| reply.header("Cache-Tag", "film");
        let confirmed = status(304).cache_control("max-age=600").hold_head(&gate);
        let origin = Origin::start()
            .await
            .on(PATH, tagged(lasting("x")).then(confirmed))
            .on(
                "/a/i.m3u8",
                manifest("#EXTM3U\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n"),
            );
        let shield = Shield::in_front_of(&origin).start().await;
        shield.get("/a/i.m3u8").await;
        assert_eq!(shield.are_hits(&[PATH, PATH]).await, [false, true]);
        let answer = purge_softly(&shield, &scope).await;
        assert_eq!(
            (&answer["soft"], &answer["purged"]),
            (&true.into(), &true.into()),
            "{answer}"
        );
        for response in shield.crowd(10, get(PATH)).await.read_all().await {
            response.assert_whole("x");
            assert_stale(&response);
        }
        origin.wait_hits(PATH, 2).await;
        assert_eq!(
            origin.latest(PATH).header("if-none-match"),
            Some("\"x\""),
            "{scope}"
        );
        gate.open();
        eventually("it to be fresh again", async || {
            let response = shield.get(PATH).await;
            response.header("cache-control") == Some("max-age=600")
        })
        .await;
        assert_eq!(origin.hits(PATH), 2, "{scope}");
    }
}

#[tokio::test]
async fn nothing_else_becomes_stale() {
    let mut origin = Origin::start().await;
    for target in [PATH, "/b/1.ts", "/a/1.ts.1"] {
        origin = origin.on(target, lasting("x"));
    }
    let shield = Shield::in_front_of(&origin).start().await;
    shield.are_hits(&[PATH, "/b/1.ts", "/a/1.ts.1"]).await;
    purge_softly(&shield, &format!("path={}", url(PATH))).await;
    shield.are_hits(&["/b/1.ts", "/a/1.ts.1"]).await;
    assert_eq!((origin.hits("/b/1.ts"), origin.hits("/a/1.ts.1")), (1, 1));
    let (scope, mode) = (("scope", "path"), ("mode", "soft"));
    assert_eq!(shield.counter(PURGES, &[scope, mode]).await, 1);
    assert_eq!(shield.counter(PURGED_OBJECTS, &[]).await, 1);
}

/// By default a segment may be stale only when the origin fails: viewers wait for its answer.
#[tokio::test]
async fn failing_origin_leaves_the_stale_object() {
    let origin = Origin::start()
        .await
        .on(PATH, segment("old").then(status(503)));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("old");
    purge_softly(&shield, "all").await;
    let stale = shield.get(PATH).await;
    stale.assert_whole("old");
    assert_stale(&stale);
    assert_eq!(origin.hits(PATH), 2);
    origin.stop().await;
    shield.get(PATH).await.assert_whole("old");
}

#[tokio::test]
async fn object_that_may_not_be_stale_is_dropped() {
    for strict in ["must-revalidate", "proxy-revalidate", "stale-if-error=0"] {
        let old = segment("old").cache_control(&format!("max-age=600, {strict}"));
        let origin = Origin::start().await.on(PATH, old.then(segment("new")));
        let shield = Shield::in_front_of(&origin).start().await;
        shield.get(PATH).await.assert_whole("old");
        assert_eq!(purge_softly(&shield, "all").await["objects"], 1);
        origin.stop().await;
        assert!(shield.get(PATH).await.status >= 500, "{strict}");
    }
}

/// Who waits already gets what is on its way. It is stored as stale, and no later viewer joins.
#[tokio::test]
async fn fill_in_flight_is_not_fresh() {
    for scope in scopes() {
        // The tag is known with the head only, which comes after the purge.
        let gate = Gate::new();
        let old = lasting("old").header("Cache-Tag", "film").hold_head(&gate);
        let new = lasting("new").header("Cache-Tag", "film");
        let origin = Origin::start().await.on(PATH, old.then(new)).on(
            "/a/i.m3u8",
            manifest("#EXTM3U\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n"),
        );
        let shield = Shield::in_front_of(&origin).start().await;
        shield.get("/a/i.m3u8").await;
        let before = shield.crowd(2, get(PATH)).await;
        origin.wait_hits(PATH, 1).await;
        purge_softly(&shield, &scope).await;
        let after = shield.crowd(2, get(PATH)).await;
        if !scope.starts_with("tag") {
            origin.wait_hits(PATH, 2).await;
        }
        gate.open();
        for response in before.read_all().await {
            response.assert_whole("old");
        }
        for response in after.read_all().await {
            // The old one may have been stored before the request came.
            if response.body != "new" {
                response.assert_whole("old");
                assert_stale(&response);
            }
        }
        let is_new = |response: &Response| response.body == "new";
        shield.repeat_until(get(PATH), is_new).await;
        assert_eq!(origin.hits(PATH), 2, "{scope}");
    }
}

#[tokio::test]
async fn fill_in_flight_without_later_viewers_is_stored_as_stale() {
    let (gate, body) = (Gate::new(), noise(1, 1000));
    let held = segment(body.slice(..500))
        .cache_control("max-age=600, stale-while-revalidate=60")
        .hold(&gate)
        .send(body.slice(500..));
    let origin = Origin::start().await.on(PATH, held.then(lasting("new")));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut before = shield.begin(get(PATH)).await;
    before.read(500).await;
    purge_softly(&shield, "all").await;
    gate.open();
    before.finish().await.assert_whole(&body);
    let stale = shield.get(PATH).await;
    stale.assert_whole(&body);
    assert_stale(&stale);
    shield
        .repeat_until(get(PATH), |response| response.body == "new")
        .await;
}

#[tokio::test]
async fn repeated_response_ends() {
    let origin = Origin::start()
        .await
        .on(PATH, lasting("old").then(lasting("new")));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    for _ in 0..4 {
        viewer.get(PATH).await.assert_whole("old");
    }
    purge_softly(&shield, "all").await;
    assert_stale(&viewer.get(PATH).await);
    origin.wait_hits(PATH, 2).await;
    shield
        .repeat_until(get(PATH), |response| response.body == "new")
        .await;
}

#[tokio::test]
async fn all_variants_become_stale() {
    const PATH: &str = "/a/1.vtt";
    let varied = |body| lasting(body).header("Vary", "Accept-Encoding");
    let script = varied("old").then(varied("old")).then(varied("new"));
    let origin = Origin::start().await.on(PATH, script);
    let shield = Shield::in_front_of(&origin).start().await;
    let coded = || get(PATH).header("Accept-Encoding", "gzip");
    for asked in [get(PATH), coded()] {
        shield.ask(asked).await.assert_whole("old");
    }
    assert_eq!(
        purge_softly(&shield, &format!("url={}", url(PATH))).await["objects"],
        2
    );
    for asked in [get(PATH), coded()] {
        let first = shield.ask(asked.clone()).await;
        assert_stale(&first);
        shield
            .repeat_until(asked, |response| response.body == "new")
            .await;
    }
}

/// The origin confirms the `ETag`: no slice is fetched again. With another one, all are.
#[tokio::test]
async fn slices_are_used_again_only_when_the_origin_confirms_their_etag() {
    const LENGTH: usize = 1 << 20;
    let named =
        |etag: &'static str, body| segment(bytes::Bytes::new()).etag(etag).with_ranges(body);
    let (old, new) = (noise(1, LENGTH), noise(2, LENGTH));
    let origin = Origin::start().await.on(PATH, named("\"1\"", old.clone()));
    let shield = Shield::in_front_of(&origin).proxy_settings(|settings| {
        settings.whole_fetch_max = 256 << 10;
        settings.slice_bytes = 128 << 10;
    });
    let shield = shield.start().await;
    shield.get(PATH).await.assert_whole(&old);
    assert!(shield.get(PATH).await.is_hit());
    let before = origin.hits(PATH);
    purge_softly(&shield, "all").await;
    shield.get(PATH).await.assert_whole(&old);
    assert_eq!(
        origin.hits(PATH),
        before + 1,
        "only the whole object is asked for"
    );
    purge_softly(&shield, &format!("url={}", url(PATH))).await;
    origin.set_script(PATH, named("\"2\"", new.clone()));
    shield.get(PATH).await.assert_whole(&new);
}

/// The next poll of a live playlist may be far away: the next viewer's request brings the new one.
#[tokio::test]
async fn live_playlist_is_refreshed_at_once() {
    const LIVE: &str = "/live/index.m3u8";
    let version = |first| {
        let reply = manifest(playlist(first).replace(":4", ":600"));
        reply.cache_control("max-age=300, stale-while-revalidate=300")
    };
    let origin = Origin::start().await.on(LIVE, version(1));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    for _ in 0..4 {
        viewer.get(LIVE).await;
    }
    let before = origin.hits(LIVE);
    let gate = Gate::new();
    origin.set_script(LIVE, version(2).hold_head(&gate));
    purge_softly(&shield, &format!("stream={}", url(LIVE))).await;
    for response in shield.crowd(5, get(LIVE)).await.read_all().await {
        assert_stale(&response);
    }
    origin.wait_hits(LIVE, before + 1).await;
    gate.open();
    let fresh = |response: &Response| response.text().contains("MEDIA-SEQUENCE:2");
    shield.repeat_until(get(LIVE), fresh).await;
    assert_eq!(origin.hits(LIVE), before + 1);
}

/// A stream purge that is soft keeps the record of how far the stream has come: an older version
/// does not follow a newer one.
#[tokio::test]
async fn soft_stream_purge_does_not_go_backwards() {
    const LIVE: &str = "/live/index.m3u8";
    let version =
        |first| manifest(playlist(first)).cache_control("max-age=600, stale-while-revalidate=600");
    let origin = Origin::start().await.on(LIVE, version(5000));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(LIVE).await.assert_whole(playlist(5000));
    origin.set_script(LIVE, version(4999));
    purge_softly(&shield, &format!("stream={}", url(LIVE))).await;
    shield.get(LIVE).await.assert_whole(playlist(5000));
    origin.wait_hits(LIVE, 2).await;
    shield.get(LIVE).await.assert_whole(playlist(5000));
}

/// What was made stale is gone after a hard purge.
#[tokio::test]
async fn hard_purge_drops_what_a_soft_one_left() {
    for scope in scopes() {
        let origin = Origin::start()
            .await
            .on(
                PATH,
                lasting("old")
                    .header("Cache-Tag", "film")
                    .then(lasting("new")),
            )
            .on(
                "/a/i.m3u8",
                manifest("#EXTM3U\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n"),
            );
        let shield = Shield::in_front_of(&origin).start().await;
        shield.get("/a/i.m3u8").await;
        shield.get(PATH).await.assert_whole("old");
        purge_softly(&shield, "all").await;
        assert!(shield.purge_query(&scope).await >= 1, "{scope}");
        let new = shield.get(PATH).await;
        new.assert_whole("new");
        assert_eq!(origin.latest(PATH).header("if-none-match"), None, "{scope}");
    }
}

#[tokio::test]
async fn dry_run_of_a_soft_purge_changes_nothing() {
    let origin = Origin::start().await.on(PATH, lasting("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("x");
    let answer = shield.purge_answer("all&soft&dry_run").await;
    assert_eq!(answer["objects"], 1, "{answer}");
    assert_eq!(answer["purged"], false, "{answer}");
    let response = shield.get(PATH).await;
    assert!(
        response
            .header("cache-control")
            .is_some_and(|said| said.contains("max-age=600"))
    );
    assert_eq!(origin.hits(PATH), 1);
}
