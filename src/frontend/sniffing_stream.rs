//! Wraps a connection's socket: updates the connection state, and detects HTTP/2 by its preface.
//!
//! It enforces no deadlines and needs no timer and no additional system call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::connection_state::ConnectionState;
use super::frames::FrameKind;
use super::http2_reads::{Flood, Http2Reads};

/// The first bytes of HTTP/2 with prior knowledge.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest write that the kernel sends as one packet, encrypted or not: a few bytes more cost a
/// second packet, and the kernel's work is per packet. A packet, until the network card cuts it,
/// has as many whole segments as fit into 64 KiB less the headers: with the usual MTUs up to 9,001
/// at least 62,496 bytes. TLS adds at most 29 bytes to each of the four records.
pub(super) const WRITE_BYTES_MAX: usize = (60 << 10) + 512;

/// A transport between Seawall and a viewer.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the next close a reset: the kernel drops unsent bytes, and the viewer can distinguish
    /// it from a clean close.
    fn reset_on_close(&self) {}

    /// Whether a close can be a reset now.
    fn can_reset(&self) -> bool {
        true
    }
}

impl Transport for TcpStream {
    fn reset_on_close(&self) {
        // A dead socket needs no reset.
        let _ = self.set_zero_linger();
    }
}

/// [`Transport::can_reset`] is always `true`: TLS has its own close message, and a close without it
/// is not clean. Boxed: the state of a TLS session takes 1.2 KB, and the stream is moved often.
impl<W: Transport> Transport for Box<TlsStream<W>> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

#[cfg(test)]
impl Transport for tokio::io::DuplexStream {}

/// The stream of one connection.
pub(super) struct SniffingStream<W: Transport> {
    transport: W,
    connection: Arc<ConnectionState>,
    protocol: ProtocolGuess,
}

/// The protocol as far as it is known.
enum ProtocolGuess {
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2(Box<Http2Reads>),
    /// Not known yet; all bytes so far match the preface.
    Unknown(Vec<u8>),
    /// The HTTP/2 preface has arrived; these are all bytes so far. hyper's HTTP/1 side must release
    /// the stream.
    Http2Preface(Vec<u8>),
}

impl<W: Transport> SniffingStream<W> {
    /// A stream on which ALPN has selected HTTP/1.
    pub(super) fn http1(transport: W, connection: Arc<ConnectionState>) -> SniffingStream<W> {
        SniffingStream {
            transport,
            connection,
            protocol: ProtocolGuess::Http1,
        }
    }

    /// A stream on which ALPN has selected HTTP/2.
    pub(super) fn http2(transport: W, connection: Arc<ConnectionState>) -> SniffingStream<W> {
        SniffingStream {
            transport,
            connection,
            protocol: ProtocolGuess::Http2(Http2Reads::new(Vec::new())),
        }
    }

    /// A stream that detects the protocol. Reading fails once the HTTP/2 preface has arrived.
    pub(super) fn detecting(transport: W, connection: Arc<ConnectionState>) -> SniffingStream<W> {
        SniffingStream {
            transport,
            connection,
            protocol: ProtocolGuess::Unknown(Vec::new()),
        }
    }

    /// Whether the viewer sent the HTTP/2 preface.
    pub(super) fn has_http2_preface(&self) -> bool {
        matches!(self.protocol, ProtocolGuess::Http2Preface(_))
    }

    /// The stream for HTTP/2 if the viewer sent the preface, otherwise the unchanged stream.
    pub(super) fn into_http2(mut self) -> Result<SniffingStream<W>, SniffingStream<W>> {
        if let ProtocolGuess::Http2Preface(buffered) = &mut self.protocol {
            self.protocol = ProtocolGuess::Http2(Http2Reads::new(std::mem::take(buffered)));
            return Ok(self);
        }
        Err(self)
    }

    /// The flood for which a read failed, if an HTTP/2 viewer sent too many control frames.
    pub(super) fn flood(&self) -> Option<Flood> {
        match &self.protocol {
            ProtocolGuess::Http2(reads) => reads.flood(),
            _ => None,
        }
    }

    /// The type of the last frame on an HTTP/2 connection.
    pub(super) fn last_frame(&self) -> Option<FrameKind> {
        match &self.protocol {
            ProtocolGuess::Http2(reads) => Some(reads.last_kind()),
            _ => None,
        }
    }

    fn poll_http2(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ProtocolGuess::Http2(reads) = &mut self.protocol else {
            return Poll::Ready(Ok(()));
        };
        let start = buf.filled().len();
        if !reads.pass_on_buffered(buf) {
            ready!(Pin::new(&mut self.transport).poll_read(cx, buf))?;
        }
        if reads.check(&buf.filled()[start..], &self.connection) {
            return Poll::Ready(Ok(()));
        }
        buf.set_filled(start);
        Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
    }

    /// Reads into hyper's buffer, and takes the bytes back as long as they may be the preface. The
    /// first byte of almost all HTTP/1 connections shows that they are not, at the cost of one
    /// comparison.
    fn poll_unknown(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let ProtocolGuess::Unknown(buffered) = &mut self.protocol else {
            return Poll::Ready(Ok(()));
        };
        let start = buf.filled().len();
        loop {
            buf.put_slice(buffered);
            let polled = Pin::new(&mut self.transport).poll_read(cx, buf);
            let received = &buf.filled()[start..];
            let has_new_bytes = received.len() > buffered.len();
            if has_new_bytes {
                self.connection.record_request_bytes();
                self.connection.set_can_reset(self.transport.can_reset());
            }
            if received.starts_with(PREFACE) {
                self.protocol = ProtocolGuess::Http2Preface(received.to_vec());
                buf.set_filled(start);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            let has_ended = polled.is_ready() && !has_new_bytes;
            if has_ended || !PREFACE.starts_with(received) {
                self.protocol = ProtocolGuess::Http1;
                return match polled {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    _ => Poll::Ready(Ok(())),
                };
            }
            *buffered = received.to_vec();
            buf.set_filled(start);
            if polled.is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl<W: Transport> Drop for SniffingStream<W> {
    fn drop(&mut self) {
        self.connection.mark_closed();
        if self.connection.resets_on_close() {
            self.transport.reset_on_close();
        }
    }
}

impl<W: Transport> AsyncRead for SniffingStream<W> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.protocol {
            ProtocolGuess::Http1 => {
                let before = buf.filled().len();
                let polled = Pin::new(&mut this.transport).poll_read(cx, buf);
                if buf.filled().len() > before {
                    this.connection.record_request_bytes();
                    this.connection.set_can_reset(this.transport.can_reset());
                }
                polled
            }
            ProtocolGuess::Http2(_) => this.poll_http2(cx, buf),
            ProtocolGuess::Unknown(_) => this.poll_unknown(cx, buf),
            ProtocolGuess::Http2Preface(_) => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
    }
}

impl<W: Transport> SniffingStream<W> {
    /// Records the result of a write.
    fn record_write(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Ready(Ok(count)) => self.connection.record_written(*count),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.connection.set_blocked(true),
        }
        polled
    }
}

impl<W: Transport> AsyncWrite for SniffingStream<W> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.transport).poll_write(cx, bytes);
        this.record_write(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.transport).poll_write_vectored(cx, bytes);
        this.record_write(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.transport).poll_flush(cx);
        this.connection.set_blocked(polled.is_pending());
        if polled.is_ready() {
            this.connection.stored_bodies.record_flush();
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // An aborted response must not end with a clean close.
        if matches!(this.protocol, ProtocolGuess::Http2Preface(_))
            || this.connection.resets_on_close()
        {
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut this.transport).poll_shutdown(cx);
        this.connection.set_blocked(polled.is_pending());
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    fn pair() -> (DuplexStream, SniffingStream<DuplexStream>) {
        let (viewer, transport) = duplex(1024);
        let connection = Arc::new(ConnectionState::new(Arc::new(|_| {}), None, false, None));
        (viewer, SniffingStream::detecting(transport, connection))
    }

    async fn read(stream: &mut SniffingStream<DuplexStream>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 1024];
        let count = stream.read(&mut bytes).await?;
        bytes.truncate(count);
        Ok(bytes)
    }

    #[tokio::test]
    async fn passes_http1_on_at_once() {
        let (mut viewer, mut stream) = pair();
        viewer.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        assert_eq!(read(&mut stream).await.unwrap(), b"GET / HTTP/1.1\r\n");
        assert!(stream.into_http2().is_err());
    }

    #[tokio::test]
    async fn replays_the_preface_and_the_following_bytes() {
        let (mut viewer, mut stream) = pair();
        viewer.write_all(PREFACE).await.unwrap();
        viewer.write_all(b"settings").await.unwrap();
        assert!(read(&mut stream).await.is_err());
        let mut stream = stream.into_http2().ok().unwrap();
        let mut replayed = vec![0; PREFACE.len() + 8];
        stream.read_exact(&mut replayed).await.unwrap();
        assert_eq!(replayed, [PREFACE, b"settings"].concat());
    }

    #[tokio::test]
    async fn recognises_a_preface_in_pieces() {
        let (mut viewer, mut stream) = pair();
        let reading = tokio::spawn(async move {
            let failed = read(&mut stream).await.is_err();
            (failed, stream.into_http2().is_ok())
        });
        for byte in PREFACE {
            viewer.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(reading.await.unwrap(), (true, true));
    }

    #[tokio::test]
    async fn does_not_take_a_post_in_pieces_for_a_preface() {
        let (mut viewer, mut stream) = pair();
        let reading = tokio::spawn(async move {
            let bytes = read(&mut stream).await.unwrap();
            (bytes, stream.into_http2().is_ok())
        });
        viewer.write_all(b"P").await.unwrap();
        tokio::task::yield_now().await;
        viewer.write_all(b"OST /").await.unwrap();
        assert_eq!(reading.await.unwrap(), (b"POST /".to_vec(), false));
    }

    #[tokio::test]
    async fn passes_an_end_within_the_preface_on() {
        let (mut viewer, mut stream) = pair();
        viewer.write_all(b"PRI").await.unwrap();
        drop(viewer);
        assert_eq!(read(&mut stream).await.unwrap(), b"PRI");
        assert_eq!(read(&mut stream).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn reports_blocked_until_the_socket_is_flushed() {
        let (mut viewer, mut stream) = pair();
        let connection = stream.connection.clone();
        let bytes = [7; 2000];
        let mut writing = Box::pin(async {
            stream.write_all(&bytes).await.unwrap();
            stream.flush().await.unwrap();
        });
        let once = futures_poll(&mut writing).await;
        assert!(once.is_pending() && connection.is_blocked());
        let mut sink = vec![0; 2000];
        let ((), count) = tokio::join!(writing, viewer.read_exact(&mut sink));
        assert_eq!(count.unwrap(), 2000);
        assert!(!connection.is_blocked());
        assert_eq!(connection.received_bytes(), 2000);
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
    }
}
