//! An endpoint never gets more concurrent requests than its limit: other endpoints answer
//! meanwhile; without another endpoint, requests wait by priority.

use std::time::Duration;

use crate::support::metrics::{ACTIVE, ACTIVE_MAX, BREAKER, REJECTED};
use crate::support::shield::{Builder, endpoint};
use crate::support::{
    Gate, Origin, Shield, eventually, get, manifest, playlist, reply, segment, status,
};

const PLAYLIST: &str = "/live/index.m3u8";
const HOUR: Duration = Duration::from_hours(1);

/// The first endpoint is preferred while it has a free place. All deadlines are long.
fn capped(first: (&Origin, usize), others: &[(&Origin, Option<usize>)]) -> Builder {
    Shield::in_front_of(first.0)
        .origin(|group| {
            group.endpoints[0].concurrency_max = Some(first.1);
            for (other, cap) in others {
                let mut endpoint = endpoint(other);
                endpoint.concurrency_max = *cap;
                group.endpoints.push(endpoint);
            }
            group.deadlines.queue = HOUR;
            group.deadlines.first_byte = HOUR;
            group.deadlines.between_bytes = HOUR;
            group.deadlines.total = HOUR;
        })
        .proxy_settings(|waits| waits.wait_max = HOUR)
}

/// The first endpoint is in doubt after its first failure; the second has room for one request.
fn doubting(doubtful: &Origin, sound: &Origin) -> Builder {
    capped((doubtful, 9), &[(sound, Some(1))]).origin(|group| {
        group.guards.ejection.failures = 1;
        group.guards.ejection.base = HOUR;
        group.guards.ejection.max = HOUR;
    })
}

/// A request holds its place until its body has ended; meanwhile others go to the second endpoint
/// at once.
#[tokio::test]
async fn other_endpoint_answers_while_first_is_at_its_limit() {
    let gate = Gate::new();
    let half = reply().content_length(8).send("held").hold(&gate);
    let first = Origin::start()
        .await
        .on("/held.ts", half.send("held"))
        .on("/c.ts", segment("first"));
    let second = Origin::start().await;
    for path in ["/a.ts", "/b.ts"] {
        second.set_script(path, segment("second"));
    }
    let shield = capped((&first, 1), &[(&second, None)]).start().await;
    let held = shield.crowd(1, get("/held.ts")).await;
    gate.wait_arrived(1).await;
    shield.get("/a.ts").await.assert_whole("second");
    shield.get("/b.ts").await.assert_whole("second");

    let url = format!("http://{}", first.address());
    let of_first = [("endpoint", &*url)];
    assert_eq!(shield.counter(ACTIVE, &of_first).await, 1);
    assert_eq!(
        shield.counter(ACTIVE_MAX, &[]).await,
        1,
        "the second has none"
    );
    let page = shield.admin(get("/status")).await;
    let page: serde_json::Value = serde_json::from_str(page.text()).unwrap();
    let endpoints = &page["origins"][0]["endpoints"];
    assert_eq!(endpoints[0]["concurrency_max"], 1);
    assert!(endpoints[1]["concurrency_max"].is_null());

    gate.open();
    for answer in held.read_all().await {
        answer.assert_whole("heldheld");
    }
    eventually("room at the first endpoint", async || {
        shield.counter(ACTIVE, &of_first).await == 0
    })
    .await;
    shield.get("/c.ts").await.assert_whole("first");
    assert_eq!(first.concurrent_max(), 1);
}

/// Two places in all, six objects: no endpoint gets a second request at once, and the manifest that
/// arrived last goes next.
#[tokio::test]
async fn requests_queue_by_priority_when_all_endpoints_are_full() {
    let [first_gate, rest] = [(); 2].map(|()| Gate::new());
    let (first, second) = (Origin::start().await, Origin::start().await);
    first.set_script("/0.ts", segment("0").hold_head(&first_gate));
    for origin in [&first, &second] {
        for number in 1..5 {
            let path = format!("/{number}.ts");
            origin.set_script(&path, segment(path.clone()).hold_head(&rest));
        }
        origin.set_script(PLAYLIST, manifest(playlist(1)));
    }
    let shield = capped((&first, 1), &[(&second, Some(1))]).start().await;
    let zero = shield.crowd(1, get("/0.ts")).await;
    first_gate.wait_arrived(1).await;
    let one = shield.crowd(1, get("/1.ts")).await;
    rest.wait_arrived(1).await;
    let mut crowds = vec![one];
    for number in 2..5 {
        crowds.push(shield.crowd(1, get(&format!("/{number}.ts"))).await);
    }
    shield.wait_queued("segment", 3).await;
    let player = shield.crowd(1, get(PLAYLIST)).await;
    shield.wait_queued("manifest", 1).await;

    first_gate.open();
    for answer in zero.read_all().await {
        answer.assert_whole("0");
    }
    for answer in player.read_all().await {
        answer.assert_whole(playlist(1));
    }
    rest.open();
    for (number, crowd) in (1..).zip(crowds) {
        for answer in crowd.read_all().await {
            answer.assert_whole(format!("/{number}.ts"));
        }
    }
    assert_eq!((first.concurrent_max(), second.concurrent_max()), (1, 1));
    assert_eq!(shield.counter(REJECTED, &[]).await, 0);
}

/// Requests wait for a busy endpoint, by priority; an endpoint in doubt is not used instead.
#[tokio::test]
async fn waits_for_busy_endpoint_instead_of_using_ejected_one() {
    let [busy, next] = [(); 2].map(|()| Gate::new());
    let doubtful = Origin::start().await.on("/bad.ts", status(500));
    let sound = Origin::start()
        .await
        .on("/bad.ts", status(500))
        .on("/held.ts", segment("held").hold_head(&busy))
        .on("/a.ts", segment("a").hold_head(&next))
        .on(PLAYLIST, manifest(playlist(1)));
    let shield = doubting(&doubtful, &sound).start().await;
    assert_eq!(shield.get("/bad.ts").await.status, 500);
    let held = shield.crowd(1, get("/held.ts")).await;
    busy.wait_arrived(1).await;
    let segments = shield.crowd(1, get("/a.ts")).await;
    shield.wait_queued("segment", 1).await;
    let player = shield.crowd(1, get(PLAYLIST)).await;
    shield.wait_queued("manifest", 1).await;
    busy.open();
    for answer in player.read_all().await {
        answer.assert_whole(playlist(1));
    }
    next.open();
    for (crowd, body) in [(held, "held"), (segments, "a")] {
        for answer in crowd.read_all().await {
            answer.assert_whole(body);
        }
    }
    assert_eq!(sound.concurrent_max(), 1);
    assert_eq!(doubtful.hits("/a.ts") + doubtful.hits(PLAYLIST), 0);
}

/// This wait has the queue's deadline and counts as queued.
#[tokio::test]
async fn queue_deadline_ends_wait_for_busy_endpoint() {
    let gate = Gate::new();
    let doubtful = Origin::start().await.on("/bad.ts", status(500));
    let sound = Origin::start()
        .await
        .on("/bad.ts", status(500))
        .on("/held.ts", segment("held").hold_head(&gate));
    let shield = doubting(&doubtful, &sound)
        .origin(|group| group.deadlines.queue = Duration::from_millis(50))
        .start()
        .await;
    assert_eq!(shield.get("/bad.ts").await.status, 500);
    let held = shield.crowd(1, get("/held.ts")).await;
    gate.wait_arrived(1).await;
    let late = shield.get("/late.ts").await;
    assert_eq!(late.status, 503, "{late:?}");
    assert_eq!(late.header("retry-after"), Some("1"), "{late:?}");
    let in_vain = [("reason", "deadline")];
    assert_eq!(shield.counter(REJECTED, &in_vain).await, 1);
    gate.open();
    held.read_all().await;
    assert_eq!(sound.hits("/late.ts") + doubtful.hits("/late.ts"), 0);
}

/// A retry that finds no free place is not made and does not wait: viewers get the first response.
#[tokio::test]
async fn retry_is_not_made_when_no_permit_is_free() {
    let gate = Gate::new();
    let first = Origin::start().await.on("/a.ts", status(503));
    let second = Origin::start()
        .await
        .on("/held.ts", segment("held").hold_head(&gate));
    let shield = capped((&first, 1), &[(&second, Some(1))])
        .origin(|group| group.endpoints.swap(0, 1))
        .start()
        .await;
    let held = shield.crowd(1, get("/held.ts")).await;
    gate.wait_arrived(1).await;
    assert_eq!(shield.get("/a.ts").await.status, 503);
    assert_eq!((first.hits("/a.ts"), second.hits("/a.ts")), (1, 0));
    gate.open();
    for answer in held.read_all().await {
        answer.assert_whole("held");
    }
}

/// Errors hold all places of one endpoint, and the other fails as well: with both breakers open no
/// request waits for a place.
#[tokio::test]
async fn no_request_queues_while_all_breakers_are_open() {
    let gate = Gate::new();
    let slow_error = |number: usize| {
        let error = status(503).content_length(4).hold(&gate).send("late");
        (format!("/{number}/a.ts"), error)
    };
    let (first, second) = (Origin::start().await, Origin::start().await);
    for (path, error) in (0..3).map(slow_error) {
        first.set_script(&path, error);
    }
    for number in 3..6 {
        second.set_script(&format!("/{}/b.ts", number % 3), status(503));
    }
    let shield = capped((&first, 3), &[(&second, Some(3))])
        .origin(|group| {
            group.guards.breaker.failed_urls_min = 3;
            group.guards.breaker.probe_after = HOUR;
            group.guards.breaker.probe_after_max = HOUR;
            group.retry.attempts_max = 0;
        })
        .start()
        .await;
    let mut crowds = Vec::new();
    for number in 0..3 {
        crowds.push(shield.crowd(1, get(&format!("/{number}/a.ts"))).await);
        gate.wait_arrived(number + 1).await;
    }
    eventually("an open breaker", async || {
        shield.counter(BREAKER, &[("state", "open")]).await == 1
    })
    .await;
    for number in 3..6 {
        let path = format!("/{}/b.ts", number % 3);
        assert_eq!(shield.get(&path).await.status, 503);
    }
    assert_eq!(shield.counter(BREAKER, &[("state", "open")]).await, 2);
    assert_eq!(shield.get("/0/late.ts").await.status, 503);
    assert_eq!(first.hits("/0/late.ts") + second.hits("/0/late.ts"), 0);
    gate.open();
    for crowd in crowds {
        crowd.read_all().await;
    }
}
