//! A fill is independent of its viewers: any of them may leave, and a slow reader slows no other.

use std::time::Duration;

use bytes::Bytes;

use crate::support::metrics::{FILL_BYTES, FILLS, REQUESTS, WAITERS};
use crate::support::viewer::Viewer;
use crate::support::{
    End, Fingerprint, Gate, Origin, Shield, eventually, get, noise, reply, segment,
};

const PATH: &str = "/live/seg1.ts";

/// The first viewer leaves at 10 %. The others complete, and the object is stored.
#[tokio::test]
async fn fill_continues_when_first_viewer_leaves_mid_body() {
    let (gate, body) = (Gate::new(), noise(1, 10_000));
    let tenth = segment(body.slice(..1000))
        .hold(&gate)
        .send(body.slice(1000..));
    let origin = Origin::start().await.on(PATH, tenth);
    let shield = Shield::in_front_of(&origin).start().await;
    let mut first = shield.begin(get(PATH)).await;
    first.read(1000).await;
    let mut second = shield.begin(get(PATH)).await;
    let mut third = shield.h2_viewer().await.begin(get(PATH)).await;
    second.read(1000).await;
    third.read(1000).await;
    drop(first);
    gate.open();
    second.finish().await.assert_whole(&body);
    third.finish().await.assert_whole(&body);
    assert!(shield.get(PATH).await.assert_whole(&body).is_hit());
    assert_eq!(origin.hits(PATH), 1);
}

/// The leader may disconnect before the response head arrives.
#[tokio::test]
async fn fill_continues_when_first_viewer_leaves_before_head() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(PATH, segment("whole").hold_head(&gate));
    let shield = Shield::in_front_of(&origin).start().await;
    let first = shield.crowd(1, get(PATH)).await;
    origin.wait_hits(PATH, 1).await;
    let others = shield.crowd(10, get(PATH)).await;
    drop(first);
    gate.open();
    for answer in others.read_all().await {
        answer.assert_whole("whole");
    }
    assert_eq!(origin.hits(PATH), 1);
}

/// All leave, and the policy is to finish. The fill ends by itself and is stored.
#[tokio::test]
async fn abandoned_fill_is_finished_when_finish_abandoned_is_on() {
    let (gate, body) = (Gate::new(), noise(1, 10_000));
    let half = segment(body.slice(..5000))
        .hold(&gate)
        .send(body.slice(5000..));
    let origin = Origin::start().await.on(PATH, half);
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.finish_abandoned = true)
        .start()
        .await;
    all_leave(&shield).await;
    gate.open();
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
    shield.wait_gauge(WAITERS, |waiters| waiters == 0).await;
    assert!(shield.get(PATH).await.assert_whole(&body).is_hit());
    assert_eq!(origin.hits(PATH), 1);
}

/// All leave, and the policy is to cancel. The origin's connection is closed.
#[tokio::test]
async fn abandoned_fill_is_cancelled_when_finish_abandoned_is_off() {
    let (gate, body) = (Gate::new(), noise(1, 10_000));
    let half = segment(body.slice(..5000))
        .hold(&gate)
        .send(body.slice(5000..));
    let origin = Origin::start()
        .await
        .on(PATH, half.then(segment(body.clone())));
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.finish_abandoned = false)
        .start()
        .await;
    all_leave(&shield).await;
    origin.wait_abandoned(1).await;
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
    shield.wait_gauge(FILL_BYTES, |bytes| bytes == 0).await;
    shield.get(PATH).await.assert_whole(&body);
    assert_eq!(origin.hits(PATH), 2);
}

async fn all_leave(shield: &Shield) {
    let mut viewers = shield.crowd(10, get(PATH)).await.read_heads().await;
    for viewer in &mut viewers {
        viewer.read(5000).await;
    }
}

/// One of a hundred reads almost nothing. The others get everything at full speed, and
/// memory stays within its bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_reader_slows_no_other_viewer_of_a_fill() {
    const FILL_BYTES_MAX: u64 = 16 << 20;
    let (gate, body) = (Gate::new(), noise(1, 4 << 20));
    let rest = body.slice(1000..);
    let origin = Origin::start()
        .await
        .on(PATH, segment(body.slice(..1000)).hold(&gate).send(rest));
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.cache.fill_bytes_max = FILL_BYTES_MAX;
            // This viewer reads nothing at all while the others are checked.
            config.frontend.limits.send_rate_window = Duration::from_mins(10);
        })
        .start()
        .await;
    let thin = Viewer::connect_with_small_buffer(shield.address()).await;
    let mut slow = thin.begin(get(PATH)).await;
    slow.read(1000).await;
    let others = shield.crowd(99, get(PATH)).await.read_heads().await;
    gate.open();
    for other in others {
        assert_eq!(
            other.fingerprint().await,
            (Fingerprint::of(&body), End::Whole)
        );
        assert!(shield.gauge(FILL_BYTES).await <= FILL_BYTES_MAX);
    }
    assert_eq!(
        slow.fingerprint().await,
        (Fingerprint::of(&body), End::Whole)
    );
    assert_eq!(origin.hits(PATH), 1);
}

/// An object too large to be stored: a viewer who falls behind may be cut, but is
/// never waited for, and never gets other bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_reader_of_too_large_object_slows_no_other_viewer() {
    let (gate, body) = (Gate::new(), noise(1, 24 << 20));
    let large = reply().content_type("video/mp2t").send(body.slice(..1000));
    let origin = Origin::start()
        .await
        .on(PATH, large.hold(&gate).send(body.slice(1000..)));
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.cache.object_bytes_max = 1 << 20;
            config.cache.fill_bytes_max = 2 << 20;
            config.frontend.limits.send_rate_window = Duration::from_mins(1);
        })
        .start()
        .await;
    let thin = Viewer::connect_with_small_buffer(shield.address()).await;
    let mut slow = thin.begin(get(PATH)).await;
    slow.read(1000).await;
    let other = shield.begin(get(PATH)).await;
    gate.open();
    assert_eq!(
        other.fingerprint().await,
        (Fingerprint::of(&body), End::Whole)
    );
    let (got, end) = slow.fingerprint().await;
    assert!(
        end != End::Whole || got == Fingerprint::of(&body),
        "{got:?}"
    );
}

/// A request whose viewer leaves before the head is counted, with who ended it.
#[tokio::test]
async fn disconnect_before_head_is_counted_as_left() {
    let gate = Gate::new();
    let own = segment("own").cache_control("no-store").hold_head(&gate);
    let origin = Origin::start()
        .await
        .on(PATH, segment("whole").hold_head(&gate))
        .on("/own.ts", own);
    let shield = Shield::in_front_of(&origin).start().await;
    let mut left = 0;
    for path in [PATH, "/own.ts"] {
        let first = shield.crowd(1, get(path)).await;
        origin.wait_hits(path, 1).await;
        drop(first);
        let second = shield.h2_viewer().await;
        let asked = tokio::spawn(async move { second.begin(get(path)).await });
        shield.wait_gauge(WAITERS, |waiting| waiting >= 1).await;
        asked.abort();
        left += 2;
        eventually("both to be counted", async || {
            shield.counter(REQUESTS, &[("outcome", "left")]).await == left
        })
        .await;
    }
    assert_eq!(
        shield.counter("seawall_responses_aborted_total", &[]).await,
        0
    );
    assert_eq!(shield.counter("seawall_responses_total", &[]).await, 0);
    gate.open();
}

/// The metric of a broken response says who caused it.
#[tokio::test]
async fn aborted_response_is_counted_by_cause() {
    const CUT: &str = "seawall_responses_aborted_total";
    let (gate, body) = (Gate::new(), noise(1, 10_000));
    let held = segment(body.slice(..5000))
        .hold(&gate)
        .send(body.slice(5000..));
    let breaking = Gate::new();
    let short = segment("half").content_length(10).hold(&breaking).reset();
    let origin = Origin::start().await.on(PATH, held).on("/short.ts", short);
    let shield = Shield::in_front_of(&origin).start().await;
    let is_counted = async |cause: &'static str, count: u64| {
        eventually("the cut to be counted", async || {
            shield.counter(CUT, &[("cause", cause)]).await == count
        })
        .await;
    };
    let mut reader = shield.begin(get("/short.ts")).await;
    reader.read(4).await;
    breaking.open();
    reader.finish().await.assert_cut("half and the rest");
    is_counted("origin", 1).await;
    let mut leaver = shield.begin(get(PATH)).await;
    leaver.read(1000).await;
    drop(leaver);
    is_counted("viewer", 1).await;
    assert_eq!(shield.counter(CUT, &[("cause", "origin")]).await, 1);
    gate.open();
}

/// What was sent to its end is not counted as broken, whichever way its bytes come: from memory,
/// while they arrive, in slices, or past the cache.
#[tokio::test]
async fn whole_response_is_not_counted_as_aborted() {
    let large = noise(1, 1 << 20);
    let small = noise(2, 300_000);
    let own = || segment(small.clone()).cache_control("no-store");
    let sliced = segment(Bytes::new())
        .etag("\"1\"")
        .with_ranges(large.clone());
    let origin = Origin::start()
        .await
        .on(PATH, segment(small.clone()))
        .on("/large.ts", sliced)
        .on("/own.ts", own())
        .on("/own-in-chunks.ts", own().chunked());
    let builder = Shield::in_front_of(&origin).proxy_settings(|waits| {
        waits.whole_fetch_max = 256 << 10;
        waits.slice_bytes = 64 << 10;
    });
    let shield = builder.start().await;
    let asked = || {
        [
            get(PATH),
            get(PATH),
            get("/large.ts"),
            get("/large.ts"),
            get("/large.ts").range("100000-299999"),
            get("/own.ts"),
            get("/own-in-chunks.ts"),
        ]
    };
    let (mut kept, streams) = (shield.viewer().await, shield.h2_viewer().await);
    for ask in asked() {
        assert!(kept.ask(ask.clone()).await.status < 300);
        assert!(streams.ask(ask).await.status < 300);
    }
    let sent = 2 * asked().len() as u64;
    eventually("all to be counted", async || {
        shield.counter("seawall_responses_total", &[]).await == sent
    })
    .await;
    let cut = shield.counter("seawall_responses_aborted_total", &[]);
    assert_eq!(cut.await, 0);
}
