//! A server that is stopped leaves without a cut: it stops to be ready before it stops to accept,
//! and what is in flight ends.

use std::process::Stdio;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use crate::low_latency_hls::{self as low_latency, NEXT, passive};
use crate::support::content::noise;
use crate::support::frames::{self, DATA, END_STREAM, FrameViewer, GOAWAY};
use crate::support::metrics::{ABORTED, DRAIN_STATE, VIEWER_EVENTS, WAITERS};
use crate::support::patience::within_at_most;
use crate::support::program::Program;
use crate::support::shield::Builder;
use crate::support::viewer::Viewer;
use crate::support::{Gate, Origin, Shield, ask, eventually, get, segment, status};

const PATH: &str = "/live/seg1.ts";
const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"";
const HOUR: Duration = Duration::from_hours(1);

/// A shield whose listeners stay open for an hour after it has begun to drain.
fn slow_to_close(origin: &Origin) -> Builder {
    Shield::in_front_of(origin).with(|config| config.drain_delay = HOUR)
}

async fn is_ready(shield: &Shield) -> bool {
    shield.admin(get("/readyz")).await.status == 200
}

async fn assert_state(shield: &Shield, state: &str) {
    let status = shield.admin(get("/status")).await;
    let in_status = format!("\"drain\":{{\"state\":\"{state}\"}}");
    assert!(status.text().contains(&in_status), "{}", status.text());
    assert_eq!(shield.counter(DRAIN_STATE, &[("state", state)]).await, 1);
    assert_eq!(shield.counter(DRAIN_STATE, &[]).await, 1);
}

async fn refuses_viewers(shield: &Shield) -> bool {
    TcpStream::connect(shield.address()).await.is_err()
}

/// `POST /drain`, answered when the listeners are closed.
async fn drain(shield: &Shield) {
    let answer = shield.admin(ask("POST", "/drain?wait=true")).await;
    answer.assert_is(200, "{\"state\":\"draining\"}\n");
    assert!(refuses_viewers(shield).await);
}

#[tokio::test]
async fn readyz_fails_before_the_listeners_close() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = slow_to_close(&origin).start().await;
    let mut connected = shield.viewer().await;
    connected.get(PATH).await.assert_whole("whole");
    assert!(is_ready(&shield).await);
    assert_state(&shield, "serving").await;
    for _ in 0..2 {
        let answer = shield.admin(ask("POST", "/drain")).await;
        answer.assert_is(202, "{\"state\":\"leaving\"}\n");
        eventually("readyz to fail", async || !is_ready(&shield).await).await;
        assert_state(&shield, "leaving").await;
        for viewer in [&mut connected, &mut shield.viewer().await] {
            let answer = viewer.get(PATH).await;
            answer.assert_whole("whole");
            // Its client would connect again, and to this server.
            assert_eq!(answer.header("connection"), None);
        }
    }
}

/// A load balancer that has no connection now may open one until it has seen `/readyz` fail.
#[tokio::test]
async fn server_that_is_probed_keeps_the_delay_without_viewers() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = slow_to_close(&origin).start().await;
    assert!(is_ready(&shield).await);
    shield.admin(ask("POST", "/drain")).await;
    eventually("readyz to fail", async || !is_ready(&shield).await).await;
    assert_state(&shield, "leaving").await;
    shield.get(PATH).await.assert_whole("whole");
}

#[tokio::test]
async fn server_without_viewers_and_probes_closes_at_once() {
    let origin = Origin::start().await;
    let shield = slow_to_close(&origin).start().await;
    drain(&shield).await;
    eventually("the end of the drain", async || {
        shield.counter(DRAIN_STATE, &[("state", "gone")]).await == 1
    })
    .await;
    // Whoever asks late is answered all the same.
    drain(&shield).await;
}

#[tokio::test]
async fn post_drain_ends_the_program_as_sigterm_does() {
    let gate = Gate::new();
    let slow = segment("whole").hold_head(&gate);
    let origin = Origin::start().await.on(PATH, slow);
    let bounds = format!("{ADMIN}\n[server]\ndrain_delay = \"1ms\"");
    let mut program = Program::serve_with(&origin, &bounds, |command| {
        command.stderr(Stdio::piped());
    })
    .await;
    let admin = program.log().admin().await;
    let mut viewer = program.viewer().await;
    viewer.send(&get(PATH)).await;
    origin.wait_hits(PATH, 1).await;
    let request = ask("POST", "/drain?wait=true").host("localhost");
    let answer = Viewer::connect(admin).await.ask(request).await;
    answer.assert_is(200, "{\"state\":\"draining\"}\n");
    assert!(UnixStream::connect(program.socket()).await.is_err());
    gate.open();
    viewer.receive(&get(PATH)).await.assert_whole("whole");
    assert_eq!(program.wait_end().await, Some(0));
}

#[tokio::test]
async fn answers_say_close_and_http2_gets_goaway() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(PATH, segment("whole").hold_head(&gate));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut http1 = shield.viewer().await;
    http1.send(&get(PATH)).await;
    let mut http2 = FrameViewer::connect(shield.address()).await;
    http2.send(&[frames::request(1, "GET", PATH, true)]).await;
    origin.wait_hits(PATH, 1).await;
    eventually("both viewers to wait", async || {
        shield.gauge("seawall_waiters").await == 2
    })
    .await;
    drain(&shield).await;
    let goaway = http2.read_until(|frame| frame.kind == GOAWAY).await;
    assert_eq!(goaway.expect("a GOAWAY").error_code(), 0);
    gate.open();
    let answer = http1.receive(&get(PATH)).await;
    answer.assert_whole("whole");
    assert_eq!(answer.header("connection"), Some("close"));
    let last = http2.read_until(|frame| frame.kind == DATA && frame.flags & END_STREAM != 0);
    assert_eq!(last.await.expect("the whole body").payload, b"whole");
}

/// Viewers with the same plain request share one response; all others have one of their own.
#[tokio::test]
async fn misses_of_every_form_say_close() {
    let gate = Gate::new();
    let gone = status(404).hold_head(&gate);
    let origin = Origin::start()
        .await
        .on(PATH, segment("whole").hold_head(&gate))
        .on("/live/gone.ts", gone);
    let shield = Shield::in_front_of(&origin).start().await;
    let asks = [
        (get(PATH).header("Range", "bytes=0-1"), 206),
        (get(PATH).header("Cache-Control", "max-stale=5"), 200),
        (ask("HEAD", PATH), 200),
        (get("/live/gone.ts").header("Range", "bytes=0-1"), 404),
    ];
    let mut viewers = Vec::new();
    for (asked, _) in &asks {
        let mut viewer = shield.viewer().await;
        viewer.send(asked).await;
        viewers.push(viewer);
    }
    eventually("all viewers to wait", async || {
        shield.gauge("seawall_waiters").await == asks.len() as u64
    })
    .await;
    drain(&shield).await;
    gate.open();
    for (mut viewer, (asked, expected)) in viewers.into_iter().zip(asks) {
        let answer = viewer.receive(&asked).await;
        assert_eq!(answer.status, expected, "{asked:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{asked:?}");
    }
}

/// The real program, as a supervisor stops it.
#[tokio::test]
async fn none_of_five_hundred_slow_downloads_is_broken() {
    let (gate, body) = (Gate::new(), noise(1, 96 << 10));
    let (first, rest) = (body.slice(..32 << 10), body.slice(32 << 10..));
    let reply = segment("").content_length(96 << 10);
    let slow = reply.send(first.clone()).hold(&gate).send(rest);
    let origin = Origin::start().await.on(PATH, slow);
    let bounds = "[server]\ndrain_delay = \"1ms\"\ndrain_max = \"1h\"";
    let mut program = Program::serve_with(&origin, bounds, |command| {
        command.stderr(Stdio::piped());
    })
    .await;
    let mut downloads = Vec::new();
    for _ in 0..500 {
        let mut download = program.viewer().await.begin(get(PATH)).await;
        assert_eq!(download.read(first.len()).await, first);
        downloads.push(download);
    }
    program.signal("TERM");
    program
        .log()
        .read_until("may finish what is under way")
        .await;
    eventually("the listener to close", async || {
        UnixStream::connect(program.socket()).await.is_err()
    })
    .await;
    gate.open();
    for download in downloads {
        download.finish().await.assert_whole(&body);
    }
    assert_eq!(origin.hits(PATH), 1);
    assert_eq!(program.wait_end().await, Some(0));
}

#[tokio::test]
async fn waiting_low_latency_request_is_answered() {
    let gate = Gate::new();
    let origin = low_latency::holding(&gate).await;
    let shield = passive(&origin).start().await;
    let whole = |parts| low_latency::version(20, parts);
    shield.get(low_latency::PATH).await.assert_whole(whole(2));
    let crowd = shield.crowd(5, get(NEXT)).await;
    gate.wait_arrived(1).await;
    drain(&shield).await;
    gate.open();
    for answer in crowd.read_all().await {
        answer.assert_whole(whole(3));
        assert_eq!(answer.header("connection"), Some("close"));
    }
}

#[tokio::test]
async fn what_exceeds_drain_max_is_cut_and_counted() {
    let gate = Gate::new();
    let slow = segment("").content_length(10).send("begun").hold(&gate);
    let origin = Origin::start().await.on(PATH, slow);
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.drain_max = Duration::from_millis(1))
        .start()
        .await;
    let mut download = shield.begin(get(PATH)).await;
    assert_eq!(download.read(5).await, "begun");
    shield.admin(ask("POST", "/drain")).await;
    download.finish().await.assert_cut("begunwhole");
    let cut = shield.counter(VIEWER_EVENTS, &[("event", "cut_at_drain")]);
    assert_eq!(cut.await, 1);
    let causes = async |cause: &'static str| {
        let cause = [("cause", cause)];
        shield
            .counter("seawall_responses_aborted_total", &cause)
            .await
    };
    assert_eq!((causes("drain").await, causes("viewer").await), (1, 0));
}

/// The origin has sent no head yet: the server ends these requests, not their viewers.
#[tokio::test]
async fn viewers_who_wait_for_a_head_are_cut_by_the_drain() {
    const HELD: u64 = 5;
    let (gate, folder) = (Gate::new(), tempfile::tempdir().unwrap());
    let held = segment("whole").hold_head(&gate);
    let origin = Origin::start().await.on(PATH, held);
    let log = folder.path().join("access.log");
    let shield = Shield::in_front_of(&origin).with(|config| {
        config.drain_max = Duration::from_millis(1);
        let access_log = &mut config.telemetry.access_log;
        access_log.enabled = true;
        access_log.path = Some(log.clone());
    });
    let shield = shield.start().await;
    // Requests in the same words wait for one response without hyper.
    let crowd = shield.crowd(4, get(PATH)).await;
    let viewer = shield.h2_viewer().await;
    let asked = viewer.send(get(PATH)).await;
    shield.wait_gauge(WAITERS, |waiting| waiting == HELD).await;
    shield.admin(ask("POST", "/drain")).await;
    let mut text = String::new();
    eventually("a line for each request", async || {
        text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().count() >= 5
    })
    .await;
    for line in text.lines() {
        assert!(line.contains("\"outcome\":\"left\""), "{line}");
        assert!(line.contains("\"aborted_by\":\"drain\""), "{line}");
    }
    let drain = [("cause", "drain")];
    assert_eq!(shield.counter(ABORTED, &drain).await, HELD);
    assert_eq!(shield.counter(ABORTED, &[]).await, HELD);
    let event = async |event| shield.counter(VIEWER_EVENTS, &[("event", event)]).await;
    assert_eq!(
        (event("cut_at_drain").await, event("abandoned").await),
        (5, 0)
    );
    drop((crowd, asked));
}

/// An operator's client that keeps its connection, as those of load balancers do.
#[tokio::test]
async fn idle_admin_connection_does_not_hold_the_server_up() {
    let origin = Origin::start().await;
    let mut program = Program::serve_with(&origin, ADMIN, |command| {
        command.stderr(Stdio::piped());
    })
    .await;
    let admin = program.log().admin().await;
    let mut kept = Viewer::connect(admin).await;
    kept.ask(get("/readyz").host("localhost"))
        .await
        .assert_is(200, "ready\n");
    let _silent = TcpStream::connect(admin).await.unwrap();
    program.signal("TERM");
    // The admin server would keep the connection for 5 s.
    let ended = program.wait_end();
    let ended = within_at_most(Duration::from_secs(2), "the end", ended).await;
    assert_eq!(ended, Some(0));
}

/// None of them is waited for until its idle timeout.
#[tokio::test]
async fn idle_server_with_a_thousand_connections_is_gone_at_once() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let bounds = "[server]\ndrain_max = \"1h\"\n[limits]\nidle_timeout = \"1h\"";
    let mut program = Program::serve(&origin, bounds).await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        let mut viewer = program.viewer().await;
        viewer.get(PATH).await.assert_whole("whole");
        idle.push(viewer);
    }
    let began = std::time::Instant::now();
    program.signal("TERM");
    assert_eq!(program.wait_end().await, Some(0));
    println!("gone after {:?}", began.elapsed());
    for viewer in &mut idle {
        viewer.wait_closed().await;
    }
}
