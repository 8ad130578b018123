//! The origin gets no more concurrent requests, and no more per second, than configured. Requests
//! go by priority, and those that find no place in the queue are rejected at once.

use std::time::{Duration, Instant};

use crate::support::metrics::{BLOCKING_REQUESTS, FILLS, QUEUE_FULL, QUEUED_BY_PRIORITY, REJECTED};
use crate::support::shield::Builder;
use crate::support::{
    Gate, Origin, Response, Shield, ended_playlist, eventually, get, manifest, playlist, segment,
    status,
};

const PLAYLIST: &str = "/live/index.m3u8";

/// A shield whose viewers and queues have no deadline within the test.
fn patient(origin: &Origin, concurrency_max: usize) -> Builder {
    let hour = Duration::from_hours(1);
    Shield::in_front_of(origin)
        .origin(|group| {
            group.concurrency_max = concurrency_max;
            group.deadlines.queue = hour;
            group.deadlines.manifest = hour;
            group.deadlines.first_byte = hour;
            group.deadlines.total = hour;
        })
        .proxy_settings(|waits| waits.wait_max = hour)
}

/// Above limit and queue: 503 with `Retry-After`.
#[track_caller]
fn is_turned_away(answer: &Response) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
}

fn path(number: usize) -> String {
    format!("/live/seg{number}.ts")
}

/// A limit of ten, a hundred objects, three hundred viewers: never an eleventh request; the
/// manifest that was requested last is fetched next, and all viewers get responses.
#[tokio::test]
async fn queues_by_priority_within_concurrency_max() {
    const OBJECTS: usize = 100;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let [first, manifests, rest] = [(); 3].map(|()| Gate::new());
    let origin = Origin::start()
        .await
        .on(&path(0), segment(path(0)).hold_head(&first))
        .on(PLAYLIST, manifest(playlist(1)).hold_head(&manifests));
    for number in 1..OBJECTS {
        let held = segment(path(number)).hold_head(&rest);
        origin.set_script(&path(number), held);
    }
    let shield = patient(&origin, 10).start().await;
    let mut crowds = vec![shield.crowd(3, get(&path(0))).await];
    first.wait_arrived(1).await;
    for number in 1..OBJECTS {
        crowds.push(shield.crowd(3, get(&path(number))).await);
    }
    rest.wait_arrived(9).await;
    shield.wait_queued("segment", 90).await;
    let players = shield.crowd(3, get(PLAYLIST)).await;
    shield.wait_queued("manifest", 1).await;

    first.open();
    manifests.wait_arrived(1).await;
    let asked = |number: usize| origin.hits(&path(number));
    let segments: usize = (0..OBJECTS).map(asked).sum();
    assert_eq!(segments, 10, "the manifest overtook the others");
    shield.wait_queued("segment", 90).await;
    manifests.open();
    rest.open();
    for answer in players.read_all().await {
        answer.assert_whole(playlist(1));
    }
    for (number, crowd) in crowds.into_iter().enumerate() {
        for answer in crowd.read_all().await {
            answer.assert_whole(path(number));
        }
    }
    assert_eq!(origin.concurrent_max(), 10);
    assert!((0..OBJECTS).all(|number| asked(number) == 1));
    assert_eq!(shield.counter(REJECTED, &[]).await, 0);
}

/// A full queue rejects new requests at once, with the right reason in the metrics; viewers with a
/// stale object get that.
#[tokio::test]
async fn full_queue_answers_503_or_serves_stale() {
    let gate = Gate::new();
    let stale = manifest(playlist(1))
        .cache_control("max-age=1, stale-if-error=60")
        .age(10);
    let origin = Origin::start()
        .await
        .on("/held.ts", segment("held").hold_head(&gate))
        .on("/queued.m3u8", manifest(playlist(7)))
        .on(PLAYLIST, stale);
    let shield = patient(&origin, 1)
        .origin(|group| group.queue_max = 1)
        .proxy_settings(|waits| waits.stale_wait_max = Duration::from_hours(1))
        .start()
        .await;
    shield.get(PLAYLIST).await.assert_whole(playlist(1));
    let held = shield.crowd(1, get("/held.ts")).await;
    gate.wait_arrived(1).await;
    let queued = shield.crowd(1, get("/queued.m3u8")).await;
    shield.wait_queued("manifest", 1).await;

    is_turned_away(&shield.get("/late.ts").await);
    shield.get(PLAYLIST).await.assert_whole(playlist(1));
    assert_eq!(shield.counter(QUEUE_FULL, &[]).await, 2);
    let full = [("reason", "queue_full")];
    assert_eq!(shield.counter(REJECTED, &full).await, 2);
    gate.open();
    for answer in held.read_all().await {
        answer.assert_whole("held");
    }
    for answer in queued.read_all().await {
        answer.assert_whole(playlist(7));
    }
    assert_eq!(origin.hits("/late.ts"), 0);
}

/// A manifest finds a place in a queue full of segments: the newest segment request is rejected.
#[tokio::test]
async fn manifest_displaces_newest_segment_in_full_queue() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on("/held.ts", segment("held").hold_head(&gate))
        .on("/old.ts", segment("old"))
        .on(PLAYLIST, manifest(playlist(1)));
    let shield = patient(&origin, 1)
        .origin(|group| group.queue_max = 2)
        .start()
        .await;
    let held = shield.crowd(1, get("/held.ts")).await;
    gate.wait_arrived(1).await;
    let old = shield.crowd(1, get("/old.ts")).await;
    shield.wait_queued("segment", 1).await;
    let young = shield.crowd(1, get("/young.ts")).await;
    shield.wait_queued("segment", 2).await;
    let player = shield.crowd(1, get(PLAYLIST)).await;
    for answer in young.read_all().await {
        is_turned_away(&answer);
    }
    let displaced = [("reason", "displaced")];
    assert_eq!(shield.counter(REJECTED, &displaced).await, 1);
    assert_eq!(shield.counter(QUEUE_FULL, &[]).await, 1);
    gate.open();
    assert_eq!(origin.hits("/young.ts"), 0);
    for (crowd, body) in [(held, "held"), (old, "old"), (player, &playlist(1))] {
        for answer in crowd.read_all().await {
            answer.assert_whole(body);
        }
    }
}

/// A request that waits too long in the queue is rejected.
#[tokio::test]
async fn answers_503_after_queue_deadline() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on("/held.ts", segment("held").hold_head(&gate));
    let shield = patient(&origin, 1)
        .origin(|group| group.deadlines.queue = Duration::from_millis(50))
        .start()
        .await;
    let held = shield.crowd(1, get("/held.ts")).await;
    gate.wait_arrived(1).await;
    is_turned_away(&shield.get("/late.ts").await);
    let late = [("reason", "deadline")];
    assert_eq!(shield.counter(REJECTED, &late).await, 1);
    assert_eq!(shield.counter(QUEUE_FULL, &[]).await, 0);
    gate.open();
    held.read_all().await;
}

/// A background refresh comes after requests that viewers wait for, whichever was first.
#[tokio::test]
async fn background_refresh_queues_behind_viewer_requests() {
    let [first, next] = [Gate::new(), Gate::new()];
    let stale = segment("old")
        .cache_control("max-age=1, stale-while-revalidate=60")
        .age(10);
    let origin = Origin::start()
        .await
        .on("/stale.ts", stale.then(segment("new")))
        .on("/held.ts", segment("held").hold_head(&first))
        .on("/wanted.ts", segment("wanted").hold_head(&next));
    let shield = patient(&origin, 1).start().await;
    shield.get("/stale.ts").await.assert_whole("old");
    let held = shield.crowd(1, get("/held.ts")).await;
    first.wait_arrived(1).await;
    shield.get("/stale.ts").await.assert_whole("old");
    shield.wait_queued("refresh", 1).await;
    let wanted = shield.crowd(1, get("/wanted.ts")).await;
    shield.wait_queued("segment", 1).await;

    first.open();
    next.wait_arrived(1).await;
    assert_eq!(origin.hits("/stale.ts"), 1, "not refreshed yet");
    next.open();
    for (crowd, body) in [(held, "held"), (wanted, "wanted")] {
        for answer in crowd.read_all().await {
            answer.assert_whole(body);
        }
    }
    origin.wait_hits("/stale.ts", 2).await;
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
}

/// With a rate limit: a burst of a tenth of a second, then the rate. At no moment has the origin
/// got more; and all viewers get responses.
#[tokio::test]
async fn rate_limit_spreads_origin_requests() {
    const INTERVAL_MS: u128 = 25;
    const BURST: u128 = 4;
    const OBJECTS: usize = 24;
    let origin = Origin::start().await;
    for number in 0..OBJECTS {
        origin.set_script(&path(number), segment(path(number)));
    }
    let shield = patient(&origin, OBJECTS)
        .origin(|group| group.requests_per_second_max = Some(40))
        .start()
        .await;
    let start = Instant::now();
    let asked = || (0..OBJECTS).filter(|number| origin.hits(&path(*number)) == 1);
    let mut crowds = Vec::new();
    for number in 0..OBJECTS {
        crowds.push(shield.crowd(1, get(&path(number))).await);
    }
    for (number, crowd) in crowds.into_iter().enumerate() {
        for answer in crowd.read_all().await {
            answer.assert_whole(path(number));
        }
        let seen = asked().count() as u128;
        let allowed = BURST + start.elapsed().as_millis() / INTERVAL_MS;
        assert!(seen <= allowed, "{seen} of {allowed}");
    }
    assert_eq!(asked().count(), OBJECTS);
    assert_eq!(shield.counter(REJECTED, &[]).await, 0);
}

/// A blocking request waits at the origin outside the limit only if the stored playlist says that
/// the origin blocks. Otherwise it is one more request within the limit.
#[tokio::test]
async fn unconfirmed_blocking_reload_takes_a_concurrency_permit() {
    const QUERIES: [&str; 5] = [
        "_HLS_msn=1",
        "_HLS_msn=1&_HLS_part=0",
        "%5fHLS_msn=1",
        "a=b&_HLS_msn=9&_HLS_skip=YES",
        "_HLS_part=1",
    ];
    const NAMES: [&str; 4] = ["live/{}.m3u8", "live/{}", "live/{}.ts", "live/{}.mp4"];
    let gate = Gate::new();
    let mut origin = Origin::start().await;
    let mut targets = Vec::new();
    for name in NAMES {
        for (number, query) in QUERIES.iter().enumerate() {
            let path = format!("/{}", name.replace("{}", &number.to_string()));
            origin = origin.on(&path, status(404).hold_head(&gate));
            targets.push(format!("{path}?{query}"));
        }
    }
    for (path, text) in [
        ("/vod.m3u8", ended_playlist(3)),
        ("/live.m3u8", playlist(3)),
    ] {
        origin = origin.on(path, manifest(text).cache_control("max-age=3600"));
    }
    let shield = patient(&origin, 2).start().await;
    for path in ["/vod.m3u8", "/live.m3u8"] {
        shield.get(path).await.assert_200_text();
        let asked = format!("{path}?_HLS_msn=9");
        assert!(shield.get(&asked).await.is_hit(), "it waits for nothing");
    }
    let mut crowds = Vec::new();
    for target in &targets {
        crowds.push(shield.crowd(1, get(target)).await);
    }
    gate.wait_arrived(2).await;
    eventually("the others to queue", async || {
        shield.counter(QUEUED_BY_PRIORITY, &[]).await == targets.len() as u64 - 2
    })
    .await;
    assert_eq!(shield.gauge(BLOCKING_REQUESTS).await, 0);
    gate.open();
    for crowd in crowds {
        crowd.read_all().await;
    }
    assert_eq!(origin.concurrent_max(), 2);
}

/// A retry counts as a request at the origin: without room in the quota it is not made.
#[tokio::test]
async fn retry_is_not_made_beyond_rate_limit() {
    let origin = Origin::start().await.on("/a.ts", status(503));
    let shield = Shield::in_front_of(&origin)
        .origin(|group| group.requests_per_second_max = Some(1))
        .start()
        .await;
    assert_eq!(shield.get("/a.ts").await.status, 503);
    assert_eq!(origin.hits("/a.ts"), 1);
}
