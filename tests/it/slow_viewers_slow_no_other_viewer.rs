//! A viewer who reads or sends slowly affects no other viewer: it holds no permit at the origin, no
//! share of a common connection, and no other response.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::support::metrics::{
    ORIGIN_IN_FLIGHT, ORIGIN_REQUESTS, REQUESTS, SLOW_VIEWERS, SLOW_VIEWERS_CUT,
};
use crate::support::origin::Reply;
use crate::support::shield::{Builder, endpoint};
use crate::support::viewer::Viewer;
use crate::support::{Arriving, End, Origin, Shield, ask, eventually, get, noise, segment, status};

const MIB: usize = 1 << 20;
const HOUR: Duration = Duration::from_hours(1);

/// More than sockets and windows take unread.
fn film() -> Bytes {
    noise(7, 24 * MIB)
}

fn uncacheable(body: &Bytes) -> Reply {
    segment(body.clone()).cache_control("no-store")
}

/// A shield that cuts no viewer for being slow.
fn patient(origin: &Origin) -> Builder {
    Shield::in_front_of(origin).with(|config| config.frontend.limits.send_rate_window = HOUR)
}

/// A viewer who has the response head and reads no more than a socket's buffer of the body.
async fn stalled(shield: &Shield, target: &str) -> Arriving {
    let viewer = Viewer::connect_with_small_buffer(shield.address()).await;
    let answer = viewer.begin(get(target)).await;
    assert_eq!(answer.status, 200);
    answer
}

/// Twelve stalled readers of an uncacheable file, and one connection to the origin: a miss of
/// another file succeeds meanwhile.
#[tokio::test]
async fn stalled_readers_do_not_block_shared_http2_connection() {
    let (film, other) = (film(), noise(8, 4 * MIB));
    let origin = Origin::start_h2()
        .await
        .on("/film.mp4", uncacheable(&film))
        .on("/other.ts", segment(other.clone()));
    let shield = patient(&origin).start().await;
    let mut readers = Vec::new();
    for _ in 0..12 {
        readers.push(stalled(&shield, "/film.mp4").await);
    }
    shield.wait_gauge(SLOW_VIEWERS, |slow| slow == 12).await;
    shield.get("/other.ts").await.assert_whole(&other);
    assert_eq!(origin.connections(), 1);
    drop(readers);
    shield.wait_gauge(SLOW_VIEWERS, |slow| slow == 0).await;
}

/// A limit of two and more stalled readers than that, over both protocols, with the limit at the
/// group or the endpoint: other viewers get responses.
#[tokio::test]
async fn stalled_readers_hold_no_concurrency_permit() {
    for (h2, at_endpoint) in [(false, false), (true, false), (false, true)] {
        let origin = if h2 {
            Origin::start_h2().await
        } else {
            Origin::start().await
        };
        let origin = origin
            .on("/film.mp4", uncacheable(&film()))
            .on("/other.ts", segment("other"));
        let shield = patient(&origin)
            .origin(|group| {
                if at_endpoint {
                    group.endpoints[0].concurrency_max = Some(2);
                } else {
                    group.concurrency_max = 2;
                }
            })
            .start()
            .await;
        let mut readers = Vec::new();
        for _ in 0..5 {
            readers.push(stalled(&shield, "/film.mp4").await);
        }
        shield.get("/other.ts").await.assert_whole("other");
        shield.wait_gauge(ORIGIN_IN_FLIGHT, |busy| busy == 0).await;
        assert_eq!(shield.gauge(SLOW_VIEWERS).await, 5);
    }
}

/// A storable body that finds no room flows at the pace of its readers: it holds no permit either.
#[tokio::test]
async fn fill_paced_by_stalled_reader_holds_no_permit() {
    let origin = Origin::start()
        .await
        .on("/film.mp4", segment(film()))
        .on("/other.ts", segment("other"));
    let shield = patient(&origin)
        .with(|config| config.cache.fill_bytes_max = MIB as u64)
        .origin(|group| group.concurrency_max = 1)
        .start()
        .await;
    let reader = stalled(&shield, "/film.mp4").await;
    shield.get("/other.ts").await.assert_whole("other");
    assert_eq!(shield.gauge(SLOW_VIEWERS).await, 1);
    drop(reader);
    shield.wait_gauge(SLOW_VIEWERS, |slow| slow == 0).await;
}

/// A reader who pauses and continues gets every byte, however often it pauses.
#[tokio::test]
async fn reader_that_pauses_gets_whole_body() {
    let film = film();
    let origin = Origin::start().await.on("/film.mp4", uncacheable(&film));
    let shield = patient(&origin).start().await;
    let mut reader = stalled(&shield, "/film.mp4").await;
    shield.wait_gauge(SLOW_VIEWERS, |slow| slow == 1).await;
    reader.read(MIB).await;
    reader.finish().await.assert_whole(&film);
    shield.wait_gauge(SLOW_VIEWERS, |slow| slow == 0).await;
}

/// `slow_viewers_max`: the request that has waited longest for its viewer is cut, visibly.
#[tokio::test]
async fn slowest_viewer_is_cut_above_slow_viewers_max() {
    let film = film();
    let origin = Origin::start()
        .await
        .on("/film.mp4", uncacheable(&film))
        .on("/other.ts", segment("other"));
    let shield = patient(&origin)
        .origin(|group| group.slow_viewers_max = 2)
        .start()
        .await;
    let slowest = stalled(&shield, "/film.mp4").await;
    shield.wait_gauge(SLOW_VIEWERS, |slow| slow == 1).await;
    let second = stalled(&shield, "/film.mp4").await;
    shield.wait_gauge(SLOW_VIEWERS, |slow| slow == 2).await;
    let third = stalled(&shield, "/film.mp4").await;
    shield.wait_gauge(SLOW_VIEWERS_CUT, |cut| cut == 1).await;
    slowest.finish().await.assert_cut(&film);
    shield.get("/other.ts").await.assert_whole("other");
    for reader in [second, third] {
        reader.finish().await.assert_whole(&film);
    }
}

/// A slow reader at an endpoint with a limit of one: the endpoint still gets other requests.
#[tokio::test]
async fn slow_reader_does_not_use_up_endpoint_concurrency_max() {
    let first = Origin::start().await.on("/film.mp4", uncacheable(&film()));
    first.set_script("/other.ts", segment("first"));
    let second = Origin::start().await.on("/other.ts", segment("second"));
    let shield = patient(&first)
        .origin(|group| {
            group.endpoints[0].concurrency_max = Some(1);
            group.endpoints.push(endpoint(&second));
        })
        .start()
        .await;
    let _reader = stalled(&shield, "/film.mp4").await;
    shield.wait_gauge(SLOW_VIEWERS, |slow| slow == 1).await;
    shield.get("/other.ts").await.assert_whole("first");
}

/// A POST of this many bytes of which only the first have arrived.
async fn begun(shield: &Shield, promised: usize, sent: usize) -> Viewer {
    let mut viewer = shield.viewer().await;
    let head =
        format!("POST /api HTTP/1.1\r\nHost: media.test\r\nContent-Length: {promised}\r\n\r\n");
    viewer.send_raw(head.as_bytes()).await;
    viewer.send_raw(&vec![b'x'; sent]).await;
    viewer
}

/// Incomplete upload bodies hold no permit, and the origin gets no request for them.
#[tokio::test]
async fn slow_uploads_hold_no_concurrency_permit() {
    const LARGE: usize = 256 << 10;
    let origin = Origin::start()
        .await
        .on("/api", status(201).body("made"))
        .on("/other.ts", segment("other"));
    let shield = patient(&origin)
        .route(|route| route.pass_methods = true)
        .origin(|group| {
            group.concurrency_max = 1;
            group.endpoints[0].concurrency_max = Some(1);
            group.deadlines.total = Duration::from_millis(300);
        })
        .start()
        .await;
    let mut small = Vec::new();
    for sent in 0..5 {
        small.push(begun(&shield, 100, sent * 20).await);
    }
    shield.get("/other.ts").await.assert_whole("other");
    assert_eq!(shield.gauge(SLOW_VIEWERS).await, 0);
    let mut large = begun(&shield, LARGE, LARGE / 2).await;
    shield.wait_gauge(SLOW_VIEWERS, |slow| slow == 1).await;
    let began = Instant::now();
    eventually("the time for all to be over", async || {
        began.elapsed() > Duration::from_millis(400)
    })
    .await;
    shield.get("/another.ts").await;
    assert_eq!(origin.hits("/another.ts"), 1);
    large.send_raw(&vec![b'x'; LARGE - LARGE / 2]).await;
    large
        .receive(&ask("POST", "/api"))
        .await
        .assert_is(201, "made");
    small[0].send_raw(&[b'x'; 100]).await;
    small[0]
        .receive(&ask("POST", "/api"))
        .await
        .assert_is(201, "made");
    assert_eq!(origin.hits("/api"), 2);
    shield.wait_gauge(SLOW_VIEWERS, |slow| slow == 0).await;
}

/// Errors in a request's body are reported to its sender with the right status, and count against
/// no origin.
#[tokio::test]
async fn request_body_errors_get_4xx_and_blame_no_origin() {
    const BODIES: [(&str, u16); 6] = [
        ("Transfer-Encoding: chunked\r\n\r\n40\r\n", 408),
        ("Content-Length: 50\r\n\r\nx", 408),
        ("Content-Length: 40000\r\n\r\nxxxxx", 408),
        ("Transfer-Encoding: chunked\r\n\r\nnonsense\r\n", 400),
        (
            "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\nnonsense\r\n",
            400,
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
            400,
        ),
    ];
    let origin = Origin::start().await.on("/api", status(201));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.pass_methods = true)
        .with(|config| {
            config.frontend.limits.request_body_bytes_max = 64 << 10;
            config.frontend.limits.send_rate_window = Duration::from_millis(200);
        })
        .start()
        .await;
    let send = async |text: &[u8], expected: u16| {
        let mut viewer = shield.viewer().await;
        viewer
            .send_raw(b"POST /api HTTP/1.1\r\nHost: media.test\r\n")
            .await;
        viewer.send_raw(text).await;
        let answer = viewer.receive(&ask("POST", "/api")).await;
        let shown = String::from_utf8_lossy(&text[..text.len().min(60)]);
        assert_eq!(answer.status, expected, "{shown:?}: {answer:?}");
        assert_eq!(answer.end, End::Whole);
    };
    for (text, expected) in BODIES {
        send(text.as_bytes(), expected).await;
    }
    for size in [64 << 10, 200 << 10] {
        let large = format!(
            "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n1\r\nx\r\n0\r\n\r\n",
            size,
            "x".repeat(size)
        );
        send(large.as_bytes(), 413).await;
    }
    assert_eq!(origin.hits("/api"), 0);
    for result in ["reset", "timeout", "protocol"] {
        let labels = [("result", result)];
        assert_eq!(
            shield.counter(ORIGIN_REQUESTS, &labels).await,
            0,
            "{result}"
        );
    }
    let refused = [("outcome", "refused")];
    assert_eq!(shield.counter(REQUESTS, &refused).await, 8);
}
