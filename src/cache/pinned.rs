//! Counts and bounds the bodies that slow readers keep in memory after the store has let them go.
//!
//! A reader keeps the whole body in memory that it reads a part of. While the store holds the body too, that
//! costs nothing. Once it is evicted, replaced, purged or expired it is *pinned*: memory beside the store's
//! bound, for as long as its slowest reader likes.
//!
//! A reader is registered when its viewer takes no more bytes for now, and not before: one that is never
//! held up is through at once, so that a hit pays nothing. A body counts once, however many read it.
//! [`pace`] chooses whose readers are cut where pinned bodies take more than they may.

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

/// The readers of smaller bodies are not counted: a connection or a stream costs as much by itself.
const COUNTED_BYTES_MIN: usize = 4 << 10;

/// Pinned bodies may take this share of the fills' memory, as far as no fill needs it …
const SHARE: u64 = 2;
/// … and this share of it in any case.
const SHARE_KEPT: u64 = 8;
/// Where they take too much they are cut to this part below the bound, so that not each one that is added
/// has another one looked for.
const SLACK: u64 = 8;

/// The pinned bodies of one cache.
#[derive(Debug)]
pub(crate) struct PinnedBodies {
    budget: Arc<FillBudget>,
    bytes: AtomicU64,
    /// Those of them whose readers are all cut and have not ended yet.
    leaving: AtomicU64,
    /// By address.
    bodies: Mutex<HashMap<usize, Weak<SharedBody>>>,
    /// One looks for bodies to cut at a time.
    choosing: Mutex<()>,
}

impl PinnedBodies {
    pub(crate) fn new(budget: Arc<FillBudget>) -> PinnedBodies {
        PinnedBodies {
            budget,
            bytes: AtomicU64::new(0),
            leaving: AtomicU64::new(0),
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

    /// A fill finds no room for so many bytes: pinned bodies give way.
    pub(crate) fn give_way(&self, bytes: u64, now: Instant) {
        self.cut_down_to(self.bytes_max_beside(bytes), now);
    }

    /// The bound beside what fills hold, and so many bytes more.
    fn bytes_max_beside(&self, wanted: u64) -> u64 {
        let fills = self.budget.used().saturating_sub(self.bytes());
        let room = self.budget.max_for_large();
        let room = room.saturating_sub(fills.saturating_add(wanted));
        room.clamp(self.budget.max() / SHARE_KEPT, self.bytes_max())
    }

    fn keep_within_bound(&self, now: Instant) {
        let max = self.bytes_max_beside(0);
        if self.staying() > max {
            self.cut_down_to(max - max / SLACK, now);
        }
    }

    /// Bytes of those that are not about to go.
    fn staying(&self) -> u64 {
        let leaving = self.leaving.load(Ordering::Relaxed);
        self.bytes().saturating_sub(leaving)
    }

    fn cut_down_to(&self, bytes_max: u64, now: Instant) {
        if self.staying() <= bytes_max {
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
            if self.staying() <= bytes_max {
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

/// A body in memory: which entries of the store hold it, who reads it slowly. All objects that carry the body
/// share this. (The texts that are made of it in codings too: whoever reads one of them counts as a reader
/// of the text itself, which is larger.)
#[derive(Default)]
pub struct SharedBody {
    state: Mutex<PinnedState>,
}

#[derive(Default)]
struct PinnedState {
    bytes: u64,
    /// So many entries of the store hold it.
    entries: usize,
    /// Where it counts; nowhere while it is still being fetched, as fills are counted by themselves.
    pinned: Option<Arc<PinnedBodies>>,
    is_counted: bool,
    is_leaving: bool,
    readers: HashMap<u64, Arc<PinnedReader>>,
    readers_cut: usize,
    next_reader: u64,
}

/// Who reads a body.
pub trait BodyConsumer: Send + Sync {
    /// How many bytes it has taken so far, counted from anywhere.
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
    /// For a body of this length; none for a small one.
    pub(super) fn of(bytes: usize) -> Option<Arc<SharedBody>> {
        Arc::<SharedBody>::default().sized(bytes)
    }

    /// The body that was fetched takes so many bytes; nothing where it is a small one.
    pub(super) fn sized(self: Arc<SharedBody>, bytes: usize) -> Option<Arc<SharedBody>> {
        self.state.lock().bytes = bytes as u64;
        (bytes >= COUNTED_BYTES_MIN).then_some(self)
    }

    /// One more entry of the store holds it.
    pub(super) fn enter(self: &Arc<SharedBody>, pinned: &Arc<PinnedBodies>) {
        let mut state = self.state.lock();
        state.entries += 1;
        state.pinned = Some(Arc::clone(pinned));
        self.count(&mut state);
    }

    /// An entry of the store lets it go.
    pub(super) fn leave(self: &Arc<SharedBody>, now: Instant) {
        let mut state = self.state.lock();
        state.entries = state.entries.saturating_sub(1);
        self.count_and_bound(state, now);
    }

    /// It is whole and was not stored.
    pub(super) fn pass_by(self: &Arc<SharedBody>, pinned: &Arc<PinnedBodies>, now: Instant) {
        let mut state = self.state.lock();
        state.pinned = Some(Arc::clone(pinned));
        self.count_and_bound(state, now);
    }

    /// The viewer, who reads it, takes no more for now. The waker is called when the reader is cut.
    pub fn read_slowly(
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
        self.count_and_bound(state, now);
        SlowReader {
            body: Arc::clone(self),
            id,
            reader,
        }
    }

    fn count_and_bound(
        self: &Arc<SharedBody>,
        mut state: parking_lot::MutexGuard<'_, PinnedState>,
        now: Instant,
    ) {
        self.count(&mut state);
        let pinned = state.pinned.clone().filter(|_| state.is_counted);
        drop(state);
        if let Some(pinned) = pinned {
            pinned.keep_within_bound(now);
        }
    }

    /// Counts it, or counts it no more, by what is true now.
    fn count(self: &Arc<SharedBody>, state: &mut PinnedState) {
        let Some(pinned) = &state.pinned else { return };
        let counts = state.entries == 0 && !state.readers.is_empty();
        let leaves = counts && state.readers_cut == state.readers.len();
        match (counts, state.is_counted) {
            (true, false) => pinned.add(self, state.bytes),
            (false, true) => pinned.remove(self, state.bytes),
            _ => {}
        }
        match (leaves, state.is_leaving) {
            (true, false) => pinned.leaving.fetch_add(state.bytes, Ordering::Relaxed),
            (false, true) => pinned.leaving.fetch_sub(state.bytes, Ordering::Relaxed),
            _ => 0,
        };
        (state.is_counted, state.is_leaving) = (counts, leaves);
    }

    /// How its fastest reader gets on; `None` where all have been cut.
    fn fastest(&self, now: Instant) -> Option<CutOrder> {
        let staying: Vec<_> = {
            let state = self.state.lock();
            let staying = state.readers.values().filter(|reader| !reader.is_cut());
            staying.cloned().collect()
        };
        // Unlocked: a viewer who is asked and leaves meanwhile is dropped here, and takes its readers along.
        staying.iter().map(|reader| reader.standing(now)).max()
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
    fn standing(&self, now: Instant) -> CutOrder {
        let taken = bytes_taken(&self.viewer);
        let pace = &mut self.progress.lock().pace;
        pace.note(taken, now);
        pace.standing(taken, now)
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }
}

/// A viewer who was held up while it read a body, until all bytes of that body have left.
pub struct SlowReader {
    body: Arc<SharedBody>,
    id: u64,
    reader: Arc<PinnedReader>,
}

impl SlowReader {
    /// The viewer takes no more again. True where the answer must end, visibly, so that the body can leave
    /// memory; else the waker is called as soon as it must.
    #[must_use]
    pub fn is_held_up(&self, waker: &Waker, now: Instant) -> bool {
        let mut progress = self.reader.progress.lock();
        progress.pace.set_held_up(true);
        if progress.pace.is_due(now) {
            progress.pace.note(bytes_taken(&self.reader.viewer), now);
        }
        progress.waker.clone_from(waker);
        drop(progress);
        self.reader.is_cut()
    }

    /// The viewer has taken all there was, and waits.
    pub fn keeps_up(&self) {
        self.reader.progress.lock().pace.set_held_up(false);
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
