//! Requests answered from memory before hyper reads them: the bytes are the same as hyper's.

use std::time::Duration;

use bytes::Bytes;

use crate::frontend::Limits;
use crate::frontend::test_support::{FromMemory, TestServer, Viewer, until};
use crate::proxy::{ResponseBody, ViewerRequest};

/// `/here…` is answered from memory with its path as the body. hyper answers other paths, with an
/// empty body.
fn server() -> TestServer {
    let from_memory = |request: &ViewerRequest| {
        let path = request.uri.path().to_owned();
        let from_memory = path.starts_with("/here");
        from_memory.then(|| ResponseBody::Whole(Some(Bytes::from(path + "."))))
    };
    TestServer::serve(Limits::default(), None, FromMemory(from_memory))
}

async fn get(viewer: &mut Viewer, path: &str) -> String {
    viewer
        .send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .await;
    let end = if path.starts_with("/here") {
        format!("{path}.")
    } else {
        "\r\n\r\n".to_owned()
    };
    viewer.read_until(&end).await
}

fn is_from_memory(received: &str) -> bool {
    received.contains("\r\nfrom-memory: 1\r\n")
}

#[tokio::test]
async fn records_fast_path_responses() {
    let server = server();
    let mut viewer = Viewer::connect(&server).await;
    for _ in 0..3 {
        let received = get(&mut viewer, "/here").await;
        assert!(is_from_memory(&received), "{received}");
        assert!(received.starts_with("HTTP/1.1 200 OK\r\n"), "{received}");
        assert!(received.contains("\r\ncontent-length: 6\r\n"), "{received}");
        assert!(received.contains("\r\ndate: "), "{received}");
    }
    until("recorded", || server.records.count() == 3).await;
    for record in server.records.take() {
        assert!(record.bytes == 6 && record.aborted_by.is_none());
        assert!(!record.head_time.is_zero());
    }
}

#[tokio::test]
async fn uses_the_fast_path_again_after_a_response_of_hyper() {
    let server = server();
    let mut viewer = Viewer::connect(&server).await;
    for _ in 0..3 {
        assert!(!is_from_memory(&get(&mut viewer, "/away").await));
        assert!(is_from_memory(&get(&mut viewer, "/here").await));
    }
}

#[tokio::test]
async fn leaves_the_connection_to_hyper_after_a_partial_head() {
    let server = server();
    let mut viewer = Viewer::connect(&server).await;
    let first = "GET /here/1 HTTP/1.1\r\nhost: a\r\n\r\n";
    viewer.send(&format!("{first}GET /here/2 HT")).await;
    viewer.read_until("/here/1.").await;
    viewer.send("TP/1.1\r\nhost: a\r\n\r\n").await;
    viewer.read_until("/here/2.").await;
    assert!(!is_from_memory(&get(&mut viewer, "/here/3").await));
}

/// If a request were parsed in the middle of another head, a viewer could inject responses that a
/// proxy in front would assign to other clients.
#[tokio::test]
async fn does_not_answer_a_request_inside_another_head() {
    let server = server();
    let mut viewer = Viewer::connect(&server).await;
    let first = "GET /here/1 HTTP/1.1\r\nhost: a\r\n\r\n";
    viewer
        .send(&format!("{first}GET /here/2 HTTP/1.1\r\nhost: a\r\nx: "))
        .await;
    viewer.read_until("/here/1.").await;
    viewer.send("GET /here/3 HTTP/1.1\r\nb: c\r\n\r\n").await;
    let received = viewer.read_until("/here/2.").await;
    assert!(!received.contains("/here/3"), "{received}");
}

#[tokio::test]
async fn answers_a_request_behind_a_body() {
    let server = server();
    let mut viewer = Viewer::connect(&server).await;
    let body = "GET /here/no HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = body.len();
    viewer
        .send(&format!(
            "GET /away HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"
        ))
        .await;
    viewer.send(body).await;
    viewer.read_until("\r\n\r\n").await;
    let received = get(&mut viewer, "/here/yes").await;
    assert!(received.starts_with("HTTP/1.1 200 OK"), "{received}");
    assert!(!received.contains("/here/no"), "{received}");
}

#[tokio::test]
async fn pipelined_fast_path_and_hyper_requests_keep_order() {
    let server = server();
    let mut viewer = Viewer::connect(&server).await;
    let paths = ["/here/1", "/away", "/here/2", "/away", "/here/3"];
    for path in paths {
        viewer
            .send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))
            .await;
    }
    for end in ["/here/1.", "/here/2.", "/here/3."] {
        viewer.read_until(end).await;
    }
    until("recorded", || server.records.count() == paths.len()).await;
}

#[tokio::test]
async fn sends_a_large_response_completely_before_the_next() {
    const LENGTH: usize = 9 << 20;
    let large = |request: &ViewerRequest| match request.uri.path() {
        "/large" => Some(ResponseBody::Whole(Some(Bytes::from(vec![b'x'; LENGTH])))),
        _ => None,
    };
    let server = TestServer::serve(Limits::default(), None, FromMemory(large));
    let mut viewer = Viewer::connect(&server).await;
    viewer.send("GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
    viewer
        .send("GET /away HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    let (received, is_clean_end) = viewer.read_to_end().await;
    let body = received.find("\r\n\r\n").unwrap() + 4;
    let rest = received[body..].trim_start_matches('x');
    assert_eq!(received.len() - body - rest.len(), LENGTH);
    assert!(
        rest.starts_with("HTTP/1.1 200 OK\r\n") && is_clean_end,
        "{rest}"
    );
    let records = server.records.take();
    assert_eq!(
        (records[0].bytes, records[0].aborted_by),
        (LENGTH as u64, None)
    );
}

/// The socket was full, and the head arrived before the response was sent.
#[tokio::test]
async fn logs_an_unparsable_head_behind_a_large_response() {
    let large =
        |_: &ViewerRequest| Some(ResponseBody::Whole(Some(Bytes::from(vec![b'x'; 9 << 20]))));
    let server = TestServer::serve(Limits::default(), None, FromMemory(large));
    let mut viewer = Viewer::connect(&server).await;
    viewer.send("GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
    viewer.read_until("\r\n\r\n").await;
    viewer.send("GET /bad HTTP/9.9\r\nhost: a\r\n\r\n").await;
    viewer.read_to_end().await;
    until("recorded", || server.records.count() == 2).await;
    let fields = server.records.take().remove(1).log_fields.unwrap();
    assert_eq!(fields.path, "/bad");
}

#[tokio::test]
async fn rejects_a_head_over_a_limit_on_the_fast_path() {
    let server = server();
    let mut viewer = Viewer::connect(&server).await;
    let field = "x".repeat(9000);
    viewer
        .send(&format!("GET /here/{field} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .await;
    assert!(viewer.read_to_end().await.0.starts_with("HTTP/1.1 414 "));
}

#[tokio::test]
async fn sends_small_pieces_together_and_in_order() {
    let pieces = |_: &ViewerRequest| {
        let pieces = ["one, ", "two, ", "three."];
        Some(ResponseBody::Pieces(pieces.map(Bytes::from).into()))
    };
    let server = TestServer::serve(Limits::default(), None, FromMemory(pieces));
    let mut viewer = Viewer::connect(&server).await;
    viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let received = viewer.read_until("three.").await;
    assert!(is_from_memory(&received), "{received}");
    assert!(
        received.contains("\r\ncontent-length: 16\r\n"),
        "{received}"
    );
    assert!(received.ends_with("\r\n\r\none, two, three."), "{received}");
    until("recorded", || server.records.count() == 1).await;
    assert_eq!(server.records.take()[0].bytes, 16);
}

/// The time to the head is Seawall's; the time to the end is the viewer's.
#[tokio::test]
async fn records_the_head_time_without_the_sending_time() {
    let large = |_: &ViewerRequest| Some(ResponseBody::Whole(Some(Bytes::from(vec![0; 64 << 20]))));
    let limits = Limits {
        send_rate_window: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = TestServer::serve(limits, None, FromMemory(large));
    let mut viewer = Viewer::connect(&server).await;
    viewer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until("cut", || server.records.count() == 1).await;
    let record = server.records.take().remove(0);
    assert!(record.aborted_by.is_some() && record.head_time < record.total_time);
}
