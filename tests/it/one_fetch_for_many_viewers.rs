//! A key has at most one fill in progress, whatever the number of viewers and the response.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::support::metrics::WAITERS;
use crate::support::{
    Gate, Origin, Shield, computed, get, manifest, noise, playlist, reply, segment, status,
};

const SEGMENT: &str = "/live/seg1.ts";
const PLAYLIST: &str = "/live/index.m3u8";

/// Waits until all viewers wait, the leader of the fill included.
async fn wait_for_waiters(shield: &Shield, crowd: u64) {
    let there = |waiting| waiting >= crowd;
    shield.wait_gauge(WAITERS, there).await;
}

/// 1000 simultaneous misses are one GET, and all get the same bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_misses_cause_one_origin_request() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let (gate, body) = (Gate::new(), noise(1, 64 << 10));
    let held = segment(body.clone()).hold_head(&gate);
    let origin = Origin::start().await.on(SEGMENT, held);
    let shield = Shield::in_front_of(&origin).start().await;
    let crowd = shield.crowd(1000, get(SEGMENT)).await;
    wait_for_waiters(&shield, 1000).await;
    gate.open();
    for answer in crowd.read_all().await {
        answer.assert_whole(&body);
    }
    assert_eq!(origin.hits(SEGMENT), 1);
}

/// 1000 simultaneous misses of a manifest, which is held whole before any viewer gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_playlist_misses_cause_one_origin_request() {
    let gate = Gate::new();
    let held = manifest(playlist(1))
        .cache_control("max-age=60")
        .hold_head(&gate);
    let origin = Origin::start().await.on(PLAYLIST, held);
    let shield = Shield::in_front_of(&origin).start().await;
    let crowd = shield.crowd(100, get(PLAYLIST)).await;
    wait_for_waiters(&shield, 100).await;
    gate.open();
    for answer in crowd.read_all().await {
        answer.assert_whole(playlist(1));
    }
    assert_eq!(origin.hits(PLAYLIST), 1);
}

/// Different keys do not wait for each other.
#[tokio::test]
async fn fill_of_one_key_does_not_delay_another() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on("/held.ts", segment("held").hold_head(&gate))
        .on("/free.ts", segment("free"));
    let shield = Shield::in_front_of(&origin).start().await;
    let held = shield.crowd(10, get("/held.ts")).await;
    origin.wait_hits("/held.ts", 1).await;
    shield.get("/free.ts").await.assert_whole("free");
    gate.open();
    assert_eq!(held.read_all().await.len(), 10);
}

/// The fill gets 503. At most two GETs, and nothing stored: 503 for all.
#[tokio::test]
async fn waiting_requests_share_503() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(SEGMENT, status(503).hold_head(&gate));
    let shield = Shield::in_front_of(&origin).start().await;
    let crowd = shield.crowd(50, get(SEGMENT)).await;
    wait_for_waiters(&shield, 50).await;
    gate.open();
    for answer in crowd.read_all().await {
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    assert!(
        origin.hits(SEGMENT) <= 2,
        "{} requests",
        origin.hits(SEGMENT)
    );
}

/// The fill gets 503 and a stale object is stored: all get that.
#[tokio::test]
async fn waiting_requests_get_stale_object_on_503() {
    let gate = Gate::new();
    let stale = manifest(playlist(1))
        .cache_control("max-age=1, stale-if-error=60")
        .age(10);
    let script = stale.then(status(503).hold_head(&gate));
    let origin = Origin::start().await.on(PLAYLIST, script);
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PLAYLIST).await.assert_whole(playlist(1));
    let crowd = shield.crowd(50, get(PLAYLIST)).await;
    origin.wait_hits(PLAYLIST, 2).await;
    gate.open();
    for answer in crowd.read_all().await {
        answer.assert_whole(playlist(1));
    }
    assert!(
        origin.hits(PLAYLIST) <= 3,
        "{} requests",
        origin.hits(PLAYLIST)
    );
}

/// The fill gets 404, which is safe to share: one GET.
#[tokio::test]
async fn waiting_requests_share_404() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(SEGMENT, status(404).hold_head(&gate));
    let shield = Shield::in_front_of(&origin).start().await;
    let crowd = shield.crowd(50, get(SEGMENT)).await;
    wait_for_waiters(&shield, 50).await;
    gate.open();
    for answer in crowd.read_all().await {
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    assert_eq!(origin.hits(SEGMENT), 1);
}

/// `no-store` with many waiting viewers. No body reaches two viewers, and the origin
/// gets no more concurrent requests than its limit.
#[tokio::test]
async fn no_store_and_private_bodies_are_not_shared() {
    for directive in ["no-store", "private"] {
        let (gate, count) = (Gate::new(), AtomicUsize::new(0));
        let held = gate.clone();
        let personal = computed(move |_| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let body = format!("for viewer {number} only");
            reply().cache_control(directive).body(body).hold_head(&held)
        });
        let origin = Origin::start().await.on("/account", personal);
        let shield = Shield::in_front_of(&origin)
            .origin(|group| group.concurrency_max = 3)
            .start()
            .await;
        let crowd = shield.crowd(20, get("/account")).await;
        wait_for_waiters(&shield, 20).await;
        gate.open();
        let answers = crowd.read_all().await;
        let bodies: HashSet<&str> = answers
            .iter()
            .map(|answer| answer.assert_200_text())
            .collect();
        assert_eq!(bodies.len(), 20, "each body once");
        assert!(
            origin.concurrent_max() <= 3,
            "{} at once",
            origin.concurrent_max()
        );
    }
}

/// A 1 s playlist at 500 requests per second. At most one GET per second, and no
/// response older than its lifetime and stale window, or than a response before it.
#[tokio::test]
async fn busy_playlist_causes_one_origin_request_a_second() {
    const STEP: Duration = Duration::from_millis(2);
    const ROUNDS: u32 = 1250;
    let version = AtomicUsize::new(0);
    let live = computed(move |_| {
        let first = version.fetch_add(1, Ordering::Relaxed);
        manifest(playlist(first as u64)).cache_control("max-age=1")
    });
    let origin = Origin::start().await.on(PLAYLIST, live);
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    let (mut ticks, mut newest) = (interval(STEP), 0);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = Instant::now();
    for _ in 0..ROUNDS {
        ticks.tick().await;
        let answer = viewer.get(PLAYLIST).await;
        assert!(answer.age() <= 2, "a second and as much again: {answer:?}");
        let first = sequence(answer.assert_200_text());
        assert!(first >= newest, "{first} after {newest}");
        newest = first;
    }
    let (seconds, asked) = (started.elapsed().as_secs(), origin.hits(PLAYLIST) as u64);
    assert!(asked <= seconds + 2, "{asked} requests in {seconds} s");
    assert!(asked >= 2, "it was refreshed");
}

fn sequence(playlist: &str) -> u64 {
    let line = playlist
        .lines()
        .find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:"));
    line.unwrap().parse().unwrap()
}

/// Above the limit of viewers that may wait on one key: 503 with Retry-After, at once.
#[tokio::test]
async fn answers_503_above_waiters_max() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(SEGMENT, segment("whole").hold_head(&gate));
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.waiters_max = 1)
        .start()
        .await;
    let mut answers = shield.crowd(5, get(SEGMENT)).await.spawn_reads();
    let turned_away = answers.join_next().await.unwrap().unwrap();
    assert_eq!(
        turned_away.status, 503,
        "before the gate is open: {turned_away:?}"
    );
    assert!(
        turned_away.header("retry-after").is_some(),
        "{turned_away:?}"
    );
    gate.open();
    let others = answers.join_all().await;
    assert!(
        others.iter().any(|answer| answer.status == 200),
        "{others:?}"
    );
    assert_eq!(origin.hits(SEGMENT), 1);
}

/// Above that limit, with a stale object stored: that object.
#[tokio::test]
async fn serves_stale_above_waiters_max() {
    let gate = Gate::new();
    let stale = manifest(playlist(1))
        .cache_control("max-age=1, stale-if-error=60")
        .age(10);
    let script = stale.then(manifest(playlist(2)).hold_head(&gate));
    let origin = Origin::start().await.on(PLAYLIST, script);
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.waiters_max = 1)
        .proxy_settings(|waits| waits.stale_wait_max = Duration::from_mins(1))
        .start()
        .await;
    shield.get(PLAYLIST).await.assert_whole(playlist(1));
    let mut answers = shield.crowd(5, get(PLAYLIST)).await.spawn_reads();
    let turned_away = answers.join_next().await.unwrap().unwrap();
    turned_away.assert_whole(playlist(1));
    gate.open();
    answers.join_all().await;
}

/// No viewer waits for ever: 504 after the deadline for a head.
#[tokio::test]
async fn answers_504_after_wait_max() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on(SEGMENT, segment("whole").hold_head(&gate));
    let shield = Shield::in_front_of(&origin)
        .proxy_settings(|waits| waits.wait_max = Duration::from_millis(100))
        .start()
        .await;
    for answer in shield.crowd(5, get(SEGMENT)).await.read_all().await {
        assert_eq!(answer.status, 504, "{answer:?}");
    }
    gate.open();
    assert_eq!(origin.hits(SEGMENT), 1);
}
