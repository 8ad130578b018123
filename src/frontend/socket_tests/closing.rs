//! Shutdown: responses in progress are finished, idle connections are closed, and the frontend
//! waits for the last one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::frontend::Limits;
use crate::frontend::test_support::{TestServer, Viewer, answer, until};
use crate::proxy::ResponseBody;

fn hello() -> ResponseBody {
    ResponseBody::Whole(Some(Bytes::from_static(b"hello")))
}

async fn drain(server: &TestServer) {
    timeout(Duration::from_secs(10), server.frontend.drain())
        .await
        .expect("a connection was not closed");
}

#[tokio::test]
async fn drains_at_once_without_connections() {
    let server = TestServer::with_body(Limits::default(), hello);
    drain(&server).await;
    until("the listener is closed", || {
        std::net::TcpStream::connect(server.address).is_err()
    })
    .await;
}

#[tokio::test]
async fn does_not_wait_for_quiet_viewers_while_draining() {
    for server in TestServer::on_both_paths(Limits::default(), hello) {
        let mut used = Viewer::connect(&server).await;
        used.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        used.read_until("hello").await;
        let mut fresh = Viewer::connect(&server).await;
        until("both connections are open", || {
            server.frontend.stats().open == 2
        })
        .await;
        drain(&server).await;
        assert!(
            used.read_to_end().await.1 && fresh.read_to_end().await.1,
            "both end cleanly"
        );
    }
}

#[tokio::test]
async fn finishes_responses_in_progress_while_draining() {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let server = TestServer::start(Limits::default(), None, move |request| {
        let gate = waiting.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            answer(&request, hello())
        }
    });
    let mut viewer = Viewer::connect(&server).await;
    viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until("the connection is open", || {
        server.frontend.stats().open == 1
    })
    .await;
    let frontend = server.frontend.clone();
    let draining = tokio::spawn(async move { frontend.drain().await });
    until("draining", || server.frontend.is_draining()).await;
    gate.add_permits(1);
    let (received, is_clean_end) = viewer.read_to_end().await;
    assert!(
        received.contains("\r\nconnection: close\r\n") && received.ends_with("hello"),
        "{received}"
    );
    assert!(is_clean_end);
    timeout(Duration::from_secs(10), draining)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn answers_a_request_that_arrives_while_draining() {
    for server in TestServer::on_both_paths(Limits::default(), hello) {
        let mut viewer = Viewer::connect(&server).await;
        viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        viewer.read_until("hello").await;
        let frontend = server.frontend.clone();
        let draining = tokio::spawn(async move { frontend.drain().await });
        until("draining", || server.frontend.is_draining()).await;
        viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let (received, _) = viewer.read_to_end().await;
        assert!(
            received.contains("\r\nconnection: close\r\n") && received.ends_with("hello"),
            "{received}"
        );
        timeout(Duration::from_secs(10), draining)
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn abort_closes_all_connections() {
    let server = TestServer::start(Limits::default(), None, |request| async move {
        std::future::pending::<()>().await;
        answer(&request, ResponseBody::Empty)
    });
    let mut viewer = Viewer::connect(&server).await;
    viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until("the connection is open", || {
        server.frontend.stats().open == 1
    })
    .await;
    server.frontend.abort();
    assert_eq!(viewer.read_to_end().await.0, "");
    until("all connections are closed", || {
        server.frontend.stats().open == 0
    })
    .await;
}

/// A second request during a large response must not truncate that response.
#[tokio::test]
async fn sends_a_started_response_completely_while_draining() {
    const LENGTH: usize = 12 << 20;
    for server in TestServer::on_both_paths(Limits::default(), || {
        ResponseBody::Whole(Some(Bytes::from(vec![b'x'; LENGTH])))
    }) {
        let mut viewer = Viewer::connect(&server).await;
        viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        viewer.read_until("\r\n\r\n").await;
        viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let frontend = server.frontend.clone();
        let draining = tokio::spawn(async move { frontend.drain().await });
        until("draining", || server.frontend.is_draining()).await;
        let (received, is_clean_end) = viewer.read_to_end().await;
        let first = received.bytes().take_while(|&byte| byte == b'x').count();
        assert_eq!((first, is_clean_end), (LENGTH, true));
        assert!(server.records.take()[0].aborted_by.is_none());
        timeout(Duration::from_secs(10), draining)
            .await
            .unwrap()
            .unwrap();
    }
}

/// A frame header with this length, type, flags and stream.
fn frame_head(length: u32, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let head = [&length.to_be_bytes()[1..], &[kind, flags]].concat();
    [head, stream.to_be_bytes().to_vec()].concat()
}

async fn read_u24(viewer: &mut TcpStream) -> std::io::Result<u32> {
    let mut bytes = [0; 4];
    viewer.read_exact(&mut bytes[1..]).await?;
    Ok(u32::from_be_bytes(bytes))
}

/// A `WINDOW_UPDATE` frame for the connection.
fn window_update(bytes: u32) -> Vec<u8> {
    [frame_head(4, 8, 0, 0), bytes.to_be_bytes().to_vec()].concat()
}

/// All bytes are written, and most of them wait in the kernel for a slow viewer that sends
/// `WINDOW_UPDATE` frames. These frames must not reset the connection.
#[tokio::test]
async fn lets_an_http2_viewer_read_after_the_last_write() {
    const LENGTH: usize = 1 << 20;
    const PING: u8 = 6;
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let server = TestServer::start(Limits::default(), None, move |request| {
        let gate = waiting.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            answer(
                &request,
                ResponseBody::Whole(Some(Bytes::from(vec![b'x'; LENGTH]))),
            )
        }
    });
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 << 10).unwrap();
    let mut viewer = socket.connect(server.address).await.unwrap();
    let windows = [&[0, 4][..], &(1_u32 << 30).to_be_bytes()].concat();
    let get = [0x82, 0x86, 0x84, 1, 1, b'a'];
    let opening = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        [frame_head(6, 4, 0, 0), windows].concat(),
        window_update(1 << 30),
        [frame_head(6, 1, 5, 1), get.to_vec()].concat(),
    ];
    viewer.write_all(&opening.concat()).await.unwrap();
    until("the connection is open", || {
        server.frontend.stats().open == 1
    })
    .await;
    let frontend = server.frontend.clone();
    let draining = tokio::spawn(async move { frontend.drain().await });
    let mut received = 0;
    let mut is_whole = false;
    while let Ok(length) = read_u24(&mut viewer).await {
        let (kind, flags) = (
            viewer.read_u8().await.unwrap(),
            viewer.read_u8().await.unwrap(),
        );
        viewer.read_u32().await.unwrap();
        let mut payload = vec![0; length as usize];
        if viewer.read_exact(&mut payload).await.is_err() {
            break;
        }
        if kind == PING && flags == 0 {
            let pong = [frame_head(8, PING, 1, 0), payload].concat();
            viewer.write_all(&pong).await.unwrap();
            gate.add_permits(1);
            until("the response is recorded", || server.records.count() == 1).await;
        } else if kind == 0 {
            received += length as usize;
            is_whole |= flags & 1 == 1;
            // Many viewers discard unread bytes when a write fails.
            let written = viewer.write_all(&window_update(length)).await;
            written.expect("the connection is open");
        }
    }
    assert_eq!((received, is_whole), (LENGTH, true));
    drop(viewer);
    timeout(Duration::from_secs(10), draining)
        .await
        .unwrap()
        .unwrap();
}
