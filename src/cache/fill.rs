//! How does the one fill of a key feed those who wait? The producing side of a flight.
//!
//! A body is held whole while it arrives, within the budget of all fills. One that outgrows what may be
//! held goes on through a window: it keeps pace with its fastest reader and forgets what it need not keep.

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
use super::{
    CacheInner, EpochToken, ExpiringMemo, Lookup, Object, StoreOutcome, StoredHead, registry,
};
use crate::policy::Key;
use crate::policy::vary::Vary;

/// Should the producer go on?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillControl {
    /// Somebody reads, or the result will be stored.
    On,
    /// Nobody reads and nothing can be stored.
    Deserted,
}

/// In windowed mode the producer stays at most so far ahead of the fastest follower …
const AHEAD_BYTES_MAX: u64 = 1 << 20;
/// … and a follower who falls so far behind is cut.
const BEHIND_BYTES_MAX: u64 = 4 << 20;
/// Where fills hold too much already, a window is no larger than this.
const WINDOW_BYTES_MIN: u64 = 256 << 10;

/// A fill that finds no room waits so long for some before it goes through a window.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// So many bytes are copied at once, before others have their turn.
const COPIED_AT_ONCE_BYTES: usize = 1 << 20;

/// The producing side of a flight. Dropped without an end, it cuts its followers and lets the key go.
pub struct Fill {
    inner: Arc<CacheInner>,
    flight: Arc<Flight>,
    ended: bool,
}

impl Fill {
    pub(super) fn new(inner: Arc<CacheInner>, flight: Arc<Flight>) -> Fill {
        Fill {
            inner,
            flight,
            ended: false,
        }
    }

    pub(super) fn flight(&self) -> Arc<Flight> {
        Arc::clone(&self.flight)
    }

    /// What was looked up before this fill was started.
    pub fn found(&self) -> &Lookup {
        &self.flight.found
    }

    /// The request headers this fill was started with.
    pub fn upstream(&self) -> &HeaderMap {
        &self.flight.upstream
    }

    /// A place at it for somebody who waits.
    pub fn follower(&self) -> Follower {
        Follower::new(self.flight(), Arc::clone(&self.inner.registry.counts))
    }

    /// Resolves when somebody has joined it who waits for what it brings.
    pub fn taken_up(&self) -> impl Future<Output = ()> + Send + use<> {
        self.flight().taken_up()
    }

    /// What it brings is of an epoch, after whose end nobody joins it any more.
    pub fn belongs(&self, tie: &EpochToken) {
        self.flight.state().tie = Some(tie.clone());
    }

    /// What it brings is listed by a live manifest, there.
    pub fn is_listed(&self, position: LivePosition) {
        self.flight.state().standing.live = Some(position);
    }

    /// Tells which request headers chose the answer, before it is published. An answer that names none
    /// under a key that has variants is one more variant: an origin that codes only for some, and
    /// forgets to say so, must not make the plain answer everybody's.
    pub fn varies(&self, vary: Vary) {
        let vary = match (vary, self.flight.found.variant_names()) {
            (Vary::Nothing, Some(names)) => Vary::On(names.to_vec()),
            (vary, _) => vary,
        };
        if let Vary::On(names) = &vary {
            registry::vary(&self.inner, &self.flight, names);
        }
        self.flight.state().vary = vary;
    }

    /// Could a body of this length be stored?
    pub fn fits(&self, length: u64) -> bool {
        length <= self.inner.object_bytes_max(self.found().kind)
    }

    /// Is there room for this object?
    pub fn has_room_for(&self, object: &Object) -> bool {
        let bytes = object.weight_bytes(self.found().slot.bytes().len());
        self.has_room(&object.head, bytes)
    }

    /// Is there room for an object with this head and a body of this length, as far as can be said now?
    pub fn will_have_room(&self, head: &StoredHead, length: u64) -> bool {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let key_bytes = self.found().slot.bytes().len();
        self.has_room(head, Object::weight_to_come(head, length, key_bytes))
    }

    fn has_room(&self, head: &StoredHead, bytes: usize) -> bool {
        let bounds = self.inner.store.shares().bounds(self.found().kind);
        bytes as u64 <= bounds.bytes_max(class(head, None))
    }

    /// Reserves memory for so many bytes more; false when fills hold too much already.
    pub fn reserve(&self, length: u64) -> bool {
        let mut state = self.flight.state();
        let taken = self.inner.budget.take(state.budgeted, length);
        if taken {
            state.budgeted += length;
        }
        taken
    }

    /// Publishes the head of a body that will arrive in pieces.
    pub fn begin(&self, head: Arc<StoredHead>) {
        let mut state = self.flight.state();
        state.stage = FlightStage::Growing(GrowingBody::new(head));
        Flight::wake(state);
    }

    /// Hands on the next piece. Waits for room for a while, where there is none; and in windowed mode for
    /// the fastest reader.
    pub async fn push(&self, bytes: Bytes) -> FillControl {
        if bytes.is_empty() {
            return FillControl::On;
        }
        if !self.make_room(bytes.len() as u64) {
            self.wait_for_room(bytes.len() as u64).await;
        }
        if self.append(bytes) {
            registry::detach(&self.inner, &self.flight);
            return self.follow_fastest().await;
        }
        FillControl::On
    }

    /// Charges for a piece, where it is to be held; false where there is no room for it.
    fn make_room(&self, bytes: u64) -> bool {
        let mut state = self.flight.state();
        let FlightState {
            stage, budgeted, ..
        } = &mut *state;
        let FlightStage::Growing(growing) = stage else {
            return true;
        };
        let end = growing.end + bytes;
        let short = end.saturating_sub(*budgeted);
        if growing.windowed || !self.fits(end) || short == 0 {
            return true;
        }
        let taken = self.inner.budget.take(*budgeted, short);
        if taken {
            *budgeted += short;
        }
        taken
    }

    async fn wait_for_room(&self, bytes: u64) {
        let until = Instant::now() + ROOM_WAIT;
        loop {
            let mut freed = pin!(self.inner.budget.freed());
            // From here on no bytes are given back unnoticed.
            freed.as_mut().enable();
            if self.make_room(bytes) {
                return;
            }
            let now = Instant::now().into_std();
            self.inner.pinned.give_way(bytes, now);
            if timeout_at(until, freed).await.is_err() {
                return;
            }
        }
    }

    /// Appends a piece; true in windowed mode.
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
            self.slide(&mut state);
        }
        Flight::wake(state);
        windowed
    }

    /// Forgets what has left the window, and charges for what is in it. What the fastest reader has not
    /// read stays: it is waited for.
    fn slide(&self, state: &mut FlightState) {
        let (fastest, slowest) = (state.fastest(), state.slowest());
        let FlightState {
            stage, budgeted, ..
        } = state;
        let FlightStage::Growing(growing) = stage else {
            return;
        };
        let end = growing.end;
        let window = |bytes| end.saturating_sub(bytes).min(fastest.unwrap_or(end));
        let needed = slowest.unwrap_or(end);
        growing.forget_before(needed.max(window(BEHIND_BYTES_MAX)));
        let short = growing.held().saturating_sub(*budgeted);
        growing.tight = short > 0 && !self.inner.budget.take(*budgeted, short);
        if growing.tight {
            growing.forget_before(window(WINDOW_BYTES_MIN));
            let uncounted = growing.held().saturating_sub(*budgeted);
            self.inner.budget.add(uncounted);
        }
        let held = growing.held();
        self.inner.budget.give_back(budgeted.saturating_sub(held));
        *budgeted = held;
    }

    async fn follow_fastest(&self) -> FillControl {
        loop {
            let moved = self.flight.producer.notified();
            {
                let state = self.flight.state();
                let FlightStage::Growing(growing) = &state.stage else {
                    return FillControl::Deserted;
                };
                match state.fastest() {
                    None => return FillControl::Deserted,
                    Some(at) => {
                        let ahead_max = if growing.tight {
                            WINDOW_BYTES_MIN / 2
                        } else {
                            AHEAD_BYTES_MAX
                        };
                        if growing.end.saturating_sub(at) < ahead_max {
                            return FillControl::On;
                        }
                    }
                }
            }
            moved.await;
        }
    }

    /// Resolves when no viewer follows any more.
    pub async fn deserted(&self) {
        loop {
            let moved = self.flight.producer.notified();
            if self.flight.state().seated() == 0 {
                return;
            }
            moved.await;
        }
    }

    /// Resolves when a viewer follows.
    pub async fn joined(&self) {
        loop {
            let moved = self.flight.producer.notified();
            if self.flight.state().seated() > 0 {
                return;
            }
            moved.await;
        }
    }

    /// Remembers something about this fill's key, unless it was purged meanwhile.
    pub fn note(&self, note: ExpiringMemo) {
        registry::note(&self.inner, &self.flight, note);
    }

    /// Remembers something about requests that are filed apart from others for this fill's key.
    pub fn note_apart(&self, slot: &Key, note: ExpiringMemo) {
        registry::note_apart(&self.inner, &self.flight, slot, note);
    }

    /// What was held before is no longer true, and nothing storable takes its place.
    pub fn displace(&self) {
        registry::displace(&self.inner, &self.flight);
    }

    /// The body is whole: compacts and stores it, unless it was too large to hold or was purged.
    pub async fn finish(mut self) {
        if let Some((head, pieces)) = self.pieces() {
            // Copied outside the lock: followers go on reading the pieces meanwhile.
            let body = compact(&pieces).await;
            let object = Object::of_fill(StoredHead::clone(&head), body, &self.flight.body);
            let object = Arc::new(object);
            self.store(&object);
            self.publish(FlightStage::Settled(Verdict::Object(object)));
        }
        self.end();
    }

    /// What has arrived, unless only a window of it is held: that one is marked complete.
    fn pieces(&self) -> Option<(Arc<StoredHead>, Vec<Bytes>)> {
        let mut state = self.flight.state();
        let FlightStage::Growing(growing) = &mut state.stage else {
            return None;
        };
        if growing.windowed {
            growing.complete = true;
            let held = usize::try_from(growing.held()).unwrap_or(usize::MAX);
            Flight::wake(state);
            // No fill is charged any more for what slow followers still keep of it.
            if let Some(body) = Arc::clone(&self.flight.body).sized(held) {
                body.pass_by(&self.inner.pinned, Instant::now().into_std());
            }
            return None;
        }
        Some((Arc::clone(&growing.head), growing.pieces()))
    }

    /// Stores a whole answer and hands it to all who wait, with `verdict` as its wrapping.
    pub fn keep(mut self, object: &Arc<Object>, verdict: Verdict) -> StoreOutcome {
        let stored = self.store(object);
        self.publish(FlightStage::Settled(verdict));
        self.end();
        stored
    }

    /// Ends the fill without storing anything.
    pub fn settle(mut self, verdict: Verdict) {
        if let Some(object) = verdict.object() {
            self.pass_store_by(object);
        }
        self.publish(FlightStage::Settled(verdict));
        self.end();
    }

    /// The body broke: followers are cut, nothing is stored. Who has seen nothing of it gets this answer.
    pub fn break_off(mut self, answer: Arc<Object>) {
        registry::detach(&self.inner, &self.flight);
        self.pass_store_by(&answer);
        self.publish(FlightStage::Cut(Some(answer)));
        self.end();
    }

    /// Given up: followers are cut, nothing is stored.
    pub fn cut(self) {
        drop(self);
    }

    fn store(&self, object: &Arc<Object>) -> StoreOutcome {
        let stored = registry::store(&self.inner, &self.flight, object);
        if stored != StoreOutcome::Yes {
            self.pass_store_by(object);
        }
        stored
    }

    fn pass_store_by(&self, object: &Object) {
        object.passes_store_by(&self.inner.pinned, Instant::now().into_std());
    }

    fn publish(&self, stage: FlightStage) {
        let mut state = self.flight.state();
        let before = std::mem::replace(&mut state.stage, stage);
        Flight::wake(state);
        // Many pieces may go with it: not under the lock.
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
        // First: whoever comes now shall lead a fill of their own, not join a broken one.
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

/// One allocation for the whole body, so that hits write one buffer. Also for a single piece: it may be
/// a slice of a larger read buffer, and a copy holds exactly what it needs.
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
