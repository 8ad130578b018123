//! `stored` in `Cache-Status` is true: an object that exceeds its share of memory is reported as
//! not stored, and displaces nothing.

use seawall::config::Config;
use seawall_manifest::Kind;

use crate::support::metrics::{FILLS, STORED_BYTES};
use crate::support::{Origin, Response, Shield, ended_playlist, manifest, noise, segment, status};

const KIB: usize = 1 << 10;
const MIB: u64 = 1 << 20;
const WATCHED: &str = "/vod/watched.ts";

/// An ended playlist of about this many bytes.
fn playlist(bytes: usize) -> String {
    let comment = "#".to_owned() + &"x".repeat(bytes) + "\n";
    ended_playlist(1).replace("#EXT-X-ENDLIST", &(comment + "#EXT-X-ENDLIST"))
}

/// Requests twice, with time to store between. Returns whether the first response says `stored` and
/// the second one is a hit.
async fn ask_twice(shield: &Shield, path: &str) -> (bool, bool) {
    let first: Response = shield.get(path).await;
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
    let second = shield.get(path).await;
    (
        first.cache_status().has_parameter("stored"),
        second.is_hit(),
    )
}

async fn shield(origin: &Origin, memory: u64, kinds: Vec<(Kind, u64)>) -> Shield {
    let sized = move |config: &mut Config| {
        config.cache.memory_bytes = memory;
        config.cache.kind_bytes_max = kinds;
    };
    let shield = Shield::in_front_of(origin).with(sized).start().await;
    ask_twice(&shield, WATCHED).await;
    shield
}

async fn origin() -> Origin {
    let origin = Origin::start().await;
    origin.on(WATCHED, segment(noise(1, 100 * KIB)))
}

/// A quarter of memory is for playlists: a larger one is fetched each time, and displaces no media.
#[tokio::test]
async fn playlist_larger_than_a_quarter_of_memory_is_not_stored() {
    let origin = origin()
        .await
        .on("/vod/large.m3u8", manifest(playlist(300 * KIB)))
        .on("/vod/small.m3u8", manifest(playlist(50 * KIB)));
    let shield = shield(&origin, MIB, Vec::new()).await;
    assert_eq!(ask_twice(&shield, "/vod/large.m3u8").await, (false, false));
    assert_eq!(ask_twice(&shield, "/vod/small.m3u8").await, (true, true));
    assert!(shield.get(WATCHED).await.is_hit());
    assert!(shield.gauge(STORED_BYTES).await <= MIB);
}

#[tokio::test]
async fn playlist_larger_than_its_kind_max_is_not_stored() {
    let origin = origin()
        .await
        .on("/vod/large.m3u8", manifest(playlist(300 * KIB)))
        .on("/vod/small.m3u8", manifest(playlist(50 * KIB)));
    let kinds = vec![(Kind::Hls, MIB / 4)];
    let shield = shield(&origin, 8 * MIB, kinds).await;
    assert_eq!(ask_twice(&shield, "/vod/large.m3u8").await, (false, false));
    assert_eq!(ask_twice(&shield, "/vod/small.m3u8").await, (true, true));
    assert!(shield.get(WATCHED).await.is_hit());
}

/// Initialization segments have their own share, although a fill stores them like media.
#[tokio::test]
async fn initialization_segment_is_stored_only_within_its_kind_max() {
    let origin = origin()
        .await
        .on("/vod/init.mp4", segment(noise(2, 200 * KIB)))
        .on("/vod/other/init.mp4", segment(noise(3, 2048 * KIB)));
    let kinds = vec![(Kind::Init, MIB)];
    let shield = shield(&origin, 8 * MIB, kinds).await;
    assert_eq!(ask_twice(&shield, "/vod/init.mp4").await, (true, true));
    let large = ask_twice(&shield, "/vod/other/init.mp4").await;
    assert_eq!(large, (false, false));
    assert!(shield.get(WATCHED).await.is_hit());
}

#[tokio::test]
async fn error_larger_than_the_share_of_errors_is_not_stored() {
    let gone = |bytes| status(404).body("x".repeat(bytes));
    let origin = origin()
        .await
        .on("/vod/large.ts", gone(40 * KIB))
        .on("/vod/small.ts", gone(KIB));
    let shield = shield(&origin, MIB, Vec::new()).await;
    assert_eq!(ask_twice(&shield, "/vod/large.ts").await, (false, false));
    assert_eq!(ask_twice(&shield, "/vod/small.ts").await, (true, true));
}

/// A segment larger than the share of media passes through, with `kind_max` and without.
#[tokio::test]
async fn segment_larger_than_the_share_of_media_is_not_stored() {
    for kinds in [Vec::new(), vec![(Kind::Segment, MIB)]] {
        let memory = if kinds.is_empty() { MIB } else { 8 * MIB };
        let large = segment(noise(4, 900 * KIB));
        let origin = origin().await.on("/vod/large.ts", large);
        let shield = shield(&origin, memory, kinds).await;
        assert_eq!(ask_twice(&shield, "/vod/large.ts").await, (false, false));
        assert!(shield.get(WATCHED).await.is_hit());
    }
}
