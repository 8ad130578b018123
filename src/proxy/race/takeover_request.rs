//! Requests another endpoint for a body, and reads its response until it is further than the
//! endpoint that delivers the body.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::timeout;

use super::SILENCE;

use seawall_upstream::{Origin, Takeover, UpstreamBody, UpstreamRequest, UpstreamResponse};

/// A request to another endpoint that has brought this much and is still behind is cancelled.
const BYTES_MAX: u64 = 1 << 20;

/// A request to another endpoint.
pub(super) struct TakeoverRequest {
    end: Pin<Box<dyn Future<Output = Result<UpstreamResponse, TakeoverError>> + Send>>,
    /// Bytes received from the endpoint that delivers the body.
    received: Arc<AtomicU64>,
    /// The delivering endpoint is silent or has failed. If false, it is slow.
    pub(super) has_stopped: bool,
    _permission: Takeover,
}

/// What a request to another endpoint is made of.
pub(super) struct TakeoverParts {
    pub(super) origin: Arc<Origin>,
    pub(super) upstream_request: UpstreamRequest,
    /// Says how the response fits the body.
    pub(super) match_response: Box<dyn FnOnce(&UpstreamResponse) -> ResponseFit + Send>,
}

/// How another endpoint's response fits the body that is being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ResponseFit {
    /// It is the rest of the body, or the whole body while readers have nothing.
    Same,
    /// That endpoint has a different object under this URL; a new request would get that object.
    Another,
    /// It is neither.
    Nothing,
}

/// Why the other endpoint did not take over.
pub(super) enum TakeoverError {
    /// No endpoint answered.
    Unanswered,
    /// This endpoint's response did not fit, or was too slow.
    Rejected(usize, ResponseFit),
}

impl TakeoverRequest {
    /// `sent_to_viewers`: the number of bytes that readers have; the response begins there. `None`:
    /// readers have nothing, not even the head, and the response begins at byte 0.
    pub(super) fn start(
        parts: TakeoverParts,
        sent_to_viewers: Option<u64>,
        received: u64,
        (has_stopped, permission): (bool, Takeover),
    ) -> TakeoverRequest {
        let received = Arc::new(AtomicU64::new(received));
        TakeoverRequest {
            end: Box::pin(run(parts, sent_to_viewers, Arc::clone(&received))),
            received,
            has_stopped,
            _permission: permission,
        }
    }

    /// Records how many bytes came from the endpoint that delivers the body.
    pub(super) fn report(&self, received: u64) {
        self.received.store(received, Ordering::Relaxed);
    }
}

/// Resolves when the request has ended; never, if no other endpoint was requested.
pub(super) async fn finish(
    request: &mut Option<TakeoverRequest>,
) -> Result<UpstreamResponse, TakeoverError> {
    match request {
        Some(request) => request.end.as_mut().await,
        None => pending().await,
    }
}

async fn run(
    parts: TakeoverParts,
    sent_to_viewers: Option<u64>,
    received: Arc<AtomicU64>,
) -> Result<UpstreamResponse, TakeoverError> {
    let response = parts.origin.fetch(parts.upstream_request).await;
    let mut response = response.map_err(|_| TakeoverError::Unanswered)?;
    let fit = (parts.match_response)(&response);
    if fit != ResponseFit::Same {
        return Err(TakeoverError::Rejected(response.endpoint, fit));
    }
    let from = sent_to_viewers.unwrap_or_default();
    match get_ahead(&mut response.body, &received, from).await {
        Some(more) if sent_to_viewers.is_some() => response.body.skip(more),
        Some(_) => {}
        None => return Err(TakeoverError::Rejected(response.endpoint, fit)),
    }
    Ok(response)
}

/// Reads a body that begins at `from` until it is further than `received`. Returns how far the
/// delivering endpoint is within it; `None`: it does not get ahead.
async fn get_ahead(body: &mut UpstreamBody, received: &AtomicU64, from: u64) -> Option<u64> {
    loop {
        let ahead = body.ahead_bytes();
        let came = received.load(Ordering::Relaxed) - from;
        if ahead > came {
            return Some(came);
        }
        if ahead > BYTES_MAX {
            return None;
        }
        match timeout(SILENCE, body.read_ahead()).await {
            Ok(Some(Ok(()))) => {}
            // An empty body is complete.
            Ok(None) if came == 0 => return Some(0),
            Ok(Some(Err(_)) | None) | Err(_) => return None,
        }
    }
}
