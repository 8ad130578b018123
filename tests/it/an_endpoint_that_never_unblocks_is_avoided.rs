//! When one of two endpoints never answers a blocking reload, or lags, players get the version from
//! the other one.

use crate::low_latency_hls::{NEXT, PATH, passive, version};
use crate::support::shield::Builder;
use crate::support::{Gate, Origin, Shield, get, manifest, segment, status};

/// The part after [`NEXT`].
const AFTER: &str = "/live/index.m3u8?_HLS_msn=21&_HLS_part=3";

/// The same with shorter parts, so that they are late sooner.
fn quick(last: u64, parts: u64) -> String {
    version(last, parts).replace("PART-TARGET=1.0", "PART-TARGET=0.2")
}

fn and(builder: Builder, other: &Origin) -> Builder {
    builder.and_endpoint(other)
}

/// Viewers wait for it once: then the endpoint that continues is preferred, for parts too.
#[tokio::test]
async fn other_endpoint_is_preferred_after_one_hung_blocking_reload() {
    let (never, later) = (Gate::new(), Gate::new());
    let part = segment("part");
    let held = || manifest(quick(20, 9)).hold_head(&never);
    let hanging = Origin::start()
        .await
        .on(PATH, manifest(quick(20, 2)).cache_control("max-age=1"))
        .on(NEXT, held())
        .on(AFTER, held())
        .on("/live/21.2.mp4", part.clone().hold_head(&never))
        .on("/live/21.3.mp4", part.clone().hold_head(&never));
    let well = Origin::start()
        .await
        .on(NEXT, manifest(quick(20, 3)).cache_control("max-age=1"))
        .on(AFTER, manifest(quick(20, 4)).hold_head(&later))
        .on("/live/21.2.mp4", part.clone())
        .on("/live/21.3.mp4", part.hold_head(&later));
    let shield = and(Shield::in_front_of(&hanging), &well).start().await;
    shield.get(PATH).await.assert_whole(quick(20, 2));
    let parts = shield.crowd(3, get("/live/21.2.mp4")).await;
    shield.get(NEXT).await.assert_whole(quick(20, 3));
    for answer in parts.read_all().await {
        answer.assert_whole("part");
    }
    let players = shield.crowd(3, get(AFTER)).await;
    let parts = shield.crowd(3, get("/live/21.3.mp4")).await;
    later.wait_arrived(2).await;
    later.open();
    for answer in players.read_all().await {
        answer.assert_whole(quick(20, 4));
    }
    for answer in parts.read_all().await {
        answer.assert_whole("part");
    }
    assert_eq!((hanging.hits(NEXT), well.hits(NEXT)), (1, 1));
    assert_eq!((hanging.hits(AFTER), well.hits(AFTER)), (0, 1));
    assert_eq!(hanging.hits("/live/21.3.mp4"), 0);
}

/// A viewer gets a version that another request brought, without waiting for the own request.
#[tokio::test]
async fn newer_version_ends_blocking_reloads_it_satisfies() {
    let never = Gate::new();
    let newest = manifest(version(20, 4)).cache_control("max-age=1");
    let origin = Origin::start()
        .await
        .on(PATH, manifest(version(20, 2)).cache_control("max-age=1"))
        .on(NEXT, manifest(version(20, 3)).hold_head(&never))
        .on(AFTER, newest);
    let shield = passive(&origin).start().await;
    shield.get(PATH).await;
    let waiting = shield.crowd(3, get(NEXT)).await;
    never.wait_arrived(1).await;
    shield.get(AFTER).await.assert_whole(version(20, 4));
    for answer in waiting.read_all().await {
        answer.assert_whole(version(20, 4));
    }
    origin.wait_abandoned(1).await;
}

/// An endpoint that is far behind takes a request for the next part for one from the future.
#[tokio::test]
async fn does_not_serve_400_from_endpoint_that_lags_behind() {
    let good = manifest(version(20, 3)).cache_control("max-age=1");
    let behind = Origin::start()
        .await
        .on(PATH, manifest(version(20, 2)).cache_control("max-age=1"))
        .on(NEXT, status(400));
    let well = Origin::start().await.on(NEXT, good);
    let shield = and(passive(&behind), &well).start().await;
    shield.get(PATH).await;
    shield.get(NEXT).await.assert_whole(version(20, 3));
    assert_eq!((behind.hits(NEXT), well.hits(NEXT)), (1, 1));
    let alone = passive(&behind).start().await;
    alone.get(PATH).await;
    alone.get(NEXT).await.assert_whole(version(20, 2));
}
