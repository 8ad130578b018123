//! The byte count of the store is true: it is compared with the bytes that the allocator gave.

#![expect(
    clippy::expect_used,
    reason = "a test that cannot read the allocator's count has failed"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tikv_jemalloc_ctl::{epoch, stats};

use seawall_cache::{Cache, JoinOutcome, Object, Settings, StoredHead, Verdict};
use seawall_manifest::Kind;
use seawall_policy::{Key, Lifetime};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Response headers of an ordinary origin for a segment, without `Content-Length`.
const FIELDS: [(&str, &str); 9] = [
    ("server", "nginx/1.27.3"),
    ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("content-type", "video/mp2t"),
    ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("etag", "\"6558f3a1-5e1c4\""),
    ("cache-control", "max-age=600"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-origin", "*"),
    ("via", "1.1 seawall"),
];

/// The headers as they arrive: each value is a slice of the connection's read buffer.
fn arriving() -> HeaderMap {
    const READ_BYTES: usize = 4 << 10;
    let mut read = vec![0; READ_BYTES];
    let mut at = 0;
    let ends = FIELDS.map(|(_, value)| {
        read[at..at + value.len()].copy_from_slice(value.as_bytes());
        at += value.len();
        at
    });
    let read = Bytes::from(read);
    let fields = FIELDS.iter().zip(ends).map(|((name, value), end)| {
        let value = HeaderValue::from_maybe_shared(read.slice(end - value.len()..end));
        (HeaderName::from_static(name), value.expect("it is a value"))
    });
    fields.collect()
}

fn key(number: usize) -> Key {
    Key::of(&[b"origin", b"", format!("/seg/o-{number}.ts").as_bytes()])
}

/// A directory of the stream.
fn place_key(number: usize) -> Key {
    Key::of(&[b"origin", b"", format!("/seg/{number}/").as_bytes()])
}

fn head_bytes() -> usize {
    let line = |(name, value): (&str, &str)| name.len() + value.len() + 4;
    FIELDS.map(line).iter().sum()
}

/// Stores an object as a fill does, tied to the epoch of a directory.
fn store(cache: &Cache, number: usize, place: usize, body: Bytes) {
    let nothing = HeaderMap::new();
    let found = cache.lookup(&key(number), Kind::Segment, Instant::now(), HeaderMap::new);
    let JoinOutcome::Lead(fill, _follower) = cache.join(&found, &nothing) else {
        panic!("nothing is held and nothing is under way");
    };
    let head = StoredHead {
        status: StatusCode::OK,
        headers: arriving().into(),
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
        epoch_token: Some(cache.bind_epoch(Some(&place_key(place)), None)),
        access_tracker: None,
    };
    let object = Arc::new(Object::new(head, body));
    fill.store_and_publish(&object, Verdict::Object(Arc::clone(&object)));
    // A hit makes the body shared.
    drop(object.body.clone());
}

/// Bytes of the memory pages in use.
fn in_use() -> u64 {
    epoch::advance().expect("the allocator counts");
    stats::active::read().expect("the allocator counts") as u64
}

/// Stores `objects` objects, `together` per directory. Returns the bytes per object: as the store
/// accounts them, and as the allocator counts them.
fn each(objects: usize, body_bytes: usize, together: usize) -> (u64, u64) {
    let cache = Cache::new(Settings {
        memory_bytes: 4 << 30,
        ..Settings::default()
    });
    // One-time allocations, which the first objects cause, do not count.
    for number in 0..100 {
        store(&cache, number, 0, Bytes::from(vec![7; 10]));
    }
    let (before, accounted_before) = (in_use(), cache.stats().bytes);
    for number in 100..100 + objects {
        let body = Bytes::from(vec![7; body_bytes]);
        store(&cache, number, number / together, body);
    }
    let accounted = cache.stats().bytes - accounted_before;
    assert_eq!(cache.stats().objects, objects as u64 + 100);
    let taken = in_use().saturating_sub(before);
    (accounted / objects as u64, taken / objects as u64)
}

/// A single test, because the allocator counts for the whole process.
#[test]
fn accounted_bytes_are_within_a_tenth_of_what_objects_take_and_small_ones_take_little() {
    const BESIDES_BYTES_MAX: usize = 560;
    const WITH_DIRECTORY_BYTES_MAX: usize = 700;
    for (objects, body_bytes, together) in [
        (50_000, 10, 50_000),
        (60_000, 10, 60_000),
        (110_000, 10, 110_000),
        (50_000, 10, 1),
        (20_000, 1500, 20_000),
        (2000, 16_384, 20_000),
        (400, 100_000, 20_000),
        (6, 10_000_000, 20_000),
    ] {
        let (accounted, taken) = each(objects, body_bytes, together);
        println!(
            "{objects} of {body_bytes} bytes, {together} in a directory: \
             accounted {accounted} each, they take {taken}"
        );
        let off = accounted.abs_diff(taken);
        assert!(off * 10 <= taken, "{body_bytes} bytes: {accounted} {taken}");
        let texts = key(objects).bytes().len() + head_bytes() + body_bytes;
        let besides = usize::try_from(taken)
            .unwrap_or(usize::MAX)
            .saturating_sub(texts);
        let max = if together > 1 {
            BESIDES_BYTES_MAX
        } else {
            WITH_DIRECTORY_BYTES_MAX
        };
        assert!(body_bytes > 10 || besides <= max, "{besides}");
    }
}
