//! Relays a body to one viewer at the viewer's speed. A task reads it from the origin, a few chunks
//! ahead, so that waits for the origin and for the viewer are counted separately.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Failure, UpstreamBody};

/// Chunks read ahead of the viewer, of up to 64 KiB each.
const AHEAD_MAX: usize = 2;

/// A chunk, or the proven end.
type RelayEvent = Option<Result<Bytes, Failure>>;

/// A body for one viewer. Dropping it ends the request to the origin.
pub struct ViewerRelay {
    events: mpsc::Receiver<RelayEvent>,
    viewer_cut: bool,
}

impl UpstreamBody {
    /// Relays the body to one viewer. Must be called inside a tokio runtime.
    pub fn relay(self) -> ViewerRelay {
        let (sender, events) = mpsc::channel(AHEAD_MAX);
        tokio::spawn(run(self, sender));
        ViewerRelay {
            events,
            viewer_cut: false,
        }
    }
}

impl ViewerRelay {
    /// The next chunk; `None` is a proven end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<RelayEvent> {
        let event = ready!(self.events.poll_recv(cx));
        // The task ended without a final event: it was cut to make room, or has panicked.
        self.viewer_cut |= event.is_none();
        Poll::Ready(event.unwrap_or(Some(Err(Failure::Truncated))))
    }

    /// The body ended early because the viewer was too slow, not because of the origin.
    pub fn viewer_was_cut(&self) -> bool {
        self.viewer_cut
    }
}

async fn run(mut body: UpstreamBody, viewer: mpsc::Sender<RelayEvent>) {
    loop {
        let event = tokio::select! {
            biased;
            event = body.next() => event,
            () = viewer.closed() => return,
        };
        let is_last = !matches!(event, Some(Ok(_)));
        let slot = match body.permits().map(Arc::clone) {
            Some(permits) => match permits.wait_for_viewer(viewer.reserve()).await {
                Some(slot) => slot,
                None => return,
            },
            None => viewer.reserve().await,
        };
        let Ok(slot) = slot else {
            return;
        };
        slot.send(event);
        if is_last {
            return;
        }
    }
}
