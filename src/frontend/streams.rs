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
use std::task::{Context, Poll, ready};

use tokio::time::{Duration, Instant, Sleep};

use super::Limits;
use super::connection_state::ConnectionState;
use super::connection_table::ConnectionTable;
use super::connection_timer::poll_alarm;
use super::stats::ConnectionEvent;
use super::stream_send_rate::StreamSendRate;

thread_local! {
    /// The send rate of the newest request. hyper calls the service and then at once the executor,
    /// so this value connects the two; neither can pass anything to the other.
    static NEWEST: Cell<Option<Arc<StreamSendRate>>> = const { Cell::new(None) };
}

/// Creates the send rate of a request that hyper has just accepted.
pub(super) fn begin_stream(connection: &Arc<ConnectionState>) -> Arc<StreamSendRate> {
    let rate = StreamSendRate::new(connection.clone());
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
            let Err(event) = run_stream(&spawner.limits, &rate, stream).await else {
                return rate.leave_to_h2(spawner.limits.send_min_bytes());
            };
            // Dropping the stream has reset it.
            spawner.connections.counters.count(event);
            if event == ConnectionEvent::CutForMemory {
                rate.connection().record_reset_stream();
            }
        });
    }
}

/// Runs a stream to its end. The error is why it was dropped before its end.
async fn run_stream<F>(
    limits: &Limits,
    rate: &Arc<StreamSendRate>,
    mut stream: Pin<Box<F>>,
) -> Result<(), ConnectionEvent>
where
    F: Future<Output = ()>,
{
    let mut deadline = SendDeadline::default();
    poll_fn(|cx| match stream.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Ok(())),
        Poll::Pending if rate.must_free_memory(cx) => {
            Poll::Ready(Err(ConnectionEvent::CutForMemory))
        }
        Poll::Pending => deadline.poll_too_slow(limits, rate, cx).map(Err),
    })
    .await
}

/// Credit for bytes that the viewer received faster than the minimum rate: viewers may read in
/// bursts.
#[derive(Default)]
struct RateCredit {
    /// Until when the bytes sent so far suffice at the minimum rate.
    until: Option<Instant>,
    /// When bytes were last counted, and all bytes sent by then.
    counted_at: Option<Instant>,
    counted_bytes: u64,
}

impl RateCredit {
    /// Counts the bytes sent since the last call. `sent_bytes`: all bytes sent so far.
    fn count(&mut self, limits: &Limits, sent_bytes: u64, now: Instant) {
        let counted_at = self.counted_at.replace(now).unwrap_or(now);
        let bytes = sent_bytes - std::mem::replace(&mut self.counted_bytes, sent_bytes);
        let from = self.until.map_or(counted_at, |until| until.max(counted_at));
        let max = limits.rate_credit_max();
        let credit = limits
            .time_at_min_rate(bytes)
            .map_or(max, |time| time.min(max));
        self.until = Some((from + credit).min(now + max));
    }

    fn is_left_at(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }
}

impl Limits {
    /// The longest time for which bytes received early count. HTTP/2 viewers open their window
    /// again after they have read half of it: a window of 16 MiB every 67 s at 1 Mbit/s.
    fn rate_credit_max(&self) -> Duration {
        self.send_rate_window * 4
    }
}

/// A period in which bytes of the stream were ready for the viewer.
#[derive(Clone, Copy)]
struct StreamStall {
    since: Instant,
    /// The stream's [`StreamSendRate::send_bursts`] and bytes sent when the period began.
    send_bursts: u32,
    sent_bytes: u64,
    /// The connection's [`ConnectionState::drain_count`] when the period began.
    drain_count: u32,
}

impl StreamStall {
    fn now(rate: &StreamSendRate) -> StreamStall {
        StreamStall {
            since: Instant::now(),
            send_bursts: rate.send_bursts(),
            sent_bytes: rate.sent(),
            drain_count: rate.connection().drain_count(),
        }
    }

    /// Whether the socket accepts nothing of any stream. The connection's timer then decides from
    /// the kernel's TCP state whether the viewer is too slow.
    fn is_socket_full(&self, rate: &StreamSendRate) -> bool {
        rate.connection().is_blocked() && rate.connection().drain_count() == self.drain_count
    }
}

/// The deadline for the bytes passed to h2.
#[derive(Default)]
struct SendDeadline {
    alarm: Option<Pin<Box<Sleep>>>,
    stall: Option<StreamStall>,
    credit: RateCredit,
}

impl SendDeadline {
    /// Waits until the viewer is slower than the minimum rate.
    fn poll_too_slow(
        &mut self,
        limits: &Limits,
        rate: &StreamSendRate,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionEvent> {
        while rate.has_waiting_bytes() {
            let stall = self.current_stall(limits, rate);
            let window_end = stall.since + limits.send_rate_window;
            ready!(poll_alarm(&mut self.alarm, window_end, cx));
            self.credit.count(limits, rate.sent(), window_end);
            let has_sent_enough = rate.sent() - stall.sent_bytes >= limits.send_min_bytes()
                || self.credit.is_left_at(window_end);
            if !has_sent_enough && !stall.is_socket_full(rate) {
                return Poll::Ready(ConnectionEvent::SlowViewer);
            }
            self.stall = None;
        }
        self.stall = None;
        Poll::Pending
    }

    /// The stall in progress. A new one begins with each burst.
    fn current_stall(&mut self, limits: &Limits, rate: &StreamSendRate) -> StreamStall {
        match self.stall {
            Some(stall) if stall.send_bursts == rate.send_bursts() => stall,
            _ => {
                let stall = StreamStall::now(rate);
                self.credit.count(limits, stall.sent_bytes, stall.since);
                *self.stall.insert(stall)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn limits() -> Limits {
        Limits {
            send_rate_window: Duration::from_secs(20),
            send_rate_min_bytes_per_second: 500,
            ..Limits::default()
        }
    }

    async fn run<F: Future<Output = ()>>(rate: &Arc<StreamSendRate>, stream: F) -> (bool, u64) {
        let start = Instant::now();
        let is_kept = run_stream(&limits(), rate, Box::pin(stream)).await.is_ok();
        (is_kept, start.elapsed().as_secs())
    }

    /// The send rate of a stream with its own connection.
    fn rate() -> Arc<StreamSendRate> {
        StreamSendRate::new(connection())
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
                sender.record_passed_to_h2(window_bytes * 3);
                for _ in 0..5 {
                    sender.record_sent(window_bytes / 2);
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
                rate.record_passed_to_h2(bytes);
                pending::<()>().await;
            };
            assert_eq!(run(&rate, stream).await, (false, 20));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_a_viewer_at_the_rate_and_cuts_it_below() {
        let rate = rate();
        let stream = async {
            rate.record_passed_to_h2(100_000);
            for _ in 0..3 {
                sleep_seconds(19).await;
                rate.record_sent(10_000);
                sleep_seconds(1).await;
            }
            rate.record_sent(9_999);
            pending::<()>().await;
        };
        assert_eq!(run(&rate, stream).await, (false, 80));
    }

    #[tokio::test(start_paused = true)]
    async fn fully_sent_body_may_be_below_minimum_rate() {
        let rate = rate();
        let stream = async {
            for _ in 0..5 {
                rate.record_passed_to_h2(100);
                sleep_seconds(19).await;
                rate.record_sent(100);
            }
        };
        assert_eq!(run(&rate, stream).await, (true, 95));
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_count_time_spent_waiting_for_the_origin() {
        let rate = rate();
        let stream = async {
            sleep_seconds(600).await;
            rate.record_passed_to_h2(100);
            rate.record_sent(100);
            rate.record_body_wait();
            sleep_seconds(600).await;
        };
        assert_eq!(run(&rate, stream).await, (true, 1200));
    }

    #[tokio::test(start_paused = true)]
    async fn cuts_a_stream_whose_window_is_closed_before_the_first_byte() {
        let rate = rate();
        let stream = async {
            sleep_seconds(60).await;
            rate.record_body_start();
            pending::<()>().await;
        };
        assert_eq!(run(&rate, stream).await, (false, 80));
    }

    #[tokio::test(start_paused = true)]
    async fn leaves_a_full_socket_to_the_connection_timer() {
        let rate = rate();
        let stream = async {
            rate.record_passed_to_h2(100);
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
                rate.record_passed_to_h2(bytes);
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
