//! How are HTTP/2 streams run, and when does one of them stand still through its viewer's fault?
//!
//! A connection may be lively while one of its streams takes nothing, because its window is never
//! opened; hyper then waits for ever without asking the body for more. So each stream's task keeps
//! an eye on the slice its body handed out last, with a timer that exists only while it waits.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::time::{Duration, Instant};

use super::Limits;
use super::gauge::Gauge;
use super::reading::Reading;
use super::roll::Roll;
use super::stats::Event;
use super::watch::ring;
use crate::shield::BodyConsumer;

thread_local! {
    /// The pace of the request hyper took in last. It hands the stream to the executor in the same
    /// breath, so this is how the two meet: neither can be given anything by the other.
    static NEWEST: Cell<Option<Arc<Pace>>> = const { Cell::new(None) };
}

/// How fast a stream's body is taken.
#[derive(Default)]
pub(super) struct Pace {
    /// Bytes of the slice handed out and not yet taken; 0: nothing is.
    outstanding: AtomicUsize,
    /// How many slices have been handed out.
    slices: AtomicU32,
    /// How many bytes.
    handed: AtomicU64,
    /// The body waits for what is to come; the viewer has taken everything.
    waits: AtomicBool,
    /// The stored bodies that are read.
    pub(super) reading: Reading,
    gauge: Option<Arc<Gauge>>,
}

impl Pace {
    /// A slice was handed out.
    pub(super) fn hand(&self, bytes: usize) {
        self.waits.store(false, Ordering::Relaxed);
        self.outstanding.store(bytes, Ordering::Relaxed);
        self.handed.fetch_add(bytes as u64, Ordering::Relaxed);
        self.slices.fetch_add(1, Ordering::Relaxed);
    }

    /// There is nothing to hand out now.
    pub(super) fn waits(&self) {
        self.waits.store(true, Ordering::Relaxed);
    }

    /// What is read must leave memory, and the viewer holds it up.
    fn must_end(self: &Arc<Pace>, cx: &Context<'_>) -> bool {
        let waits = self.waits.load(Ordering::Relaxed);
        self.reading.must_end(self, !waits, cx.waker())
    }

    /// The next slice is asked for, so the last one was taken.
    pub(super) fn asked(&self) {
        self.outstanding.store(0, Ordering::Relaxed);
    }
}

impl BodyConsumer for Pace {
    fn bytes_taken(&self) -> u64 {
        let outstanding = self.outstanding.load(Ordering::Relaxed) as u64;
        let handed = self.handed.load(Ordering::Relaxed);
        handed.saturating_sub(outstanding)
    }
}

/// A request's place on an HTTP/2 connection; dropping it says that the answer is through.
pub(super) struct StreamSeat {
    gauge: Arc<Gauge>,
    pub(super) pace: Arc<Pace>,
}

impl StreamSeat {
    pub(super) fn new(gauge: Arc<Gauge>) -> StreamSeat {
        gauge.stream_opened();
        let pace = Arc::new(Pace {
            gauge: Some(gauge.clone()),
            ..Pace::default()
        });
        NEWEST.set(Some(pace.clone()));
        StreamSeat { gauge, pace }
    }

    pub(super) fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }
}

impl Drop for StreamSeat {
    fn drop(&mut self) {
        self.gauge.stream_closed(Instant::now());
    }
}

/// Runs the streams of a worker's connections, each in a task of its own.
#[derive(Clone)]
pub(super) struct Streams(Arc<Keeper>);

struct Keeper {
    limits: Arc<Limits>,
    roll: Arc<Roll>,
}

impl Streams {
    pub(super) fn new(limits: Arc<Limits>, roll: Arc<Roll>) -> Streams {
        Streams(Arc::new(Keeper { limits, roll }))
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let pace = NEWEST.take().unwrap_or_default();
        // Boxed, so that making the task moves a pointer and not three kilobytes, several times:
        // with the pace handed over like this, 4.95 us of CPU for a small answer instead of 5.9.
        let stream = Box::pin(stream);
        let Streams(keeper) = self.clone();
        tokio::spawn(async move {
            if let Err(event) = paced(&keeper.limits, &pace, stream).await {
                // Dropping the stream has reset it.
                keeper.roll.tally.count(event);
                if event == Event::MemoryShort
                    && let Some(gauge) = &pace.gauge
                {
                    gauge.stream_cut();
                }
            }
        });
    }
}

async fn paced<F>(limits: &Limits, pace: &Arc<Pace>, mut stream: Pin<Box<F>>) -> Result<(), Event>
where
    F: Future<Output = ()>,
{
    let mut patience = Patience::default();
    poll_fn(|cx| match stream.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Ok(())),
        Poll::Pending if pace.must_end(cx) => Poll::Ready(Err(Event::MemoryShort)),
        Poll::Pending => patience.poll_end(limits, pace, cx).map(Err),
    })
    .await
}

/// How long the slice at hand may still lie.
#[derive(Default)]
struct Patience {
    alarm: Option<Pin<Box<tokio::time::Sleep>>>,
    slice: u32,
    due: Option<Instant>,
}

impl Patience {
    fn poll_end(&mut self, limits: &Limits, pace: &Pace, cx: &mut Context<'_>) -> Poll<Event> {
        let outstanding = pace.outstanding.load(Ordering::Relaxed);
        if outstanding == 0 {
            self.due = None;
            return Poll::Pending;
        }
        let slice = pace.slices.load(Ordering::Relaxed);
        let due = match self.due {
            Some(due) if slice == self.slice => due,
            _ => Instant::now() + limits.slice_time(outstanding as u64),
        };
        (self.slice, self.due) = (slice, Some(due));
        ring(&mut self.alarm, due, cx).map(|()| Event::SlowViewer)
    }
}

impl Limits {
    /// How long so many bytes may take: at the minimum rate, but never less than the window.
    pub(super) fn slice_time(&self, bytes: u64) -> Duration {
        let seconds = bytes
            .checked_div(self.send_rate_min_bytes_per_second)
            .unwrap_or(0);
        self.send_rate_window.max(Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    fn limits() -> Limits {
        Limits {
            send_rate_window: Duration::from_secs(20),
            send_rate_min_bytes_per_second: 500,
            ..Limits::default()
        }
    }

    async fn run<F: Future<Output = ()>>(pace: &Arc<Pace>, stream: F) -> (bool, u64) {
        let start = Instant::now();
        let fast = paced(&limits(), pace, Box::pin(stream)).await.is_ok();
        (fast, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_slice_may_lie_for_the_window() {
        let pace = Arc::new(Pace::default());
        let stream = async {
            pace.hand(100);
            pending::<()>().await;
        };
        assert_eq!(run(&pace, stream).await, (false, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_slice_may_take_what_the_rate_allows() {
        let pace = Arc::new(Pace::default());
        let stream = async {
            pace.hand(32_000);
            pending::<()>().await;
        };
        assert_eq!(run(&pace, stream).await, (false, 64));
    }

    #[tokio::test(start_paused = true)]
    async fn each_slice_has_its_own_time() {
        let pace = Arc::new(Pace::default());
        let stream = async {
            for _ in 0..5 {
                pace.hand(100);
                tokio::time::sleep(Duration::from_secs(19)).await;
            }
        };
        assert_eq!(run(&pace, stream).await, (true, 95));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_origin_costs_the_viewer_nothing() {
        let pace = Arc::new(Pace::default());
        let stream = async {
            pace.hand(100);
            pace.asked();
            tokio::time::sleep(Duration::from_mins(10)).await;
        };
        assert_eq!(run(&pace, stream).await, (true, 600));
    }

    #[tokio::test(start_paused = true)]
    async fn each_stream_is_timed_by_its_own_pace() {
        let limits = Arc::new(limits());
        let roll = Roll::new(&limits);
        let gauge = Arc::new(Gauge::new(Arc::new(|_| {}), None, false, None));
        let streams = Streams::new(limits, roll.clone());
        let through = Arc::new(AtomicU32::new(0));
        for bytes in [0, 100, 0] {
            let (seat, through) = (StreamSeat::new(gauge.clone()), through.clone());
            seat.pace.hand(bytes);
            hyper::rt::Executor::execute(&streams, async move {
                tokio::time::sleep(Duration::from_mins(1)).await;
                through.fetch_add(1, Ordering::Relaxed);
                drop(seat);
            });
        }
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(through.load(Ordering::Relaxed), 2);
        assert_eq!(roll.stats().of(Event::SlowViewer), 1);
    }
}
