//! A manifest that is not one is a failure of the origin, whatever status it came with.

use std::time::Duration;

use crate::support::metrics::FILLS;
use crate::support::origin::Reply;
use crate::support::{Origin, Shield, get, manifest, playlist, reply};

const PATH: &str = "/live/index.m3u8";

/// What origins send with a 200 on a bad day.
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

/// The old one is kept, and the broken one is never shown.
#[tokio::test]
async fn the_old_one_is_kept() {
    for (name, broken) in broken() {
        let old = manifest(playlist(1))
            .cache_control("max-age=1, stale-if-error=60")
            .age(10);
        let origin = Origin::start().await.on(PATH, old.then(broken));
        let shield = Shield::in_front_of(&origin)
            .waits(|waits| waits.failure_backoff = Duration::from_hours(1))
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

/// With nothing held it is an error, and it is not stored.
#[tokio::test]
async fn without_an_old_one_it_is_an_error() {
    for (name, broken) in broken() {
        let good = manifest(playlist(1)).cache_control("max-age=60");
        let origin = Origin::start().await.on(PATH, broken.then(good));
        let shield = Shield::in_front_of(&origin)
            .waits(|waits| waits.failure_backoff = Duration::ZERO)
            .start()
            .await;
        let answer = shield.get(PATH).await;
        assert_eq!(answer.status, 502, "{name}: {answer:?}");
        shield.get(PATH).await.is_whole(playlist(1));
    }
}

/// The same for an MPD without its end.
#[tokio::test]
async fn an_mpd_without_its_end() {
    const MPD: &str = "/live/a.mpd";
    let mpd = |text: &'static str| reply().content_type("application/dash+xml").body(text);
    let whole = "<MPD type=\"dynamic\"><Period></Period></MPD>";
    let origin = Origin::start()
        .await
        .on(MPD, mpd("<MPD type=\"dynamic\"><Period>").then(mpd(whole)));
    let shield = Shield::in_front_of(&origin)
        .waits(|waits| waits.failure_backoff = Duration::ZERO)
        .start()
        .await;
    assert_eq!(shield.ask(get(MPD)).await.status, 502);
    shield.get(MPD).await.is_whole(whole);
}
