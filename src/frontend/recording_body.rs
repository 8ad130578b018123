//! Sends the body of a response in chunks, and records the request once at its end.
//!
//! Chunks are needed because hyper takes one frame at a time and drops a body as soon as its last
//! frame is queued. A whole object would be recorded before a byte was sent, and never as aborted.
//! A chunk shares the bytes of the object without copying. The recorded bytes are at most one chunk
//! ahead of the socket. An HTTP/2 stream is recorded when h2 has sent or dropped its last chunk:
//! see [`StreamSendRate`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::connection_state::ConnectionState;
use super::counted_bytes::CountedBytes;
use super::server_context::SEND_QUEUE_BYTES;
use super::sniffing_stream::WRITE_BYTES_MAX;
use super::stored_reads::StoredBodiesRead;
use super::stream_send_rate::StreamSendRate;
use crate::proxy::{BodyTruncated, ByteMeter, ResponseBody, SharedBody};
use crate::telemetry::{AbortCause, RequestRecord};

/// Maximum bytes of a chunk over HTTP/1. It fills four packets, and the first one has room for the
/// head too.
const CHUNK_BYTES_HTTP1: usize = 4 * WRITE_BYTES_MAX - (2 << 10);

/// Maximum bytes of a chunk over HTTP/2. Once h2 has the last chunk of a body, the stream cannot be
/// reset alone, only closed with its connection. So a chunk fits into the windows of clients.
const CHUNK_BYTES_HTTP2: usize = 32 << 10;

/// The most that h2 queues of one stream: its send queue less one byte, plus one chunk.
const QUEUED_BYTES_MAX: u64 = (SEND_QUEUE_BYTES + CHUNK_BYTES_HTTP2) as u64;

/// Where a response is sent.
pub(super) enum ResponseChannel {
    /// A whole connection (HTTP/1).
    Connection(Arc<ConnectionState>),
    /// One of a connection's streams (HTTP/2).
    Stream(Arc<ConnectionState>, Arc<StreamSendRate>),
}

impl ResponseChannel {
    pub(super) fn connection(&self) -> &Arc<ConnectionState> {
        match self {
            ResponseChannel::Connection(connection) | ResponseChannel::Stream(connection, _) => {
                connection
            }
        }
    }

    fn stored_bodies(&self) -> &StoredBodiesRead {
        match self {
            ResponseChannel::Connection(connection) => &connection.stored_bodies,
            ResponseChannel::Stream(_, rate) => &rate.stored_bodies,
        }
    }
}

/// A body that may read stored bodies while it is sent.
pub(super) trait ReadsStoredBodies: http_body::Body {
    /// The stored body that it has begun to read since the last call.
    fn take_stored_body(&mut self) -> Option<Arc<SharedBody>> {
        None
    }
}

impl ReadsStoredBodies for ResponseBody {
    fn take_stored_body(&mut self) -> Option<Arc<SharedBody>> {
        self.new_body()
    }
}

/// A body that records its request when it ends or is dropped.
pub(super) struct RecordingBody<B: ReadsStoredBodies = ResponseBody> {
    body: B,
    /// Bytes of the body that have not been passed on.
    pending: Bytes,
    /// The body has returned all its frames.
    is_ended: bool,
    /// Bytes that were passed on were not sent.
    has_failed: bool,
    record: RequestRecord,
    /// Takes the bytes from the rate limits that count them.
    meter: Option<ByteMeter>,
    channel: ResponseChannel,
}

impl<B: ReadsStoredBodies> RecordingBody<B> {
    pub(super) fn new(
        mut body: B,
        record: RequestRecord,
        channel: ResponseChannel,
    ) -> RecordingBody<B> {
        if let Some(shared) = body.take_stored_body() {
            channel.stored_bodies().add(shared);
        }
        if let ResponseChannel::Stream(_, rate) = &channel
            && !body.is_end_stream()
        {
            rate.record_body_start();
        }
        RecordingBody {
            body,
            pending: Bytes::new(),
            is_ended: false,
            has_failed: false,
            record,
            meter: None,
            channel,
        }
    }

    pub(super) fn set_meter(&mut self, meter: Option<ByteMeter>) {
        self.meter = meter;
    }

    /// The next chunk of the pending bytes.
    fn next_chunk(&mut self) -> CountedBytes {
        let chunk_max = match &self.channel {
            ResponseChannel::Connection(_) => CHUNK_BYTES_HTTP1,
            ResponseChannel::Stream(..) => CHUNK_BYTES_HTTP2,
        };
        let length = self.pending.len().min(chunk_max);
        let chunk = self
            .pending
            .split_to(length - usize::from(self.keeps_back_last_byte(length)));
        let chunk = self.copy_if_kept_long(chunk);
        self.record.bytes += chunk.len() as u64;
        if let Some(meter) = &self.meter {
            meter.take(chunk.len());
        }
        match &self.channel {
            ResponseChannel::Connection(_) => CountedBytes::on_http1(chunk),
            ResponseChannel::Stream(_, rate) => CountedBytes::on_http2(chunk, rate.clone()),
        }
    }

    /// Whether the last byte of an HTTP/2 body is kept back from a chunk of this length. hyper asks
    /// for that byte only when the viewer's windows have room for all bytes before it. Until then
    /// the stream's task runs, and a slow stream is reset alone. A body of one chunk is sent whole:
    /// if the viewer opens no window for it, its connection is cut.
    fn keeps_back_last_byte(&self, length: usize) -> bool {
        let is_last = || length == self.pending.len() && self.body.is_end_stream();
        match &self.channel {
            ResponseChannel::Stream(_, rate) => length > 1 && rate.passed_to_h2() > 0 && is_last(),
            ResponseChannel::Connection(_) => false,
        }
    }

    /// How many bytes are still to be passed to hyper, at least.
    fn remaining_bytes_min(&self) -> u64 {
        self.pending.len() as u64 + self.body.size_hint().lower()
    }

    /// Copies a chunk that h2 may keep long. h2 may have the last chunks of a stored body after the
    /// stream's task has ended, and a chunk that is not copied keeps the whole body in memory. So
    /// the last chunks are copied if the viewer is slow, or if they belong to a range, which may be
    /// two bytes of an object of megabytes.
    fn copy_if_kept_long(&self, chunk: Bytes) -> Bytes {
        let is_part = self.record.status == StatusCode::PARTIAL_CONTENT;
        match &self.channel {
            ResponseChannel::Stream(_, rate)
                if rate.stored_bodies.has_any()
                    && self.remaining_bytes_min() < QUEUED_BYTES_MAX
                    && (is_part || rate.stored_bodies.is_slow()) =>
            {
                Bytes::copy_from_slice(&chunk)
            }
            _ => chunk,
        }
    }

    /// Records that the response reads a stored body.
    pub(super) fn add_stored_body(&self, shared: Arc<SharedBody>) {
        self.channel.stored_bodies().add(shared);
    }

    /// Records that the response reads no stored body any more.
    pub(super) fn release_stored_bodies(&self) {
        self.channel.stored_bodies().clear();
    }

    /// Records the time to the head, if it is not yet recorded.
    pub(super) fn record_head_time(&mut self) {
        if self.record.head_time.is_zero() {
            self.record.head_time = self.record.arrived.elapsed();
        }
    }

    /// Records that the last `bytes` bytes were not sent.
    pub(super) fn record_unsent(&mut self, bytes: usize) {
        self.has_failed |= bytes > 0;
        self.record.bytes = self.record.bytes.saturating_sub(bytes as u64);
    }

    fn is_finished(&self) -> bool {
        self.is_ended || (self.pending.is_empty() && self.body.is_end_stream())
    }

    /// Whether hyper has all bytes. It does not ask for the end of a body whose length it knows.
    fn was_passed_on(&self) -> bool {
        let is_rest_empty = self.pending.is_empty() && self.body.size_hint().exact() == Some(0);
        self.is_finished() || is_rest_empty
    }

    /// Records why the body is incomplete.
    fn record_truncation(&mut self, truncated: BodyTruncated) -> BodyTruncated {
        self.record.aborted_by = Some(match truncated {
            BodyTruncated::Origin => AbortCause::Origin,
            BodyTruncated::Viewer => AbortCause::Viewer,
            BodyTruncated::Memory => AbortCause::Memory,
        });
        if let ResponseChannel::Connection(connection) = &self.channel {
            // hyper closes the connection. If the close marks the end of the body, a clean close
            // would make the body look complete.
            connection.reset_on_close();
        }
        truncated
    }
}

impl<B> http_body::Body for RecordingBody<B>
where
    B: ReadsStoredBodies<Data = Bytes, Error = BodyTruncated> + Unpin,
{
    type Data = CountedBytes;
    type Error = BodyTruncated;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<CountedBytes>, BodyTruncated>>> {
        let this = self.get_mut();
        while this.pending.is_empty() {
            let polled = Pin::new(&mut this.body).poll_frame(cx);
            if let Some(shared) = this.body.take_stored_body() {
                this.add_stored_body(shared);
            }
            match polled {
                // Trailers are not forwarded.
                Poll::Ready(Some(Ok(frame))) => {
                    this.pending = frame.into_data().unwrap_or_default();
                }
                Poll::Ready(Some(Err(truncated))) => {
                    return Poll::Ready(Some(Err(this.record_truncation(truncated))));
                }
                Poll::Ready(None) => {
                    this.is_ended = true;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    if let ResponseChannel::Stream(_, rate) = &this.channel {
                        rate.record_body_wait();
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(this.next_chunk()))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_finished()
    }

    fn size_hint(&self) -> SizeHint {
        let pending = self.pending.len() as u64;
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + pending);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + pending);
        }
        hint
    }
}

impl<B: ReadsStoredBodies> Drop for RecordingBody<B> {
    fn drop(&mut self) {
        if self.record.aborted_by.is_none() && (self.has_failed || !self.was_passed_on()) {
            let bodies = self.channel.stored_bodies();
            self.record.aborted_by = Some(self.channel.connection().abort_cause(bodies));
        }
        match &self.channel {
            ResponseChannel::Connection(connection) => {
                record_http1_request(&mut self.record, connection);
            }
            ResponseChannel::Stream(_, rate) => {
                rate.stored_bodies.clear();
                let empty_record = RequestRecord::begin(self.record.arrived);
                rate.record_at_end(std::mem::replace(&mut self.record, empty_record));
            }
        }
    }
}

/// Completes and records a request whose whole response was passed on.
fn record_http1_request(record: &mut RequestRecord, connection: &ConnectionState) {
    let now = Instant::now();
    record.total_time = now.into_std().saturating_duration_since(record.arrived);
    // The clock was not read before for a response that was sent with one write.
    if record.head_time.is_zero() {
        record.head_time = record.total_time;
    }
    // The last chunk may still wait for the socket.
    connection.stored_bodies.end_response();
    connection.finish_response(now);
    (connection.recorder)(record);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::test_support::{self, RequestRecords};
    use http_body::Body as _;

    fn recording(body: ResponseBody) -> (RecordingBody, RequestRecords) {
        let records = RequestRecords::default();
        let connection = Arc::new(ConnectionState::new(records.recorder(), None, false, None));
        let record = test_support::record(std::time::Instant::now());
        (
            RecordingBody::new(body, record, ResponseChannel::Connection(connection)),
            records,
        )
    }

    async fn next(recording: &mut RecordingBody) -> Option<usize> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *recording).poll_frame(cx)).await;
        let chunk = frame.map(|frame| frame.unwrap().into_data().ok().unwrap());
        chunk.map(|chunk| chunk.into_bytes().len())
    }

    #[tokio::test]
    async fn sends_a_large_object_in_chunks_and_records_all_bytes() {
        let size = CHUNK_BYTES_HTTP1 * 2 + 5;
        let (mut recording, records) =
            recording(ResponseBody::Whole(Some(Bytes::from(vec![0; size]))));
        assert_eq!(recording.size_hint().exact(), Some(size as u64));
        assert_eq!(next(&mut recording).await, Some(CHUNK_BYTES_HTTP1));
        assert!(!recording.is_end_stream());
        assert_eq!(next(&mut recording).await, Some(CHUNK_BYTES_HTTP1));
        assert_eq!(next(&mut recording).await, Some(5));
        assert!(recording.is_end_stream());
        assert!(records.take().is_empty(), "not recorded before its end");
        drop(recording);
        let recording = records.take();
        assert_eq!(recording.len(), 1);
        assert_eq!(
            (recording[0].bytes, recording[0].aborted_by),
            (size as u64, None)
        );
    }

    /// The chunks that h2 may still hold after the stream's task has ended.
    #[tokio::test]
    async fn copies_the_end_of_a_range_over_http2() {
        let object = Bytes::from(vec![0; 1 << 20]);
        for (status, length, is_apart) in
            [(206, 300_000, true), (206, 2, true), (200, 300_000, false)]
        {
            let connection = Arc::new(ConnectionState::new(
                RequestRecords::default().recorder(),
                None,
                false,
                None,
            ));
            let channel =
                ResponseChannel::Stream(connection.clone(), StreamSendRate::new(connection));
            let record = RequestRecord {
                status: StatusCode::from_u16(status).unwrap(),
                ..test_support::record(std::time::Instant::now())
            };
            let body = ResponseBody::Whole(Some(object.slice(1000..1000 + length)));
            let mut recording = RecordingBody::new(body, record, channel);
            recording.add_stored_body(Arc::new(SharedBody::default()));
            let mut remaining = length;
            while remaining > 0 {
                let frame =
                    std::future::poll_fn(|cx| Pin::new(&mut recording).poll_frame(cx)).await;
                let chunk = frame.unwrap().unwrap().into_data().ok().unwrap();
                let chunk = chunk.into_bytes();
                remaining -= chunk.len();
                let is_copy = !object.as_ptr_range().contains(&chunk.as_ptr());
                assert_eq!(
                    is_copy,
                    is_apart && remaining < 96 << 10,
                    "{status} {remaining}"
                );
            }
        }
    }

    #[tokio::test]
    async fn records_a_body_dropped_early_as_cut_by_the_viewer() {
        let (mut recording, records) = recording(ResponseBody::Whole(Some(Bytes::from(vec![
            0;
            CHUNK_BYTES_HTTP1 + 1
        ]))));
        next(&mut recording).await;
        drop(recording);
        assert_eq!(records.take()[0].aborted_by, Some(AbortCause::Viewer));
    }

    #[tokio::test]
    async fn records_an_empty_body_as_zero_bytes() {
        let (recording, records) = recording(ResponseBody::Empty);
        assert!(recording.is_end_stream());
        drop(recording);
        let record = records.take().remove(0);
        assert_eq!((record.bytes, record.aborted_by), (0, None));
    }
}
