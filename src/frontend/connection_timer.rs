//! Has a connection run out of time? The one timer of a connection, and the word to finish.
//!
//! The timer is lazy: it is set to the earliest moment at which something could be overdue, and
//! only when it rings is the clock looked at. A request on a kept-alive connection moves no timer.
//! Waiting for an origin is never the viewer's fault: only bytes that are ready and not taken count
//! against it.
//!
//! This is why hyper's own deadline for heads is not used: it costs a timer per request, and it
//! runs between requests too, so that a kept-alive connection could not be idle for longer than a
//! head may take.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Duration, Instant, Sleep, sleep_until};

use super::Limits;
use super::connection_state::{ConnectionState, Phase};
use super::connection_table::ConnectionTable;
use super::stats::ConnectionEvent;
use super::unsent::StreamLag;

/// When the server stops, a viewer's next request may be on its way: a quiet HTTP/1 connection is
/// closed only after this, and a request that comes meanwhile is answered with `Connection: close`.
const LAST_CALL: Duration = Duration::from_millis(300);

/// What is queued of a stream that was cut to free memory goes with the stream, unless the socket takes
/// nothing at all: after this the connection goes.
const CHOKED_MAX: Duration = Duration::from_secs(1);

/// How long a connection may take to leave when it was told to make room.
pub(super) const LEAVING_TIME: Duration = Duration::from_secs(1);

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ViewerProtocol {
    Http1,
    Http2,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerAction {
    /// Nothing; its task will be woken.
    Wait,
    /// Finish what is under way and take nothing new. Said once.
    Finish,
    /// Close it now.
    Cut(ConnectionEvent),
}

/// A stretch of time in which the viewer had bytes to take.
struct ViewerStall {
    since: Instant,
    taken: u64,
}

/// The watch over one connection.
pub(super) struct ConnectionTimer {
    protocol: ViewerProtocol,
    limits: Arc<Limits>,
    roll: Arc<ConnectionTable>,
    gauge: Arc<ConnectionState>,
    alarm: Pin<Box<Sleep>>,
    stall: Option<ViewerStall>,
    /// The socket has taken nothing since one of the streams was cut to free memory.
    choked_since: Option<Instant>,
    /// There are streams that h2 has whole: when their turn began.
    turn: Option<UnsentTurn>,
    /// Told to finish, and then.
    finishing: Option<Instant>,
    attended: bool,
}

/// A turn of the streams that h2 has whole.
struct UnsentTurn {
    since: Instant,
    /// How often the socket had taken everything.
    releases: u32,
    /// Bytes of bodies that had left h2.
    body_bytes: u64,
}

impl ConnectionTimer {
    pub(super) fn new(
        protocol: ViewerProtocol,
        limits: Arc<Limits>,
        roll: Arc<ConnectionTable>,
        gauge: Arc<ConnectionState>,
    ) -> ConnectionTimer {
        let alarm = Box::pin(sleep_until(Instant::now() + limits.idle_timeout));
        ConnectionTimer {
            protocol,
            limits,
            roll,
            gauge,
            alarm,
            stall: None,
            choked_since: None,
            turn: None,
            finishing: None,
            attended: false,
        }
    }

    /// Looks at the connection, after it was polled and has nothing more to do for now.
    pub(super) fn look(&mut self, cx: &mut Context<'_>) -> TimerAction {
        if !self.attended {
            self.attended = true;
            self.gauge.attend(cx.waker());
        }
        let must_finish = (self.roll.closing() && self.may_finish())
            || (self.gauge.is_told_to_leave() && self.may_leave());
        if self.finishing.is_none() && must_finish {
            self.finishing = Some(Instant::now());
            return TimerAction::Finish;
        }
        if self.gauge.must_end(cx.waker()) {
            return TimerAction::Cut(ConnectionEvent::MemoryShort);
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
                    if let Some(look) = self.judge(overdue, now) {
                        return look;
                    }
                }
                Some((due, _)) => self.alarm.as_mut().reset(due),
                None => self.alarm.as_mut().reset(now + self.limits.idle_timeout),
            }
        }
    }

    /// An answer under way can be marked as the last one, unless its head is out already; a quiet viewer
    /// gets the last call.
    fn may_finish(&self) -> bool {
        let called = || {
            self.last_call()
                .is_some_and(|moment| moment <= Instant::now())
        };
        match self.gauge.phase() {
            _ if self.protocol == ViewerProtocol::Http2 => true,
            Phase::Serving => true,
            Phase::Sending => false,
            Phase::Quiet | Phase::Head => called(),
        }
    }

    /// Streams under way can be finished; an answer of HTTP/1 has not been marked as the last one.
    fn may_leave(&self) -> bool {
        self.protocol == ViewerProtocol::Http2 || self.gauge.phase() == Phase::Quiet
    }

    fn last_call(&self) -> Option<Instant> {
        self.roll.closing_since().map(|since| since + LAST_CALL)
    }

    fn follow_stall(&mut self) {
        match (self.gauge.blocked(), &self.stall) {
            (true, None) => {
                self.stall = Some(ViewerStall {
                    since: Instant::now(),
                    taken: self.gauge.taken(),
                });
            }
            (false, Some(_)) => self.stall = None,
            _ => {}
        }
    }

    fn follow_choke(&mut self) {
        if !self.gauge.choked() {
            self.choked_since = None;
        } else if self.choked_since.is_none() {
            self.choked_since = Some(Instant::now());
        }
    }

    fn follow_unsent(&mut self) {
        match (self.gauge.unsent.any(), &self.turn) {
            (true, None) => self.turn = Some(self.unsent_turn(Instant::now())),
            (false, Some(_)) => self.turn = None,
            _ => {}
        }
    }

    fn unsent_turn(&self, since: Instant) -> UnsentTurn {
        UnsentTurn {
            since,
            releases: self.gauge.releases(),
            body_bytes: self.gauge.body_bytes(),
        }
    }

    /// The earliest thing that will be overdue, and when.
    fn due(&self) -> Option<(Instant, ExceededDeadline)> {
        let since = self.gauge.since();
        let phase = match (self.gauge.phase(), self.finishing) {
            (Phase::Serving | Phase::Sending, _) => None,
            // The end of an answer still waits for the socket: how fast it is taken is judged below.
            (Phase::Quiet, _) if self.gauge.blocked() => None,
            (Phase::Quiet | Phase::Head, Some(finishing)) => {
                let since = finishing.max(since);
                let is_waited_for = self.gauge.is_told_to_leave();
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
        let unfinished = self.gauge.unfinished();
        let unfinished =
            unfinished.map(|since| (since + self.limits.head_timeout, ExceededDeadline::Head));
        let sending = self.gauge.phase() == Phase::Sending;
        let call = (self.finishing.is_none() && !sending && self.roll.closing())
            .then(|| {
                self.last_call()
                    .map(|moment| (moment, ExceededDeadline::LastCall))
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
        [phase, stall, unfinished, call, choked, turn]
            .into_iter()
            .flatten()
            .min_by_key(|(moment, _)| *moment)
    }

    /// Something is overdue: what follows? `None`: it was forgiven.
    fn judge(&mut self, overdue: ExceededDeadline, now: Instant) -> Option<TimerAction> {
        match overdue {
            ExceededDeadline::Head => Some(TimerAction::Cut(ConnectionEvent::HeadTimeout)),
            ExceededDeadline::Farewell => Some(TimerAction::Cut(ConnectionEvent::IdleTimeout)),
            ExceededDeadline::Room => {
                self.gauge.reading.note_cut();
                Some(TimerAction::Cut(ConnectionEvent::MemoryShort))
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
                // Where the socket has taken nothing, its own deadline judges.
                let stuck = self.gauge.blocked() && self.gauge.releases() == turn.releases;
                if stuck {
                    return None;
                }
                let moved = self.gauge.body_bytes() - turn.body_bytes;
                let is_cut = match self.gauge.unsent.next_turn() {
                    StreamLag::None => false,
                    // Others took what the connection carries: at least two streams at the least rate.
                    StreamLag::Late => moved < self.limits.send_min_bytes(),
                    StreamLag::TooLate => true,
                };
                is_cut.then_some(TimerAction::Cut(ConnectionEvent::SlowViewer))
            }
            ExceededDeadline::Bytes => {
                let taken = self.gauge.taken();
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

/// What can be overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExceededDeadline {
    /// The next request.
    Request,
    /// The rest of a head.
    Head,
    /// Bytes taken by the viewer.
    Bytes,
    /// The turn of the streams that h2 has whole.
    Turn,
    /// The end of a connection told to finish.
    Farewell,
    /// Room for what is queued of a stream that was cut to free memory.
    Room,
    /// Telling a quiet connection to finish.
    LastCall,
}

impl Limits {
    /// Two of them are a window: a stream that makes no progress is late after one window, and before one and a half.
    fn unsent_turn(&self) -> Duration {
        self.send_rate_window / 2
    }

    /// At the least rate, these bytes take so long.
    pub(super) fn paid_by(&self, bytes: u64) -> Duration {
        let seconds = bytes.checked_div(self.send_rate_min_bytes_per_second);
        let most = self.taken_ahead_max();
        seconds.map_or(most, |seconds| most.min(Duration::from_secs(seconds)))
    }

    /// What is taken ahead counts for this long at most. Viewers over HTTP/2 open their window again when half of it
    /// is read: of 16 MiB that is every 67 s at 1 Mbit/s.
    pub(super) fn taken_ahead_max(&self) -> Duration {
        self.send_rate_window * 4
    }

    /// What a viewer must take within one window.
    pub(super) fn send_min_bytes(&self) -> u64 {
        let window_ms = u64::try_from(self.send_rate_window.as_millis()).unwrap_or(u64::MAX);
        // Taking nothing at all is too slow even where the rate is 0.
        (self
            .send_rate_min_bytes_per_second
            .saturating_mul(window_ms)
            / 1000)
            .max(1)
    }
}

/// Polls an alarm that is made only when it is first needed.
pub(super) fn ring(
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
