//! Drains unwanted response bodies: a short rest is read in the background and the connection
//! returned to the pool. New connections would cost a failing origin more.

use std::future::Future;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::timeout;

use super::response_head::ResponseHead;
use super::session::UpstreamConnection;
use crate::{Failure, Framing};

/// Maximum bytes to drain.
const BYTES_MAX: u64 = 64 << 10;
/// Maximum time to drain.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Releases a connection after the response head, once a short rest is drained; otherwise closes
/// it.
pub(crate) fn drain_and_release(mut connection: UpstreamConnection, head: &ResponseHead) {
    let (framing, idle) = (head.framing, head.idle_timeout());
    match framing {
        Framing::Length(0) if connection.has_ended() => return connection.release(idle),
        Framing::Length(0..=BYTES_MAX) | Framing::Delimited => {}
        Framing::Length(_) | Framing::UntilClose => return,
    }
    let Some(permit) = connection.drain_permit() else {
        return;
    };
    let mut reading = Box::pin(async move {
        let _permit = permit;
        if let Ok(Ok(DrainEnd::Whole)) =
            timeout(DRAIN_TIMEOUT, drain(&mut connection, framing)).await
        {
            connection.release(idle);
        }
    });
    // The rest has mostly arrived with the head: then the connection is free at once.
    let mut once = Context::from_waker(Waker::noop());
    if reading.as_mut().poll(&mut once).is_pending() {
        tokio::spawn(reading);
    }
}

/// How far a body was drained.
pub(crate) enum DrainEnd {
    /// To its end.
    Whole,
    /// To the byte limit.
    Long,
}

/// Drains a body.
pub(crate) async fn drain(
    connection: &mut UpstreamConnection,
    framing: Framing,
) -> Result<DrainEnd, Failure> {
    let mut received = 0;
    while !connection.has_ended() {
        match connection.read().await.map_err(|_| Failure::Truncated)? {
            Some(chunk) => received += chunk.len() as u64,
            None => break,
        }
        if received > BYTES_MAX {
            return Ok(DrainEnd::Long);
        }
    }
    match framing {
        Framing::Length(length) if length != received => Err(Failure::Truncated),
        _ => Ok(DrainEnd::Whole),
    }
}
