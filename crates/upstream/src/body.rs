//! A response: its head, and its body, which is received and checked. The body ends complete or
//! with a [`Failure`]: the end reported by the connection alone is not trusted.

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::attempt::AttemptGuard;
use super::connection::UpstreamConnection;
use super::slow_viewers::RequestPermits;
use super::{Failure, Framing};

/// Minimum average rate of a body in bytes per second, over the time that the origin is waited for.
const RATE_MIN: u32 = 512;

/// A response whose head has arrived; the body follows.
pub struct UpstreamResponse {
    /// Status.
    pub status: StatusCode,
    /// As received, with hop-by-hop headers; `policy` strips them.
    pub headers: HeaderMap,
    /// How the body ends. Responses to HEAD, 204 and 304 have no body: a length of 0.
    pub framing: Framing,
    /// The body.
    pub body: UpstreamBody,
    /// From the permit request to the last byte of the head.
    pub waited: Duration,
    /// The endpoint's number: see [`crate::Origin::succeed`].
    pub endpoint: usize,
    /// The number of an endpoint that the next requests of the stream should avoid: it answered
    /// that the object does not exist, or was so late that another endpoint was requested too.
    pub endpoint_to_avoid: Option<usize>,
}

/// A response body that is being received. Dropping it before its end closes the connection.
pub struct UpstreamBody {
    phase: BodyPhase,
    /// Chunks read ahead.
    ahead: VecDeque<Bytes>,
}

/// State of a body. At its end nothing is held: the connection is released or closed, the permits
/// are free, the attempt is recorded.
enum BodyPhase {
    UnderWay(Box<BodyState>),
    Complete,
    Failed(Failure),
}

/// What a body in progress holds.
pub(super) struct BodyState {
    pub(super) connection: UpstreamConnection,
    pub(super) permits: Arc<RequestPermits>,
    pub(super) guard: AttemptGuard,
    pub(super) status: StatusCode,
    pub(super) framing: Framing,
    /// Idle timeout of the connection afterwards.
    pub(super) idle_timeout: Duration,
    /// Deadline for the next chunk.
    pub(super) chunk_timeout: Duration,
    /// Time that the origin may be waited for beyond what its bytes take at the minimum rate.
    pub(super) slack: Duration,
    /// Time waited for the origin, without the time that the reader takes.
    pub(super) waited: Duration,
    pub(super) received: u64,
}

impl UpstreamBody {
    /// Starts a body; it may have ended with the head.
    pub(super) fn new(state: BodyState) -> UpstreamBody {
        let mut body = UpstreamBody {
            phase: BodyPhase::UnderWay(Box::new(state)),
            ahead: VecDeque::new(),
        };
        body.finish_if_complete(false);
        body
    }

    /// A complete body that did not come over a connection of this origin.
    pub fn received(body: Bytes) -> UpstreamBody {
        UpstreamBody {
            phase: BodyPhase::Complete,
            ahead: VecDeque::from([body]),
        }
    }

    /// The next chunk; `None` is a proven end. Not called again after `None` or an error.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        if let Some(ahead) = self.ahead.pop_front() {
            return Some(Ok(ahead));
        }
        self.read().await
    }

    async fn read(&mut self) -> Option<Result<Bytes, Failure>> {
        // One read may buffer thousands of chunks: yield to other tasks between them.
        tokio::task::consume_budget().await;
        let chunk = match &mut self.phase {
            BodyPhase::UnderWay(state) => state.read().await,
            BodyPhase::Complete => return None,
            BodyPhase::Failed(failure) => return Some(Err(*failure)),
        };
        match chunk {
            Ok(chunk) => {
                self.finish_if_complete(chunk.is_none());
                chunk.map(Ok)
            }
            Err(failure) => {
                if let BodyPhase::UnderWay(state) =
                    mem::replace(&mut self.phase, BodyPhase::Failed(failure))
                {
                    state.fail(failure);
                }
                Some(Err(failure))
            }
        }
    }

    /// Waits for the next chunk and keeps it for [`UpstreamBody::next`]. `None` is a proven end.
    pub async fn read_ahead(&mut self) -> Option<Result<(), Failure>> {
        let chunk = self.read().await?;
        Some(chunk.map(|chunk| self.ahead.push_back(chunk)))
    }

    /// Number of bytes read ahead.
    pub fn ahead_bytes(&self) -> u64 {
        self.ahead.iter().map(|chunk| chunk.len() as u64).sum()
    }

    /// Drops the first bytes of the data read ahead.
    pub fn skip(&mut self, mut bytes: u64) {
        while bytes > 0
            && let Some(mut first) = self.ahead.pop_front()
        {
            let length = first.len() as u64;
            if length > bytes {
                let skipped = usize::try_from(bytes).unwrap_or(usize::MAX);
                self.ahead.push_front(first.split_off(skipped));
                return;
            }
            bytes -= length;
        }
    }

    /// Ends this body because another endpoint's body replaces it. The attempt counts as truncated
    /// by this body's endpoint.
    pub fn fail_overtaken(mut self) {
        let failure = Failure::Truncated;
        if let BodyPhase::UnderWay(state) =
            mem::replace(&mut self.phase, BodyPhase::Failed(failure))
        {
            state.fail(failure);
        }
    }

    /// The permits that it holds; `None` at its end.
    pub(super) fn permits(&self) -> Option<&Arc<RequestPermits>> {
        match &self.phase {
            BodyPhase::UnderWay(state) => Some(&state.permits),
            BodyPhase::Complete | BodyPhase::Failed(_) => None,
        }
    }

    /// Waits for the reader without holding permits for long. `None`: too many requests have slow
    /// viewers, and this body must be aborted.
    pub async fn wait_for_viewer<T>(&self, event: impl Future<Output = T>) -> Option<T> {
        match self.permits() {
            Some(permits) => permits.wait_for_viewer(event).await,
            None => Some(event.await),
        }
    }

    /// Finishes the body once its end is proven: the connection is free for others while viewers
    /// still receive the last bytes.
    fn finish_if_complete(&mut self, is_end: bool) {
        if let BodyPhase::UnderWay(state) = &mut self.phase
            && (is_end || state.is_complete())
            && let BodyPhase::UnderWay(state) = mem::replace(&mut self.phase, BodyPhase::Complete)
        {
            state.finish();
        }
    }
}

impl BodyState {
    /// The next chunk, or `None` at an end that matches the framing.
    async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        let started = Instant::now();
        let at_min_rate = Duration::from_secs(self.received) / RATE_MIN;
        let remaining = (self.slack + at_min_rate).saturating_sub(self.waited);
        let until = started + self.chunk_timeout.min(remaining);
        let read = self.read_until(until).await;
        let waited = started.elapsed();
        self.waited += waited;
        if read.is_err() && waited >= self.chunk_timeout {
            self.connection.record_stall();
        }
        read
    }

    async fn read_until(&mut self, until: Instant) -> Result<Option<Bytes>, Failure> {
        // A chunk may be empty; many of them must not outlast the deadline.
        loop {
            let Ok(chunk) = timeout_at(until, self.connection.read()).await else {
                return Err(Failure::Truncated);
            };
            match chunk {
                Ok(Some(chunk)) if chunk.is_empty() && Instant::now() < until => {}
                Ok(Some(chunk)) if chunk.is_empty() => return Err(Failure::Truncated),
                Ok(Some(chunk)) => {
                    self.received += chunk.len() as u64;
                    self.guard.record_bytes(chunk.len());
                    return match self.framing {
                        Framing::Length(length) if self.received > length => {
                            Err(Failure::Truncated)
                        }
                        _ => Ok(Some(chunk)),
                    };
                }
                Ok(None) => {
                    return match self.framing {
                        Framing::Length(length) if self.received != length => {
                            Err(Failure::Truncated)
                        }
                        _ => Ok(None),
                    };
                }
                Err(_) => return Err(Failure::Truncated),
            }
        }
    }

    /// Both the byte count and the connection show that the body is complete.
    fn is_complete(&mut self) -> bool {
        let expected = match self.framing {
            Framing::Length(length) => length,
            Framing::Delimited | Framing::UntilClose => self.received,
        };
        self.received == expected && self.connection.has_ended()
    }

    fn finish(self) {
        self.connection.release(self.idle_timeout);
        self.guard.complete(self.status);
        drop(self.permits);
    }

    fn fail(self, failure: Failure) {
        drop(self.connection);
        self.guard.fail(failure);
        drop(self.permits);
    }
}
