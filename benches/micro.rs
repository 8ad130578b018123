//! Measures the steps of a hit one by one, and the extra work of a manifest's fill: parsing its
//! text and its directives.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};

use seawall::config::Config;
use seawall_cache::{self, Cache, JoinOutcome, Object, StoredHead, Verdict};
use seawall_manifest::{Kind, low_latency, read_manifest};
use seawall_policy::access::{Admission, Requester, access};
use seawall_policy::directives::{RequestDirectives, ResponseDirectives};
use seawall_policy::freshness::{freshness, freshness_for};
use seawall_policy::{FileSecrets, Key, Lifetime, Now, Rules, range};

fn main() {
    // Short, since these steps take nanoseconds and the whole should not take minutes.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(30)
        .nresamples(10_000)
        .without_plots()
        .configure_from_args();
    classify(&mut criterion);
    admit(&mut criterion);
    look_up(&mut criterion);
    judge_freshness(&mut criterion);
    read_manifests(&mut criterion);
    write_delta_updates(&mut criterion);
    read_directives(&mut criterion);
    resolve_ranges(&mut criterion);
    criterion.final_summary();
}

const SEGMENT_PATH: &str = "/out/v1/3f9a/index_1080p_6000k/segment_000004711.ts";

fn classify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify");
    let paths = [
        ("playlist", "/out/v1/3f9a/index_1080p_6000k.m3u8"),
        ("segment", SEGMENT_PATH),
        ("init", "/out/v1/3f9a/index_1080p_6000k/init.mp4"),
        ("other", "/out/v1/3f9a/thumbnails/catalogue"),
    ];
    for (name, path) in paths {
        group.bench_function(name, |bencher| {
            bencher.iter(|| Kind::of_path(black_box(path)));
        });
    }
    group.finish();
}

/// From a request head to its route, kind and key.
fn admit(criterion: &mut Criterion) {
    let rules = rules();
    let headers = player_headers();
    let secrets = FileSecrets::default();
    let mut group = criterion.benchmark_group("access");
    let targets = [
        (
            "playlist with a query",
            "/live/a.m3u8?_HLS_msn=4711&_HLS_part=3",
        ),
        ("segment", SEGMENT_PATH),
    ];
    for (name, target) in targets {
        let uri = Uri::from_static(target);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (uri, headers) = (black_box(&uri), black_box(&headers));
                let viewer = Requester::Viewer {
                    address: Some([192, 0, 2, 1].into()),
                    class: None,
                    certificate: None,
                    secrets: &secrets,
                };
                let access = access(&rules, &Method::GET, uri, Version::HTTP_11, headers, viewer);
                assert!(matches!(access, Admission::Cache(_)));
                access
            });
        });
    }
    group.finish();
}

/// With enough other objects that the table does not fit into the nearest caches.
fn look_up(criterion: &mut Criterion) {
    const OBJECTS: usize = 20_000;
    let cache = Cache::new(seawall_cache::Settings::default());
    let keys: Vec<_> = (0..OBJECTS).map(segment_key).collect();
    for key in &keys {
        store(&cache, key);
    }
    let (absent, now) = (segment_key(OBJECTS), Instant::now());
    let mut group = criterion.benchmark_group("lookup");
    group.bench_function("the same object", |bencher| {
        bencher.iter(|| cache.lookup(black_box(&keys[7]), Kind::Segment, now, HeaderMap::new));
    });
    group.bench_function("one of 20 000 objects", |bencher| {
        let mut next = keys.iter().cycle().step_by(7919);
        bencher.iter(|| {
            let found = next
                .next()
                .map(|key| cache.lookup(key, Kind::Segment, now, HeaderMap::new));
            assert!(found.as_ref().is_some_and(|found| found.object.is_some()));
            found
        });
    });
    group.bench_function("nothing held", |bencher| {
        bencher.iter(|| cache.lookup(black_box(&absent), Kind::Segment, now, HeaderMap::new));
    });
    group.finish();
}

fn judge_freshness(criterion: &mut Criterion) {
    let now = Instant::now();
    let lifetime = Lifetime {
        fresh_for: Duration::from_secs(2),
        stale_while_revalidate: Duration::from_secs(2),
        stale_if_error: Duration::from_mins(1),
        ..Lifetime::none(now)
    };
    let later = now + Duration::from_secs(3);
    let directives = RequestDirectives::default();
    let mut group = criterion.benchmark_group("freshness");
    group.bench_function("fresh", |bencher| {
        bencher.iter(|| freshness(black_box(&lifetime), black_box(now)));
    });
    group.bench_function("stale", |bencher| {
        bencher.iter(|| freshness(black_box(&lifetime), black_box(later)));
    });
    group.bench_function("with a viewer's directives", |bencher| {
        bencher.iter(|| freshness_for(black_box(&lifetime), black_box(&directives), later));
    });
    group.bench_function("reading both clocks", |bencher| bencher.iter(Now::read));
    group.finish();
}

fn read_manifests(criterion: &mut Criterion) {
    let manifests = [
        (Kind::Hls, playlist(32)),
        (Kind::Hls, playlist(360)),
        (Kind::Hls, low_latency_playlist(210)),
        (Kind::Dash, MPD.to_owned()),
    ];
    let mut group = criterion.benchmark_group("manifest");
    for (kind, text) in &manifests {
        let id = BenchmarkId::new(kind.as_str(), format!("{} bytes", text.len()));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(id, text, |bencher, text| {
            bencher.iter(|| {
                let facts = read_manifest(*kind, black_box(text.as_bytes()));
                assert!(facts.is_ok());
                facts
            });
        });
    }
    group.finish();
}

fn write_delta_updates(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("delta update");
    for segments in [20, 210] {
        let text = low_latency_playlist(segments);
        let id = BenchmarkId::from_parameter(format!("{} bytes", text.len()));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(id, &text, |bencher, text| {
            bencher.iter(|| {
                let update = low_latency::delta(black_box(text));
                assert!(update.is_some());
                update
            });
        });
    }
    group.finish();
}

fn read_directives(criterion: &mut Criterion) {
    const TARGETED: HeaderName = HeaderName::from_static("cdn-cache-control");
    let answers = [
        ("plain", header::CACHE_CONTROL, "max-age=2"),
        (
            "long",
            header::CACHE_CONTROL,
            "public, max-age=2, s-maxage=1, stale-while-revalidate=4, stale-if-error=3600",
        ),
        ("targeted", TARGETED, "max-age=2, stale-while-revalidate=4"),
    ];
    let mut group = criterion.benchmark_group("directives");
    for (name, field, value) in answers {
        let headers = HeaderMap::from_iter([(field, HeaderValue::from_static(value))]);
        group.bench_function(name, |bencher| {
            bencher.iter(|| ResponseDirectives::of(black_box(&headers)));
        });
    }
    group.finish();
}

fn resolve_ranges(criterion: &mut Criterion) {
    const RANGES_MAX: usize = 8;
    const LENGTH: u64 = 1 << 20;
    let asked = [
        ("none", None),
        ("one", Some("bytes=0-65535")),
        ("four", Some("bytes=0-99,1000-1999,5000-5099,-100")),
    ];
    let mut group = criterion.benchmark_group("range");
    for (name, value) in asked {
        let mut headers = player_headers();
        headers.extend(value.map(|value| (header::RANGE, HeaderValue::from_static(value))));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                range::resolve(&range::requested(black_box(&headers), RANGES_MAX), LENGTH)
            });
        });
    }
    group.finish();
}

/// The rules of `serve --origin` with default settings.
fn rules() -> Rules {
    match Config::single("http://127.0.0.1:9", Vec::new()) {
        Ok(config) => config.rules,
        Err(_) => unreachable!("this is an origin's address"),
    }
}

/// The header fields that a browser's player sends.
fn player_headers() -> HeaderMap {
    let fields = [
        (header::HOST, "live.example.com"),
        (
            header::USER_AGENT,
            "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
        ),
        (header::ACCEPT, "*/*"),
        (header::ACCEPT_LANGUAGE, "en-GB,en;q=0.5"),
        (header::ACCEPT_ENCODING, "gzip, deflate, br, zstd"),
        (header::ORIGIN, "https://player.example.com"),
        (header::REFERER, "https://player.example.com/watch"),
        (header::CONNECTION, "keep-alive"),
    ];
    let fields = fields.map(|(name, value)| (name, HeaderValue::from_static(value)));
    HeaderMap::from_iter(fields)
}

fn segment_key(number: usize) -> Key {
    let path = format!("/out/v1/3f9a/index_1080p_6000k/segment_{number:09}.ts");
    Key::of(&[b"origin", b"", path.as_bytes()])
}

fn store(cache: &Cache, key: &Key) {
    let nothing = HeaderMap::new();
    let found = cache.lookup(key, Kind::Segment, Instant::now(), HeaderMap::new);
    let JoinOutcome::Lead(fill, _follower) = cache.join(&found, &nothing) else {
        unreachable!("nothing is held and nothing is under way");
    };
    let head = StoredHead {
        status: StatusCode::OK,
        headers: player_headers().into(),
        kind: Kind::Segment,
        lifetime: Lifetime {
            fresh_for: Duration::from_hours(1),
            ..Lifetime::none(Instant::now())
        },
        targeted: None,
        manifest_info: None,
        length: None,
        will_be_stored: true,
        is_own: false,
        stream: None,
        epoch_token: None,
        access_tracker: None,
    };
    let object = Arc::new(Object::new(head, Bytes::from_static(b"a small segment")));
    fill.store_and_publish(&object, Verdict::Object(Arc::clone(&object)));
}

/// A live media playlist; 32 segments make 2.7 KB.
fn playlist(segments: usize) -> String {
    const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:6\n";
    let mut text = format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:4711\n");
    for number in 0..segments {
        let name = format!("video_1080p_6000k_segment_{number:043}.ts");
        text.extend(["#EXTINF:6.000,\n", &name, "\n"]);
    }
    text
}

/// A live low-latency playlist with the parts of its last three segments; 210 segments make 30 KB.
fn low_latency_playlist(segments: usize) -> String {
    const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n\
        #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,PART-HOLD-BACK=1.02\n\
        #EXT-X-PART-INF:PART-TARGET=0.33334\n#EXT-X-MEDIA-SEQUENCE:4711\n\
        #EXT-X-MAP:URI=\"video_1080p_6000k_init.mp4?session=8f2b41c7\"\n";
    let segment = |number: usize| {
        let (minute, second) = (number / 30, number * 2 % 60);
        let mut lines = vec![format!(
            "#EXT-X-PROGRAM-DATE-TIME:2026-11-21T10:{minute:02}:{second:02}.000Z"
        )];
        lines.extend((0..6).filter(|_| number + 3 >= segments).map(|part| {
            let name = format!("video_1080p_6000k_{number:09}_{part}.m4s?session=8f2b41c7");
            format!("#EXT-X-PART:DURATION=0.33334,URI=\"{name}\",INDEPENDENT=YES")
        }));
        lines.push("#EXTINF:2.00000,".to_owned());
        lines.push(format!(
            "video_1080p_6000k_{number:027}.m4s?session=8f2b41c7\n"
        ));
        lines.join("\n")
    };
    HEAD.to_owned() + &(0..segments).map(segment).collect::<String>()
}

const MPD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-live:2011"
     type="dynamic" availabilityStartTime="2026-01-01T00:00:00Z" minimumUpdatePeriod="PT2S"
     minBufferTime="PT2S" timeShiftBufferDepth="PT1M" publishTime="2026-01-01T00:10:00Z">
  <Period id="1" start="PT0S">
    <AdaptationSet mimeType="video/mp4" segmentAlignment="true" startWithSAP="1">
      <SegmentTemplate timescale="90000" media="v/$Number$.m4s" initialization="v/init.mp4"
                       startNumber="1">
        <SegmentTimeline>
          <S t="53460000" d="180000" r="29"/>
        </SegmentTimeline>
      </SegmentTemplate>
      <Representation id="1080p" bandwidth="6000000" width="1920" height="1080"
                      codecs="avc1.640028"/>
      <Representation id="720p" bandwidth="3000000" width="1280" height="720"
                      codecs="avc1.64001f"/>
    </AdaptationSet>
  </Period>
</MPD>
"#;
