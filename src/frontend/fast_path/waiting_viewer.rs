//! One viewer that waits for a response that others wait for too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead as _, ReadBuf};

use crate::frontend::awaited_responses::{SharedResponse, SharedWaiter};
use crate::frontend::connection_state::ConnectionState;
use crate::frontend::connection_table::ConnectionTable;
use crate::frontend::repeated_responses::Http1Head;
use crate::frontend::sniffing_stream::{SniffingStream, Transport};
use crate::frontend::stats::ConnectionEvent;
use crate::proxy::ByteMeter;
use crate::telemetry::{AbortCause, RequestRecord};

/// Bytes that are read at once from a viewer that sends more before it has its response.
const EARLY_BYTES: usize = 256;

/// A viewer that waits. Dropping it records that the viewer has left, or was cut by a drain.
pub(super) struct WaitingViewer {
    waiter: SharedWaiter<Http1Head>,
    /// The bytes of its request.
    request: Vec<u8>,
    arrived: Instant,
    connection: Arc<ConnectionState>,
    connections: Arc<ConnectionTable>,
    has_ended: bool,
}

/// How a wait ended.
pub(super) enum WaitEnd {
    /// With a response, and the record of this viewer's request; if a rate limit counts the bytes,
    /// with what takes them.
    Respond(
        Arc<SharedResponse<Http1Head>>,
        RequestRecord,
        Option<ByteMeter>,
    ),
    /// hyper must handle the request, which is complete.
    HandOverRequest(Bytes),
    /// hyper must handle the request and the bytes that have arrived after it. Empty if the viewer
    /// has closed the connection: then dropping the [`WaitingViewer`] records that it has left.
    HandOverConnection(Bytes),
}

impl WaitingViewer {
    pub(super) fn new(
        waiter: SharedWaiter<Http1Head>,
        request: &[u8],
        arrived: Instant,
        connection: &Arc<ConnectionState>,
        connections: &Arc<ConnectionTable>,
    ) -> WaitingViewer {
        // The timer neither closes nor counts as idle a connection that sends a response.
        connection.begin_fast_response();
        WaitingViewer {
            waiter,
            request: request.to_vec(),
            arrived,
            connection: Arc::clone(connection),
            connections: Arc::clone(connections),
            has_ended: false,
        }
    }

    pub(super) fn poll<W: Transport>(
        &mut self,
        stream: &mut SniffingStream<W>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<WaitEnd>> {
        // hyper adds `Connection: close` to the last response of a connection.
        let must_close = self.connection.is_closing();
        let must_hand_over = match Pin::new(&mut self.waiter.response).poll(cx) {
            Poll::Ready(Some(response)) if !must_close => {
                self.has_ended = true;
                let record = RequestRecord {
                    viewer_hash: self.waiter.record.viewer_hash,
                    ..response.record(self.arrived, self.waiter.has_joined())
                };
                let meter = self.waiter.meter.take();
                return Poll::Ready(Ok(WaitEnd::Respond(response, record, meter)));
            }
            Poll::Ready(_) => true,
            Poll::Pending => must_close,
        };
        // Notices that the viewer leaves.
        let mut early_bytes = [0; EARLY_BYTES];
        let mut buf = ReadBuf::new(&mut early_bytes);
        match Pin::new(stream).poll_read(cx, &mut buf) {
            Poll::Pending if must_hand_over => {
                Poll::Ready(Ok(WaitEnd::HandOverRequest(self.take_request())))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                Poll::Ready(Ok(WaitEnd::HandOverConnection(Bytes::new())))
            }
            Poll::Ready(Ok(())) => {
                self.request.extend_from_slice(buf.filled());
                Poll::Ready(Ok(WaitEnd::HandOverConnection(self.take_request())))
            }
        }
    }

    fn take_request(&mut self) -> Bytes {
        self.has_ended = true;
        self.connection.set_waited_since(self.arrived);
        self.connection.set_is_counted();
        std::mem::take(&mut self.request).into()
    }
}

impl Drop for WaitingViewer {
    fn drop(&mut self) {
        if self.has_ended || std::thread::panicking() {
            return;
        }
        let cause = if self.connection.is_cut_by_drain() {
            AbortCause::Drain
        } else {
            self.connections.counters.count(ConnectionEvent::Abandoned);
            AbortCause::Viewer
        };
        let mut record = self.waiter.record.clone();
        record.arrived = self.arrived;
        (self.connection.recorder)(&record.end_without_response(cause));
    }
}
