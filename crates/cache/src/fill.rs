//! The producing side of a flight: the one fill of a key, which feeds its followers.
//!
//! A body is buffered whole while it arrives, within the memory budget of all fills. A body that
//! grows beyond its limit continues through a window: the fill keeps pace with its fastest reader
//! and discards the rest.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::time::{Instant, timeout_at};

use super::eviction::LivePosition;
use super::flight::{Flight, FlightStage, FlightState, GrowingBody, Verdict};
use super::follower::Follower;
use super::partition::class;
use super::registry::{self, JoinOutcome};
use super::{
    CacheInner, EpochToken, ExpiringMemo, Lookup, Object, StoreOutcome, StoredHead, TagKeys,
};
use seawall_policy::Key;
use seawall_policy::vary::Vary;

/// Whether the producer should continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillControl {
    /// A viewer reads, or the result will be stored.
    Continue,
    /// No viewer reads and nothing can be stored.
    Stop,
}

/// In windowed mode the producer stays at most this far ahead of the fastest follower.
const AHEAD_BYTES_MAX: u64 = 1 << 20;
/// In windowed mode a follower this far behind is cut off.
const BEHIND_BYTES_MAX: u64 = 4 << 20;
/// The window size when the budget of fills is used up.
const WINDOW_BYTES_MIN: u64 = 256 << 10;

/// A fill without room in the budget waits this long before it switches to a window.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// Bytes copied before the task yields.
const COPIED_AT_ONCE_BYTES: usize = 1 << 20;

/// The producing side of a flight. Dropping it before its end cuts the followers off and releases
/// the key.
pub struct Fill {
    inner: Arc<CacheInner>,
    flight: Arc<Flight>,
    ended: bool,
}

impl Fill {
    /// Joins the fill for a lookup, or starts it.
    pub(super) fn join(
        inner: &Arc<CacheInner>,
        lookup: &Lookup,
        upstream_headers: &HeaderMap,
    ) -> JoinOutcome<Fill> {
        registry::join(inner, lookup, upstream_headers, |flight| {
            Fill::new(Arc::clone(inner), flight)
        })
    }

    /// Starts a fill that no viewer waits for; `None` when one is in progress or the lookup is
    /// outdated.
    pub(super) fn lead(
        inner: &Arc<CacheInner>,
        lookup: &Lookup,
        upstream_headers: impl FnOnce() -> HeaderMap,
    ) -> Option<Fill> {
        let flight = registry::lead(inner, lookup, upstream_headers)?;
        Some(Fill::new(Arc::clone(inner), flight))
    }

    fn new(inner: Arc<CacheInner>, flight: Arc<Flight>) -> Fill {
        Fill {
            inner,
            flight,
            ended: false,
        }
    }

    pub(super) fn flight(&self) -> Arc<Flight> {
        Arc::clone(&self.flight)
    }

    /// The lookup that started this fill.
    pub fn lookup(&self) -> &Lookup {
        &self.flight.lookup
    }

    /// The request headers with which this fill was started.
    pub fn upstream_headers(&self) -> &HeaderMap {
        &self.flight.upstream_headers
    }

    /// Creates a follower of this fill.
    pub fn follower(&self) -> Follower {
        Follower::new(self.flight(), Arc::clone(&self.inner.registry.counts))
    }

    /// Resolves when a viewer has joined and waits for the result.
    pub fn wait_for_join(&self) -> impl Future<Output = ()> + Send + use<> {
        self.flight().wait_for_join()
    }

    /// Binds the result to an epoch. After the epoch's end no request joins this fill.
    pub fn set_epoch(&self, epoch_token: &EpochToken) {
        self.flight.state().epoch_token = Some(epoch_token.clone());
    }

    /// Binds the result to the tags of its response. The token is what the result gets in place of
    /// `token`. Call it before the head is published.
    pub fn bind_tags(&self, token: Option<EpochToken>, keys: &TagKeys) -> EpochToken {
        registry::bind_tags(&self.inner, &self.flight, &token.unwrap_or_default(), keys)
    }

    /// Records that a live manifest lists the result, and its position there.
    pub fn set_live_position(&self, position: LivePosition) {
        self.flight.state().hints.live = Some(position);
    }

    /// Records which request headers selected the response, before it is published. A response
    /// without `Vary` under a key that has variants is stored as one more variant: some origins
    /// send `Vary` only with compressed responses, and the plain response must not replace all
    /// variants.
    pub fn set_vary(&self, vary: Vary) {
        let vary = match (vary, self.flight.lookup.variant_names()) {
            (Vary::Nothing, Some(names)) => Vary::On(names.to_vec()),
            (vary, _) => vary,
        };
        if let Vary::On(names) = &vary {
            registry::record_vary(&self.inner, &self.flight, names);
        }
        self.flight.state().vary = vary;
    }

    /// Whether a body of this length could be stored.
    pub fn fits(&self, length: u64) -> bool {
        length <= self.inner.object_bytes_max(self.lookup().kind)
    }

    /// Whether there is room for this object in the store.
    pub fn has_room_for(&self, object: &Object) -> bool {
        let bytes = object.weight_bytes(self.lookup().slot.bytes().len());
        self.has_room(&object.head, bytes)
    }

    /// An estimate of whether the store has room for an object with this head and a body of this
    /// length.
    pub fn will_have_room(&self, head: &StoredHead, length: u64) -> bool {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let key_bytes = self.lookup().slot.bytes().len();
        self.has_room(head, Object::expected_weight_bytes(head, length, key_bytes))
    }

    fn has_room(&self, head: &StoredHead, bytes: usize) -> bool {
        let bounds = self.inner.store.shares().bounds(self.lookup().kind);
        bytes as u64 <= bounds.bytes_max(class(head, None))
    }

    /// Reserves `length` more bytes. False when fills already hold too much.
    pub fn reserve(&self, length: u64) -> bool {
        let mut state = self.flight.state();
        let taken = self.inner.budget.take(state.budgeted, length);
        if taken {
            state.budgeted += length;
        }
        taken
    }

    /// Publishes the head. The body arrives in pieces.
    pub fn begin(&self, head: Arc<StoredHead>) {
        let mut state = self.flight.state();
        state.stage = FlightStage::Growing(GrowingBody::new(head));
        Flight::wake(state);
    }

    /// Passes the next piece to the followers. Without room in the budget it waits for a limited
    /// time. In windowed mode it waits for the fastest reader.
    pub async fn push(&self, bytes: Bytes) -> FillControl {
        if bytes.is_empty() {
            return FillControl::Continue;
        }
        if !self.make_room(bytes.len() as u64) {
            self.wait_for_room(bytes.len() as u64).await;
        }
        if self.append(bytes) {
            registry::detach(&self.inner, &self.flight);
            return self.wait_for_fastest_reader().await;
        }
        FillControl::Continue
    }

    /// Charges a piece to the budget, if it is to be buffered. False when there is no room.
    fn make_room(&self, bytes: u64) -> bool {
        let mut state = self.flight.state();
        let FlightState {
            stage, budgeted, ..
        } = &mut *state;
        let FlightStage::Growing(growing) = stage else {
            return true;
        };
        let end = growing.end + bytes;
        let missing = end.saturating_sub(*budgeted);
        if growing.windowed || !self.fits(end) || missing == 0 {
            return true;
        }
        let taken = self.inner.budget.take(*budgeted, missing);
        if taken {
            *budgeted += missing;
        }
        taken
    }

    async fn wait_for_room(&self, bytes: u64) {
        let until = Instant::now() + ROOM_WAIT;
        loop {
            let mut freed = pin!(self.inner.budget.freed());
            // From here on the task is woken when bytes are given back.
            freed.as_mut().enable();
            if self.make_room(bytes) {
                return;
            }
            let now = Instant::now().into_std();
            self.inner.pinned.cut_for_fill(bytes, now);
            if timeout_at(until, freed).await.is_err() {
                return;
            }
        }
    }

    /// Appends a piece. True in windowed mode.
    fn append(&self, bytes: Bytes) -> bool {
        let mut state = self.flight.state();
        let FlightState {
            stage, budgeted, ..
        } = &mut *state;
        let FlightStage::Growing(growing) = stage else {
            return false;
        };
        growing.append(bytes);
        if !growing.windowed && (growing.end > *budgeted || !self.fits(growing.end)) {
            growing.windowed = true;
            self.inner.registry.counts.add_windowed(1);
        }
        let windowed = growing.windowed;
        if windowed {
            self.trim_window(&mut state);
        }
        Flight::wake(state);
        windowed
    }

    /// Discards the bytes that have left the window and charges the others to the budget. Bytes
    /// that the fastest reader has not read stay; the producer waits for that reader.
    fn trim_window(&self, state: &mut FlightState) {
        let (fastest, slowest) = (state.fastest_offset(), state.slowest_offset());
        let FlightState {
            stage, budgeted, ..
        } = state;
        let FlightStage::Growing(growing) = stage else {
            return;
        };
        let (budget, end) = (&self.inner.budget, growing.end);
        let window_start = |bytes| end.saturating_sub(bytes).min(fastest.unwrap_or(end));
        let needed_from = slowest.unwrap_or(end);
        growing.discard_before(needed_from.max(window_start(BEHIND_BYTES_MAX)));
        let missing = growing.buffered_bytes().saturating_sub(*budgeted);
        growing.is_window_reduced = missing > 0 && !budget.take(*budgeted, missing);
        if growing.is_window_reduced {
            growing.discard_before(window_start(WINDOW_BYTES_MIN));
            // The smallest window is kept even without room in the budget.
            budget.add(growing.buffered_bytes().saturating_sub(*budgeted));
        }
        budget.give_back(budgeted.saturating_sub(growing.buffered_bytes()));
        *budgeted = growing.buffered_bytes();
    }

    /// Waits until the producer is close enough to the fastest reader to continue.
    async fn wait_for_fastest_reader(&self) -> FillControl {
        loop {
            let moved = self.flight.producer.notified();
            if let Some(control) = self.control_by_fastest_reader() {
                return control;
            }
            moved.await;
        }
    }

    /// `None`: the producer is too far ahead of the fastest reader.
    fn control_by_fastest_reader(&self) -> Option<FillControl> {
        let mut state = self.flight.state();
        let fastest_offset = state.fastest_offset();
        let (FlightStage::Growing(growing), Some(offset)) = (&state.stage, fastest_offset) else {
            return Some(FillControl::Stop);
        };
        let ahead_max = if growing.is_window_reduced {
            WINDOW_BYTES_MIN / 2
        } else {
            AHEAD_BYTES_MAX
        };
        let is_near = growing.end.saturating_sub(offset) < ahead_max;
        is_near.then_some(FillControl::Continue)
    }

    /// Resolves when no viewer follows.
    pub async fn wait_for_no_followers(&self) {
        loop {
            let moved = self.flight.producer.notified();
            if self.flight.state().follower_count() == 0 {
                return;
            }
            moved.await;
        }
    }

    /// Whether several viewers may wait for it together: see [`super::AwaitedFill`].
    pub fn has_shared_wait(&self) -> bool {
        self.flight.has_shared_wait()
    }

    /// Resolves when a viewer follows.
    pub async fn wait_for_follower(&self) {
        loop {
            let moved = self.flight.producer.notified();
            if self.flight.state().follower_count() > 0 {
                return;
            }
            moved.await;
        }
    }

    /// Writes a memo for this fill's key, unless the key was purged since.
    pub fn write_memo(&self, memo: ExpiringMemo) {
        registry::write_memo(&self.inner, &self.flight, memo);
    }

    /// Writes a memo under another slot than the fill's own, unless the fill's key was purged
    /// since.
    pub fn write_memo_for(&self, slot: &Key, memo: ExpiringMemo) {
        registry::write_memo_under(&self.inner, &self.flight, slot, memo);
    }

    /// Removes the object that was stored before: it is no longer valid, and the new response is
    /// not storable.
    pub fn remove_previous(&self) {
        registry::remove_previous(&self.inner, &self.flight);
    }

    /// The body is complete: copies it into one allocation and stores it, unless it was windowed or
    /// purged.
    pub async fn finish(mut self) {
        if let Some((head, pieces)) = self.pieces() {
            // Copied outside the lock: followers continue to read the pieces meanwhile.
            let body = compact(&pieces).await;
            let object = Object::of_fill(StoredHead::clone(&head), body, &self.flight.body);
            let object = Arc::new(object);
            self.store(&object);
            self.publish(FlightStage::Settled(Verdict::Object(object)));
        }
        self.end();
    }

    /// The pieces of the body. In windowed mode there is only a window: marks the body complete
    /// instead.
    fn pieces(&self) -> Option<(Arc<StoredHead>, Vec<Bytes>)> {
        let mut state = self.flight.state();
        let FlightStage::Growing(growing) = &mut state.stage else {
            return None;
        };
        if growing.windowed {
            growing.complete = true;
            let buffered = usize::try_from(growing.buffered_bytes()).unwrap_or(usize::MAX);
            Flight::wake(state);
            // From here on, slow followers of the rest are counted as pinned, not charged to a
            // fill.
            if let Some(body) = Arc::clone(&self.flight.body).sized(buffered) {
                body.record_unstored(&self.inner.pinned, Instant::now().into_std());
            }
            return None;
        }
        Some((Arc::clone(&growing.head), growing.pieces()))
    }

    /// Stores a complete response and gives `verdict` to all waiting requests.
    pub fn store_and_publish(mut self, object: &Arc<Object>, verdict: Verdict) -> StoreOutcome {
        let stored = self.store(object);
        self.publish(FlightStage::Settled(verdict));
        self.end();
        stored
    }

    /// Ends the fill without storing anything.
    pub fn settle(mut self, verdict: Verdict) {
        if let Some(object) = verdict.object() {
            self.skip_store(object);
        }
        self.publish(FlightStage::Settled(verdict));
        self.end();
    }

    /// The body was truncated: cuts the followers off and stores nothing. A follower that has not
    /// read any of it gets `error_object`.
    pub fn truncate(mut self, error_object: Arc<Object>) {
        registry::detach(&self.inner, &self.flight);
        self.skip_store(&error_object);
        self.publish(FlightStage::Cut(Some(error_object)));
        self.end();
    }

    /// Gives up: cuts the followers off and stores nothing.
    pub fn cut(self) {
        drop(self);
    }

    fn store(&self, object: &Arc<Object>) -> StoreOutcome {
        object.classes.mark_all(&self.flight.state().hints.classes);
        let stored = registry::store(&self.inner, &self.flight, object);
        if stored != StoreOutcome::Stored {
            self.skip_store(object);
        }
        stored
    }

    fn skip_store(&self, object: &Object) {
        object.skip_store(&self.inner.pinned, Instant::now().into_std());
    }

    fn publish(&self, stage: FlightStage) {
        let mut state = self.flight.state();
        let before = std::mem::replace(&mut state.stage, stage);
        Flight::wake(state);
        // It may free many pieces: not under the lock.
        drop(before);
    }

    fn end(&mut self) {
        self.ended = true;
        registry::detach(&self.inner, &self.flight);
        self.inner.registry.counts.fill_ended();
        let budgeted = std::mem::take(&mut self.flight.state().budgeted);
        self.inner.budget.give_back(budgeted);
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Detach first: a new request must lead its own fill, not join a broken one.
        registry::detach(&self.inner, &self.flight);
        let mut state = self.flight.state();
        state.stage = match state.stage {
            FlightStage::Waiting => FlightStage::Settled(Verdict::Lost),
            _ => FlightStage::Cut(None),
        };
        Flight::wake(state);
        self.end();
    }
}

/// Copies the body into one allocation, so that a hit writes one buffer. A single piece is copied
/// too: it may be a slice of a larger read buffer, which it would keep in memory.
async fn compact(pieces: &[Bytes]) -> Bytes {
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    let mut copied = 0;
    for part in pieces
        .iter()
        .flat_map(|piece| piece.chunks(COPIED_AT_ONCE_BYTES))
    {
        if copied + part.len() > COPIED_AT_ONCE_BYTES {
            tokio::task::yield_now().await;
            copied = 0;
        }
        copied += part.len();
        whole.extend_from_slice(part);
    }
    whole.freeze()
}
