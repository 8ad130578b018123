//! Stored objects are served while endpoints go away and come back, and nothing permanent remains
//! of an outage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::metrics::{
    FILL_BYTES, FILLS, ORIGIN_ACTIVE, ORIGIN_IN_FLIGHT, QUEUED_BY_PRIORITY, REQUESTS, WAITERS,
};
use crate::support::origin::Reply;
use crate::support::shield::endpoint;
use crate::support::{Origin, Shield, eventually, get, manifest, playlist, segment};

/// Playlists that are stored and stale.
const HELD: u64 = 8;
const NEW: &str = "/new.ts";
const VIEWERS: usize = 12;
/// How often each endpoint goes away: once a second for a minute.
const FLAPS: usize = 30;
/// Responses between two changes: enough for every viewer to have met the change.
const BETWEEN: usize = 2 * VIEWERS;

const PERMITS: usize = 6;
/// A permit may stand for two requests to one endpoint for a moment (a cancelled one that the
/// endpoint has not noticed); a probe needs none.
const BOUND: usize = 2 * PERMITS + 1;

fn path(number: u64) -> String {
    format!("/live/{number}.m3u8")
}

fn overdue(number: u64) -> Reply {
    manifest(playlist(number))
        .cache_control("max-age=1, stale-if-error=600")
        .age(10)
}

async fn stocked() -> Origin {
    let mut origin = Origin::start().await.on(NEW, segment("new"));
    for number in 0..HELD {
        origin = origin.on(&path(number), overdue(number));
    }
    origin
}

/// Viewers who keep requesting until they are stopped.
#[derive(Default)]
struct Crowd {
    answered: AtomicUsize,
    enough: AtomicBool,
}

impl Crowd {
    /// One viewer: stored objects must be served; new ones may fail, but with a response.
    async fn watch(self: Arc<Crowd>, shield: Arc<Shield>, seat: usize) {
        let mut viewer = shield.viewer().await;
        for round in 0.. {
            for number in 0..HELD {
                let answer = viewer.get(&path(number)).await;
                assert!(answer.assert_whole(playlist(number)).age() >= 10);
                self.answered.fetch_add(1, Ordering::Relaxed);
                if self.enough.load(Ordering::Relaxed) {
                    return;
                }
            }
            let status = shield.get(&format!("{NEW}?{seat}-{round}")).await.status;
            assert!(matches!(status, 200 | 502..=504), "{status}");
        }
    }

    /// Waits until more viewers have got responses.
    async fn go_on(&self) {
        let goal = self.answered.load(Ordering::Relaxed) + BETWEEN;
        eventually("more answers", async || {
            self.answered.load(Ordering::Relaxed) >= goal
        })
        .await;
    }
}

/// All endpoints were down and one is back, as another request has shown: requests that failed
/// meanwhile succeed at once.
#[tokio::test]
async fn failure_backoff_ends_when_an_endpoint_returns() {
    let init = "/live/init.mp4";
    let serving = async || {
        let whole = segment("init").content_type("video/mp4");
        Origin::start()
            .await
            .on(init, whole)
            .on(NEW, segment("new"))
    };
    let (first, second) = (serving().await, serving().await);
    let shield = Shield::in_front_of(&first)
        .and_endpoint(&second)
        .proxy_settings(|waits| waits.failure_backoff = Duration::from_hours(1))
        .start()
        .await;
    first.stop().await;
    second.stop().await;
    assert_eq!(shield.get(init).await.status, 502);
    assert_eq!(shield.get(init).await.status, 502);
    second.resume();
    shield.get(NEW).await.assert_whole("new");
    shield.get(init).await.assert_whole("init");
}

/// One down, both down, the other down, and so on.
#[tokio::test]
async fn stored_objects_are_served_while_endpoints_flap() {
    let (first, second) = (stocked().await, stocked().await);
    let shield = Shield::in_front_of(&first)
        .origin(|group| {
            group.endpoints.push(endpoint(&second));
            group.concurrency_max = PERMITS;
            group.guards.breaker.probe_after = Duration::from_millis(1);
            group.guards.breaker.probe_after_max = Duration::from_millis(10);
        })
        .proxy_settings(|waits| waits.failure_backoff = Duration::ZERO)
        .start()
        .await;
    let shield = Arc::new(shield);
    for number in 0..HELD {
        shield
            .get(&path(number))
            .await
            .assert_whole(playlist(number));
    }
    let crowd = Arc::new(Crowd::default());
    let viewers: JoinSet<()> = (0..VIEWERS)
        .map(|seat| Arc::clone(&crowd).watch(Arc::clone(&shield), seat))
        .collect();
    for _ in 0..FLAPS {
        first.stop().await;
        crowd.go_on().await;
        second.stop().await;
        crowd.go_on().await;
        first.resume();
        crowd.go_on().await;
        second.resume();
        crowd.go_on().await;
    }
    crowd.enough.store(true, Ordering::Relaxed);
    viewers.join_all().await;
    let covered = shield
        .counter(REQUESTS, &[("outcome", "stale_error")])
        .await;
    assert!(covered > 0, "the endpoints were never missed");
    comes_to_rest(&shield, [&first, &second]).await;
    is_fresh_again(&shield, [&first, &second]).await;
}

async fn comes_to_rest(shield: &Shield, origins: [&Origin; 2]) {
    for gauge in [
        FILLS,
        FILL_BYTES,
        WAITERS,
        QUEUED_BY_PRIORITY,
        ORIGIN_IN_FLIGHT,
        ORIGIN_ACTIVE,
    ] {
        shield.wait_gauge(gauge, |value| value == 0).await;
    }
    for origin in origins {
        let most = origin.concurrent_max();
        assert!(most <= BOUND, "{most} at once");
        let few = async || origin.connections() <= BOUND;
        eventually("few connections to be left", few).await;
    }
}

async fn is_fresh_again(shield: &Shield, origins: [&Origin; 2]) {
    for number in 0..HELD {
        for origin in origins {
            let fresh = manifest(playlist(number + 100)).cache_control("max-age=60");
            origin.set_script(&path(number), fresh);
        }
        let fresh = playlist(number + 100);
        shield
            .repeat_until(get(&path(number)), |answer| answer.text() == fresh)
            .await;
    }
    let answered = |answer: &crate::support::Response| answer.status == 200;
    shield
        .repeat_until(get(&format!("{NEW}?after")), answered)
        .await;
}
