//! The shield holds no more memory than configured, whatever the traffic.

use bytes::Bytes;

use crate::support::content::Press;
use crate::support::metrics::{FILL_BYTES, FILLS, STORED_BYTES, WAITERS};
use crate::support::origin::Reply;
use crate::support::program::Program;
use crate::support::viewer::Viewer;
use crate::support::{
    Arriving, End, Fingerprint, Gate, Origin, Shield, get, manifest, noise, playlist, reply,
    segment,
};

const MIB: usize = 1 << 20;

/// A path of its own for each of many objects.
fn path(number: usize) -> String {
    format!("/vod/{number}.ts")
}

/// All viewers read to the end and get exactly these bytes.
async fn all_exact(readers: Vec<Arriving>, body: &Bytes) {
    for reader in readers {
        assert_eq!(
            reader.fingerprint().await,
            (Fingerprint::of(body), End::Whole)
        );
    }
}

/// An object is evicted while 100 viewers read it from memory. Every viewer gets every
/// byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn object_evicted_while_read_is_served_whole() {
    let body = noise(0, 4 * MIB);
    let mut origin = Origin::start().await.on(&path(0), segment(body.clone()));
    for number in 1..=12 {
        origin = origin.on(&path(number), segment(noise(number as u64, 2 * MIB)));
    }
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.memory_bytes = 8 * MIB as u64)
        .start()
        .await;
    shield.get(&path(0)).await.assert_whole(&body);
    let readers = shield.crowd(100, get(&path(0))).await.read_heads().await;
    for _round in 0..4 {
        for number in 1..=12 {
            assert_eq!(shield.get(&path(number)).await.status, 200);
        }
    }
    shield.purge(&path(0)).await;
    all_exact(readers, &body).await;
}

/// The same while 100 viewers read it from the fill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fill_purged_while_read_is_served_whole() {
    let (gate, body) = (Gate::new(), noise(0, 2 * MIB));
    let half = segment(body.slice(..MIB))
        .hold(&gate)
        .send(body.slice(MIB..));
    let origin = Origin::start().await.on(&path(0), half);
    let shield = Shield::in_front_of(&origin).start().await;
    let mut readers = shield.crowd(100, get(&path(0))).await.read_heads().await;
    for reader in &mut readers {
        reader.read(1000).await;
    }
    shield.purge(&path(0)).await;
    gate.open();
    all_exact(readers, &body).await;
    assert_eq!(origin.hits(&path(0)), 1);
}

/// The store stays within its bound, overhead included.
#[tokio::test]
async fn store_stays_within_cache_memory() {
    const MEMORY: u64 = 4 << 20;
    let mut origin = Origin::start().await;
    for number in 0..40 {
        origin = origin.on(&path(number), segment(noise(number as u64, MIB / 4)));
    }
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.memory_bytes = MEMORY)
        .start()
        .await;
    let mut viewer = shield.viewer().await;
    for number in 0..40 {
        assert_eq!(viewer.get(&path(number)).await.status, 200);
    }
    shield
        .wait_gauge(STORED_BYTES, |bytes| bytes > 0 && bytes <= MEMORY)
        .await;
}

/// An object larger than `object_max` is streamed each time.
#[tokio::test]
async fn object_above_object_max_is_streamed_each_time() {
    let body = noise(0, 3 * MIB);
    let origin = Origin::start().await.on(&path(0), segment(body.clone()));
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.cache.object_bytes_max = MIB as u64;
            config.cache.memory_bytes = 2 * MIB as u64;
        })
        .start()
        .await;
    for fetch in 1..=2 {
        shield.get(&path(0)).await.assert_whole(&body);
        assert_eq!(origin.hits(&path(0)), fetch);
    }
}

/// An object larger than `object_max` is not stored either where the origin sends no length.
#[tokio::test]
async fn chunked_object_above_object_max_is_streamed_each_time() {
    let body = noise(0, 3 * MIB);
    let chunked = reply().content_type("video/mp2t").chunked();
    let chunked = body
        .chunks(MIB / 8)
        .fold(chunked, |reply, chunk| reply.send(chunk.to_vec()));
    let origin = Origin::start().await.on(&path(0), chunked);
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.object_bytes_max = MIB as u64)
        .start()
        .await;
    for fetch in 1..=2 {
        shield.get(&path(0)).await.assert_whole(&body);
        assert_eq!(origin.hits(&path(0)), fetch);
    }
}

/// A fill that found no room, and continued while another released memory, holds none at its end.
#[tokio::test]
async fn fill_that_outgrew_its_memory_releases_all_of_it() {
    const PIECE: usize = MIB / 8;
    let (room, rest) = (Gate::new(), Gate::new());
    let (known, unknown) = (noise(1, MIB - PIECE), noise(2, 2 * MIB));
    let neighbour = segment(known.slice(..1000)).hold(&room);
    let start = reply().content_type("video/mp2t").chunked();
    let start = start.send(unknown.slice(..PIECE));
    let outgrown = start.send(unknown.slice(PIECE..2 * PIECE)).hold(&rest);
    let pieces = unknown[2 * PIECE..].chunks(PIECE).map(<[u8]>::to_vec);
    let outgrown = pieces.fold(outgrown, Reply::send);
    let origin = Origin::start()
        .await
        .on(&path(1), neighbour.send(known.slice(1000..)))
        .on(&path(2), outgrown);
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.cache.fill_bytes_max = MIB as u64;
            config.cache.object_bytes_max = MIB as u64;
        })
        .start()
        .await;
    let mut neighbour = shield.begin(get(&path(1))).await;
    neighbour.read(1000).await;
    let mut reader = shield.begin(get(&path(2))).await;
    reader.read(2 * PIECE).await;
    room.open();
    neighbour.finish().await.assert_whole(&known);
    shield.wait_gauge(FILLS, |fills| fills == 1).await;
    rest.open();
    reader.finish().await.assert_whole(&unknown);
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
    shield.wait_gauge(FILL_BYTES, |bytes| bytes == 0).await;
}

/// A storable object that finds no room while it arrives is still fetched once for all who wait,
/// and is not treated as private afterwards.
#[tokio::test]
async fn object_without_fill_memory_is_still_fetched_once() {
    let (gate, body) = (Gate::new(), noise(0, 3 * MIB));
    let object = segment(body.clone()).hold_head(&gate);
    let origin = Origin::start().await.on(&path(0), object);
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.cache.fill_bytes_max = MIB as u64;
            config.cache.object_bytes_max = 64 * MIB as u64;
        })
        .start()
        .await;
    let crowd = shield.crowd(20, get(&path(0))).await;
    shield.wait_gauge(WAITERS, |waiting| waiting >= 20).await;
    gate.open();
    for answer in crowd.read_all().await {
        answer.assert_whole(&body);
    }
    assert_eq!(origin.hits(&path(0)), 1);
    let next = shield.get(&path(0)).await;
    let status = next.assert_whole(&body).cache_status();
    assert_ne!(status.value("fwd"), Some("bypass"), "{status:?}");
}

/// A length that a slow origin announces reserves no memory: others are stored, and fetched once.
#[tokio::test]
async fn announced_length_of_slow_fill_reserves_no_memory() {
    let (gate, body) = (Gate::new(), noise(0, MIB));
    let other = noise(1, MIB / 2);
    let mut origin = Origin::start()
        .await
        .on("/other.ts", segment(other.clone()));
    for number in 0..4 {
        let slow = segment(body.slice(..1000)).hold(&gate);
        origin = origin.on(&path(number), slow.send(body.slice(1000..)));
    }
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.cache.fill_bytes_max = 4 * MIB as u64;
            config.cache.object_bytes_max = 2 * MIB as u64;
        })
        .start()
        .await;
    let mut slow = Vec::new();
    for number in 0..4 {
        let mut reader = shield.begin(get(&path(number))).await;
        reader.read(1000).await;
        slow.push(reader);
    }
    for _ in 0..2 {
        shield.get("/other.ts").await.assert_whole(&other);
    }
    assert_eq!(origin.hits("/other.ts"), 1);
    gate.open();
    all_exact(slow, &body).await;
    shield.wait_gauge(FILL_BYTES, |bytes| bytes == 0).await;
}

/// The memory limits of the real program here: finished objects, and fills in progress.
const BOUNDS: &str =
    "[cache]\nmemory = \"64MiB\"\nobject_max = \"4MiB\"\n[fill]\nmemory = \"16MiB\"\n";
const BOUND: u64 = (64 + 16) << 20;

/// Resident memory of the program after its first responses.
async fn idle_bytes(program: &Program) -> u64 {
    assert_eq!(program.viewer().await.get("/none.ts").await.status, 404);
    program.resident_bytes()
}

/// Fails if the program has ever exceeded its limits, plus a tenth, since it was idle.
#[track_caller]
fn kept_within_bounds(program: &Program, idle: u64) {
    let grown = program.resident_bytes_max() - idle;
    assert!(grown <= BOUND + BOUND / 10, "grew by {} MiB", grown >> 20);
}

/// An object ten times larger than the cache goes through the real program.
#[tokio::test]
async fn process_memory_is_bounded_for_object_larger_than_cache() {
    let piece = noise(0, 4 * MIB);
    let (mut huge, mut press) = (segment(Bytes::new()), Press::default());
    for _ in 0..160 {
        huge = huge.send(piece.clone());
        press.feed(&piece);
    }
    let origin = Origin::start().await.on("/huge.ts", huge);
    let program = Program::serve(&origin, BOUNDS).await;
    let idle = idle_bytes(&program).await;
    let arriving = program.viewer().await.begin(get("/huge.ts")).await;
    assert_eq!(arriving.fingerprint().await, (press.finish(), End::Whole));
    kept_within_bounds(&program, idle);
}

/// Many objects: the real program's cache is filled three times over at once.
#[tokio::test]
async fn process_memory_is_bounded_for_more_objects_than_fit() {
    let (mut origin, body) = (Origin::start().await, noise(0, 3 * MIB));
    for number in 0..64 {
        origin = origin.on(&path(number), segment(body.clone()));
    }
    let program = Program::serve(&origin, BOUNDS).await;
    let (idle, mut viewer) = (idle_bytes(&program).await, program.viewer().await);
    for number in 0..64 {
        viewer.get(&path(number)).await.assert_whole(&body);
    }
    kept_within_bounds(&program, idle);
}

/// A live playlist, under this many names that differ only in their queries.
async fn ask_with_invented_queries(mut viewer: Viewer, names: std::ops::Range<usize>) {
    for number in names {
        let answer = viewer.get(&format!("/live/a.m3u8?{number}")).await;
        assert_eq!(answer.status, 200);
    }
}

async fn live_origin() -> Origin {
    let origin = Origin::start().await;
    origin.on("/live/a.m3u8", manifest(playlist(1)))
}

/// The state of manifests takes an eighth of the store's memory at most, whatever viewers invent.
#[tokio::test]
async fn manifest_state_takes_at_most_an_eighth_of_memory() {
    let origin = live_origin().await;
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.memory_bytes = 16 * MIB as u64)
        .start()
        .await;
    ask_with_invented_queries(shield.viewer().await, 0..1500).await;
    let bytes = shield.gauge("seawall_manifest_trackers_bytes").await;
    let max = 2 * MIB as u64;
    assert!((max / 2..=max).contains(&bytes), "{bytes}");
}

/// The real program grows by no more than its limits, that eighth, and a fixed overhead.
#[tokio::test]
async fn process_memory_is_bounded_for_invented_queries() {
    const BOUNDS: &str =
        "[cache]\nmemory = \"8MiB\"\nobject_max = \"1MiB\"\n[fill]\nmemory = \"2MiB\"\n";
    let origin = live_origin().await;
    let program = Program::serve(&origin, BOUNDS).await;
    ask_with_invented_queries(program.viewer().await, 0..100).await;
    let before = program.resident_bytes();
    ask_with_invented_queries(program.viewer().await, 100..6000).await;
    let grown = program.resident_bytes_max() - before;
    assert!(grown <= 12 << 20, "grew by {} KiB", grown >> 10);
}
