//! A viewer who speaks HTTP/2 has the same deadlines as one who speaks HTTP/1.1.

use std::time::Duration;

use tempfile::tempdir;
use tokio::net::TcpStream;

use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, FrameViewer, HEADERS, PING, SETTINGS,
    fields, frame, request,
};
use crate::support::metrics::EDGE_EVENTS;
use crate::support::viewer::{HOST, Identity, TlsViewer};
use crate::support::{Origin, Shield, eventually, segment};

const PATH: &str = "/live/seg1.ts";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Long enough for a slow machine to send a head, and no time a player would notice.
const SOON: Duration = Duration::from_millis(500);

/// Heads that begin and do not end: what is sent once, and what then comes again and again.
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
        .counted(EDGE_EVENTS, &[("event", "head_timeout")])
        .await
}

/// The first byte of a head starts its clock, and further ones do not restart it.
#[tokio::test]
async fn a_head_that_does_not_end_is_cut() {
    let folder = tempdir().unwrap();
    let identity = Identity::new("media.test", folder.path());
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let patient = |builder: crate::support::shield::Builder| {
        builder.with(|config| {
            config.edge.limits.head_timeout = SOON;
            config.edge.limits.idle_timeout = Duration::from_hours(1);
            config.edge.limits.send_rate_window = Duration::from_hours(1);
        })
    };
    let plain = patient(Shield::in_front_of(&origin)).start().await;
    let secure = patient(Shield::in_front_of(&origin).with_tls(&[&identity]));
    let secure = secure.start().await;
    for (count, (once, again)) in unfinished_heads().into_iter().enumerate() {
        let tcp = TcpStream::connect(plain.address()).await.unwrap();
        let tls = TlsViewer::trusting(secure.address(), &identity);
        let mut viewers = [
            (&plain, FrameViewer::silent(tcp)),
            (&secure, FrameViewer::silent(tls.h2_wire().await)),
        ];
        for (shield, viewer) in &mut viewers {
            viewer.send_raw(&once).await;
            eventually(format!("the end of unfinished head {count}"), async || {
                viewer.send_raw(&again).await;
                head_timeouts(shield).await == count as u64 + 1
            })
            .await;
            viewer.rest().await;
        }
    }
}

/// Whoever sends one whole frame after the other is never in the middle of one for long, though
/// each read may end there; and a body may come as slowly as bodies may.
#[tokio::test]
async fn frames_cut_by_reads_and_slow_bodies_are_no_unfinished_heads() {
    let origin = Origin::start()
        .await
        .on("/api", segment("made"))
        .on(PATH, segment("whole").cache_control("max-age=60"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.pass_methods = true)
        .with(|config| config.edge.limits.head_timeout = SOON)
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
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    viewer.send_raw(&upload[sent..]).await;
    let is_end = |frame: &Frame| frame.kind == DATA && frame.flags & END_STREAM != 0;
    viewer.until(is_end).await.expect("an answer");
    // The end of one frame and the beginning of the next come together, always.
    let ping = frame(PING, 0, 0, &[7; 8]).to_bytes();
    let began = std::time::Instant::now();
    viewer.send_raw(&ping[..5]).await;
    while began.elapsed() < SOON * 2 {
        viewer.send_raw(&[&ping[5..], &ping[..5]].concat()).await;
        viewer
            .until(|frame| frame.kind == PING)
            .await
            .expect("a ping");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    viewer.send_raw(&ping[5..]).await;
    viewer.send(&[request(3, "GET", PATH, true)]).await;
    viewer.until(is_end).await.expect("an answer");
    assert_eq!(head_timeouts(&shield).await, 0);
}
