//! Runs one connection in one task on one thread: handshake, protocol, requests, close.

use std::future::poll_fn;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::bad_request;
use super::connection_state::ConnectionState;
use super::connection_timer::{TimerAction, ViewerProtocol};
use super::exchange::{exchange, http1_carrier, http2_carrier};
use super::fast_path::FastPath;
use super::frames;
use super::lingering_close::{close_gracefully, linger};
use super::server_context::ServerContext;
use super::sniffing_stream::{SniffingStream, Transport};
use super::stats::ConnectionEvent;
use super::write_coalescer::WriteCoalescer;
use super::{Handler, RequestRecorder};

/// The peer of a connection.
#[derive(Clone, Copy)]
pub(super) struct PeerInfo {
    pub(super) peer: Option<IpAddr>,
    pub(super) socket: Option<RawFd>,
}

impl PeerInfo {
    pub(super) fn connection(self, recorder: &RequestRecorder, tls: bool) -> Arc<ConnectionState> {
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
    let stream = SniffingStream::open(transport, connection.clone());
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
    let handshake = Box::pin(acceptor.accept(transport));
    let transport = match timeout(context.limits.handshake_timeout, handshake).await {
        Ok(Ok(transport)) => transport,
        Ok(Err(_)) => {
            return context
                .connections
                .counters
                .count(ConnectionEvent::HandshakeFailed);
        }
        Err(_) => {
            return context
                .connections
                .counters
                .count(ConnectionEvent::HandshakeTimeout);
        }
    };
    if transport.get_ref().1.alpn_protocol() == Some(b"h2") {
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
    let service =
        service_fn(|request| exchange(context.clone(), http1_carrier(connection), request));
    let fast_path = FastPath::new(stream, context.clone(), connection.clone());
    let mut hyper = context
        .http1
        .serve_connection(TokioIo::new(fast_path), service);
    let mut timer = context.timer(ViewerProtocol::Http1, connection);
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = std::pin::Pin::new(&mut hyper).poll(cx) {
                return Poll::Ready(Ok(ended));
            }
            match timer.check(cx) {
                TimerAction::Wait => return Poll::Pending,
                TimerAction::Finish => std::pin::Pin::new(&mut hyper).graceful_shutdown(),
                TimerAction::Cut(event) => return Poll::Ready(Err(event)),
            }
        }
    })
    .await;
    let parts = hyper.into_parts();
    let fast_path = parts.io.into_inner();
    if let Ok(Err(error)) = &ended
        && error.is_parse()
        && !fast_path.is_recognised()
    {
        let unread = fast_path.unread_head(&parts.read_buf);
        context
            .connections
            .counters
            .count(ConnectionEvent::HeadRefused);
        (context.recorder)(&bad_request::http1_record(error, unread, connection));
    }
    let stream = match fast_path.into_stream().into_http2() {
        Ok(stream) => return Some(stream),
        Err(stream) => stream,
    };
    match ended {
        Err(event) => context.cut(event, connection),
        Ok(Err(error)) if error.is_parse() => {
            linger(stream, &context.limits).await;
        }
        Ok(_) if connection.has_unread_body() && !connection.is_reset() => {
            linger(stream, &context.limits).await;
        }
        Ok(_) => {}
    }
    None
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
        service_fn(move |request| exchange(context.clone(), http2_carrier(&connection), request))
    };
    connection.finish_response(Instant::now());
    let stream = WriteCoalescer::new(stream);
    let io = TokioIo::new(stream.clone());
    let mut hyper = pin!(context.http2.serve_connection(io, service));
    let mut timer = context.timer(ViewerProtocol::Http2, connection);
    let end = poll_fn(|cx| {
        loop {
            let ended = hyper.as_mut().poll(cx);
            // A full socket wakes this task when it has room; until then the timer measures the
            // delay.
            let lost = matches!(stream.poll_send(cx), Poll::Ready(Err(_)));
            for _ in 0..stream.take_malformed() {
                context.record_malformed(connection);
            }
            if let Poll::Ready(ended) = ended {
                return Poll::Ready(
                    ended.map_or_else(ConnectionEnd::Failed, |()| ConnectionEnd::Proper),
                );
            }
            if lost {
                return Poll::Ready(ConnectionEnd::Lost);
            }
            match timer.check(cx) {
                TimerAction::Wait => return Poll::Pending,
                TimerAction::Finish => hyper.as_mut().graceful_shutdown(),
                TimerAction::Cut(event) => {
                    context.cut(event, connection);
                    return Poll::Ready(match event {
                        // No request is in progress, and the viewer has not sent GOAWAY.
                        ConnectionEvent::IdleTimeout => ConnectionEnd::Proper,
                        _ => ConnectionEnd::Lost,
                    });
                }
            }
        }
    })
    .await;
    if let Some(flood) = stream.with_stream(SniffingStream::flood) {
        context.note_flood(flood.kind, connection);
        stream.append(&frames::goaway(
            flood.last_stream,
            frames::ENHANCE_YOUR_CALM,
        ));
        return linger(stream, &context.limits).await;
    }
    match end {
        ConnectionEnd::Proper => close_gracefully(stream, connection, &context.limits).await,
        ConnectionEnd::Failed(error) if is_calmed(&error) => {
            if let Some(kind) = stream.with_stream(SniffingStream::last_frame) {
                context.note_flood(kind, connection);
            }
        }
        ConnectionEnd::Failed(error) if is_rejected(&error) => context.record_malformed(connection),
        ConnectionEnd::Failed(_) | ConnectionEnd::Lost => {}
    }
}

/// How an HTTP/2 connection ended.
enum ConnectionEnd {
    /// No request is in progress.
    Proper,
    Failed(hyper::Error),
    /// The socket failed, or the timer cut the connection: nothing more is sent.
    Lost,
}

/// Whether h2 closed the connection with `ENHANCE_YOUR_CALM`: h2 itself counts resets, CONTINUATION
/// frames and small DATA frames.
fn is_calmed(error: &hyper::Error) -> bool {
    library_reason(error) == Some(h2::Reason::ENHANCE_YOUR_CALM)
}

/// Whether h2 closed the connection because of malformed input.
fn is_rejected(error: &hyper::Error) -> bool {
    library_reason(error).is_some_and(|reason| reason != h2::Reason::NO_ERROR)
}

/// The error code with which h2 closed a connection.
fn library_reason(error: &hyper::Error) -> Option<h2::Reason> {
    let source = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    source.reason().filter(|_| source.is_library())
}
