//! At `connections_max` a new connection replaces the one that has been idle for longest. If none
//! is idle, it gets 503.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::frames::{FrameViewer, GOAWAY, HEADERS, request};
use crate::support::metrics::VIEWER_EVENTS;
use crate::support::shield::Builder;
use crate::support::{Gate, Origin, Shield, eventually, get, segment};

const PATH: &str = "/live/seg1.ts";

async fn origin(gate: &Gate) -> Origin {
    Origin::start()
        .await
        .on(PATH, segment("whole").cache_control("max-age=60"))
        .on("/held.ts", segment("held").hold_head(gate))
}

fn with_room_for(builder: Builder, connections: usize) -> Builder {
    builder.with(|config| config.frontend.limits.connections_max = connections)
}

async fn events(shield: &Shield, event: &str) -> u64 {
    shield.counter(VIEWER_EVENTS, &[("event", event)]).await
}

/// A viewer who tries once; an accepted connection is kept.
async fn try_once(shield: &Shield) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(shield.address()).await.ok()?;
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: media.test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.ok()?;
    (&answer == b"HTTP/1.1 200").then_some(stream)
}

async fn is_let_in(shield: &Shield) -> TcpStream {
    let mut let_in = None;
    eventually("room for a new connection", async || {
        let_in = try_once(shield).await;
        let_in.is_some()
    })
    .await;
    let_in.unwrap()
}

#[tokio::test]
async fn longest_idle_connection_is_closed_at_connections_max() {
    let gate = Gate::new();
    let origin = origin(&gate).await;
    let shield = with_room_for(Shield::in_front_of(&origin), 3).start().await;
    let mut first = shield.viewer().await;
    first.get(PATH).await.assert_whole("whole");
    let mut second = shield.viewer().await;
    second.get(PATH).await.assert_whole("whole");
    let busy = shield.viewer().await.begin(get("/held.ts"));
    let busy = tokio::spawn(busy);
    gate.wait_arrived(1).await;
    let _newcomer = is_let_in(&shield).await;
    first.wait_closed().await;
    assert_eq!(events(&shield, "closed_idle").await, 1);
    second.get(PATH).await.assert_whole("whole");
    gate.open();
    busy.await.unwrap().finish().await.assert_whole("held");
}

/// An idle HTTP/2 connection gets a GOAWAY, also one that has sent no request.
#[tokio::test]
async fn idle_http2_connection_gets_goaway_at_connections_max() {
    let gate = Gate::new();
    let origin = origin(&gate).await;
    let shield = with_room_for(Shield::in_front_of(&origin), 1).start().await;
    for asks in [true, false] {
        let before = events(&shield, "closed_idle").await;
        let mut viewer = FrameViewer::connect(shield.address()).await;
        eventually("the viewer is in", async || {
            shield.gauge("seawall_viewer_connections_open").await == 1
        })
        .await;
        if asks {
            viewer.send(&[request(1, "GET", PATH, true)]).await;
            let answer = viewer.read_until(|frame| frame.kind == HEADERS).await;
            answer.expect("an answer");
        }
        let newcomer = is_let_in(&shield).await;
        let frames = viewer.read_rest().await;
        assert!(
            frames.iter().any(|frame| frame.kind == GOAWAY),
            "{frames:?}"
        );
        assert_eq!(events(&shield, "closed_idle").await, before + 1);
        drop(newcomer);
        eventually("all are gone", async || {
            shield.gauge("seawall_viewer_connections_open").await == 0
        })
        .await;
    }
}

#[tokio::test]
async fn new_connection_gets_503_when_none_is_idle() {
    let gate = Gate::new();
    let origin = origin(&gate).await;
    let shield = with_room_for(Shield::in_front_of(&origin), 1).start().await;
    let busy = shield.viewer().await.begin(get("/held.ts"));
    let busy = tokio::spawn(busy);
    gate.wait_arrived(1).await;
    let mut newcomer = shield.viewer().await;
    let refusal = newcomer.receive(&get(PATH)).await;
    assert_eq!(refusal.status, 503);
    assert_eq!(refusal.header("connection"), Some("close"));
    newcomer.wait_closed().await;
    assert_eq!(events(&shield, "refused_full").await, 1);
    assert_eq!(events(&shield, "closed_idle").await, 0);
    gate.open();
    busy.await.unwrap().finish().await.assert_whole("held");
}
