//! A request that two programs could parse differently gets 400 or a reset, and no byte after it is
//! parsed.

use tempfile::tempdir;

use crate::support::frames::{
    END_HEADERS, END_STREAM, FrameViewer, GOAWAY, HEADERS, RST_STREAM, field, fields, frame,
    request,
};
use crate::support::metrics::{REQUESTS, VIEWER_EVENTS};
use crate::support::viewer::{Identity, TlsViewer, Viewer};
use crate::support::{Origin, Shield, eventually, get, segment};

const HELD: &str = "/live/held.ts";
const OTHER: &str = "/live/other.ts";

/// The request that would be found if the one before it ended elsewhere.
const SMUGGLED: &str = "GET /live/smuggled.ts HTTP/1.1\r\nHost: media.test\r\n\r\n";

/// Ambiguous heads, for a path.
fn heads(path: &str) -> Vec<String> {
    let get = format!("GET {path} HTTP/1.1\r\nHost: media.test\r\n");
    let post = format!("POST {path} HTTP/1.1\r\nHost: media.test\r\n");
    vec![
        format!("GET {path} HTTP/1.1\nHost: media.test\r\n\r\n"),
        format!("{get}A: b\n\r\n"),
        format!("{get}\n"),
        format!("{get}A: b\n\n"),
        format!("GET {path} HTTP/1.1\nHost: media.test\n\n"),
        format!("\n{get}\r\n"),
        format!("{get}A: b\rC: d\r\n\r\n"),
        format!("GET {path}#a HTTP/1.1\r\nHost: media.test\r\n\r\n"),
        format!("GET http://media.test{path}#a HTTP/1.1\r\nHost: media.test\r\n\r\n"),
        format!("GET {path} HTTP/1.0\nHost: media.test\n\n"),
        format!("HEAD {path}# HTTP/1.1\r\nHost: media.test\r\n\r\n"),
        format!("{get}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{get}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        format!("{get}transfer-encoding:chunked\r\ncontent-length:0\r\n\r\n0\r\n\r\n"),
        format!("{post}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
        format!("{get}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        format!("{get}Content-Length: 0, 0\r\n\r\n"),
    ]
}

/// Ambiguous bodies.
fn bodies(path: &str) -> Vec<String> {
    let chunks = [
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\\\"\r\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\n\n",
    ];
    let with = |method: &str, chunks: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: media.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        )
    };
    let of = |method: &'static str| chunks.map(|chunks| with(method, chunks));
    of("GET").into_iter().chain(of("POST")).collect()
}

async fn is_refused(mut viewer: Viewer, request: &str) {
    viewer.send_raw(request.as_bytes()).await;
    let answer = viewer.receive(&get(OTHER)).await;
    assert_eq!(answer.status, 400, "{request:?}: {answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{request:?}");
    viewer.wait_closed().await;
}

async fn origin() -> Origin {
    Origin::start()
        .await
        .on(HELD, segment("held").cache_control("max-age=60"))
        .on(OTHER, segment("other").cache_control("no-store"))
        .on("/live/smuggled.ts", segment("smuggled"))
}

/// Whether or not the object is stored, and whether or not it is the first request of its
/// connection.
#[tokio::test]
async fn ambiguous_http1_request_gets_400_and_connection_close() {
    let origin = origin().await;
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.pass_methods = true)
        .start()
        .await;
    shield.get(HELD).await.assert_whole("held");
    let (held, other) = (origin.hits(HELD), origin.hits(OTHER));
    let mut refused = 0;
    for path in [HELD, OTHER] {
        for request in heads(path).into_iter().chain(bodies(path)) {
            let request = request + SMUGGLED;
            is_refused(shield.viewer().await, &request).await;
            let mut later = shield.viewer().await;
            later.get(HELD).await.assert_whole("held");
            is_refused(later, &request).await;
            let mut behind = shield.viewer().await;
            behind.send(&get(HELD)).await;
            behind.send_raw(request.as_bytes()).await;
            behind.receive(&get(HELD)).await.assert_whole("held");
            let answer = behind.receive(&get(OTHER)).await;
            assert_eq!(answer.status, 400, "behind another: {request:?}");
            refused += 3;
        }
    }
    assert_eq!((origin.hits(HELD), origin.hits(OTHER)), (held, other));
    assert_eq!(origin.hits("/live/smuggled.ts"), 0);
    let labels = [("event", "head_refused")];
    assert!(shield.counter(VIEWER_EVENTS, &labels).await > refused / 3);
}

/// Over TLS and over a Unix socket as in cleartext, in single bytes and in one piece.
#[tokio::test]
async fn ambiguous_request_is_rejected_over_tls_and_unix_socket() {
    let folder = tempdir().unwrap();
    let identity = Identity::new("media.test", folder.path());
    let socket = folder.path().join("viewers.sock");
    let origin = origin().await;
    let shield = Shield::in_front_of(&origin)
        .with_tls(&[&identity])
        .on_unix(socket.clone())
        .start()
        .await;
    let tls = TlsViewer::new_trusting(shield.address(), &identity);
    tls.h1().await.get(HELD).await.assert_whole("held");
    for request in heads(HELD) {
        is_refused(tls.h1().await, &request).await;
        is_refused(Viewer::connect_unix(&socket).await, &request).await;
        let mut viewer = Viewer::connect_unix(&socket).await;
        for byte in request.as_bytes() {
            viewer.send_raw(&[*byte]).await;
        }
        is_refused(viewer, "").await;
    }
}

/// An invalid host makes the bytes after the head doubtful.
#[tokio::test]
async fn invalid_host_gets_400_and_connection_close() {
    let origin = origin().await;
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(HELD).await.assert_whole("held");
    for hosts in [
        "",
        "Host: \r\n",
        "Host: a,b\r\n",
        "Host: media.test\r\nHost: media.test\r\n",
        "Host: user@media.test\r\n",
        "Host: media.test:x\r\n",
        "Host: ..media.test\r\n",
    ] {
        for path in [HELD, OTHER] {
            let request = format!("GET {path} HTTP/1.1\r\n{hosts}\r\n{SMUGGLED}");
            is_refused(shield.viewer().await, &request).await;
        }
    }
    assert_eq!(origin.hits(OTHER), 0);
}

/// An unusual but unambiguous request is answered, and so is the next one.
#[tokio::test]
async fn unusual_but_unambiguous_request_is_answered() {
    let origin = origin().await;
    let shield = Shield::in_front_of(&origin).start().await;
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let requests = [
        "\r\n\r\nGET /live/held.ts HTTP/1.1\r\nHost: media.test\r\n\r\n".to_owned(),
        "GET /live/held.ts HTTP/1.1\r\nHost: media.test\r\nContent-Length: 2\r\n\r\n\n\r"
            .to_owned(),
        "GET /live/held.ts HTTP/1.1\r\nHost: media.test\r\nContent-Length: 0\r\n\r\n".to_owned(),
        format!("GET /live/held.ts HTTP/1.1\r\nHost: media.test\r\n{chunked}0\r\n\r\n"),
        format!(
            "GET /live/held.ts HTTP/1.1\r\nHost: media.test\r\n{chunked}\
             5;a=\"b;\\\"c\";d\r\nhello\r\n0000000000000001 \r\n\n\r\n0;x\r\nA: b\r\n\r\n"
        ),
    ];
    for request in requests {
        let mut viewer = shield.viewer().await;
        for _ in 0..2 {
            viewer.send_raw(request.as_bytes()).await;
            viewer.receive(&get(HELD)).await.assert_whole("held");
        }
        viewer.get(HELD).await.assert_whole("held");
    }
}

/// `:status: 200` in HPACK, one byte.
const OK: u8 = 0x88;

async fn answers_over_http1(shield: &Shield, target: &str, host: &str) -> bool {
    let mut viewer = shield.viewer().await;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    viewer.send_raw(request.as_bytes()).await;
    match viewer.receive(&get(HELD)).await {
        answer if answer.status == 200 => true,
        answer => {
            assert_eq!(answer.status, 400, "{request:?}");
            false
        }
    }
}

/// A rejection is a response, or the end of the stream if h2 itself cannot parse an authority.
async fn answers_over_http2(shield: &Shield, authority: Option<&str>, host: Option<&str>) -> bool {
    let mut viewer = FrameViewer::connect(shield.address()).await;
    let mut block = fields("GET", HELD, authority);
    if let Some(host) = host {
        block.extend(field("host", host));
    }
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    viewer.send(&[request]).await;
    let answer = viewer
        .read_until(|frame| matches!(frame.kind, HEADERS | RST_STREAM))
        .await;
    let answer = answer.expect("an answer");
    answer.kind == HEADERS && answer.payload[0] == OK
}

/// The same spellings are valid hosts in every protocol and form.
#[tokio::test]
async fn host_validation_is_the_same_in_every_protocol() {
    let origin = origin().await;
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(HELD).await.assert_whole("held");
    for (host, is_host) in [
        ("media.test", true),
        ("MEDIA.test.", true),
        ("media.test:", true),
        ("media.test:8080", true),
        ("[::1]", true),
        ("[::1]:8080", true),
        ("", false),
        (":80", false),
        ("user@media.test", false),
        ("user:word@media.test", false),
        ("media.test:x", false),
        ("media.test:65536", false),
        ("..media.test", false),
        ("media..test", false),
        ("media.test..", false),
        ("[::1", false),
        ("[::1]x", false),
        ("[fe80::1%25eth0]", false),
        ("a,b", false),
    ] {
        let absolute = format!("http://{host}{HELD}");
        let answers = [
            answers_over_http1(&shield, HELD, host).await,
            answers_over_http1(&shield, &absolute, host).await,
            answers_over_http2(&shield, Some(host), None).await,
            answers_over_http2(&shield, None, Some(host)).await,
            answers_over_http2(&shield, Some(host), Some(host)).await,
        ];
        assert_eq!(answers, [is_host; 5], "{host:?}");
    }
}

/// RFC 9113, 8.3.1: `:authority` and `Host` name one host. So do an absolute HTTP/1 target and
/// `Host`: a program in front may have decided by the other one.
#[tokio::test]
async fn rejects_host_that_differs_from_target_or_authority() {
    let origin = origin().await;
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.forward_host = true)
        .start()
        .await;
    for (host, is_same) in [
        ("media.test", true),
        ("MEDIA.TEST.:80", true),
        ("media.test:81", false),
        ("other.test", false),
    ] {
        let absolute = format!("http://media.test{HELD}");
        let over_http1 = answers_over_http1(&shield, &absolute, host).await;
        let over_http2 = answers_over_http2(&shield, Some("media.test"), Some(host)).await;
        assert_eq!((over_http1, over_http2), (is_same, is_same), "{host}");
    }
    assert_eq!(origin.hits(HELD), 1);
    assert_eq!(origin.latest(HELD).header("host"), Some("media.test"));
    for (target, host) in [("media.test", "other.test"), ("other.test", "media.test")] {
        let request = format!("GET http://{target}{OTHER} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        is_refused(shield.viewer().await, &request).await;
    }
    assert_eq!(origin.hits(OTHER), 0);
}

/// Requests that h2 itself rejects: a malformed stream is reset, and an undecodable head ends the
/// connection. Each is counted and logged.
#[tokio::test]
async fn malformed_http2_request_is_rejected_and_counted() {
    let origin = origin().await;
    let shield = Shield::in_front_of(&origin).start().await;
    let with = |extra: Vec<u8>| [fields("GET", OTHER, "media.test"), extra].concat();
    let malformed = [
        with(field("te", "gzip")),
        with(field("connection", "close")),
        with(field("content-length", "x")),
        with(field("content-length", "5")),
        with(field(":path", "/")),
        with(field(":status", "200")),
        fields("GET", "no slash", "media.test"),
        fields("GET", OTHER, "a b"),
        field("a", "b"),
    ];
    let mut viewer = FrameViewer::connect(shield.address()).await;
    let mut stream = 1;
    for block in &malformed {
        let request = frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
        viewer.send(&[request]).await;
        let answer = viewer.read_until(|frame| frame.stream == stream).await;
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.kind, answer.error_code()),
            (RST_STREAM, 1),
            "{block:?}"
        );
        stream += 2;
    }
    viewer.send(&[request(stream, "GET", HELD, true)]).await;
    let answer = viewer.read_until(|frame| frame.stream == stream).await;
    assert_eq!(answer.expect("an answer").kind, HEADERS, "the others go on");
    let refused = malformed.len() as u64;
    are_refused(&shield, refused).await;
    // The last one is an index outside the table.
    let undecodable = [
        with(field("Upper", "x")),
        with(field("a", "b\r\nc")),
        vec![0xff, 0xff, 0x7f],
    ];
    for (number, block) in undecodable.iter().enumerate() {
        let mut viewer = FrameViewer::connect(shield.address()).await;
        let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
        viewer.send(&[request]).await;
        let end = viewer.read_until(|frame| frame.kind == GOAWAY).await;
        assert_eq!(end.expect("an end").error_code(), 1, "{block:?}");
        are_refused(&shield, refused + number as u64 + 1).await;
    }
    assert_eq!(origin.hits(OTHER), 0);
}

/// This many heads were rejected, and each has a log entry.
async fn are_refused(shield: &Shield, count: u64) {
    eventually("all counted", async || {
        let heads = shield.counter(VIEWER_EVENTS, &[("event", "head_refused")]);
        let lines = shield.counter(REQUESTS, &[("outcome", "refused")]);
        (heads.await, lines.await) == (count, count)
    })
    .await;
}
