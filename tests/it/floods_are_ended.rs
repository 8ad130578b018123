//! A connection that only causes work is closed; one that works on its own requests is not.

use std::time::Duration;

use tempfile::tempdir;

use crate::support::frames::{
    ACK, DATA, END_STREAM, ENHANCE_YOUR_CALM, Frame, FrameViewer, GOAWAY, HEADERS, PING, PRIORITY,
    RST_STREAM, SETTINGS, frame, initial_window, request, window_update,
};
use crate::support::metrics::{FLOODS, VIEWER_EVENTS};
use crate::support::viewer::{Identity, TlsViewer};
use crate::support::{Gate, Origin, Shield, eventually, noise, reply, segment};

const PATH: &str = "/live/seg1.ts";

/// More frames than a client may send without requests, and fewer bytes than are read after the
/// GOAWAY.
const FRAMES: usize = 3_000;

/// Each flood: the repeated frames, and its label in the metric.
fn floods() -> Vec<(Vec<Frame>, &'static str)> {
    vec![
        (vec![frame(PING, 0, 0, &[7; 8])], "ping"),
        (vec![frame(PING, ACK, 0, &[7; 8])], "ping"),
        (vec![frame(SETTINGS, 0, 0, &[])], "settings"),
        (vec![initial_window(1 << 20), initial_window(1)], "settings"),
        (vec![frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9])], "priority"),
        (vec![window_update(0, 1)], "window_update"),
        (vec![window_update(1, 1)], "window_update"),
        (vec![frame(0xbb, 0, 0, &[])], "unknown"),
        // PRIORITY_UPDATE (RFC 9218).
        (vec![frame(0x10, 0, 0, b"\0\0\0\x01u=1")], "unknown"),
        (vec![frame(GOAWAY, 0, 0, &[0; 8])], "goaway"),
    ]
}

async fn flood(viewer: &mut FrameViewer, pattern: &[Frame]) {
    let frames: Vec<_> = pattern.iter().cycle().take(FRAMES).cloned().collect();
    viewer.send(&frames).await;
}

/// The GOAWAY of a connection that was closed for a flood.
async fn is_ended(viewer: &mut FrameViewer, flood: &str) {
    let frames = viewer.read_rest().await;
    let last = frames.last().unwrap_or_else(|| panic!("{flood}: nothing"));
    assert_eq!(last.kind, GOAWAY, "{flood}: {last:?}");
    assert_eq!(last.error_code(), ENHANCE_YOUR_CALM, "{flood}");
}

/// A stream whose response is held at the origin is open during the flood.
#[tokio::test]
async fn flood_of_any_http2_frame_is_closed_and_counted() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on("/held.ts", segment("held").hold_head(&gate))
        .on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin).start().await;
    for (pattern, word) in floods() {
        let labels = [("frame", word)];
        let before = shield.counter(FLOODS, &labels).await;
        let mut viewer = FrameViewer::connect(shield.address()).await;
        viewer.send(&[request(1, "GET", "/held.ts", true)]).await;
        flood(&mut viewer, &pattern).await;
        is_ended(&mut viewer, word).await;
        assert_eq!(shield.counter(FLOODS, &labels).await, before + 1, "{word}");
        shield.get(PATH).await.assert_whole("whole");
    }
}

/// Open streams make each change of the initial window expensive.
#[tokio::test]
async fn toggling_initial_window_with_open_streams_is_closed() {
    let origin = Origin::start()
        .await
        .on(PATH, segment(noise(1, 200_000)).cache_control("max-age=60"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await;
    let mut viewer = FrameViewer::connect(shield.address()).await;
    viewer.send(&[initial_window(0)]).await;
    let requests: Vec<_> = (0..100)
        .map(|number| request(number * 2 + 1, "GET", PATH, true))
        .collect();
    viewer.send(&requests).await;
    viewer
        .read_until(|frame| frame.kind == HEADERS && frame.stream == 199)
        .await;
    flood(&mut viewer, &[initial_window(1), initial_window(0)]).await;
    is_ended(&mut viewer, "settings").await;
    assert_eq!(shield.counter(FLOODS, &[("frame", "settings")]).await, 1);
}

/// A body in empty or tiny DATA frames. h2 itself ends such connections; Seawall counts them.
#[tokio::test]
async fn flood_of_empty_or_tiny_data_frames_is_closed() {
    let origin = Origin::start().await.on("/api", reply());
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.pass_methods = true)
        .start()
        .await;
    for (payload, counted) in [(&b""[..], 1), (b"x", 2)] {
        let mut viewer = FrameViewer::connect(shield.address()).await;
        viewer.send(&[request(1, "POST", "/api", false)]).await;
        flood(&mut viewer, &[frame(DATA, 0, 1, payload)]).await;
        is_ended(&mut viewer, "data").await;
        let floods = shield.counter(FLOODS, &[("frame", "data")]).await;
        assert_eq!(floods, counted);
    }
}

/// Requests that are cancelled at once are useless work.
#[tokio::test]
async fn rapid_reset_is_closed() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on("/held.ts", segment("held").hold_head(&gate));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = FrameViewer::connect(shield.address()).await;
    for number in 0..5_000 {
        let stream = number * 2 + 1;
        let whole = request(stream, "GET", "/held.ts", true);
        let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        viewer.send(&[whole, reset]).await;
    }
    is_ended(&mut viewer, "resets").await;
    assert_eq!(shield.counter(FLOODS, &[]).await, 1);
}

/// The same over TLS and a Unix socket; endless floods are cut, whether or not the client reads the
/// GOAWAY.
#[tokio::test]
async fn floods_are_closed_over_tls_and_unix_socket() {
    let folder = tempdir().unwrap();
    let identity = Identity::new("media.test", folder.path());
    let socket = folder.path().join("viewers.sock");
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on("/held.ts", segment("held").hold_head(&gate))
        .on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin)
        .with_tls(&[&identity])
        .on_unix(socket.clone())
        .start()
        .await;
    let tls = TlsViewer::new_trusting(shield.address(), &identity);
    for (count, (pattern, word)) in floods().into_iter().enumerate() {
        let mut over_tls = FrameViewer::over(tls.h2_wire().await).await;
        let mut over_unix = FrameViewer::connect_unix(&socket).await;
        for viewer in [&mut over_tls, &mut over_unix] {
            viewer.send(&[request(1, "GET", "/held.ts", true)]).await;
            flood(viewer, &pattern).await;
            is_ended(viewer, word).await;
        }
        let floods = shield.counter(FLOODS, &[]).await;
        assert_eq!(floods, 2 * (count as u64 + 1), "{word}");
    }
    let mut endless = FrameViewer::connect_unix(&socket).await;
    eventually("the end of an endless flood", async || {
        flood(&mut endless, &[frame(PING, 0, 0, &[7; 8])]).await;
        shield.counter(FLOODS, &[]).await == 2 * floods().len() as u64 + 1
    })
    .await;
    let mut viewer = tls.h1().await;
    viewer.get(PATH).await.assert_whole("whole");
}

/// A hundred downloads through windows that are too small, by a client that acknowledges each DATA
/// frame on both windows. h2 then sends frames of a dozen bytes.
#[tokio::test]
async fn window_updates_of_busy_connection_are_no_flood() {
    const WINDOW: u32 = 4_000;
    const STREAMS: u32 = 100;
    let body = noise(3, 150_000);
    let origin = Origin::start()
        .await
        .on(PATH, segment(body.clone()).cache_control("max-age=60"));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = FrameViewer::connect(shield.address()).await;
    viewer.send(&[initial_window(WINDOW)]).await;
    for number in 0..STREAMS {
        let stream = number * 2 + 1;
        viewer.send(&[request(stream, "GET", PATH, true)]).await;
    }
    let (mut came, mut ended) = (0, 0);
    while ended < STREAMS {
        let piece = viewer.next().await.expect("the connection is closed");
        assert_ne!(piece.kind, GOAWAY, "{piece:?}");
        if piece.kind != DATA {
            continue;
        }
        let bytes = u32::try_from(piece.payload.len()).unwrap();
        came += bytes as usize;
        ended += u32::from(piece.flags & END_STREAM != 0);
        if bytes > 0 {
            viewer
                .send(&[window_update(0, bytes), window_update(piece.stream, bytes)])
                .await;
        }
    }
    assert_eq!(came, STREAMS as usize * body.len());
    assert_eq!(shield.counter(FLOODS, &[]).await, 0);
}

/// Thousands of small responses on one connection, each with a priority and a late reset.
#[tokio::test]
async fn thousands_of_small_responses_are_no_flood() {
    let origin = Origin::start()
        .await
        .on(PATH, segment("x").cache_control("max-age=60"));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = FrameViewer::connect(shield.address()).await;
    for number in 0..3_000 {
        let stream = number * 2 + 1;
        let asked = request(stream, "GET", PATH, true);
        let order = frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 9]);
        viewer.send(&[asked, order]).await;
        let last = viewer.read_until(|frame| frame.kind == DATA && frame.flags & END_STREAM != 0);
        assert_eq!(last.await.expect("an answer").stream, stream);
        viewer.send(&[frame(RST_STREAM, 0, stream, &[0; 4])]).await;
    }
    assert_eq!(shield.counter(FLOODS, &[]).await, 0);
}

/// Blank lines are no request, however many arrive: the first byte starts the head's deadline.
#[tokio::test]
async fn endless_blank_lines_hit_head_timeout() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.frontend.limits.head_timeout = Duration::from_millis(300))
        .start()
        .await;
    let before = format!("GET {PATH} HTTP/1.1\r\nHost: media.test\r\n\r\n");
    let mut cut = 0;
    for before in ["", &before] {
        for lines in ["\r\n", "\r\n\r\n\r\n"] {
            let mut viewer = FrameViewer::connect_without_preface(shield.address()).await;
            viewer.send_raw(before.as_bytes()).await;
            cut += 1;
            eventually(format!("{lines:?} after {before:?} to end"), async || {
                viewer.send_raw(lines.as_bytes()).await;
                let labels = [("event", "head_timeout")];
                shield.counter(VIEWER_EVENTS, &labels).await == cut
            })
            .await;
        }
    }
}
