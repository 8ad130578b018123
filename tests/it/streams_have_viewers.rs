//! Requests, bytes and viewers are counted by stream, whichever way a response is produced, and
//! what failed last is known.

use crate::support::{Origin, Shield, get, manifest, playlist, segment, status};

const PATH: &str = "/live/a.m3u8";
const OTHER: &str = "/other/a.m3u8";
const SEGMENT: &str = "/live/seg1.ts";

#[tokio::test]
async fn requests_bytes_and_viewers_are_counted_by_stream() {
    let origin = Origin::start()
        .await
        .on(PATH, manifest(playlist(1)))
        .on(OTHER, manifest(playlist(1)))
        .on(SEGMENT, segment("eight by"))
        .on("/elsewhere.ts", segment("of no stream"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(OTHER).await.assert_whole(playlist(1));
    // Two fetch it, and most others get a response that was built before.
    for last in 1..=5 {
        let mut viewer = shield.viewer_from([127, 0, 0, last]).await;
        for _ in 0..3 {
            viewer.ask(get(PATH)).await.assert_whole(playlist(1));
            viewer.ask(get(SEGMENT)).await.assert_whole("eight by");
        }
        viewer.ask(get("/elsewhere.ts")).await;
    }
    let viewer = shield.h2_viewer_from([127, 0, 0, 6]).await;
    for _ in 0..3 {
        viewer.ask(get(SEGMENT)).await.assert_whole("eight by");
    }
    let of_stream = [("stream", PATH)];
    let count = async |name: &str| shield.counter(name, &of_stream).await;
    assert_eq!(count("seawall_stream_requests_total").await, 33);
    let bytes = 15 * playlist(1).len() as u64 + 18 * 8;
    assert_eq!(count("seawall_stream_sent_bytes_total").await, bytes);
    assert_eq!(count("seawall_stream_viewers").await, 6);
    let of_other = [("stream", OTHER)];
    let viewers = shield.counter("seawall_stream_viewers", &of_other);
    assert_eq!(viewers.await, 1);
    let repeated = shield.counter("seawall_repeated_responses_total", &[]);
    assert!(repeated.await > 10, "the test has no repeated responses");
}

#[tokio::test]
async fn failed_fetches_count_for_the_stream() {
    let origin = Origin::start()
        .await
        .on(PATH, manifest(playlist(1)))
        .on(OTHER, manifest(playlist(1)))
        .on(SEGMENT, status(503));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole(playlist(1));
    shield.get(OTHER).await.assert_whole(playlist(1));
    assert_eq!(shield.get(SEGMENT).await.status, 503);
    let failures = async |stream| {
        let labels = [("stream", stream)];
        shield
            .counter("seawall_stream_failures_total", &labels)
            .await
    };
    assert!(failures(PATH).await > 0);
    assert_eq!(failures(OTHER).await, 0);
}
