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
use crate::frontend::exchange::{begin_http1_request, begin_http2_request};
use crate::frontend::recording_body::{RecordingBody, ResponseChannel};
use crate::frontend::sniffing_stream::SniffingStream;
use crate::frontend::test_support::{RequestRecords, record};
use crate::proxy::BodyTruncated;

/// A body of five bytes, a pause, and an error.
struct TruncatedBody {
    length: Option<u64>,
    polls: u8,
}

impl Body for TruncatedBody {
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

async fn connected_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let viewer = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    (viewer, listener.accept().await.unwrap().0)
}

impl crate::frontend::recording_body::ReadsStoredBodies for TruncatedBody {}

fn truncated(
    length: Option<u64>,
    channel: ResponseChannel,
) -> Response<RecordingBody<TruncatedBody>> {
    let body = TruncatedBody { length, polls: 0 };
    Response::new(RecordingBody::new(
        body,
        record(std::time::Instant::now()),
        channel,
    ))
}

async fn receive_over_http1(version: &str, length: Option<u64>) -> (String, bool) {
    let (mut viewer, transport) = connected_pair().await;
    let records = RequestRecords::default();
    let connection = Arc::new(ConnectionState::new(records.recorder(), None, false, None));
    let stream = SniffingStream::detecting(transport, connection.clone());
    let serving = tokio::spawn(async move {
        let service = service_fn(|_| {
            let response = truncated(length, begin_http1_request(&connection));
            async move { Ok::<_, Infallible>(response) }
        });
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
    let request = format!("GET / HTTP/{version}\r\nhost: a\r\n\r\n");
    viewer.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let is_clean_end = viewer.read_to_end(&mut received).await.is_ok();
    serving.await.unwrap();
    assert!(records.take()[0].aborted_by.is_some());
    (String::from_utf8(received).unwrap(), is_clean_end)
}

#[tokio::test]
async fn omits_the_last_http1_chunk_when_truncated() {
    let (received, _) = receive_over_http1("1.1", None).await;
    assert!(!received.contains("\r\n0\r\n"), "{received}");
}

#[tokio::test]
async fn sends_http1_short_of_its_length_when_truncated() {
    let (received, _) = receive_over_http1("1.1", Some(10)).await;
    assert!(
        !received.contains("hello") || received.ends_with("\r\n\r\nhello"),
        "{received}"
    );
}

#[tokio::test]
async fn resets_the_connection_when_it_delimits_a_truncated_body() {
    let (_, is_clean_end) = receive_over_http1("1.0", None).await;
    assert!(!is_clean_end, "a clean close would end the body");
}

#[tokio::test]
async fn resets_the_http2_stream_and_keeps_the_connection() {
    let (viewer, transport) = connected_pair().await;
    let records = RequestRecords::default();
    let connection = Arc::new(ConnectionState::new(records.recorder(), None, false, None));
    let stream = SniffingStream::http2(transport, connection.clone());
    tokio::spawn(async move {
        let service = service_fn(move |_| {
            let response = truncated(None, begin_http2_request(&connection));
            async move { Ok::<_, Infallible>(response) }
        });
        let builder = http2::Builder::new(TokioExecutor::new());
        builder
            .serve_connection(TokioIo::new(stream), service)
            .await
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
        assert!(failed.expect("the body ended cleanly").is_reset());
    }
    assert!(
        records
            .take()
            .iter()
            .all(|record| record.aborted_by.is_some())
    );
}
