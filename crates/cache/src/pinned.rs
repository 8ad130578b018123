//! Counts and limits the bodies that slow readers keep in memory after they left the store.
//!
//! A reader keeps the whole body in memory. While the store holds the body too, that costs nothing.
//! Once the body is evicted, replaced, purged or expired it is *pinned*: it takes memory outside
//! the store's limit until its slowest reader has finished.
//!
//! A reader is registered when its viewer first accepts no more bytes. A reader that never blocks
//! finishes at once, so a hit has no cost. A body counts once, whatever the number of readers.
//! [`pace`] chooses whose readers are cut off when pinned bodies exceed their limit.

mod pace;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Instant;

use parking_lot::Mutex;

use self::pace::{CutOrder, ReadPace};
use super::budget::FillBudget;

/// Readers of smaller bodies are not counted: a connection or a stream alone costs as much.
const COUNTED_BYTES_MIN: usize = 4 << 10;

/// Pinned bodies may take 1/2 of the memory of fills, as far as no fill needs it.
const SHARE: u64 = 2;
/// They may take 1/8 of it in any case.
const SHARE_KEPT: u64 = 8;
/// A cut goes 1/8 below the limit, so that not each new pinned body causes another search.
const SLACK: u64 = 8;

/// The pinned bodies of one cache.
#[derive(Debug)]
pub(crate) struct PinnedBodies {
    budget: Arc<FillBudget>,
    bytes: AtomicU64,
    /// Bytes of bodies whose readers are all cut off but have not ended yet.
    cut_bytes: AtomicU64,
    /// By the address of the body.
    bodies: Mutex<HashMap<usize, Weak<SharedBody>>>,
    /// Only one task at a time chooses bodies to cut.
    choosing: Mutex<()>,
}

impl PinnedBodies {
    pub(crate) fn new(budget: Arc<FillBudget>) -> PinnedBodies {
        PinnedBodies {
            budget,
            bytes: AtomicU64::new(0),
            cut_bytes: AtomicU64::new(0),
            bodies: Mutex::default(),
            choosing: Mutex::default(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.budget.max() / SHARE
    }

    /// Frees pinned bodies when a fill finds no room for `bytes`.
    pub(crate) fn cut_for_fill(&self, bytes: u64, now: Instant) {
        self.cut_down_to(self.bytes_max_beside(bytes), now);
    }

    /// The limit of pinned bodies beside the bytes of all fills and `wanted` more.
    fn bytes_max_beside(&self, wanted: u64) -> u64 {
        let fills = self.budget.used().saturating_sub(self.bytes());
        let room = self.budget.max_for_large();
        let room = room.saturating_sub(fills.saturating_add(wanted));
        room.clamp(self.budget.max() / SHARE_KEPT, self.bytes_max())
    }

    fn enforce_limit(&self, now: Instant) {
        let max = self.bytes_max_beside(0);
        if self.uncut_bytes() > max {
            self.cut_down_to(max - max / SLACK, now);
        }
    }

    /// Bytes of pinned bodies whose readers are not all cut off.
    fn uncut_bytes(&self) -> u64 {
        let cut_bytes = self.cut_bytes.load(Ordering::Relaxed);
        self.bytes().saturating_sub(cut_bytes)
    }

    fn cut_down_to(&self, bytes_max: u64, now: Instant) {
        if self.uncut_bytes() <= bytes_max {
            return;
        }
        let choosing = self.choosing.lock();
        let bodies: Vec<_> = self.bodies.lock().values().cloned().collect();
        let bodies = bodies.iter().filter_map(Weak::upgrade);
        let mut ranked: Vec<_> = bodies
            .filter_map(|body| Some((body.fastest(now)?, body)))
            .collect();
        ranked.sort_unstable_by_key(|(fastest, _)| *fastest);
        for (_, body) in &ranked {
            if self.uncut_bytes() <= bytes_max {
                break;
            }
            body.cut();
        }
        drop(choosing);
    }

    fn add(&self, body: &Arc<SharedBody>, bytes: u64) {
        self.bodies
            .lock()
            .insert(address(body), Arc::downgrade(body));
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.add(bytes);
    }

    fn remove(&self, body: &Arc<SharedBody>, bytes: u64) {
        self.bodies.lock().remove(&address(body));
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.give_back(bytes);
    }
}

fn address(body: &Arc<SharedBody>) -> usize {
    Arc::as_ptr(body).addr()
}

/// A body in memory, with the number of store entries that hold it and its slow readers. All
/// objects with this body share it. So do its encoded bodies: a reader of one counts as a reader of
/// the text itself, which is larger.
#[derive(Default)]
pub struct SharedBody {
    state: Mutex<PinnedState>,
}

#[derive(Default)]
struct PinnedState {
    bytes: u64,
    /// Number of store entries that hold it.
    entries: usize,
    /// Where it is counted. `None` while it is still being fetched: fills have a budget of their
    /// own.
    pinned: Option<Arc<PinnedBodies>>,
    is_counted: bool,
    are_all_cut: bool,
    readers: HashMap<u64, Arc<PinnedReader>>,
    readers_cut: usize,
    next_reader: u64,
}

/// The viewer that reads a body.
pub trait BodyConsumer: Send + Sync {
    /// Bytes it has accepted so far, from any fixed starting point.
    fn bytes_taken(&self) -> u64;
}

struct PinnedReader {
    viewer: Weak<dyn BodyConsumer>,
    is_cut: AtomicBool,
    progress: Mutex<ReadProgress>,
}

struct ReadProgress {
    pace: ReadPace,
    waker: Waker,
}

impl SharedBody {
    /// For a body of this length. `None` for a small one.
    pub(super) fn of(bytes: usize) -> Option<Arc<SharedBody>> {
        Arc::<SharedBody>::default().sized(bytes)
    }

    /// Sets the length of a fetched body. `None` for a small one.
    pub(super) fn sized(self: Arc<SharedBody>, bytes: usize) -> Option<Arc<SharedBody>> {
        self.state.lock().bytes = bytes as u64;
        (bytes >= COUNTED_BYTES_MIN).then_some(self)
    }

    /// One more store entry holds it.
    pub(super) fn add_entry(self: &Arc<SharedBody>, pinned: &Arc<PinnedBodies>) {
        let mut state = self.state.lock();
        state.entries += 1;
        state.pinned = Some(Arc::clone(pinned));
        self.count(&mut state);
    }

    /// One store entry no longer holds it.
    pub(super) fn remove_entry(self: &Arc<SharedBody>, now: Instant) {
        let mut state = self.state.lock();
        state.entries = state.entries.saturating_sub(1);
        self.count_and_limit(state, now);
    }

    /// It is complete and was not stored.
    pub(super) fn record_unstored(
        self: &Arc<SharedBody>,
        pinned: &Arc<PinnedBodies>,
        now: Instant,
    ) {
        let mut state = self.state.lock();
        state.pinned = Some(Arc::clone(pinned));
        self.count_and_limit(state, now);
    }

    /// Registers a reader whose viewer accepts no more bytes now. The waker is called when the
    /// reader is cut off.
    pub fn register_slow_reader(
        self: &Arc<SharedBody>,
        viewer: Weak<dyn BodyConsumer>,
        waker: &Waker,
        now: Instant,
    ) -> SlowReader {
        let taken = bytes_taken(&viewer);
        let reader = Arc::new(PinnedReader {
            viewer,
            is_cut: AtomicBool::new(false),
            progress: Mutex::new(ReadProgress {
                pace: ReadPace::new(taken, now),
                waker: waker.clone(),
            }),
        });
        let mut state = self.state.lock();
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, Arc::clone(&reader));
        self.count_and_limit(state, now);
        SlowReader {
            body: Arc::clone(self),
            id,
            reader,
        }
    }

    fn count_and_limit(
        self: &Arc<SharedBody>,
        mut state: parking_lot::MutexGuard<'_, PinnedState>,
        now: Instant,
    ) {
        self.count(&mut state);
        let pinned = state.pinned.clone().filter(|_| state.is_counted);
        drop(state);
        if let Some(pinned) = pinned {
            pinned.enforce_limit(now);
        }
    }

    /// Starts or stops counting it, according to its present state.
    fn count(self: &Arc<SharedBody>, state: &mut PinnedState) {
        let Some(pinned) = &state.pinned else { return };
        let counts = state.entries == 0 && !state.readers.is_empty();
        let all_cut = counts && state.readers_cut == state.readers.len();
        match (counts, state.is_counted) {
            (true, false) => pinned.add(self, state.bytes),
            (false, true) => pinned.remove(self, state.bytes),
            _ => {}
        }
        match (all_cut, state.are_all_cut) {
            (true, false) => pinned.cut_bytes.fetch_add(state.bytes, Ordering::Relaxed),
            (false, true) => pinned.cut_bytes.fetch_sub(state.bytes, Ordering::Relaxed),
            _ => 0,
        };
        (state.is_counted, state.are_all_cut) = (counts, all_cut);
    }

    /// The pace of its fastest reader. `None` when all have been cut off.
    fn fastest(&self, now: Instant) -> Option<CutOrder> {
        let uncut: Vec<_> = {
            let state = self.state.lock();
            let uncut = state.readers.values().filter(|reader| !reader.is_cut());
            uncut.cloned().collect()
        };
        // Without the lock: a viewer that leaves during the call is dropped here, with its readers.
        uncut.iter().map(|reader| reader.cut_order(now)).max()
    }

    fn cut(self: &Arc<SharedBody>) {
        let mut wakers = Vec::new();
        let mut state = self.state.lock();
        if !state.is_counted {
            return;
        }
        for reader in state.readers.values() {
            if !reader.is_cut.swap(true, Ordering::AcqRel) {
                wakers.push(reader.progress.lock().waker.clone());
            }
        }
        state.readers_cut = state.readers.len();
        self.count(&mut state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

fn bytes_taken(viewer: &Weak<dyn BodyConsumer>) -> u64 {
    viewer.upgrade().map_or(0, |viewer| viewer.bytes_taken())
}

impl fmt::Debug for SharedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBody").finish_non_exhaustive()
    }
}

impl PinnedReader {
    fn cut_order(&self, now: Instant) -> CutOrder {
        let taken = bytes_taken(&self.viewer);
        let pace = &mut self.progress.lock().pace;
        pace.record(taken, now);
        pace.cut_order(taken, now)
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }
}

/// A viewer that blocked while it read a body, until all bytes of that body have been sent.
pub struct SlowReader {
    body: Arc<SharedBody>,
    id: u64,
    reader: Arc<PinnedReader>,
}

impl SlowReader {
    /// The viewer accepts no more bytes again. True if the response must now be truncated, so that
    /// the body can leave memory. Otherwise the waker is called as soon as that is necessary.
    #[must_use]
    pub fn record_blocked(&self, waker: &Waker, now: Instant) -> bool {
        let mut progress = self.reader.progress.lock();
        progress.pace.set_blocked(true);
        if progress.pace.is_due(now) {
            progress.pace.record(bytes_taken(&self.reader.viewer), now);
        }
        progress.waker.clone_from(waker);
        drop(progress);
        self.reader.is_cut()
    }

    /// The viewer has accepted all available bytes and waits for more.
    pub fn record_caught_up(&self) {
        self.reader.progress.lock().pace.set_blocked(false);
    }
}

impl Drop for SlowReader {
    fn drop(&mut self) {
        let mut state = self.body.state.lock();
        state.readers.remove(&self.id);
        if self.reader.is_cut() {
            state.readers_cut -= 1;
        }
        self.body.count(&mut state);
    }
}

#[cfg(test)]
mod tests;
