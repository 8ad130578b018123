//! Sends the body of a response in slices, and records the request once at its end.
//!
//! Slices are needed because hyper takes one frame at a time and drops a body as soon as its last
//! frame is queued. A whole object would be recorded before a byte was sent, and never as aborted.
//! Slicing shares the bytes without copying. The recorded bytes are at most one slice ahead of the
//! socket. An HTTP/2 stream is recorded when its last slice has been sent: see [`StreamSendRate`].

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
use super::stored_reads::StoredBodiesRead;
use super::stream_send_rate::StreamSendRate;
use crate::proxy::{BodyTruncated, ResponseBody, SharedBody};
use crate::telemetry::{AbortCause, RequestRecord};

/// One writev each, and a quarter of the maximum size of the kernel's send buffer.
const CHUNK_BYTES_HTTP1: usize = 256 << 10;

/// A body that h2 has completely can be dropped only with its connection, so a slice is small
/// enough for the windows of clients.
const CHUNK_BYTES_HTTP2: usize = 32 << 10;

/// The most that h2 queues of one stream: its send queue less one byte, plus one slice.
const QUEUED_BYTES_MAX: u64 = (SEND_QUEUE_BYTES + CHUNK_BYTES_HTTP2) as u64;

/// The transport of a response.
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

    /// Whether this response, or its whole connection, was cut to free memory.
    fn was_cut_for_memory(&self) -> bool {
        self.stored_bodies().was_cut() || self.connection().stored_bodies.was_cut()
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
    fn new_body(&mut self) -> Option<Arc<SharedBody>> {
        None
    }
}

impl ReadsStoredBodies for ResponseBody {
    fn new_body(&mut self) -> Option<Arc<SharedBody>> {
        self.new_body()
    }
}

/// A body that records its request when it ends or is dropped.
pub(super) struct RecordingBody<B: ReadsStoredBodies = ResponseBody> {
    body: B,
    pending: Bytes,
    ended: bool,
    failed: bool,
    record: RequestRecord,
    channel: ResponseChannel,
}

impl<B: ReadsStoredBodies> RecordingBody<B> {
    pub(super) fn new(
        mut body: B,
        record: RequestRecord,
        channel: ResponseChannel,
    ) -> RecordingBody<B> {
        if let Some(shared) = body.new_body() {
            channel.stored_bodies().begin(shared);
        }
        if let ResponseChannel::Stream(_, rate) = &channel
            && !body.is_end_stream()
        {
            rate.begin_body();
        }
        RecordingBody {
            body,
            pending: Bytes::new(),
            ended: false,
            failed: false,
            record,
            channel,
        }
    }

    fn slice(&mut self) -> CountedBytes {
        let chunk_max = match &self.channel {
            ResponseChannel::Connection(_) => CHUNK_BYTES_HTTP1,
            ResponseChannel::Stream(..) => CHUNK_BYTES_HTTP2,
        };
        let length = self.pending.len().min(chunk_max);
        let slice = self
            .pending
            .split_to(length - usize::from(self.keeps_last(length)));
        let slice = self.detach_chunk(slice);
        self.record.bytes += slice.len() as u64;
        match &self.channel {
            ResponseChannel::Connection(_) => CountedBytes::on_http1(slice),
            ResponseChannel::Stream(_, rate) => CountedBytes::on_http2(slice, rate.clone()),
        }
    }

    /// Whether the last byte of a body is kept back. hyper requests it only when the windows have
    /// room for it and all bytes before. Until then the stream's task runs and can reset the stream
    /// alone. A body of one slice is not split: a viewer without a window for it loses the
    /// connection.
    fn keeps_last(&self, length: usize) -> bool {
        let is_last = || length == self.pending.len() && self.body.is_end_stream();
        match &self.channel {
            ResponseChannel::Stream(_, rate) => length > 1 && rate.passed_to_h2() > 0 && is_last(),
            ResponseChannel::Connection(_) => false,
        }
    }

    /// The minimum number of bytes still to be passed to hyper.
    fn left_bytes_min(&self) -> u64 {
        self.pending.len() as u64 + self.body.size_hint().lower()
    }

    /// Copies a slice if needed. h2 may keep the last slices after the stream's task has ended, and
    /// a shared slice keeps the whole body in memory. So they are copied if the viewer is slow, or
    /// if they belong to a range, which may be two bytes of megabytes.
    fn detach_chunk(&self, slice: Bytes) -> Bytes {
        let is_part = self.record.status == StatusCode::PARTIAL_CONTENT;
        match &self.channel {
            ResponseChannel::Stream(_, rate)
                if rate.stored_bodies.has_any()
                    && self.left_bytes_min() < QUEUED_BYTES_MAX
                    && (is_part || rate.stored_bodies.is_slow()) =>
            {
                Bytes::copy_from_slice(&slice)
            }
            _ => slice,
        }
    }

    /// Records that the response reads a stored body.
    pub(super) fn add_stored_body(&self, shared: Arc<SharedBody>) {
        self.channel.stored_bodies().begin(shared);
    }

    /// Records that all bytes have been sent.
    pub(super) fn finish_reading(&self) {
        self.channel.stored_bodies().end();
    }

    /// Records the time to the head, if not yet recorded.
    pub(super) fn head_ready(&mut self) {
        if self.record.head_time.is_zero() {
            self.record.head_time = self.record.arrived.elapsed();
        }
    }

    /// Records that the last `bytes` bytes were not sent.
    pub(super) fn record_unsent(&mut self, bytes: usize) {
        self.failed |= bytes > 0;
        self.record.bytes = self.record.bytes.saturating_sub(bytes as u64);
    }

    fn is_finished(&self) -> bool {
        self.ended || (self.pending.is_empty() && self.body.is_end_stream())
    }

    fn cut(&mut self, cut: BodyTruncated) -> BodyTruncated {
        self.record.aborted_by = Some(match cut {
            BodyTruncated::Origin => AbortCause::Origin,
            BodyTruncated::Viewer => AbortCause::Viewer,
            BodyTruncated::Memory => AbortCause::Memory,
        });
        if let ResponseChannel::Connection(connection) = &self.channel {
            // hyper closes the connection. If the body is delimited by the close, a clean close
            // would look complete.
            connection.reset_on_close();
        }
        cut
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
            if let Some(shared) = this.body.new_body() {
                this.add_stored_body(shared);
            }
            match polled {
                // Trailers are not forwarded.
                Poll::Ready(Some(Ok(frame))) => {
                    this.pending = frame.into_data().unwrap_or_default();
                }
                Poll::Ready(Some(Err(cut))) => return Poll::Ready(Some(Err(this.cut(cut)))),
                Poll::Ready(None) => {
                    this.ended = true;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    if let ResponseChannel::Stream(_, rate) = &this.channel {
                        rate.wait_for_body();
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(this.slice()))))
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
        if self.record.aborted_by.is_none() && (self.failed || !self.is_finished()) {
            self.record.aborted_by = Some(if self.channel.was_cut_for_memory() {
                AbortCause::Memory
            } else {
                AbortCause::Viewer
            });
        }
        let connection = match &self.channel {
            ResponseChannel::Connection(connection) => connection,
            ResponseChannel::Stream(_, rate) => {
                rate.stored_bodies.end();
                let empty_record = RequestRecord::begin(self.record.arrived);
                return rate.record_at_end(std::mem::replace(&mut self.record, empty_record));
            }
        };
        let now = Instant::now();
        let total_time = now
            .into_std()
            .saturating_duration_since(self.record.arrived);
        self.record.total_time = total_time;
        // The clock was not read before for a response that was sent with one write.
        if self.record.head_time.is_zero() {
            self.record.head_time = total_time;
        }
        // The last slice may still wait for the socket.
        connection.stored_bodies.answered();
        connection.finish_response(now);
        (connection.recorder)(&self.record);
    }
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
        let slice = frame.map(|frame| frame.unwrap().into_data().ok().unwrap());
        slice.map(|slice| slice.into_bytes().len())
    }

    #[tokio::test]
    async fn sends_a_large_object_in_slices_and_records_all_bytes() {
        let size = CHUNK_BYTES_HTTP1 * 2 + 5;
        let (mut recording, records) =
            recording(ResponseBody::Whole(Some(Bytes::from(vec![0; size]))));
        assert_eq!(recording.size_hint().exact(), Some(size as u64));
        assert_eq!(next(&mut recording).await, Some(CHUNK_BYTES_HTTP1));
        assert!(!recording.is_end_stream());
        assert_eq!(next(&mut recording).await, Some(CHUNK_BYTES_HTTP1));
        assert_eq!(next(&mut recording).await, Some(5));
        assert!(recording.is_end_stream());
        assert!(records.take().is_empty(), "not told before its end");
        drop(recording);
        let recording = records.take();
        assert_eq!(recording.len(), 1);
        assert_eq!(
            (recording[0].bytes, recording[0].aborted_by),
            (size as u64, None)
        );
    }

    /// The slices that h2 may still hold after the stream's task has ended.
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
            let mut left = length;
            while left > 0 {
                let frame =
                    std::future::poll_fn(|cx| Pin::new(&mut recording).poll_frame(cx)).await;
                let slice = frame.unwrap().unwrap().into_data().ok().unwrap();
                let slice = slice.into_bytes();
                left -= slice.len();
                let is_copy = !object.as_ptr_range().contains(&slice.as_ptr());
                assert_eq!(is_copy, is_apart && left < 96 << 10, "{status} {left}");
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
