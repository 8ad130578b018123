//! Serves streams that are no sockets: for tools that embed the shield, and for benchmarks that
//! leave the kernel out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::connection::{PeerInfo, serve_plain};
use super::lifecycle::Frontend;
use super::server_context::ServerContext;
use super::sniffing_stream::Transport;
use super::stats::ConnectionEvent;
use super::{Handler, RequestRecorder};

/// Serves streams of one thread, as a worker serves the connections of a listener.
pub struct StreamServer<A>(Arc<ServerContext<A>>);

impl<A: Handler> StreamServer<A> {
    /// A server with the limits of a frontend. `recorder` receives the record of each finished
    /// request.
    pub fn new(frontend: &Frontend, handler: A, recorder: RequestRecorder) -> StreamServer<A> {
        StreamServer(frontend.context(handler, recorder))
    }

    /// Serves one stream, HTTP/1.1 or HTTP/2 by its first bytes, until it ends. An error: there are
    /// too many connections.
    pub async fn serve<S>(&self, stream: S) -> Result<(), ConnectionEvent>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connections = &self.0.connections;
        let guard = connections.admit(None, Instant::now())?;
        let peer = PeerInfo {
            peer: None,
            socket: None,
        };
        let connection = peer.new_state(&self.0.recorder, false);
        guard.register(&connection);
        serve_plain(Arc::clone(&self.0), StreamTransport(stream), connection).await;
        Ok(())
    }
}

struct StreamTransport<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for StreamTransport<S> {}

impl<S: AsyncRead + Unpin> AsyncRead for StreamTransport<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StreamTransport<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
