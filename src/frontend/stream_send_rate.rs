//! Counts the sent bytes of an HTTP/2 stream, and records its request when all have been sent.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;

use tokio::time::Instant;

use super::connection_state::{ConnectionState, add};
use super::flood::{CHUNK_CREDIT, RESPONSE_CREDIT};
use super::stored_reads::StoredBodiesRead;
use super::unsent::SendTurn;
use crate::proxy::BodyConsumer;
use crate::telemetry::RequestRecord;

/// The send rate of a stream. The body, the stream's task and every unsent chunk in h2 hold it.
/// When it is dropped, the stream has ended, and its request is recorded.
pub(super) struct StreamSendRate {
    /// Body bytes passed to h2.
    passed_to_h2: AtomicU64,
    /// Bytes that h2 has put into frames (`sent`) or has dropped (`dropped`).
    sent: AtomicU64,
    dropped: AtomicU64,
    /// How often bytes were passed to h2 when it had sent all bytes before. A burst ends when h2
    /// has sent everything.
    send_bursts: AtomicU32,
    /// The next bytes wait for the viewer: they have been passed to h2, or the windows have no room
    /// for them. `false`: the body has no bytes yet.
    is_waiting_for_viewer: AtomicBool,
    /// Progress of a stream whose body h2 has completely.
    unsent: UnsentStream,
    /// Stored bodies that the response is reading.
    pub(super) stored_bodies: StoredBodiesRead,
    record: OnceLock<RequestRecord>,
    connection: Arc<ConnectionState>,
}

#[derive(Default)]
struct UnsentStream {
    /// The turn of the last progress, plus 1. 0: h2 does not have the whole body.
    turn: AtomicU32,
    /// Bytes sent at the last progress.
    sent: AtomicU64,
    /// Bytes that must be sent for the next progress.
    progress_bytes: AtomicU64,
}

impl StreamSendRate {
    /// The send rate of the stream of a new request.
    pub(super) fn new(connection: Arc<ConnectionState>) -> Arc<StreamSendRate> {
        connection.record_stream_start();
        Arc::new(StreamSendRate {
            passed_to_h2: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            send_bursts: AtomicU32::new(0),
            is_waiting_for_viewer: AtomicBool::new(false),
            unsent: UnsentStream::default(),
            stored_bodies: StoredBodiesRead::default(),
            record: OnceLock::new(),
            connection,
        })
    }

    pub(super) fn connection(&self) -> &Arc<ConnectionState> {
        &self.connection
    }

    /// Records that the response has a body.
    pub(super) fn record_body_start(&self) {
        self.is_waiting_for_viewer.store(true, Ordering::Relaxed);
    }

    /// Records bytes passed to h2.
    pub(super) fn record_passed_to_h2(&self, bytes: usize) {
        self.is_waiting_for_viewer.store(true, Ordering::Relaxed);
        if self.unsent_bytes() == 0 {
            let send_bursts = self.send_bursts.load(Ordering::Relaxed);
            self.send_bursts
                .store(send_bursts.wrapping_add(1), Ordering::Relaxed);
        }
        add(&self.passed_to_h2, bytes as u64);
        self.connection.record_queued_body(bytes);
        self.connection.add_flood_credit(CHUNK_CREDIT);
    }

    /// Records bytes that h2 put into frames.
    pub(super) fn record_sent(&self, bytes: usize) {
        add(&self.sent, bytes as u64);
        self.connection.record_sent_body(bytes);
        self.record_progress();
    }

    /// Records bytes that h2 dropped.
    pub(super) fn record_dropped(&self, bytes: usize) {
        add(&self.dropped, bytes as u64);
        self.connection.record_dropped_body(bytes);
    }

    /// Records that the body has no bytes now.
    pub(super) fn record_body_wait(&self) {
        self.is_waiting_for_viewer.store(false, Ordering::Relaxed);
    }

    /// Whether bytes are ready that the viewer has not received.
    pub(super) fn has_waiting_bytes(&self) -> bool {
        self.is_waiting_for_viewer() || self.unsent_bytes() > 0
    }

    fn is_waiting_for_viewer(&self) -> bool {
        self.is_waiting_for_viewer.load(Ordering::Relaxed)
    }

    /// Bytes that h2 holds: neither sent nor dropped.
    fn unsent_bytes(&self) -> u64 {
        let finished = self.sent() + self.dropped.load(Ordering::Relaxed);
        self.passed_to_h2().saturating_sub(finished)
    }

    pub(super) fn passed_to_h2(&self) -> u64 {
        self.passed_to_h2.load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn send_bursts(&self) -> u32 {
        self.send_bursts.load(Ordering::Relaxed)
    }

    /// Whether the stream must end because its slow viewer holds memory that must be freed.
    pub(super) fn must_free_memory(self: &Arc<StreamSendRate>, cx: &Context<'_>) -> bool {
        self.stored_bodies
            .must_free_memory(self, self.is_waiting_for_viewer(), cx.waker())
    }

    /// Records that the stream's task has ended and h2 has the rest of the body: from now on the
    /// connection's timer checks the stream. Each time that h2 has sent `progress_bytes`, the
    /// stream has made progress.
    pub(super) fn leave_to_h2(&self, progress_bytes: u64) {
        if self.unsent_bytes() > 0 {
            self.unsent
                .progress_bytes
                .store(progress_bytes, Ordering::Relaxed);
            self.enter_turn();
        }
    }

    /// Counts the stream in the current turn.
    fn enter_turn(&self) {
        let SendTurn(turn) = self.connection.unsent.enter();
        self.unsent
            .turn
            .store(turn.wrapping_add(1), Ordering::Relaxed);
        self.unsent.sent.store(self.sent(), Ordering::Relaxed);
    }

    /// Moves the stream to the current turn if it has made progress since its turn.
    fn record_progress(&self) {
        if let Some(turn) = self.unsent_turn()
            && self.sent() - self.unsent.sent.load(Ordering::Relaxed)
                >= self.unsent.progress_bytes.load(Ordering::Relaxed)
        {
            self.connection.unsent.leave(turn);
            self.enter_turn();
        }
    }

    /// The turn of the last progress, if h2 has the whole body.
    fn unsent_turn(&self) -> Option<SendTurn> {
        let turn = self.unsent.turn.load(Ordering::Relaxed);
        turn.checked_sub(1).map(SendTurn)
    }

    /// Sets the record. When the stream has ended, the bytes sent and the total time are added, and
    /// the request is recorded.
    pub(super) fn record_at_end(&self, record: RequestRecord) {
        // Set once.
        let _ = self.record.set(record);
    }

    /// Completes and records the request of the stream.
    fn record_request(&self, mut record: RequestRecord, now: Instant) {
        record.bytes = self.sent();
        record.total_time = now.into_std().saturating_duration_since(record.arrived);
        if record.aborted_by.is_none() && self.sent() < self.passed_to_h2() {
            record.aborted_by = Some(self.connection.abort_cause(&self.stored_bodies));
        }
        if record.aborted_by.is_none() {
            self.connection.add_flood_credit(RESPONSE_CREDIT);
        }
        (self.connection.recorder)(&record);
    }
}

impl BodyConsumer for StreamSendRate {
    fn bytes_taken(&self) -> u64 {
        self.sent()
    }
}

impl Drop for StreamSendRate {
    fn drop(&mut self) {
        if let Some(turn) = self.unsent_turn() {
            self.connection.unsent.leave(turn);
        }
        let now = Instant::now();
        if let Some(record) = self.record.take() {
            self.record_request(record, now);
        }
        self.connection.record_stream_end(now);
    }
}
