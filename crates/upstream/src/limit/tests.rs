//! Tests of the limiter under a paused clock.

use std::future::Future;
use std::task::Waker;

use tokio::time::advance;

use super::*;

const LONG: Duration = Duration::from_secs(30);
const MS: Duration = Duration::from_millis(1);

fn gate(concurrency_max: usize, queue_max: usize) -> ConcurrencyLimiter {
    ConcurrencyLimiter::new(&LimiterSettings {
        concurrency_max,
        kept_for_manifests: 0,
        queue_max,
        requests_per_second_max: None,
    })
}

fn paced(requests_per_second: u32) -> ConcurrencyLimiter {
    ConcurrencyLimiter::new(&LimiterSettings {
        concurrency_max: 100,
        kept_for_manifests: 0,
        queue_max: 100,
        requests_per_second_max: Some(requests_per_second),
    })
}

/// A waiting request that polls only when a test says so.
struct Guest<'a> {
    entering: Pin<Box<dyn Future<Output = Result<Permit, Failure>> + 'a>>,
}

impl<'a> Guest<'a> {
    /// Enters and waits.
    fn waiting(gate: &'a ConcurrencyLimiter, rank: Priority) -> Guest<'a> {
        let mut guest = Guest {
            entering: Box::pin(gate.enter(rank, LONG)),
        };
        assert!(guest.look().is_none(), "let in at once, or turned away");
        guest
    }

    /// Polls the result.
    fn look(&mut self) -> Option<Result<Permit, Failure>> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.entering.as_mut().poll(&mut cx) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    #[track_caller]
    fn enters(&mut self) -> Permit {
        self.look().expect("still waiting").expect("let in")
    }

    #[track_caller]
    fn is_turned_away(&mut self) {
        assert_eq!(self.look().map(Result::err), Some(Some(Failure::Busy)));
    }
}

fn queued(gate: &ConcurrencyLimiter) -> usize {
    gate.counts().queued.iter().sum()
}

fn rejected(gate: &ConcurrencyLimiter, reason: Rejection) -> u64 {
    gate.counts().rejected(reason)
}

async fn enter(gate: &ConcurrencyLimiter, rank: Priority) -> Permit {
    gate.enter(rank, LONG).await.expect("a free permit")
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_waited_for_and_handed_on() {
    let gate = gate(1, 1);
    let first = enter(&gate, Priority::Segment).await;
    assert_eq!(gate.counts().in_flight, 1);
    let mut second = Guest::waiting(&gate, Priority::Segment);
    assert_eq!(gate.counts().queued[Priority::Segment.index()], 1);
    drop(first);
    assert_eq!((gate.counts().in_flight, queued(&gate)), (1, 0));
    drop(second.enters());
    assert_eq!(gate.counts(), LimiterCounts::default());
}

#[tokio::test(start_paused = true)]
async fn manifests_overtake_and_equals_keep_their_turn() {
    let gate = gate(1, 8);
    let mut permit = enter(&gate, Priority::Behind).await;
    let mut behind = Guest::waiting(&gate, Priority::Behind);
    let mut segments = [(); 2].map(|()| Guest::waiting(&gate, Priority::Segment));
    let mut manifest = Guest::waiting(&gate, Priority::Manifest);
    let [first, second] = &mut segments;
    for next in [&mut manifest, first, second, &mut behind] {
        drop(permit);
        permit = next.enters();
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_room_for_a_higher_rank_only() {
    let gate = gate(1, 3);
    let _permit = enter(&gate, Priority::Segment).await;
    let mut old = Guest::waiting(&gate, Priority::Behind);
    let mut young = Guest::waiting(&gate, Priority::Behind);
    let segment = Guest::waiting(&gate, Priority::Segment);
    let same = gate.enter(Priority::Behind, LONG).await;
    assert_eq!(same.err(), Some(Failure::Busy), "no higher than the last");
    let manifest = Guest::waiting(&gate, Priority::Manifest);
    young.is_turned_away();
    assert!(old.look().is_none(), "only the youngest goes");
    let second = Guest::waiting(&gate, Priority::Segment);
    old.is_turned_away();
    let third = gate.enter(Priority::Segment, LONG).await;
    assert_eq!(third.err(), Some(Failure::Busy));
    let census = gate.counts();
    assert_eq!(
        (census.queued, census.rejected),
        ([1, 0, 2, 0, 0], [2, 2, 0])
    );
    drop((segment, manifest, second));
    assert_eq!(queued(&gate), 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_in_time() {
    let gate = gate(1, 8);
    let permit = enter(&gate, Priority::Segment).await;
    let late = gate.enter(Priority::Manifest, 20 * MS).await;
    assert_eq!(late.err(), Some(Failure::Busy));
    let unwilling = gate.enter(Priority::Manifest, Duration::ZERO).await;
    assert_eq!(unwilling.err(), Some(Failure::Busy));
    assert_eq!(
        (queued(&gate), rejected(&gate, Rejection::Deadline)),
        (0, 2)
    );
    drop(permit);
    enter(&gate, Priority::Segment).await;
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_came_in_time_is_taken_however_late_it_is_noticed() {
    let gate = gate(1, 8);
    let permit = enter(&gate, Priority::Segment).await;
    let mut waiting = Guest::waiting(&gate, Priority::Segment);
    drop(permit);
    advance(LONG * 2).await;
    drop(waiting.enters());
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_queue() {
    let gate = gate(1, 1);
    let _permit = enter(&gate, Priority::Segment).await;
    drop(Guest::waiting(&gate, Priority::Segment));
    assert_eq!(queued(&gate), 0);
    let census = gate.counts();
    assert_eq!(census.rejected, [0; 3], "nobody was turned away");
}

#[tokio::test(start_paused = true)]
async fn a_permit_given_to_one_who_has_left_goes_to_the_next() {
    let gate = gate(1, 8);
    let permit = enter(&gate, Priority::Segment).await;
    let first = Guest::waiting(&gate, Priority::Segment);
    let mut second = Guest::waiting(&gate, Priority::Segment);
    drop(permit);
    assert!(second.look().is_none());
    drop(first);
    drop(second.enters());
    assert_eq!(gate.counts(), LimiterCounts::default());
}

#[tokio::test(start_paused = true)]
async fn a_pace_is_kept_in_order_of_rank() {
    let gate = paced(20);
    let _burst = [
        enter(&gate, Priority::Segment).await,
        enter(&gate, Priority::Segment).await,
    ];
    let mut behind = Guest::waiting(&gate, Priority::Behind);
    let mut segment = Guest::waiting(&gate, Priority::Segment);
    let mut manifest = Guest::waiting(&gate, Priority::Manifest);
    let mut permits = Vec::new();
    for next in [&mut manifest, &mut segment, &mut behind] {
        advance(49 * MS).await;
        assert!(next.look().is_none());
        advance(MS).await;
        permits.push(next.enters());
    }
    assert_eq!(gate.counts().in_flight, 5);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_pace_ends_in_time_too() {
    let gate = paced(1);
    let _permit = enter(&gate, Priority::Segment).await;
    let late = gate.enter(Priority::Manifest, 999 * MS).await;
    assert_eq!(late.err(), Some(Failure::Busy));
    assert_eq!(rejected(&gate, Rejection::Deadline), 1);
    let _permit = gate.enter(Priority::Manifest, 2 * MS).await.ok().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_given_to_one_who_has_left_goes_to_the_next() {
    let gate = paced(1);
    drop(enter(&gate, Priority::Segment).await);
    let mut staying = Guest::waiting(&gate, Priority::Segment);
    let leaving = Guest::waiting(&gate, Priority::Manifest);
    advance(1000 * MS).await;
    assert!(staying.look().is_none(), "the manifest is first");
    assert_eq!((gate.counts().in_flight, queued(&gate)), (1, 1));
    drop(leaving);
    drop(staying.enters());
}

/// A timekeeper that leaves is replaced: the others are still woken at the next token.
#[tokio::test(start_paused = true)]
async fn someone_always_keeps_time() {
    let (gate, start) = (Arc::new(paced(1)), Instant::now());
    drop(enter(&gate, Priority::Segment).await);
    let staying = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { gate.enter(Priority::Manifest, LONG).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let keeper = Guest::waiting(&gate, Priority::Behind);
    drop(keeper);
    let short = gate.enter(Priority::Behind, 10 * MS).await;
    assert!(short.is_err());
    assert_eq!(staying.await.unwrap(), Ok(()));
    assert_eq!(start.elapsed(), 1000 * MS);
}

#[tokio::test(start_paused = true)]
async fn who_would_not_wait_takes_nothing_from_those_who_do() {
    let gate = gate(1, 8);
    let permit = gate.try_enter().expect("room");
    assert!(gate.try_enter().is_none());
    let mut guest = Guest::waiting(&gate, Priority::Behind);
    drop(permit);
    assert!(gate.try_enter().is_none(), "it is the guest's");
    drop(guest.enters());
    assert!(gate.try_enter().is_some());
    assert_eq!(gate.counts().rejected, [0; 3], "nobody was turned away");
}
