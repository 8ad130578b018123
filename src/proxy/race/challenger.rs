//! Requests another endpoint for a body, and reads its response until it is further than the
//! endpoint that delivers the body.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::timeout;

use super::{ResponseFit, SILENCE};
use crate::proxy::Shield;
use seawall_upstream::{Takeover, UpstreamBody, UpstreamRequest, UpstreamResponse};

/// A challenger that has sent this much and is still behind is given up.
const BYTES_MAX: u64 = 1 << 20;

/// A request to another endpoint.
pub(super) struct Challenger {
    end: Pin<Box<dyn Future<Output = Result<UpstreamResponse, RaceLost>> + Send>>,
    /// Bytes received from the endpoint that delivers the body.
    received: Arc<AtomicU64>,
    /// The delivering endpoint is silent or has failed. If false, it is slow.
    pub(super) has_stopped: bool,
    _leave: Takeover,
}

/// The challenger's request, and the function that says how its response fits.
pub(super) struct ChallengerRequest {
    pub(super) shield: Arc<Shield>,
    pub(super) origin_index: usize,
    pub(super) upstream_request: UpstreamRequest,
    pub(super) match_response: Box<dyn FnOnce(&UpstreamResponse) -> ResponseFit + Send>,
}

/// Why the other endpoint did not take over.
pub(super) enum RaceLost {
    /// No endpoint answered.
    Unanswered,
    /// This endpoint's response did not fit, or was too slow.
    By(usize, ResponseFit),
}

impl Challenger {
    /// `sent_to_viewers`: the number of bytes that readers have; the response begins there. `None`:
    /// readers have nothing, not even the head, and the response begins at byte 0.
    pub(super) fn start(
        request: ChallengerRequest,
        sent_to_viewers: Option<u64>,
        received: u64,
        (has_stopped, leave): (bool, Takeover),
    ) -> Challenger {
        let received = Arc::new(AtomicU64::new(received));
        Challenger {
            end: Box::pin(run(request, sent_to_viewers, Arc::clone(&received))),
            received,
            has_stopped,
            _leave: leave,
        }
    }

    /// Records how many bytes came from the endpoint that delivers the body.
    pub(super) fn report(&self, received: u64) {
        self.received.store(received, Ordering::Relaxed);
    }
}

/// Resolves when the race ends; never, if no other endpoint was requested.
pub(super) async fn finish(
    challenger: &mut Option<Challenger>,
) -> Result<UpstreamResponse, RaceLost> {
    match challenger {
        Some(challenger) => challenger.end.as_mut().await,
        None => pending().await,
    }
}

async fn run(
    request: ChallengerRequest,
    sent_to_viewers: Option<u64>,
    received: Arc<AtomicU64>,
) -> Result<UpstreamResponse, RaceLost> {
    let origin = &request.shield.origins[request.origin_index];
    let response = origin.fetch(request.upstream_request).await;
    let mut response = response.map_err(|_| RaceLost::Unanswered)?;
    let fit = (request.match_response)(&response);
    if fit != ResponseFit::Same {
        return Err(RaceLost::By(response.endpoint, fit));
    }
    let from = sent_to_viewers.unwrap_or_default();
    match get_ahead(&mut response.body, &received, from).await {
        Some(more) if sent_to_viewers.is_some() => response.body.skip(more),
        Some(_) => {}
        None => return Err(RaceLost::By(response.endpoint, fit)),
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
