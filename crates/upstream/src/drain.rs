//! Drains unwanted response bodies: a short rest is read in the background and the connection
//! returned to the pool. New connections would cost a failing origin more.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::attempt::AttemptResponse;
use super::connection::UpstreamConnection;
use super::head::ResponseHead;
use super::{Failure, Framing};

/// Maximum bytes to drain.
const BYTES_MAX: u64 = 64 << 10;
/// Maximum time to drain.
const PATIENCE: Duration = Duration::from_millis(500);
/// Maximum number of concurrent drains per group.
const COUNT_MAX: usize = 64;

/// Limits how many unwanted bodies are drained at once.
pub(super) struct BodyDrain(Arc<Semaphore>);

impl Default for BodyDrain {
    fn default() -> BodyDrain {
        BodyDrain(Arc::new(Semaphore::new(COUNT_MAX)))
    }
}

impl BodyDrain {
    fn leave(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

impl AttemptResponse {
    /// Drops a response that is not used. It counts as complete.
    pub(super) fn dismiss(self) {
        self.entry.complete(self.head.status);
        leave(self.line, &self.head);
    }
}

/// Releases a connection after the response head, once a short rest is drained; otherwise closes
/// it.
pub(super) fn leave(mut line: UpstreamConnection, head: &ResponseHead) {
    let (framing, idle) = (head.framing, head.idle());
    match framing {
        Framing::Length(0) if line.ended() => return line.release(idle),
        Framing::Length(0..=BYTES_MAX) | Framing::Delimited => {}
        Framing::Length(_) | Framing::UntilClose => return,
    }
    let Some(leave) = line.rests().leave() else {
        return;
    };
    let mut reading = Box::pin(async move {
        let _leave = leave;
        if let Ok(Ok(DrainPlan::Whole)) = timeout(PATIENCE, read(&mut line, framing)).await {
            line.release(idle);
        }
    });
    // The rest has mostly arrived with the head: then the connection is free at once.
    let mut once = Context::from_waker(Waker::noop());
    if reading.as_mut().poll(&mut once).is_pending() {
        tokio::spawn(reading);
    }
}

/// How far a body was drained.
pub(super) enum DrainPlan {
    /// To its end.
    Whole,
    /// To the byte limit.
    Long,
}

/// Drains a body.
pub(super) async fn read(
    line: &mut UpstreamConnection,
    framing: Framing,
) -> Result<DrainPlan, Failure> {
    let mut received = 0;
    while !line.ended() {
        match line.read().await.map_err(|_| Failure::Truncated)? {
            Some(piece) => received += piece.len() as u64,
            None => break,
        }
        if received > BYTES_MAX {
            return Ok(DrainPlan::Long);
        }
    }
    match framing {
        Framing::Length(length) if length != received => Err(Failure::Truncated),
        _ => Ok(DrainPlan::Whole),
    }
}
