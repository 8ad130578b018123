//! Tests of the limiter under a paused clock.

use std::future::Future;
use std::task::Waker;

use tokio::time::advance;

use super::*;

const LONG: Duration = Duration::from_secs(30);
const MS: Duration = Duration::from_millis(1);

fn limiter(concurrency_max: usize, queue_max: usize) -> ConcurrencyLimiter {
    ConcurrencyLimiter::new(&LimiterSettings {
        concurrency_max,
        reserved_for_manifests: 0,
        queue_max,
        requests_per_second_max: None,
    })
}

fn paced(requests_per_second: u32) -> ConcurrencyLimiter {
    ConcurrencyLimiter::new(&LimiterSettings {
        concurrency_max: 100,
        reserved_for_manifests: 0,
        queue_max: 100,
        requests_per_second_max: Some(requests_per_second),
    })
}

/// A waiting request that polls only when a test says so.
struct WaitingRequest<'a> {
    permit: Pin<Box<dyn Future<Output = Result<Permit, Failure>> + 'a>>,
}

impl<'a> WaitingRequest<'a> {
    /// Requests a permit and waits.
    fn new(limiter: &'a ConcurrencyLimiter, priority: Priority) -> WaitingRequest<'a> {
        let mut request = WaitingRequest {
            permit: Box::pin(limiter.acquire(priority, LONG)),
        };
        assert!(request.poll().is_none(), "admitted at once, or rejected");
        request
    }

    /// Polls the result.
    fn poll(&mut self) -> Option<Result<Permit, Failure>> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.permit.as_mut().poll(&mut cx) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    #[track_caller]
    fn expect_admitted(&mut self) -> Permit {
        self.poll().expect("still waiting").expect("admitted")
    }

    #[track_caller]
    fn expect_rejected(&mut self) {
        assert_eq!(self.poll().map(Result::err), Some(Some(Failure::Busy)));
    }
}

fn queued(limiter: &ConcurrencyLimiter) -> usize {
    limiter.counts().queued.iter().sum()
}

fn rejected(limiter: &ConcurrencyLimiter, reason: Rejection) -> u64 {
    limiter.counts().rejected(reason)
}

async fn acquire(limiter: &ConcurrencyLimiter, priority: Priority) -> Permit {
    limiter
        .acquire(priority, LONG)
        .await
        .expect("a free permit")
}

#[tokio::test(start_paused = true)]
async fn released_permit_goes_to_the_waiting_request() {
    let limiter = limiter(1, 1);
    let first = acquire(&limiter, Priority::Segment).await;
    assert_eq!(limiter.counts().in_flight, 1);
    let mut second = WaitingRequest::new(&limiter, Priority::Segment);
    assert_eq!(limiter.counts().queued[Priority::Segment.index()], 1);
    drop(first);
    assert_eq!((limiter.counts().in_flight, queued(&limiter)), (1, 0));
    drop(second.expect_admitted());
    assert_eq!(limiter.counts(), LimiterCounts::default());
}

#[tokio::test(start_paused = true)]
async fn permits_go_by_priority_then_arrival_order() {
    let limiter = limiter(1, 8);
    let mut permit = acquire(&limiter, Priority::Refresh).await;
    let mut behind = WaitingRequest::new(&limiter, Priority::Refresh);
    let mut segments = [(); 2].map(|()| WaitingRequest::new(&limiter, Priority::Segment));
    let mut manifest = WaitingRequest::new(&limiter, Priority::Manifest);
    let [first, second] = &mut segments;
    for next in [&mut manifest, first, second, &mut behind] {
        drop(permit);
        permit = next.expect_admitted();
    }
}

#[tokio::test(start_paused = true)]
async fn full_queue_displaces_youngest_lower_priority_request() {
    let limiter = limiter(1, 3);
    let _permit = acquire(&limiter, Priority::Segment).await;
    let mut old = WaitingRequest::new(&limiter, Priority::Refresh);
    let mut young = WaitingRequest::new(&limiter, Priority::Refresh);
    let segment = WaitingRequest::new(&limiter, Priority::Segment);
    let same = limiter.acquire(Priority::Refresh, LONG).await;
    assert_eq!(same.err(), Some(Failure::Busy), "no higher than the last");
    let manifest = WaitingRequest::new(&limiter, Priority::Manifest);
    young.expect_rejected();
    assert!(old.poll().is_none(), "only the youngest goes");
    let second = WaitingRequest::new(&limiter, Priority::Segment);
    old.expect_rejected();
    let third = limiter.acquire(Priority::Segment, LONG).await;
    assert_eq!(third.err(), Some(Failure::Busy));
    let counts = limiter.counts();
    assert_eq!(
        (counts.queued, counts.rejected),
        ([1, 0, 2, 0, 0], [2, 2, 0])
    );
    drop((segment, manifest, second));
    assert_eq!(queued(&limiter), 0);
}

#[tokio::test(start_paused = true)]
async fn queue_wait_ends_at_its_deadline() {
    let limiter = limiter(1, 8);
    let permit = acquire(&limiter, Priority::Segment).await;
    let late = limiter.acquire(Priority::Manifest, 20 * MS).await;
    assert_eq!(late.err(), Some(Failure::Busy));
    let unwilling = limiter.acquire(Priority::Manifest, Duration::ZERO).await;
    assert_eq!(unwilling.err(), Some(Failure::Busy));
    assert_eq!(
        (queued(&limiter), rejected(&limiter, Rejection::Deadline)),
        (0, 2)
    );
    drop(permit);
    acquire(&limiter, Priority::Segment).await;
}

#[tokio::test(start_paused = true)]
async fn permit_granted_in_time_is_used_even_if_polled_late() {
    let limiter = limiter(1, 8);
    let permit = acquire(&limiter, Priority::Segment).await;
    let mut waiting = WaitingRequest::new(&limiter, Priority::Segment);
    drop(permit);
    advance(LONG * 2).await;
    drop(waiting.expect_admitted());
}

#[tokio::test(start_paused = true)]
async fn dropped_waiter_leaves_the_queue() {
    let limiter = limiter(1, 1);
    let _permit = acquire(&limiter, Priority::Segment).await;
    drop(WaitingRequest::new(&limiter, Priority::Segment));
    assert_eq!(queued(&limiter), 0);
    let counts = limiter.counts();
    assert_eq!(counts.rejected, [0; 3], "no request was rejected");
}

#[tokio::test(start_paused = true)]
async fn permit_of_dropped_waiter_goes_to_the_next() {
    let limiter = limiter(1, 8);
    let permit = acquire(&limiter, Priority::Segment).await;
    let first = WaitingRequest::new(&limiter, Priority::Segment);
    let mut second = WaitingRequest::new(&limiter, Priority::Segment);
    drop(permit);
    assert!(second.poll().is_none());
    drop(first);
    drop(second.expect_admitted());
    assert_eq!(limiter.counts(), LimiterCounts::default());
}

#[tokio::test(start_paused = true)]
async fn rate_tokens_go_by_priority() {
    let limiter = paced(20);
    let _burst = [
        acquire(&limiter, Priority::Segment).await,
        acquire(&limiter, Priority::Segment).await,
    ];
    let mut behind = WaitingRequest::new(&limiter, Priority::Refresh);
    let mut segment = WaitingRequest::new(&limiter, Priority::Segment);
    let mut manifest = WaitingRequest::new(&limiter, Priority::Manifest);
    let mut permits = Vec::new();
    for next in [&mut manifest, &mut segment, &mut behind] {
        advance(49 * MS).await;
        assert!(next.poll().is_none());
        advance(MS).await;
        permits.push(next.expect_admitted());
    }
    assert_eq!(limiter.counts().in_flight, 5);
}

#[tokio::test(start_paused = true)]
async fn rate_limit_wait_ends_at_its_deadline() {
    let limiter = paced(1);
    let _permit = acquire(&limiter, Priority::Segment).await;
    let late = limiter.acquire(Priority::Manifest, 999 * MS).await;
    assert_eq!(late.err(), Some(Failure::Busy));
    assert_eq!(rejected(&limiter, Rejection::Deadline), 1);
    let _permit = limiter
        .acquire(Priority::Manifest, 2 * MS)
        .await
        .ok()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn token_of_dropped_waiter_goes_to_the_next() {
    let limiter = paced(1);
    drop(acquire(&limiter, Priority::Segment).await);
    let mut staying = WaitingRequest::new(&limiter, Priority::Segment);
    let leaving = WaitingRequest::new(&limiter, Priority::Manifest);
    advance(1000 * MS).await;
    assert!(staying.poll().is_none(), "the manifest is first");
    assert_eq!((limiter.counts().in_flight, queued(&limiter)), (1, 1));
    drop(leaving);
    drop(staying.expect_admitted());
}

/// The owner of the token timer leaves and is replaced: the others are still woken at the next
/// token.
#[tokio::test(start_paused = true)]
async fn timer_is_taken_over_when_its_holder_leaves() {
    let (limiter, start) = (Arc::new(paced(1)), Instant::now());
    drop(acquire(&limiter, Priority::Segment).await);
    let staying = tokio::spawn({
        let limiter = Arc::clone(&limiter);
        async move { limiter.acquire(Priority::Manifest, LONG).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let keeper = WaitingRequest::new(&limiter, Priority::Refresh);
    drop(keeper);
    let short = limiter.acquire(Priority::Refresh, 10 * MS).await;
    assert!(short.is_err());
    assert_eq!(staying.await.unwrap(), Ok(()));
    assert_eq!(start.elapsed(), 1000 * MS);
}

#[tokio::test(start_paused = true)]
async fn try_acquire_does_not_overtake_waiters() {
    let limiter = limiter(1, 8);
    let permit = limiter.try_acquire().expect("a free permit");
    assert!(limiter.try_acquire().is_none());
    let mut request = WaitingRequest::new(&limiter, Priority::Refresh);
    drop(permit);
    assert!(
        limiter.try_acquire().is_none(),
        "it is the waiting request's"
    );
    drop(request.expect_admitted());
    assert!(limiter.try_acquire().is_some());
    assert_eq!(limiter.counts().rejected, [0; 3], "no request was rejected");
}
