//! Reads from a Unix socket so that a client can distinguish an incomplete response from a complete
//! one.
//!
//! A response without a length to an HTTP/1.0 client ends when its connection closes. Over TCP, the
//! connection of an incomplete body is reset, and no client takes that for the end. A Unix socket
//! has no such reset, with one exception: if it is closed while it holds unread bytes, the kernel
//! reports `ECONNRESET` to the other side after all bytes sent. So the last byte of an HTTP/1.0
//! request is passed on but stays in the socket, and is removed when the response is complete.

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
pub(super) struct UnixWire {
    stream: UnixStream,
    speaks: FirstLineVersion,
    /// The last byte passed on is still in the socket.
    held: bool,
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
    fn follow(&mut self, bytes: &[u8]) {
        let FirstLineVersion::Unknown(line) = self else {
            return;
        };
        for byte in bytes {
            if *byte != b'\n' {
                if line.len() > HTTP10.len() {
                    line.remove(0);
                }
                line.push(*byte);
                continue;
            }
            let ended = line.strip_suffix(b"\r").unwrap_or(line);
            // Blank lines before a request are ignored.
            if !ended.is_empty() {
                *self = if ended.ends_with(HTTP10) {
                    FirstLineVersion::Http10
                } else {
                    FirstLineVersion::Other
                };
                return;
            }
            line.clear();
        }
    }
}

impl UnixWire {
    /// A connection whose first request line gives the version.
    pub(super) fn plain(stream: UnixStream) -> UnixWire {
        UnixWire {
            stream,
            speaks: FirstLineVersion::Unknown(Vec::new()),
            held: false,
        }
    }

    /// A TLS connection: TLS itself marks the end.
    pub(super) fn for_tls(stream: UnixStream) -> UnixWire {
        UnixWire {
            stream,
            speaks: FirstLineVersion::Other,
            held: false,
        }
    }

    /// Removes peeked bytes from the socket. They are there, so the readiness state of the runtime
    /// does not matter.
    fn take(&self, count: usize) -> io::Result<()> {
        let mut bytes = [0; PEEK_BYTES];
        let mut left = count.min(PEEK_BYTES);
        while left > 0 {
            match recv(
                self.stream.as_raw_fd(),
                &mut bytes[..left],
                MsgFlags::empty(),
            )? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                taken => left -= taken,
            }
        }
        Ok(())
    }

    fn poll_peek(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let held = usize::from(self.held);
        let mut bytes = [0; PEEK_BYTES];
        let room = (buf.remaining() + held).min(PEEK_BYTES);
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let ended = self.is_read_closed();
            let socket = self.stream.as_raw_fd();
            let peeked = self.stream.try_io(Interest::READABLE, || {
                match recv(socket, &mut bytes[..room], MsgFlags::MSG_PEEK)? {
                    count if count > held || count == 0 || ended => Ok(count),
                    // Only bytes that were already passed on.
                    _ => Err(io::ErrorKind::WouldBlock.into()),
                }
            });
            let count = match peeked {
                Ok(count) if count > held => count,
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let came = &bytes[held..count];
            self.speaks.follow(came);
            self.held = !matches!(self.speaks, FirstLineVersion::Other);
            self.take(count - usize::from(self.held))?;
            buf.put_slice(came);
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

impl Transport for UnixWire {
    fn can_sever(&self) -> bool {
        self.held
    }
}

impl AsyncRead for UnixWire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.speaks {
            FirstLineVersion::Other => Pin::new(&mut this.stream).poll_read(cx, buf),
            FirstLineVersion::Unknown(_) | FirstLineVersion::Http10 => this.poll_peek(cx, buf),
        }
    }
}

impl AsyncWrite for UnixWire {
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
        if std::mem::take(&mut this.held) {
            this.take(1)?;
        }
        this.speaks = FirstLineVersion::Other;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair() -> (UnixStream, UnixWire) {
        let (client, server) = UnixStream::pair().unwrap();
        (client, UnixWire::plain(server))
    }

    async fn heard(client: &mut UnixStream) -> (Vec<u8>, bool) {
        let mut heard = Vec::new();
        let proper = client.read_to_end(&mut heard).await.is_ok();
        (heard, proper)
    }

    #[tokio::test]
    async fn an_http10_client_sees_an_error_unless_its_answer_ended_well() {
        const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
        for ends_well in [true, false] {
            let (mut client, mut wire) = pair();
            for piece in [&REQUEST[..9], &REQUEST[9..15], &REQUEST[15..]] {
                client.write_all(piece).await.unwrap();
                let mut came = [0; 64];
                let count = wire.read(&mut came).await.unwrap();
                assert_eq!(&came[..count], piece);
            }
            assert!(wire.can_sever());
            wire.write_all(b"hello").await.unwrap();
            if ends_well {
                wire.shutdown().await.unwrap();
            }
            drop(wire);
            assert_eq!(heard(&mut client).await, (b"hello".to_vec(), ends_well));
        }
    }

    #[tokio::test]
    async fn other_versions_leave_nothing_in_the_socket() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "\r\nGET / HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n",
        ] {
            let (mut client, mut wire) = pair();
            client.write_all(line.as_bytes()).await.unwrap();
            let mut came = vec![0; line.len()];
            wire.read_exact(&mut came).await.unwrap();
            assert_eq!(came, line.as_bytes());
            assert!(!wire.can_sever());
            drop(wire);
            assert_eq!(heard(&mut client).await, (Vec::new(), true));
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noticed_though_a_byte_of_it_is_held() {
        let (mut client, mut wire) = pair();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut came = [0; 64];
        assert_eq!(wire.read(&mut came).await.unwrap(), 18);
        drop(client);
        assert_eq!(wire.read(&mut came).await.unwrap(), 0);
    }
}
