//! Sends one response from memory, with as few writes as possible.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite as _;

use super::response::{self, HEAD_BYTES};
use crate::frontend::awaited_responses::SharedResponse;
use crate::frontend::connection_state::ConnectionState;
use crate::frontend::exchange::{begin_http1_request, has_no_content};
use crate::frontend::recording_body::RecordingBody;
use crate::frontend::repeated_responses::{Http1Head, RepeatedResponse};
use crate::frontend::sniffing_stream::{SniffingStream, Transport, WRITE_BYTES_MAX};
use crate::proxy::{ByteMeter, ResponseBody, ViewerResponse};
use crate::telemetry::RequestRecord;
use seawall_cache::Object;
use seawall_policy::ViewerAddress;

/// A chunk up to this size is copied behind the head: for the kernel one buffer is cheaper than a
/// list of two, and many small chunks are sent with one write.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// No more chunks are copied when head and chunks have reached this size: they fit into one packet.
const GATHERED_BYTES_MAX: usize = WRITE_BYTES_MAX - COPIED_BYTES_MAX;

/// A response that is being sent.
pub(super) struct PendingResponse {
    /// The head, followed by small chunks of the body.
    head: Vec<u8>,
    head_sent: usize,
    /// The next chunk that is too large to be copied.
    chunk: Bytes,
    body: RecordingBody,
    /// Where the body comes from, until the socket is full.
    source: Option<BodySource>,
}

enum BodySource {
    Stored(Arc<Object>),
    Repeated(Arc<RepeatedResponse<Http1Head>>),
    Shared(Arc<SharedResponse<Http1Head>>),
}

impl BodySource {
    fn object(&self) -> Option<&Arc<Object>> {
        match self {
            BodySource::Stored(object) => Some(object),
            BodySource::Repeated(response) => response.body_source(),
            BodySource::Shared(response) => response.object(),
        }
    }
}

/// The head of a response that is generated now, and the length of its body. `None` if the length
/// is unknown: then the response needs hyper's framing.
pub(super) fn head_of(response: &ViewerResponse, now: Instant) -> Option<(Vec<u8>, u64)> {
    let length = response.body.size_hint().exact()?;
    let has_body = !has_no_content(response.status);
    let head = response::head(response, has_body.then_some(length), now);
    Some((head, length))
}

/// What all viewers that wait for a response can send.
pub(super) fn share(response: ViewerResponse) -> Option<SharedResponse<Http1Head>> {
    let (head, _) = head_of(&response, Instant::now())?;
    let is_empty = has_no_content(response.status);
    SharedResponse::of(response, Http1Head::of(&head)?, is_empty)
}

impl PendingResponse {
    pub(super) fn of(
        response: ViewerResponse,
        head: Vec<u8>,
        length: u64,
        connection: &Arc<ConnectionState>,
    ) -> Box<PendingResponse> {
        let is_empty = has_no_content(response.status);
        let body = if is_empty {
            ResponseBody::Empty
        } else {
            response.body
        };
        let object = response.stored.or(response.part_of).filter(|_| !is_empty);
        PendingResponse::begin(
            (head, body, length),
            object.map(BodySource::Stored),
            (response.record, response.meter),
            connection,
        )
    }

    /// Sends a remembered response.
    pub(super) fn repeat(
        response: &Arc<RepeatedResponse<Http1Head>>,
        (arrived, viewer): (Instant, ViewerAddress),
        connection: &Arc<ConnectionState>,
        meter: Option<ByteMeter>,
    ) -> Box<PendingResponse> {
        response.permit().record_hit(arrived);
        let source = BodySource::Repeated(Arc::clone(response));
        let record = (response.record(arrived, viewer), meter);
        PendingResponse::copy(response.head(), response.body(), source, record, connection)
    }

    /// Sends a response that several viewers waited for.
    pub(super) fn shared(
        response: &Arc<SharedResponse<Http1Head>>,
        record: RequestRecord,
        connection: &Arc<ConnectionState>,
        meter: Option<ByteMeter>,
    ) -> Box<PendingResponse> {
        let source = BodySource::Shared(Arc::clone(response));
        let record = (record, meter);
        PendingResponse::copy(response.head(), response.body(), source, record, connection)
    }

    /// Sends a response once more, with an id of its own.
    fn copy(
        head: &Http1Head,
        body: ResponseBody,
        source: BodySource,
        record: (RequestRecord, Option<ByteMeter>),
        connection: &Arc<ConnectionState>,
    ) -> Box<PendingResponse> {
        let length = body.size_hint().exact().unwrap_or_default();
        let head = head.with_new_id(HEAD_BYTES);
        PendingResponse::begin((head, body, length), Some(source), record, connection)
    }

    fn begin(
        (head, body, length): (Vec<u8>, ResponseBody, u64),
        source: Option<BodySource>,
        (record, meter): (RequestRecord, Option<ByteMeter>),
        connection: &Arc<ConnectionState>,
    ) -> Box<PendingResponse> {
        let mut body = RecordingBody::new(body, record, begin_http1_request(connection));
        body.set_meter(meter);
        connection.begin_fast_response();
        // A small response is sent with one write, so the clock is read only once, at its end.
        if length > COPIED_BYTES_MAX as u64 {
            body.record_head_time();
        }
        Box::new(PendingResponse {
            head,
            head_sent: 0,
            chunk: Bytes::new(),
            body,
            source,
        })
    }

    /// Records that the socket is full, so the response is not sent with one write.
    pub(super) fn record_would_block(&mut self) {
        self.body.record_head_time();
        if let Some(source) = self.source.take()
            && let Some(object) = source.object()
            && let Some(shared) = object.shared_body()
        {
            self.body.add_stored_body(Arc::clone(shared));
        }
    }

    pub(super) fn poll_send<W: Transport>(
        &mut self,
        stream: &mut SniffingStream<W>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let NextBytes::Loaded = ready!(self.poll_load(cx))? {
            let head = &self.head[self.head_sent..];
            let count = if self.chunk.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, head))?
            } else {
                let slices = [IoSlice::new(head), IoSlice::new(&self.chunk)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let head_count = count.min(head.len());
            self.head_sent += head_count;
            self.chunk.advance(count - head_count);
        }
        Pin::new(stream).poll_flush(cx)
    }

    /// Loads the next bytes to send, and copies small chunks behind the head.
    fn poll_load(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<NextBytes>> {
        while self.chunk.is_empty() {
            let unsent = self.head.len() - self.head_sent;
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(frame)) => frame.map(Frame::into_data),
                Poll::Ready(None) if unsent == 0 => return Poll::Ready(Ok(NextBytes::AllSent)),
                Poll::Ready(None) => break,
                Poll::Pending if unsent > 0 => break,
                Poll::Pending => return Poll::Pending,
            };
            let Ok(Ok(chunk)) = frame else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            let chunk = chunk.into_bytes();
            if chunk.len() <= COPIED_BYTES_MAX && self.head.len() < GATHERED_BYTES_MAX {
                self.head.extend_from_slice(&chunk);
            } else {
                self.chunk = chunk;
            }
        }
        Poll::Ready(Ok(NextBytes::Loaded))
    }
}

/// Whether a response has more bytes to send.
enum NextBytes {
    Loaded,
    AllSent,
}

impl Drop for PendingResponse {
    fn drop(&mut self) {
        self.body
            .record_unsent(self.head.len() - self.head_sent + self.chunk.len());
        self.body.release_stored_bodies();
    }
}
