//! Counts the sent bytes of an HTTP/2 stream, and records its request when all have been sent.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;

use tokio::time::Instant;

use super::connection_state::{ConnectionState, add};
use super::flood::{PIECE_CREDIT, RESPONSE_CREDIT};
use super::stored_reads::StoredBodiesRead;
use super::unsent::SendTurn;
use crate::proxy::BodyConsumer;
use crate::telemetry::{AbortCause, RequestRecord};

/// The send rate of a stream. The body, the stream's task and every unsent slice in h2 hold it;
/// when it is dropped, the stream is over and its request is recorded.
pub(super) struct SendRate {
    /// Bytes passed to h2.
    handed: AtomicU64,
    /// Bytes that h2 has put into frames (`sent`) or has dropped (`dropped`).
    sent: AtomicU64,
    dropped: AtomicU64,
    /// How often bytes were passed to h2 when it had sent all bytes before.
    send_spells: AtomicU32,
    /// The viewer delays the next bytes: they have been passed to h2, or the windows leave no room
    /// for them. `false`: the body has no bytes yet.
    is_viewers_turn: AtomicBool,
    /// Progress of a stream whose body h2 has completely.
    unsent: UnsentStream,
    /// Stored bodies that the response is reading.
    pub(super) reading: StoredBodiesRead,
    record: OnceLock<RequestRecord>,
    connection: Arc<ConnectionState>,
}

#[derive(Default)]
struct UnsentStream {
    /// The last turn with progress plus 1; 0: h2 does not have the whole body.
    turn: AtomicU32,
    sent: AtomicU64,
    /// Bytes that count as progress.
    progress: AtomicU64,
}

impl SendRate {
    /// The send rate of a new request.
    pub(super) fn new(connection: Arc<ConnectionState>) -> Arc<SendRate> {
        connection.stream_opened();
        Arc::new(SendRate {
            handed: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            send_spells: AtomicU32::new(0),
            is_viewers_turn: AtomicBool::new(false),
            unsent: UnsentStream::default(),
            reading: StoredBodiesRead::default(),
            record: OnceLock::new(),
            connection,
        })
    }

    pub(super) fn connection(&self) -> &Arc<ConnectionState> {
        &self.connection
    }

    /// Records that the response has body bytes.
    pub(super) fn begin_body(&self) {
        self.is_viewers_turn.store(true, Ordering::Relaxed);
    }

    /// Records bytes passed to h2.
    pub(super) fn record_handed(&self, bytes: usize) {
        self.is_viewers_turn.store(true, Ordering::Relaxed);
        if self.outstanding() == 0 {
            let send_spells = self.send_spells.load(Ordering::Relaxed);
            self.send_spells
                .store(send_spells.wrapping_add(1), Ordering::Relaxed);
        }
        add(&self.handed, bytes as u64);
        self.connection.queue_body(bytes);
        self.connection.earn(PIECE_CREDIT);
    }

    /// Records bytes that h2 put into frames.
    pub(super) fn send(&self, bytes: usize) {
        add(&self.sent, bytes as u64);
        self.connection.record_sent_body(bytes);
        self.note_progress();
    }

    /// Records bytes that h2 dropped.
    pub(super) fn record_dropped(&self, bytes: usize) {
        add(&self.dropped, bytes as u64);
        self.connection.record_dropped_body(bytes);
    }

    /// Records that the body has no bytes now.
    pub(super) fn wait_for_body(&self) {
        self.is_viewers_turn.store(false, Ordering::Relaxed);
    }

    /// Whether bytes are ready that the viewer has not received.
    pub(super) fn is_held_up(&self) -> bool {
        self.is_viewers_turn() || self.outstanding() > 0
    }

    fn is_viewers_turn(&self) -> bool {
        self.is_viewers_turn.load(Ordering::Relaxed)
    }

    /// Bytes passed to h2 that it has neither sent nor dropped.
    pub(super) fn outstanding(&self) -> u64 {
        let finished = self.sent() + self.dropped.load(Ordering::Relaxed);
        self.handed().saturating_sub(finished)
    }

    pub(super) fn handed(&self) -> u64 {
        self.handed.load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn spells(&self) -> u32 {
        self.send_spells.load(Ordering::Relaxed)
    }

    /// Whether the stream must end because its slow viewer holds memory that must be freed.
    pub(super) fn must_end(self: &Arc<SendRate>, cx: &Context<'_>) -> bool {
        let is_held_up = self.is_viewers_turn();
        self.reading.must_end(self, is_held_up, cx.waker())
    }

    /// Records that only the connection's timer observes the stream now. `progress`: the bytes that
    /// count as progress.
    pub(super) fn leave_to_h2(&self, progress: u64) {
        if self.outstanding() > 0 {
            self.unsent.progress.store(progress, Ordering::Relaxed);
            self.enter_turn();
        }
    }

    fn enter_turn(&self) {
        let SendTurn(turn) = self.connection.unsent.enter();
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
            self.connection.unsent.leave(turn);
            self.enter_turn();
        }
    }

    fn unsent_turn(&self) -> Option<SendTurn> {
        let turn = self.unsent.turn.load(Ordering::Relaxed);
        turn.checked_sub(1).map(SendTurn)
    }

    /// Sets the record to complete at the end with the bytes sent and the time.
    pub(super) fn record_at_end(&self, record: RequestRecord) {
        // Set once.
        let _ = self.record.set(record);
    }
}

impl BodyConsumer for SendRate {
    fn bytes_taken(&self) -> u64 {
        self.sent()
    }
}

impl Drop for SendRate {
    fn drop(&mut self) {
        let connection = &self.connection;
        if let Some(turn) = self.unsent_turn() {
            connection.unsent.leave(turn);
        }
        let now = Instant::now();
        if let Some(mut record) = self.record.take() {
            record.bytes = self.sent();
            record.total_time = now.into_std().saturating_duration_since(record.arrived);
            if record.aborted_by.is_none() && self.sent() < self.handed() {
                let for_memory = self.reading.was_cut() || connection.reading.was_cut();
                record.aborted_by = Some(if for_memory {
                    AbortCause::Memory
                } else {
                    AbortCause::Viewer
                });
            }
            if record.aborted_by.is_none() {
                connection.earn(RESPONSE_CREDIT);
            }
            (connection.recorder)(&record);
        }
        connection.stream_closed(now);
    }
}
