//! Fetches without viewers are limited per client and in total, and a client that abandons nearly
//! all its requests is slowed down.

use std::time::{Duration, Instant};

use crate::support::metrics::{CANCELLED, FILLS, ORIGIN_IN_FLIGHT, THROTTLED, WITHOUT_VIEWERS};
use crate::support::shield::Builder;
use crate::support::{
    Gate, Origin, Shield, computed, get, manifest, noise, playlist, reply, segment,
};

const MIB: usize = 1 << 20;
/// The limits of one client's fetches without viewers.
const RUNNING_MAX: u64 = 16;

fn path(number: usize) -> String {
    format!("/film/seg{number}.ts")
}

/// An origin with this many segments, whose responses wait for a gate.
async fn held(count: usize, gate: &Gate) -> Origin {
    let mut origin = Origin::start().await;
    for number in 0..count {
        origin = origin.on(&path(number), segment(path(number)).hold_head(gate));
    }
    origin
}

fn roomy(origin: &Origin) -> Builder {
    Shield::in_front_of(origin).origin(|group| group.deadlines.queue = Duration::from_hours(1))
}

/// Forty requests on HTTP/1.1 connections, and all viewers leave: fetches up to the limit continue
/// and are stored, the others are cancelled and closed at the origin.
#[tokio::test]
async fn abandoned_fills_are_capped_after_connections_close() {
    const COUNT: usize = 40;
    let gate = Gate::new();
    let origin = held(COUNT, &gate).await;
    let shield = roomy(&origin).start().await;
    let mut crowds = Vec::new();
    for number in 0..COUNT {
        crowds.push(shield.crowd(1, get(&path(number))).await);
    }
    gate.wait_arrived(COUNT).await;
    drop(crowds);
    shield
        .wait_gauge(WITHOUT_VIEWERS, |left| left == RUNNING_MAX)
        .await;
    origin.wait_abandoned(COUNT - 16).await;
    shield
        .wait_gauge(ORIGIN_IN_FLIGHT, |busy| busy == RUNNING_MAX)
        .await;
    gate.open();
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
    assert_eq!(shield.gauge(WITHOUT_VIEWERS).await, 0);
    assert_eq!(
        shield.counter(CANCELLED, &[]).await,
        COUNT as u64 - RUNNING_MAX
    );
    let mut hits = 0;
    for number in 0..COUNT {
        let answer = shield.get(&path(number)).await;
        hits += u64::from(answer.assert_whole(path(number)).is_hit());
    }
    assert_eq!(hits, RUNNING_MAX);
}

/// The same for HTTP/2 streams that are reset; a viewer who joins in time keeps the fetch going.
#[tokio::test]
async fn abandoned_fills_are_capped_after_http2_resets() {
    const COUNT: usize = 40;
    let gate = Gate::new();
    let origin = held(COUNT, &gate).await;
    let shield = roomy(&origin).start().await;
    let viewer = shield.h2_viewer().await;
    let mut asked = Vec::new();
    for number in 0..COUNT {
        asked.push(viewer.send(get(&path(number))).await);
    }
    gate.wait_arrived(COUNT).await;
    let joined = shield.crowd(1, get(&path(COUNT - 1))).await;
    shield
        .wait_gauge("seawall_waiters", |waiting| waiting == COUNT as u64 + 1)
        .await;
    drop(asked);
    origin.wait_abandoned(COUNT - 17).await;
    shield
        .wait_gauge(WITHOUT_VIEWERS, |left| left == RUNNING_MAX)
        .await;
    gate.open();
    joined.read_all().await[0].assert_whole(path(COUNT - 1));
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
}

/// A fetch without viewers that a viewer joins makes room for another.
#[tokio::test]
async fn rejoined_fill_no_longer_counts_as_abandoned() {
    let gate = Gate::new();
    let origin = held(2, &gate).await;
    let shield = roomy(&origin).start().await;
    let first = shield.crowd(1, get(&path(0))).await;
    gate.wait_arrived(1).await;
    drop(first);
    shield.wait_gauge(WITHOUT_VIEWERS, |left| left == 1).await;
    let again = shield.crowd(1, get(&path(0))).await;
    shield.wait_gauge(WITHOUT_VIEWERS, |left| left == 0).await;
    gate.open();
    again.read_all().await[0].assert_whole(path(0));
    assert_eq!(origin.hits(&path(0)), 1);
}

/// A client that resets as fast as it requests, however the origin answers: a bounded number of
/// requests and bytes reach the origin, and others are served as usual.
#[tokio::test]
async fn client_that_resets_all_requests_is_throttled() {
    const RESETS: usize = 1000;
    const BATCH: usize = 50;
    // What a client may abandon at once, with the requests that are on their way when it is first
    // slowed down.
    const BURST: u64 = 64 + 2 * BATCH as u64;
    // Forgiven per second, and as much again that is let through while the client is slowed down.
    const PER_SECOND: u64 = 2 * 32;
    for cache_control in ["max-age=60", "no-store"] {
        // No response is complete before the client resets, however slow the machine is.
        let gate = Gate::new();
        let held = gate.clone();
        let answer = move |_: &_| {
            let started = reply()
                .content_type("video/mp2t")
                .cache_control(cache_control);
            let body = noise(3, MIB);
            started
                .content_length(2 * MIB as u64)
                .send(body.clone())
                .hold(&held)
                .send(body)
        };
        let origin = Origin::start().await.on("/film", computed(answer));
        let shield = roomy(&origin).start().await;
        let begun = Instant::now();
        for batch in 0..RESETS / BATCH {
            let viewer = shield.h2_viewer().await;
            let mut asked = Vec::new();
            for number in 0..BATCH {
                let target = format!("/film?{batch}-{number}");
                asked.push(viewer.send(get(&target)).await);
            }
            // The requests may already be on their way to the origin when they are reset: some are,
            // at any number, so there is no event to wait for.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gate.open();
        shield.wait_gauge(FILLS, |fills| fills == 0).await;
        shield.wait_gauge(ORIGIN_IN_FLIGHT, |busy| busy == 0).await;
        let asked = origin.hits("/film") as u64;
        let allowed = BURST + PER_SECOND * (1 + begun.elapsed().as_secs());
        assert!(
            asked <= allowed,
            "{cache_control}: {asked} of {RESETS}, {allowed} allowed"
        );
    }
}

/// Viewers and the client that resets share one address, as behind a CDN: requests for shared
/// objects are not rejected and not slowed down, whatever they cost at the origin.
#[tokio::test]
async fn throttled_address_still_gets_shared_objects() {
    const PATH: &str = "/live/index.m3u8";
    // Three times what a client may abandon at once: it takes seconds until this is forgiven.
    const ABUSES: usize = 192;
    const VIEWERS: usize = 240;
    let (gate, abused) = (Gate::new(), Gate::new());
    let no_cache = manifest(playlist(1))
        .cache_control("no-cache")
        .etag("\"1\"");
    let held = abused.clone();
    let film = move |_: &_| segment("film").hold_head(&held);
    let origin = Origin::start().await;
    let origin = origin
        .on("/film", computed(film))
        .on(PATH, no_cache)
        .on("/live/seg3.ts", segment("newest"))
        .on("/film/shared.ts", segment("shared").hold_head(&gate));
    let shield = roomy(&origin)
        .route(|route| {
            route.live.prefetch = false;
            route.live.cadence = false;
        })
        .start()
        .await;
    let started = shield.crowd(1, get("/film/shared.ts")).await;
    gate.wait_arrived(1).await;
    assert_eq!(shield.get(PATH).await.status, 200);
    // As many connections as the number of streams of one requires.
    let abusive = [shield.h2_viewer().await, shield.h2_viewer().await];
    let mut asked = Vec::new();
    for number in 0..ABUSES {
        let request = get(&format!("/film?{number}"));
        asked.push(abusive[number % 2].send(request).await);
    }
    abused.wait_arrived(ABUSES).await;
    drop((abusive, asked));
    // Some continue, and one is not abandoned.
    shield
        .wait_gauge(FILLS, |fills| fills <= RUNNING_MAX + 1)
        .await;
    let _delayed_viewer = shield.crowd(1, get("/film?again")).await;
    shield
        .wait_gauge(THROTTLED, |throttled| throttled == 1)
        .await;
    let viewers = shield.crowd(VIEWERS, get(PATH)).await;
    for answer in viewers.read_all().await {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(shield.counter(THROTTLED, &[]).await, 1, "no viewer");
    shield.get("/live/seg3.ts").await.assert_whole("newest");
    let joined = shield.crowd(1, get("/film/shared.ts")).await;
    shield
        .wait_gauge("seawall_waiters", |waiting| waiting == 3)
        .await;
    gate.open();
    for crowd in [started, joined] {
        crowd.read_all().await[0].assert_whole("shared");
    }
}

/// Slices of a large object are fetches like others.
#[tokio::test]
async fn abandoned_slice_fetches_are_capped() {
    const COUNT: usize = 24;
    let (gate, body) = (Gate::new(), noise(5, 4 * MIB));
    let mut origin = Origin::start().await;
    for number in 0..COUNT {
        let (gate, body) = (gate.clone(), body.clone());
        let slice = move |request: &crate::support::origin::Request| {
            let whole = reply()
                .content_type("video/mp4")
                .cache_control("max-age=3600")
                .etag("\"v1\"")
                .with_ranges(body.clone());
            match request.header("range") {
                Some(_) => whole.hold_head(&gate),
                None => whole,
            }
        };
        origin = origin.on(&path(number), computed(slice));
    }
    let shield = roomy(&origin)
        .proxy_settings(|waits| {
            waits.whole_fetch_max = MIB as u64;
            waits.slice_bytes = MIB as u64;
        })
        .start()
        .await;
    let mut crowds = Vec::new();
    for number in 0..COUNT {
        crowds.push(shield.crowd(1, get(&path(number)).range("0-99")).await);
    }
    gate.wait_arrived(COUNT).await;
    drop(crowds);
    shield
        .wait_gauge(WITHOUT_VIEWERS, |left| left == RUNNING_MAX)
        .await;
    shield
        .wait_gauge(ORIGIN_IN_FLIGHT, |busy| busy == RUNNING_MAX)
        .await;
    gate.open();
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
}

/// A fetch that viewers join and leave one after another continues.
#[tokio::test]
async fn fill_joined_and_left_repeatedly_completes() {
    let gate = Gate::new();
    let origin = held(1, &gate).await;
    let shield = roomy(&origin).start().await;
    for _ in 0..5 {
        let viewer = shield.crowd(1, get(&path(0))).await;
        shield
            .wait_gauge("seawall_waiters", |waiting| waiting == 1)
            .await;
        gate.wait_arrived(1).await;
        drop(viewer);
        shield.wait_gauge(WITHOUT_VIEWERS, |left| left == 1).await;
    }
    gate.open();
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
    assert!(shield.get(&path(0)).await.is_hit());
    assert_eq!(origin.hits(&path(0)), 1);
}
