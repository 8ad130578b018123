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
use super::connection_table::ConnectionTable;
use super::stats::ConnectionEvent;
use super::unsent::StreamLag;

/// At shutdown, the next request of a viewer may be in flight. A quiet HTTP/1 connection is closed
/// only after this time; a request that arrives before is answered with `Connection: close`.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(300);

/// Resetting a stream to free memory also drops its queue, once the socket accepts bytes. If the
/// socket accepts nothing for this time, the connection is closed.
const CHOKED_MAX: Duration = Duration::from_secs(1);

/// Time in which a connection must close after it was asked to make room.
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
    Finish,
    /// Close the connection now.
    Cut(ConnectionEvent),
}

/// A period in which bytes were ready for the viewer.
struct ViewerStall {
    since: Instant,
    taken: u64,
}

/// The timer of one connection.
pub(super) struct ConnectionTimer {
    protocol: ViewerProtocol,
    limits: Arc<Limits>,
    connections: Arc<ConnectionTable>,
    connection: Arc<ConnectionState>,
    alarm: Pin<Box<Sleep>>,
    stall: Option<ViewerStall>,
    /// Since when the socket has been full after a stream was reset to free memory.
    choked_since: Option<Instant>,
    /// The current turn, if h2 has the whole body of a stream.
    turn: Option<UnsentTurn>,
    /// When the graceful shutdown of the connection began.
    finishing: Option<Instant>,
    has_waker: bool,
}

/// A turn of the streams whose body h2 has completely.
struct UnsentTurn {
    since: Instant,
    /// How often the socket had accepted all bytes.
    releases: u32,
    /// Body bytes that h2 had put into frames.
    body_bytes: u64,
}

impl ConnectionTimer {
    pub(super) fn new(
        protocol: ViewerProtocol,
        limits: Arc<Limits>,
        connections: Arc<ConnectionTable>,
        connection: Arc<ConnectionState>,
    ) -> ConnectionTimer {
        let alarm = Box::pin(sleep_until(Instant::now() + limits.idle_timeout));
        ConnectionTimer {
            protocol,
            limits,
            connections,
            connection,
            alarm,
            stall: None,
            choked_since: None,
            turn: None,
            finishing: None,
            has_waker: false,
        }
    }

    /// Checks the connection. Called after each poll of it that returned `Pending`.
    pub(super) fn check(&mut self, cx: &mut Context<'_>) -> TimerAction {
        if !self.has_waker {
            self.has_waker = true;
            self.connection.set_waker(cx.waker());
        }
        let must_finish = (self.connections.closing() && self.may_finish())
            || (self.connection.is_asked_to_close() && self.may_leave());
        if self.finishing.is_none() && must_finish {
            self.finishing = Some(Instant::now());
            return TimerAction::Finish;
        }
        if self.connection.must_end(cx.waker()) {
            return TimerAction::Cut(ConnectionEvent::CutForMemory);
        }
        self.follow_stall();
        self.follow_choke();
        self.follow_unsent();
        loop {
            if let Some((due, _)) = self.due()
                && due < self.alarm.deadline()
            {
                self.alarm.as_mut().reset(due);
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return TimerAction::Wait;
            }
            let now = Instant::now();
            match self.due() {
                Some((due, overdue)) if due <= now => {
                    if let Some(action) = self.handle_expired(overdue, now) {
                        return action;
                    }
                }
                Some((due, _)) => self.alarm.as_mut().reset(due),
                None => self.alarm.as_mut().reset(now + self.limits.idle_timeout),
            }
        }
    }

    /// A response in progress can be marked as the last one, unless its head is already sent. A
    /// quiet connection first waits for a request that may be in flight.
    fn may_finish(&self) -> bool {
        let is_past_last_call = || self.last_call().is_some_and(|time| time <= Instant::now());
        match self.connection.phase() {
            _ if self.protocol == ViewerProtocol::Http2 => true,
            Phase::Serving => true,
            Phase::Sending => false,
            Phase::Quiet | Phase::Head => is_past_last_call(),
        }
    }

    /// HTTP/2 can finish its streams in progress. HTTP/1 must be quiet, because a response in
    /// progress was not marked as the last one.
    fn may_leave(&self) -> bool {
        self.protocol == ViewerProtocol::Http2 || self.connection.phase() == Phase::Quiet
    }

    fn last_call(&self) -> Option<Instant> {
        self.connections
            .closing_since()
            .map(|since| since + SHUTDOWN_GRACE)
    }

    fn follow_stall(&mut self) {
        match (self.connection.blocked(), &self.stall) {
            (true, None) => {
                self.stall = Some(ViewerStall {
                    since: Instant::now(),
                    taken: self.connection.received_bytes(),
                });
            }
            (false, Some(_)) => self.stall = None,
            _ => {}
        }
    }

    fn follow_choke(&mut self) {
        if !self.connection.choked() {
            self.choked_since = None;
        } else if self.choked_since.is_none() {
            self.choked_since = Some(Instant::now());
        }
    }

    fn follow_unsent(&mut self) {
        match (self.connection.unsent.any(), &self.turn) {
            (true, None) => self.turn = Some(self.unsent_turn(Instant::now())),
            (false, Some(_)) => self.turn = None,
            _ => {}
        }
    }

    fn unsent_turn(&self, since: Instant) -> UnsentTurn {
        UnsentTurn {
            since,
            releases: self.connection.releases(),
            body_bytes: self.connection.body_bytes(),
        }
    }

    /// The earliest deadline and its kind.
    fn due(&self) -> Option<(Instant, ExceededDeadline)> {
        let since = self.connection.since();
        let phase = match (self.connection.phase(), self.finishing) {
            (Phase::Serving | Phase::Sending, _) => None,
            // The end of a response still waits for the socket: the send rate below applies.
            (Phase::Quiet, _) if self.connection.blocked() => None,
            (Phase::Quiet | Phase::Head, Some(finishing)) => {
                let since = finishing.max(since);
                let is_waited_for = self.connection.is_asked_to_close();
                let time = if is_waited_for {
                    LEAVING_TIME
                } else {
                    self.limits.send_rate_window
                };
                Some((since + time, ExceededDeadline::Farewell))
            }
            (Phase::Quiet, None) => {
                Some((since + self.limits.idle_timeout, ExceededDeadline::Request))
            }
            (Phase::Head, None) => Some((since + self.limits.head_timeout, ExceededDeadline::Head)),
        };
        let stall = self.stall.as_ref().map(|stall| {
            (
                stall.since + self.limits.send_rate_window,
                ExceededDeadline::Bytes,
            )
        });
        let unfinished = self.connection.unfinished();
        let unfinished =
            unfinished.map(|since| (since + self.limits.head_timeout, ExceededDeadline::Head));
        let sending = self.connection.phase() == Phase::Sending;
        let last_call = (self.finishing.is_none() && !sending && self.connections.closing())
            .then(|| {
                self.last_call()
                    .map(|time| (time, ExceededDeadline::LastCall))
            })
            .flatten();
        let choked = self.choked_since;
        let choked = choked.map(|since| (since + CHOKED_MAX, ExceededDeadline::Room));
        let turn = self.turn.as_ref();
        let turn = turn.map(|turn| {
            (
                turn.since + self.limits.unsent_turn(),
                ExceededDeadline::Turn,
            )
        });
        [phase, stall, unfinished, last_call, choked, turn]
            .into_iter()
            .flatten()
            .min_by_key(|(time, _)| *time)
    }

    /// Handles an expired deadline. `None`: the connection may continue.
    fn handle_expired(&mut self, overdue: ExceededDeadline, now: Instant) -> Option<TimerAction> {
        match overdue {
            ExceededDeadline::Head => Some(TimerAction::Cut(ConnectionEvent::HeadTimeout)),
            ExceededDeadline::Farewell => Some(TimerAction::Cut(ConnectionEvent::IdleTimeout)),
            ExceededDeadline::Room => {
                self.connection.reading.note_cut();
                Some(TimerAction::Cut(ConnectionEvent::CutForMemory))
            }
            ExceededDeadline::Request if self.protocol == ViewerProtocol::Http1 => {
                Some(TimerAction::Cut(ConnectionEvent::IdleTimeout))
            }
            ExceededDeadline::Request | ExceededDeadline::LastCall => {
                self.finishing = Some(now);
                Some(TimerAction::Finish)
            }
            ExceededDeadline::Turn => {
                let turn = self.turn.replace(self.unsent_turn(now))?;
                // If the socket accepts nothing, the deadline of the socket applies.
                let stuck =
                    self.connection.blocked() && self.connection.releases() == turn.releases;
                if stuck {
                    return None;
                }
                let moved = self.connection.body_bytes() - turn.body_bytes;
                let is_cut = match self.connection.unsent.next_turn() {
                    StreamLag::None => false,
                    // Other streams used the connection: at least two streams at the minimum rate.
                    StreamLag::Late => moved < self.limits.send_min_bytes(),
                    StreamLag::TooLate => true,
                };
                is_cut.then_some(TimerAction::Cut(ConnectionEvent::SlowViewer))
            }
            ExceededDeadline::Bytes => {
                let taken = self.connection.received_bytes();
                let stall = self.stall.as_mut()?;
                if taken.saturating_sub(stall.taken) < self.limits.send_min_bytes() {
                    return Some(TimerAction::Cut(ConnectionEvent::SlowViewer));
                }
                *stall = ViewerStall { since: now, taken };
                None
            }
        }
    }
}

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExceededDeadline {
    /// The next request.
    Request,
    /// The end of a request head.
    Head,
    /// The minimum rate of the viewer.
    Bytes,
    /// The turn of the streams whose body h2 has completely.
    Turn,
    /// The end of the graceful shutdown.
    Farewell,
    /// Freeing the queue of a stream that was reset to free memory.
    Room,
    /// The graceful shutdown of a quiet connection.
    LastCall,
}

impl Limits {
    /// Half a window: a stream without progress is late after 1 to 1.5 windows.
    fn unsent_turn(&self) -> Duration {
        self.send_rate_window / 2
    }

    /// The time that these bytes take at the minimum rate.
    pub(super) fn paid_by(&self, bytes: u64) -> Duration {
        let seconds = bytes.checked_div(self.send_rate_min_bytes_per_second);
        let max = self.taken_ahead_max();
        seconds.map_or(max, |seconds| max.min(Duration::from_secs(seconds)))
    }

    /// The longest time for which bytes received early count. HTTP/2 viewers open their window
    /// again after they have read half of it: a window of 16 MiB every 67 s at 1 Mbit/s.
    pub(super) fn taken_ahead_max(&self) -> Duration {
        self.send_rate_window * 4
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
