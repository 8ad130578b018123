//! How much of a stream's body has left, and what is told when all of it has? HTTP/2 only.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;

use tokio::time::Instant;

use super::connection_state::ConnectionState;
use super::flood::{ANSWER_WORTH, PIECE_WORTH};
use super::stored_reads::StoredBodiesRead;
use super::unsent::SendTurn;
use crate::proxy::BodyConsumer;
use crate::telemetry::{CutBy, RequestRecord};

/// How fast a stream's body is taken. The body, its task and every slice that h2 has not sent hold it: when it
/// is dropped the stream is over, and is told.
pub(super) struct SendRate {
    /// Bytes handed out.
    handed: AtomicU64,
    /// Those that h2 has put into frames, and those that it never will.
    sent: AtomicU64,
    lost: AtomicU64,
    /// How often something was handed out when everything before had left.
    spells: AtomicU32,
    /// The next bytes are the viewer's to take, whether they have been handed out or the windows leave no room
    /// for them. If not, there are none yet.
    is_viewers_turn: AtomicBool,
    /// h2 has all of it: how much was sent when the stream made progress last, and in which turn that was.
    unsent: UnsentStream,
    /// The stored bodies that are read.
    pub(super) reading: StoredBodiesRead,
    tale: OnceLock<RequestRecord>,
    gauge: Arc<ConnectionState>,
}

#[derive(Default)]
struct UnsentStream {
    /// One more than the turn; 0: h2 does not have all of it.
    turn: AtomicU32,
    sent: AtomicU64,
    /// How many bytes are progress.
    progress: AtomicU64,
}

/// Everything that happens to a stream happens on one thread.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

impl SendRate {
    /// The pace of a request that has come in.
    pub(super) fn new(gauge: Arc<ConnectionState>) -> Arc<SendRate> {
        gauge.stream_opened();
        Arc::new(SendRate {
            handed: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            spells: AtomicU32::new(0),
            is_viewers_turn: AtomicBool::new(false),
            unsent: UnsentStream::default(),
            reading: StoredBodiesRead::default(),
            tale: OnceLock::new(),
            gauge,
        })
    }

    pub(super) fn gauge(&self) -> &Arc<ConnectionState> {
        &self.gauge
    }

    /// There is an answer, and bytes of its body.
    pub(super) fn begin_body(&self) {
        self.is_viewers_turn.store(true, Ordering::Relaxed);
    }

    /// A slice is handed out.
    pub(super) fn hand(&self, bytes: usize) {
        self.is_viewers_turn.store(true, Ordering::Relaxed);
        if self.outstanding() == 0 {
            let spells = self.spells.load(Ordering::Relaxed);
            self.spells.store(spells.wrapping_add(1), Ordering::Relaxed);
        }
        add(&self.handed, bytes as u64);
        self.gauge.queue_body(bytes);
        self.gauge.earn(PIECE_WORTH);
    }

    /// h2 has put so many bytes into frames.
    pub(super) fn send(&self, bytes: usize) {
        add(&self.sent, bytes as u64);
        self.gauge.sent_body(bytes);
        self.note_progress();
    }

    /// h2 has dropped so many bytes.
    pub(super) fn lose(&self, bytes: usize) {
        add(&self.lost, bytes as u64);
        self.gauge.lost_body(bytes);
    }

    /// There is nothing to hand out now.
    pub(super) fn wait_for_body(&self) {
        self.is_viewers_turn.store(false, Ordering::Relaxed);
    }

    /// The viewer may take bytes, and has not.
    pub(super) fn is_held_up(&self) -> bool {
        self.is_viewers_turn() || self.outstanding() > 0
    }

    fn is_viewers_turn(&self) -> bool {
        self.is_viewers_turn.load(Ordering::Relaxed)
    }

    /// Bytes handed out that have not left.
    pub(super) fn outstanding(&self) -> u64 {
        let left = self.sent() + self.lost.load(Ordering::Relaxed);
        self.handed().saturating_sub(left)
    }

    pub(super) fn handed(&self) -> u64 {
        self.handed.load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn spells(&self) -> u32 {
        self.spells.load(Ordering::Relaxed)
    }

    /// What is read must leave memory, and the viewer holds it up.
    pub(super) fn must_end(self: &Arc<SendRate>, cx: &Context<'_>) -> bool {
        let is_held_up = self.is_viewers_turn();
        self.reading.must_end(self, is_held_up, cx.waker())
    }

    /// Nobody but the connection looks after the stream any more. So many bytes in a while are progress.
    pub(super) fn leave_to_h2(&self, progress: u64) {
        if self.outstanding() > 0 {
            self.unsent.progress.store(progress, Ordering::Relaxed);
            self.enter_turn();
        }
    }

    fn enter_turn(&self) {
        let SendTurn(turn) = self.gauge.unsent.enter();
        self.unsent
            .turn
            .store(turn.wrapping_add(1), Ordering::Relaxed);
        self.unsent.sent.store(self.sent(), Ordering::Relaxed);
    }

    fn note_progress(&self) {
        if let Some(turn) = self.unsent_turn()
            && self.sent() - self.unsent.sent.load(Ordering::Relaxed)
                >= self.unsent.progress.load(Ordering::Relaxed)
        {
            self.gauge.unsent.leave(turn);
            self.enter_turn();
        }
    }

    fn unsent_turn(&self) -> Option<SendTurn> {
        let turn = self.unsent.turn.load(Ordering::Relaxed);
        turn.checked_sub(1).map(SendTurn)
    }

    /// What is to be told at the end: everything but what left, and when.
    pub(super) fn tell_at_end(&self, tale: RequestRecord) {
        // Told once.
        let _ = self.tale.set(tale);
    }
}

impl BodyConsumer for SendRate {
    fn bytes_taken(&self) -> u64 {
        self.sent()
    }
}

impl Drop for SendRate {
    fn drop(&mut self) {
        let gauge = &self.gauge;
        if let Some(turn) = self.unsent_turn() {
            gauge.unsent.leave(turn);
        }
        let now = Instant::now();
        if let Some(mut tale) = self.tale.take() {
            tale.bytes = self.sent();
            tale.total_time = now.into_std().saturating_duration_since(tale.arrived);
            if tale.cut_by.is_none() && self.sent() < self.handed() {
                let for_memory = self.reading.was_cut() || gauge.reading.was_cut();
                tale.cut_by = Some(if for_memory {
                    CutBy::Memory
                } else {
                    CutBy::Viewer
                });
            }
            if tale.cut_by.is_none() {
                gauge.earn(ANSWER_WORTH);
            }
            (gauge.teller)(&tale);
        }
        gauge.stream_closed(now);
    }
}
