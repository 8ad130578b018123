//! An endpoint never gets more requests per second of a kind than its quota: another endpoint
//! answers meanwhile; without one, requests wait. Other kinds are not delayed.

use std::time::{Duration, Instant};

use seawall_upstream::Quota;

use crate::support::metrics::{ORIGIN_IN_FLIGHT, RATE_LIMITED, RATE_MAX, REJECTED};
use crate::support::shield::{Builder, endpoint};
use crate::support::{Gate, Origin, Shield, get, manifest, playlist, segment, status};

const HOUR: Duration = Duration::from_hours(1);
const OBJECTS: usize = 6;

/// One segment per second, and any number of other requests.
const SEGMENTS: Quota = Quota::ByClass([None, Some(1), None]);

async fn full() -> Origin {
    let mut origin = Origin::start().await;
    for number in 0..OBJECTS {
        origin = origin
            .on(&path(number), segment(path(number)))
            .on(&list(number), manifest(playlist(1)));
    }
    origin
}

fn path(number: usize) -> String {
    format!("/{number}/a.ts")
}

fn list(number: usize) -> String {
    format!("/{number}/i.m3u8")
}

fn limited(origin: &Origin, quota: Quota) -> Builder {
    Shield::in_front_of(origin)
        .route(|route| route.live.prefetch = false)
        .origin(|group| {
            group.endpoints[0].requests_per_second_max = Some(quota);
            group.deadlines.queue = HOUR;
            group.deadlines.total = HOUR;
        })
        .proxy_settings(|waits| waits.wait_max = HOUR)
}

fn segments_at(origin: &Origin) -> usize {
    (0..OBJECTS).map(|number| origin.hits(&path(number))).sum()
}

/// One request at once, and one more for each second since.
fn allowed(since: Instant) -> usize {
    1 + usize::try_from(since.elapsed().as_secs()).unwrap_or(usize::MAX)
}

#[tokio::test]
async fn other_endpoint_answers_beyond_the_quota_of_a_kind() {
    let (first, second) = (full().await, full().await);
    let shield = limited(&first, SEGMENTS).and_endpoint(&second);
    let shield = shield.start().await;
    let start = Instant::now();
    for number in 0..OBJECTS {
        shield.get(&path(number)).await.assert_whole(path(number));
        shield.get(&list(number)).await.assert_whole(playlist(1));
        assert!(segments_at(&first) <= allowed(start));
    }
    assert_eq!(segments_at(&first) + segments_at(&second), OBJECTS);
    for number in 0..OBJECTS {
        assert_eq!(first.hits(&list(number)), 1, "manifests have no quota");
    }
    let passed_over = shield.counter(RATE_LIMITED, &[("kind", "segment")]).await;
    assert_eq!(passed_over, segments_at(&second) as u64);
    assert_eq!(shield.counter(RATE_MAX, &[("kind", "segment")]).await, 1);
    assert_eq!(
        shield.counter(RATE_MAX, &[]).await,
        1,
        "the other kinds have none"
    );
    let page = shield.admin(get("/status")).await;
    let page: serde_json::Value = serde_json::from_str(page.text()).unwrap();
    let endpoints = &page["origins"][0]["endpoints"];
    assert_eq!(
        endpoints[0]["requests_per_second_max"]["segment"]["limit"],
        1
    );
    assert!(endpoints[1]["requests_per_second_max"].is_null());
}

#[tokio::test]
async fn only_the_kind_over_quota_waits_at_a_single_endpoint() {
    let origin = full().await;
    let quota = Quota::ByClass([None, Some(4), None]);
    let shield = limited(&origin, quota).start().await;
    let start = Instant::now();
    let allowed = || 1 + start.elapsed().as_millis() / 250;
    let mut crowds = Vec::new();
    for number in 0..OBJECTS {
        crowds.push(shield.crowd(1, get(&path(number))).await);
    }
    for number in 0..OBJECTS {
        shield.get(&list(number)).await.assert_whole(playlist(1));
    }
    for (number, crowd) in crowds.into_iter().enumerate() {
        for answer in crowd.read_all().await {
            answer.assert_whole(path(number));
        }
        let seen = segments_at(&origin) as u128;
        assert!(seen <= allowed(), "{seen} of {}", allowed());
    }
    assert_eq!(segments_at(&origin), OBJECTS);
    assert_eq!(shield.counter(REJECTED, &[]).await, 0);
}

#[tokio::test]
async fn overall_quota_is_shared_by_all_kinds() {
    let (first, second) = (full().await, full().await);
    let shield = limited(&first, Quota::All(1))
        .and_endpoint(&second)
        .start()
        .await;
    let start = Instant::now();
    for number in 0..OBJECTS {
        shield.get(&path(number)).await.assert_whole(path(number));
        shield.get(&list(number)).await.assert_whole(playlist(1));
        let lists = (0..OBJECTS).map(|number| first.hits(&list(number)));
        assert!(lists.sum::<usize>() + segments_at(&first) <= allowed(start));
    }
    assert_eq!(shield.counter(RATE_MAX, &[("kind", "all")]).await, 1);
}

#[tokio::test]
async fn queue_deadline_ends_wait_for_quota() {
    let origin = full().await;
    let shield = limited(&origin, SEGMENTS)
        .origin(|group| group.deadlines.queue = Duration::from_millis(50))
        .start()
        .await;
    let start = Instant::now();
    let mut rejected = 0;
    for number in 0..OBJECTS {
        let answer = shield.get(&path(number)).await;
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
            rejected += 1;
        }
        assert!(segments_at(&origin) <= allowed(start));
    }
    assert_eq!(segments_at(&origin) + rejected, OBJECTS);
    let in_vain = [("reason", "deadline")];
    assert_eq!(shield.counter(REJECTED, &in_vain).await, rejected as u64);
}

/// Many concurrent segments, and a small quota at the preferred endpoint: requests go to the first
/// endpoint whose quota allows one, and none is rejected while another endpoint's quota is unused.
#[tokio::test]
async fn requests_use_first_endpoint_whose_quota_allows_one() {
    const MANY: usize = 60;
    let path = |number: usize| format!("/many/{number}.ts");
    let (mut first, mut second) = (Origin::start().await, Origin::start().await);
    for number in 0..MANY {
        first = first.on(&path(number), segment("segment"));
        second = second.on(&path(number), segment("segment"));
    }
    let shield = limited(&first, SEGMENTS)
        .origin(|group| {
            let twenty = Quota::ByClass([None, Some(20), None]);
            let mut other = endpoint(&second);
            other.requests_per_second_max = Some(twenty);
            group.endpoints.push(other);
            group.deadlines.queue = Duration::from_secs(8);
        })
        .start()
        .await;
    let mut crowds = Vec::new();
    for number in 0..MANY {
        crowds.push(shield.crowd(1, get(&path(number))).await);
    }
    for crowd in crowds {
        for answer in crowd.read_all().await {
            answer.assert_whole("segment");
        }
    }
    assert_eq!(shield.counter(REJECTED, &[]).await, 0);
}

/// Segments take all the places that they may, and wait for their quota there. Manifests have a
/// place left, in the group and at an endpoint with its own limit.
#[tokio::test]
async fn segments_waiting_for_quota_do_not_delay_manifests() {
    for is_of_group in [true, false] {
        let gate = Gate::new();
        let mut origin = full().await;
        let places = 8;
        for number in 0..2 * places {
            let held = segment("segment").hold_head(&gate);
            origin = origin.on(&format!("/held/{number}.ts"), held);
        }
        let shield = limited(&origin, SEGMENTS)
            .origin(|group| {
                if is_of_group {
                    group.concurrency_max = places;
                } else {
                    group.endpoints[0].concurrency_max = Some(places);
                }
                group.deadlines.first_byte = HOUR;
            })
            .start()
            .await;
        let mut crowds = Vec::new();
        for number in 0..2 * places {
            let path = format!("/held/{number}.ts");
            crowds.push(shield.crowd(1, get(&path)).await);
        }
        let in_flight = |requests: u64| requests + 1 >= places as u64;
        shield.wait_gauge(ORIGIN_IN_FLIGHT, in_flight).await;
        for number in 0..OBJECTS {
            shield.get(&list(number)).await.assert_whole(playlist(1));
        }
        gate.open();
    }
}

/// A retry counts as one more request at the origin.
#[tokio::test]
async fn retry_is_not_made_beyond_the_quota() {
    let origin = Origin::start().await.on("/0/a.ts", status(503));
    let shield = limited(&origin, SEGMENTS).start().await;
    assert_eq!(shield.get("/0/a.ts").await.status, 503);
    assert_eq!(origin.hits("/0/a.ts"), 1);
}
