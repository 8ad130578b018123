//! How does a connection stand right now? A few numbers that its parts note and its watch reads.
//!
//! hyper owns the socket, the service and the bodies of a connection, so what the watch needs to
//! know is left here by each of them. All of them run on one thread; the atomics are for the
//! compiler's peace and cost a plain load or store.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use parking_lot::Mutex;
use pingora_core::protocols::l4::ext::{TCP_INFO, get_tcp_info};
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant};

use super::RequestRecorder;
use super::flood::WorkDone;
use super::stored_reads::StoredBodiesRead;
use super::unsent::UnsentStreams;
use crate::proxy::BodyConsumer;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for a request.
    Quiet,
    /// The first byte of a request has come, its head is not complete.
    Head,
    /// A request is being answered.
    Serving,
    /// Its answer's head is out, without hyper: nothing can be said of the connection any more.
    Sending,
}

/// Notes on one connection.
pub(super) struct ConnectionState {
    /// Where the tales of this connection go.
    pub(super) teller: RequestRecorder,
    /// The viewer's address; `None` on Unix sockets.
    pub(super) peer: Option<IpAddr>,
    /// Came over TLS.
    pub(super) tls: bool,
    /// The TCP socket, for asking the kernel about it while the connection owns it.
    socket: Option<RawFd>,
    born: Instant,
    phase: AtomicU8,
    since_ns: AtomicU64,
    /// Bytes of the next request came while this one was being answered.
    early: AtomicBool,
    /// HTTP/2: requests being answered. Stays 0 for HTTP/1.
    streams: AtomicU32,
    /// HTTP/2: when a head or a control frame began that has not ended; 0: there is none.
    unfinished_ns: AtomicU64,
    written: AtomicU64,
    /// HTTP/2: what useful work is worth besides the bytes written, in bytes.
    worth: AtomicU64,
    /// HTTP/2: bytes of bodies that h2 has put into frames, and those that it has got and not yet.
    body: AtomicU64,
    queued: AtomicU64,
    blocked: AtomicBool,
    /// How often the socket has taken everything after it took no more.
    releases: AtomicU32,
    /// HTTP/2: streams that h2 has whole.
    pub(super) unsent: UnsentStreams,
    severed: AtomicBool,
    closed: AtomicBool,
    choked: AtomicBool,
    told_to_leave: AtomicBool,
    severable: AtomicBool,
    leftover: AtomicBool,
    /// The stored bodies that are read (HTTP/1).
    pub(super) reading: StoredBodiesRead,
    waker: Mutex<Option<Waker>>,
    task: OnceLock<AbortHandle>,
}

impl ConnectionState {
    pub(super) fn new(
        teller: RequestRecorder,
        peer: Option<IpAddr>,
        tls: bool,
        socket: Option<RawFd>,
    ) -> ConnectionState {
        ConnectionState {
            teller,
            peer,
            tls,
            socket,
            born: Instant::now(),
            phase: AtomicU8::new(Phase::Quiet as u8),
            since_ns: AtomicU64::new(0),
            early: AtomicBool::new(false),
            streams: AtomicU32::new(0),
            unfinished_ns: AtomicU64::new(0),
            written: AtomicU64::new(0),
            worth: AtomicU64::new(0),
            body: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            releases: AtomicU32::new(0),
            unsent: UnsentStreams::default(),
            severed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            choked: AtomicBool::new(false),
            told_to_leave: AtomicBool::new(false),
            severable: AtomicBool::new(true),
            leftover: AtomicBool::new(false),
            reading: StoredBodiesRead::default(),
            waker: Mutex::new(None),
            task: OnceLock::new(),
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

    /// When the phase began.
    pub(super) fn since(&self) -> Instant {
        self.born + Duration::from_nanos(self.since_ns.load(Ordering::Relaxed))
    }

    fn nanos(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.born).as_nanos();
        // Five hundred years of nanoseconds.
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// When a head or a control frame began of which the rest has not come (HTTP/2).
    pub(super) fn set_unfinished(&self, since: Option<Instant>) {
        let since = since.map_or(0, |since| self.nanos(since).max(1));
        self.unfinished_ns.store(since, Ordering::Relaxed);
    }

    pub(super) fn unfinished(&self) -> Option<Instant> {
        let since = self.unfinished_ns.load(Ordering::Relaxed);
        (since > 0).then(|| self.born + Duration::from_nanos(since))
    }

    fn turn(&self, phase: Phase, now: Instant) {
        let since_ns = self.nanos(now);
        self.since_ns.store(since_ns, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Bytes of a request came in (HTTP/1).
    pub(super) fn heard(&self) {
        match self.phase() {
            Phase::Quiet => self.turn(Phase::Head, Instant::now()),
            Phase::Head => {}
            Phase::Serving | Phase::Sending => self.early.store(true, Ordering::Relaxed),
        }
    }

    /// A head is complete (HTTP/1).
    pub(super) fn serving(&self) {
        self.early.store(false, Ordering::Relaxed);
        self.phase.store(Phase::Serving as u8, Ordering::Relaxed);
    }

    /// An answer leaves without hyper (HTTP/1).
    pub(super) fn sending(&self) {
        self.phase.store(Phase::Sending as u8, Ordering::Relaxed);
    }

    /// What came in since the head belonged to the request's own body, also where that came after
    /// the answer.
    pub(super) fn body_read(&self) {
        self.early.store(false, Ordering::Relaxed);
        if self.phase() == Phase::Head {
            self.turn(Phase::Quiet, Instant::now());
        }
    }

    /// An answer is through (HTTP/1).
    pub(super) fn rested(&self, now: Instant) {
        // Bytes of a body that is still read have the body's deadline.
        let early = self.early.swap(false, Ordering::Relaxed) && !self.left_unread();
        self.turn(if early { Phase::Head } else { Phase::Quiet }, now);
    }

    /// A request has come in (HTTP/2).
    pub(super) fn stream_opened(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.phase.store(Phase::Serving as u8, Ordering::Relaxed);
    }

    /// An answer is through (HTTP/2).
    pub(super) fn stream_closed(&self, now: Instant) {
        if self.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.turn(Phase::Quiet, now);
        }
    }

    /// So many bytes were handed to the socket.
    pub(super) fn wrote(&self, bytes: usize) {
        let written = self.written.load(Ordering::Relaxed);
        self.written
            .store(written + bytes as u64, Ordering::Relaxed);
    }

    /// Useful work was done on an HTTP/2 connection, worth so many bytes sent: see
    /// [`super::flood`].
    pub(super) fn earn(&self, bytes: u64) {
        let worth = self.worth.load(Ordering::Relaxed);
        self.worth.store(worth + bytes, Ordering::Relaxed);
    }

    /// h2 has got so many bytes of a body.
    pub(super) fn queue_body(&self, bytes: usize) {
        let queued = self.queued.load(Ordering::Relaxed);
        self.queued.store(queued + bytes as u64, Ordering::Relaxed);
    }

    /// So many bytes of a body left h2.
    pub(super) fn sent_body(&self, bytes: usize) {
        let body = self.body.load(Ordering::Relaxed);
        self.body.store(body + bytes as u64, Ordering::Relaxed);
        self.lost_body(bytes);
    }

    /// h2 has dropped so many bytes of a body, or sent them.
    pub(super) fn lost_body(&self, bytes: usize) {
        let queued = self.queued.load(Ordering::Relaxed);
        let left = queued.saturating_sub(bytes as u64);
        self.queued.store(left, Ordering::Relaxed);
    }

    /// Bytes of bodies that h2 has got and not sent.
    pub(super) fn queued_bytes(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that have left h2.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body.load(Ordering::Relaxed)
    }

    /// What an HTTP/2 connection has done until now.
    pub(super) fn work(&self, now: Instant) -> WorkDone {
        let written = self.written.load(Ordering::Relaxed);
        WorkDone {
            now,
            earned: written + self.worth.load(Ordering::Relaxed),
            body: self.body_bytes(),
        }
    }

    /// The socket takes no more (`true`), or has taken everything (`false`).
    pub(super) fn set_blocked(&self, blocked: bool) {
        if self.blocked() && !blocked {
            let releases = self.releases.load(Ordering::Relaxed);
            self.releases
                .store(releases.wrapping_add(1), Ordering::Relaxed);
        }
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// How often the socket has taken everything after it took no more.
    pub(super) fn releases(&self) -> u32 {
        self.releases.load(Ordering::Relaxed)
    }

    /// Bytes are ready that the socket does not take.
    pub(super) fn blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Bytes the viewer has taken: acknowledged ones where the kernel tells, for its own buffer may
    /// hold megabytes and then reports nothing for minutes; else those that left our hands.
    pub(super) fn taken(&self) -> u64 {
        self.tcp_info()
            .map(|info| info.tcpi_bytes_acked)
            .filter(|acked| *acked > 0)
            .unwrap_or_else(|| self.written.load(Ordering::Relaxed))
    }

    /// The kernel holds bytes that the viewer's has not acknowledged; `false` where it does not tell.
    pub(super) fn has_untaken(&self) -> bool {
        self.tcp_info()
            .is_some_and(|info| info.tcpi_unacked > 0 || info.tcpi_notsent_bytes > 0)
    }

    fn tcp_info(&self) -> Option<TCP_INFO> {
        let is_open = !self.closed.load(Ordering::Acquire);
        let socket = self.socket.filter(|_| is_open)?;
        get_tcp_info(socket).ok()
    }

    /// From now on the end of this connection must not look like a proper one.
    pub(super) fn sever(&self) {
        self.severed.store(true, Ordering::Relaxed);
    }

    pub(super) fn severed(&self) -> bool {
        self.severed.load(Ordering::Relaxed)
    }

    /// One of its streams was cut to free memory: what h2 has queued of it stays until the socket takes
    /// something again (HTTP/2).
    pub(super) fn stream_cut(&self) {
        self.choked.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// The socket takes nothing since then.
    pub(super) fn choked(&self) -> bool {
        if !self.blocked() && self.choked.load(Ordering::Relaxed) {
            self.choked.store(false, Ordering::Relaxed);
        }
        self.choked.load(Ordering::Relaxed)
    }

    /// Its viewer holds up what must leave memory.
    pub(super) fn must_end(self: &Arc<ConnectionState>, waker: &Waker) -> bool {
        self.reading.must_end(self, self.blocked(), waker)
    }

    /// The socket is not the connection's any more.
    pub(super) fn closes(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether the viewer would see that a connection was severed.
    pub(super) fn set_severable(&self, severable: bool) {
        self.severable.store(severable, Ordering::Relaxed);
    }

    pub(super) fn severable(&self) -> bool {
        self.severable.load(Ordering::Relaxed)
    }

    /// Part of a request body was left unread.
    pub(super) fn leave_unread(&self) {
        self.set_unread(true);
    }

    /// Part of a request body is unread, or is no more.
    pub(super) fn set_unread(&self, unread: bool) {
        self.leftover.store(unread, Ordering::Relaxed);
    }

    pub(super) fn left_unread(&self) -> bool {
        self.leftover.load(Ordering::Relaxed)
    }

    /// Since when it has had no request, and may be told to leave.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.phase() == Phase::Quiet && !self.blocked() && !self.is_told_to_leave();
        is_idle.then(|| self.since())
    }

    /// Has it make room for a newcomer. `false`: nobody looks after it yet.
    pub(super) fn tell_to_leave(&self) -> bool {
        let waker = self.waker.lock();
        if let Some(waker) = &*waker {
            self.told_to_leave.store(true, Ordering::Relaxed);
            waker.wake_by_ref();
        }
        waker.is_some()
    }

    pub(super) fn is_told_to_leave(&self) -> bool {
        self.told_to_leave.load(Ordering::Relaxed)
    }

    /// Whom to wake when everyone is to finish.
    pub(super) fn attend(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
    }

    /// Has the connection look at its roll again.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_by_ref();
        }
    }

    /// The connection's task, for throwing it out.
    pub(super) fn runs_in(&self, task: AbortHandle) {
        // Set once, right after the task was made.
        let _ = self.task.set(task);
    }

    pub(super) fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl BodyConsumer for ConnectionState {
    fn bytes_taken(&self) -> u64 {
        self.taken()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge() -> ConnectionState {
        ConnectionState::new(Arc::new(|_| {}), None, false, None)
    }

    #[test]
    fn a_request_goes_through_its_phases() {
        let gauge = gauge();
        assert_eq!(gauge.phase(), Phase::Quiet);
        gauge.heard();
        assert_eq!(gauge.phase(), Phase::Head);
        gauge.serving();
        assert_eq!(gauge.phase(), Phase::Serving);
        gauge.rested(Instant::now());
        assert_eq!(gauge.phase(), Phase::Quiet);
    }

    #[test]
    fn a_pipelined_head_does_not_count_as_quiet() {
        let gauge = gauge();
        gauge.heard();
        gauge.serving();
        gauge.heard();
        gauge.rested(Instant::now());
        assert_eq!(gauge.phase(), Phase::Head);
    }

    #[test]
    fn only_the_last_stream_makes_it_quiet() {
        let gauge = gauge();
        gauge.stream_opened();
        gauge.stream_opened();
        gauge.stream_closed(Instant::now());
        assert_eq!(gauge.phase(), Phase::Serving);
        gauge.stream_closed(Instant::now());
        assert_eq!(gauge.phase(), Phase::Quiet);
    }
}
