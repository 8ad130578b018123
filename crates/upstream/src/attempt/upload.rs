//! Sends a request body. Its beginning is read before an endpoint is contacted: a viewer that sends
//! slowly, or not at all, costs the origin nothing. `frontend` limits size and time.

use std::collections::VecDeque;
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::slow_viewers::RequestPermits;
use crate::{Failure, RequestBody, UploadFault};

/// Bytes of a body that are read before an endpoint is contacted.
const AHEAD_BYTES_MAX: u64 = 16 << 10;

/// A body to send, and the permits of its request.
pub(crate) struct UpstreamUpload {
    body: RequestBody,
    pub(crate) permits: Arc<RequestPermits>,
}

impl UpstreamUpload {
    pub(crate) fn of(body: RequestBody, permits: &Arc<RequestPermits>) -> UpstreamUpload {
        UpstreamUpload {
            body,
            permits: Arc::clone(permits),
        }
    }

    /// The next non-empty chunk; `None` at the end. Permits are released while the viewer is slow.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = poll_fn(|cx| self.body.as_mut().poll_frame(cx));
            let frame = self.permits.wait_for_viewer(frame).await;
            // Trailers are dropped; an empty chunk would be written as the last one.
            match frame.ok_or(Failure::Busy)? {
                None => return Ok(None),
                Some(Err(error)) => return Err(UploadFault::from(&*error).into()),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) if !chunk.is_empty() => return Ok(Some(chunk)),
                    _ => {}
                },
            }
        }
    }
}

/// Reads the beginning of a body.
pub(crate) async fn read_ahead(mut body: RequestBody) -> Result<RequestBody, Failure> {
    let promised = body.size_hint().exact();
    let mut ahead = VecDeque::new();
    let mut received = 0;
    let mut ended = body.is_end_stream();
    while received < AHEAD_BYTES_MAX && !ended {
        match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            None => ended = true,
            Some(Err(error)) => return Err(UploadFault::from(&*error).into()),
            Some(Ok(frame)) => {
                if let Ok(chunk) = frame.into_data() {
                    received += chunk.len() as u64;
                    ahead.push_back(chunk);
                }
                ended = body.is_end_stream();
            }
        }
    }
    if ended && promised.is_some_and(|promised| promised != received) {
        return Err(Failure::UploadBroken);
    }
    Ok(Box::pin(StartedBody {
        ahead,
        rest: (!ended).then_some(body),
        left: if ended { Some(received) } else { promised },
    }))
}

/// A body whose beginning has been read.
struct StartedBody {
    ahead: VecDeque<Bytes>,
    /// `None`: the beginning is the whole body.
    rest: Option<RequestBody>,
    /// Remaining bytes, if known.
    left: Option<u64>,
}

impl Body for StartedBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match (self.ahead.pop_front(), &mut self.rest) {
            (Some(chunk), _) => Some(Ok(Frame::data(chunk))),
            (None, Some(rest)) => ready!(rest.as_mut().poll_frame(cx)),
            (None, None) => None,
        };
        if let (Some(Ok(frame)), Some(left)) = (&frame, &mut self.left) {
            let received = frame.data_ref().map_or(0, |chunk| chunk.len() as u64);
            *left = left.saturating_sub(received);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
