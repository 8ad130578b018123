//! When memory is full, objects that viewers watch stay, and objects without viewers leave.

use bytes::Bytes;
use seawall_manifest::Kind;
use tokio::task::JoinSet;

use crate::support::metrics::{FILLS, STORED_BYTES, WAITERS};
use crate::support::origin::Reply;
use crate::support::{
    Gate, Origin, Response, Shield, ended_playlist, get, manifest, noise, reply, segment, status,
};

const MIB: u64 = 1 << 20;
const SEGMENT: usize = 100 << 10;

/// A live stream that advances on command.
struct Stream {
    path: &'static str,
    media_type: &'static str,
    /// The manifest that lists four segments, the last of which has this number.
    text: fn(u64) -> String,
    segment: fn(u64) -> String,
}

const HLS: Stream = Stream {
    path: "/live/a.m3u8",
    media_type: "application/vnd.apple.mpegurl",
    text: |newest| {
        let head = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n";
        let first = newest - 3;
        let line = |number: u64| format!("#EXTINF:6.0,\nseg{number}.ts\n");
        let segments: String = (first..=newest).map(line).collect();
        format!("{head}#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}")
    },
    segment: |number| format!("/live/seg{number}.ts"),
};

const DASH: Stream = Stream {
    path: "/live/a.mpd",
    media_type: "application/dash+xml",
    text: |newest| {
        let first = newest - 3;
        let start = first * 6;
        format!(
            "<MPD type=\"dynamic\" availabilityStartTime=\"1970-01-01T00:00:00Z\" \
             minimumUpdatePeriod=\"PT6S\"><Period id=\"0\" start=\"PT0S\">\
             <AdaptationSet mimeType=\"video/mp4\"><SegmentTemplate timescale=\"1\" \
             startNumber=\"{first}\" media=\"$RepresentationID$-$Number$.m4s\">\
             <SegmentTimeline><S t=\"{start}\" d=\"6\" r=\"3\"/></SegmentTimeline>\
             </SegmentTemplate><Representation id=\"hd\" bandwidth=\"2\"/></AdaptationSet>\
             </Period></MPD>"
        )
    },
    segment: |number| format!("/live/hd-{number}.m4s"),
};

impl Stream {
    /// A version that is due for a refresh.
    fn version(&self, newest: u64) -> Reply {
        let overdue = reply().cache_control("max-age=1").age(1);
        let text = (self.text)(newest);
        overdue.content_type(self.media_type).body(text)
    }

    /// Four viewers watch this many segments; each is fetched once, and is stored for nearly all of
    /// them.
    async fn is_watched_in(&self, memory: u64, segments: u64) {
        const VIEWERS: usize = 4;
        let mut origin = Origin::start().await;
        for number in 0..=segments + 10 {
            let body = noise(number, SEGMENT);
            origin = origin.on(&(self.segment)(number), segment(body));
        }
        origin.set_script(self.path, self.version(10));
        let shield = Shield::in_front_of(&origin)
            .with(|config| config.cache.memory_bytes = memory)
            .start()
            .await;
        shield.get(self.path).await;
        // A viewer watches: from now on new segments are prefetched.
        shield.get(&(self.segment)(9)).await;
        shield.get(&(self.segment)(10)).await;
        let (mut asked, mut hits) = (0, 0);
        for newest in 11..=segments + 10 {
            origin.set_script(self.path, self.version(newest));
            let name = (self.segment)(newest);
            let listed = (self.text)(newest);
            let newest_version = |answer: &Response| answer.text() == listed;
            shield.repeat_until(get(self.path), newest_version).await;
            shield.wait_gauge(FILLS, |fills| fills == 0).await;
            let (body, mut viewer) = (noise(newest, SEGMENT), shield.viewer().await);
            for _ in 0..VIEWERS {
                let answer = viewer.get(&name).await;
                answer.assert_whole(&body);
                asked += 1;
                hits += usize::from(answer.is_hit());
            }
            // One viewer is a segment behind.
            let late = viewer.get(&(self.segment)(newest - 1)).await;
            asked += 1;
            hits += usize::from(late.is_hit());
            assert_eq!(origin.hits(&name), 1, "{name}");
        }
        assert!(hits * 100 >= asked * 99, "{hits} of {asked}");
        assert!(shield.gauge(STORED_BYTES).await <= memory);
        assert!(evicted(&shield, "departed").await >= segments / 2);
        assert_eq!(evicted(&shield, "live").await, 0);
    }
}

async fn evicted(shield: &Shield, reason: &str) -> u64 {
    let reason = [("reason", reason)];
    shield
        .counter("seawall_store_evictions_total", &reason)
        .await
}

/// More than twice the memory passes through, and no viewer misses a watched object.
#[tokio::test]
async fn live_playlist_segments_are_not_evicted_when_memory_is_full() {
    HLS.is_watched_in(MIB, 24).await;
}

#[tokio::test]
async fn live_mpd_segments_are_not_evicted_when_memory_is_full() {
    DASH.is_watched_in(MIB, 24).await;
}

/// Ten segments and a playlist that viewers have requested twice.
async fn watched(shield: &Shield) -> Vec<String> {
    let names: Vec<_> = (0..10).map(|number| format!("/vod/{number}.ts")).collect();
    for _ in 0..2 {
        for name in &names {
            shield.get(name).await;
        }
    }
    shield.get("/vod/a.m3u8").await;
    names
}

async fn watched_origin() -> Origin {
    let mut origin = Origin::start().await;
    for number in 0..10 {
        let body = noise(number, SEGMENT);
        origin = origin.on(&format!("/vod/{number}.ts"), segment(body));
    }
    origin.on("/vod/a.m3u8", manifest(ended_playlist(1)))
}

/// Requests this many URLs once each, over four connections.
async fn flood(shield: &Shield, count: usize, name: fn(usize) -> String) {
    const VIEWERS: usize = 4;
    let mut viewers = JoinSet::new();
    for viewer in 0..VIEWERS {
        let mut connection = shield.viewer().await;
        viewers.spawn(async move {
            for number in (viewer..count).step_by(VIEWERS) {
                connection.get(&name(number)).await;
            }
        });
    }
    viewers.join_all().await;
}

async fn displaces_nothing(origin: Origin, name: fn(usize) -> String) {
    const MEMORY: u64 = 4 * MIB;
    const COUNT: usize = 2500;
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.memory_bytes = MEMORY)
        .start()
        .await;
    let names = watched(&shield).await;
    flood(&shield, COUNT, name).await;
    for name in names {
        assert!(shield.get(&name).await.is_hit(), "{name}");
    }
    assert!(shield.get("/vod/a.m3u8").await.is_hit(), "the playlist");
    assert!(shield.gauge(STORED_BYTES).await <= MEMORY);
}

/// Of the viewers that request an object at once, some come after the fetch has ended. Memory is
/// full of objects that are all requested in between, and another fetch ends too.
#[tokio::test]
async fn viewers_that_come_after_a_shared_fetch_find_its_object() {
    const CROWD: &str = "/vod/crowd.ts";
    const VIEWERS: usize = 20;
    let (gate, body) = (Gate::new(), noise(50, SEGMENT));
    let origin = watched_origin()
        .await
        .on(CROWD, segment(body.clone()).hold_head(&gate))
        .on("/vod/other.ts", segment(noise(51, SEGMENT)));
    let shield = Shield::in_front_of(&origin)
        // Room for the ten watched objects, not for another one.
        .with(|config| config.cache.memory_bytes = MIB + SEGMENT as u64)
        .start()
        .await;
    let names = watched(&shield).await;
    let crowd = shield.crowd(VIEWERS, get(CROWD)).await;
    shield
        .wait_gauge(WAITERS, |waiting| waiting >= VIEWERS as u64)
        .await;
    gate.open();
    for answer in crowd.read_all().await {
        answer.assert_whole(&body);
    }
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
    for name in &names[1..] {
        assert!(shield.get(name).await.is_hit(), "{name}");
    }
    shield.get("/vod/other.ts").await;
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
    assert!(shield.get(CROWD).await.is_hit());
    assert_eq!(origin.hits(CROWD), 1);
}

#[tokio::test]
async fn invented_urls_evict_no_watched_object() {
    let name = |number| format!("/vod/invented-{number}.ts");
    displaces_nothing(watched_origin().await, name).await;
}

/// Missing names, files with queries that are never repeated, watched segments under other queries,
/// and playlists without viewers, all at once: five times the memory.
#[tokio::test]
async fn mixed_invented_urls_evict_no_watched_object() {
    const MEMORY: u64 = 16 * MIB;
    let origin = watched_origin()
        .await
        .on("/vod/any.ts", segment(noise(88, 16 << 10)))
        .on("/vod/any.m3u8", manifest(ended_playlist(200)));
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.memory_bytes = MEMORY)
        .start()
        .await;
    let names = watched(&shield).await;
    flood(&shield, 10_000, |number| match number % 8 {
        0 | 1 => format!("/vod/invented-{number}.ts"),
        2..6 => format!("/vod/any.ts?{number}"),
        6 => format!("/vod/{}.ts?{number}", number % 10),
        _ => format!("/vod/any.m3u8?{number}"),
    })
    .await;
    for name in names {
        assert!(shield.get(&name).await.is_hit(), "{name}");
    }
    assert!(shield.get("/vod/a.m3u8").await.is_hit(), "the playlist");
    assert!(shield.gauge(STORED_BYTES).await <= MEMORY);
}

#[tokio::test]
async fn scan_of_thousands_of_files_evicts_no_watched_object() {
    let (mut origin, body) = (watched_origin().await, noise(77, 8 << 10));
    for number in 0..2500 {
        origin = origin.on(&format!("/cold/{number}.ts"), segment(body.clone()));
    }
    displaces_nothing(origin, |number| format!("/cold/{number}.ts")).await;
}

/// Errors are small and many: they take no more than their share.
#[tokio::test]
async fn stored_errors_stay_within_their_share_of_memory() {
    let gone = status(404).body("x".repeat(1000));
    let origin = Origin::start().await.on("/none.ts", gone);
    let shield = Shield::in_front_of(&origin)
        .with(|config| config.cache.memory_bytes = 16 * MIB)
        .start()
        .await;
    flood(&shield, 2000, |number| format!("/none.ts?{number}")).await;
    assert!(shield.gauge(STORED_BYTES).await <= MIB / 2);
    assert!(evicted(&shield, "error").await > 0);
}

/// `kind_max` holds, and displaces only objects of that kind.
#[tokio::test]
async fn kind_max_evicts_only_objects_of_that_kind() {
    let mut origin = watched_origin().await;
    for number in 0..100 {
        let body = Bytes::from(vec![b'x'; SEGMENT]);
        let file = reply()
            .content_type("text/html")
            .cache_control("max-age=60");
        origin = origin.on(&format!("/pages/{number}.html"), file.body(body));
    }
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.cache.memory_bytes = 8 * MIB;
            config.cache.kind_bytes_max = vec![(Kind::Other, 2 * MIB)];
        })
        .start()
        .await;
    let names = watched(&shield).await;
    flood(&shield, 100, |number| format!("/pages/{number}.html")).await;
    assert!(shield.gauge(STORED_BYTES).await <= 4 * MIB);
    for name in names {
        assert!(shield.get(&name).await.is_hit(), "{name}");
    }
}
