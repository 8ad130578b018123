//! An object wins over a refusal, whichever endpoint answers first.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::scripted::Scripted;
use super::{SHORT, endpoint, get, origin, settings, until, whole};
use crate::{Origin, Priority, UpstreamRequest};

const MISSING: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone";
const OBJECT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nobject";

/// An endpoint that answers each request when it is given a permit.
async fn holding(answer: &'static str) -> (Scripted, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let shared = Arc::clone(&permits);
    let script = Scripted::play(move |mut wire| {
        let permits = Arc::clone(&shared);
        async move {
            while wire.request().await.is_some() {
                permits.acquire().await.unwrap().forget();
                wire.say(answer).await;
            }
        }
    });
    (script.await, permits)
}

/// Both endpoints; the second is asked soon when the first is late.
fn both(first: &Scripted, second: &Scripted) -> Arc<Origin> {
    let mut settings = settings(first.address);
    settings.endpoints.push(endpoint(second.address));
    settings.retry.hedge_after_max = SHORT;
    origin(settings)
}

fn segment() -> UpstreamRequest {
    get("/live/seg1.ts")
}

fn blocking() -> UpstreamRequest {
    UpstreamRequest {
        priority: Priority::Manifest,
        is_blocking: true,
        late_after: Some(SHORT),
        ..get("/live/index.m3u8?_HLS_msn=7")
    }
}

/// The first endpoint is late, and then answers 404 while the second has not answered yet.
#[tokio::test]
async fn late_404_does_not_win_while_the_hedge_is_in_flight() {
    for request in [segment, blocking] {
        let (first, refuse) = holding(MISSING).await;
        let (second, serve) = holding(OBJECT).await;
        let origin = both(&first, &second);
        let fetching = tokio::spawn({
            let origin = Arc::clone(&origin);
            async move { whole(&origin, request()).await }
        });
        until("a hedge", || origin.stats().total.hedges == 1).await;
        refuse.add_permits(1);
        until("the 404", || origin.stats().endpoints[0].latency.count == 1).await;
        serve.add_permits(1);
        assert_eq!(fetching.await.unwrap().unwrap().0, 200);
        assert_eq!(origin.stats().total.hedges_won, 1);
    }
}

/// A hedge that hangs delays a 404 for a moment only.
#[tokio::test]
async fn late_404_is_served_when_the_hedge_hangs() {
    let (first, refuse) = holding(MISSING).await;
    let (second, _never) = holding(OBJECT).await;
    let origin = both(&first, &second);
    let fetching = tokio::spawn({
        let origin = Arc::clone(&origin);
        async move { whole(&origin, segment()).await }
    });
    until("a hedge", || origin.stats().total.hedges == 1).await;
    refuse.add_permits(1);
    assert_eq!(fetching.await.unwrap().unwrap().0, 404);
}

/// A status of `retry.statuses` counts as no response once another endpoint has one.
#[tokio::test]
async fn retried_404_does_not_win_over_the_response_of_the_retry() {
    let missing = Scripted::always(MISSING).await;
    let object = Scripted::always(OBJECT).await;
    let mut settings = settings(missing.address);
    settings.endpoints.push(endpoint(object.address));
    settings.retry.statuses = vec![http::StatusCode::NOT_FOUND];
    let origin = origin(settings);
    assert_eq!(whole(&origin, segment()).await.unwrap().0, 200);
}
