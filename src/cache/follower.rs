//! How does one viewer read a fill? At its own pace, from its own offset, woken when something comes.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::StoredHead;
use super::flight::{Flight, FlightStage, Verdict};
use super::pinned::SharedBody;
use super::registry::FlightCounts;
use crate::policy::vary::Vary;

/// The body broke before its end: whoever reads it must be cut off, never ended cleanly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyTruncated {
    /// What was to come did not come.
    #[error("body cut off")]
    Origin,
    /// The viewer took too long, and others needed its place at the origin.
    #[error("viewer too slow")]
    Viewer,
    /// The viewer took too long, and what it had not read yet had to leave memory.
    #[error("viewer too slow for what memory can hold")]
    Memory,
}

/// What a follower finds once there is something to answer with.
#[derive(Clone, Debug)]
pub enum FillHead {
    /// A head; the body is arriving.
    Growing(Arc<StoredHead>),
    /// The fill is over.
    Settled(Verdict),
}

/// One viewer's place at a fill. Dropping it leaves.
pub struct Follower {
    flight: Arc<Flight>,
    counts: Arc<FlightCounts>,
    seat: usize,
    at: u64,
    end: u64,
    filed: Option<(u64, usize)>,
    is_body_told: bool,
}

impl Follower {
    pub(super) fn new(flight: Arc<Flight>, counts: Arc<FlightCounts>) -> Follower {
        let seat = flight.sit(0);
        counts.follower_came();
        Follower {
            flight,
            counts,
            seat,
            at: 0,
            end: u64::MAX,
            filed: None,
            is_body_told: false,
        }
    }

    /// Waits for a head or an end.
    pub async fn landing(&mut self) -> FillHead {
        poll_fn(|cx| self.poll_landing(cx)).await
    }

    fn poll_landing(&mut self, cx: &Context<'_>) -> Poll<FillHead> {
        let mut state = self.flight.state();
        match &state.stage {
            FlightStage::Growing(growing) => {
                Poll::Ready(FillHead::Growing(Arc::clone(&growing.head)))
            }
            FlightStage::Settled(verdict) => Poll::Ready(FillHead::Settled(verdict.clone())),
            // A body that broke before this viewer's head went out is a failed fill to it.
            FlightStage::Cut(answer) => Poll::Ready(FillHead::Settled(match answer {
                Some(answer) => Verdict::Failed(Arc::clone(answer)),
                None => Verdict::Lost,
            })),
            FlightStage::Waiting => {
                state.wait(cx, &mut self.filed);
                Poll::Pending
            }
        }
    }

    /// May a request with these upstream headers share what this fill brings?
    pub fn shares(&self, upstream: &HeaderMap) -> bool {
        match &self.flight.state().vary {
            Vary::Nothing => true,
            Vary::Everything => false,
            Vary::On(names) => {
                Vary::values(names, upstream) == Vary::values(names, &self.flight.upstream)
            }
        }
    }

    /// The headers of the request that was sent.
    pub fn upstream(&self) -> &HeaderMap {
        &self.flight.upstream
    }

    /// Is a request with these upstream headers the very request that was sent?
    pub fn same_request(&self, upstream: &HeaderMap) -> bool {
        self.flight.upstream == *upstream
    }

    /// The body that is read from here; told once.
    pub fn new_body(&mut self) -> Option<Arc<SharedBody>> {
        let is_new = !std::mem::replace(&mut self.is_body_told, true);
        is_new.then(|| Arc::clone(&self.flight.body))
    }

    /// How much of the body has come.
    pub fn grown(&self) -> u64 {
        match &self.flight.state().stage {
            FlightStage::Growing(growing) => growing.end,
            FlightStage::Settled(Verdict::Object(object) | Verdict::Revalidated(object)) => {
                object.body.len() as u64
            }
            FlightStage::Waiting | FlightStage::Settled(_) | FlightStage::Cut(_) => 0,
        }
    }

    /// Reads only `start..end` from here on.
    pub fn narrow(&mut self, start: u64, end: u64) {
        (self.at, self.end) = (start, end);
        let mut state = self.flight.state();
        self.flight.moved(&mut state, self.seat, start);
    }

    /// Waits until the body has grown to `offset`, or until it is settled: then its length is told.
    pub async fn reach(&mut self, offset: u64) -> Result<BodyExtent, BodyTruncated> {
        poll_fn(|cx| {
            let mut state = self.flight.state();
            match &state.stage {
                FlightStage::Growing(growing) if growing.complete => {
                    Poll::Ready(Ok(BodyExtent::Whole(growing.end)))
                }
                FlightStage::Growing(growing) if growing.end >= offset => {
                    Poll::Ready(Ok(BodyExtent::There))
                }
                // It goes no further until somebody reads.
                FlightStage::Growing(growing) if growing.windowed => {
                    Poll::Ready(Ok(BodyExtent::Passing))
                }
                FlightStage::Settled(Verdict::Object(object) | Verdict::Revalidated(object)) => {
                    Poll::Ready(Ok(BodyExtent::Whole(object.body.len() as u64)))
                }
                FlightStage::Settled(_) | FlightStage::Cut(_) => {
                    Poll::Ready(Err(BodyTruncated::Origin))
                }
                FlightStage::Growing(_) | FlightStage::Waiting => {
                    state.wait(cx, &mut self.filed);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next bytes; `None` is the proven end (of the body, or of the narrowed part).
    pub fn poll_bytes(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, BodyTruncated>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let mut state = self.flight.state();
        let bytes = match &state.stage {
            FlightStage::Settled(Verdict::Object(object) | Verdict::Revalidated(object)) => {
                let end = self.end.min(object.body.len() as u64);
                if self.at >= end {
                    return Poll::Ready(None);
                }
                object.body.slice(to_usize(self.at)..to_usize(end))
            }
            FlightStage::Growing(growing) => match growing.read(self.at, self.end) {
                Err(cut) => return Poll::Ready(Some(Err(cut))),
                Ok(Some(bytes)) => bytes,
                Ok(None) if growing.complete => return Poll::Ready(None),
                Ok(None) => {
                    state.wait(cx, &mut self.filed);
                    return Poll::Pending;
                }
            },
            FlightStage::Waiting => {
                state.wait(cx, &mut self.filed);
                return Poll::Pending;
            }
            FlightStage::Settled(_) | FlightStage::Cut(_) => {
                return Poll::Ready(Some(Err(BodyTruncated::Origin)));
            }
        };
        self.at += bytes.len() as u64;
        self.flight.moved(&mut state, self.seat, self.at);
        Poll::Ready(Some(Ok(bytes)))
    }
}

/// Offsets within a body that is in memory fit.
fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// How far a body has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyExtent {
    /// As far as was asked for.
    There,
    /// It will not be held so far: it must be read as it passes.
    Passing,
    /// It is whole, and so long.
    Whole(u64),
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.flight.leave(self.seat, self.filed);
        self.counts.follower_left();
    }
}
