//! A manifest has a short deadline; a blocking request has a long one.

use std::time::Duration;

use crate::support::shield::Builder;
use crate::support::{Gate, Origin, Shield, get, manifest, playlist, segment};

const PATH: &str = "/live/index.m3u8";
const AHEAD: &str = "/live/index.m3u8?_HLS_msn=9";

const HOUR: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(100);

/// A short deadline for manifests only.
fn strict(origin: &Origin) -> Builder {
    Shield::in_front_of(origin).origin(|group| {
        group.retry.hedge = false;
        group.deadlines.manifest = SHORT;
        group.deadlines.first_byte = HOUR;
        group.deadlines.blocking = HOUR;
        group.deadlines.total = HOUR;
    })
}

/// A segment that takes longer than a manifest may is still waited for.
#[tokio::test]
async fn manifest_deadline_does_not_apply_to_segments() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on("/a.ts", segment("late").hold_head(&gate))
        .on(PATH, manifest(playlist(1)).hold_head(&gate));
    let shield = strict(&origin).start().await;
    let waiting = shield.crowd(1, get("/a.ts")).await;
    origin.wait_hits("/a.ts", 1).await;
    assert_eq!(shield.get(PATH).await.status, 504);
    gate.open();
    waiting.read_all().await[0].assert_whole("late");
}

/// With another endpoint, that one is requested then.
#[tokio::test]
async fn other_endpoint_answers_after_manifest_deadline() {
    let never = Gate::new();
    let late = manifest(playlist(1)).hold_head(&never);
    let first = Origin::start().await.on(PATH, late);
    let second = Origin::start().await.on(PATH, manifest(playlist(2)));
    let shield = strict(&first).and_endpoint(&second).start().await;
    shield.get(PATH).await.assert_whole(playlist(2));
}

/// A blocking request waits longer than the deadline for manifests, and longer than viewers wait
/// otherwise.
#[tokio::test]
async fn blocking_reload_has_its_own_deadline() {
    let (gate, never) = (Gate::new(), Gate::new());
    let origin = Origin::start()
        .await
        .on("/slow.ts", segment("slow").hold_head(&never))
        .on(PATH, manifest(playlist(1)).hold_head(&never))
        .on(AHEAD, manifest(playlist(9)).hold_head(&gate));
    let shield = strict(&origin)
        .proxy_settings(|waits| waits.wait_max = SHORT)
        .start()
        .await;
    let waiting = shield.crowd(5, get(AHEAD)).await;
    origin.wait_hits(AHEAD, 1).await;
    assert_eq!(shield.get("/slow.ts").await.status, 504);
    assert_eq!(shield.get(PATH).await.status, 504);
    gate.open();
    for answer in waiting.read_all().await {
        answer.assert_whole(playlist(9));
    }
    assert_eq!(origin.hits(AHEAD), 1);
}
