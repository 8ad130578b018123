//! A broken or incomplete manifest counts as an origin failure, whatever its status.

use std::io::Read;
use std::time::Duration;

use crate::support::metrics::FILLS;
use crate::support::origin::Reply;
use crate::support::{Origin, Shield, get, gzip, manifest, playlist, reply};

const PATH: &str = "/live/index.m3u8";

/// Bodies that broken origins send with 200.
fn broken() -> Vec<(&'static str, Reply)> {
    let cut_in_a_line = playlist(2).trim_end_matches("ts\n").to_owned();
    let page = "<html><body>Service unavailable</body></html>";
    vec![
        ("nothing", manifest("")),
        ("only blanks", manifest(" \n\n")),
        ("a page as a playlist", manifest(page)),
        ("a page", reply().content_type("text/html").body(page)),
        (
            "no first line",
            manifest(playlist(2).replace("#EXTM3U", "#EXT")),
        ),
        ("cut in a line", manifest(cut_in_a_line)),
        (
            "not text",
            reply()
                .content_type("application/x-mpegurl")
                .body(&b"#EXTM3U\n\xff\xfe\n"[..]),
        ),
        (
            "closed early",
            manifest(playlist(2)).content_length(5000).close(),
        ),
    ]
}

/// The stored manifest is kept, and viewers never see the broken one.
#[tokio::test]
async fn keeps_stored_manifest_when_refresh_is_broken() {
    for (name, broken) in broken() {
        let old = manifest(playlist(1))
            .cache_control("max-age=1, stale-if-error=60")
            .age(10);
        let origin = Origin::start().await.on(PATH, old.then(broken));
        let shield = Shield::in_front_of(&origin)
            .proxy_settings(|waits| waits.failure_backoff = Duration::from_hours(1))
            .start()
            .await;
        for _ in 0..3 {
            let answer = shield.get(PATH).await;
            assert_eq!(answer.text(), playlist(1), "{name}: {answer:?}");
            shield.wait_gauge(FILLS, |fills| fills == 0).await;
        }
        assert_eq!(origin.hits(PATH), 2, "{name}");
    }
}

/// Without a stored manifest viewers get an error, and nothing is stored.
#[tokio::test]
async fn answers_502_for_broken_manifest_without_stored_copy() {
    for (name, broken) in broken() {
        let good = manifest(playlist(1)).cache_control("max-age=60");
        let origin = Origin::start().await.on(PATH, broken.then(good));
        let shield = Shield::in_front_of(&origin)
            .proxy_settings(|waits| waits.failure_backoff = Duration::ZERO)
            .start()
            .await;
        let answer = shield.get(PATH).await;
        assert_eq!(answer.status, 502, "{name}: {answer:?}");
        shield.get(PATH).await.assert_whole(playlist(1));
    }
}

/// The same for an MPD without its end tag.
#[tokio::test]
async fn answers_502_for_mpd_without_end_tag() {
    const MPD: &str = "/live/a.mpd";
    let mpd = |text: &'static str| reply().content_type("application/dash+xml").body(text);
    let whole = "<MPD type=\"dynamic\"><Period></Period></MPD>";
    let origin = Origin::start()
        .await
        .on(MPD, mpd("<MPD type=\"dynamic\"><Period>").then(mpd(whole)));
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.failure_backoff = Duration::ZERO)
        .start()
        .await;
    assert_eq!(shield.ask(get(MPD)).await.status, 502);
    shield.get(MPD).await.assert_whole(whole);
}

fn brotli(text: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    let mut reader = brotli::CompressorReader::new(text, 4096, 5, 20);
    reader.read_to_end(&mut coded).unwrap();
    coded
}

/// A playlist in a coding that was not requested is decoded and checked all the same.
#[tokio::test]
async fn decodes_and_checks_playlist_in_any_known_coding() {
    type Code = fn(&[u8]) -> Vec<u8>;
    let codings: [(&str, Code); 4] = [
        ("br", brotli),
        ("gzip, gzip", |text| gzip(&gzip(text))),
        ("GZIP, identity, br", |text| brotli(&gzip(text))),
        ("zstd", |text| zstd::encode_all(text, 3).unwrap()),
    ];
    for (coding, code) in codings {
        let coded = |text: &str| {
            let reply = reply().content_type("application/vnd.apple.mpegurl");
            let reply = reply.header("Content-Encoding", coding);
            reply.body(code(text.as_bytes()))
        };
        let (good, page, cut) = ("/live/good.m3u8", "/live/page.m3u8", "/live/cut.m3u8");
        let whole = code(playlist(5).as_bytes());
        let half = whole[..whole.len() / 2].to_vec();
        let origin = Origin::start()
            .await
            .on(good, coded(&playlist(5)))
            .on(page, coded("<html><body>Not now</body></html>"))
            .on(cut, coded("").body(half));
        let shield = Shield::in_front_of(&origin).start().await;
        for _ in 0..2 {
            shield.get(good).await.assert_whole(&whole);
        }
        assert_eq!(origin.hits(good), 1, "{coding}");
        for broken in [page, cut] {
            assert_eq!(shield.get(broken).await.status, 502, "{coding}: {broken}");
        }
    }
}

/// A playlist in an unknown coding is passed on to each viewer, and not stored.
#[tokio::test]
async fn passes_on_playlist_in_unsupported_coding_without_storing() {
    let coded = |coding: &str| {
        reply()
            .content_type("application/vnd.apple.mpegurl")
            .header("Content-Encoding", coding)
            .cache_control("max-age=60")
            .body("unread")
    };
    for coding in ["aws-chunked", "gzip, odd", "br, br, br, br, br"] {
        let origin = Origin::start().await.on(PATH, coded(coding));
        let shield = Shield::in_front_of(&origin).start().await;
        for asked in 1..=2 {
            let answer = shield.get(PATH).await;
            answer.assert_whole("unread");
            assert_eq!(answer.header("content-encoding"), Some(coding));
            assert_eq!(origin.hits(PATH), asked, "{coding}");
        }
        let coded = [("reason", "coded")];
        assert!(
            shield
                .counter("seawall_manifests_unfit_total", &coded)
                .await
                > 0
        );
    }
}

/// Another endpoint may send the manifest in a coding that Seawall can read.
#[tokio::test]
async fn prefers_endpoint_that_sends_playlist_in_readable_coding() {
    let coded = reply()
        .content_type("application/vnd.apple.mpegurl")
        .header("Content-Encoding", "odd")
        .body("unread");
    let primary = Origin::start().await.on(PATH, coded);
    let other = Origin::start().await.on(PATH, manifest(playlist(5)));
    let shield = Shield::in_front_of(&primary)
        .and_endpoint(&other)
        .start()
        .await;
    assert_eq!(shield.get(PATH).await.text(), playlist(5));
}
