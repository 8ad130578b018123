//! Only the retries and hedges that are made use the budget.

use std::time::{Duration, Instant};

use super::scripted::Scripted;
use super::{endpoint, get, origin, settings, whole};
use crate::Priority;

const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";
const BUSY_FOR_LONG: &str = "HTTP/1.1 503 Busy\r\nRetry-After: 60\r\nContent-Length: 4\r\n\r\nbusy";

#[tokio::test]
async fn skipped_retry_is_not_counted() {
    let script = Scripted::always(BUSY_FOR_LONG).await;
    let origin = origin(settings(script.address));
    assert_eq!(whole(&origin, get("/x")).await.unwrap().0, 503);
    assert_eq!(origin.stats().total.retries, 0);
}

/// The other endpoint is full; the first would be retried, but has asked for a pause.
#[tokio::test]
async fn retry_after_prevents_retry_at_same_endpoint() {
    let busy = Scripted::always(BUSY_FOR_LONG).await;
    let full = Scripted::then_silent("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    let mut settings = settings(full.address);
    settings.endpoints[0].concurrency_max = Some(1);
    settings.endpoints.push(endpoint(busy.address));
    let origin = origin(settings);
    let _held = origin.fetch(get("/long")).await.ok().unwrap();
    assert_eq!(whole(&origin, get("/x")).await.unwrap().0, 503);
    let counts = &origin.stats().endpoints[1].counts;
    assert_eq!((counts.server_error, counts.retries), (1, 0));
}

/// Without a rate token for a retry, the budget is not charged.
#[tokio::test]
async fn retry_without_rate_token_does_not_spend_budget() {
    let script = Scripted::always(BUSY).await;
    let mut settings = settings(script.address);
    settings.requests_per_second_max = Some(20);
    settings.retry.budget.share = 0.0;
    let origin = origin(settings);
    // The first retry gets a token, the second does not.
    for _ in 0..2 {
        let _ = whole(&origin, get("/x")).await;
    }
    let spent = origin.stats().total.retries;
    let mut left = 0;
    while origin
        .group
        .selector
        .extra_requests
        .budget
        .lock()
        .try_spend(Instant::now())
    {
        left += 1;
    }
    assert_eq!(left + spent, 10);
}

/// A hedge that won holds one permit, like any request.
#[tokio::test]
async fn winning_hedge_holds_one_permit() {
    let slow = Scripted::then_silent("").await;
    let quick = Scripted::then_silent("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    let mut settings = settings(slow.address);
    settings.endpoints.push(endpoint(quick.address));
    settings.guards.latency.samples_min = 1;
    let origin = origin(settings);
    let endpoint = &origin.group.selector.endpoints[0];
    endpoint.record_latency(Instant::now(), Duration::from_millis(1));
    let mut request = get("/x.m3u8");
    request.priority = Priority::Manifest;
    let response = origin.fetch(request).await.ok().unwrap();
    let stats = origin.stats();
    assert_eq!(stats.total.hedges_won, 1);
    assert_eq!((stats.in_flight, stats.total.in_flight), (1, 1));
    drop(response);
    assert_eq!(origin.stats().in_flight, 0);
}
