//! `seawall warm` has a running server store a whole stream before the first viewer comes: only
//! from its own host, after all viewers, and again from where it stopped.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::metrics::STORED;
use crate::support::warmed::{Warmed, counts};
use crate::support::{
    Origin, Shield, ask, ended_playlist, get, hang_up, manifest, noise, playlist, reply, segment,
    status,
};

const MASTER: &str = "http://media.test/film/m.m3u8";

/// Two variants with a map and two segments each, and audio; one variant names another host.
async fn film() -> Origin {
    let master = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",URI=\"a/i.m3u8\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=300,AUDIO=\"a\"\nsd/i.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=900,AUDIO=\"a\"\nhd/i.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=300\nhttp://elsewhere.test/film/x.m3u8\n\
        #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=9,URI=\"f/i.m3u8\"\n";
    let media = |map: &str| {
        manifest(format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:6\n{map}#EXTINF:6,\n1.m4s\n#EXTINF:6,\n2.m4s\n\
             #EXT-X-ENDLIST\n"
        ))
    };
    let mut origin = Origin::start().await.on("/film/m.m3u8", manifest(master));
    for (directory, map) in [
        ("a", ""),
        ("sd", "#EXT-X-MAP:URI=\"init.mp4\"\n"),
        ("hd", "#EXT-X-MAP:URI=\"init.mp4\"\n"),
        ("f", ""),
    ] {
        origin = origin.on(&format!("/film/{directory}/i.m3u8"), media(map));
        for name in ["init.mp4", "1.m4s", "2.m4s"] {
            origin = origin.on(
                &format!("/film/{directory}/{name}"),
                segment("0123456789".repeat(100)),
            );
        }
    }
    origin
}

#[tokio::test]
async fn whole_film_is_stored_and_a_second_run_asks_for_nothing() {
    let origin = film().await;
    let warmed = Warmed::in_front_of(&origin).await;
    let (summary, is_good) = warmed.summary(MASTER).await;
    // The master, three playlists, two maps and six segments.
    assert_eq!(
        (counts(&summary), is_good),
        ((12, 0, 0, 1), true),
        "{summary}"
    );
    assert_eq!(summary["complete"], true, "{summary}");
    let (again, is_good) = warmed.summary(MASTER).await;
    assert_eq!((counts(&again), is_good), ((0, 12, 0, 1), true), "{again}");
    for target in [
        "/film/m.m3u8",
        "/film/hd/i.m3u8",
        "/film/hd/2.m4s",
        "/film/sd/init.mp4",
    ] {
        let viewer = get(target).host("media.test");
        assert!(
            warmed.program.viewer().await.ask(viewer).await.is_hit(),
            "{target}"
        );
        assert_eq!(origin.hits(target), 1, "{target}");
    }
    assert_eq!(origin.hits("/film/f/i.m3u8"), 0);
    let text = warmed.run(MASTER).await;
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.starts_with("0 fetched (0 bytes), 12 stored already"),
        "{text}"
    );
}

#[tokio::test]
async fn variants_are_chosen_by_bandwidth_and_all_adds_key_frames() {
    let origin = film().await;
    let warmed = Warmed::in_front_of(&origin).await;
    warmed
        .summary(&format!("{MASTER} --bandwidth-max 300"))
        .await;
    assert_eq!(
        (origin.hits("/film/sd/1.m4s"), origin.hits("/film/hd/1.m4s")),
        (1, 0)
    );
    warmed.summary(&format!("{MASTER} --all")).await;
    assert_eq!(
        (origin.hits("/film/hd/1.m4s"), origin.hits("/film/f/2.m4s")),
        (1, 1)
    );
}

/// The key frames need less than any variant, and are not fetched: they are not the lowest variant.
#[tokio::test]
async fn lowest_variant_is_fetched_even_if_key_frames_need_less() {
    for most in ["1", "200"] {
        let origin = film().await;
        let warmed = Warmed::in_front_of(&origin).await;
        let words = format!("{MASTER} --bandwidth-max {most}");
        let (summary, is_good) = warmed.summary(&words).await;
        let hits = |target: &str| origin.hits(&format!("/film/{target}"));
        assert_eq!(hits("sd/1.m4s"), 1, "{most}: {summary}");
        assert_eq!((hits("hd/i.m3u8"), hits("f/i.m3u8")), (0, 0), "{most}");
        assert!(is_good, "{summary}");
    }
}

#[tokio::test]
async fn mpd_fills_every_segment_of_template_list_and_file() {
    let mpd = "<MPD type='static' mediaPresentationDuration='PT8S'><Period><AdaptationSet>\
        <SegmentTemplate duration='2' initialization='i.mp4' media='$Number$.m4s'/>\
        <Representation id='a' bandwidth='1'/></AdaptationSet>\
        <AdaptationSet><Representation id='b' bandwidth='1'><SegmentList>\
        <SegmentURL media='l1.m4s'/><SegmentURL media='l2.m4s'/></SegmentList></Representation>\
        </AdaptationSet></Period></MPD>";
    let mpd = reply().content_type("application/dash+xml").body(mpd);
    let mut origin = Origin::start().await.on("/d/a.mpd", mpd);
    for name in [
        "i.mp4", "1.m4s", "2.m4s", "3.m4s", "4.m4s", "l1.m4s", "l2.m4s",
    ] {
        origin = origin.on(&format!("/d/{name}"), segment("x"));
    }
    let warmed = Warmed::in_front_of(&origin).await;
    let (summary, is_good) = warmed.summary("http://media.test/d/a.mpd").await;
    assert_eq!(
        (counts(&summary), is_good),
        ((8, 0, 0, 0), true),
        "{summary}"
    );
}

#[tokio::test]
async fn playlist_that_names_itself_ends() {
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nm.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=2\n./m.m3u8\n";
    let origin = Origin::start().await.on("/film/m.m3u8", manifest(master));
    let warmed = Warmed::in_front_of(&origin).await;
    let (summary, is_good) = warmed.summary(MASTER).await;
    assert_eq!(
        (counts(&summary), is_good),
        ((1, 0, 0, 0), true),
        "{summary}"
    );
    assert_eq!(origin.hits("/film/m.m3u8"), 1);
}

#[tokio::test]
async fn many_entries_stop_at_the_limit_and_say_so() {
    let line = |number| format!("#EXTINF:1,\n{number}.ts\n");
    let lines: String = (0..60_000).map(line).collect();
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n{lines}#EXT-X-ENDLIST\n");
    let origin = Origin::start().await.on("/film/m.m3u8", manifest(text));
    for n in 0..9 {
        origin.set_script(&format!("/film/{n}.ts"), segment("x"));
    }
    let warmed = Warmed::in_front_of(&origin).await;
    let (summary, is_good) = warmed.summary(&format!("{MASTER} --objects-max 10")).await;
    assert_eq!(
        (counts(&summary), is_good),
        ((10, 0, 0, 0), false),
        "{summary}"
    );
    assert!(
        summary["stopped"]
            .as_str()
            .unwrap()
            .contains("--objects-max"),
        "{summary}"
    );
}

/// The origin dies in the middle: the command says so and fails; the next run begins where it was.
#[tokio::test]
async fn origin_that_dies_is_reported_and_a_second_run_continues() {
    let origin = film().await;
    for name in ["1.m4s", "2.m4s"] {
        origin.set_script(&format!("/film/hd/{name}"), hang_up());
    }
    let warmed = Warmed::in_front_of(&origin).await;
    let (summary, is_good) = warmed.summary(MASTER).await;
    assert_eq!(
        (counts(&summary), is_good),
        ((10, 0, 2, 1), false),
        "{summary}"
    );
    assert_eq!(
        summary["failures"].as_array().unwrap().len(),
        2,
        "{summary}"
    );
    let text = warmed.run(MASTER).await;
    assert_eq!(text.status.code(), Some(1));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("failed: http://media.test/film/hd/1.m4s"),
        "{text}"
    );
    for name in ["1.m4s", "2.m4s"] {
        origin.set_script(&format!("/film/hd/{name}"), segment("x"));
    }
    let path = "/film/hd/1.m4s";
    crate::support::eventually("the failures to be forgotten", async || {
        warmed.summary(MASTER).await.1
    })
    .await;
    assert!(
        warmed
            .program
            .viewer()
            .await
            .ask(get(path).host("media.test"))
            .await
            .is_hit()
    );
    assert_eq!(
        origin.hits("/film/sd/1.m4s"),
        1,
        "what is stored is not fetched again"
    );
}

#[tokio::test]
async fn bytes_max_stops_the_walk() {
    let origin = film().await;
    let warmed = Warmed::in_front_of(&origin).await;
    let (summary, is_good) = warmed.summary(&format!("{MASTER} --bytes-max 1KiB")).await;
    assert!(
        !is_good && summary["stopped"].as_str().unwrap().contains("--bytes-max"),
        "{summary}"
    );
    assert!(counts(&summary).0 < 12, "{summary}");
}

/// Ctrl-C: the command says how far it came and fails; the next run does the rest.
#[tokio::test]
async fn interrupt_ends_the_walk_and_a_second_run_continues() {
    let origin = film().await;
    let warmed = Warmed::in_front_of(&origin).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args([
        "warm",
        MASTER,
        "--rate",
        "1",
        "--json",
        "--admin",
        &warmed.admin,
    ]);
    command.env_remove("SEAWALL_ADMIN_TOKEN_FILE");
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    origin.wait_hits("/film/sd/i.m3u8", 1).await;
    let process = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &process])
            .status()
            .unwrap()
            .success()
    );
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
    let ended = ended.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let summary: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(summary["stopped"], "interrupted", "{summary}");
    let done = counts(&summary).0;
    assert!((1..12).contains(&done), "{summary}");
    let (summary, is_good) = warmed.summary(MASTER).await;
    assert_eq!(
        (counts(&summary), is_good),
        ((12 - done, done, 0, 1), true),
        "{summary}"
    );
}

/// A few bytes of an MPD can name any number of segments of another host.
#[tokio::test]
async fn endless_names_of_another_host_end_at_a_limit() {
    let mpd = "<MPD type='static' mediaPresentationDuration='PT8S'>\
        <BaseURL>https://elsewhere.test/</BaseURL><Period><AdaptationSet>\
        <SegmentTemplate media='$Number$.m4s'><SegmentTimeline>\
        <S t=\"0\" d=\"1\" r=\"9000000000000000000\"/></SegmentTimeline></SegmentTemplate>\
        <Representation id='a' bandwidth='1'/></AdaptationSet></Period></MPD>";
    let mpd = reply().content_type("application/dash+xml").body(mpd);
    let origin = Origin::start().await.on("/d/a.mpd", mpd);
    let shield = Shield::in_front_of(&origin).start().await;
    let listed = shield.warm("/d/a.mpd").await;
    assert_eq!(listed["more"], true, "{listed}");
    assert_eq!(listed["elsewhere"], 200_000, "{listed}");
}

#[tokio::test]
async fn warm_says_what_became_of_each_object() {
    let large = noise(1, 1 << 20);
    let origin = Origin::start()
        .await
        .on("/1.ts", segment("x"))
        .on("/private.ts", segment("x").cache_control("private"))
        .on("/gone.ts", status(404))
        .on("/live.m3u8", manifest(playlist(1)))
        .on("/vod.m3u8", manifest(ended_playlist(1)))
        .on(
            "/large.ts",
            segment(bytes::Bytes::new())
                .etag("\"1\"")
                .with_ranges(large.clone()),
        );
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.hosts = vec!["shield.test".to_owned()])
        .proxy_settings(|settings| {
            settings.whole_fetch_max = 256 << 10;
            settings.slice_bytes = 128 << 10;
        })
        .start()
        .await;
    for (target, outcomes) in [
        ("/1.ts", ["fetched", "held"]),
        ("/private.ts", ["uncacheable", "uncacheable"]),
        ("/gone.ts", ["failed", "failed"]),
        ("/vod.m3u8", ["fetched", "held"]),
        ("/large.ts", ["fetched", "held"]),
    ] {
        for outcome in outcomes {
            let object = shield.warm(target).await;
            assert_eq!(object["outcome"], outcome, "{target}: {object}");
        }
    }
    let listed = shield.warm("/live.m3u8").await;
    assert_eq!(listed["names"][2][2], "/seg3.ts", "{listed}");
    assert_eq!(shield.warm("/large.ts").await["bytes"], 1 << 20);
    let asked = origin.hits("/large.ts");
    let viewer = get("/large.ts").host("shield.test");
    shield.ask(viewer).await.assert_whole(&large);
    assert_eq!(origin.hits("/large.ts"), asked);
    let many = vec!["url=http://shield.test/1.ts"; 17].join("&");
    assert_eq!(
        shield
            .admin(ask("POST", &format!("/warm?{many}")))
            .await
            .status,
        400
    );
    let elsewhere = shield
        .admin(ask("POST", "/warm?url=http://elsewhere.test/1.ts"))
        .await;
    assert!(elsewhere.text().contains("unrouted"), "{elsewhere:?}");
    assert!(shield.gauge(STORED).await > 0);
}
