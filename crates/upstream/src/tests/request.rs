//! The request sent is the request asked for.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;

use super::scripted::Scripted;
use super::{get, origin, request, settings, whole};
use crate::sign::{CredentialSource, Credentials, Service, Sigv4};
use crate::{Failure, Origin, RequestBody, SetupError, UpstreamRequest, UpstreamResponse};

/// A body in chunks, with or without a declared length.
struct Pieces {
    left: Vec<&'static str>,
    length: Option<u64>,
    breaks: bool,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left.is_empty() {
            let broken = || Some(Err("the viewer left".into()));
            return Poll::Ready(if self.breaks { broken() } else { None });
        }
        let chunk = Bytes::from_static(self.left.remove(0).as_bytes());
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn post(length: Option<u64>, breaks: bool) -> UpstreamRequest {
    let left = vec!["hello", "", " world"];
    let body: RequestBody = Box::pin(Pieces {
        left,
        length,
        breaks,
    });
    let body = Some(body);
    UpstreamRequest {
        body,
        ..request(Method::POST, "/form")
    }
}

/// Reads a request until `ends` is true, answers, and returns what was read.
async fn sent(request: UpstreamRequest, ends: &'static str) -> Result<String, Failure> {
    let seen = Arc::new(Mutex::new(String::new()));
    let script = Scripted::play({
        let seen = seen.clone();
        move |mut wire| {
            let seen = seen.clone();
            async move {
                let mut text = Vec::new();
                while !text.ends_with(ends.as_bytes()) {
                    match wire.stream.read_u8().await {
                        Ok(byte) => text.push(byte),
                        Err(_) => return,
                    }
                }
                *seen.lock() = String::from_utf8(text).unwrap();
                wire.say("HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    })
    .await;
    let mut settings = settings(script.address);
    settings.host = Some("media.example".to_owned());
    settings.headers = vec![(
        http::header::AUTHORIZATION,
        HeaderValue::from_static("Bearer x"),
    )];
    let answer = whole(&origin(settings), request).await;
    answer.map_err(|(failure, _)| failure)?;
    Ok(seen.lock().clone())
}

#[tokio::test]
async fn get_is_sent_with_unchanged_target_and_added_headers() {
    let mut request = get("//a%2f..\\b?x=%zz&y");
    request
        .headers
        .insert("accept", HeaderValue::from_static("*/*"));
    let text = sent(request, "\r\n\r\n").await.unwrap();
    let mut lines: Vec<_> = text.trim_end().split("\r\n").collect();
    assert_eq!(lines.remove(0), "GET //a%2f..\\b?x=%zz&y HTTP/1.1");
    lines.sort_unstable();
    let expected = [
        "Host: media.example",
        "accept: */*",
        "authorization: Bearer x",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn forwarded_viewer_host_is_sent() {
    let mut request = get("/");
    request.host = Some(HeaderValue::from_static("viewer.example"));
    let text = sent(request, "\r\n\r\n").await.unwrap();
    assert!(text.contains("Host: viewer.example\r\n"), "{text}");
}

#[tokio::test]
async fn body_of_known_length_is_sent_with_content_length() {
    let text = sent(post(Some(11), false), "hello world").await.unwrap();
    assert!(text.contains("Content-Length: 11\r\n"), "{text}");
}

#[tokio::test]
async fn long_body_of_unknown_length_is_sent_chunked() {
    const PIECE: &str = "0123456789abcdef";
    let mut request = post(None, false);
    request.body = Some(Box::pin(Pieces {
        left: vec![PIECE; 2000],
        length: None,
        breaks: false,
    }));
    let text = sent(request, "\r\n0\r\n\r\n").await.unwrap();
    assert!(text.contains("Transfer-Encoding: chunked\r\n"), "{text}");
    let chunk = format!("\r\n10\r\n{PIECE}");
    assert_eq!(text.matches(&chunk).count(), 2000);
    let short = sent(post(None, false), "hello world").await.unwrap();
    assert!(short.contains("Content-Length: 11\r\n"), "{short}");
}

#[tokio::test]
async fn broken_upload_is_never_sent_as_complete() {
    for request in [post(None, true), post(Some(99), false)] {
        let failed = sent(request, "0\r\n\r\n").await;
        assert_eq!(failed, Err(Failure::UploadBroken));
    }
}

#[test]
fn rejects_invalid_host_setting() {
    for host in ["", "a b", "user@o.example", "o.example/x", "a\r\nb"] {
        let mut settings = settings("192.0.2.1:80".parse().unwrap());
        settings.host = Some(host.to_owned());
        let refused = Origin::new(settings, super::no_lookup());
        assert!(matches!(refused, Err(SetupError::Host { .. })), "{host:?}");
    }
}

#[test]
fn fetch_future_and_response_are_send() {
    fn moves<T: Send>(_: &T) {}
    let origin = origin(settings("192.0.2.1:80".parse().unwrap()));
    let fetch = origin.fetch(get("/x"));
    moves(&fetch);
    moves(&Ok::<Option<UpstreamResponse>, Infallible>(None));
}

/// S3's encoding of a path may be three times as long: too long to sign, and not the endpoint's
/// fault.
#[tokio::test]
async fn unsignable_request_does_not_count_against_endpoint() {
    let script = Scripted::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let mut settings = settings(script.address);
    settings.sigv4 = Some(Sigv4 {
        region: Some("eu-west-1".to_owned()),
        service: Service::S3,
        sources: vec![CredentialSource::Given(Credentials::new(
            "A", "s", None, None,
        ))],
    });
    settings.guards.breaker.failed_urls_min = 1;
    let origin = origin(settings);
    let long = format!("/{}", "!".repeat(7000));
    for _ in 0..3 {
        let (failure, _) = whole(&origin, get(&long)).await.unwrap_err();
        assert_eq!(failure, Failure::Protocol);
        assert_eq!(whole(&origin, get("/x")).await.unwrap().0, 200);
    }
    let endpoint = &origin.stats().endpoints[0];
    assert_eq!(endpoint.counts.failed(Failure::Protocol), 3);
    assert_eq!(endpoint.condition.breaker, "closed");
}
