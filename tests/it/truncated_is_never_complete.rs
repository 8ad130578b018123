//! An incomplete body is never stored and never ends cleanly, for any viewer.

use std::time::Duration;

use bytes::Bytes;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::origin::Reply;
use crate::support::patience::within;
use crate::support::viewer::{Duplex, Identity, TlsViewer, Viewer};
use crate::support::{
    Arriving, End, Gate, Origin, Response, Shield, get, head, noise, reply, segment,
};

const PATH: &str = "/live/seg1.ts";

/// The shield's deadline between two reads of a body here.
const STALL: Duration = Duration::from_millis(150);

/// The complete body.
fn whole() -> Bytes {
    noise(1, 1000)
}

/// Its first half, after which each fault happens once the gate opens.
fn half(gate: &Gate) -> Reply {
    reply()
        .content_type("video/mp2t")
        .send(whole().slice(..500))
        .hold(gate)
}

/// A shield with a short stall deadline and no back-off after a failure.
async fn shield(origin: &Origin) -> Shield {
    let builder = Shield::in_front_of(origin)
        .origin(|group| group.deadlines.between_bytes = STALL)
        .proxy_settings(|waits| waits.failure_backoff = Duration::ZERO);
    builder.start().await
}

/// Three viewers on HTTP/1.1 and one on HTTP/2, all of whom have the first half.
async fn followers(shield: &Shield) -> Vec<Arriving> {
    let mut followers = Vec::new();
    for _ in 0..3 {
        followers.push(shield.begin(get(PATH)).await);
    }
    followers.push(shield.h2_viewer().await.begin(get(PATH)).await);
    for follower in &mut followers {
        assert_eq!(follower.read(500).await, whole().slice(..500));
    }
    followers
}

/// Every follower of the broken fill sees that it broke, and the next viewer gets a new one.
async fn breaks_for_everyone(origin: Origin, gate: Gate) {
    let shield = shield(&origin).await;
    let followers = followers(&shield).await;
    gate.open();
    let [a, b, c, over_h2] = finished(followers).await;
    for response in [&a, &b, &c, &over_h2] {
        response.assert_cut(whole());
        assert!(response.body.len() <= 500, "{response:?}");
    }
    assert!(matches!(over_h2.end, End::Reset(_)), "{over_h2:?}");
    assert_eq!(origin.hits(PATH), 1, "one fill for all of them");
    shield.get(PATH).await.assert_whole(whole());
    assert_eq!(origin.hits(PATH), 2, "nothing of the broken body was kept");
}

async fn finished(followers: Vec<Arriving>) -> [Response; 4] {
    let mut responses = Vec::new();
    for follower in followers {
        responses.push(follower.finish().await);
    }
    responses.try_into().expect("four followers")
}

/// Without a length, and stalled: viewers see no clean end.
#[tokio::test]
async fn stalled_chunked_body_is_cut_and_not_stored() {
    let gate = Gate::new();
    let broken = half(&gate).chunked().stall();
    let origin = Origin::start()
        .await
        .on(PATH, broken.then(segment(whole())));
    breaks_for_everyone(origin, gate).await;
}

/// The same with a body that ends with the connection: each viewer has its own response.
#[tokio::test]
async fn stalled_close_delimited_body_is_cut() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(PATH, half(&gate).until_close().stall());
    let shield = shield(&origin).await;
    let mut viewer = shield.begin(get(PATH)).await;
    assert_eq!(viewer.read(500).await, whole().slice(..500));
    gate.open();
    viewer.finish().await.assert_cut(whole());
}

/// `Content-Length` 1000 and the origin closes at 500.
#[tokio::test]
async fn close_before_content_length_is_cut_and_not_stored() {
    let gate = Gate::new();
    let broken = half(&gate).content_length(1000).close();
    let origin = Origin::start()
        .await
        .on(PATH, broken.then(segment(whole())));
    breaks_for_everyone(origin, gate).await;
}

/// `Content-Length` 1000, and the origin resets the connection at 500.
#[tokio::test]
async fn reset_before_content_length_is_cut_and_not_stored() {
    let gate = Gate::new();
    let broken = half(&gate).content_length(1000).reset();
    let origin = Origin::start()
        .await
        .on(PATH, broken.then(segment(whole())));
    breaks_for_everyone(origin, gate).await;
}

/// No last chunk.
#[tokio::test]
async fn close_before_last_chunk_is_cut_and_not_stored() {
    let gate = Gate::new();
    let broken = half(&gate).chunked().close();
    let origin = Origin::start()
        .await
        .on(PATH, broken.then(segment(whole())));
    breaks_for_everyone(origin, gate).await;
}

/// A broken chunk.
#[tokio::test]
async fn invalid_chunk_is_cut_and_not_stored() {
    let gate = Gate::new();
    let broken = half(&gate).chunked().raw("zz\r\nnot a chunk\r\n");
    let origin = Origin::start()
        .await
        .on(PATH, broken.then(segment(whole())));
    breaks_for_everyone(origin, gate).await;
}

/// An HTTP/2 origin resets the stream.
#[tokio::test]
async fn http2_stream_reset_is_cut_and_not_stored() {
    let gate = Gate::new();
    let broken = half(&gate).chunked().reset();
    let origin = Origin::start_h2()
        .await
        .on(PATH, broken.then(segment(whole())));
    breaks_for_everyone(origin, gate).await;
}

/// An HTTP/2 origin ends the stream before the length it promised.
#[tokio::test]
async fn http2_body_below_content_length_is_cut_and_not_stored() {
    let gate = Gate::new();
    let broken = half(&gate).content_length(1000);
    let origin = Origin::start_h2()
        .await
        .on(PATH, broken.then(segment(whole())));
    breaks_for_everyone(origin, gate).await;
}

/// An HTTP/2 origin sends more than the length it promised.
#[tokio::test]
async fn http2_body_above_content_length_is_cut_and_not_stored() {
    let gate = Gate::new();
    let broken = half(&gate).content_length(600).send(whole().slice(500..));
    let origin = Origin::start_h2()
        .await
        .on(PATH, broken.then(segment(whole())));
    let shield = shield(&origin).await;
    let followers = followers(&shield).await;
    gate.open();
    for response in finished(followers).await {
        response.assert_cut(whole());
    }
    shield.get(PATH).await.assert_whole(whole());
}

/// The origin stalls past the read deadline.
#[tokio::test]
async fn stall_beyond_read_deadline_is_cut_and_not_stored() {
    let gate = Gate::new();
    let broken = half(&gate).content_length(1000).stall();
    let origin = Origin::start()
        .await
        .on(PATH, broken.then(segment(whole())));
    breaks_for_everyone(origin, gate).await;
}

/// What an HTTP/1.0 client gets, for which only the end of the connection ends a body: everything
/// after the head, and whether the connection ended cleanly. The origin continues once half has
/// arrived.
async fn heard_over_http10(mut wire: impl Duplex, gate: Gate) -> (Bytes, bool) {
    let request = format!("GET {PATH} HTTP/1.0\r\nHost: media.test\r\n\r\n");
    wire.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let body_at = |heard: &[u8]| {
        let head = heard.windows(4).position(|four| four == b"\r\n\r\n");
        head.map(|at| at + 4)
    };
    within("the first half", async {
        while body_at(&heard).is_none_or(|at| heard.len() < at + 500) {
            wire.read_buf(&mut heard).await.unwrap();
        }
    })
    .await;
    gate.open();
    let ended = within("an end", wire.read_to_end(&mut heard)).await;
    let body = body_at(&heard).unwrap();
    (Bytes::from(heard).slice(body..), ended.is_ok())
}

/// Towards HTTP/1.0, on every kind of listener: nginx speaks it to its upstreams by default, and
/// would cache the half.
#[tokio::test]
async fn http10_viewer_detects_truncation_on_every_listener() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::new("media.test", folder.path());
    for listener in ["tcp", "tls", "unix"] {
        for whole_comes in [false, true] {
            let socket = folder.path().join(format!("{whole_comes}.sock"));
            let gate = Gate::new();
            let begun = half(&gate).chunked();
            let origin = Origin::start().await;
            let origin = if whole_comes {
                origin.on(PATH, begun.send(whole().slice(500..)))
            } else {
                origin.on(PATH, begun.close())
            };
            let shield = Shield::in_front_of(&origin);
            let shield = match listener {
                "unix" => shield.on_unix(socket.clone()).start().await,
                "tls" => shield.with_tls(&[&identity]).start().await,
                _ => shield.start().await,
            };
            let wire: Box<dyn Duplex> = match listener {
                "unix" => Box::new(UnixStream::connect(&socket).await.unwrap()),
                "tls" => {
                    let viewer = TlsViewer::new_trusting(shield.address(), &identity);
                    Box::new(viewer.h1_wire().await)
                }
                _ => Box::new(TcpStream::connect(shield.address()).await.unwrap()),
            };
            let (body, proper) = heard_over_http10(wire, gate).await;
            assert_eq!(proper, whole_comes, "{listener}");
            let expected = if whole_comes {
                1000
            } else {
                body.len().min(500)
            };
            assert_eq!(body, whole().slice(..expected), "{listener}");
        }
    }
}

/// A client that began with another version, and has left no byte in the socket, gets no body whose
/// end it could not recognise.
#[tokio::test]
async fn http10_after_http11_on_unix_socket_gets_505() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("viewers.sock");
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(PATH, half(&gate).chunked().close());
    let shield = Shield::in_front_of(&origin)
        .on_unix(socket.clone())
        .start()
        .await;
    let mut viewer = Viewer::connect_unix(&socket).await;
    viewer.ask(head("/other")).await;
    let request = format!("GET {PATH} HTTP/1.0\r\nHost: media.test\r\n\r\n");
    viewer.send_raw(request.as_bytes()).await;
    assert_eq!(viewer.receive(&get(PATH)).await.status, 505);
    gate.open();
    drop(shield);
}

/// The same of an origin with two endpoints, however the body breaks off: each gets two requests
/// per second.
#[tokio::test]
async fn each_truncating_endpoint_gets_two_requests_a_second() {
    let broken = || segment("half").content_length(100);
    for half in [broken().close(), broken().reset()] {
        let first = Origin::start().await.on("/broken.ts", half.clone());
        let second = Origin::start().await.on("/broken.ts", half);
        let shield = Shield::in_front_of(&first)
            .and_endpoint(&second)
            .start()
            .await;
        let start = std::time::Instant::now();
        for _ in 0..200 {
            let answer = shield.get("/broken.ts").await;
            assert!(
                answer.end != End::Whole || answer.status == 502,
                "{answer:?}"
            );
        }
        let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
        for origin in [&first, &second] {
            let hits = origin.hits("/broken.ts");
            assert!(hits <= 2 * seconds, "{hits} in {seconds} s");
        }
    }
}

/// An origin whose bodies always break off gets two requests per second for an object, whatever the
/// number of viewers; and the log says what happened.
#[tokio::test]
async fn truncating_origin_gets_two_requests_a_second() {
    let broken = segment("half").content_length(100).close();
    let origin = Origin::start().await.on("/broken.ts", broken);
    let shield = Shield::in_front_of(&origin).start().await;
    let start = std::time::Instant::now();
    let mut reported = 0;
    for _ in 0..200 {
        let answer = shield.get("/broken.ts").await;
        reported += usize::from(answer.status == 502 && answer.text().contains("cut off"));
    }
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    let hits = origin.hits("/broken.ts");
    assert!(hits <= 2 * seconds, "{hits} in {seconds} s");
    assert!(reported >= 200 - 2 * seconds, "{reported}");
}
