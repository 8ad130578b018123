//! A viewer without a socket: it repeats one request, and discards the responses.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Sends requests one after another, and ends after the last response.
pub(crate) struct Viewer {
    requests: Vec<Vec<u8>>,
    sent: usize,
    answered: usize,
    waker: Option<Waker>,
}

impl Viewer {
    /// A viewer that sends these requests. Each response must fit into one write with its head.
    pub(crate) fn sending(requests: Vec<Vec<u8>>) -> Viewer {
        Viewer {
            requests,
            sent: 0,
            answered: 0,
            waker: None,
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        if bytes.starts_with(b"HTTP/1.1 ") {
            self.answered += 1;
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl AsyncRead for Viewer {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.sent > this.answered {
            this.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some(request) = this.requests.get(this.sent) {
            buf.put_slice(request);
            this.sent += 1;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Viewer {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().receive(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.first().map_or(&[][..], |slice| slice);
        self.get_mut().receive(first);
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
