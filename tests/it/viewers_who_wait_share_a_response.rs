//! Viewers that send the same request, and wait for the same fetch, get one response, and each of
//! them is served and counted as if it were alone.

use std::process::Stdio;

use crate::support::metrics::{REPEATED, REQUESTS, WAITERS};
use crate::support::origin::Reply;
use crate::support::program::Program;
use crate::support::viewer::{Ask, Viewer};
use crate::support::{Gate, Origin, Shield, eventually, get, reply, segment};

const SEGMENT: &str = "/live/seg1.ts";

async fn held(reply: Reply) -> (Gate, Origin, Shield) {
    let gate = Gate::new();
    let origin = Origin::start().await.on(SEGMENT, reply.hold_head(&gate));
    let shield = Shield::in_front_of(&origin).start().await;
    (gate, origin, shield)
}

async fn wait_for_waiters(shield: &Shield, count: u64) {
    shield.wait_gauge(WAITERS, |waiting| waiting == count).await;
}

/// Waits until this many requests are recorded that led a fetch, and that joined one.
async fn wait_for_outcomes(shield: &Shield, misses: u64, coalesced: u64) {
    eventually(
        format!("{misses} misses and {coalesced} coalesced"),
        async || {
            let count = async |outcome| {
                let labels = [("kind", "segment"), ("outcome", outcome)];
                shield.counter(REQUESTS, &labels).await
            };
            (count("miss").await, count("coalesced").await) == (misses, coalesced)
        },
    )
    .await;
}

/// A viewer that waits for the segment.
async fn waiting(shield: &Shield, ask: &Ask) -> Viewer {
    let mut viewer = shield.viewer().await;
    viewer.send(ask).await;
    viewer
}

#[tokio::test]
async fn each_viewer_has_its_own_id_and_is_counted() {
    let (gate, origin, shield) = held(segment("0123456789").cache_control("max-age=60")).await;
    let crowd = shield.crowd(12, get(SEGMENT)).await;
    wait_for_waiters(&shield, 12).await;
    gate.open();
    let answers = crowd.read_all().await;
    let mut ids = Vec::new();
    for answer in &answers {
        answer.assert_whole("0123456789");
        assert_eq!(answer.fields.all("date").len(), 1, "{answer:?}");
        ids.extend(answer.header("x-request-id").map(str::to_owned));
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 12, "each has its own");
    let collapsed = answers
        .iter()
        .filter(|answer| answer.header("cache-status").unwrap().contains("collapsed"));
    assert_eq!(collapsed.count(), 11, "all but the one that led the fetch");
    wait_for_outcomes(&shield, 1, 11).await;
    assert!(
        shield.counter(REPEATED, &[]).await > 0,
        "the scenario shows what its name says only if they share"
    );
    assert_eq!(origin.hits(SEGMENT), 1);
}

#[tokio::test]
async fn same_range_and_304_are_shared() {
    for (ask, status, body) in [
        (get(SEGMENT).range("2-4"), 206, "234"),
        (get(SEGMENT).header("If-None-Match", "\"1\""), 304, ""),
    ] {
        let reply = segment("0123456789")
            .cache_control("max-age=60")
            .etag("\"1\"");
        let (gate, origin, shield) = held(reply).await;
        let crowd = shield.crowd(6, ask).await;
        wait_for_waiters(&shield, 6).await;
        gate.open();
        for answer in crowd.read_all().await {
            answer.assert_is(status, body);
        }
        assert_eq!(origin.hits(SEGMENT), 1);
    }
}

/// Each of them could be the one whose request the others wait with.
#[tokio::test]
async fn viewer_that_leaves_takes_nobody_along() {
    for leaves in 0..4 {
        let (gate, origin, shield) = held(segment("media")).await;
        let ask = get(SEGMENT);
        let mut viewers = Vec::new();
        for place in 1..=4 {
            viewers.push(waiting(&shield, &ask).await);
            wait_for_waiters(&shield, place).await;
        }
        drop(viewers.remove(leaves));
        let left = [("outcome", "left")];
        eventually("the viewer is recorded", async || {
            shield.counter(REQUESTS, &left).await == 1
        })
        .await;
        gate.open();
        for mut viewer in viewers {
            viewer.receive(&ask).await.assert_whole("media");
        }
        assert_eq!(shield.counter(REQUESTS, &left).await, 1);
        assert_eq!(origin.hits(SEGMENT), 1);
    }
}

#[tokio::test]
async fn request_sent_while_waiting_is_answered_next() {
    let (gate, origin, shield) = held(segment("media")).await;
    let origin = origin.on("/live/other.ts", segment("other"));
    let (ask, other) = (get(SEGMENT), get("/live/other.ts"));
    let mut viewers = Vec::new();
    for place in 1..=3 {
        viewers.push(waiting(&shield, &ask).await);
        wait_for_waiters(&shield, place).await;
    }
    // The whole head, or only its beginning.
    let head = format!("GET /live/other.ts HTTP/1.1\r\nHost: {}\r\n\r\n", "x");
    let (beginning, rest) = head.split_at(10);
    viewers[1].send_raw(head.as_bytes()).await;
    viewers[2].send_raw(beginning.as_bytes()).await;
    wait_for_waiters(&shield, 3).await;
    gate.open();
    for viewer in &mut viewers {
        viewer.receive(&ask).await.assert_whole("media");
    }
    viewers[2].send_raw(rest.as_bytes()).await;
    for viewer in &mut viewers[1..] {
        viewer.receive(&other).await.assert_whole("other");
        viewer.get("/live/other.ts").await.assert_whole("other");
    }
    assert_eq!(origin.hits(SEGMENT), 1);
}

/// The body arrives later than the head: each viewer reads it at its own pace.
#[tokio::test]
async fn body_that_grows_reaches_each_viewer() {
    let (head, rest) = (Gate::new(), Gate::new());
    let reply = reply()
        .header("Content-Type", "video/mp2t")
        .chunked()
        .hold_head(&head)
        .send("0123")
        .hold(&rest)
        .send("456789");
    let origin = Origin::start().await.on(SEGMENT, reply);
    let shield = Shield::in_front_of(&origin).start().await;
    let crowd = shield.crowd(6, get(SEGMENT)).await;
    wait_for_waiters(&shield, 6).await;
    head.open();
    let mut arriving = crowd.read_heads().await;
    for viewer in &mut arriving {
        assert_eq!(viewer.read(4).await, "0123");
    }
    rest.open();
    for viewer in arriving {
        viewer.finish().await.assert_whole("0123456789");
    }
    assert_eq!(origin.hits(SEGMENT), 1);
    wait_for_outcomes(&shield, 1, 5).await;
}

#[tokio::test]
async fn last_response_before_the_end_closes_the_connection() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(SEGMENT, segment("media").hold_head(&gate));
    let bounds = "[admin]\nlisten = \"127.0.0.1:0\"\n[server]\nthreads = 1";
    let mut program = Program::serve_with(&origin, bounds, |command| {
        command.stderr(Stdio::piped());
    })
    .await;
    let mut log = program.log();
    let admin = log.admin().await;
    let mut viewers = Vec::new();
    for _ in 0..3 {
        let mut viewer = program.viewer().await;
        viewer.send(&get(SEGMENT)).await;
        viewers.push(viewer);
    }
    eventually("three viewers wait", async || {
        let ask = get("/metrics").host("localhost");
        let metrics = Viewer::connect(admin).await.ask(ask).await;
        metrics.text().contains("\nseawall_waiters 3\n")
    })
    .await;
    program.signal("TERM");
    // Connections know that they end before that.
    log.read_until("the listeners are closed").await;
    gate.open();
    for mut viewer in viewers {
        let answer = viewer.receive(&get(SEGMENT)).await;
        answer.assert_whole("media");
        assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    }
    assert_eq!(program.wait_end().await, Some(0));
}
