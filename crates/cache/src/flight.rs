//! The shared state of one fill: a small state machine behind one lock.
//!
//! ```text
//! Waiting ──begin──→ Growing ──finish──→ Settled(Object)
//!    │                  ├──── finish, too large to hold ──→ Growing, complete
//!    │                  └──── cut, or the fill is dropped ─→ Cut
//!    └──settle──→ Settled(verdict)        (a dropped fill settles as Lost)
//! ```
//!
//! A [`super::Fill`] feeds it. Each [`super::Follower`] reads at its own pace, and is woken.

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
    /// A stale object is stored that is not from the origin: each request looks it up.
    StoredStale,
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
    /// The number of the last purge of a tag.
    pub(super) tag_clock: AtomicU64,
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
    pub(super) lookup: Lookup,
    /// The leader's request headers as sent upstream.
    pub(super) upstream_headers: HeaderMap,
    state: Mutex<FlightState>,
    /// Notifies the producer when a reader joins, moves or leaves.
    pub(super) producer: Notify,
    /// A request found this flight in progress and waits for its result.
    was_joined: AtomicBool,
    /// Several viewers may wait for it together.
    has_shared_wait: AtomicBool,
    /// Notifies those that wait for the first such request.
    first_join: Notify,
    /// The body that followers read, which becomes the body of the stored object.
    pub(super) body: Arc<SharedBody>,
    /// `waiters_max` of the settings.
    waiters_max: usize,
    /// The last purge of a tag before the start.
    pub(super) started_at: u64,
}

pub(super) struct FlightState {
    pub(super) stage: FlightStage,
    /// Which request headers selected the response, once known.
    pub(super) vary: Vary,
    /// The slot of the result, if it varies.
    pub(super) variant_slot: Option<VariantSlot>,
    /// The key was purged since the start: the result must not be stored. Also guarded by the
    /// registry's lock.
    pub(super) purged: bool,
    /// A soft purge came since the start: the result is stale when it is stored.
    pub(super) is_soft_purged: bool,
    /// One of its tags was purged since the start.
    pub(super) is_tag_purged: bool,
    /// The epoch of the result.
    pub(super) epoch_token: Option<EpochToken>,
    /// The result's position in a live stream, and the number of viewers that requested it.
    pub(super) hints: StorageHints,
    wakers: Vec<Waker>,
    /// The number of wake-ups, so that a follower knows whether its waker is still registered.
    wakeup_count: u64,
    /// The read offset of each follower. `None` is a free slot, listed in `free_readers`.
    readers: Vec<Option<u64>>,
    free_readers: Vec<usize>,
    /// The read offset of the fastest follower. `None`: it has left, and the next one was not
    /// looked for.
    fastest_offset: Option<u64>,
    /// Bytes charged to the budget.
    pub(super) budgeted: u64,
}

/// Where a follower's waker is registered. Outdated after the next wake-up.
#[derive(Clone, Copy)]
pub(super) struct RegisteredWaker {
    /// [`FlightState::wakeup_count`] at the registration.
    wakeup_count: u64,
    /// Its index in [`FlightState::wakers`].
    index: usize,
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
    small_pieces: Vec<u8>,
    pub(super) end: u64,
    pub(super) complete: bool,
    /// Too large to hold: only a window is kept, and it will not be stored.
    pub(super) windowed: bool,
    /// There was no room for a window of the usual size.
    pub(super) is_window_reduced: bool,
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
            small_pieces: Vec::new(),
            end: 0,
            complete: false,
            windowed: false,
            is_window_reduced: false,
        }
    }

    /// Appends a piece.
    pub(super) fn append(&mut self, bytes: Bytes) {
        if self.small_pieces.len() + bytes.len() > CHUNK_BYTES_MAX || bytes.len() > SMALL_BYTES_MAX
        {
            self.close_chunk();
        }
        let start = self.end;
        self.end += bytes.len() as u64;
        if bytes.len() > SMALL_BYTES_MAX {
            self.chunks.push_back(BodyChunk { start, bytes });
        } else {
            self.small_pieces.extend_from_slice(&bytes);
        }
    }

    /// Makes a chunk of the small pieces.
    fn close_chunk(&mut self) {
        if !self.small_pieces.is_empty() {
            let start = self.end - self.small_pieces.len() as u64;
            let bytes = std::mem::take(&mut self.small_pieces)
                .into_boxed_slice()
                .into();
            self.chunks.push_back(BodyChunk { start, bytes });
        }
    }

    /// All held pieces, in order.
    pub(super) fn pieces(&mut self) -> Vec<Bytes> {
        self.close_chunk();
        let pieces = self.chunks.iter().map(|chunk| chunk.bytes.clone());
        pieces.collect()
    }

    #[cfg(test)]
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes held.
    pub(super) fn buffered_bytes(&self) -> u64 {
        let start = self.end - self.small_pieces.len() as u64;
        self.end - self.chunks.front().map_or(start, |chunk| chunk.start)
    }

    /// The bytes from `at` up to `limit`. `Err` when they have already left the window.
    pub(super) fn read(&self, at: u64, limit: u64) -> Result<Option<Bytes>, BodyTruncated> {
        let room = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
        let small_pieces_start = self.end - self.small_pieces.len() as u64;
        if at >= small_pieces_start {
            let skip = usize::try_from(at - small_pieces_start).unwrap_or(usize::MAX);
            let rest = self
                .small_pieces
                .get(skip..)
                .filter(|rest| !rest.is_empty());
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

    pub(super) fn discard_before(&mut self, offset: u64) {
        while let Some(chunk) = self.chunks.front() {
            if chunk.start + chunk.bytes.len() as u64 > offset {
                break;
            }
            self.chunks.pop_front();
        }
    }
}

impl FlightState {
    /// Registers a waker unless it is registered already. `registered` belongs to the waiting
    /// follower.
    pub(super) fn register_waker(
        &mut self,
        cx: &Context<'_>,
        registered: &mut Option<RegisteredWaker>,
    ) {
        match registered {
            Some(waker) if waker.wakeup_count == self.wakeup_count => {
                self.wakers[waker.index].clone_from(cx.waker());
            }
            _ => {
                *registered = Some(RegisteredWaker {
                    wakeup_count: self.wakeup_count,
                    index: self.wakers.len(),
                });
                self.wakers.push(cx.waker().clone());
            }
        }
    }

    /// The read offset of the fastest follower, if there is one. Scans all of them when the fastest
    /// one has left: only a producer with a window asks.
    pub(super) fn fastest_offset(&mut self) -> Option<u64> {
        if self.follower_count() == 0 {
            return None;
        }
        if self.fastest_offset.is_none() {
            self.fastest_offset = self.readers.iter().flatten().max().copied();
        }
        self.fastest_offset
    }

    /// Whether the producer may wait for a follower that joined, moved or left: it waits for the
    /// first one, for the end of the last one, and with a window for the fastest one.
    fn concerns_producer(&self) -> bool {
        self.has_window() || self.follower_count() <= 1
    }

    fn has_window(&self) -> bool {
        matches!(&self.stage, FlightStage::Growing(growing) if growing.windowed)
    }

    /// The read offset of the slowest follower. Scans all of them.
    pub(super) fn slowest_offset(&self) -> Option<u64> {
        self.readers.iter().flatten().min().copied()
    }

    pub(super) fn follower_count(&self) -> usize {
        self.readers.len() - self.free_readers.len()
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
            Verdict::Pass | Verdict::Sliced | Verdict::StoredStale | Verdict::Lost => None,
        }
    }
}

impl Flight {
    pub(super) fn new(lookup: Lookup, upstream_headers: HeaderMap, waiters_max: usize) -> Flight {
        Flight {
            lookup,
            upstream_headers,
            state: Mutex::new(FlightState {
                stage: FlightStage::Waiting,
                vary: Vary::Nothing,
                variant_slot: None,
                purged: false,
                is_soft_purged: false,
                is_tag_purged: false,
                epoch_token: None,
                hints: StorageHints::default(),
                wakers: Vec::new(),
                wakeup_count: 0,
                readers: Vec::new(),
                free_readers: Vec::new(),
                fastest_offset: Some(0),
                budgeted: 0,
            }),
            producer: Notify::new(),
            was_joined: AtomicBool::new(false),
            has_shared_wait: AtomicBool::new(false),
            first_join: Notify::new(),
            body: Arc::default(),
            waiters_max,
            started_at: 0,
        }
    }

    /// Whether it has as many followers as it may have.
    pub(super) fn is_crowded(&self) -> bool {
        self.state().follower_count() >= self.waiters_max
    }

    /// Whether it has nothing to respond with yet, and its result may be used by new requests.
    pub(super) fn is_waiting_for_head(&self) -> bool {
        let is_waiting = {
            let state = self.state();
            matches!(state.stage, FlightStage::Waiting) && !state.purged
        };
        is_waiting && self.is_current()
    }

    /// Records that several viewers may wait for it together.
    pub(super) fn record_shared_wait(&self) {
        self.has_shared_wait.store(true, Ordering::Release);
    }

    pub(super) fn has_shared_wait(&self) -> bool {
        self.has_shared_wait.load(Ordering::Acquire)
    }

    /// Records that a request has joined and waits.
    pub(super) fn record_join(&self) {
        self.state().hints.requests += 1;
        if !self.was_joined.swap(true, Ordering::AcqRel) {
            self.first_join.notify_waiters();
        }
    }

    /// Resolves when a request has joined.
    pub(super) async fn wait_for_join(self: Arc<Self>) {
        // Registered before the check: a request that joins in between wakes it.
        let first_join = self.first_join.notified();
        if !self.was_joined.load(Ordering::Acquire) {
            first_join.await;
        }
    }

    /// Whether new requests may use the result, not only those from before a restart of the
    /// packager. The result may be the stored object, which may have been dropped before this
    /// flight was bound to an epoch.
    pub(super) fn is_current(&self) -> bool {
        let (refreshed, state) = (self.lookup.object.as_ref(), self.state());
        !state.is_soft_purged
            && refreshed.is_none_or(|object| object.head.is_valid())
            && state.epoch_token.as_ref().is_none_or(EpochToken::is_valid)
    }

    /// Whether an object was stored when it began, which the origin may confirm.
    pub(super) fn is_refresh(&self) -> bool {
        self.lookup.object.is_some()
    }

    /// Whether it is for a matching key, or for a variant of one.
    pub(super) fn is_of(&self, is_match: impl Fn(&Key) -> bool) -> bool {
        is_match(&self.lookup.slot) || is_match(&self.lookup.key)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, FlightState> {
        self.state.lock()
    }

    /// Wakes all waiters, after it releases the lock.
    pub(super) fn wake(mut state: MutexGuard<'_, FlightState>) {
        state.wakeup_count += 1;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        for waker in wakers {
            waker.wake();
        }
    }

    /// Adds a follower that reads from `at`. Returns its index.
    pub(super) fn add_reader(&self, at: u64) -> usize {
        let mut state = self.state();
        state.fastest_offset = state.fastest_offset.map(|fastest| fastest.max(at));
        let reader = state.free_readers.pop().unwrap_or(state.readers.len());
        match state.readers.get_mut(reader) {
            Some(offset) => *offset = Some(at),
            None => state.readers.push(Some(at)),
        }
        self.notify_producer(state);
        reader
    }

    pub(super) fn record_offset(&self, state: &mut FlightState, reader: usize, at: u64) {
        state.readers[reader] = Some(at);
        // The producer waits only for the fastest follower.
        if state.fastest_offset.is_none_or(|fastest| at > fastest) {
            state.fastest_offset = state.fastest_offset.map(|_| at);
            if state.has_window() {
                self.producer.notify_one();
            }
        }
    }

    /// Removes a follower and its registered waker, which would keep a whole task alive.
    pub(super) fn remove_reader(&self, reader: usize, registered: Option<RegisteredWaker>) {
        let mut state = self.state();
        let wakeup_count = state.wakeup_count;
        if let Some(waker) = registered.filter(|waker| waker.wakeup_count == wakeup_count) {
            state.wakers[waker.index].clone_from(Waker::noop());
        }
        let removed = state.readers[reader].take();
        state.free_readers.push(reader);
        // No search for the next one here: all followers of a fill may leave at once.
        if removed >= state.fastest_offset {
            state.fastest_offset = (state.follower_count() == 0).then_some(0);
        }
        self.notify_producer(state);
    }

    fn notify_producer(&self, state: MutexGuard<'_, FlightState>) {
        let concerns_producer = state.concerns_producer();
        drop(state);
        if concerns_producer {
            self.producer.notify_one();
        }
    }
}
