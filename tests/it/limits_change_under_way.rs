//! A reload changes the limits of viewers: those of connections hold at once, the others for
//! connections that begin from then on. No response is cut because a limit is lower now.

use std::time::Duration;

use seawall::frontend::Limits;
use tokio::net::TcpStream;

use crate::support::frames::{FrameViewer, SETTINGS};
use crate::support::metrics::VIEWER_EVENTS;
use crate::support::patience::within;
use crate::support::viewer::{Identity, TlsViewer, Viewer};
use crate::support::{Ask, Origin, Shield, ask, eventually, get, noise, segment};

const PATH: &str = "/live/seg1.ts";
const SOON: Duration = Duration::from_millis(1);

async fn origin() -> Origin {
    let object = segment("whole").cache_control("max-age=600");
    Origin::start().await.on(PATH, object)
}

/// A shield, in front of an origin that must be kept.
async fn shield() -> (Shield, Origin) {
    let origin = origin().await;
    (Shield::in_front_of(&origin).start().await, origin)
}

fn set(shield: &mut Shield, change: impl FnOnce(&mut Limits)) {
    shield.reload(|config| change(&mut config.frontend.limits));
}

async fn count(shield: &Shield, event: &str) -> u64 {
    shield.counter(VIEWER_EVENTS, &[("event", event)]).await
}

/// A viewer who is connected: the object was sent.
async fn connected(shield: &Shield) -> Viewer {
    let mut viewer = shield.viewer().await;
    viewer.get(PATH).await.assert_whole("whole");
    viewer
}

#[tokio::test]
async fn lower_connections_max_refuses_new_ones_and_cuts_none() {
    let gate = crate::support::Gate::new();
    let held = segment("held").hold_head(&gate);
    let origin = origin().await.on("/held.ts", held);
    let mut shield = Shield::in_front_of(&origin).start().await;
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut viewer = shield.viewer().await;
        viewer.send(&get("/held.ts")).await;
        busy.push(viewer);
    }
    eventually("three to wait", async || {
        shield.gauge("seawall_waiters").await == 3
    })
    .await;
    set(&mut shield, |limits| limits.connections_max = 2);
    assert_eq!(shield.get(PATH).await.status, 503);
    assert_eq!(count(&shield, "refused_full").await, 1);
    set(&mut shield, |limits| limits.connections_max = 100);
    connected(&shield).await;
    gate.open();
    for viewer in &mut busy {
        let answer = viewer.receive(&get("/held.ts")).await;
        answer.assert_whole("held");
        assert_eq!(answer.header("connection"), None);
    }
}

/// Those that are idle go, the longest idle first, without a newcomer that needs their place.
#[tokio::test]
async fn lower_connections_max_closes_idle_connections() {
    let (mut shield, _origin) = shield().await;
    let mut viewers = Vec::new();
    for _ in 0..4 {
        viewers.push(connected(&shield).await);
    }
    set(&mut shield, |limits| limits.connections_max = 2);
    for viewer in &mut viewers[..2] {
        viewer.wait_closed().await;
    }
    // The same limit once more closes nothing.
    set(&mut shield, |limits| limits.connections_max = 2);
    for viewer in &mut viewers[2..] {
        viewer.get(PATH).await.assert_whole("whole");
    }
    assert_eq!(count(&shield, "closed_idle").await, 2);
}

#[tokio::test]
async fn connections_of_one_client_count_against_the_new_limit() {
    let (mut shield, _origin) = shield().await;
    let mut before = [connected(&shield).await, connected(&shield).await];
    set(&mut shield, |limits| limits.connections_per_client_max = 2);
    let mut refused = shield.viewer().await;
    refused.wait_closed().await;
    assert_eq!(count(&shield, "refused_client").await, 1);
    for viewer in &mut before {
        viewer.get(PATH).await.assert_whole("whole");
    }
    set(&mut shield, |limits| limits.connections_per_client_max = 3);
    connected(&shield).await;
}

/// The status on a connection of before and on a new one.
async fn statuses(before: &mut Viewer, shield: &Shield, request: &Ask) -> (u16, u16) {
    let old = before.ask(request.clone()).await.status;
    (old, shield.ask(request.clone()).await.status)
}

type Lower = fn(&mut Limits);

#[tokio::test]
async fn sizes_hold_for_new_connections() {
    let (mut shield, _origin) = shield().await;
    let long = get(&format!("{PATH}?{}", "a".repeat(2000)));
    let headers = (0..50).fold(get(PATH), |ask, _| ask.header("X-Filler", "1"));
    let large = get(PATH).header("X-Large", &"a".repeat(2000));
    let cases: [(Ask, u16, Lower); 4] = [
        (long, 414, |limits| limits.uri_bytes_max = 1000),
        (headers, 431, |limits| limits.headers_max = 10),
        (large.clone(), 431, |limits| limits.header_bytes_max = 1000),
        (large, 431, |limits| limits.head_bytes_max = 1000),
    ];
    for (request, refused, lower) in cases {
        let mut before = connected(&shield).await;
        assert_eq!(
            statuses(&mut before, &shield, &request).await,
            (200, 200),
            "{request}"
        );
        let mut before = connected(&shield).await;
        set(&mut shield, lower);
        assert_eq!(
            statuses(&mut before, &shield, &request).await,
            (200, refused),
            "{request}"
        );
        // The other way round: a new connection is not bound by what an old one may not.
        set(&mut shield, |limits| *limits = Limits::default());
        assert_eq!(shield.ask(request).await.status, 200);
    }
}

#[tokio::test]
async fn upload_limit_holds_for_new_connections() {
    let origin = origin().await.on("/up", segment("taken"));
    let mut shield = Shield::in_front_of(&origin)
        .route(|route| route.pass_methods = true)
        .start()
        .await;
    let upload = ask("POST", "/up").body(&noise(1, 4000));
    let mut before = shield.viewer().await;
    assert_eq!(before.ask(upload.clone()).await.status, 200);
    set(&mut shield, |limits| limits.request_body_bytes_max = 1000);
    assert_eq!(statuses(&mut before, &shield, &upload).await, (200, 413));
}

#[tokio::test]
async fn idle_timeout_holds_for_new_connections() {
    let (mut shield, _origin) = shield().await;
    let mut before = connected(&shield).await;
    set(&mut shield, |limits| limits.idle_timeout = SOON);
    let mut new = connected(&shield).await;
    new.wait_closed().await;
    before.get(PATH).await.assert_whole("whole");
    set(&mut shield, |limits| *limits = Limits::default());
    let mut newest = connected(&shield).await;
    newest.get(PATH).await.assert_whole("whole");
}

#[tokio::test]
async fn head_timeout_holds_for_new_connections() {
    let (mut shield, _origin) = shield().await;
    let half = b"GET / HTTP/1.1\r\nHost: media.test\r\n";
    let mut before = connected(&shield).await;
    before.send_raw(half).await;
    set(&mut shield, |limits| limits.head_timeout = SOON);
    let mut new = shield.viewer().await;
    new.send_raw(half).await;
    new.wait_closed().await;
    assert_eq!(count(&shield, "head_timeout").await, 1);
    before.send_raw(b"\r\n").await;
    before.receive(&get("/")).await;
}

#[tokio::test]
async fn handshake_timeout_holds_for_new_connections() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::new("one.example", folder.path());
    let origin = origin().await;
    let mut shield = Shield::in_front_of(&origin)
        .with_tls(&[&identity])
        .start()
        .await;
    set(&mut shield, |limits| limits.handshake_timeout = SOON);
    let silent = within("a connection", TcpStream::connect(shield.address())).await;
    let mut silent = Viewer::over(silent.unwrap());
    silent.wait_closed().await;
    assert_eq!(count(&shield, "handshake_timeout").await, 1);
    set(&mut shield, |limits| *limits = Limits::default());
    let mut viewer = TlsViewer::new_trusting(shield.address(), &identity)
        .h1()
        .await;
    viewer.get(PATH).await.assert_whole("whole");
}

/// The number of streams that a new HTTP/2 connection is allowed.
async fn streams_max(shield: &Shield) -> Option<u32> {
    const MAX_CONCURRENT_STREAMS: u8 = 3;
    let mut viewer = FrameViewer::connect(shield.address()).await;
    let settings = viewer.read_until(|frame| frame.kind == SETTINGS).await;
    let settings = settings.expect("settings").payload;
    let mut settings = settings.chunks_exact(6);
    let streams = settings.find(|setting| setting[..2] == [0, MAX_CONCURRENT_STREAMS]);
    let value = *streams?.last_chunk::<4>()?;
    Some(u32::from_be_bytes(value))
}

#[tokio::test]
async fn streams_max_holds_for_new_connections() {
    let (mut shield, _origin) = shield().await;
    assert_eq!(
        streams_max(&shield).await,
        Some(Limits::default().streams_max)
    );
    set(&mut shield, |limits| limits.streams_max = 7);
    assert_eq!(streams_max(&shield).await, Some(7));
}

/// A worker keeps one table of remembered responses for all its connections.
#[tokio::test]
async fn remembered_responses_do_not_multiply() {
    let (mut shield, _origin) = shield().await;
    let mut viewers = Vec::new();
    let mut largest = 0;
    for round in 0..20 {
        set(&mut shield, |limits| limits.uri_bytes_max = 8000 + round);
        let mut viewer = shield.viewer().await;
        for _ in 0..4 {
            viewer.get(PATH).await.assert_whole("whole");
        }
        viewers.push(viewer);
        let bytes = shield.gauge("seawall_repeated_response_bytes").await;
        if round == 0 {
            largest = bytes;
            assert!(bytes > 0, "a repeated response");
        }
        assert!(bytes <= 2 * largest, "{bytes} after {round} reloads");
    }
}
