//! One viewer's view of a fill: it reads at its own pace, from its own offset.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::StoredHead;
use super::flight::{BodyTruncated, Flight, FlightCounts, FlightStage, RegisteredWaker, Verdict};
use super::pinned::SharedBody;
use seawall_policy::vary::Vary;

/// What a follower gets once there is something to respond with.
#[derive(Clone, Debug)]
pub enum FillHead {
    /// The head; the body is arriving.
    Growing(Arc<StoredHead>),
    /// The fill has ended.
    Settled(Verdict),
}

/// A fill that had nothing to respond with when it was found. Viewers that want the same may wait
/// for it. Does not keep what the fill brings in memory.
pub struct AwaitedFill {
    flight: Weak<Flight>,
    counts: Arc<FlightCounts>,
    /// The last purge of a tag before it was found.
    found_at: u64,
}

impl AwaitedFill {
    pub(super) fn new(flight: &Arc<Flight>, counts: &Arc<FlightCounts>) -> AwaitedFill {
        flight.record_shared_wait();
        AwaitedFill {
            flight: Arc::downgrade(flight),
            counts: Arc::clone(counts),
            found_at: counts.tag_clock.load(Ordering::Acquire),
        }
    }

    /// One more viewer's follower. `None` if that viewer must look its key up: there is something
    /// to respond with, the result is not for new requests, or too many wait. The same after a
    /// purge of any tag: the result may have that tag.
    pub fn join(&self) -> Option<Follower> {
        if self.counts.tag_clock.load(Ordering::Acquire) != self.found_at {
            return None;
        }
        let flight = self.flight.upgrade()?;
        if !flight.is_waiting_for_head() || flight.is_crowded() {
            return None;
        }
        flight.record_join();
        Some(Follower::new(flight, Arc::clone(&self.counts)))
    }
}

/// One viewer's reader of a fill. Dropping it leaves the fill.
pub struct Follower {
    flight: Arc<Flight>,
    counts: Arc<FlightCounts>,
    reader: usize,
    offset: u64,
    end: u64,
    waker: Option<RegisteredWaker>,
    is_body_taken: bool,
    /// The last purge of a tag before it joined.
    joined_at: u64,
}

impl Follower {
    pub(super) fn new(flight: Arc<Flight>, counts: Arc<FlightCounts>) -> Follower {
        let joined_at = counts.tag_clock.load(Ordering::Acquire);
        let reader = flight.add_reader(0);
        counts.add_follower();
        Follower {
            flight,
            counts,
            reader,
            offset: 0,
            end: u64::MAX,
            waker: None,
            is_body_taken: false,
            joined_at,
        }
    }

    /// Marks the class of its client. As [`super::ClassMarks::mark`].
    pub fn mark_class(&self, class: usize) -> bool {
        self.flight.state().hints.classes.mark(class)
    }

    /// Waits for the head or the end.
    pub async fn wait_for_head(&mut self) -> FillHead {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    fn poll_head(&mut self, cx: &Context<'_>) -> Poll<FillHead> {
        let mut state = self.flight.state();
        match &state.stage {
            FlightStage::Growing(growing) => {
                Poll::Ready(FillHead::Growing(Arc::clone(&growing.head)))
            }
            FlightStage::Settled(verdict) => Poll::Ready(FillHead::Settled(verdict.clone())),
            // For a viewer whose head was not sent yet, a truncated body is a failed fill.
            FlightStage::Cut(error_object) => Poll::Ready(FillHead::Settled(match error_object {
                Some(error_object) => Verdict::Failed(Arc::clone(error_object)),
                None => Verdict::Lost,
            })),
            FlightStage::Waiting => {
                state.register_waker(cx, &mut self.waker);
                Poll::Pending
            }
        }
    }

    /// Whether it may have joined after a purge of a tag that the result has: the result is not for
    /// its request. Known with the head. A tag remembers only its last purge, so that a purge of
    /// any tag between the start of the fill and the join counts as the first one of this tag.
    pub fn has_joined_after_purge(&self) -> bool {
        self.flight.state().is_tag_purged && self.joined_at > self.flight.started_at
    }

    /// Whether a request with these upstream headers may share the result.
    pub fn can_share(&self, upstream_headers: &HeaderMap) -> bool {
        match &self.flight.state().vary {
            Vary::Nothing => true,
            Vary::Everything => false,
            Vary::On(names) => {
                Vary::values(names, upstream_headers)
                    == Vary::values(names, &self.flight.upstream_headers)
            }
        }
    }

    /// The headers of the request that was sent.
    pub fn upstream_headers(&self) -> &HeaderMap {
        &self.flight.upstream_headers
    }

    /// Whether a request with these upstream headers is identical to the request that was sent.
    pub fn same_request(&self, upstream_headers: &HeaderMap) -> bool {
        self.flight.upstream_headers == *upstream_headers
    }

    /// The body that this follower reads; `Some` only at the first call.
    pub fn take_new_body(&mut self) -> Option<Arc<SharedBody>> {
        let is_new = !std::mem::replace(&mut self.is_body_taken, true);
        is_new.then(|| Arc::clone(&self.flight.body))
    }

    /// How many bytes of the body have arrived.
    pub fn received_bytes(&self) -> u64 {
        match &self.flight.state().stage {
            FlightStage::Growing(growing) => growing.end,
            FlightStage::Settled(Verdict::Object(object) | Verdict::Revalidated(object)) => {
                object.body.len() as u64
            }
            FlightStage::Waiting | FlightStage::Settled(_) | FlightStage::Cut(_) => 0,
        }
    }

    /// Limits reading to `start..end` from here on.
    pub fn set_range(&mut self, start: u64, end: u64) {
        (self.offset, self.end) = (start, end);
        let mut state = self.flight.state();
        self.flight.record_offset(&mut state, self.reader, start);
    }

    /// Waits until the body has grown to `offset`, or is complete: then returns its length.
    pub async fn wait_for_offset(&mut self, offset: u64) -> Result<BodyExtent, BodyTruncated> {
        poll_fn(|cx| {
            let mut state = self.flight.state();
            match &state.stage {
                FlightStage::Growing(growing) if growing.complete => {
                    Poll::Ready(Ok(BodyExtent::Whole(growing.end)))
                }
                FlightStage::Growing(growing) if growing.end >= offset => {
                    Poll::Ready(Ok(BodyExtent::Reached))
                }
                // It makes no progress until a follower reads.
                FlightStage::Growing(growing) if growing.windowed => {
                    Poll::Ready(Ok(BodyExtent::Windowed))
                }
                FlightStage::Settled(Verdict::Object(object) | Verdict::Revalidated(object)) => {
                    Poll::Ready(Ok(BodyExtent::Whole(object.body.len() as u64)))
                }
                FlightStage::Settled(_) | FlightStage::Cut(_) => {
                    Poll::Ready(Err(BodyTruncated::Origin))
                }
                FlightStage::Growing(_) | FlightStage::Waiting => {
                    state.register_waker(cx, &mut self.waker);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next bytes. `None` is the proven end of the body, or of the range.
    pub fn poll_bytes(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, BodyTruncated>>> {
        if self.offset >= self.end {
            return Poll::Ready(None);
        }
        let mut state = self.flight.state();
        let bytes = match &state.stage {
            FlightStage::Settled(Verdict::Object(object) | Verdict::Revalidated(object)) => {
                let end = self.end.min(object.body.len() as u64);
                if self.offset >= end {
                    return Poll::Ready(None);
                }
                object.body.slice(to_usize(self.offset)..to_usize(end))
            }
            FlightStage::Growing(growing) => match growing.read(self.offset, self.end) {
                Err(cut) => return Poll::Ready(Some(Err(cut))),
                Ok(Some(bytes)) => bytes,
                Ok(None) if growing.complete => return Poll::Ready(None),
                Ok(None) => {
                    state.register_waker(cx, &mut self.waker);
                    return Poll::Pending;
                }
            },
            FlightStage::Waiting => {
                state.register_waker(cx, &mut self.waker);
                return Poll::Pending;
            }
            FlightStage::Settled(_) | FlightStage::Cut(_) => {
                return Poll::Ready(Some(Err(BodyTruncated::Origin)));
            }
        };
        self.offset += bytes.len() as u64;
        self.flight
            .record_offset(&mut state, self.reader, self.offset);
        Poll::Ready(Some(Ok(bytes)))
    }
}

/// Offsets within a body in memory fit in `usize`.
fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// How far a body has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyExtent {
    /// Up to the requested offset.
    Reached,
    /// The body is windowed and will not be held up to the offset: the caller must read it as it
    /// passes.
    Windowed,
    /// It is complete and has this length.
    Whole(u64),
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.flight.remove_reader(self.reader, self.waker);
        self.counts.remove_follower();
    }
}
