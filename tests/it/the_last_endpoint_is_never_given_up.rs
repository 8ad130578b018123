//! Even if every endpoint of a group is ejected, unhealthy or unreachable, one of them is still
//! used, and a good response is passed on like any other.

use std::time::Duration;

use seawall_upstream::guard::health;
use seawall_upstream::{Check, CheckKind};

use crate::support::metrics::{BREAKER, EJECTED, HEALTHY};
use crate::support::shield::{Builder, endpoint};
use crate::support::{Origin, Shield, eventually, get, segment, status};

const HOUR: Duration = Duration::from_hours(1);
const HEALTH: &str = "/health";

/// Two endpoints in order, where one failure is enough for an ejection of an hour.
fn suspicious(first: &Origin, second: &Origin) -> Builder {
    Shield::in_front_of(first)
        .origin(|group| {
            group.endpoints.push(endpoint(second));
            group.guards.ejection.failures = 1;
            group.guards.ejection.base = HOUR;
            group.guards.ejection.max = HOUR;
            group.retry.attempts_max = 1;
            group.retry.budget.per_s_min = 100;
        })
        .proxy_settings(|waits| waits.failure_backoff = Duration::ZERO)
}

fn checked(group: &mut seawall_upstream::Settings) {
    group.health = Some(Check {
        kind: CheckKind::Http {
            path: HEALTH.parse().unwrap(),
            expect: Vec::new(),
        },
        timeout: HOUR,
        schedule: health::Settings {
            every: Duration::from_millis(10),
            ..health::Settings::default()
        },
    });
}

async fn none_is_healthy(shield: &Shield) {
    eventually("both endpoints unhealthy", async || {
        let page = shield.admin(get("/status")).await;
        page.text().matches("\"healthy\":false").count() == 2
    })
    .await;
    assert_eq!(shield.counter(HEALTHY, &[]).await, 0);
}

async fn sick() -> Origin {
    let origin = Origin::start().await;
    origin
        .on(HEALTH, status(500))
        .on("/bad.ts", status(503))
        .on("/good.ts", segment("good"))
}

/// One endpoint is ejected; the other, which fails as well, is not, and remains in use.
#[tokio::test]
async fn last_endpoint_is_not_ejected() {
    let (first, second) = (sick().await, sick().await);
    let shield = suspicious(&first, &second).start().await;
    assert_eq!(shield.get("/bad.ts").await.status, 503);
    assert_eq!(shield.counter(EJECTED, &[]).await, 1);
    shield.get("/good.ts").await.assert_whole("good");
    assert_eq!((first.hits("/good.ts"), second.hits("/good.ts")), (0, 1));
}

/// One endpoint is ejected, both are unhealthy, and neither accepted the last connection: when they
/// are back, they are used at once.
#[tokio::test]
async fn unhealthy_endpoint_is_used_as_soon_as_it_is_reachable() {
    let (first, second) = (sick().await, sick().await);
    let shield = suspicious(&first, &second).origin(checked).start().await;
    assert_eq!(shield.get("/bad.ts").await.status, 503);
    none_is_healthy(&shield).await;
    assert_eq!(shield.counter(EJECTED, &[]).await, 1);
    first.stop().await;
    second.stop().await;
    assert!(shield.get("/good.ts").await.status >= 502);
    second.resume();
    shield.get("/good.ts").await.assert_whole("good");
}

/// The first also has an open breaker: the second is used, although it is unhealthy.
#[tokio::test]
async fn unhealthy_endpoint_is_used_while_other_breaker_is_open() {
    let first = sick().await;
    let second = sick().await.on("/bad.ts", status(500));
    let shield = suspicious(&first, &second)
        .origin(checked)
        .origin(|group| {
            group.guards.breaker.failed_urls_min = 2;
            group.guards.breaker.error_share = 0.6;
            group.guards.breaker.probe_after = HOUR;
            group.guards.breaker.probe_after_max = HOUR;
        })
        .start()
        .await;
    none_is_healthy(&shield).await;
    // Three good responses keep the second's breaker closed when it fails.
    first.stop().await;
    for number in 0..3 {
        let path = format!("/{number}.ts");
        second.set_script(&path, segment("second"));
        shield.get(&path).await.assert_whole("second");
    }
    first.resume();
    assert_eq!(shield.get("/bad.ts").await.status, 500);
    assert_eq!(shield.counter(BREAKER, &[("state", "open")]).await, 1);
    assert_eq!(shield.counter(EJECTED, &[]).await, 0);
    shield.get("/good.ts").await.assert_whole("good");
    assert_eq!((first.hits("/good.ts"), second.hits("/good.ts")), (0, 1));
}

/// All breakers are open: no request is sent until a probe is due; then a viewer's own request is
/// the probe, and its response is passed on.
#[tokio::test]
async fn viewer_request_is_the_probe_when_all_breakers_are_open() {
    let (first, second) = (sick().await, sick().await);
    let shield = suspicious(&first, &second)
        .origin(checked)
        .origin(|group| {
            group.guards.breaker.failed_urls_min = 1;
            group.guards.breaker.probe_after = Duration::from_millis(1);
            group.guards.breaker.probe_after_max = Duration::from_millis(1);
        })
        .start()
        .await;
    none_is_healthy(&shield).await;
    assert_eq!(shield.get("/bad.ts").await.status, 503);
    assert_eq!(shield.counter(BREAKER, &[("state", "closed")]).await, 0);
    assert_eq!(shield.counter(EJECTED, &[]).await, 0);
    let answered = |answer: &crate::support::Response| answer.status == 200;
    shield.repeat_until(get("/good.ts"), answered).await;
    assert_eq!(shield.counter(BREAKER, &[("state", "closed")]).await, 1);
}
