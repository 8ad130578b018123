//! An incomplete body never ends like a complete one.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::frontend::connection_state::ConnectionState;
use crate::frontend::exchange::{http1_carrier, http2_carrier};
use crate::frontend::recording_body::{RecordingBody, ResponseCarrier};
use crate::frontend::sniffing_stream::SniffingStream;
use crate::frontend::test_support::{Tales, tale};
use crate::proxy::BodyTruncated;

/// A body of five bytes, a pause, and an error.
struct Torn {
    length: Option<u64>,
    polls: u8,
}

impl Body for Torn {
    type Data = Bytes;
    type Error = BodyTruncated;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyTruncated>>> {
        self.polls += 1;
        match self.polls {
            1 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"hello"))))),
            2 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(Some(Err(BodyTruncated::Origin))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

async fn wires() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let viewer = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    (viewer, listener.accept().await.unwrap().0)
}

impl crate::frontend::recording_body::ReadsStoredBodies for Torn {}

fn torn(length: Option<u64>, carrier: ResponseCarrier) -> Response<RecordingBody<Torn>> {
    let body = Torn { length, polls: 0 };
    Response::new(RecordingBody::new(
        body,
        tale(std::time::Instant::now()),
        carrier,
    ))
}

async fn heard_over_http1(version: &str, length: Option<u64>) -> (String, bool) {
    let (mut viewer, wire) = wires().await;
    let tales = Tales::default();
    let gauge = Arc::new(ConnectionState::new(tales.teller(), None, false, None));
    let line = SniffingStream::open(wire, gauge.clone());
    let serving = tokio::spawn(async move {
        let service = service_fn(|_| {
            let response = torn(length, http1_carrier(&gauge));
            async move { Ok::<_, Infallible>(response) }
        });
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(line), service)
            .await;
    });
    let request = format!("GET / HTTP/{version}\r\nhost: a\r\n\r\n");
    viewer.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let proper = viewer.read_to_end(&mut heard).await.is_ok();
    serving.await.unwrap();
    assert!(tales.take()[0].cut_by.is_some());
    (String::from_utf8(heard).unwrap(), proper)
}

#[tokio::test]
async fn http1_is_cut_without_the_last_chunk() {
    let (heard, _) = heard_over_http1("1.1", None).await;
    assert!(!heard.contains("\r\n0\r\n"), "{heard}");
}

#[tokio::test]
async fn http1_is_cut_short_of_its_length() {
    let (heard, _) = heard_over_http1("1.1", Some(10)).await;
    assert!(
        !heard.contains("hello") || heard.ends_with("\r\n\r\nhello"),
        "{heard}"
    );
}

#[tokio::test]
async fn a_body_that_its_connection_delimits_is_reset() {
    let (_, proper) = heard_over_http1("1.0", None).await;
    assert!(!proper, "a plain close would have been a proper end");
}

#[tokio::test]
async fn http2_resets_the_stream_and_keeps_the_connection() {
    let (viewer, wire) = wires().await;
    let tales = Tales::default();
    let gauge = Arc::new(ConnectionState::new(tales.teller(), None, false, None));
    let line = SniffingStream::http2(wire, gauge.clone());
    tokio::spawn(async move {
        let service = service_fn(move |_| {
            let response = torn(None, http2_carrier(&gauge));
            async move { Ok::<_, Infallible>(response) }
        });
        let builder = http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(TokioIo::new(line), service).await
    });
    let (client, driving) = h2::client::handshake(viewer).await.unwrap();
    tokio::spawn(driving);
    for _ in 0..2 {
        let mut client = client.clone().ready().await.unwrap();
        let request = Request::get("http://a.example/").body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut failed = None;
        while let Some(data) = body.data().await {
            match data {
                Ok(data) => assert_eq!(data, "hello"),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        assert!(failed.expect("not a proper end").is_reset());
    }
    assert!(tales.take().iter().all(|tale| tale.cut_by.is_some()));
}
