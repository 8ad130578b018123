//! An endpoint whose health checks fail is used only after all others, until two checks have
//! passed.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use seawall_upstream::guard::health;
use seawall_upstream::{Check, CheckKind};

use crate::support::metrics::{
    BREAKER, BREAKER_OPENED, HEALTH_CHECKS, HEALTHY, ORIGIN_REQUESTS, REQUESTS,
};
use crate::support::shield::{Builder, endpoint};
use crate::support::{Gate, Origin, Shield, eventually, get, segment, status};

const HEALTH: &str = "/health";

/// A short interval for the test, and a long timeout.
fn often(kind: CheckKind) -> Check {
    Check {
        kind,
        timeout: Duration::from_hours(1),
        schedule: health::Settings {
            every: Duration::from_millis(10),
            ..health::Settings::default()
        },
    }
}

fn asking() -> Check {
    often(CheckKind::Http {
        path: HEALTH.parse().unwrap(),
        expect: vec![StatusCode::OK],
    })
}

/// A shield that checks all its endpoints and prefers the first.
fn checked(check: Check, endpoints: &[&Origin]) -> Builder {
    let (first, others) = endpoints.split_first().unwrap();
    let others: Vec<_> = others.iter().map(|origin| endpoint(origin)).collect();
    Shield::in_front_of(first).origin(|group| {
        group.endpoints.extend(others);
        group.health = Some(check);
        group.deadlines.first_byte = Duration::from_hours(1);
    })
}

/// An endpoint with its own content, whose checks have this result.
async fn serving(content: &'static str, health: u16) -> Origin {
    Origin::start()
        .await
        .on("/a.ts", segment(content))
        .on("/b.ts", segment(content))
        .on(HEALTH, status(health).body("how it is"))
}

/// Waits until the endpoint's checks have this result.
async fn is_healthy(shield: &Shield, origin: &Origin, healthy: bool) {
    let url = format!("http://{}", origin.address());
    eventually(format!("{url} healthy: {healthy}"), async || {
        shield.counter(HEALTHY, &[("endpoint", &url)]).await == u64::from(healthy)
    })
    .await;
}

/// The endpoint would serve viewers, but its own health report decides.
#[tokio::test]
async fn unhealthy_endpoint_returns_after_two_passed_checks() {
    let (first, second) = (serving("first", 503).await, serving("second", 200).await);
    let shield = checked(asking(), &[&first, &second]).start().await;
    is_healthy(&shield, &first, false).await;
    is_healthy(&shield, &second, true).await;
    shield.get("/a.ts").await.assert_whole("second");
    assert_eq!(first.hits("/a.ts"), 0);

    let gate = Gate::new();
    first.set_script(HEALTH, status(200).then(status(200).hold_head(&gate)));
    gate.wait_arrived(1).await;
    is_healthy(&shield, &first, false).await;
    gate.open();
    is_healthy(&shield, &first, true).await;
    shield.get("/b.ts").await.assert_whole("first");
    assert_eq!(second.hits("/b.ts"), 0);
}

/// When no other endpoint can answer, it is used, and its response is passed on like any other.
#[tokio::test]
async fn unhealthy_endpoint_is_used_when_no_other_is_left() {
    let only = serving("only", 500).await;
    let shield = checked(asking(), &[&only]).start().await;
    is_healthy(&shield, &only, false).await;
    shield.get("/a.ts").await.assert_whole("only");

    let (first, second) = (serving("first", 500).await, serving("second", 500).await);
    let shield = checked(asking(), &[&first, &second]).start().await;
    is_healthy(&shield, &first, false).await;
    is_healthy(&shield, &second, false).await;
    shield.get("/a.ts").await.assert_whole("first");
}

/// A check without a response in time fails, and so does one whose response breaks off.
#[tokio::test]
async fn health_check_fails_on_timeout_or_truncated_response() {
    let silent = Origin::start().await;
    silent.set_script(HEALTH, status(200).hold_head(&Gate::new()));
    let cut = Origin::start().await;
    cut.set_script(HEALTH, status(200).content_length(100).send("x").close());
    let stalled = Origin::start().await;
    stalled.set_script(HEALTH, status(200).content_length(100).send("x").stall());
    let check = Check {
        timeout: Duration::from_millis(30),
        ..asking()
    };
    for origin in [silent, cut, stalled] {
        let shield = checked(check.clone(), &[&origin]).start().await;
        is_healthy(&shield, &origin, false).await;
    }
}

/// When the checks only connect, the content of a response does not matter.
#[tokio::test]
async fn tcp_check_needs_only_a_connection() {
    let (first, second) = (serving("first", 500).await, serving("second", 500).await);
    let check = often(CheckKind::Tcp);
    let shield = checked(check, &[&first, &second]).start().await;
    is_healthy(&shield, &first, true).await;
    first.stop().await;
    is_healthy(&shield, &first, false).await;
    is_healthy(&shield, &second, true).await;
    first.resume();
    is_healthy(&shield, &first, true).await;
    shield.get("/a.ts").await.assert_whole("first");
    assert_eq!(first.hits(HEALTH), 0);
}

/// Checks send the group's host and headers, and are counted apart from viewers' requests.
#[tokio::test]
async fn health_checks_are_not_counted_as_requests() {
    let origin = serving("x", 200).await;
    let shield = checked(asking(), &[&origin])
        .origin(|group| {
            group.host = Some("media.example".to_owned());
            let token = HeaderName::from_static("x-token");
            group.headers = vec![(token, HeaderValue::from_static("1"))];
        })
        .start()
        .await;
    eventually("five good checks", async || {
        let passed = [("result", "passed")];
        shield.counter(HEALTH_CHECKS, &passed).await >= 5
    })
    .await;
    let check = origin.latest(HEALTH);
    assert_eq!(check.header("host"), Some("media.example"));
    assert_eq!(check.header("x-token"), Some("1"));
    assert_eq!(shield.counter(ORIGIN_REQUESTS, &[]).await, 0);
    assert_eq!(shield.counter(REQUESTS, &[]).await, 0);
    shield.get("/a.ts").await.assert_whole("x");
    assert_eq!(shield.counter(ORIGIN_REQUESTS, &[]).await, 1);
}

/// Failed checks do not open the breaker, and a passed one closes it without a failing viewer
/// request first.
#[tokio::test]
async fn passed_health_check_closes_the_breaker() {
    let origin = serving("x", 500).await.on("/broken.ts", status(500));
    let shield = checked(asking(), &[&origin])
        .origin(|group| {
            group.guards.breaker.failed_urls_min = 1;
            group.guards.breaker.probe_after = Duration::from_millis(1);
        })
        .start()
        .await;
    is_healthy(&shield, &origin, false).await;
    assert_eq!(shield.counter(BREAKER_OPENED, &[]).await, 0);
    assert_eq!(shield.get("/broken.ts").await.status, 500);
    assert_eq!(shield.counter(BREAKER_OPENED, &[]).await, 1);
    assert_eq!(shield.counter(BREAKER, &[("state", "closed")]).await, 0);
    origin.set_script(HEALTH, status(200));
    eventually("a closed breaker", async || {
        shield.counter(BREAKER, &[("state", "closed")]).await == 1
    })
    .await;
    assert_eq!(origin.hits("/broken.ts"), 1);
}

/// The same over HTTP/2; `/status` shows the results.
#[tokio::test]
async fn status_page_shows_health_over_http2() {
    let origin = Origin::start_h2().await.on(HEALTH, status(503));
    let shield = checked(asking(), &[&origin]).start().await;
    eventually("an endpoint shown as not healthy", async || {
        let page = shield.admin(get("/status")).await;
        page.assert_200_text().contains("\"healthy\":false")
    })
    .await;
    origin.set_script(HEALTH, status(200));
    is_healthy(&shield, &origin, true).await;
    let unchecked = Shield::in_front_of(&origin).start().await;
    let page = unchecked.admin(get("/status")).await;
    assert!(
        page.assert_200_text().contains("\"healthy\":null"),
        "{page:?}"
    );
}
