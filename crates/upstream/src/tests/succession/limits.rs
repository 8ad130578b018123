//! Limits and quotas hold for a group and its successor together.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{advance, sleep};

use super::{LONG, free_permit, get, group_of, origin, slot, succeeded, unused};
use crate::slow_viewers::RequestPermits;
use crate::{Failure, Origin, Priority, Quota, Rejection, UpstreamRequest};

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A permit of the group, waited for.
async fn permit(origin: &Arc<Origin>, priority: Priority) -> Result<Arc<RequestPermits>, Failure> {
    let mut request = UpstreamRequest {
        priority,
        ..get("/x")
    };
    origin.group.limits.acquire(&mut request, LONG).await
}

#[tokio::test(start_paused = true)]
async fn lower_limit_admits_none_until_in_flight_sank() {
    let mut settings = group_of(&[unused(1)]);
    settings.concurrency_max = 3;
    let former = origin(settings.clone());
    let mut held: Vec<_> = (0..3).map(|_| free_permit(&former).unwrap()).collect();
    settings.concurrency_max = 1;
    let origin = succeeded(&former, settings);
    for _ in 0..3 {
        assert!(free_permit(&origin).is_none() && free_permit(&former).is_none());
        held.pop();
    }
    let one = free_permit(&origin).unwrap();
    assert!(free_permit(&former).is_none(), "together they have one");
    drop(one);
    assert!(free_permit(&former).is_some());
}

#[tokio::test(start_paused = true)]
async fn higher_limit_admits_waiting_at_once() {
    let mut settings = group_of(&[unused(1)]);
    settings.concurrency_max = 1;
    let former = origin(settings.clone());
    let _held = free_permit(&former).unwrap();
    let mut waiting = [1, 2, 3].map(|_| Box::pin(permit(&former, Priority::Segment)));
    for wait in &mut waiting {
        assert!(poll_once(wait.as_mut()).is_pending());
    }
    settings.concurrency_max = 3;
    let origin = succeeded(&former, settings);
    let polled = waiting.each_mut().map(|wait| poll_once(wait.as_mut()));
    let admitted = polled.iter().filter(|polled| polled.is_ready());
    assert_eq!((admitted.count(), origin.stats().queued), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn raised_rate_wakes_the_request_that_waits_for_a_token() {
    let mut settings = group_of(&[unused(1)]);
    settings.requests_per_second_max = Some(1);
    let former = origin(settings.clone());
    permit(&former, Priority::Segment).await.unwrap();
    let waiting = tokio::spawn({
        let former = Arc::clone(&former);
        async move { permit(&former, Priority::Segment).await.is_ok() }
    });
    sleep(Duration::from_millis(1)).await;
    settings.requests_per_second_max = Some(100);
    let _origin = succeeded(&former, settings);
    sleep(Duration::from_millis(110)).await;
    assert!(waiting.is_finished() && waiting.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn quota_of_old_and_new_group_together_holds() {
    let mut settings = group_of(&[unused(1), unused(2)]);
    settings.endpoints[1].requests_per_second_max = Some(Quota::All(20));
    let former = origin(settings.clone());
    assert!(slot(&former, 1).is_some());
    settings.endpoints.remove(0);
    settings.endpoints[0].requests_per_second_max = Some(Quota::All(10));
    let origin = succeeded(&former, settings);
    let mut taken = 0;
    for _ in 0..1000 {
        taken += usize::from(slot(&former, 1).is_some());
        taken += usize::from(slot(&origin, 0).is_some());
        advance(Duration::from_millis(1)).await;
    }
    assert!((10..=11).contains(&taken), "{taken}");
}

#[tokio::test(start_paused = true)]
async fn new_cap_of_an_endpoint_counts_what_is_in_progress_there() {
    let mut settings = group_of(&[unused(1)]);
    let former = origin(settings.clone());
    let held = [slot(&former, 0).unwrap(), slot(&former, 0).unwrap()];
    settings.endpoints[0].concurrency_max = Some(2);
    let second = succeeded(&former, settings.clone());
    assert!(slot(&second, 0).is_none() && slot(&former, 0).is_none());
    let stats = second.stats().endpoints[0].clone();
    assert_eq!(stats.concurrency_max, Some(2));
    settings.endpoints[0].concurrency_max = None;
    let third = succeeded(&second, settings);
    assert!(slot(&third, 0).is_some());
    assert_eq!(third.stats().endpoints[0].concurrency_max, None);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn queue_displacement_survives_smaller_queue() {
    let mut settings = group_of(&[unused(1)]);
    (settings.concurrency_max, settings.queue_max) = (1, 4);
    let former = origin(settings.clone());
    let _held = free_permit(&former).unwrap();
    let mut waiting: Vec<_> = (0..4)
        .map(|_| Box::pin(permit(&former, Priority::Refresh)))
        .collect();
    for wait in &mut waiting {
        assert!(poll_once(wait.as_mut()).is_pending());
    }
    settings.queue_max = 1;
    let origin = succeeded(&former, settings);
    let refused = permit(&origin, Priority::Refresh).await.map(drop);
    assert_eq!(refused, Err(Failure::Busy));
    let mut urgent = Box::pin(permit(&origin, Priority::Manifest));
    assert!(poll_once(urgent.as_mut()).is_pending());
    let displaced = waiting
        .iter_mut()
        .map(|wait| poll_once(wait.as_mut()))
        .filter(Poll::is_ready);
    assert_eq!(displaced.count(), 1);
    let stats = origin.stats();
    assert_eq!(stats.queued, 4);
    let by_reason = |reason| {
        stats
            .rejected
            .iter()
            .find(|(by, _)| *by == reason)
            .unwrap()
            .1
    };
    assert_eq!(by_reason(Rejection::Displaced), 1);
    assert_eq!(by_reason(Rejection::QueueFull), 1);
}
