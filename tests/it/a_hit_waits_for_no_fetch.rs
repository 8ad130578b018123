//! Requests that wait for an object that does not exist yet are counted as `blocking`, apart from
//! hits and from requests that wait for a fetch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::low_latency_hls::{NEXT, PATH, holding, passive, version};
use crate::support::metrics::{REQUESTS, WAITERS};
use crate::support::{Gate, Origin, Shield, eventually, get, manifest, reply, segment};

/// Waits until this number of requests has been counted, and returns the counts.
async fn counted(shield: &Shield, all: u64) -> impl AsyncFn(&'static str) -> u64 {
    eventually("all to be counted", async || {
        shield.counter(REQUESTS, &[]).await >= all
    })
    .await;
    async |outcome| shield.counter(REQUESTS, &[("outcome", outcome)]).await
}

#[tokio::test]
async fn wait_for_blocking_reload_counts_as_blocking() {
    let gate = Gate::new();
    let origin = holding(&gate).await;
    let shield = passive(&origin).start().await;
    shield.get(PATH).await.assert_whole(version(20, 2));
    let crowd = shield.crowd(10, get(NEXT)).await;
    shield.wait_gauge(WAITERS, |waiting| waiting >= 10).await;
    gate.open();
    for answer in crowd.read_all().await {
        let status = answer.cache_status();
        let detail = status.value("detail") == Some("blocking");
        assert_eq!(detail, status.has_parameter("collapsed"), "{status:?}");
    }
    let counted = counted(&shield, 11).await;
    assert_eq!(counted("blocking").await, 9);
    assert_eq!(counted("miss").await, 2, "one fetched it, one led");
    let waited = |source| shield.counter("seawall_response_head_seconds_count", source);
    assert_eq!(waited(&[("source", "blocking")]).await, 9);
    assert_eq!(waited(&[("source", "origin")]).await, 2);
    let at_origin = shield.counter("seawall_origin_head_seconds_count", &[]);
    assert_eq!(at_origin.await, 2, "the origin is not slow");
}

#[tokio::test]
async fn wait_for_preload_hinted_part_counts_as_blocking() {
    let (gate, part) = (Gate::new(), "/live/21.2.mp4");
    let script = segment("part").hold_head(&gate);
    let origin = holding(&Gate::new()).await.on(part, script);
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.live.cadence = false)
        .start()
        .await;
    shield.get(PATH).await;
    gate.wait_arrived(1).await;
    let crowd = shield.crowd(5, get(part)).await;
    shield.wait_gauge(WAITERS, |waiting| waiting >= 5).await;
    gate.open();
    for answer in crowd.read_all().await {
        answer.assert_whole("part");
    }
    let counted = counted(&shield, 6).await;
    assert_eq!(counted("blocking").await, 5);
    assert_eq!(counted("coalesced").await, 0);
}

/// Directives for a playlist that is not known to block count as an ordinary fetch.
#[tokio::test]
async fn directives_on_nonblocking_playlist_do_not_count_as_blocking() {
    for held in [
        None,
        Some(version(20, 2).replace("CAN-BLOCK-RELOAD=YES,", "")),
    ] {
        let (gate, far) = (Gate::new(), "/live/other.ts?_HLS_msn=21&_HLS_part=2");
        let origin = Origin::start().await.on(far, segment("x").hold_head(&gate));
        if let Some(held) = &held {
            origin.set_script("/live/other.ts", manifest(held.clone()));
        }
        let shield = passive(&origin).start().await;
        if held.is_some() {
            shield.get("/live/other.ts").await;
        }
        let crowd = shield.crowd(5, get(far)).await;
        if held.is_none() {
            shield.wait_gauge(WAITERS, |waiting| waiting >= 5).await;
        }
        gate.open();
        crowd.read_all().await;
        let counted = counted(&shield, 5).await;
        assert_eq!(counted("blocking").await, 0);
    }
}

/// A late part is the origin's delay: its viewers waited for the origin.
#[tokio::test]
async fn wait_for_overdue_blocking_reload_counts_as_coalesced() {
    let gate = Gate::new();
    let quick = |text: String| {
        let text = text.replace("DURATION=1.0", "DURATION=0.1");
        text.replace("PART-TARGET=1.0", "PART-TARGET=0.1")
    };
    let origin = Origin::start()
        .await
        .on(PATH, manifest(quick(version(20, 2))))
        .on(NEXT, manifest(quick(version(20, 3))).hold_head(&gate));
    let shield = passive(&origin).start().await;
    shield.get(PATH).await;
    let crowd = shield.crowd(5, get(NEXT)).await;
    shield.wait_gauge(WAITERS, |waiting| waiting >= 5).await;
    // The part was due after one part duration: more than three have passed. Only time makes it
    // late.
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.open();
    crowd.read_all().await;
    let counted = counted(&shield, 6).await;
    assert_eq!(counted("coalesced").await, 4);
    assert_eq!(counted("blocking").await, 0);
}

/// The MPD's clock says when a segment exists; until then the origin gets no request.
#[tokio::test]
async fn wait_for_dash_availability_time_counts_as_blocking() {
    const STEP_MILLIS: u128 = 20_000;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let due = (now + Duration::from_secs(1)).as_millis();
    let start = Duration::from_millis(u64::try_from(due % STEP_MILLIS).unwrap());
    let number = due / STEP_MILLIS - 1;
    let mpd = format!(
        "<MPD type=\"dynamic\" availabilityStartTime=\"1970-01-01T00:00:00Z\" \
         minimumUpdatePeriod=\"PT1H\"><Period start=\"PT{:.3}S\"><AdaptationSet>\
         <SegmentTemplate timescale=\"1000\" duration=\"{STEP_MILLIS}\" startNumber=\"0\" \
         media=\"$RepresentationID$/$Number$.m4s\"/><Representation id=\"hd\" bandwidth=\"2\"/>\
         </AdaptationSet></Period></MPD>",
        start.as_secs_f64()
    );
    let next = format!("/live/hd/{number}.m4s");
    let origin = Origin::start()
        .await
        .on(
            "/live/a.mpd",
            reply().content_type("application/dash+xml").body(mpd),
        )
        .on(&next, segment("there"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| {
            route.live.hold_early = Duration::from_secs(2);
            route.live.prefetch = false;
        })
        .start()
        .await;
    shield.get("/live/a.mpd").await;
    for answer in shield.crowd(10, get(&next)).await.read_all().await {
        answer.assert_whole("there");
    }
    let counted = counted(&shield, 11).await;
    assert_eq!(counted("blocking").await, 9);
    assert_eq!(origin.hits(&next), 1);
}
