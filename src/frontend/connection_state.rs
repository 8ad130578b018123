//! The state of one connection: its parts write it, and its timer reads it.
//!
//! hyper or the fast path owns the socket, the service and the bodies of a connection, so each of
//! them records here what the timer needs. All of them run on the thread that serves the
//! connection. Other threads only read how long the connection is idle, how many bytes it has
//! queued and how many its viewer has received, ask it to close, wake it and abort it. The fields
//! are atomic for these threads; the connection's own thread pays a plain load or store for almost
//! all of them.

mod closing;
mod handover;

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use parking_lot::Mutex;
use pingora_core::protocols::l4::ext::{TCP_INFO, get_tcp_info};
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant};

use self::closing::Withdrawal;
use super::RequestRecorder;
use super::flood::WorkDone;
use super::stored_reads::StoredBodiesRead;
use super::unsent::UnsentStreams;
use crate::proxy::BodyConsumer;
use crate::telemetry::AbortCause;
use seawall_policy::{CertificateNames, ViewerAddress};

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No request; waits for the next one.
    Quiet,
    /// The first byte of a request head has arrived; the head is incomplete.
    Head,
    /// A request is being answered.
    Serving,
    /// The fast path sends a response whose head is complete: `Connection: close` can no longer be
    /// added.
    Sending,
}

/// The state of one connection.
pub(super) struct ConnectionState {
    /// Receives the records of its requests.
    pub(super) recorder: RequestRecorder,
    /// The address of the other end; `None` on Unix sockets.
    peer: Option<IpAddr>,
    /// The viewer, if `peer` is a proxy that named it before the first request.
    viewer: OnceLock<IpAddr>,
    /// Uses TLS.
    pub(super) tls: bool,
    /// Whom the viewer's certificate names, if it has one. Set by the handshake.
    pub(super) certificate: OnceLock<Arc<CertificateNames>>,
    /// The TCP socket, for `TCP_INFO` while the connection owns it.
    socket: Option<RawFd>,
    born: Instant,
    phase: AtomicU8,
    /// Start of the phase, in nanoseconds after `born`; the same for all `_ns` fields.
    phase_since_ns: AtomicU64,
    /// When the request arrived that hyper handles after a wait without it; 0 means there is none.
    waited_since_ns: AtomicU64,
    /// The request that hyper handles was taken from the rate limits of its route without it.
    is_counted: AtomicBool,
    /// Bytes of the next request arrived before this one was answered.
    has_early_bytes: AtomicBool,
    /// HTTP/2: requests in progress. Stays 0 for HTTP/1.
    streams: AtomicU32,
    /// HTTP/2: since when a head or control frame has been incomplete; 0 means none is.
    incomplete_frame_since_ns: AtomicU64,
    written_bytes: AtomicU64,
    /// HTTP/2: credit for useful work in addition to the bytes written, in bytes: see
    /// [`super::flood`].
    flood_credit_bytes: AtomicU64,
    /// HTTP/2: body bytes that h2 has received, has put into frames (`body_sent`) and has dropped.
    body_queued: AtomicU64,
    body_sent: AtomicU64,
    body_dropped: AtomicU64,
    /// The socket is full, and bytes wait for it.
    blocked: AtomicBool,
    /// How often the socket accepted all bytes after it had been full.
    drain_count: AtomicU32,
    /// HTTP/2: streams whose body h2 has completely.
    pub(super) unsent: UnsentStreams,
    /// The connection must end with a reset.
    resets_on_close: AtomicBool,
    /// The connection no longer owns the socket.
    is_closed: AtomicBool,
    /// HTTP/2: a stream was reset to free memory, and the socket has stayed full since then.
    waits_for_reset_stream: AtomicBool,
    asked_to_close: AtomicBool,
    /// Since when its listener is closed.
    closing_since: OnceLock<Instant>,
    /// Set when who verified its viewer no longer does.
    withdrawal: OnceLock<Withdrawal>,
    /// The viewer can distinguish a reset from a clean close.
    can_reset: AtomicBool,
    /// Part of a request body is unread.
    has_unread: AtomicBool,
    /// hyper was given bytes, or the end of input, after the last response without it (HTTP/1).
    has_hyper_input: AtomicBool,
    /// Stored bodies that responses are reading (HTTP/1).
    pub(super) stored_bodies: StoredBodiesRead,
    waker: Mutex<Option<Waker>>,
    task: OnceLock<AbortHandle>,
    /// This server cuts it at the end of a drain. Shared with requests that wait for a response.
    pub(super) is_cut_by_drain: Arc<AtomicBool>,
}

/// A plain load and store: only the connection's thread counts.
pub(super) fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

impl ConnectionState {
    /// Where the connection comes from.
    pub(super) fn address(&self) -> ViewerAddress {
        match self.viewer.get() {
            None => ViewerAddress {
                viewer: self.peer,
                proxy: None,
            },
            Some(viewer) => ViewerAddress {
                viewer: Some(*viewer),
                proxy: self.peer,
            },
        }
    }

    /// Sets the viewer whom the proxy at the other end has named. Called once.
    pub(super) fn set_viewer(&self, viewer: IpAddr) {
        let _ = self.viewer.set(viewer);
    }

    pub(super) fn new(
        recorder: RequestRecorder,
        peer: Option<IpAddr>,
        tls: bool,
        socket: Option<RawFd>,
    ) -> ConnectionState {
        ConnectionState {
            recorder,
            peer,
            viewer: OnceLock::new(),
            tls,
            certificate: OnceLock::new(),
            socket,
            born: Instant::now(),
            phase: AtomicU8::new(Phase::Quiet as u8),
            phase_since_ns: AtomicU64::new(0),
            waited_since_ns: AtomicU64::new(0),
            is_counted: AtomicBool::new(false),
            has_early_bytes: AtomicBool::new(false),
            streams: AtomicU32::new(0),
            incomplete_frame_since_ns: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            flood_credit_bytes: AtomicU64::new(0),
            body_queued: AtomicU64::new(0),
            body_sent: AtomicU64::new(0),
            body_dropped: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            drain_count: AtomicU32::new(0),
            unsent: UnsentStreams::default(),
            resets_on_close: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            waits_for_reset_stream: AtomicBool::new(false),
            asked_to_close: AtomicBool::new(false),
            closing_since: OnceLock::new(),
            withdrawal: OnceLock::new(),
            can_reset: AtomicBool::new(true),
            has_unread: AtomicBool::new(false),
            has_hyper_input: AtomicBool::new(false),
            stored_bodies: StoredBodiesRead::default(),
            waker: Mutex::new(None),
            task: OnceLock::new(),
            is_cut_by_drain: Arc::default(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Quiet,
            1 => Phase::Head,
            2 => Phase::Serving,
            _ => Phase::Sending,
        }
    }

    /// Start of the current phase.
    pub(super) fn phase_since(&self) -> Instant {
        self.born + Duration::from_nanos(self.phase_since_ns.load(Ordering::Relaxed))
    }

    fn nanos(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.born).as_nanos();
        // A `u64` holds more than 500 years of nanoseconds.
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// Sets since when a head or control frame has been incomplete (HTTP/2).
    pub(super) fn set_incomplete_frame_since(&self, since: Option<Instant>) {
        let since = since.map_or(0, |since| self.nanos(since).max(1));
        self.incomplete_frame_since_ns
            .store(since, Ordering::Relaxed);
    }

    pub(super) fn incomplete_frame_since(&self) -> Option<Instant> {
        let since = self.incomplete_frame_since_ns.load(Ordering::Relaxed);
        (since > 0).then(|| self.born + Duration::from_nanos(since))
    }

    fn set_phase(&self, phase: Phase, now: Instant) {
        let phase_since_ns = self.nanos(now);
        self.phase_since_ns.store(phase_since_ns, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Records that bytes of a request arrived (HTTP/1).
    pub(super) fn record_request_bytes(&self) {
        match self.phase() {
            Phase::Quiet => self.set_phase(Phase::Head, Instant::now()),
            Phase::Head => {}
            Phase::Serving | Phase::Sending => self.has_early_bytes.store(true, Ordering::Relaxed),
        }
    }

    /// Records that a request head is complete (HTTP/1).
    pub(super) fn begin_request(&self) {
        // Bytes that arrived while the request waited belong to the next one.
        if self.phase() != Phase::Sending {
            self.has_early_bytes.store(false, Ordering::Relaxed);
        }
        self.phase.store(Phase::Serving as u8, Ordering::Relaxed);
    }

    /// Records that hyper was given bytes (`true`), or that a request was answered without it
    /// (`false`) (HTTP/1).
    pub(super) fn set_has_hyper_input(&self, has_hyper_input: bool) {
        self.has_hyper_input
            .store(has_hyper_input, Ordering::Relaxed);
    }

    /// Whether hyper's state must be kept (HTTP/1): hyper was given bytes, or a request is in
    /// progress.
    pub(super) fn needs_hyper(&self) -> bool {
        self.has_hyper_input.load(Ordering::Relaxed) || self.phase() != Phase::Quiet
    }

    /// Records that the fast path sends a response (HTTP/1).
    pub(super) fn begin_fast_response(&self) {
        self.phase.store(Phase::Sending as u8, Ordering::Relaxed);
    }

    /// Records that the request body is complete: the bytes since the head belonged to it, also
    /// those that arrived after the response. They are not the head of the next request.
    pub(super) fn finish_request_body(&self) {
        self.has_early_bytes.store(false, Ordering::Relaxed);
        if self.phase() == Phase::Head {
            self.set_phase(Phase::Quiet, Instant::now());
        }
    }

    /// Records the end of a response (HTTP/1).
    pub(super) fn finish_response(&self, now: Instant) {
        // A request body that is still read has its own deadline.
        let has_early_bytes =
            self.has_early_bytes.swap(false, Ordering::Relaxed) && !self.has_unread_body();
        let phase = if has_early_bytes {
            Phase::Head
        } else {
            Phase::Quiet
        };
        self.set_phase(phase, now);
    }

    /// Records that the connection speaks HTTP/2 from now on. The preface was no request head, so
    /// the idle time begins.
    pub(super) fn begin_http2(&self, now: Instant) {
        self.set_phase(Phase::Quiet, now);
    }

    /// Records a new request (HTTP/2).
    pub(super) fn record_stream_start(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.phase.store(Phase::Serving as u8, Ordering::Relaxed);
    }

    /// Records the end of a response (HTTP/2).
    pub(super) fn record_stream_end(&self, now: Instant) {
        if self.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.set_phase(Phase::Quiet, now);
        }
    }

    /// Records bytes written to the socket.
    pub(super) fn record_written(&self, bytes: usize) {
        add(&self.written_bytes, bytes as u64);
    }

    /// Adds credit for useful work on an HTTP/2 connection, in bytes: see [`super::flood`].
    pub(super) fn add_flood_credit(&self, bytes: u64) {
        add(&self.flood_credit_bytes, bytes);
    }

    /// Records body bytes passed to h2.
    pub(super) fn record_queued_body(&self, bytes: usize) {
        add(&self.body_queued, bytes as u64);
    }

    /// Records body bytes that h2 has put into frames.
    pub(super) fn record_sent_body(&self, bytes: usize) {
        add(&self.body_sent, bytes as u64);
    }

    /// Records body bytes that h2 has dropped.
    pub(super) fn record_dropped_body(&self, bytes: usize) {
        add(&self.body_dropped, bytes as u64);
    }

    /// Body bytes that h2 holds: neither put into frames nor dropped.
    pub(super) fn queued_bytes(&self) -> u64 {
        let dropped = self.body_dropped.load(Ordering::Relaxed);
        let finished = self.sent_body_bytes() + dropped;
        let queued = self.body_queued.load(Ordering::Relaxed);
        // The connection's thread may count between these loads.
        queued.saturating_sub(finished)
    }

    /// Body bytes that h2 has put into frames.
    pub(super) fn sent_body_bytes(&self) -> u64 {
        self.body_sent.load(Ordering::Relaxed)
    }

    /// The useful work of an HTTP/2 connection up to now.
    pub(super) fn work_done(&self, now: Instant) -> WorkDone {
        let written = self.written_bytes.load(Ordering::Relaxed);
        WorkDone {
            now,
            credit_bytes: written + self.flood_credit_bytes.load(Ordering::Relaxed),
            body_bytes: self.sent_body_bytes(),
        }
    }

    /// Records that the socket is full (`true`) or has accepted all bytes (`false`).
    pub(super) fn set_blocked(&self, blocked: bool) {
        if self.is_blocked() && !blocked {
            let drain_count = self.drain_count.load(Ordering::Relaxed);
            self.drain_count
                .store(drain_count.wrapping_add(1), Ordering::Relaxed);
        }
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// How often the socket accepted all bytes after it had been full.
    pub(super) fn drain_count(&self) -> u32 {
        self.drain_count.load(Ordering::Relaxed)
    }

    /// Whether bytes wait because the socket is full.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Bytes that the viewer has received: those that TCP has acknowledged if the kernel reports
    /// them, otherwise those written to the socket. The send buffer of the kernel may hold
    /// megabytes and then accept nothing for minutes.
    pub(super) fn received_bytes(&self) -> u64 {
        self.tcp_info()
            .map(|info| info.tcpi_bytes_acked)
            .filter(|acked| *acked > 0)
            .unwrap_or_else(|| self.written_bytes.load(Ordering::Relaxed))
    }

    /// Whether the kernel holds bytes that the viewer has not acknowledged; `false` if unknown.
    pub(super) fn has_unacknowledged(&self) -> bool {
        self.tcp_info()
            .is_some_and(|info| info.tcpi_unacked > 0 || info.tcpi_notsent_bytes > 0)
    }

    fn tcp_info(&self) -> Option<TCP_INFO> {
        let is_open = !self.is_closed.load(Ordering::Acquire);
        let socket = self.socket.filter(|_| is_open)?;
        get_tcp_info(socket).ok()
    }

    /// Records that the connection must end with a reset: a clean close would make an incomplete
    /// response look complete.
    pub(super) fn reset_on_close(&self) {
        self.resets_on_close.store(true, Ordering::Relaxed);
    }

    pub(super) fn resets_on_close(&self) -> bool {
        self.resets_on_close.load(Ordering::Relaxed)
    }

    /// Records that a stream was reset to free memory (HTTP/2). h2 keeps the bytes that it queued
    /// for the stream until the socket accepts bytes again.
    pub(super) fn record_reset_stream(&self) {
        self.waits_for_reset_stream.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Whether the socket has stayed full since a stream was reset to free memory.
    pub(super) fn waits_for_reset_stream(&self) -> bool {
        if !self.is_blocked() && self.waits_for_reset_stream.load(Ordering::Relaxed) {
            self.waits_for_reset_stream.store(false, Ordering::Relaxed);
        }
        self.waits_for_reset_stream.load(Ordering::Relaxed)
    }

    /// Whether the connection must end because its slow viewer holds memory that must be freed. If
    /// not, `waker` is called as soon as it must.
    pub(super) fn must_free_memory(self: &Arc<ConnectionState>, waker: &Waker) -> bool {
        self.stored_bodies
            .must_free_memory(self, self.is_blocked(), waker)
    }

    /// Records that the connection no longer owns the socket.
    pub(super) fn mark_closed(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Sets whether the viewer can distinguish a reset from a clean close.
    pub(super) fn set_can_reset(&self, can_reset: bool) {
        self.can_reset.store(can_reset, Ordering::Relaxed);
    }

    pub(super) fn can_reset(&self) -> bool {
        self.can_reset.load(Ordering::Relaxed)
    }

    /// Records that part of a request body will not be read.
    pub(super) fn leave_unread(&self) {
        self.set_unread(true);
    }

    /// Sets whether part of a request body is unread.
    pub(super) fn set_unread(&self, unread: bool) {
        self.has_unread.store(unread, Ordering::Relaxed);
    }

    pub(super) fn has_unread_body(&self) -> bool {
        self.has_unread.load(Ordering::Relaxed)
    }

    /// Sets the waker of the connection's task.
    pub(super) fn set_waker(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
    }

    /// Sets the connection's task, so that it can be aborted.
    pub(super) fn set_task(&self, task: AbortHandle) {
        // Set once, right after the task was spawned.
        let _ = self.task.set(task);
    }

    /// Records that the connection is cut next, because a drain has taken too long.
    pub(super) fn record_drain_cut(&self) {
        self.is_cut_by_drain.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cut_by_drain(&self) -> bool {
        self.is_cut_by_drain.load(Ordering::Relaxed)
    }

    pub(super) fn abort(&self) {
        self.record_drain_cut();
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Who ended a response that was not sent to its end, and that reads these bodies.
    pub(super) fn abort_cause(&self, bodies: &StoredBodiesRead) -> AbortCause {
        if bodies.was_cut() || self.stored_bodies.was_cut() {
            AbortCause::Memory
        } else if self.is_cut_by_drain() {
            AbortCause::Drain
        } else {
            AbortCause::Viewer
        }
    }
}

impl BodyConsumer for ConnectionState {
    fn bytes_taken(&self) -> u64 {
        self.received_bytes()
    }
}

#[cfg(test)]
mod tests;
