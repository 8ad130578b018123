//! A purge drops everything that it covers (a URL, a stream, a prefix, everything; live and on
//! demand) and reports the number of objects. Fetches in progress are not stored either.

use crate::low_latency_hls::{NEXT, PATH as PLAYLIST, holding, passive, version};
use crate::support::metrics::{FILLS, STORED};
use crate::support::{
    Gate, Origin, Shield, ask, computed, ended_playlist, eventually, get, manifest, noise,
    playlist, reply, segment, status,
};

/// Requests each path; `is_hit` says whether it must be served from memory.
async fn all_are(shield: &Shield, paths: &[&str], is_hit: bool) {
    for path in paths {
        let answer = shield.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.is_hit(), is_hit, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn purge_reports_zero_when_nothing_is_stored() {
    let origin = Origin::start().await.on("/a.ts", segment("a"));
    let shield = Shield::in_front_of(&origin).start().await;
    for query in ["all", "all=true"] {
        assert_eq!(shield.purge_query(query).await, 0);
    }
    for what in ["url", "prefix"] {
        assert_eq!(shield.purge_counted(what, "/a.ts").await, 0);
    }
    shield.get("/a.ts").await;
    assert_eq!(shield.purge_counted("url", "/a.ts").await, 1);
    assert_eq!(shield.purge_counted("url", "/a.ts").await, 0);
    let none = ask("POST", "/purge?stream=http://shield.test/none/x.m3u8");
    assert_eq!(shield.admin(none).await.status, 404);
}

#[tokio::test]
async fn url_purge_counts_every_variant_and_cache_key() {
    let varied = || segment("x").header("Vary", "Accept-Encoding");
    let own = computed(|request| segment(request.header("x-token").unwrap_or("none").to_owned()));
    let origin = Origin::start()
        .await
        .on("/1.vtt", varied())
        .on("/own.ts", own);
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.forward_headers = vec!["x-token".parse().unwrap()]);
    let shield = shield.start().await;
    for coding in ["gzip", "identity"] {
        let asked = get("/1.vtt").header("Accept-Encoding", coding);
        shield.ask(asked).await.assert_whole("x");
    }
    for token in ["a", "b", "c"] {
        let asked = || get("/own.ts").header("X-Token", token);
        shield.ask(asked()).await.assert_whole(token);
        assert!(shield.ask(asked()).await.is_hit());
    }
    assert_eq!(shield.purge_counted("url", "/1.vtt").await, 2);
    assert_eq!(shield.purge_counted("url", "/own.ts").await, 3);
    assert_eq!(shield.gauge(STORED).await, 0, "it is freed at once");
}

#[tokio::test]
async fn purge_counts_every_slice_of_a_large_object() {
    let body = noise(1, 1 << 20);
    let large = || {
        segment(bytes::Bytes::new())
            .etag("\"1\"")
            .with_ranges(body.clone())
    };
    let origin = Origin::start()
        .await
        .on("/large.ts", large())
        .on("/vod/large.ts", large())
        .on("/film/large.ts", large())
        .on("/film/i.m3u8", manifest(ended_playlist(1)));
    let shield = Shield::in_front_of(&origin).proxy_settings(|waits| {
        waits.whole_fetch_max = 256 << 10;
        waits.slice_bytes = 128 << 10;
    });
    let shield = shield.start().await;
    for (what, path, scope, dropped) in [
        ("url", "/large.ts", "/large.ts", 8),
        ("prefix", "/vod/large.ts", "/vod/", 8),
        // The playlist is dropped as well.
        ("stream", "/film/large.ts", "/film/i.m3u8", 9),
    ] {
        shield.get("/film/i.m3u8").await;
        shield.get(path).await.assert_whole(&body);
        assert!(shield.get(path).await.is_hit());
        assert_eq!(shield.purge_counted(what, scope).await, dropped, "{what}");
        let asked = origin.hits(path);
        shield.get(path).await.assert_whole(&body);
        assert!(origin.hits(path) >= asked + 8, "{what}");
    }
}

/// An on-demand playlist: it is not watched, and its segments were listed long ago.
#[tokio::test]
async fn stream_purge_drops_all_segments_of_a_vod_playlist() {
    let line = |number| format!("#EXTINF:4,\nhd/{number}.ts\n");
    let many: String = (1..=200).map(line).collect();
    let film = format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MAP:URI=\"init/i.mp4\"\n\
         #EXTINF:4,\n/ads/7.ts\n{many}#EXT-X-ENDLIST\n"
    );
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv0/i.m3u8\n";
    let media = [
        "/vod/v0/init/i.mp4",
        "/ads/7.ts",
        "/vod/v0/hd/1.ts",
        "/vod/v0/hd/200.ts",
    ];
    let mut origin = Origin::start()
        .await
        .on("/vod/m.m3u8", manifest(master))
        .on("/vod/v0/i.m3u8", manifest(film))
        .on("/vod/other/1.ts", segment("other"));
    for path in media {
        origin = origin.on(path, segment("film"));
    }
    let shield = Shield::in_front_of(&origin).start().await;
    let all = [&["/vod/m.m3u8", "/vod/v0/i.m3u8"][..], &media].concat();
    for by in ["/vod/m.m3u8", "/vod/v0/i.m3u8"] {
        all_are(&shield, &["/vod/other/1.ts"], by != "/vod/m.m3u8").await;
        for path in &all {
            shield.get(path).await;
        }
        all_are(&shield, &all, true).await;
        assert_eq!(shield.purge_counted("stream", by).await, 6, "{by}");
        all_are(&shield, &media, false).await;
        all_are(&shield, &["/vod/other/1.ts"], true).await;
    }
}

#[tokio::test]
async fn stream_purge_drops_vod_with_a_directory_per_segment() {
    let line = |number| format!("#EXTINF:2,\n{number}/s.ts\n");
    let lines: String = (1..=5000).map(line).collect();
    let film = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{lines}#EXT-X-ENDLIST\n");
    let media = ["/film/1/s.ts", "/film/4097/s.ts", "/film/5000/s.ts"];
    let mut origin = Origin::start().await.on("/film/i.m3u8", manifest(film));
    for path in media {
        origin = origin.on(path, segment("film"));
    }
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get("/film/i.m3u8").await;
    all_are(&shield, &media, false).await;
    assert_eq!(shield.purge_counted("stream", "/film/i.m3u8").await, 4);
    all_are(&shield, &media, false).await;
}

#[tokio::test]
async fn stream_purge_drops_segments_of_all_periods_of_a_vod_mpd() {
    let period = |name: &str| {
        format!(
            "<Period duration='PT4S'><BaseURL>{name}/</BaseURL><AdaptationSet mimeType='video/mp4'>\
             <SegmentTemplate duration='4' media='$RepresentationID$/$Number$.m4s'/>\
             <Representation id='v'/></AdaptationSet></Period>"
        )
    };
    let periods: String = (0..8).map(|number| period(&format!("p{number}"))).collect();
    let mpd = format!("<MPD type='static' mediaPresentationDuration='PT32S'>{periods}</MPD>");
    let media = ["/film/p0/v/1.m4s", "/film/p3/v/1.m4s", "/film/p7/v/1.m4s"];
    let mpd = reply().content_type("application/dash+xml").body(mpd);
    let mut origin = Origin::start().await.on("/film/a.mpd", mpd);
    for path in media {
        origin = origin.on(path, segment("film"));
    }
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get("/film/a.mpd").await;
    all_are(&shield, &media, false).await;
    assert_eq!(shield.purge_counted("stream", "/film/a.mpd").await, 4);
    all_are(&shield, &media, false).await;
}

/// Segments that have left the timeline are still stored.
#[tokio::test]
async fn stream_purge_drops_delisted_segments_of_a_live_mpd() {
    let mpd = "<MPD type='dynamic' minimumUpdatePeriod='PT2S' availabilityStartTime='2020-01-01T00:00:00Z'>\
         <Period id='1' start='PT0S'><AdaptationSet mimeType='video/mp4'>\
         <SegmentTemplate timescale='1' startNumber='100' media='$RepresentationID$/$Number$.m4s' \
         initialization='init/$RepresentationID$.mp4'><SegmentTimeline><S t='200' d='2' r='4'/>\
         </SegmentTimeline></SegmentTemplate><Representation id='a'/><Representation id='b'/>\
         </AdaptationSet></Period></MPD>";
    let media = ["/live/a/7.m4s", "/live/b/104.m4s", "/live/init/a.mp4"];
    let mpd = reply().content_type("application/dash+xml").body(mpd);
    let mut origin = Origin::start()
        .await
        .on("/live/a.mpd", mpd.cache_control("max-age=2"))
        .on("/live/c/7.m4s", segment("another stream"));
    for path in media {
        origin = origin.on(path, segment("live"));
    }
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.prefetch = false)
        .start()
        .await;
    shield.get("/live/a.mpd").await;
    all_are(&shield, &media, false).await;
    shield.get("/live/c/7.m4s").await;
    assert_eq!(shield.purge_counted("stream", "/live/a.mpd").await, 4);
    all_are(&shield, &media, false).await;
    all_are(&shield, &["/live/c/7.m4s"], true).await;
}

/// A failure is remembered for a second, or until a purge.
#[tokio::test]
async fn purge_clears_remembered_failures() {
    let scopes = [
        ("url", "/film/seg1.ts"),
        ("stream", "/film/i.m3u8"),
        ("prefix", "/film/"),
        ("all", ""),
    ];
    for (what, scope) in scopes {
        let origin = Origin::start()
            .await
            .on("/film/i.m3u8", manifest(ended_playlist(1)))
            .on("/film/seg1.ts", status(500).then(segment("film")));
        let shield = Shield::in_front_of(&origin)
            .origin(|group| group.retry.attempts_max = 0)
            .start()
            .await;
        shield.get("/film/i.m3u8").await;
        assert_eq!(shield.get("/film/seg1.ts").await.status, 500, "{what}");
        let dropped = match what {
            "all" => shield.purge_query("all").await,
            _ => shield.purge_counted(what, scope).await,
        };
        assert_eq!(dropped, u64::from(what != "url"), "{what}");
        shield.get("/film/seg1.ts").await.assert_whole("film");
    }
}

/// The playlist is not stored: the objects in its directory are dropped.
#[tokio::test]
async fn stream_purge_drops_segments_of_a_no_store_playlist() {
    let unstored = manifest(ended_playlist(1)).cache_control("no-store");
    let origin = Origin::start()
        .await
        .on("/vod/i.m3u8", unstored)
        .on("/vod/seg1.ts", segment("film"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get("/vod/i.m3u8").await;
    shield.get("/vod/seg1.ts").await;
    assert_eq!(shield.purge_counted("stream", "/vod/i.m3u8").await, 1);
    assert!(!shield.get("/vod/seg1.ts").await.is_hit());
}

#[tokio::test]
async fn prefix_purge_drops_only_matching_paths() {
    let paths = ["/live/a/1.ts", "/live/a/2.ts?x=1", "/live/ab/1.ts"];
    let others = ["/live/b/1.ts", "/vod/live/a/1.ts"];
    let mut origin = Origin::start().await;
    for path in paths.iter().chain(&others) {
        origin = origin.on(path, segment("x"));
    }
    let shield = Shield::in_front_of(&origin).start().await;
    all_are(&shield, &[&paths[..], &others].concat(), false).await;
    assert_eq!(shield.purge_counted("prefix", "/live/a").await, 3);
    assert_eq!(shield.purge_counted("prefix", "/live/a").await, 0);
    all_are(&shield, &others, true).await;
    all_are(&shield, &paths, false).await;
    assert_eq!(shield.purge_counted("prefix", "/live/a/").await, 2);
    assert_eq!(shield.purge_query("all").await, 3);
    all_are(&shield, &paths, false).await;
}

/// Viewers who already read the body get all of it; later viewers get a new one.
#[tokio::test]
async fn fill_in_progress_is_not_stored_after_any_purge() {
    let scopes = [
        ("stream", "/live/i.m3u8"),
        ("prefix", "/live/"),
        ("url", "/live/seg1.ts"),
        ("all", ""),
    ];
    for (what, scope) in scopes {
        let (gate, old) = (Gate::new(), noise(1, 1000));
        let half = segment(old.slice(..500)).hold(&gate).send(old.slice(500..));
        let origin = Origin::start()
            .await
            .on("/live/i.m3u8", manifest(playlist(1)))
            .on("/live/seg1.ts", half.then(segment("new")));
        let shield = Shield::in_front_of(&origin)
            .route(|route| route.live.prefetch = false)
            .start()
            .await;
        shield.get("/live/i.m3u8").await;
        let mut before = shield.begin(get("/live/seg1.ts")).await;
        before.read(500).await;
        let dropped = match what {
            "all" => shield.purge_query("all").await,
            _ => shield.purge_counted(what, scope).await,
        };
        assert_eq!(dropped, u64::from(what != "url"), "{what}");
        shield.get("/live/seg1.ts").await.assert_whole("new");
        gate.open();
        before.finish().await.assert_whole(&old);
        eventually("the old fill to end", async || {
            shield.gauge(FILLS).await == 0
        })
        .await;
        let after = shield.get("/live/seg1.ts").await;
        after.assert_whole("new");
        assert!(after.is_hit(), "{what}");
    }
}

/// A low-latency version that arrives after a purge does not bring the old playlist back.
#[tokio::test]
async fn blocking_reload_in_flight_does_not_restore_purged_playlist() {
    for what in ["url", "stream", "prefix", "all"] {
        let gate = Gate::new();
        let origin = holding(&gate).await;
        let shield = passive(&origin).start().await;
        shield.get(PLAYLIST).await.assert_whole(version(20, 2));
        let waiting = shield.crowd(1, get(NEXT)).await;
        gate.wait_arrived(1).await;
        let new = manifest(version(12, 1)).cache_control("max-age=1");
        origin.set_script(PLAYLIST, new);
        let dropped = match what {
            "all" => shield.purge_query("all").await,
            _ => shield.purge_counted(what, PLAYLIST).await,
        };
        assert_eq!(dropped, 1, "{what}");
        gate.open();
        waiting.read_all().await;
        shield.get(PLAYLIST).await.assert_whole(version(12, 1));
    }
}

/// A multivariant playlist that names multivariant playlists, each with many more.
fn nested(outer: usize, inner: usize) -> (String, impl Fn(usize) -> String) {
    let listed = |name: String| format!("#EXT-X-STREAM-INF:BANDWIDTH=1\n{name}\n");
    let named = |names: String| format!("#EXTM3U\n{names}");
    let of_all = (0..outer).map(|number| listed(format!("{number}/m.m3u8")));
    let of_one = move |number: usize| {
        let names = (0..inner).map(|child| listed(format!("{child}.m3u8?of={number}")));
        named(names.collect())
    };
    (named(of_all.collect()), of_one)
}

/// With one playlist URL per viewer, a stream has thousands of playlists.
#[tokio::test]
async fn stream_purge_follows_thousands_of_listed_playlists() {
    let (outer, inner) = (10, 250);
    let (all, one) = nested(outer, inner);
    let mut origin = Origin::start().await.on("/m.m3u8", manifest(all));
    let mut asked = vec!["/m.m3u8".to_owned()];
    for number in 0..outer {
        let media = ended_playlist(1).replace("seg", &format!("/far/{number}/seg"));
        let (path, segment_path) = (
            format!("/{number}/m.m3u8"),
            format!("/far/{number}/seg1.ts"),
        );
        origin = origin
            .on(&path, manifest(one(number)))
            .on(&format!("/{number}/7.m3u8"), manifest(media))
            .on(&segment_path, segment("far"));
        asked.extend([path, format!("/{number}/7.m3u8?of={number}"), segment_path]);
    }
    let shield = Shield::in_front_of(&origin).start().await;
    for path in &asked {
        assert_eq!(shield.get(path).await.status, 200, "{path}");
    }
    let (dropped, is_complete) = shield.purge_stream_counted("/m.m3u8").await;
    assert_eq!((dropped, is_complete), (asked.len() as u64, true));
    assert_eq!(shield.gauge(STORED).await, 0);
}

#[tokio::test]
async fn stream_purge_reports_when_it_is_incomplete() {
    // More names in one playlist than a purge reads, and more playlists in a stream than it visits.
    for (outer, inner) in [(300, 0), (17, 250)] {
        let (all, one) = nested(outer, inner);
        let mut origin = Origin::start().await.on("/m.m3u8", manifest(all));
        for number in 0..17 {
            origin = origin.on(&format!("/{number}/m.m3u8"), manifest(one(number)));
        }
        let shield = Shield::in_front_of(&origin).start().await;
        shield.get("/m.m3u8").await;
        for number in 0..17 {
            shield.get(&format!("/{number}/m.m3u8")).await;
        }
        let (dropped, is_complete) = shield.purge_stream_counted("/m.m3u8").await;
        assert!(dropped > 0 && !is_complete, "{outer}: {dropped}");
    }
}
