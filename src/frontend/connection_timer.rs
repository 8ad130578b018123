//! The one timer of a connection: enforces its deadlines and starts its graceful shutdown.
//!
//! The timer is lazy. It is set to the earliest possible deadline, and the clock is read only when
//! it fires, so a request on a kept-alive connection does not reset it. Waiting for an origin is
//! never counted against the viewer; only bytes that are ready and not received are.
//!
//! hyper's own timeout for request heads is not used. It costs a timer per request and also runs
//! between requests, so a connection could not be idle longer than `head_timeout`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Duration, Instant, Sleep, sleep_until};

use super::Limits;
use super::connection_state::{ConnectionState, Phase};
use super::stats::ConnectionEvent;
use super::unsent::StreamLag;

/// When a listener is closed, the next request of a viewer may be in flight. A quiet HTTP/1
/// connection is closed only after this time; a request that arrives before is answered with
/// `Connection: close`.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(300);

/// When a stream is reset to free memory, h2 drops the bytes that it queued for the stream only
/// once the socket accepts bytes. If the socket accepts nothing for this time, the connection is
/// closed.
const RESET_STREAM_WAIT_MAX: Duration = Duration::from_secs(1);

/// Time in which a connection must close after it was asked to make room for a new one.
pub(super) const LEAVING_TIME: Duration = Duration::from_secs(1);

/// The protocol of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ViewerProtocol {
    Http1,
    Http2,
}

/// What the connection's task must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerAction {
    /// Nothing: the task will be woken.
    Wait,
    /// Finish the requests in progress and accept no new one. Returned once.
    StartShutdown,
    /// Close the connection now.
    Cut(ConnectionEvent),
}

/// The timer of one connection.
pub(super) struct ConnectionTimer {
    protocol: ViewerProtocol,
    limits: Arc<Limits>,
    connection: Arc<ConnectionState>,
    alarm: Pin<Box<Sleep>>,
    /// Set while the socket is full.
    stall: Option<ViewerStall>,
    /// Set while the socket stays full after a stream was reset to free memory.
    reset_stream_since: Option<Instant>,
    /// Set while h2 has the whole body of a stream and has not sent it.
    turn: Option<UnsentTurn>,
    /// When the graceful shutdown of the connection began.
    shutdown_since: Option<Instant>,
    has_waker: bool,
}

/// A period in which the socket is full: bytes are ready, and the viewer does not receive them.
struct ViewerStall {
    since: Instant,
    /// Bytes that the viewer had received when the period began.
    received_bytes: u64,
}

/// The current turn of [`super::unsent`]: the streams whose body h2 has completely are checked at
/// its end.
struct UnsentTurn {
    since: Instant,
    /// [`ConnectionState::drain_count`] when the turn began.
    drain_count: u32,
    /// Body bytes that h2 had put into frames when the turn began.
    body_bytes: u64,
}

/// When something must have happened on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadline {
    at: Instant,
    kind: DeadlineKind,
}

/// What must have happened by a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeadlineKind {
    /// The next request has begun to arrive.
    NextRequest,
    /// A request head is complete.
    RequestHead,
    /// The viewer has received bytes at the minimum rate.
    SendRate,
    /// The streams whose body h2 has completely have made progress.
    UnsentTurn,
    /// h2 has dropped the queue of a stream that was reset to free memory.
    QueueFreed,
    /// A quiet connection begins its graceful shutdown.
    ShutdownStart,
    /// The graceful shutdown has ended.
    ShutdownEnd,
    /// Responses to a viewer who was verified by other authorities have ended.
    WithdrawalEnd,
}

impl DeadlineKind {
    fn at(self, at: Instant) -> Deadline {
        Deadline { at, kind: self }
    }
}

impl ConnectionTimer {
    pub(super) fn new(
        protocol: ViewerProtocol,
        limits: Arc<Limits>,
        connection: Arc<ConnectionState>,
    ) -> ConnectionTimer {
        let alarm = Box::pin(sleep_until(Instant::now() + limits.idle_timeout));
        ConnectionTimer {
            protocol,
            limits,
            connection,
            alarm,
            stall: None,
            reset_stream_since: None,
            turn: None,
            shutdown_since: None,
            has_waker: false,
        }
    }

    /// Checks the deadlines. The connection's task calls this each time it would wait: when hyper,
    /// or the fast path without hyper, has returned `Pending`.
    pub(super) fn check(&mut self, cx: &mut Context<'_>) -> TimerAction {
        if !self.has_waker {
            self.has_waker = true;
            self.connection.set_waker(cx.waker());
        }
        if self.must_start_shutdown() {
            self.shutdown_since = Some(Instant::now());
            return TimerAction::StartShutdown;
        }
        if self.connection.must_free_memory(cx.waker()) {
            return TimerAction::Cut(ConnectionEvent::CutForMemory);
        }
        self.watch_stall();
        self.watch_reset_stream();
        self.watch_unsent_streams();
        loop {
            if let Some(next) = self.next_deadline()
                && next.at < self.alarm.deadline()
            {
                self.alarm.as_mut().reset(next.at);
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return TimerAction::Wait;
            }
            let now = Instant::now();
            match self.next_deadline() {
                Some(next) if next.at <= now => {
                    if let Some(action) = self.handle_expired(next.kind, now) {
                        return action;
                    }
                }
                // The deadline has moved since the alarm was set.
                Some(next) => self.alarm.as_mut().reset(next.at),
                None => self.alarm.as_mut().reset(now + self.limits.idle_timeout),
            }
        }
    }

    /// Whether the graceful shutdown must begin and has not: the listener is closed, or the
    /// connection must make room for a new one.
    fn must_start_shutdown(&self) -> bool {
        self.shutdown_since.is_none()
            && ((self.connection.is_closing() && self.can_stop())
                || (self.connection.is_asked_to_close() && self.can_make_room()))
    }

    /// Whether the shutdown can begin because the listener is closed. A response in progress can be
    /// marked as the last one, unless its head is already sent. A quiet connection first waits for
    /// a request that may be in flight.
    fn can_stop(&self) -> bool {
        match self.connection.phase() {
            _ if self.protocol == ViewerProtocol::Http2 => true,
            Phase::Serving => true,
            Phase::Sending => false,
            Phase::Quiet | Phase::Head => self
                .grace_end()
                .is_some_and(|grace_end| grace_end <= Instant::now()),
        }
    }

    /// Whether the shutdown can begin to make room. HTTP/2 can finish its streams in progress.
    /// HTTP/1 must be quiet, because a response in progress was not marked as the last one.
    fn can_make_room(&self) -> bool {
        self.protocol == ViewerProtocol::Http2 || self.connection.phase() == Phase::Quiet
    }

    /// When a quiet connection begins its shutdown, if the listener is closed.
    fn grace_end(&self) -> Option<Instant> {
        let since = self.connection.closing_since()?;
        Some(since + SHUTDOWN_GRACE)
    }

    fn watch_stall(&mut self) {
        match (self.connection.is_blocked(), &self.stall) {
            (true, None) => {
                self.stall = Some(ViewerStall {
                    since: Instant::now(),
                    received_bytes: self.connection.received_bytes(),
                });
            }
            (false, Some(_)) => self.stall = None,
            _ => {}
        }
    }

    fn watch_reset_stream(&mut self) {
        if !self.connection.waits_for_reset_stream() {
            self.reset_stream_since = None;
        } else if self.reset_stream_since.is_none() {
            self.reset_stream_since = Some(Instant::now());
        }
    }

    fn watch_unsent_streams(&mut self) {
        match (self.connection.unsent.any(), &self.turn) {
            (true, None) => self.turn = Some(self.begin_turn(Instant::now())),
            (false, Some(_)) => self.turn = None,
            _ => {}
        }
    }

    fn begin_turn(&self, since: Instant) -> UnsentTurn {
        UnsentTurn {
            since,
            drain_count: self.connection.drain_count(),
            body_bytes: self.connection.sent_body_bytes(),
        }
    }

    /// The earliest deadline.
    fn next_deadline(&self) -> Option<Deadline> {
        [
            self.phase_deadline(),
            self.send_rate_deadline(),
            self.incomplete_frame_deadline(),
            self.shutdown_start_deadline(),
            self.queue_freed_deadline(),
            self.unsent_turn_deadline(),
            self.withdrawal_deadline(),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|deadline| deadline.at)
    }

    /// The deadline of what the connection is doing.
    fn phase_deadline(&self) -> Option<Deadline> {
        let since = self.connection.phase_since();
        match (self.connection.phase(), self.shutdown_since) {
            (Phase::Serving | Phase::Sending, _) => None,
            // The end of a response still waits for the socket: the send rate applies.
            (Phase::Quiet, _) if self.connection.is_blocked() => None,
            (Phase::Quiet | Phase::Head, Some(shutdown_since)) => {
                let since = shutdown_since.max(since);
                Some(DeadlineKind::ShutdownEnd.at(since + self.shutdown_time()))
            }
            (Phase::Quiet, None) => {
                Some(DeadlineKind::NextRequest.at(since + self.limits.idle_timeout))
            }
            (Phase::Head, None) => {
                Some(DeadlineKind::RequestHead.at(since + self.limits.head_timeout))
            }
        }
    }

    /// Time in which a quiet connection must close after its shutdown began.
    fn shutdown_time(&self) -> Duration {
        if self.connection.is_asked_to_close() {
            LEAVING_TIME
        } else {
            self.limits.send_rate_window
        }
    }

    fn send_rate_deadline(&self) -> Option<Deadline> {
        let stall = self.stall.as_ref()?;
        Some(DeadlineKind::SendRate.at(stall.since + self.limits.send_rate_window))
    }

    fn incomplete_frame_deadline(&self) -> Option<Deadline> {
        let since = self.connection.incomplete_frame_since()?;
        Some(DeadlineKind::RequestHead.at(since + self.limits.head_timeout))
    }

    fn shutdown_start_deadline(&self) -> Option<Deadline> {
        let is_waiting = self.shutdown_since.is_none()
            && self.connection.phase() != Phase::Sending
            && self.connection.is_closing();
        if !is_waiting {
            return None;
        }
        self.grace_end()
            .map(|grace_end| DeadlineKind::ShutdownStart.at(grace_end))
    }

    fn queue_freed_deadline(&self) -> Option<Deadline> {
        let since = self.reset_stream_since?;
        Some(DeadlineKind::QueueFreed.at(since + RESET_STREAM_WAIT_MAX))
    }

    fn unsent_turn_deadline(&self) -> Option<Deadline> {
        let turn = self.turn.as_ref()?;
        Some(DeadlineKind::UnsentTurn.at(turn.since + self.limits.turn_time()))
    }

    fn withdrawal_deadline(&self) -> Option<Deadline> {
        let cut_at = self.connection.cut_at()?;
        Some(DeadlineKind::WithdrawalEnd.at(cut_at))
    }

    /// Handles an expired deadline. `None`: the connection may continue.
    fn handle_expired(&mut self, kind: DeadlineKind, now: Instant) -> Option<TimerAction> {
        match kind {
            DeadlineKind::RequestHead => Some(TimerAction::Cut(ConnectionEvent::HeadTimeout)),
            DeadlineKind::ShutdownEnd => Some(TimerAction::Cut(ConnectionEvent::IdleTimeout)),
            DeadlineKind::WithdrawalEnd => {
                self.connection.record_drain_cut();
                Some(TimerAction::Cut(ConnectionEvent::CutAtDrain))
            }
            DeadlineKind::QueueFreed => {
                self.connection.stored_bodies.record_cut();
                Some(TimerAction::Cut(ConnectionEvent::CutForMemory))
            }
            DeadlineKind::NextRequest if self.protocol == ViewerProtocol::Http1 => {
                Some(TimerAction::Cut(ConnectionEvent::IdleTimeout))
            }
            DeadlineKind::NextRequest | DeadlineKind::ShutdownStart => {
                self.shutdown_since = Some(now);
                Some(TimerAction::StartShutdown)
            }
            DeadlineKind::UnsentTurn => self.end_turn(now),
            DeadlineKind::SendRate => self.check_send_rate(now),
        }
    }

    /// Begins the next turn. Cuts the connection if one of its unsent streams is too slow.
    fn end_turn(&mut self, now: Instant) -> Option<TimerAction> {
        let turn = self.turn.replace(self.begin_turn(now))?;
        // If the socket accepts nothing, `check_send_rate` decides.
        if self.connection.is_blocked() && self.connection.drain_count() == turn.drain_count {
            return None;
        }
        let sent_bytes = self.connection.sent_body_bytes() - turn.body_bytes;
        let is_too_slow = match self.connection.unsent.next_turn() {
            StreamLag::None => false,
            // It may have waited for other streams, if these sent enough in this half of a window:
            // as much as two streams at the minimum rate.
            StreamLag::Late => sent_bytes < self.limits.send_min_bytes(),
            StreamLag::TooLate => true,
        };
        is_too_slow.then_some(TimerAction::Cut(ConnectionEvent::SlowViewer))
    }

    /// Cuts the connection if its viewer has received too few bytes in this window; otherwise
    /// begins the next window.
    fn check_send_rate(&mut self, now: Instant) -> Option<TimerAction> {
        let received_bytes = self.connection.received_bytes();
        let stall = self.stall.as_mut()?;
        if received_bytes.saturating_sub(stall.received_bytes) < self.limits.send_min_bytes() {
            return Some(TimerAction::Cut(ConnectionEvent::SlowViewer));
        }
        *stall = ViewerStall {
            since: now,
            received_bytes,
        };
        None
    }
}

impl Limits {
    /// How long a turn of the unsent streams lasts: half a window, so a stream without progress is
    /// late after 1 to 1.5 windows.
    fn turn_time(&self) -> Duration {
        self.send_rate_window / 2
    }

    /// The time that these bytes take at the minimum rate; `None` if there is no minimum.
    pub(super) fn time_at_min_rate(&self, bytes: u64) -> Option<Duration> {
        bytes
            .checked_div(self.send_rate_min_bytes_per_second)
            .map(Duration::from_secs)
    }

    /// Bytes that a viewer must receive within one window.
    pub(super) fn send_min_bytes(&self) -> u64 {
        let window_ms = u64::try_from(self.send_rate_window.as_millis()).unwrap_or(u64::MAX);
        // At least one byte, even if the rate is 0.
        (self
            .send_rate_min_bytes_per_second
            .saturating_mul(window_ms)
            / 1000)
            .max(1)
    }
}

/// Polls a timer that is created on first use.
pub(super) fn poll_alarm(
    alarm: &mut Option<Pin<Box<Sleep>>>,
    due: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
    if alarm.deadline() != due {
        alarm.as_mut().reset(due);
    }
    alarm.as_mut().poll(cx)
}

#[cfg(test)]
mod tests;
