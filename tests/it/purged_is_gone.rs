//! A purged object is never served again, whatever requests for it were in progress.

use crate::support::{
    Gate, Origin, Shield, ask, computed, get, manifest, noise, playlist, segment, status,
};

const PATH: &str = "/vod/seg1.ts";

#[tokio::test]
async fn purged_objects_are_fetched_again() {
    let origin = Origin::start()
        .await
        .on(PATH, segment("old").then(segment("new")));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("old");
    assert!(shield.get(PATH).await.assert_whole("old").is_hit());
    shield.purge(PATH).await;
    shield.get(PATH).await.assert_whole("new");
    assert_eq!(origin.hits(PATH), 2);
}

/// A purge drops every variant, and nothing else.
#[tokio::test]
async fn purge_drops_all_variants_and_no_other_object() {
    // Subtitles, because media are requested without a coding.
    const PATH: &str = "/vod/1.vtt";
    let varied = || segment("old").header("Vary", "Accept-Encoding");
    let script = varied().then(varied()).then(segment("new"));
    let origin = Origin::start()
        .await
        .on(PATH, script)
        .on("/vod/seg2.ts", segment("two"));
    let shield = Shield::in_front_of(&origin).start().await;
    let modern = || get(PATH).header("Accept-Encoding", "gzip");
    shield.get(PATH).await.assert_whole("old");
    shield.ask(modern()).await.assert_whole("old");
    shield.get("/vod/seg2.ts").await.assert_whole("two");
    shield.purge(PATH).await;
    shield.get(PATH).await.assert_whole("new");
    shield.ask(modern()).await.assert_whole("new");
    assert!(shield.get("/vod/seg2.ts").await.is_hit());
}

/// Purge during a fill. Viewers of the fill get it whole; later requests get the new
/// object.
#[tokio::test]
async fn purge_during_fill_does_not_store_old_object() {
    let (gate, old) = (Gate::new(), noise(1, 1000));
    let half = segment(old.slice(..500)).hold(&gate).send(old.slice(500..));
    let origin = Origin::start().await.on(PATH, half.then(segment("new")));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut before = shield.begin(get(PATH)).await;
    before.read(500).await;
    shield.purge(PATH).await;
    shield.get(PATH).await.assert_whole("new");
    gate.open();
    before.finish().await.assert_whole(&old);
    assert!(
        shield.get(PATH).await.assert_whole("new").is_hit(),
        "the old fill did not come back"
    );
    assert_eq!(origin.hits(PATH), 2);
}

/// A purge of a manifest whose response head has not arrived.
#[tokio::test]
async fn purge_before_response_head_does_not_store_old_manifest() {
    const PLAYLIST: &str = "/live/index.m3u8";
    let gate = Gate::new();
    let old = manifest(playlist(1))
        .cache_control("max-age=60")
        .hold_head(&gate);
    let new = manifest(playlist(2)).cache_control("max-age=60");
    let origin = Origin::start().await.on(PLAYLIST, old.then(new));
    let shield = Shield::in_front_of(&origin).start().await;
    let before = shield.crowd(3, get(PLAYLIST)).await;
    origin.wait_hits(PLAYLIST, 1).await;
    shield.purge(PLAYLIST).await;
    shield.get(PLAYLIST).await.assert_whole(playlist(2));
    gate.open();
    assert_eq!(before.read_all().await.len(), 3);
    shield.get(PLAYLIST).await.assert_whole(playlist(2));
}

/// Purge during a revalidation. The 304 does not bring the object back.
#[tokio::test]
async fn purge_during_revalidation_is_not_undone_by_304() {
    const PLAYLIST: &str = "/live/index.m3u8";
    let gate = Gate::new();
    let stale = manifest(playlist(1))
        .cache_control("max-age=1, stale-if-error=60")
        .age(10)
        .header("ETag", "\"1\"");
    let confirmed = status(304).cache_control("max-age=60").hold_head(&gate);
    let new = manifest(playlist(2)).cache_control("max-age=60");
    let origin = Origin::start()
        .await
        .on(PLAYLIST, stale.then(confirmed).then(new));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PLAYLIST).await.assert_whole(playlist(1));
    let during = shield.crowd(1, get(PLAYLIST)).await;
    origin.wait_hits(PLAYLIST, 2).await;
    assert!(origin.latest(PLAYLIST).header("if-none-match").is_some());
    shield.purge(PLAYLIST).await;
    gate.open();
    during.read_all().await;
    shield.get(PLAYLIST).await.assert_whole(playlist(2));
    assert_eq!(origin.latest(PLAYLIST).header("if-none-match"), None);
    shield.get(PLAYLIST).await.assert_whole(playlist(2));
}

/// A purge of a URL that is not stored, or that no route serves, gets a response too.
#[tokio::test]
async fn purge_answers_for_unstored_and_unrouted_urls() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.hosts = vec!["media.test".to_owned()])
        .start()
        .await;
    shield.purge("/never/asked.ts").await;
    let elsewhere = ask("POST", "/purge?url=http%3A%2F%2Felsewhere.test%2Fx.ts");
    assert!(shield.admin(elsewhere).await.status >= 400);
    assert!(shield.admin(ask("POST", "/purge")).await.status >= 400);
    shield.get(PATH).await.assert_whole("whole");
}

/// A stream purge drops its manifests, their history, and the objects that they list; nothing else.
#[tokio::test]
async fn stream_purge_drops_manifests_history_and_segments() {
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv0/i.m3u8\n";
    let lasting = |text: String| manifest(text).cache_control("max-age=2");
    let origin = Origin::start()
        .await
        .on("/live/m.m3u8", manifest(master))
        .on("/live/v0/i.m3u8", lasting(playlist(5000)))
        .on("/live/v0/seg1.ts", segment("old"))
        .on("/other/seg1.ts", segment("other"));
    let shield = Shield::in_front_of(&origin).start().await;
    for path in [
        "/live/m.m3u8",
        "/live/v0/i.m3u8",
        "/live/v0/seg1.ts",
        "/other/seg1.ts",
    ] {
        assert_eq!(shield.get(path).await.status, 200);
    }
    // Behind the version that viewers have seen, which the purge has forgotten.
    origin.set_script("/live/v0/i.m3u8", lasting(playlist(4999)));
    origin.set_script("/live/v0/seg1.ts", segment("new"));
    let unknown = shield.admin(ask("POST", "/purge?stream=http://shield.test/none.m3u8"));
    assert_eq!(unknown.await.status, 404);
    shield.purge_stream("/live/m.m3u8").await;
    shield.get("/live/m.m3u8").await.assert_whole(master);
    assert_eq!(origin.hits("/live/m.m3u8"), 2);
    let anew = shield.get("/live/v0/i.m3u8").await;
    anew.assert_whole(playlist(4999));
    shield.get("/live/v0/seg1.ts").await.assert_whole("new");
    assert!(shield.get("/other/seg1.ts").await.is_hit());
}

/// A slice in progress belongs to the purged object, even if the origin gives the new one the same
/// `ETag`.
#[tokio::test]
async fn purge_during_slice_fetch_does_not_store_old_slice() {
    const LENGTH: usize = 1 << 20;
    let (old, new, gate) = (noise(1, LENGTH), noise(2, LENGTH), Gate::new());
    let named = |body| segment(bytes::Bytes::new()).etag("\"1\"").with_ranges(body);
    let (whole, held) = (named(old.clone()), named(old.clone()).hold_head(&gate));
    let script = computed(move |request| match request.header("range") {
        Some(_) => held.clone(),
        None => whole.clone(),
    });
    let origin = Origin::start().await.on(PATH, script);
    let shield = Shield::in_front_of(&origin).proxy_settings(|waits| {
        waits.whole_fetch_max = 256 << 10;
        waits.slice_bytes = 64 << 10;
    });
    let shield = shield.start().await;
    let asked = || get(PATH).range("0-99");
    let before = shield.crowd(1, asked()).await;
    origin.wait_hits(PATH, 2).await;
    assert!(origin.latest(PATH).header("range").is_some());
    shield.purge(PATH).await;
    origin.set_script(PATH, named(new.clone()));
    shield.ask(asked()).await.assert_is(206, &new[..100]);
    gate.open();
    for answer in before.read_all().await {
        answer.assert_is(206, &old[..100]);
    }
    shield.ask(asked()).await.assert_is(206, &new[..100]);
}
