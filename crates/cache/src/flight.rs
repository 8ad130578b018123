//! The shared state of one fill: a small state machine behind one lock.
//!
//! ```text
//! Waiting ──begin──→ Growing ──finish──→ Settled(Object)
//!    │                  ├──── finish, too large to hold ──→ Growing, complete
//!    │                  └──── cut, or the fill is dropped ─→ Cut
//!    └──settle──→ Settled(verdict)        (a dropped fill settles as Lost)
//! ```
//!
//! A [`super::Fill`] feeds it and belongs to no viewer. Each [`super::Follower`] reads it at its
//! own pace. Every change of state wakes all waiters; there is no polling.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::partition::StorageHints;
use super::pinned::SharedBody;
use super::variants::VariantSlot;
use super::{EpochToken, Lookup, Object, StoredHead};
use seawall_policy::Key;
use seawall_policy::vary::Vary;

/// How a fill ended, for the waiting requests.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// A complete response for all.
    Object(Arc<Object>),
    /// The origin confirmed the stored object (304); this is the object with new headers and a new
    /// lifetime.
    Revalidated(Arc<Object>),
    /// The origin failed. The error response is for requests without a stale object to serve.
    Failed(Arc<Object>),
    /// This host lacked resources to send the request. The response is for requests that wait now.
    Exhausted(Arc<Object>),
    /// The origin rejected the leader's request. The response is for identical requests.
    Refused(Arc<Object>),
    /// The response must not be shared: each request goes to the origin itself.
    Pass,
    /// Too large for one fetch: serve it in slices.
    Sliced,
    /// The fill ended without a result (it panicked or was dropped).
    Lost,
}

/// The body ended before its end: the viewer's connection must be cut off, never ended cleanly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyTruncated {
    /// The rest did not arrive.
    #[error("body truncated")]
    Origin,
    /// The viewer was too slow, and others needed the origin connection that it kept busy.
    #[error("viewer too slow")]
    Viewer,
    /// The viewer was too slow, and the rest of the body had to leave memory.
    #[error("viewer too slow for the memory limit")]
    Memory,
}

/// How many fills and followers there are.
#[derive(Default)]
pub(crate) struct FlightCounts {
    pub(super) fills: AtomicU64,
    pub(super) followers: AtomicU64,
    pub(super) crowded: AtomicU64,
    pub(super) windowed: AtomicU64,
}

impl FlightCounts {
    pub(super) fn add_windowed(&self, fills: u64) {
        self.windowed.fetch_add(fills, Ordering::Relaxed);
    }

    pub(super) fn fill_ended(&self) {
        self.fills.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn add_follower(&self) {
        self.followers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove_follower(&self) {
        self.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) struct Flight {
    pub(super) found: Lookup,
    /// The leader's request headers as sent upstream.
    pub(super) upstream: HeaderMap,
    state: Mutex<FlightState>,
    /// Notifies the producer when a reader joins, moves or leaves.
    pub(super) producer: Notify,
    /// A request found this flight in progress and waits for its result.
    joined: AtomicBool,
    joining: Notify,
    /// The body that followers read, which becomes the body of the stored object.
    pub(super) body: Arc<SharedBody>,
}

pub(super) struct FlightState {
    pub(super) stage: FlightStage,
    /// Which request headers selected the response, once known.
    pub(super) vary: Vary,
    /// The slot of the result, if it varies.
    pub(super) place: Option<VariantSlot>,
    /// Purged since the start: the result must not be stored. Also guarded by the registry's lock.
    pub(super) doomed: bool,
    /// The epoch of the result.
    pub(super) tie: Option<EpochToken>,
    /// The result's position in a live stream, and the number of viewers that requested it.
    pub(super) standing: StorageHints,
    wakers: Vec<Waker>,
    /// Incremented with each wake-up, so that a follower knows whether its waker is still
    /// registered.
    round: u64,
    /// The read offset of each follower. `None` is a free seat, listed in `free`.
    seats: Vec<Option<u64>>,
    free: Vec<usize>,
    /// The read offset of the fastest follower.
    fastest: u64,
    /// Bytes charged to the budget.
    pub(super) budgeted: u64,
}

pub(super) enum FlightStage {
    Waiting,
    Growing(GrowingBody),
    Settled(Verdict),
    /// The body was truncated. Holds the response for followers that have not read any of it.
    Cut(Option<Arc<Object>>),
}

pub(super) struct GrowingBody {
    pub(super) head: Arc<StoredHead>,
    /// What has arrived, in chunks of a minimum size: the overhead of a very small chunk exceeds
    /// its content.
    chunks: VecDeque<BodyChunk>,
    /// Small pieces that arrived after the last chunk.
    open: Vec<u8>,
    pub(super) end: u64,
    pub(super) complete: bool,
    /// Too large to hold: only a window is kept, and it will not be stored.
    pub(super) windowed: bool,
    /// There was no room for a window of the usual size.
    pub(super) tight: bool,
}

struct BodyChunk {
    start: u64,
    bytes: Bytes,
}

/// A piece up to this size is copied together with others: it may be a small slice of a large
/// buffer.
const SMALL_BYTES_MAX: usize = 16 << 10;
/// Small pieces are gathered into chunks of at most this size.
const CHUNK_BYTES_MAX: usize = 32 << 10;

impl GrowingBody {
    pub(super) fn new(head: Arc<StoredHead>) -> GrowingBody {
        GrowingBody {
            head,
            chunks: VecDeque::new(),
            open: Vec::new(),
            end: 0,
            complete: false,
            windowed: false,
            tight: false,
        }
    }

    /// Appends a piece.
    pub(super) fn append(&mut self, bytes: Bytes) {
        if self.open.len() + bytes.len() > CHUNK_BYTES_MAX || bytes.len() > SMALL_BYTES_MAX {
            self.close();
        }
        let start = self.end;
        self.end += bytes.len() as u64;
        if bytes.len() > SMALL_BYTES_MAX {
            self.chunks.push_back(BodyChunk { start, bytes });
        } else {
            self.open.extend_from_slice(&bytes);
        }
    }

    /// Makes a chunk of the small pieces.
    fn close(&mut self) {
        if !self.open.is_empty() {
            let start = self.end - self.open.len() as u64;
            let bytes = std::mem::take(&mut self.open).into_boxed_slice().into();
            self.chunks.push_back(BodyChunk { start, bytes });
        }
    }

    /// All held pieces, in order.
    pub(super) fn pieces(&mut self) -> Vec<Bytes> {
        self.close();
        let pieces = self.chunks.iter().map(|chunk| chunk.bytes.clone());
        pieces.collect()
    }

    #[cfg(test)]
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes held.
    pub(super) fn held(&self) -> u64 {
        let open = self.end - self.open.len() as u64;
        self.end - self.chunks.front().map_or(open, |chunk| chunk.start)
    }

    /// The bytes from `at` up to `limit`. `Err` when they have already left the window.
    pub(super) fn read(&self, at: u64, limit: u64) -> Result<Option<Bytes>, BodyTruncated> {
        let room = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
        let open_at = self.end - self.open.len() as u64;
        if at >= open_at {
            let skip = usize::try_from(at - open_at).unwrap_or(usize::MAX);
            let rest = self.open.get(skip..).filter(|rest| !rest.is_empty());
            return Ok(rest.map(|rest| Bytes::copy_from_slice(&rest[..rest.len().min(room)])));
        }
        let next = self.chunks.partition_point(|chunk| chunk.start <= at);
        let Some(chunk) = next.checked_sub(1).map(|index| &self.chunks[index]) else {
            return Err(BodyTruncated::Memory);
        };
        let skip = usize::try_from(at - chunk.start).unwrap_or(usize::MAX);
        if skip >= chunk.bytes.len() {
            return Ok(None);
        }
        let upto = chunk.bytes.len().min(skip.saturating_add(room));
        Ok(Some(chunk.bytes.slice(skip..upto)))
    }

    pub(super) fn forget_before(&mut self, offset: u64) {
        while let Some(chunk) = self.chunks.front() {
            if chunk.start + chunk.bytes.len() as u64 > offset {
                break;
            }
            self.chunks.pop_front();
        }
    }
}

impl FlightState {
    /// Registers a waker unless it is registered already. `filed` belongs to the waiting follower.
    pub(super) fn wait(&mut self, cx: &Context<'_>, filed: &mut Option<(u64, usize)>) {
        match filed {
            Some((round, slot)) if *round == self.round => {
                self.wakers[*slot].clone_from(cx.waker());
            }
            _ => {
                *filed = Some((self.round, self.wakers.len()));
                self.wakers.push(cx.waker().clone());
            }
        }
    }

    /// The read offset of the fastest follower, if there is one.
    pub(super) fn fastest(&self) -> Option<u64> {
        (self.follower_count() > 0).then_some(self.fastest)
    }

    /// The read offset of the slowest follower. Scans all of them.
    pub(super) fn slowest(&self) -> Option<u64> {
        self.seats.iter().flatten().min().copied()
    }

    pub(super) fn follower_count(&self) -> usize {
        self.seats.len() - self.free.len()
    }
}

impl Verdict {
    pub(super) fn object(&self) -> Option<&Arc<Object>> {
        match self {
            Verdict::Object(object)
            | Verdict::Revalidated(object)
            | Verdict::Failed(object)
            | Verdict::Exhausted(object)
            | Verdict::Refused(object) => Some(object),
            Verdict::Pass | Verdict::Sliced | Verdict::Lost => None,
        }
    }
}

impl Flight {
    pub(super) fn new(found: Lookup, upstream: HeaderMap) -> Flight {
        Flight {
            found,
            upstream,
            state: Mutex::new(FlightState {
                stage: FlightStage::Waiting,
                vary: Vary::Nothing,
                place: None,
                doomed: false,
                tie: None,
                standing: StorageHints::default(),
                wakers: Vec::new(),
                round: 0,
                seats: Vec::new(),
                free: Vec::new(),
                fastest: 0,
                budgeted: 0,
            }),
            producer: Notify::new(),
            joined: AtomicBool::new(false),
            joining: Notify::new(),
            body: Arc::default(),
        }
    }

    /// Records that a request has joined and waits.
    pub(super) fn join(&self) {
        if !self.joined.swap(true, Ordering::AcqRel) {
            self.joining.notify_waiters();
        }
    }

    /// Resolves when a request has joined.
    pub(super) async fn wait_for_join(self: Arc<Self>) {
        // Registered before the check: a request that joins in between wakes it.
        let joining = self.joining.notified();
        if !self.joined.load(Ordering::Acquire) {
            joining.await;
        }
    }

    /// Whether new requests may use the result, not only those from before a restart of the
    /// packager. The result may be the stored object, which may have been dropped before this
    /// flight was bound to an epoch.
    pub(super) fn is_current(&self) -> bool {
        let held = self.found.object.as_ref();
        held.is_none_or(|held| held.head.is_valid())
            && self.state().tie.as_ref().is_none_or(EpochToken::is_valid)
    }

    /// Whether an object was stored when it began, which the origin may confirm.
    pub(super) fn is_refresh(&self) -> bool {
        self.found.object.is_some()
    }

    /// Whether it is for a matching key, or for a variant of one.
    pub(super) fn is_of(&self, is_meant: impl Fn(&Key) -> bool) -> bool {
        is_meant(&self.found.slot) || is_meant(&self.found.key)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, FlightState> {
        self.state.lock()
    }

    /// Wakes all waiters, after it releases the lock.
    pub(super) fn wake(mut state: MutexGuard<'_, FlightState>) {
        state.round += 1;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        for waker in wakers {
            waker.wake();
        }
    }

    /// Takes a seat that reads from `at`.
    pub(super) fn take_seat(&self, at: u64) -> usize {
        let mut state = self.state();
        state.fastest = state.fastest.max(at);
        let seat = state.free.pop().unwrap_or(state.seats.len());
        match state.seats.get_mut(seat) {
            Some(free) => *free = Some(at),
            None => state.seats.push(Some(at)),
        }
        drop(state);
        self.producer.notify_one();
        seat
    }

    pub(super) fn record_offset(&self, state: &mut FlightState, seat: usize, at: u64) {
        state.seats[seat] = Some(at);
        // The producer waits only for the fastest follower.
        if at > state.fastest {
            state.fastest = at;
            if matches!(&state.stage, FlightStage::Growing(growing) if growing.windowed) {
                self.producer.notify_one();
            }
        }
    }

    /// Frees a seat and its registered waker, which would keep a whole task alive.
    pub(super) fn leave(&self, seat: usize, filed: Option<(u64, usize)>) {
        let mut state = self.state();
        if let Some((_, slot)) = filed.filter(|(round, _)| *round == state.round) {
            state.wakers[slot].clone_from(Waker::noop());
        }
        let left = state.seats[seat].take();
        state.free.push(seat);
        if left.is_some_and(|at| at >= state.fastest) {
            state.fastest = state.seats.iter().flatten().max().copied().unwrap_or(0);
        }
        drop(state);
        self.producer.notify_one();
    }
}
