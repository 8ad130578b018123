//! What becomes of an answer that nobody takes? Where its rest is short it is read to its end,
//! behind whoever asked, and the connection goes back to the others: a new one each time costs an
//! origin in trouble more.

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

/// Bodies that nobody wants are read so far.
const BYTES_MAX: u64 = 64 << 10;
/// And for so long.
const PATIENCE: Duration = Duration::from_millis(500);
/// And so many of a group at once.
const COUNT_MAX: usize = 64;

/// Leave to read what nobody wants.
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
    /// Ends an answer that is not taken. Its endpoint has said what it had to say.
    pub(super) fn dismiss(self) {
        self.entry.whole(self.head.status);
        leave(self.line, &self.head);
    }
}

/// Leaves a line after its head: to others where the rest is short and comes soon.
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
    // Mostly it came with the head: then the connection is there for whoever asks next.
    let mut once = Context::from_waker(Waker::noop());
    if reading.as_mut().poll(&mut once).is_pending() {
        tokio::spawn(reading);
    }
}

/// How far a body was read.
pub(super) enum DrainPlan {
    /// To its end.
    Whole,
    /// As far as it is worth reading.
    Long,
}

/// Reads a body that nobody wants.
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
