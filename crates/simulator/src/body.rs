//! Response bodies: whole, piece by piece as they are made, or cut off on purpose.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::request_log::OpenRequest;

/// A response body. Its request counts as in progress until it is dropped.
pub(super) struct OriginBody {
    kind: OriginBodyKind,
    open_request: Option<OpenRequest>,
}

enum OriginBodyKind {
    Whole(Bytes),
    /// Fewer bytes than Content-Length announces.
    Cut {
        sent: Bytes,
        announced: u64,
    },
    /// Pieces, sent as they are made.
    Growing(mpsc::Receiver<Bytes>),
}

/// The error that ends a body that is cut on purpose.
#[derive(Debug, thiserror::Error)]
#[error("cut off, as ordered")]
pub(super) struct CutOff;

impl OriginBody {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> OriginBody {
        OriginBody::of(OriginBodyKind::Whole(bytes.into()))
    }

    /// Only the first half of these bytes.
    pub(super) fn cut_in_half(bytes: &Bytes) -> OriginBody {
        OriginBody::of(OriginBodyKind::Cut {
            sent: bytes.slice(..bytes.len() / 2),
            announced: bytes.len() as u64,
        })
    }

    pub(super) fn growing(pieces: mpsc::Receiver<Bytes>) -> OriginBody {
        OriginBody::of(OriginBodyKind::Growing(pieces))
    }

    fn of(kind: OriginBodyKind) -> OriginBody {
        OriginBody {
            kind,
            open_request: None,
        }
    }

    /// Keeps the request counted as in progress until the body is dropped.
    pub(super) fn with_request(self, open_request: OpenRequest) -> OriginBody {
        OriginBody {
            open_request: Some(open_request),
            ..self
        }
    }

    pub(super) fn bytes(&self) -> Option<&Bytes> {
        match &self.kind {
            OriginBodyKind::Whole(bytes) => Some(bytes),
            _ => None,
        }
    }
}

impl Body for OriginBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match &mut self.kind {
            OriginBodyKind::Whole(bytes) if bytes.is_empty() => {
                self.open_request = None;
                Poll::Ready(None)
            }
            OriginBodyKind::Whole(bytes) => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            OriginBodyKind::Cut { announced: 0, .. } => Poll::Ready(Some(Err(CutOff))),
            OriginBodyKind::Cut { sent, announced } if sent.is_empty() => {
                // Not at once: the bytes sent must leave before the connection is closed.
                *announced = 0;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            OriginBodyKind::Cut { sent, .. } => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(sent)))))
            }
            OriginBodyKind::Growing(pieces) => pieces
                .poll_recv(cx)
                .map(|piece| piece.map(Frame::data).map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.kind, OriginBodyKind::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            OriginBodyKind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            OriginBodyKind::Cut { announced, .. } => SizeHint::with_exact(*announced),
            OriginBodyKind::Growing(_) => SizeHint::default(),
        }
    }
}
