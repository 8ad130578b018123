//! Runs one connection in one task on one thread: handshake, protocol, requests, close.

use std::future::poll_fn;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::client_certificates::names_of;
use super::connection_state::ConnectionState;
use super::connection_timer::{ConnectionTimer, TimerAction, ViewerProtocol};
use super::exchange::{begin_http1_request, begin_http2_request, exchange};
use super::fast_path::FastPath;
use super::frames;
use super::lingering_close::{close_gracefully, linger};
use super::server_context::ServerContext;
use super::sniffing_stream::{SniffingStream, Transport};
use super::stats::ConnectionEvent;
use super::tls;
use super::write_coalescer::WriteCoalescer;
use super::{Handler, RequestRecorder};

/// The other side of a connection: its address, and our socket for it.
#[derive(Clone, Copy)]
pub(super) struct PeerInfo {
    pub(super) peer: Option<IpAddr>,
    pub(super) socket: Option<RawFd>,
}

impl PeerInfo {
    /// Creates the state of the connection.
    pub(super) fn new_state(self, recorder: &RequestRecorder, tls: bool) -> Arc<ConnectionState> {
        Arc::new(ConnectionState::new(
            recorder.clone(),
            self.peer,
            tls,
            self.socket,
        ))
    }
}

/// Serves a connection and detects its protocol from the first bytes.
pub(super) async fn serve_plain<A, W>(
    context: Arc<ServerContext<A>>,
    transport: W,
    connection: Arc<ConnectionState>,
) where
    A: Handler,
    W: Transport,
{
    let stream = SniffingStream::detecting(transport, connection.clone());
    if let Some(stream) = serve_http1(&context, stream, &connection).await {
        // Boxed: an HTTP/1 connection must not have the size of an HTTP/2 one.
        Box::pin(serve_http2(&context, stream, &connection)).await;
    }
}

/// Does the TLS handshake and serves the connection.
pub(super) async fn serve_tls<A, W>(
    context: Arc<ServerContext<A>>,
    transport: W,
    connection: Arc<ConnectionState>,
    acceptor: TlsAcceptor,
) where
    A: Handler,
    W: Transport,
{
    let handshake = Box::pin(acceptor.accept_with(transport, tls::limit_writes));
    let transport = match timeout(context.limits.handshake_timeout, handshake).await {
        Ok(Ok(transport)) => Box::new(transport),
        Ok(Err(error)) => {
            let event = tls::failure_event(&error);
            let peer = connection.address().viewer.map(tracing::field::display);
            tracing::debug!(
                peer,
                event = event.as_str(),
                "TLS handshake failed: {error}"
            );
            return context.count(event);
        }
        Err(_) => return context.count(ConnectionEvent::HandshakeTimeout),
    };
    let session = transport.get_ref().1;
    if let Some([certificate, ..]) = session.peer_certificates() {
        // There is one handshake.
        let _ = connection.certificate.set(Arc::new(names_of(certificate)));
    }
    if session.alpn_protocol() == Some(b"h2") {
        let stream = SniffingStream::http2(transport, connection.clone());
        Box::pin(serve_http2(&context, stream, &connection)).await;
    } else {
        let stream = SniffingStream::http1(transport, connection.clone());
        serve_http1(&context, stream, &connection).await;
    }
}

/// Speaks HTTP/1 until the connection ends. Returns the stream if the viewer speaks HTTP/2.
async fn serve_http1<A, W>(
    context: &Arc<ServerContext<A>>,
    stream: SniffingStream<W>,
    connection: &Arc<ConnectionState>,
) -> Option<SniffingStream<W>>
where
    A: Handler,
    W: Transport,
{
    let (end, stream) = serve_http1_requests(context, stream, connection).await;
    match stream.into_http2() {
        Ok(stream) => Some(stream),
        Err(stream) => {
            // Boxed: an open connection needs no room for its close.
            Box::pin(close_http1(context, stream, connection, end)).await;
            None
        }
    }
}

/// Serves HTTP/1 requests, each without hyper or with it, until the connection ends.
async fn serve_http1_requests<A, W>(
    context: &Arc<ServerContext<A>>,
    stream: SniffingStream<W>,
    connection: &Arc<ConnectionState>,
) -> (ConnectionEnd, SniffingStream<W>)
where
    A: Handler,
    W: Transport,
{
    let mut timer = context.timer(ViewerProtocol::Http1, connection);
    let mut fast_path = FastPath::new(stream, context.clone(), connection.clone());
    loop {
        let action = serve_without_hyper(&mut fast_path, &mut timer).await;
        if let Some(TimerAction::Cut(event)) = action {
            return (ConnectionEnd::Cut(event), fast_path.into_stream());
        }
        let must_shut_down = action == Some(TimerAction::StartShutdown);
        // Boxed: a connection that needs no hyper must not have the size of one that does.
        let with_hyper = Box::pin(serve_with_hyper(
            context,
            fast_path,
            connection,
            &mut timer,
            must_shut_down,
        ));
        match with_hyper.await {
            HyperExit::NoLongerNeeded(released) => fast_path = released,
            HyperExit::ConnectionEnded(end, stream) => return (end, stream),
        }
    }
}

/// Answers HTTP/1 requests without hyper. Returns what the timer demands, or `None` when hyper must
/// read the next bytes.
async fn serve_without_hyper<A, W>(
    fast_path: &mut FastPath<A, W>,
    timer: &mut ConnectionTimer,
) -> Option<TimerAction>
where
    A: Handler,
    W: Transport,
{
    poll_fn(|cx| {
        if fast_path.poll_without_hyper(cx).is_ready() {
            return Poll::Ready(None);
        }
        match timer.check(cx) {
            TimerAction::Wait => Poll::Pending,
            action => Poll::Ready(Some(action)),
        }
    })
    .await
}

/// Why hyper no longer serves a connection.
enum HyperExit<A, W: Transport> {
    /// A request was answered without hyper: its state is dropped.
    NoLongerNeeded(FastPath<A, W>),
    /// The connection has ended and is to be closed.
    ConnectionEnded(ConnectionEnd, SniffingStream<W>),
}

/// Speaks HTTP/1 with hyper until the connection ends, or a request is answered without hyper.
async fn serve_with_hyper<A, W>(
    context: &Arc<ServerContext<A>>,
    fast_path: FastPath<A, W>,
    connection: &Arc<ConnectionState>,
    timer: &mut ConnectionTimer,
    must_shut_down: bool,
) -> HyperExit<A, W>
where
    A: Handler,
    W: Transport,
{
    let service = service_fn(|request| {
        let channel = begin_http1_request(connection);
        exchange(context.clone(), channel, request)
    });
    let mut hyper = context
        .http1
        .serve_connection(TokioIo::new(fast_path), service);
    let mut shuts_down = must_shut_down;
    if shuts_down {
        Pin::new(&mut hyper).graceful_shutdown();
    }
    connection.set_has_hyper_input(true);
    let end = poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = Pin::new(&mut hyper).poll(cx) {
                return Poll::Ready(Some(ConnectionEnd::of(result)));
            }
            match timer.check(cx) {
                TimerAction::Wait if shuts_down || connection.needs_hyper() => {
                    return Poll::Pending;
                }
                TimerAction::Wait => return Poll::Ready(None),
                TimerAction::StartShutdown => {
                    shuts_down = true;
                    Pin::new(&mut hyper).graceful_shutdown();
                }
                TimerAction::Cut(event) => return Poll::Ready(Some(ConnectionEnd::Cut(event))),
            }
        }
    })
    .await;
    let parts = hyper.into_parts();
    let fast_path = parts.io.into_inner();
    let Some(end) = end else {
        debug_assert!(parts.read_buf.is_empty(), "hyper has read nothing since");
        return HyperExit::NoLongerNeeded(fast_path);
    };
    // hyper could not parse the HTTP/2 preface either.
    if let Some(error) = end.parse_error()
        && !fast_path.has_http2_preface()
    {
        let head = fast_path.unparsed_head(&parts.read_buf);
        context.record_unparsable(error, head, connection);
    }
    HyperExit::ConnectionEnded(end, fast_path.into_stream())
}

/// Closes an HTTP/1 connection. If the viewer may still send bytes, they are read first, so that
/// the viewer receives the response.
async fn close_http1<A, W: Transport>(
    context: &ServerContext<A>,
    stream: SniffingStream<W>,
    connection: &ConnectionState,
    end: ConnectionEnd,
) {
    let is_expecting_bytes = match end {
        ConnectionEnd::Cut(event) => return context.record_cut(event, connection),
        _ if end.parse_error().is_some() => true,
        _ => connection.has_unread_body() && !connection.resets_on_close(),
    };
    if is_expecting_bytes {
        linger(stream, &context.limits).await;
    }
}

/// Speaks HTTP/2 until the connection ends.
async fn serve_http2<A, W>(
    context: &Arc<ServerContext<A>>,
    stream: SniffingStream<W>,
    connection: &Arc<ConnectionState>,
) where
    A: Handler,
    W: Transport,
{
    let service = {
        let (context, connection) = (context.clone(), connection.clone());
        service_fn(move |request| {
            let channel = begin_http2_request(&connection);
            exchange(context.clone(), channel, request)
        })
    };
    connection.begin_http2(Instant::now());
    let stream = WriteCoalescer::new(stream);
    let io = TokioIo::new(stream.clone());
    let mut hyper = pin!(context.http2.serve_connection(io, service));
    let mut timer = context.timer(ViewerProtocol::Http2, connection);
    let end = poll_fn(|cx| {
        loop {
            let polled = hyper.as_mut().poll(cx);
            // A full socket wakes this task when it has room; until then the timer measures the
            // delay.
            let sent = stream.poll_send(cx);
            for _ in 0..stream.take_malformed() {
                context.record_malformed(connection);
            }
            if let Poll::Ready(result) = polled {
                return Poll::Ready(ConnectionEnd::of(result));
            }
            if let Poll::Ready(Err(_)) = sent {
                return Poll::Ready(ConnectionEnd::Lost);
            }
            match timer.check(cx) {
                TimerAction::Wait => return Poll::Pending,
                TimerAction::StartShutdown => hyper.as_mut().graceful_shutdown(),
                TimerAction::Cut(event) => return Poll::Ready(ConnectionEnd::Cut(event)),
            }
        }
    })
    .await;
    close_http2(context, stream, connection, end).await;
}

/// Closes an HTTP/2 connection: with GOAWAY after a flood, gracefully if no request is in progress,
/// otherwise at once.
async fn close_http2<A, W: Transport>(
    context: &ServerContext<A>,
    stream: WriteCoalescer<SniffingStream<W>>,
    connection: &ConnectionState,
    end: ConnectionEnd,
) {
    if let ConnectionEnd::Cut(event) = end {
        context.record_cut(event, connection);
    }
    if let Some(flood) = stream.with_stream(SniffingStream::flood) {
        context.record_flood(flood.kind, connection);
        let goaway = frames::goaway(flood.last_stream, frames::ENHANCE_YOUR_CALM);
        stream.append(&goaway);
        return linger(stream, &context.limits).await;
    }
    match end {
        // When the idle timeout expires, no request is in progress either.
        ConnectionEnd::Finished | ConnectionEnd::Cut(ConnectionEvent::IdleTimeout) => {
            close_gracefully(stream, connection, &context.limits).await;
        }
        ConnectionEnd::Failed(error) if is_flood(&error) => {
            if let Some(kind) = stream.with_stream(SniffingStream::last_frame) {
                context.record_flood(kind, connection);
            }
        }
        ConnectionEnd::Failed(error) if is_malformed(&error) => {
            context.record_malformed(connection);
        }
        ConnectionEnd::Failed(_) | ConnectionEnd::Cut(_) | ConnectionEnd::Lost => {}
    }
}

/// How a connection ended.
enum ConnectionEnd {
    /// hyper has finished: no request is in progress.
    Finished,
    /// hyper has failed: the viewer closed the connection or sent something malformed.
    Failed(hyper::Error),
    /// The timer cut the connection: nothing more is sent.
    Cut(ConnectionEvent),
    /// Writing to the socket failed.
    Lost,
}

impl ConnectionEnd {
    fn of(result: hyper::Result<()>) -> ConnectionEnd {
        result.map_or_else(ConnectionEnd::Failed, |()| ConnectionEnd::Finished)
    }

    /// The error, if hyper could not parse what the viewer sent over HTTP/1.
    fn parse_error(&self) -> Option<&hyper::Error> {
        match self {
            ConnectionEnd::Failed(error) if error.is_parse() => Some(error),
            _ => None,
        }
    }
}

/// Whether h2 closed the connection with `ENHANCE_YOUR_CALM`: h2 itself counts resets, CONTINUATION
/// frames and small DATA frames.
fn is_flood(error: &hyper::Error) -> bool {
    library_reason(error) == Some(h2::Reason::ENHANCE_YOUR_CALM)
}

/// Whether h2 closed the connection because of malformed input.
fn is_malformed(error: &hyper::Error) -> bool {
    library_reason(error).is_some_and(|reason| reason != h2::Reason::NO_ERROR)
}

/// The error code with which h2 closed a connection.
fn library_reason(error: &hyper::Error) -> Option<h2::Reason> {
    let source = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    source.reason().filter(|_| source.is_library())
}
