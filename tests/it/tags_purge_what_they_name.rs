//! A purge of a tag drops all objects that have it, and no other: whatever brought them, also what
//! is being fetched and turns out to have it.

use http::Method;

use crate::support::metrics::{STORED, STORED_BYTES, TAGS, TAGS_OVERFLOWED};
use crate::support::{
    Gate, Origin, Shield, ask, ended_playlist, eventually, get, manifest, noise, segment, status,
};

#[tokio::test]
async fn tag_purge_drops_all_and_only_its_objects() {
    let tagged = |name: &'static str, value: &'static str| segment("x").header(name, value);
    let origin = Origin::start()
        .await
        .on("/a.ts", tagged("Surrogate-Key", "film-1 all"))
        .on("/b.ts", tagged("Cache-Tag", "all, film-2"))
        .on("/c.ts", tagged("Cache-Groups", "\"film-1\";x=1, \"g\""))
        .on(
            "/i.m3u8",
            manifest(ended_playlist(1)).header("Cache-Tag", "film-1"),
        )
        .on("/film-1.ts", segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    let targets = ["/a.ts", "/b.ts", "/c.ts", "/i.m3u8", "/film-1.ts"];
    shield.are_hits(&targets).await;
    let dry = shield.purge_answer("tag=film-1&dry_run").await;
    assert_eq!(dry["objects"], 3, "{dry}");
    assert_eq!(shield.are_hits(&targets).await, [true; 5]);
    let answer = shield.purge_answer("tag=film-1").await;
    assert_eq!(
        (&answer["objects"], &answer["bytes"]),
        (&dry["objects"], &dry["bytes"])
    );
    assert_eq!(
        shield.are_hits(&targets).await,
        [false, true, false, false, true]
    );
    assert_eq!(shield.purge_query("tag=all&tag=none").await, 2);
    assert_eq!(
        shield.are_hits(&targets).await,
        [false, false, true, true, true]
    );
    assert_eq!(shield.purge_query("tag=FILM-1").await, 0);
    let other = shield
        .admin(ask("POST", "/purge?tag=all&origin=none"))
        .await;
    assert_eq!(other.status, 404);
}

#[tokio::test]
async fn viewers_see_tags_only_if_the_route_shows_them() {
    let names = ["surrogate-key", "cache-tag", "cache-groups"];
    for shows in [true, false] {
        let mut tagged = segment("x").etag("\"1\"").cache_control("max-age=60");
        let mut passed = segment("x").cache_control("no-store");
        for name in names {
            tagged = tagged.header(name, "\"a\"");
            passed = passed.header(name, "\"a\"");
        }
        let origin = Origin::start()
            .await
            .on("/a.ts", tagged)
            .on("/b.ts", passed);
        let shield = Shield::in_front_of(&origin)
            .route(|route| route.show_tags = shows)
            .start()
            .await;
        for target in ["/a.ts", "/a.ts", "/a.ts", "/b.ts", "/b.ts"] {
            let answer = shield.get(target).await;
            for name in names {
                assert_eq!(answer.header(name).is_some(), shows, "{target}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn slices_and_variants_go_too() {
    let body = noise(1, 1 << 20);
    let large = segment(bytes::Bytes::new())
        .etag("\"1\"")
        .header("Surrogate-Key", "a")
        .with_ranges(body.clone());
    let varied = segment("x")
        .header("Vary", "Accept-Encoding")
        .header("Cache-Tag", "a");
    let origin = Origin::start()
        .await
        .on("/large.ts", large)
        .on("/1.vtt", varied);
    let shield = Shield::in_front_of(&origin).proxy_settings(|settings| {
        settings.whole_fetch_max = 256 << 10;
        settings.slice_bytes = 128 << 10;
    });
    let shield = shield.start().await;
    for coding in ["gzip", "identity"] {
        let asked = get("/1.vtt").header("Accept-Encoding", coding);
        shield.ask(asked).await.assert_whole("x");
    }
    shield.get("/large.ts").await.assert_whole(&body);
    assert!(shield.get("/large.ts").await.is_hit());
    let asked = origin.hits("/large.ts");
    assert_eq!(shield.purge_query("tag=a").await, 10);
    shield.get("/large.ts").await.assert_whole(&body);
    assert!(origin.hits("/large.ts") >= asked + 8);
}

#[tokio::test]
async fn revalidation_with_other_tags_changes_them() {
    let stale = || {
        segment("x")
            .etag("\"1\"")
            .cache_control("max-age=1")
            .age(10)
    };
    let confirmed = || status(304).cache_control("max-age=60");
    let script = stale()
        .header("Cache-Tag", "old")
        .then(confirmed().header("Cache-Tag", "new"));
    let origin = Origin::start().await.on("/a.ts", script).on(
        "/b.ts",
        stale().header("Cache-Tag", "old").then(confirmed()),
    );
    let shield = Shield::in_front_of(&origin).start().await;
    for target in ["/a.ts", "/a.ts", "/b.ts", "/b.ts"] {
        shield.get(target).await;
    }
    eventually("both to be confirmed", async || {
        shield.are_hits(&["/a.ts", "/b.ts"]).await == [true; 2]
    })
    .await;
    assert_eq!(shield.purge_query("tag=old").await, 1);
    assert!(shield.get("/a.ts").await.is_hit());
    assert_eq!(shield.purge_query("tag=new").await, 1);
}

/// The response's tags are known only when its head arrives, after the purge. Who joined before the
/// purge gets it; it is not stored, and who came later gets a new one.
#[tokio::test]
async fn tag_purged_before_the_head_is_not_stored() {
    let gate = Gate::new();
    let old = segment("old").header("Cache-Tag", "a").hold_head(&gate);
    let new = segment("new").header("Cache-Tag", "a");
    let origin = Origin::start().await.on("/a.ts", old.then(new));
    let shield = Shield::in_front_of(&origin).start().await;
    let before = shield.crowd(3, get("/a.ts")).await;
    origin.wait_hits("/a.ts", 1).await;
    assert_eq!(shield.purge_query("tag=a").await, 0);
    let after = shield.crowd(3, get("/a.ts")).await;
    gate.open();
    for answer in before.read_all().await {
        answer.assert_whole("old");
    }
    for answer in after.read_all().await {
        answer.assert_whole("new");
    }
    assert!(shield.get("/a.ts").await.assert_whole("new").is_hit());
    assert_eq!(origin.hits("/a.ts"), 2);
}

#[tokio::test]
async fn purge_of_another_tag_before_the_head_changes_nothing() {
    let gate = Gate::new();
    let held = segment("x").header("Cache-Tag", "a").hold_head(&gate);
    let origin = Origin::start().await.on("/a.ts", held);
    let shield = Shield::in_front_of(&origin).start().await;
    let before = shield.crowd(1, get("/a.ts")).await;
    origin.wait_hits("/a.ts", 1).await;
    shield.purge_query("tag=b").await;
    let after = shield.crowd(1, get("/a.ts")).await;
    gate.open();
    before.read_all().await;
    after.read_all().await;
    assert!(shield.get("/a.ts").await.assert_whole("x").is_hit());
    assert_eq!(origin.hits("/a.ts"), 1);
}

#[tokio::test]
async fn repeated_response_ends_with_its_tag() {
    let tagged = |text: &'static str| segment(text).header("Cache-Tag", "a");
    let origin = Origin::start()
        .await
        .on("/a.ts", tagged("old").then(tagged("new")));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    for _ in 0..4 {
        viewer.ask(get("/a.ts")).await.assert_whole("old");
    }
    assert_eq!(shield.purge_query("tag=a").await, 1);
    viewer.ask(get("/a.ts")).await.assert_whole("new");
}

#[tokio::test]
async fn unique_tags_per_object_stay_within_memory() {
    let mut origin = Origin::start().await;
    let targets: Vec<String> = (0..300).map(|number| format!("/{number}.ts")).collect();
    for (number, target) in targets.iter().enumerate() {
        let names: Vec<String> = (0..50).map(|tag| format!("{number}-{tag:0>100}")).collect();
        let tagged = segment("x").header("Surrogate-Key", names.join(" "));
        origin = origin.on(target, tagged);
    }
    let memory = 2 << 20;
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.memory_bytes = memory)
        .start()
        .await;
    for target in &targets {
        shield.get(target).await;
        assert!(shield.gauge(STORED_BYTES).await <= memory);
    }
    // Each takes some 20 KB, nearly all of them for its tags.
    assert!((50..150).contains(&shield.gauge(STORED).await));
    assert!(shield.gauge(TAGS).await <= 50 * 150);
    shield.purge_query("all").await;
    assert_eq!(shield.gauge(TAGS).await, 0);
}

/// An object with too many tags goes with any tag of its origin.
#[tokio::test]
async fn too_many_tags_are_purged_by_any() {
    let many: Vec<String> = (0..65).map(|tag| tag.to_string()).collect();
    let tag = |value: &str| segment("x").header("Surrogate-Key", value);
    let origin = Origin::start()
        .await
        .on("/many.ts", tag(&many.join(" ")))
        .on("/one.ts", tag("a"))
        .on("/two.ts", tag("b"));
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.tags_max = 2)
        .start()
        .await;
    shield.are_hits(&["/many.ts", "/one.ts", "/two.ts"]).await;
    assert_eq!(shield.counter(TAGS_OVERFLOWED, &[]).await, 2);
    assert_eq!(shield.purge_query("tag=none").await, 2);
    let left = shield.are_hits(&["/many.ts", "/one.ts", "/two.ts"]).await;
    assert_eq!(left, [false, true, false]);
}

#[tokio::test]
async fn post_invalidates_group_of_its_own_origin_only_and_get_none() {
    let grouped = || segment("x").header("Cache-Groups", "\"g\"");
    let invalidates = || status(200).header("Cache-Group-Invalidation", "\"g\";p=\"h\"");
    let origin = Origin::start()
        .await
        .on("/a.ts", grouped())
        .on("/h.ts", segment("x").header("Cache-Groups", "\"h\""))
        .on("/tag.ts", segment("x").header("Cache-Tag", "g"))
        .on("/edit", invalidates());
    let shield = Shield::in_front_of(&origin)
        .route(|route| {
            route.pass_methods = true;
            route.forward_host = true;
        })
        .start()
        .await;
    let targets = ["/a.ts", "/h.ts", "/tag.ts"];
    shield.are_hits(&targets).await;
    shield.ask(get("/a.ts").host("other.test")).await;
    shield.get("/edit").await;
    assert_eq!(shield.are_hits(&targets).await, [true; 3]);
    let edit = ask(Method::POST.as_str(), "/edit");
    assert_eq!(shield.ask(edit).await.status, 200);
    assert_eq!(shield.are_hits(&targets).await, [false, true, true]);
    assert!(shield.ask(get("/a.ts").host("other.test")).await.is_hit());
}
