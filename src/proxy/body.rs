//! Defines the response body: empty, in memory, or still arriving.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::body_bytes::count_down;
use super::pass_through_stream::PassThroughStream;
use super::slices::SlicedBody;
use seawall_cache::{BodyTruncated, Follower, SharedBody};

/// A body that is sent to one viewer. [`BodyTruncated`] means that it is incomplete: the viewer's
/// connection or HTTP/2 stream must be reset, never ended cleanly.
pub enum ResponseBody {
    /// No body.
    Empty,
    /// In memory, as one buffer.
    Whole(Option<Bytes>),
    /// In memory, as several buffers.
    Pieces(VecDeque<Bytes>),
    /// Arriving in a fill.
    Growing {
        /// Reads the fill.
        follower: Follower,
        /// Remaining bytes, if known.
        remaining: Option<u64>,
    },
    /// Passed from the origin to this viewer alone.
    Passing(Box<PassThroughStream>),
    /// The slices of a large object.
    Sliced(Box<SlicedBody>),
}

impl ResponseBody {
    /// A body in memory.
    pub fn whole(bytes: Bytes) -> ResponseBody {
        if bytes.is_empty() {
            ResponseBody::Empty
        } else {
            ResponseBody::Whole(Some(bytes))
        }
    }

    /// A shared body that this one has begun to read since the last call.
    pub(crate) fn new_body(&mut self) -> Option<Arc<SharedBody>> {
        match self {
            ResponseBody::Growing { follower, .. } => follower.take_new_body(),
            ResponseBody::Sliced(sliced) => sliced.new_body(),
            ResponseBody::Empty
            | ResponseBody::Whole(_)
            | ResponseBody::Pieces(_)
            | ResponseBody::Passing(_) => None,
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyTruncated;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyTruncated>>> {
        let next = match self.get_mut() {
            ResponseBody::Empty => None,
            ResponseBody::Whole(bytes) => bytes.take().map(Ok),
            ResponseBody::Pieces(pieces) => pieces.pop_front().map(Ok),
            ResponseBody::Growing {
                follower,
                remaining,
            } => {
                let next = ready!(follower.poll_bytes(cx));
                count_down(next, remaining)
            }
            ResponseBody::Passing(passing) => ready!(passing.poll_bytes(cx)),
            ResponseBody::Sliced(sliced) => ready!(sliced.poll_bytes(cx)),
        };
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Empty
            | ResponseBody::Whole(None)
            | ResponseBody::Growing {
                remaining: Some(0), ..
            } => true,
            ResponseBody::Pieces(pieces) => pieces.is_empty(),
            ResponseBody::Whole(Some(_))
            | ResponseBody::Growing { .. }
            | ResponseBody::Passing(_)
            | ResponseBody::Sliced(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let known = match self {
            ResponseBody::Empty | ResponseBody::Whole(None) => Some(0),
            ResponseBody::Whole(Some(bytes)) => Some(bytes.len() as u64),
            ResponseBody::Pieces(pieces) => {
                Some(pieces.iter().map(|piece| piece.len() as u64).sum())
            }
            ResponseBody::Growing { remaining, .. } => *remaining,
            ResponseBody::Passing(passing) => passing.remaining(),
            ResponseBody::Sliced(sliced) => Some(sliced.remaining()),
        };
        known.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
