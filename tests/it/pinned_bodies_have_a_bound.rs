//! Evicted objects that slow viewers still read stay in memory, up to a limit.

use bytes::Bytes;

use crate::support::metrics::{ABORTED, FILLS, PINNED_BYTES, PINNED_BYTES_MAX, VIEWER_EVENTS};
use crate::support::viewer::{Ask, H2Viewer, Viewer};
use crate::support::{
    Arriving, End, Origin, Response, Shield, eventually, get, manifest, noise, segment,
};

/// More than socket buffers take for a viewer who reads nothing.
const BODY: usize = 4 << 20;
const COUNT: usize = 10;
/// Memory for one body, and for two pinned ones.
const MEMORY: u64 = 6 << 20;
const FILLS_MAX: u64 = 20 << 20;

fn path(number: usize) -> String {
    format!("/vod/{number}.ts")
}

fn bodies() -> Vec<Bytes> {
    (0..COUNT)
        .map(|number| noise(number as u64, BODY))
        .collect()
}

/// Segments on an origin that also serves ranges.
async fn scene(bodies: &[Bytes]) -> (Origin, Shield) {
    scene_with(bodies, |_| {}).await
}

async fn scene_with(
    bodies: &[Bytes],
    waits: impl FnOnce(&mut seawall::proxy::Settings),
) -> (Origin, Shield) {
    let mut origin = Origin::start().await.on("/small.ts", segment("small"));
    for (number, body) in bodies.iter().enumerate() {
        let ranged = segment(Bytes::new())
            .etag("\"1\"")
            .with_ranges(body.clone());
        origin = origin.on(&path(number), ranged);
    }
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.cache.memory_bytes = MEMORY;
            config.cache.fill_bytes_max = FILLS_MAX;
        })
        .proxy_settings(waits)
        .start()
        .await;
    (origin, shield)
}

/// Begins to read, and stops.
async fn stuck(shield: &Shield, ask: Ask) -> Arriving {
    let mut reader = Viewer::connect_with_small_buffer(shield.address())
        .await
        .begin(ask)
        .await;
    reader.read(1000).await;
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
    reader
}

/// Each viewer reads an object that later requests evict.
async fn all_stuck(shield: &Shield, ask: impl Fn(usize) -> Ask, held: bool) -> Vec<Arriving> {
    let mut readers = Vec::new();
    for number in 0..COUNT {
        if held {
            assert_eq!(shield.get(&path(number)).await.status, 200);
            shield.wait_gauge(FILLS, |fills| fills == 0).await;
        }
        readers.push(stuck(shield, ask(number)).await);
    }
    readers
}

async fn few_are_left(shield: &Shield) {
    let max = shield.gauge(PINNED_BYTES_MAX).await;
    assert!(max >= BODY as u64 && max <= FILLS_MAX / 2);
    shield.wait_gauge(PINNED_BYTES, |bytes| bytes <= max).await;
    eventually("slow viewers to be cut", async || {
        cut(shield).await >= COUNT as u64 - 3
    })
    .await;
}

async fn cut(shield: &Shield) -> u64 {
    let event = [("event", "cut_for_memory")];
    shield.counter(VIEWER_EVENTS, &event).await
}

/// Nearly all viewers are cut visibly, as all are equally slow; the others get every byte.
async fn most_are_cut(readers: Vec<Arriving>, parts: &[Bytes]) {
    let mut cut = Vec::new();
    for (reader, part) in readers.into_iter().zip(parts) {
        let answer = reader.finish().await;
        if answer.end == End::Whole {
            assert!(answer.body == part, "other bytes");
        } else {
            answer.assert_cut(part);
        }
        cut.push(answer.end != End::Whole);
    }
    let count = cut.iter().filter(|cut| **cut).count();
    assert!((COUNT - 3..COUNT).contains(&count), "{cut:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_on_a_miss_are_cut_after_eviction() {
    let bodies = bodies();
    let (_origin, shield) = scene(&bodies).await;
    let readers = all_stuck(&shield, |number| get(&path(number)), false).await;
    few_are_left(&shield).await;
    shield.get("/small.ts").await.assert_whole("small");
    most_are_cut(readers, &bodies).await;
    shield.wait_gauge(PINNED_BYTES, |bytes| bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_on_a_hit_are_cut_after_eviction() {
    let bodies = bodies();
    let (_origin, shield) = scene(&bodies).await;
    let readers = all_stuck(&shield, |number| get(&path(number)), true).await;
    few_are_left(&shield).await;
    most_are_cut(readers, &bodies).await;
    shield.wait_gauge(PINNED_BYTES, |bytes| bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_range_readers_are_cut_at_pinned_limit() {
    let bodies = bodies();
    let (_origin, shield) = scene(&bodies).await;
    let ask = |number| get(&path(number)).range(&format!("100-{}", BODY - 100));
    let readers = all_stuck(&shield, ask, true).await;
    few_are_left(&shield).await;
    let parts: Vec<_> = bodies
        .iter()
        .map(|body| body.slice(100..=BODY - 100))
        .collect();
    most_are_cut(readers, &parts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_multipart_readers_are_cut_at_pinned_limit() {
    let bodies = bodies();
    let (_origin, shield) = scene(&bodies).await;
    let ask = |number| get(&path(number)).range(&format!("0-9,100-{}", BODY - 100));
    let readers = all_stuck(&shield, ask, true).await;
    few_are_left(&shield).await;
    let mut cut = 0;
    for reader in readers {
        let answer = reader.finish().await;
        assert_eq!(answer.status, 206);
        cut += usize::from(answer.end == End::Cut);
    }
    assert!(cut >= COUNT - 3, "{cut}");
}

/// Each viewer pins a slice, which is an object of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_slice_readers_are_cut_at_pinned_limit() {
    let bodies = bodies();
    let (_origin, shield) = scene_with(&bodies, |waits| {
        waits.whole_fetch_max = BODY as u64 / 2;
        waits.slice_bytes = BODY as u64 - 1000;
    })
    .await;
    let readers = all_stuck(&shield, |number| get(&path(number)), false).await;
    few_are_left(&shield).await;
    most_are_cut(readers, &bodies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_of_purged_segments_are_cut_at_pinned_limit() {
    let bodies = bodies();
    let (_origin, shield) = scene(&bodies).await;
    let mut readers = Vec::new();
    for number in 0..COUNT {
        readers.push(stuck(&shield, get(&path(number))).await);
        shield.purge(&path(number)).await;
    }
    few_are_left(&shield).await;
    most_are_cut(readers, &bodies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_http2_streams_are_reset_and_connection_stays_open() {
    for held in [false, true] {
        let bodies = bodies();
        let (_origin, shield) = scene(&bodies).await;
        let mut viewers: Vec<H2Viewer> = Vec::new();
        let mut readers = Vec::new();
        for number in 0..COUNT {
            if held {
                assert_eq!(shield.get(&path(number)).await.status, 200);
            }
            let viewer = shield.h2_viewer().await;
            let mut reader = viewer.begin(get(&path(number))).await;
            reader.read(1000).await;
            shield.wait_gauge(FILLS, |fills| fills == 0).await;
            viewers.push(viewer);
            readers.push(reader);
        }
        few_are_left(&shield).await;
        most_are_cut(readers, &bodies).await;
        for viewer in &viewers {
            viewer.get("/small.ts").await.assert_whole("small");
        }
        shield.wait_gauge(PINNED_BYTES, |bytes| bytes == 0).await;
    }
}

/// Viewers who read at full speed are not cut and pin nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fast_readers_pin_nothing_and_are_not_cut() {
    let bodies = bodies();
    let (_origin, shield) = scene(&bodies).await;
    let mut viewer = shield.viewer().await;
    let streams = shield.h2_viewer().await;
    for _ in 0..3 {
        for (number, body) in bodies.iter().enumerate() {
            viewer.get(&path(number)).await.assert_whole(body);
            streams.get(&path(number)).await.assert_whole(body);
        }
    }
    assert_eq!(cut(&shield).await, 0);
    assert_eq!(shield.gauge(PINNED_BYTES).await, 0);
}

/// A viewer who keeps reading a segment gets all of it, although others read it slowly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fast_reader_is_not_cut_for_slow_reader_of_same_segment() {
    for over_h2 in [false, true] {
        let bodies = bodies();
        let (_origin, shield) = scene(&bodies).await;
        let slow = stuck(&shield, get(&path(0))).await;
        let mut fast = if over_h2 {
            shield.h2_viewer().await.begin(get(&path(0))).await
        } else {
            let viewer = Viewer::connect_with_small_buffer(shield.address()).await;
            viewer.begin(get(&path(0))).await
        };
        let mut others = Vec::new();
        for number in 1..COUNT {
            fast.read(200 << 10).await;
            others.push(stuck(&shield, get(&path(number))).await);
        }
        eventually("slow viewers to be cut", async || cut(&shield).await >= 3).await;
        let answer = fast.finish().await;
        assert_eq!(answer.end, End::Whole, "over HTTP/2: {over_h2}");
        drop((slow, others));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_of_replaced_versions_are_cut_at_pinned_limit() {
    let bodies = bodies();
    let target = "/vod/latest.ts";
    let origin = Origin::start().await;
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.cache.memory_bytes = MEMORY;
            config.cache.fill_bytes_max = FILLS_MAX;
        })
        .start()
        .await;
    let mut readers = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        let version = segment(body.clone())
            .cache_control("no-cache")
            .etag(&format!("\"{number}\""));
        origin.set_script(target, version);
        readers.push(stuck(&shield, get(target)).await);
    }
    few_are_left(&shield).await;
    most_are_cut(readers, &bodies).await;
}

/// Compressed manifests are bodies of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_of_compressed_playlists_are_cut() {
    const TEXT: usize = 3 << 20;
    let text = |number: usize| {
        let noise = noise(number as u64, TEXT);
        let line = |bytes: &[u8]| {
            let letters = bytes.iter().map(|byte| char::from(b'a' + byte % 16));
            letters.collect::<String>()
        };
        let lines: Vec<_> = noise.chunks(100).map(line).collect();
        let lines = lines.join("\n#");
        format!("#EXTM3U\n#{lines}\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n")
    };
    let path = |number: usize| format!("/vod/{number}.m3u8");
    let mut origin = Origin::start().await;
    for number in 0..COUNT {
        origin = origin.on(
            &path(number),
            manifest(text(number)).cache_control("max-age=600"),
        );
    }
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.fill_bytes_max = FILLS_MAX)
        .start()
        .await;
    let mut readers = Vec::new();
    for number in 0..COUNT {
        let ask = get(&path(number)).header("accept-encoding", "gzip");
        let coded = |answer: &Response| answer.header("content-encoding") == Some("gzip");
        shield.repeat_until(ask.clone(), coded).await;
        let viewer = shield.h2_viewer().await;
        let mut reader = viewer.begin(ask).await;
        reader.read(1000).await;
        shield.purge(&path(number)).await;
        readers.push((viewer, reader));
    }
    eventually("slow viewers to be cut", async || {
        cut(&shield).await >= COUNT as u64 - 3
    })
    .await;
    let mut reset = 0;
    for (_viewer, reader) in readers {
        let answer = reader.finish().await;
        assert!(
            matches!(answer.end, End::Whole | End::Reset(_)),
            "{answer:?}"
        );
        reset += usize::from(answer.end != End::Whole);
    }
    assert!((COUNT - 4..COUNT).contains(&reset), "{reset}");
}

/// HTTP/1.0 on a Unix socket: the end of the connection could be taken for the end of the body, and
/// a Unix socket has no reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http10_viewers_on_unix_socket_can_detect_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("viewers");
    let bodies = bodies();
    let mut origin = Origin::start().await;
    for (number, body) in bodies.iter().enumerate() {
        origin = origin.on(&path(number), segment(body.clone()));
    }
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.cache.memory_bytes = MEMORY;
            config.cache.fill_bytes_max = FILLS_MAX;
        })
        .on_unix(socket.clone())
        .start()
        .await;
    let mut readers = Vec::new();
    for number in 0..COUNT {
        let mut viewer = Viewer::connect_unix(&socket).await;
        let request = format!("GET {} HTTP/1.0\r\nHost: media.test\r\n\r\n", path(number));
        viewer.send_raw(request.as_bytes()).await;
        let mut reader = viewer.receive_head(&get(&path(number))).await;
        reader.read(1000).await;
        shield.wait_gauge(FILLS, |fills| fills == 0).await;
        readers.push(reader);
    }
    few_are_left(&shield).await;
    most_are_cut(readers, &bodies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_at_pinned_limit_is_counted_with_cause_memory() {
    let bodies = bodies();
    let (_origin, shield) = scene(&bodies).await;
    let readers = all_stuck(&shield, |number| get(&path(number)), true).await;
    few_are_left(&shield).await;
    let cause = [("cause", "memory"), ("kind", "segment")];
    eventually("the cuts to be counted", async || {
        shield.counter(ABORTED, &cause).await >= COUNT as u64 - 3
    })
    .await;
    drop(readers);
}
