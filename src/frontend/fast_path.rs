//! Answers plain HTTP/1.1 GET requests from memory before hyper reads them.
//!
//! Most requests are cache hits, and then hyper costs more than the response: its dispatcher, a
//! service future, two header maps. This wrapper is between hyper and the socket. It parses what
//! hyper would read. If that is exactly one plain request and the response is in memory, it writes
//! the response and reads on; hyper does not see the request. A response to the same request of the
//! same second is sent again: see [`RepeatedResponses`].
//!
//! A connection begins without hyper, which is made for the first request that needs it
//! ([`FastPath::poll_without_hyper`]), and is dropped when a request was answered without it.
//!
//! Two parsers of one connection must agree on where a request begins. So this wrapper parses only
//! while hyper has no unparsed byte and no response to send. It has parsed each request that it
//! left to hyper, with the same parser, the request was complete, and its response was flushed. The
//! first bytes that are not one complete request (half a head, two heads, a body) leave the
//! connection to hyper until it closes. [`StrictFeed`] checks what hyper reads and keeps back all
//! bytes that another parser could read differently.

mod feed;
mod head_parser;
mod pending_response;
mod repeated_responses;
mod response;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use http::{Method, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::feed::StrictFeed;
use self::head_parser::{EMPTY_FIELDS, ParsedRequest, PlainGet};
use self::pending_response::{PendingResponse, head_of};
pub(super) use self::repeated_responses::RepeatedResponses;
use self::repeated_responses::{RepeatLookup, RepeatedResponse};
use super::Handler;
use super::connection_state::{ConnectionState, Phase};
use super::date::date_valid_until;
use super::server_context::ServerContext;
use super::sniffing_stream::{SniffingStream, Transport};
use crate::proxy::ViewerRequest;

thread_local! {
    /// Where a worker reads requests while their connection has no hyper: what is not answered at
    /// once is copied out before the next connection reads.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER_BYTES].into());
}

/// As hyper's first buffer.
const READ_BUFFER_BYTES: usize = 8 << 10;

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
    /// What was read before hyper existed, and is left to it.
    left_to_hyper: Option<LeftToHyper>,
}

/// The result of a read that hyper must see.
struct LeftToHyper {
    /// Empty: the viewer has closed the connection.
    read: io::Result<Bytes>,
    phase_before: Phase,
}

/// Bytes kept from the beginning of a request: the method and part of the target.
const OPENING_BYTES_MAX: usize = 512;

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
            left_to_hyper: None,
        }
    }

    /// Answers requests without hyper, until something arrives that hyper must read. An idle
    /// connection, and one whose requests are all hits, needs neither hyper's state nor its
    /// buffers.
    pub(super) fn poll_without_hyper(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            loop {
                let phase_before = self.connection.phase();
                let read = match self.poll_pending(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => Err(error),
                    Poll::Ready(Ok(())) => {
                        let mut buf = ReadBuf::new(buffer);
                        match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                            Poll::Pending => return Poll::Pending,
                            Poll::Ready(Err(error)) => Err(error),
                            Poll::Ready(Ok(())) if self.answer_from_memory(buf.filled()) => {
                                continue;
                            }
                            Poll::Ready(Ok(())) => Ok(Bytes::copy_from_slice(buf.filled())),
                        }
                    }
                };
                self.left_to_hyper = Some(LeftToHyper { read, phase_before });
                return Poll::Ready(());
            }
        })
    }

    /// Gives hyper what was read before; what finds no room is kept for its next read.
    fn give_to_hyper(&mut self, left: LeftToHyper, buf: &mut ReadBuf<'_>) -> io::Result<Phase> {
        let LeftToHyper { read, phase_before } = left;
        let mut bytes = read?;
        let room = buf.remaining().min(bytes.len());
        buf.put_slice(&bytes[..room]);
        bytes.advance(room);
        if bytes.has_remaining() {
            self.left_to_hyper = Some(LeftToHyper {
                read: Ok(bytes),
                phase_before: Phase::Head,
            });
        }
        Ok(phase_before)
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
        let mut fields = EMPTY_FIELDS;
        let parsed = match self.next_reader {
            NextReader::FastPath if received.len() <= self.context.limits.head_bytes_max => {
                head_parser::parse(received, &mut fields)
            }
            _ => ParsedRequest::Other,
        };
        self.next_reader = match parsed {
            ParsedRequest::Other => NextReader::Hyper,
            ParsedRequest::NotFast => NextReader::HyperOnce,
            ParsedRequest::Get(get) => {
                self.pending = self.start_response(&get);
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
    fn start_response(&self, get: &PlainGet<'_>) -> Option<Box<PendingResponse>> {
        if self.context.connections.is_closing() || get.is_over_limit(&self.context.limits) {
            return None;
        }
        // The first of these bytes began the current phase.
        let arrived = self.connection.phase_since().into_std();
        let write_key = |key: &mut Vec<u8>| get.write_key(&self.context.ignored_fields, key);
        let repeated = self.context.repeated.lock().look_up(arrived, write_key);
        if let RepeatLookup::Found(response) = repeated {
            response.permit().record_hit(arrived);
            return Some(PendingResponse::repeat(
                &response,
                arrived,
                &self.connection,
            ));
        }
        let (uri, headers) = get.to_parts()?;
        let request = ViewerRequest {
            method: Method::GET,
            uri,
            version: Version::HTTP_11,
            headers,
            peer: self.connection.peer,
            tls: self.connection.tls,
            arrived,
            may_repeat: matches!(repeated, RepeatLookup::Second),
            body: None,
        };
        let mut response = self.context.handler.try_answer(request)?;
        let (head, length) = head_of(&response)?;
        if let Some(repeated) = RepeatedResponse::of(&mut response, &head) {
            self.remember(repeated, arrived);
        }
        Some(PendingResponse::of(
            response,
            head,
            length,
            &self.connection,
        ))
    }

    fn remember(&self, response: RepeatedResponse, arrived: Instant) {
        let mut repeated = self.context.repeated.lock();
        let bytes_before = repeated.bytes();
        repeated.insert(response, arrived, date_valid_until(arrived));
        let counters = &self.context.connections.counters;
        counters.record_repeated_bytes(bytes_before, repeated.bytes());
    }

    /// Sends the current response.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(pending) = &mut self.pending else {
            return Poll::Ready(Ok(()));
        };
        let sent = pending.poll_send(&mut self.stream, cx);
        match sent {
            Poll::Pending => pending.record_would_block(),
            Poll::Ready(_) => {
                self.pending = None;
                self.connection.set_needs_hyper(false);
            }
        }
        sent
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
            let phase_before = if let Some(left) = this.left_to_hyper.take() {
                this.give_to_hyper(left, buf)?
            } else {
                let phase_before = this.connection.phase();
                ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
                if this.answer_from_memory(&buf.filled()[start..]) {
                    buf.set_filled(start);
                    continue;
                }
                phase_before
            };
            this.connection.set_needs_hyper(true);
            let received = &buf.filled()[start..];
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
