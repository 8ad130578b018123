//! Reads from a Unix socket so that a client can distinguish an incomplete response from a complete
//! one.
//!
//! A response without a length to an HTTP/1.0 client ends when its connection closes. Over TCP, the
//! connection of an incomplete body is reset, and no client takes a reset for the end. A Unix
//! socket has no such reset, with one exception: if it is closed while it holds unread bytes, the
//! kernel reports `ECONNRESET` to the other side after all bytes sent. So the last byte of an
//! HTTP/1.0 request is passed on but stays in the socket, and is removed when the response is
//! complete.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use super::sniffing_stream::Transport;

/// Bytes peeked at once.
const PEEK_BYTES: usize = 4 << 10;

/// The end of an HTTP/1.0 request line.
const HTTP10: &[u8] = b"HTTP/1.0";

/// A connection on a Unix socket.
pub(super) struct UnixTransport {
    stream: UnixStream,
    version: FirstLineVersion,
    /// The last byte that was passed on is still in the socket.
    keeps_last_byte: bool,
}

/// The version in the first request line.
enum FirstLineVersion {
    /// The line is incomplete; these are its last bytes.
    Unknown(Vec<u8>),
    /// HTTP/1.0.
    Http10,
    /// A protocol in which the end of a body is always explicit.
    Other,
}

impl FirstLineVersion {
    /// Reads further bytes of the line.
    fn read(&mut self, bytes: &[u8]) {
        let FirstLineVersion::Unknown(first_line) = self else {
            return;
        };
        for byte in bytes {
            if *byte != b'\n' {
                if first_line.len() > HTTP10.len() {
                    first_line.remove(0);
                }
                first_line.push(*byte);
                continue;
            }
            let line_end = first_line.strip_suffix(b"\r").unwrap_or(first_line);
            // Blank lines before a request are ignored.
            if !line_end.is_empty() {
                *self = if line_end.ends_with(HTTP10) {
                    FirstLineVersion::Http10
                } else {
                    FirstLineVersion::Other
                };
                return;
            }
            first_line.clear();
        }
    }
}

impl UnixTransport {
    /// A connection without TLS. Its first request line names the version of HTTP.
    pub(super) fn plain(stream: UnixStream) -> UnixTransport {
        UnixTransport {
            stream,
            version: FirstLineVersion::Unknown(Vec::new()),
            keeps_last_byte: false,
        }
    }

    /// A TLS connection: TLS itself marks the end.
    pub(super) fn for_tls(stream: UnixStream) -> UnixTransport {
        UnixTransport {
            stream,
            version: FirstLineVersion::Other,
            keeps_last_byte: false,
        }
    }

    /// Removes peeked bytes from the socket. They are in it, so the call does not have to wait for
    /// the runtime to report the socket as readable.
    fn remove_peeked(&self, count: usize) -> io::Result<()> {
        let mut bytes = [0; PEEK_BYTES];
        let mut bytes_remaining = count.min(PEEK_BYTES);
        while bytes_remaining > 0 {
            match recv(
                self.stream.as_raw_fd(),
                &mut bytes[..bytes_remaining],
                MsgFlags::empty(),
            )? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => bytes_remaining -= count,
            }
        }
        Ok(())
    }

    /// Copies the bytes in the socket. `WouldBlock`: all of them were already passed on.
    fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let kept = usize::from(self.keeps_last_byte);
        let is_closed = self.is_read_closed();
        let socket = self.stream.as_raw_fd();
        self.stream.try_io(Interest::READABLE, || {
            let count = recv(socket, bytes, MsgFlags::MSG_PEEK)?;
            if count == kept && count > 0 && !is_closed {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(count)
        })
    }

    /// Passes on new bytes, but leaves the last one in the socket while the version is HTTP/1.0 or
    /// unknown.
    fn poll_peek(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let kept = usize::from(self.keeps_last_byte);
        let mut bytes = [0; PEEK_BYTES];
        let peek_max = (buf.remaining() + kept).min(PEEK_BYTES);
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let count = match self.peek(&mut bytes[..peek_max]) {
                Ok(count) if count > kept => count,
                // The peer has closed its sending side.
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let received = &bytes[kept..count];
            self.version.read(received);
            self.keeps_last_byte = !matches!(self.version, FirstLineVersion::Other);
            self.remove_peeked(count - usize::from(self.keeps_last_byte))?;
            buf.put_slice(received);
            return Poll::Ready(Ok(()));
        }
    }

    /// Whether the peer has closed its sending side. Called only for a ready socket.
    fn is_read_closed(&self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match pin!(self.stream.ready(Interest::READABLE)).poll(&mut cx) {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) | Poll::Pending => false,
        }
    }
}

impl Transport for UnixTransport {
    fn can_reset(&self) -> bool {
        self.keeps_last_byte
    }
}

impl AsyncRead for UnixTransport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.version {
            FirstLineVersion::Other => Pin::new(&mut this.stream).poll_read(cx, buf),
            FirstLineVersion::Unknown(_) | FirstLineVersion::Http10 => this.poll_peek(cx, buf),
        }
    }
}

impl AsyncWrite for UnixTransport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// A clean close: removes the byte that was kept in the socket.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.keeps_last_byte) {
            this.remove_peeked(1)?;
        }
        this.version = FirstLineVersion::Other;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair() -> (UnixStream, UnixTransport) {
        let (client, server) = UnixStream::pair().unwrap();
        (client, UnixTransport::plain(server))
    }

    async fn read_all(client: &mut UnixStream) -> (Vec<u8>, bool) {
        let mut received = Vec::new();
        let is_clean_end = client.read_to_end(&mut received).await.is_ok();
        (received, is_clean_end)
    }

    #[tokio::test]
    async fn resets_http10_clients_unless_the_response_is_complete() {
        const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
        for ends_well in [true, false] {
            let (mut client, mut transport) = pair();
            for piece in [&REQUEST[..9], &REQUEST[9..15], &REQUEST[15..]] {
                client.write_all(piece).await.unwrap();
                let mut received = [0; 64];
                let count = transport.read(&mut received).await.unwrap();
                assert_eq!(&received[..count], piece);
            }
            assert!(transport.can_reset());
            transport.write_all(b"hello").await.unwrap();
            if ends_well {
                transport.shutdown().await.unwrap();
            }
            drop(transport);
            assert_eq!(read_all(&mut client).await, (b"hello".to_vec(), ends_well));
        }
    }

    #[tokio::test]
    async fn leaves_no_byte_in_the_socket_for_other_versions() {
        for first_line in [
            "GET / HTTP/1.1\r\n",
            "\r\nGET / HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n",
        ] {
            let (mut client, mut transport) = pair();
            client.write_all(first_line.as_bytes()).await.unwrap();
            let mut received = vec![0; first_line.len()];
            transport.read_exact(&mut received).await.unwrap();
            assert_eq!(received, first_line.as_bytes());
            assert!(!transport.can_reset());
            drop(transport);
            assert_eq!(read_all(&mut client).await, (Vec::new(), true));
        }
    }

    #[tokio::test]
    async fn notices_a_disconnect_while_a_byte_is_peeked() {
        let (mut client, mut transport) = pair();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut received = [0; 64];
        assert_eq!(transport.read(&mut received).await.unwrap(), 18);
        drop(client);
        assert_eq!(transport.read(&mut received).await.unwrap(), 0);
    }
}
