//! Responses of the admin server: a complete body with its type, never stored by a cache.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde_json::Value;

use super::answers::AnswerBody;

/// A response of the admin server.
pub type AdminResponse = Response<TextBody>;

/// A JSON object, ended by a line feed.
pub fn json(status: StatusCode, value: &Value) -> AdminResponse {
    with_body(status, format!("{value}\n"), AnswerBody::Json(&[]))
}

/// `{"error": "…"}`.
pub fn error(status: StatusCode, why: &str) -> AdminResponse {
    json(status, &serde_json::json!({ "error": why }))
}

/// A line of text.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> AdminResponse {
    with_body(status, body, AnswerBody::Text)
}

/// A body of this type.
pub fn with_body(status: StatusCode, body: impl Into<Bytes>, kind: AnswerBody) -> AdminResponse {
    let mut response = Response::new(TextBody(Some(body.into())));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(kind.content_type());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A complete body in memory.
#[derive(Debug)]
pub struct TextBody(Option<Bytes>);

impl TextBody {
    /// What has not been sent yet.
    #[cfg(test)]
    pub(super) fn into_bytes(self) -> Bytes {
        self.0.unwrap_or_default()
    }
}

impl Body for TextBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
