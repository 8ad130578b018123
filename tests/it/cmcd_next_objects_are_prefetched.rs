//! The object that a player announces as its next request (CMCD `nor`) is prefetched once, and only
//! from where the player's own request went.

use std::time::Duration;

use crate::support::{Origin, Shield, get, segment, status};

const PATH: &str = "/live/seg1.ts";
const NOR: [(&str, &str); 1] = [("source", "nor")];

async fn origin() -> Origin {
    let origin = Origin::start().await.on(PATH, segment("one"));
    origin.on("/live/seg2.ts", segment("two"))
}

#[tokio::test]
async fn prefetches_cmcd_nor_from_query_or_header() {
    let asks = [
        get("/live/seg1.ts?CMCD=br%3D3200%2Cnor%3D%22seg2.ts%22"),
        get(PATH).header("CMCD-Request", "bl=2000,nor=\"..%2Flive%2Fseg2.ts\""),
    ];
    for ask in asks {
        let origin = origin().await;
        let shield = Shield::in_front_of(&origin).start().await;
        shield.ask(ask).await.assert_whole("one");
        origin.wait_hits("/live/seg2.ts", 1).await;
        let held = |answer: &crate::support::Response| answer.is_hit();
        shield
            .repeat_until(get("/live/seg2.ts"), held)
            .await
            .assert_whole("two");
        assert_eq!(origin.hits("/live/seg2.ts"), 1);
        assert_eq!(shield.counter("seawall_prefetches_total", &NOR).await, 1);
        assert_eq!(
            shield.counter("seawall_prefetches_used_total", &[]).await,
            1
        );
    }
}

/// An object that is stored is not fetched again for an announcement.
#[tokio::test]
async fn prefetches_cmcd_nor_once_on_a_hit() {
    let origin = origin().await;
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("one");
    let ask = || get(PATH).header("CMCD-Request", "nor=\"seg2.ts\"");
    shield.ask(ask()).await.assert_whole("one");
    origin.wait_hits("/live/seg2.ts", 1).await;
    shield.ask(ask()).await.assert_whole("one");
    assert_eq!(shield.counter("seawall_prefetches_total", &NOR).await, 1);
}

#[tokio::test]
async fn ignores_cmcd_next_object_of_another_host_directory_or_kind() {
    let origin = origin().await;
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.path_prefix = "/live".to_owned())
        .start()
        .await;
    for elsewhere in [
        "https://other.example/seg2.ts",
        "//other.example/seg2.ts",
        "../other/seg2.ts",
        "..%2F..%2Fseg2.ts",
        "index.m3u8",
        "1.key",
        "seg1.ts",
        "seg2.ts\",nrr=\"0-99",
    ] {
        let ask = get(PATH).header("CMCD-Request", &format!("nor=\"{elsewhere}\""));
        shield.ask(ask).await.assert_whole("one");
        let fetched = shield.counter("seawall_prefetches_total", &NOR).await;
        assert_eq!(fetched, 0, "{elsewhere}");
    }
}

/// An object that is known to be missing is not requested again for an announcement.
#[tokio::test]
async fn ignores_cmcd_next_object_with_remembered_404() {
    let missing = "/live/seg2.ts";
    let origin = Origin::start()
        .await
        .on(PATH, segment("one"))
        .on(missing, status(404));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.lifetimes.negative_max = Duration::from_hours(1))
        .start()
        .await;
    let ask = || get(PATH).header("CMCD-Request", "nor=\"seg2.ts\"");
    shield.ask(ask()).await.assert_whole("one");
    origin.wait_hits(missing, 1).await;
    let known = |answer: &crate::support::Response| answer.status == 404 && answer.is_hit();
    shield.repeat_until(get(missing), known).await;
    let hits = origin.hits(missing);
    for _ in 0..5 {
        shield.ask(ask()).await.assert_whole("one");
    }
    assert_eq!(shield.get(missing).await.status, 404);
    assert_eq!(origin.hits(missing), hits);
}
