//! Runs HTTP/2 streams and cuts those that stall because of their viewer.
//!
//! A connection may be active while one of its streams stalls because the viewer never opens its
//! window; hyper then waits forever without polling the body. So each stream's task checks the
//! bytes sent, with a timer that exists only while bytes are unsent. The bytes that h2 still has
//! after the task has ended are checked by the connection: see [`super::unsent`].

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::Limits;
use super::connection_state::ConnectionState;
use super::connection_table::ConnectionTable;
use super::connection_timer::poll_alarm;
use super::pace::SendRate;
use super::stats::ConnectionEvent;

thread_local! {
    /// The send rate of the newest request. hyper calls the service and then at once the executor,
    /// so this value connects the two; neither can pass anything to the other.
    static NEWEST: Cell<Option<Arc<SendRate>>> = const { Cell::new(None) };
}

/// Creates the send rate of a request that hyper has just accepted.
pub(super) fn begin_stream(connection: &Arc<ConnectionState>) -> Arc<SendRate> {
    let rate = SendRate::new(connection.clone());
    NEWEST.set(Some(rate.clone()));
    rate
}

/// Runs the streams of a worker's connections, each in its own task.
#[derive(Clone)]
pub(super) struct StreamExecutor(Arc<StreamSpawner>);

struct StreamSpawner {
    limits: Arc<Limits>,
    connections: Arc<ConnectionTable>,
}

impl StreamExecutor {
    pub(super) fn new(limits: Arc<Limits>, connections: Arc<ConnectionTable>) -> StreamExecutor {
        StreamExecutor(Arc::new(StreamSpawner {
            limits,
            connections,
        }))
    }
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let Some(rate) = NEWEST.take() else {
            // Not the stream of a request.
            tokio::spawn(stream);
            return;
        };
        // Boxed, so that spawning the task moves a pointer and not three kilobytes, several times.
        // Together with `NEWEST`: 4.95 us of CPU for a small response instead of 5.9.
        let stream = Box::pin(stream);
        let StreamExecutor(spawner) = self.clone();
        tokio::spawn(async move {
            let result = paced(&spawner.limits, &rate, stream).await;
            match result {
                Ok(()) => rate.leave_to_h2(spawner.limits.send_min_bytes()),
                // Dropping the stream has reset it.
                Err(event) => spawner.connections.counters.count(event),
            }
            if result == Err(ConnectionEvent::CutForMemory) {
                rate.connection().stream_cut();
            }
        });
    }
}

async fn paced<F>(
    limits: &Limits,
    rate: &Arc<SendRate>,
    mut stream: Pin<Box<F>>,
) -> Result<(), ConnectionEvent>
where
    F: Future<Output = ()>,
{
    let mut deadline = SendDeadline::default();
    poll_fn(|cx| match stream.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Ok(())),
        Poll::Pending if rate.must_end(cx) => Poll::Ready(Err(ConnectionEvent::CutForMemory)),
        Poll::Pending => deadline.poll_end(limits, rate, cx).map(Err),
    })
    .await
}

/// The deadline for the bytes passed to h2.
#[derive(Default)]
struct SendDeadline {
    alarm: Option<Pin<Box<tokio::time::Sleep>>>,
    stall: Option<StreamStall>,
    credit: RateCredit,
}

/// Credit for bytes received faster than the minimum rate: viewers may read in bursts.
#[derive(Default)]
struct RateCredit {
    paid_until: Option<Instant>,
    counted_at: Option<Instant>,
    sent: u64,
}

impl RateCredit {
    fn count(&mut self, limits: &Limits, sent: u64, now: Instant) {
        let from_time = self.counted_at.replace(now).unwrap_or(now);
        let bytes = sent - std::mem::replace(&mut self.sent, sent);
        let from = self
            .paid_until
            .map_or(from_time, |until| until.max(from_time));
        let until = from + limits.paid_by(bytes);
        self.paid_until = Some(until.min(now + limits.taken_ahead_max()));
    }

    fn is_enough_at(&self, now: Instant) -> bool {
        self.paid_until.is_some_and(|until| until > now)
    }
}

/// A period in which bytes of the stream were ready for the viewer.
struct StreamStall {
    since: Instant,
    spell: u32,
    sent: u64,
    /// How often the socket had accepted all bytes.
    releases: u32,
}

impl StreamStall {
    fn now(rate: &SendRate) -> StreamStall {
        StreamStall {
            since: Instant::now(),
            spell: rate.spells(),
            sent: rate.sent(),
            releases: rate.connection().releases(),
        }
    }

    /// Whether the socket accepts nothing of any stream. The connection's timer then decides from
    /// the kernel's TCP state whether the viewer is too slow.
    fn is_socket_full(&self, rate: &SendRate) -> bool {
        rate.connection().blocked() && rate.connection().releases() == self.releases
    }
}

impl SendDeadline {
    fn poll_end(
        &mut self,
        limits: &Limits,
        rate: &SendRate,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionEvent> {
        loop {
            if !rate.is_held_up() {
                self.stall = None;
                return Poll::Pending;
            }
            let stall = match self.stall.take() {
                Some(stall) if stall.spell == rate.spells() => stall,
                _ => {
                    let stall = StreamStall::now(rate);
                    self.credit.count(limits, stall.sent, stall.since);
                    stall
                }
            };
            let due = stall.since + limits.send_rate_window;
            let (sent, is_socket_full) = (rate.sent() - stall.sent, stall.is_socket_full(rate));
            self.stall = Some(stall);
            std::task::ready!(poll_alarm(&mut self.alarm, due, cx));
            self.credit.count(limits, rate.sent(), due);
            if sent < limits.send_min_bytes() && !is_socket_full && !self.credit.is_enough_at(due) {
                return Poll::Ready(ConnectionEvent::SlowViewer);
            }
            self.stall = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Duration;

    fn limits() -> Limits {
        Limits {
            send_rate_window: Duration::from_secs(20),
            send_rate_min_bytes_per_second: 500,
            ..Limits::default()
        }
    }

    async fn run<F: Future<Output = ()>>(rate: &Arc<SendRate>, stream: F) -> (bool, u64) {
        let start = Instant::now();
        let is_kept = paced(&limits(), rate, Box::pin(stream)).await.is_ok();
        (is_kept, start.elapsed().as_secs())
    }

    /// The send rate of a stream with its own connection.
    fn rate() -> Arc<SendRate> {
        SendRate::new(connection())
    }

    fn connection() -> Arc<ConnectionState> {
        Arc::new(ConnectionState::new(Arc::new(|_| {}), None, false, None))
    }

    async fn sleep_seconds(count: u64) {
        tokio::time::sleep(Duration::from_secs(count)).await;
    }

    /// The viewer opens its window again after it has read half of it.
    #[tokio::test(start_paused = true)]
    async fn keeps_a_steady_viewer_with_a_large_window() {
        for (window_bytes, every_seconds, is_ended) in [
            (1 << 20, 26, false),
            (16 << 20, 67, false),
            (16 << 20, 200, true),
        ] {
            let rate = rate();
            let sender = Arc::clone(&rate);
            let stream = async move {
                sender.record_handed(window_bytes * 3);
                for _ in 0..5 {
                    sender.send(window_bytes / 2);
                    sleep_seconds(every_seconds).await;
                }
            };
            assert_eq!(
                run(&rate, stream).await.0,
                !is_ended,
                "{window_bytes} bytes"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn cuts_a_stream_without_progress_after_one_window() {
        for bytes in [100, 32_000] {
            let rate = rate();
            let stream = async {
                rate.record_handed(bytes);
                pending::<()>().await;
            };
            assert_eq!(run(&rate, stream).await, (false, 20));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_a_viewer_at_the_rate_and_cuts_it_below() {
        let rate = rate();
        let stream = async {
            rate.record_handed(100_000);
            for _ in 0..3 {
                sleep_seconds(19).await;
                rate.send(10_000);
                sleep_seconds(1).await;
            }
            rate.send(9_999);
            pending::<()>().await;
        };
        assert_eq!(run(&rate, stream).await, (false, 80));
    }

    #[tokio::test(start_paused = true)]
    async fn fully_sent_body_may_be_below_minimum_rate() {
        let rate = rate();
        let stream = async {
            for _ in 0..5 {
                rate.record_handed(100);
                sleep_seconds(19).await;
                rate.send(100);
            }
        };
        assert_eq!(run(&rate, stream).await, (true, 95));
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_count_time_spent_waiting_for_the_origin() {
        let rate = rate();
        let stream = async {
            sleep_seconds(600).await;
            rate.record_handed(100);
            rate.send(100);
            rate.wait_for_body();
            sleep_seconds(600).await;
        };
        assert_eq!(run(&rate, stream).await, (true, 1200));
    }

    #[tokio::test(start_paused = true)]
    async fn cuts_a_stream_whose_window_is_closed_before_the_first_byte() {
        let rate = rate();
        let stream = async {
            sleep_seconds(60).await;
            rate.begin_body();
            pending::<()>().await;
        };
        assert_eq!(run(&rate, stream).await, (false, 80));
    }

    #[tokio::test(start_paused = true)]
    async fn leaves_a_full_socket_to_the_connection_timer() {
        let rate = rate();
        let stream = async {
            rate.record_handed(100);
            rate.connection().set_blocked(true);
            sleep_seconds(70).await;
            // From here on, the stream's window is the cause.
            rate.connection().set_blocked(false);
            pending::<()>().await;
        };
        assert_eq!(run(&rate, stream).await, (false, 80));
    }

    #[tokio::test(start_paused = true)]
    async fn times_each_stream_by_its_own_rate() {
        let limits = Arc::new(limits());
        let connections = ConnectionTable::new(&limits);
        let connection = connection();
        let streams = StreamExecutor::new(limits, connections.clone());
        let finished = Arc::new(AtomicU32::new(0));
        for bytes in [0, 100, 0] {
            let (rate, finished) = (begin_stream(&connection), finished.clone());
            if bytes > 0 {
                rate.record_handed(bytes);
            }
            hyper::rt::Executor::execute(&streams, async move {
                sleep_seconds(60).await;
                finished.fetch_add(1, Ordering::Relaxed);
                drop(rate);
            });
        }
        sleep_seconds(120).await;
        assert_eq!(finished.load(Ordering::Relaxed), 2);
        assert_eq!(connections.stats().of(ConnectionEvent::SlowViewer), 1);
    }
}
