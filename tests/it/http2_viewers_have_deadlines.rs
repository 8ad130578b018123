//! HTTP/2 viewers have the same deadlines as HTTP/1.1 viewers.

use std::time::Duration;

use tempfile::tempdir;
use tokio::net::TcpStream;

use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, FrameViewer, HEADERS, PING, RST_STREAM,
    SETTINGS, fields, frame, initial_window, request, window_update,
};
use crate::support::metrics::{ABORTED, REQUESTS, SENT_BYTES, VIEWER_EVENTS};
use crate::support::viewer::{HOST, Identity, TlsViewer};
use crate::support::{Origin, Shield, eventually, noise, segment};

const PATH: &str = "/live/seg1.ts";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Long enough for a slow machine to send a head, and too short for a player to notice.
const SOON: Duration = Duration::from_millis(500);

/// Heads that begin and do not end: what is sent first, and what is then repeated.
fn unfinished_heads() -> Vec<(Vec<u8>, Vec<u8>)> {
    let block = fields("GET", PATH, HOST);
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block).to_bytes();
    let open = frame(HEADERS, END_STREAM, 1, &block[..5]).to_bytes();
    let more = frame(CONTINUATION, 0, 1, &[0; 9_000]).to_bytes();
    let settings = frame(SETTINGS, 0, 0, &[]).to_bytes();
    let begun = [PREFACE, &settings].concat();
    vec![
        ([&begun, &whole[..3]].concat(), vec![]),
        ([&begun, &whole[..9]].concat(), vec![]),
        ([&begun, &whole[..whole.len() - 1]].concat(), vec![]),
        ([&begun, &open[..]].concat(), vec![]),
        ([&begun, &open, &more[..9]].concat(), vec![0]),
        ([&begun, &settings[..8]].concat(), vec![]),
        (PREFACE[..20].to_vec(), vec![]),
    ]
}

async fn head_timeouts(shield: &Shield) -> u64 {
    shield
        .counter(VIEWER_EVENTS, &[("event", "head_timeout")])
        .await
}

/// The first byte of a head starts its deadline, and further bytes do not restart it.
#[tokio::test]
async fn unfinished_head_hits_head_timeout() {
    let folder = tempdir().unwrap();
    let identity = Identity::new("media.test", folder.path());
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let patient = |builder: crate::support::shield::Builder| {
        builder.with(|config| {
            config.frontend.limits.head_timeout = SOON;
            config.frontend.limits.idle_timeout = Duration::from_hours(1);
            config.frontend.limits.send_rate_window = Duration::from_hours(1);
        })
    };
    let plain = patient(Shield::in_front_of(&origin)).start().await;
    let secure = patient(Shield::in_front_of(&origin).with_tls(&[&identity]));
    let secure = secure.start().await;
    for (count, (once, again)) in unfinished_heads().into_iter().enumerate() {
        let tcp = TcpStream::connect(plain.address()).await.unwrap();
        let tls = TlsViewer::new_trusting(secure.address(), &identity);
        let mut viewers = [
            (&plain, FrameViewer::without_preface(tcp)),
            (&secure, FrameViewer::without_preface(tls.h2_wire().await)),
        ];
        for (shield, viewer) in &mut viewers {
            viewer.send_raw(&once).await;
            eventually(format!("the end of unfinished head {count}"), async || {
                viewer.send_raw(&again).await;
                head_timeouts(shield).await == count as u64 + 1
            })
            .await;
            viewer.read_rest().await;
        }
    }
}

/// A viewer who sends whole frames is never in the middle of one for long, even if each read ends
/// there; and a request body has the body's longer deadline.
#[tokio::test]
async fn split_frames_and_slow_bodies_do_not_hit_head_timeout() {
    let origin = Origin::start()
        .await
        .on("/api", segment("made"))
        .on(PATH, segment("whole").cache_control("max-age=60"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.pass_methods = true)
        .with(|config| config.frontend.limits.head_timeout = SOON)
        .start()
        .await;
    let mut viewer = FrameViewer::connect(shield.address()).await;
    let upload = frame(DATA, END_STREAM, 1, &[b'x'; 100]).to_bytes();
    viewer.send(&[request(1, "POST", "/api", false)]).await;
    let began = std::time::Instant::now();
    let mut sent = 0;
    while began.elapsed() < SOON * 2 {
        if sent < 50 {
            viewer.send_raw(&upload[sent..=sent]).await;
            sent += 1;
        }
        // The pace of the upload, not a wait.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    viewer.send_raw(&upload[sent..]).await;
    let is_end = |frame: &Frame| frame.kind == DATA && frame.flags & END_STREAM != 0;
    viewer.read_until(is_end).await.expect("an answer");
    // The end of one frame and the beginning of the next always arrive together.
    let ping = frame(PING, 0, 0, &[7; 8]).to_bytes();
    let began = std::time::Instant::now();
    viewer.send_raw(&ping[..5]).await;
    while began.elapsed() < SOON * 2 {
        viewer.send_raw(&[&ping[5..], &ping[..5]].concat()).await;
        viewer
            .read_until(|frame| frame.kind == PING)
            .await
            .expect("a ping");
        // The pace of the pings, not a wait.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    viewer.send_raw(&ping[5..]).await;
    viewer.send(&[request(3, "GET", PATH, true)]).await;
    viewer.read_until(is_end).await.expect("an answer");
    assert_eq!(head_timeouts(&shield).await, 0);
}

/// More than one piece, so that the stream's own task supervises it to its end.
const LARGE: u32 = 200_000;
/// One piece: h2 has it whole at once.
const SMALL: u32 = 1_000;
const STREAMS: u32 = 100;

/// A shield that stores an object of this size and cuts slow viewers soon.
async fn impatient(size: u32, rate: u64) -> Shield {
    let origin = Origin::start().await.on(
        PATH,
        segment(noise(1, size as usize)).cache_control("max-age=60"),
    );
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.frontend.limits.send_rate_window = SOON;
            config.frontend.limits.send_rate_min_bytes_per_second = rate;
        })
        .start()
        .await;
    shield.get(PATH).await;
    shield
}

async fn slow_viewers(shield: &Shield) -> u64 {
    shield
        .counter(VIEWER_EVENTS, &[("event", "slow_viewer")])
        .await
}

async fn aborted(shield: &Shield) -> u64 {
    shield.counter(ABORTED, &[("cause", "viewer")]).await
}

/// Requests the object on this many streams, whose windows leave room for this much of it.
async fn ask_through_windows(shield: &Shield, streams: u32, window: u32) -> FrameViewer {
    let mut viewer = FrameViewer::connect(shield.address()).await;
    let requests = (0..streams).map(|number| request(number * 2 + 1, "GET", PATH, true));
    let opening = [initial_window(window), window_update(0, 1 << 30)];
    let frames: Vec<_> = opening.into_iter().chain(requests).collect();
    viewer.send(&frames).await;
    viewer
}

/// Windows without room from the beginning, after a byte, at the end of a piece, or before the last
/// byte: each stream is reset and logged with the bytes that left, and its connection goes on.
#[tokio::test]
async fn streams_with_closed_windows_are_reset_and_sent_bytes_counted() {
    for (size, window) in [
        (LARGE, 0),
        (LARGE, 1),
        (LARGE, 32 << 10),
        (LARGE, LARGE - 1),
        (SMALL, 0),
    ] {
        let shield = impatient(size, 500).await;
        let before = shield.counter(SENT_BYTES, &[]).await;
        let streams = if window > 1 { 3 } else { STREAMS };
        let mut viewer = ask_through_windows(&shield, streams, window).await;
        for _ in 0..streams {
            let reset = viewer.read_until(|frame| frame.kind == RST_STREAM).await;
            reset.expect("a reset");
        }
        eventually("all logged", async || {
            aborted(&shield).await == u64::from(streams)
        })
        .await;
        assert_eq!(slow_viewers(&shield).await, u64::from(streams), "{window}");
        let sent = shield.counter(SENT_BYTES, &[]).await - before;
        assert_eq!(sent, u64::from(streams * window), "{window}");
        viewer
            .send(&[request(2 * streams + 1, "HEAD", PATH, true)])
            .await;
        let head = viewer.read_until(|frame| frame.kind == HEADERS).await;
        assert_eq!(head.expect("a head").stream, 2 * streams + 1);
    }
}

/// A response that h2 has whole can be ended only with its connection.
#[tokio::test]
async fn unread_small_responses_close_their_connection() {
    for window in [1, SMALL - 1] {
        let shield = impatient(SMALL, 500).await;
        let before = shield.counter(SENT_BYTES, &[]).await;
        let mut viewer = ask_through_windows(&shield, STREAMS, window).await;
        viewer.read_rest().await;
        eventually("all logged", async || {
            aborted(&shield).await == u64::from(STREAMS)
        })
        .await;
        assert_eq!(slow_viewers(&shield).await, 1);
        let sent = shield.counter(SENT_BYTES, &[]).await - before;
        assert_eq!(sent, u64::from(STREAMS * window), "{window}");
    }
}

/// The same as over HTTP/1.1.
#[tokio::test]
async fn stream_below_minimum_send_rate_is_ended() {
    let shield = impatient(LARGE, 1 << 20).await;
    let mut viewer = ask_through_windows(&shield, 1, 1).await;
    eventually("the end of the crawl", async || {
        viewer.send(&[window_update(1, 100)]).await;
        slow_viewers(&shield).await == 1
    })
    .await;
    eventually("done", async || aborted(&shield).await == 1).await;
}

/// A response is logged when its last byte has left, with its real end.
#[tokio::test]
async fn response_is_counted_when_its_last_byte_is_sent() {
    let origin = Origin::start().await.on(
        PATH,
        segment(noise(1, SMALL as usize)).cache_control("max-age=60"),
    );
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await;
    let hits = async || shield.counter(REQUESTS, &[("outcome", "hit")]).await;
    let before = shield.counter(SENT_BYTES, &[]).await;
    let mut viewer = ask_through_windows(&shield, 1, 400).await;
    viewer
        .read_until(|frame| frame.kind == DATA)
        .await
        .expect("some of it");
    assert_eq!(hits().await, 0, "it is still on its way");
    viewer.send(&[window_update(1, 600)]).await;
    let is_end = |frame: &Frame| frame.kind == DATA && frame.flags & END_STREAM != 0;
    viewer.read_until(is_end).await.expect("the rest");
    eventually("done", async || hits().await == 1).await;
    assert_eq!(
        shield.counter(SENT_BYTES, &[]).await - before,
        u64::from(SMALL)
    );
    assert_eq!(aborted(&shield).await, 0);
}

/// Bytes that wait for windows are counted, whether hyper or h2 has the stream, until the viewer
/// leaves or reads them.
#[tokio::test]
async fn queued_bytes_gauge_drops_after_read_or_disconnect() {
    const STREAMS: u32 = 10;
    const QUEUED: &str = "seawall_viewer_http2_queued_bytes";
    const QUEUED_BYTES_MAX: u32 = 96 << 10;
    for size in [SMALL, LARGE] {
        let body = segment(noise(1, size as usize)).cache_control("max-age=60");
        let origin = Origin::start().await.on(PATH, body);
        let shield = Shield::in_front_of(&origin).start().await;
        shield.get(PATH).await;
        assert_eq!(shield.gauge(QUEUED).await, 0);
        let least = STREAMS * (size - 1).min(QUEUED_BYTES_MAX / 3 - 1);
        for is_taken in [true, false] {
            let mut viewer = ask_through_windows(&shield, STREAMS, 1).await;
            shield
                .wait_gauge(QUEUED, |bytes| bytes >= u64::from(least))
                .await;
            let queued = shield.gauge(QUEUED).await;
            assert!(queued <= u64::from(STREAMS * QUEUED_BYTES_MAX), "{queued}");
            if is_taken {
                viewer.send(&[initial_window(1 << 30)]).await;
                let is_end = |frame: &Frame| frame.kind == DATA && frame.flags & END_STREAM != 0;
                for _ in 0..STREAMS {
                    viewer.read_until(is_end).await.expect("an end");
                }
            }
            drop(viewer);
            shield.wait_gauge(QUEUED, |bytes| bytes == 0).await;
        }
    }
}
