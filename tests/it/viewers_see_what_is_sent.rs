//! Tests of the scenarios' own tools: without a shield in between, a viewer sees exactly what the
//! script sends, faults included.

use tokio::net::TcpStream;

use crate::support::viewer::{H2Viewer, Viewer};
use crate::support::{End, Gate, Origin, get, head, noise, reply, status};

async fn direct(origin: &Origin) -> Viewer {
    Viewer::connect(origin.address()).await
}

#[tokio::test]
async fn scripted_responses_arrive_whole_on_one_connection() {
    let origin = Origin::start()
        .await
        .on("/plain", reply().body("plain"))
        .on("/chunked", reply().chunked().send("chun").send("ked"))
        .on("/coded", status(503).header("Retry-After", 1));
    let mut viewer = direct(&origin).await;
    viewer.get("/plain").await.assert_whole("plain");
    viewer.get("/chunked?x=1").await.assert_whole("chunked");
    assert_eq!(
        viewer.ask(head("/plain")).await.header("content-length"),
        Some("5")
    );
    assert_eq!(viewer.get("/coded").await.status, 503);
    assert_eq!(origin.hits("/chunked"), 1);
    assert_eq!(origin.latest("/coded").connection, 1);
}

#[tokio::test]
async fn truncated_bodies_are_seen_as_cut() {
    let origin = Origin::start()
        .await
        .on("/short", reply().content_length(10).send("half").close())
        .on("/reset", reply().content_length(10).send("half").reset())
        .on("/open", reply().chunked().send("half").close())
        .on("/broken", reply().chunked().send("half").raw("zz\r\n"))
        .on("/until-close", reply().until_close().send("all of it"));
    for path in ["/short", "/reset", "/open", "/broken"] {
        let response = direct(&origin).await.get(path).await;
        response.assert_cut("half and the rest");
    }
    direct(&origin)
        .await
        .get("/until-close")
        .await
        .assert_whole("all of it");
}

#[tokio::test]
async fn gates_hold_heads_and_bodies() {
    let (head, body) = (Gate::new(), Gate::new());
    let gated = reply()
        .hold_head(&head)
        .content_length(4)
        .send("ab")
        .hold(&body)
        .send("cd");
    let origin = Origin::start().await.on("/gated", gated);
    let viewer = direct(&origin).await;
    let answer = tokio::spawn(viewer.begin(get("/gated")));
    head.wait_arrived(1).await;
    head.open();
    let mut arriving = answer.await.unwrap();
    assert_eq!(arriving.read(2).await, "ab");
    body.wait_arrived(1).await;
    body.open();
    arriving.finish().await.assert_whole("abcd");
}

#[tokio::test]
async fn validators_and_ranges_are_honoured() {
    let body = noise(1, 100);
    let origin = Origin::start()
        .await
        .on("/v", reply().etag("\"1\"").with_ranges(body.clone()));
    let mut viewer = direct(&origin).await;
    let known = viewer.ask(get("/v").header("If-None-Match", "\"1\"")).await;
    known.assert_is(304, "");
    let part = viewer.ask(get("/v").range("10-19")).await;
    part.assert_is(206, &body[10..20]);
    assert_eq!(part.header("content-range"), Some("bytes 10-19/100"));
    viewer.get("/v").await.assert_whole(&body);
}

#[tokio::test]
async fn a_stopped_origin_refuses_until_it_resumes() {
    let origin = Origin::start().await.on("/x", reply().body("x"));
    let mut viewer = direct(&origin).await;
    viewer.get("/x").await.assert_whole("x");
    origin.stop().await;
    viewer.wait_closed().await;
    let refused = TcpStream::connect(origin.address()).await;
    assert!(refused.is_err());
    origin.resume();
    direct(&origin).await.get("/x").await.assert_whole("x");
}

#[tokio::test]
async fn origin_notices_viewer_disconnect() {
    let gate = Gate::new();
    let held = reply().content_length(4).send("ab").hold(&gate).send("cd");
    let origin = Origin::start().await.on("/held", held);
    let mut arriving = direct(&origin).await.begin(get("/held")).await;
    arriving.read(2).await;
    drop(arriving);
    origin.wait_abandoned(1).await;
}

#[tokio::test]
async fn http2_origin_follows_its_script() {
    let gate = Gate::new();
    let origin = Origin::start_h2()
        .await
        .on("/whole", reply().chunked().send("ab").send("cd"))
        .on("/reset", reply().chunked().send("ab").hold(&gate).reset());
    let stream = TcpStream::connect(origin.address()).await.unwrap();
    let viewer = H2Viewer::over(stream, "http").await;
    viewer.get("/whole").await.assert_whole("abcd");
    let mut arriving = viewer.begin(get("/reset")).await;
    arriving.read(2).await;
    gate.open();
    assert!(matches!(arriving.finish().await.end, End::Reset(_)));
}
