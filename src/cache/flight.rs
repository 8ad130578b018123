//! What is happening to the one fill of a key? A small state machine behind one lock.
//!
//! ```text
//! Waiting ──begin──→ Growing ──finish──→ Settled(Object)
//!    │                  ├──── finish, too large to hold ──→ Growing, complete
//!    │                  └──── cut, or the fill is dropped ─→ Cut
//!    └──settle──→ Settled(verdict)        (a dropped fill settles as Lost)
//! ```
//!
//! A [`super::Fill`] feeds it and belongs to no viewer; each [`super::Follower`] reads it at its own pace.
//! Whatever changes wakes everyone, and nobody polls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::partition::Standing;
use super::store::Place;
use super::{Found, Head, Object, Tie};
use crate::policy::vary::Vary;

/// How a fill ended, for those who wait.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// A whole answer for everybody.
    Object(Arc<Object>),
    /// The origin confirmed what was held; this is it with new headers and a new lifetime.
    Revalidated(Arc<Object>),
    /// The origin failed: an answer for those to whom nothing stale can be served.
    Failed(Arc<Object>),
    /// This host lacked what it takes to ask: an answer for the same, at this moment alone.
    Exhausted(Arc<Object>),
    /// The origin refused the leader's request: an answer for those whose request is the same.
    Refused(Arc<Object>),
    /// The answer may not be shared: everyone asks for themselves.
    Pass,
    /// Too large for one fetch: to be served in slices.
    Sliced,
    /// The fill broke without a word (it panicked or was given up).
    Lost,
}

pub(super) struct Flight {
    pub(super) found: Found,
    /// The leader's request headers as sent upstream.
    pub(super) upstream: HeaderMap,
    state: Mutex<State>,
    /// Tells the producer that a reader came, moved or left.
    pub(super) producer: Notify,
}

pub(super) struct State {
    pub(super) stage: Stage,
    /// Which request headers chose the answer, once known.
    pub(super) vary: Vary,
    /// Where the answer is filed, if it varies.
    pub(super) place: Option<Place>,
    /// Purged meanwhile: the result must not be stored. Guarded by the registry's lock too.
    pub(super) doomed: bool,
    /// What it brings is of this epoch.
    pub(super) tie: Option<Tie>,
    /// What it brings is listed there in a live stream, and so many viewers have asked for it.
    pub(super) standing: Standing,
    wakers: Vec<Waker>,
    /// Grows with each wake-up, so that a follower knows whether its waker is still filed.
    round: u64,
    /// Where each follower reads; `None` is a free seat, listed in `free`.
    pub(super) seats: Vec<Option<u64>>,
    free: Vec<usize>,
    /// Bytes taken from the budget.
    pub(super) budgeted: u64,
}

pub(super) enum Stage {
    Waiting,
    Growing(Growing),
    Settled(Verdict),
    Cut,
}

pub(super) struct Growing {
    pub(super) head: Arc<Head>,
    pub(super) chunks: VecDeque<Chunk>,
    pub(super) end: u64,
    pub(super) complete: bool,
    /// Too large to hold: only a window of it is kept, and it will not be stored.
    pub(super) windowed: bool,
}

pub(super) struct Chunk {
    pub(super) start: u64,
    pub(super) bytes: Bytes,
}

impl Growing {
    /// The bytes at `at`, up to `limit`; `Err` when they have left the window already.
    pub(super) fn read(&self, at: u64, limit: u64) -> Result<Option<Bytes>, super::Cut> {
        let next = self.chunks.partition_point(|chunk| chunk.start <= at);
        let Some(chunk) = next.checked_sub(1).map(|index| &self.chunks[index]) else {
            return if at < self.end {
                Err(super::Cut)
            } else {
                Ok(None)
            };
        };
        let skip = usize::try_from(at - chunk.start).unwrap_or(usize::MAX);
        if skip >= chunk.bytes.len() {
            return Ok(None);
        }
        let room = usize::try_from(limit - at).unwrap_or(usize::MAX);
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

impl State {
    /// Files a waker unless it is filed already; `filed` belongs to the one who waits.
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

    pub(super) fn fastest(&self) -> Option<u64> {
        self.seats.iter().flatten().max().copied()
    }

    pub(super) fn seated(&self) -> usize {
        self.seats.len() - self.free.len()
    }
}

impl Flight {
    pub(super) fn new(found: Found, upstream: HeaderMap) -> Flight {
        Flight {
            found,
            upstream,
            state: Mutex::new(State {
                stage: Stage::Waiting,
                vary: Vary::Nothing,
                place: None,
                doomed: false,
                tie: None,
                standing: Standing::default(),
                wakers: Vec::new(),
                round: 0,
                seats: Vec::new(),
                free: Vec::new(),
                budgeted: 0,
            }),
            producer: Notify::new(),
        }
    }

    /// What it brings is for those who come now, and not only for those who came before a restart.
    pub(super) fn is_current(&self) -> bool {
        self.state().tie.as_ref().is_none_or(Tie::holds)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Wakes all who wait, after the lock is released.
    pub(super) fn wake(mut state: MutexGuard<'_, State>) {
        state.round += 1;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        for waker in wakers {
            waker.wake();
        }
    }

    /// Takes a seat that reads from `at`.
    pub(super) fn sit(&self, at: u64) -> usize {
        let mut state = self.state();
        let seat = state.free.pop().unwrap_or(state.seats.len());
        match state.seats.get_mut(seat) {
            Some(free) => *free = Some(at),
            None => state.seats.push(Some(at)),
        }
        drop(state);
        self.producer.notify_one();
        seat
    }

    pub(super) fn moved(&self, state: &mut State, seat: usize, at: u64) {
        state.seats[seat] = Some(at);
        if matches!(&state.stage, Stage::Growing(growing) if growing.windowed) {
            self.producer.notify_one();
        }
    }

    /// Gives a seat back, and with it the waker that may be filed: it keeps a whole task alive.
    pub(super) fn leave(&self, seat: usize, filed: Option<(u64, usize)>) {
        let mut state = self.state();
        if let Some((_, slot)) = filed.filter(|(round, _)| *round == state.round) {
            state.wakers[slot].clone_from(Waker::noop());
        }
        state.seats[seat] = None;
        state.free.push(seat);
        drop(state);
        self.producer.notify_one();
    }
}
