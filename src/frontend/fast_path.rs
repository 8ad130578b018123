//! Answers plain HTTP/1.1 GET requests from memory before hyper reads them.
//!
//! Most requests are cache hits, and then hyper costs more than the response. This wrapper is
//! between hyper and the socket. It parses what hyper would read. If that is exactly one plain
//! request and the response is in memory, it writes the response and reads on. A response to the
//! same request of the same second is sent again ([`super::repeated_responses`]); equal requests
//! that wait for a fetch share a response ([`super::awaited_responses`]).
//!
//! A connection begins without hyper ([`FastPath::poll_without_hyper`]). The first request that
//! needs hyper creates its state; the next request answered without it drops that state.
//!
//! Two parsers of one connection must agree on where a request begins. So this wrapper parses only
//! while hyper has no unparsed byte and no response to send. It leaves a single request to hyper
//! only if its own parser, which is hyper's too, has found the request complete; it parses again
//! once the response is flushed. The first bytes that are not one complete request (half a head,
//! two heads, a body) leave the connection to hyper until it closes. [`StrictFeed`] checks what
//! hyper reads and keeps back all bytes that another parser could read differently.

mod feed;
mod head_parser;
mod pending_response;
mod response;
mod waiting_viewer;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::feed::StrictFeed;
use self::head_parser::{EMPTY_FIELDS, ParsedRequest, PlainGet};
use self::pending_response::{PendingResponse, head_of, share};
use self::waiting_viewer::{WaitEnd, WaitingViewer};
use super::Handler;
use super::awaited_responses::SharedWaiter;
use super::connection_state::{ConnectionState, Phase};
use super::repeated_responses::{Http1Head, RepeatLookup, Repeatable};
use super::request_key::RequestKey;
use super::server_context::ServerContext;
use super::sniffing_stream::{SniffingStream, Transport};
use crate::proxy::{MemoryAnswer, ViewerRequest, ViewerResponse, admit_repeat};
use seawall_policy::{ClientField, IgnoredFields, ViewerAddress};

thread_local! {
    /// Where a worker reads the requests of connections without hyper. All its connections share
    /// it: one that cannot answer at once copies the bytes before another one reads.
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
    /// The request that is being answered without hyper.
    current: Option<CurrentRequest>,
    /// The first bytes of the request that hyper is reading.
    opening_bytes: Vec<u8>,
    strict_feed: StrictFeed,
    /// The last read without hyper, until hyper has it.
    hyper_input: Option<io::Result<HyperInput>>,
}

/// A request that is being answered without hyper. Boxed: there is none most of the time.
enum CurrentRequest {
    /// Its response is being sent.
    Sending(Box<PendingResponse>),
    /// It waits with others for their response.
    Waiting(Box<WaitingViewer>),
}

/// Bytes that were read without hyper and that hyper must read.
struct HyperInput {
    /// Empty: the viewer has closed the connection.
    bytes: Bytes,
    /// The phase of the connection before they arrived.
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
            current: None,
            opening_bytes: Vec::new(),
            strict_feed: StrictFeed::new(),
            hyper_input: None,
        }
    }

    /// Answers requests without hyper. Ready when hyper must read the next bytes. An idle
    /// connection, and one whose requests are all hits, needs neither hyper's state nor its
    /// buffers.
    pub(super) fn poll_without_hyper(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let unanswered =
            ready!(READ_BUFFER.with_borrow_mut(|buffer| self.poll_unanswered(cx, buffer)));
        self.hyper_input = Some(unanswered);
        Poll::Ready(())
    }

    /// Reads and answers requests, until one cannot be answered from memory.
    fn poll_unanswered(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<HyperInput>> {
        loop {
            ready!(self.poll_current(cx))?;
            if let Some(input) = self.hyper_input.take() {
                return Poll::Ready(input);
            }
            let phase_before = self.connection.phase();
            let mut buf = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
            if !self.answer_from_memory(buf.filled()) {
                return Poll::Ready(Ok(HyperInput {
                    bytes: Bytes::copy_from_slice(buf.filled()),
                    phase_before,
                }));
            }
        }
    }

    /// Copies bytes that were read without hyper into its buffer. Those that do not fit are kept
    /// for its next read.
    fn copy_hyper_input(&mut self, mut input: HyperInput, buf: &mut ReadBuf<'_>) {
        let length = buf.remaining().min(input.bytes.len());
        buf.put_slice(&input.bytes.split_to(length));
        if !input.bytes.is_empty() {
            input.phase_before = Phase::Head;
            self.hyper_input = Some(Ok(input));
        }
    }

    /// Reads for hyper: first the bytes that were read without it. Returns the phase of the
    /// connection before they arrived; `None` if they were a request that is being answered
    /// without hyper.
    fn poll_read_for_hyper(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<Phase>>> {
        if let Some(input) = self.hyper_input.take() {
            let input = input?;
            let phase_before = input.phase_before;
            self.copy_hyper_input(input, buf);
            return Poll::Ready(Ok(Some(phase_before)));
        }
        let phase_before = self.connection.phase();
        let start = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.answer_from_memory(&buf.filled()[start..]) {
            buf.set_filled(start);
            return Poll::Ready(Ok(None));
        }
        Poll::Ready(Ok(Some(phase_before)))
    }

    pub(super) fn has_http2_preface(&self) -> bool {
        self.stream.has_http2_preface()
    }

    /// The beginning of the request that hyper could not parse, for the log. These are the recorded
    /// bytes if they can only belong to this request, otherwise `unparsed`, the bytes that hyper
    /// has read and not parsed. Empty if those belong to a body.
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
                self.current = self.start_response(&get, received);
                if self.current.is_some() {
                    NextReader::FastPath
                } else {
                    NextReader::HyperOnce
                }
            }
        };
        self.current.is_some()
    }

    /// The response to a GET, if it is in memory or others wait for it. hyper reads a request over
    /// a limit and the last request of a connection: [`super::exchange`] rejects the one, and adds
    /// `Connection: close` to the response of the other.
    fn start_response(&self, get: &PlainGet<'_>, received: &[u8]) -> Option<CurrentRequest> {
        if self.connection.is_closing() || get.is_over_limit(&self.context.limits) {
            return None;
        }
        // The first of these bytes began the current phase.
        let arrived = self.connection.phase_since().into_std();
        let context = &self.context;
        let viewer = || self.viewer_of(get);
        let write_key = |ignored: &IgnoredFields, key: &mut Vec<u8>| get.write_key(ignored, key);
        let client = (viewer, &*self.connection);
        match context.look_up_repeated(&context.repeated.http1, arrived, client, write_key) {
            RepeatLookup::Remembered(response) => {
                let permit = response.permit();
                let Ok(meter) = admit_repeat(permit.limiter(), viewer, arrived) else {
                    return self.start_new_response(get, received, arrived, None);
                };
                let request = (arrived, viewer());
                let pending = PendingResponse::repeat(&response, request, &self.connection, meter);
                Some(CurrentRequest::Sending(pending))
            }
            RepeatLookup::Awaited(waiter) => match waiter.admit(viewer, arrived) {
                Some(waiter) => Some(self.begin_wait(waiter, received, arrived)),
                None => self.start_new_response(get, received, arrived, None),
            },
            RepeatLookup::SeenBefore(key) => {
                self.start_new_response(get, received, arrived, Some(key))
            }
            RepeatLookup::New => self.start_new_response(get, received, arrived, None),
        }
    }

    /// Asks the handler for the response. Remembers it under `repeat_key`, to send it again, or
    /// waits for it with others.
    fn start_new_response(
        &self,
        get: &PlainGet<'_>,
        received: &[u8],
        arrived: Instant,
        repeat_key: Option<RequestKey>,
    ) -> Option<CurrentRequest> {
        let request = self.viewer_request(get, arrived, repeat_key.is_some())?;
        let current = match self.context.handler.try_answer(request) {
            MemoryAnswer::Respond(response) => self.begin_send(response, arrived, repeat_key),
            MemoryAnswer::Wait(wait) => repeat_key.map(|key| {
                let waiter = self.context.begin_wait(key, *wait, arrived, share);
                self.begin_wait(waiter, received, arrived)
            }),
            MemoryAnswer::Unknown => None,
        };
        if current.is_none() {
            self.connection.set_is_counted();
        }
        current
    }

    fn begin_wait(
        &self,
        waiter: SharedWaiter<Http1Head>,
        received: &[u8],
        arrived: Instant,
    ) -> CurrentRequest {
        let connections = &self.context.connections;
        let viewer = WaitingViewer::new(waiter, received, arrived, &self.connection, connections);
        CurrentRequest::Waiting(Box::new(viewer))
    }

    fn begin_send(
        &self,
        mut response: ViewerResponse,
        arrived: Instant,
        repeat_key: Option<RequestKey>,
    ) -> Option<CurrentRequest> {
        let (head, length) = head_of(&response, arrived)?;
        if let Some(key) = repeat_key
            && let Some(repeatable) = Repeatable::of(&mut response)
            && let Some(http1_head) = Http1Head::of(&head)
        {
            let repeated = repeatable.with_head(http1_head);
            self.context
                .remember(&self.context.repeated.http1, key, repeated, arrived);
        }
        let pending = PendingResponse::of(response, head, length, &self.connection);
        Some(CurrentRequest::Sending(pending))
    }

    fn viewer_of(&self, get: &PlainGet<'_>) -> ViewerAddress {
        let lines = |field: ClientField| get.lines_of(field.name());
        self.context.viewer_of(&self.connection, lines)
    }

    /// The request for the handler. `None`: hyper must parse and check its fields.
    fn viewer_request(
        &self,
        get: &PlainGet<'_>,
        arrived: Instant,
        wants_repeat: bool,
    ) -> Option<ViewerRequest> {
        let (uri, headers) = get.to_parts()?;
        Some(ViewerRequest {
            method: Method::GET,
            uri,
            version: Version::HTTP_11,
            headers,
            address: self.viewer_of(get),
            tls: self.connection.tls,
            certificate: self.connection.certificate.get().cloned(),
            arrived,
            now: arrived,
            wants_repeat,
            is_counted: false,
            is_cut_by_drain: None,
            class: None,
            body: None,
        })
    }

    /// Completes the current request: waits for its response, and sends it. If hyper must handle
    /// the request after all, its bytes are hyper's next input.
    fn poll_current(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(CurrentRequest::Waiting(viewer)) = &mut self.current {
            let wait_end = ready!(viewer.poll(&mut self.stream, cx));
            self.current = None;
            self.end_wait(wait_end?);
        }
        self.poll_send(cx)
    }

    fn end_wait(&mut self, wait_end: WaitEnd) {
        let bytes = match wait_end {
            WaitEnd::Respond(response, record, meter) => {
                let pending = PendingResponse::shared(&response, record, &self.connection, meter);
                self.current = Some(CurrentRequest::Sending(pending));
                return;
            }
            WaitEnd::HandOverRequest(bytes) => {
                self.next_reader = NextReader::HyperOnce;
                bytes
            }
            WaitEnd::HandOverConnection(bytes) => {
                self.next_reader = NextReader::Hyper;
                bytes
            }
        };
        self.hyper_input = Some(Ok(HyperInput {
            bytes,
            phase_before: Phase::Quiet,
        }));
    }

    /// Sends the current response.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(CurrentRequest::Sending(pending)) = &mut self.current else {
            return Poll::Ready(Ok(()));
        };
        let sent = pending.poll_send(&mut self.stream, cx);
        match sent {
            Poll::Pending => pending.record_would_block(),
            Poll::Ready(_) => {
                self.current = None;
                self.connection.set_has_hyper_input(false);
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
            // a response or for room in the socket. All wake the task, which calls this again.
            ready!(this.poll_current(cx))?;
            if this.strict_feed.has_fault() {
                return this.strict_feed.poll_replacement(buf);
            }
            let start = buf.filled().len();
            let Some(phase_before) = ready!(this.poll_read_for_hyper(cx, buf))? else {
                continue;
            };
            this.connection.set_has_hyper_input(true);
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
            this.current.is_none(),
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
            this.current.is_none(),
            "hyper must not write while the fast path sends a response"
        );
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        if this.connection.phase() == Phase::Quiet {
            this.opening_bytes = Vec::new();
        }
        // hyper has sent the whole response to the request that it read.
        if this.next_reader == NextReader::HyperOnce && this.connection.phase() == Phase::Quiet {
            this.next_reader = NextReader::FastPath;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
