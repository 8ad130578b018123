//! The page for operators comes whole from the admin server, and what it shows is what happens.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::operated::Operated;
use crate::support::patience::within;
use crate::support::{Origin, Shield, get, manifest, playlist, segment, status};

const PATH: &str = "/live/a.m3u8";

async fn overview(shield: &Shield) -> Value {
    let answer = shield.admin(get("/overview")).await;
    assert_eq!(answer.status, 200);
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[tokio::test]
async fn page_loads_from_this_server_alone() {
    let origin = Origin::start().await;
    let shield = Shield::in_front_of(&origin).start().await;
    let page = shield.admin(get("/")).await;
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"));
    let script = shield.admin(get("/page.js")).await;
    assert_eq!(
        script.header("content-type"),
        Some("text/javascript; charset=utf-8")
    );
    // From a link in a chat.
    let linked = get("/").header("sec-fetch-site", "cross-site");
    assert_eq!(shield.admin(linked).await.status, 200);
    let read = get("/overview").header("sec-fetch-site", "cross-site");
    assert_eq!(shield.admin(read).await.status, 403);
}

#[tokio::test]
async fn overview_shows_streams_with_their_viewers_and_failures() {
    let origin = Origin::start()
        .await
        .on(PATH, manifest(playlist(1)))
        .on("/live/seg1.ts", segment("eight by"))
        .on("/live/seg2.ts", status(503));
    let shield = Shield::in_front_of(&origin).start().await;
    for last in 1..=3 {
        let mut viewer = shield.viewer_from([127, 0, 0, last]).await;
        viewer.ask(get(PATH)).await.assert_whole(playlist(1));
        viewer
            .ask(get("/live/seg1.ts"))
            .await
            .assert_whole("eight by");
    }
    assert_eq!(shield.get("/live/seg2.ts").await.status, 503);
    let shown = overview(&shield).await;
    let stream = &shown["streams"][0];
    assert_eq!(stream["name"], PATH);
    assert_eq!(stream["viewers"], 3, "{stream}");
    assert_eq!(stream["requests"], 6, "{stream}");
    let error = stream["last_error"]["text"].as_str().expect("an error");
    assert!(error.starts_with("/live/seg2.ts: "), "{error}");
    assert_eq!(shown["requests"]["hit"], 4, "{shown}");
    let endpoint = &shown["origins"][0]["endpoints"][0];
    assert_eq!(endpoint["breaker"], "closed");
    assert_eq!(endpoint["state"], "in_use");
    let details = shield
        .admin(get("/overview/stream?name=/live/a.m3u8"))
        .await;
    let details: Value = serde_json::from_slice(&details.body).expect("JSON");
    assert_eq!(details["manifests"][0]["path"], PATH);
    assert_eq!(details["manifests"][0]["last_sequence"], 3);
    let url = details["url"].as_str().expect("a URL");
    assert!(url.starts_with("http://") && url.ends_with(PATH), "{url}");
    let unknown = shield.admin(get("/overview/stream?name=/none")).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn events_follow_each_other_until_a_drain() {
    let operated = Operated::start("[server]\ndrain_delay = \"3s\"").await;
    // A drain waits for those that ask whether the server is ready.
    assert_eq!(operated.ask_admin(get("/readyz")).await.status, 200);
    let mut stream = TcpStream::connect(operated.admin)
        .await
        .expect("a connection");
    let request = "GET /overview/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut lines = BufReader::new(stream).lines();
    let mut next = async || -> Option<Value> {
        loop {
            let line = within("a line", lines.next_line()).await.expect("read")?;
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).expect("JSON"));
            }
        }
    };
    let first = next().await.expect("an event at once");
    assert_eq!(first["drain"], "serving");
    let second = next().await.expect("another one");
    assert!(second["at_ms"].as_u64() > first["at_ms"].as_u64());
    assert_eq!(operated.post("/drain").await.0, 202);
    let mut states = Vec::new();
    while let Some(event) = next().await {
        states.push(event["drain"].as_str().unwrap_or_default().to_owned());
    }
    let (last, before) = states.split_last().expect("an event of the drain");
    assert_ne!(last, "serving");
    assert!(before.iter().all(|state| state == "serving"), "{states:?}");
}
