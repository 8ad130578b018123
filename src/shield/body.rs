//! An answer's body: nothing, bytes at hand, or bytes still arriving.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::pass::Passing;
use super::slices::Sliced;
use crate::cache::{Cut, Follower, SharedBody};

/// A body on its way to one viewer. [`Cut`] means that it could not be completed: the viewer's
/// connection (or stream) must be cut, never ended cleanly.
pub enum Body {
    /// Nothing.
    Empty,
    /// At hand, in one piece.
    Whole(Option<Bytes>),
    /// At hand, in several pieces.
    Pieces(VecDeque<Bytes>),
    /// Followed while a fill brings it.
    Growing {
        /// Reads the fill.
        follower: Follower,
        /// Bytes still to come, where that is known.
        left: Option<u64>,
    },
    /// Straight from the origin, for this viewer alone.
    Passing(Box<Passing>),
    /// Slice after slice of a large object.
    Sliced(Box<Sliced>),
}

impl Body {
    /// Bytes at hand.
    pub fn whole(bytes: Bytes) -> Body {
        if bytes.is_empty() {
            Body::Empty
        } else {
            Body::Whole(Some(bytes))
        }
    }

    /// What it has begun to read since this was asked last, where it comes piece by piece.
    pub(crate) fn new_body(&mut self) -> Option<Arc<SharedBody>> {
        match self {
            Body::Growing { follower, .. } => follower.new_body(),
            Body::Sliced(sliced) => sliced.new_body(),
            Body::Empty | Body::Whole(_) | Body::Pieces(_) | Body::Passing(_) => None,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let next = match self.get_mut() {
            Body::Empty => None,
            Body::Whole(bytes) => bytes.take().map(Ok),
            Body::Pieces(pieces) => pieces.pop_front().map(Ok),
            Body::Growing { follower, left } => {
                let next = ready!(follower.poll_bytes(cx));
                checked(next, left)
            }
            Body::Passing(passing) => ready!(passing.poll_bytes(cx)),
            Body::Sliced(sliced) => ready!(sliced.poll_bytes(cx)),
        };
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty | Body::Whole(None) | Body::Growing { left: Some(0), .. } => true,
            Body::Pieces(pieces) => pieces.is_empty(),
            Body::Whole(Some(_)) | Body::Growing { .. } | Body::Passing(_) | Body::Sliced(_) => {
                false
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let known = match self {
            Body::Empty | Body::Whole(None) => Some(0),
            Body::Whole(Some(bytes)) => Some(bytes.len() as u64),
            Body::Pieces(pieces) => Some(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Body::Growing { left, .. } => *left,
            Body::Passing(passing) => passing.left(),
            Body::Sliced(sliced) => Some(sliced.left()),
        };
        known.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Counts a promised length down; an end before its time is a cut.
pub(super) fn checked(
    next: Option<Result<Bytes, Cut>>,
    left: &mut Option<u64>,
) -> Option<Result<Bytes, Cut>> {
    let Some(promised) = left else {
        return next;
    };
    match next {
        None if *promised > 0 => Some(Err(Cut::Origin)),
        Some(Ok(bytes)) => match promised.checked_sub(bytes.len() as u64) {
            Some(rest) => {
                *promised = rest;
                Some(Ok(bytes))
            }
            None => Some(Err(Cut::Origin)),
        },
        other => other,
    }
}
