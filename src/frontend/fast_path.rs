//! Answers plain HTTP/1.1 GET requests from memory before hyper reads them.
//!
//! Most requests are cache hits, and then hyper costs more than the response: its dispatcher, a
//! service future, two header maps. This wrapper is between hyper and the socket. It parses what
//! hyper would read. If that is exactly one plain request and the response is in memory, it writes
//! the response and reads on; hyper does not see the request. This saves a fifth of the user CPU
//! time per playlist; the time in the kernel stays the same.
//!
//! Two parsers of one connection must agree on where a request begins. So this wrapper parses only
//! while hyper has no unparsed byte and no response to send. It has parsed each request that it
//! left to hyper, with the same parser, the request was complete, and its response was flushed. The
//! first bytes that are not one complete request (half a head, two heads, a body) leave the
//! connection to hyper until it closes. [`StrictFeed`] checks what hyper reads and keeps back all
//! bytes that another parser could read differently.

mod feed;
mod head_parser;
mod response;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, Uri, Version};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::feed::StrictFeed;
use self::head_parser::ParsedRequest;
use super::Handler;
use super::connection_state::{ConnectionState, Phase};
use super::exchange::{begin_http1_request, has_no_content, limit_rejection};
use super::recording_body::RecordingBody;
use super::server_context::ServerContext;
use super::sniffing_stream::{SniffingStream, Transport};
use crate::proxy::{ResponseBody, ViewerRequest, ViewerResponse};
use seawall_cache::Object;

/// Which parser reads the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextReader {
    /// This wrapper: hyper has no unparsed byte and no response to send.
    FastPath,
    /// hyper, for one complete request.
    HyperOnce,
    /// hyper, until the connection closes.
    Hyper,
}

/// A stream whose simple requests are answered before hyper reads them.
pub(super) struct FastPath<A, W: Transport> {
    stream: SniffingStream<W>,
    context: Arc<ServerContext<A>>,
    connection: Arc<ConnectionState>,
    next_reader: NextReader,
    /// Boxed: it is unused most of the time.
    pending: Option<Box<PendingResponse>>,
    /// The first bytes of the request that hyper is reading.
    opening_bytes: Vec<u8>,
    strict_feed: StrictFeed,
}

/// Bytes kept from the beginning of a request: the method and part of the target.
const OPENING_BYTES_MAX: usize = 512;

/// A chunk up to this size is copied behind the head: for the kernel one buffer is cheaper than a
/// list of two, and many small chunks are sent with one write.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// No more chunks are copied when head and chunks have reached this size.
const GATHERED_BYTES_MAX: usize = 64 << 10;

/// A response that is being sent.
struct PendingResponse {
    /// The head, followed by small chunks of the body.
    head: Vec<u8>,
    head_sent: usize,
    /// The next chunk that is too large to be copied.
    chunk: Bytes,
    body: RecordingBody,
    /// The object of the body, until the socket is full.
    part_of: Option<Arc<Object>>,
}

impl<A: Handler, W: Transport> FastPath<A, W> {
    pub(super) fn new(
        stream: SniffingStream<W>,
        context: Arc<ServerContext<A>>,
        connection: Arc<ConnectionState>,
    ) -> FastPath<A, W> {
        FastPath {
            stream,
            context,
            connection,
            next_reader: NextReader::FastPath,
            pending: None,
            opening_bytes: Vec::new(),
            strict_feed: StrictFeed::new(),
        }
    }

    pub(super) fn has_http2_preface(&self) -> bool {
        self.stream.has_http2_preface()
    }

    /// The beginning of the request that hyper could not parse, for the log. These are the recorded
    /// bytes if they can only belong to this request, otherwise `unparsed`, the bytes that hyper
    /// has left. Empty if those belong to a body.
    pub(super) fn unparsed_head<'a>(&'a self, unparsed: &'a [u8]) -> &'a [u8] {
        if self.connection.phase() == Phase::Head && !self.opening_bytes.is_empty() {
            return &self.opening_bytes;
        }
        let mut lines = unparsed.split(|&byte| byte == b'\n');
        let first_line = lines.next().unwrap_or_default();
        let is_head = first_line.trim_ascii_end().ends_with(b" HTTP/1.1");
        if is_head { unparsed } else { &[] }
    }

    /// Records the beginning of a request that hyper reads, to log it if it is rejected.
    fn keep_opening_bytes(&mut self, phase_before: Phase, received: &[u8]) {
        match phase_before {
            Phase::Quiet => self.opening_bytes.clear(),
            // Pipelined bytes: it is unknown to which request they belong.
            Phase::Serving | Phase::Sending => return self.opening_bytes.clear(),
            Phase::Head => {}
        }
        let room = OPENING_BYTES_MAX - self.opening_bytes.len();
        self.opening_bytes
            .extend_from_slice(&received[..received.len().min(room)]);
    }

    pub(super) fn into_stream(self) -> SniffingStream<W> {
        self.stream
    }

    /// Handles the bytes that were read. `true`: hyper must not see them.
    fn answer_from_memory(&mut self, received: &[u8]) -> bool {
        if received.is_empty() {
            return false;
        }
        let parsed = match self.next_reader {
            NextReader::FastPath if received.len() <= self.context.limits.head_bytes_max => {
                head_parser::parse(received)
            }
            _ => ParsedRequest::Other,
        };
        self.next_reader = match parsed {
            ParsedRequest::Other => NextReader::Hyper,
            ParsedRequest::NotFast => NextReader::HyperOnce,
            ParsedRequest::Get { uri, headers } => {
                self.pending = self.start_response(uri, headers);
                if self.pending.is_some() {
                    NextReader::FastPath
                } else {
                    NextReader::HyperOnce
                }
            }
        };
        self.pending.is_some()
    }

    /// The response to a GET if it is in memory. A request over a limit and the last request of a
    /// connection are left to hyper: [`super::exchange`] rejects the one, and adds
    /// `Connection: close` to the response of the other.
    fn start_response(&self, uri: Uri, headers: HeaderMap) -> Option<Box<PendingResponse>> {
        if self.context.connections.is_closing()
            || limit_rejection(&uri, &headers, &self.context.limits).is_some()
        {
            return None;
        }
        let request = ViewerRequest {
            method: Method::GET,
            uri,
            version: Version::HTTP_11,
            headers,
            peer: self.connection.peer,
            tls: self.connection.tls,
            // The first of these bytes began the current phase.
            arrived: self.connection.phase_since().into_std(),
            body: None,
        };
        PendingResponse::prepare(self.context.handler.try_answer(request)?, &self.connection)
    }

    /// Sends the current response.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(pending) = &mut self.pending else {
            return Poll::Ready(Ok(()));
        };
        let sent = pending.poll_send(&mut self.stream, cx);
        match sent {
            Poll::Pending => pending.record_would_block(),
            Poll::Ready(_) => self.pending = None,
        }
        sent
    }
}

impl PendingResponse {
    /// Prepares a response for sending. `None`: its length is unknown, so hyper must frame it.
    fn prepare(
        response: ViewerResponse,
        connection: &Arc<ConnectionState>,
    ) -> Option<Box<PendingResponse>> {
        let is_empty = has_no_content(response.status);
        let length = response.body.size_hint().exact()?;
        let head = response::head(&response, (!is_empty).then_some(length));
        let body = if is_empty {
            ResponseBody::Empty
        } else {
            response.body
        };
        let part_of = response.stored.or(response.part_of).filter(|_| !is_empty);
        let channel = begin_http1_request(connection);
        let mut body = RecordingBody::new(body, response.record, channel);
        connection.begin_fast_response();
        // A small response is sent with one write, so the clock is read only once, at its end.
        if length > COPIED_BYTES_MAX as u64 {
            body.record_head_time();
        }
        Some(Box::new(PendingResponse {
            head,
            head_sent: 0,
            chunk: Bytes::new(),
            body,
            part_of,
        }))
    }

    /// Records that the socket is full, so the response is not sent with one write.
    fn record_would_block(&mut self) {
        self.body.record_head_time();
        if let Some(object) = self.part_of.take()
            && let Some(shared) = object.shared_body()
        {
            self.body.add_stored_body(Arc::clone(shared));
        }
    }

    fn poll_send<W: Transport>(
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

impl<A: Handler, W: Transport> AsyncRead for FastPath<A, W> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            // hyper takes `Pending` for waiting for bytes of the viewer, although this may wait for
            // room in the socket. Both wake the task, which calls this again.
            ready!(this.poll_pending(cx))?;
            if this.strict_feed.has_fault() {
                return this.strict_feed.poll_replacement(buf);
            }
            let start = buf.filled().len();
            let phase_before = this.connection.phase();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let received = &buf.filled()[start..];
            if this.answer_from_memory(received) {
                buf.set_filled(start);
                continue;
            }
            this.keep_opening_bytes(phase_before, received);
            this.strict_feed.keep_back(buf, start);
            // hyper would regard an empty read as the end of the connection.
            if buf.filled().len() > start || !this.strict_feed.has_fault() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<A: Handler, W: Transport> AsyncWrite for FastPath<A, W> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        debug_assert!(
            this.pending.is_none(),
            "hyper must not write while the fast path sends a response"
        );
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        debug_assert!(
            this.pending.is_none(),
            "hyper must not write while the fast path sends a response"
        );
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_pending(cx))?;
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        if this.connection.phase() == Phase::Quiet {
            this.opening_bytes = Vec::new();
        }
        // hyper has sent the whole response to the request that was left to it.
        if this.next_reader == NextReader::HyperOnce && this.connection.phase() == Phase::Quiet {
            this.next_reader = NextReader::FastPath;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_pending(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
