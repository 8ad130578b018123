//! Responses of the admin server: a complete body, or events, never stored by a cache.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde_json::Value;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::OverviewHandler;
use super::answers::AnswerBody;

/// A response of the admin server.
pub type AdminResponse = Response<AdminBody>;

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
    response_of(
        status,
        AdminBody::Whole(Some(body.into())),
        kind.content_type(),
    )
}

/// What the page shows, as an event each second.
pub(super) fn events(overview: OverviewHandler) -> AdminResponse {
    let body = AdminBody::Events(Box::new(OverviewEvents::new(overview)));
    response_of(StatusCode::OK, body, AnswerBody::Events.content_type())
}

/// A file.
pub(super) fn file(content: Bytes, content_type: &'static str) -> AdminResponse {
    response_of(
        StatusCode::OK,
        AdminBody::Whole(Some(content)),
        content_type,
    )
}

fn response_of(status: StatusCode, body: AdminBody, content_type: &'static str) -> AdminResponse {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The body of a response.
pub enum AdminBody {
    /// A complete one in memory, until it is sent.
    Whole(Option<Bytes>),
    /// An event each second.
    Events(Box<OverviewEvents>),
}

impl AdminBody {
    /// What has not been sent yet.
    #[cfg(test)]
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            AdminBody::Whole(bytes) => bytes.unwrap_or_default(),
            AdminBody::Events(_) => Bytes::new(),
        }
    }
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut *self {
            AdminBody::Whole(bytes) => bytes.take(),
            AdminBody::Events(events) => ready!(events.poll_next(cx)),
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, AdminBody::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AdminBody::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            AdminBody::Events(_) => SizeHint::default(),
        }
    }
}

/// Time between two events.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// Events of one connection, before its deadline: the page then connects again.
const EVENTS_MAX: u32 = 25;

fn each_second() -> Interval {
    let mut ticks = interval(EVENT_INTERVAL);
    // To a slow page it sends fewer, not many at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// What the page shows, as it is each second.
pub struct OverviewEvents {
    overview: OverviewHandler,
    /// Begins with the first event.
    ticks: Option<Interval>,
    left: u32,
}

impl OverviewEvents {
    fn new(overview: OverviewHandler) -> OverviewEvents {
        OverviewEvents {
            overview,
            ticks: None,
            left: EVENTS_MAX,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.ticks.get_or_insert_with(each_second).poll_tick(cx));
        let overview = (self.overview)();
        self.left = if overview.is_last { 0 } else { self.left - 1 };
        let event = [b"data: ", &overview.json[..], b"\n\n"].concat();
        Poll::Ready(Some(event.into()))
    }
}
