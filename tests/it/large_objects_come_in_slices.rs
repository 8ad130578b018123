//! An object too large for one fetch is served slice by slice, and is whole whatever the origin
//! does.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::support::metrics::FILLS;
use crate::support::origin::Reply;
use crate::support::{End, Gate, Origin, Response, Shield, computed, get, noise, segment, status};

const PATH: &str = "/vod/seg1.ts";
const LENGTH: usize = 1 << 20;

/// The size from which objects are fetched in slices here, and the size of a slice.
const WHOLE_MAX: usize = 256 << 10;
const SLICE: usize = 64 << 10;

async fn slicing(origin: &Origin) -> Shield {
    let builder = Shield::in_front_of(origin).proxy_settings(|waits| {
        waits.whole_fetch_max = WHOLE_MAX as u64;
        waits.slice_bytes = SLICE as u64;
    });
    builder.start().await
}

/// A large object that the origin serves by ranges, with an `ETag`.
fn version(body: &Bytes, etag: &str) -> Reply {
    segment(Bytes::new()).etag(etag).with_ranges(body.clone())
}

#[track_caller]
fn is_part(answer: &Response, body: &Bytes, start: usize, end: usize) {
    answer.assert_is(206, &body[start..end]);
    let range = format!("bytes {start}-{}/{}", end - 1, body.len());
    assert_eq!(answer.header("content-range"), Some(&*range));
}

/// The ranges that the origin was asked for; none is larger than a slice.
fn slices(origin: &Origin, length: usize) -> Vec<(usize, usize)> {
    let asked = origin.requests(PATH);
    let ranges: Vec<_> = asked
        .iter()
        .filter_map(|request| request.range(length))
        .collect();
    for (start, end) in &ranges {
        assert!(end - start <= SLICE, "{start}..{end}");
    }
    ranges
}

/// A range of a large object fetches the slices that it touches, once, and no others.
#[tokio::test]
async fn range_request_fetches_each_touched_slice_once() {
    let body = noise(1, LENGTH);
    let origin = Origin::start().await.on(PATH, version(&body, "\"1\""));
    let shield = slicing(&origin).await;
    let ask = || get(PATH).range("100000-199999");
    is_part(&shield.ask(ask()).await, &body, 100_000, 200_000);
    let fetched = slices(&origin, body.len());
    assert!((3..=4).contains(&fetched.len()), "{fetched:?}");
    let before = origin.hits(PATH);
    is_part(&shield.ask(ask()).await, &body, 100_000, 200_000);
    assert_eq!(origin.hits(PATH), before, "all of it was held");
}

/// Concurrent requests for a slice cause one fetch.
#[tokio::test]
async fn concurrent_range_requests_fetch_each_slice_once() {
    let body = noise(1, LENGTH);
    let origin = Origin::start().await.on(PATH, version(&body, "\"1\""));
    let shield = slicing(&origin).await;
    let crowd = shield.crowd(20, get(PATH).range("300000-499999")).await;
    for answer in crowd.read_all().await {
        is_part(&answer, &body, 300_000, 500_000);
    }
    let fetched = slices(&origin, body.len());
    let different: HashSet<_> = fetched.iter().collect();
    assert_eq!(fetched.len(), different.len(), "{fetched:?}");
}

/// Slices of two versions of an object are never combined.
#[tokio::test]
async fn slices_of_two_versions_are_never_combined() {
    let (old, new) = (noise(1, LENGTH), noise(2, LENGTH));
    let origin = Origin::start().await.on(PATH, version(&old, "\"1\""));
    let shield = slicing(&origin).await;
    is_part(
        &shield.ask(get(PATH).range("0-99999")).await,
        &old,
        0,
        100_000,
    );
    origin.set_script(PATH, version(&new, "\"2\""));
    let across = shield.ask(get(PATH).range("0-199999")).await;
    let honest = [&old, &new]
        .iter()
        .any(|body| across.body == body[..200_000]);
    assert!(honest || across.end != End::Whole, "{across:?}");
    let after = shield.ask(get(PATH).range("0-199999")).await;
    is_part(&after, &new, 0, 200_000);
}

/// An origin that offers ranges and then sends the whole object: the viewer gets it from the second
/// request on at the latest.
#[tokio::test]
async fn serves_whole_object_when_origin_ignores_ranges() {
    let body = noise(1, LENGTH);
    let boaster = segment(body.clone())
        .header("Accept-Ranges", "bytes")
        .header("ETag", "\"1\"");
    let origin = Origin::start().await.on(PATH, boaster);
    let shield = slicing(&origin).await;
    shield.get(PATH).await;
    for _ in 0..2 {
        shield.get(PATH).await.assert_whole(&body);
    }
    is_part(
        &shield.ask(get(PATH).range("100000-199999")).await,
        &body,
        100_000,
        200_000,
    );
}

/// One slice that fails once does not make the object unavailable.
#[tokio::test]
async fn object_stays_available_after_one_failed_slice() {
    let (body, parts) = (noise(1, LENGTH), AtomicUsize::new(0));
    let object = version(&body, "\"1\"");
    let script = computed(move |request| match request.header("range") {
        Some(_) if parts.fetch_add(1, Ordering::Relaxed) == 2 => status(503),
        _ => object.clone(),
    });
    let origin = Origin::start().await.on(PATH, script);
    let shield = slicing(&origin).await;
    let first = shield.get(PATH).await;
    assert!(first.end != End::Whole || first.body == body, "{first:?}");
    shield.get(PATH).await.assert_whole(&body);
}

/// An object that must be revalidated each time is not revalidated for each slice.
#[tokio::test]
async fn no_cache_object_is_not_revalidated_per_slice() {
    for directive in ["no-cache", "max-age=0"] {
        let body = noise(1, LENGTH);
        let object = version(&body, "\"1\"").cache_control(directive);
        let origin = Origin::start().await.on(PATH, object);
        let shield = slicing(&origin).await;
        for turn in 1..=3 {
            shield.get(PATH).await.assert_whole(&body);
            let asked = origin.hits(PATH);
            assert!(asked <= 2 * turn, "{directive}: {asked} in {turn} turns");
        }
    }
}

/// An object whose transfer took longer than its lifetime is not fresh because it is sliced.
#[tokio::test]
async fn slices_with_expired_age_are_not_fresh() {
    let body = noise(1, LENGTH);
    let aged = version(&body, "\"1\"").cache_control("max-age=60").age(100);
    let origin = Origin::start().await.on(PATH, aged);
    let shield = slicing(&origin).await;
    let ask = || get(PATH).range("0-99");
    is_part(&shield.ask(ask()).await, &body, 0, 100);
    shield.wait_gauge(FILLS, |fills| fills == 0).await;
    let before = origin.hits(PATH);
    is_part(&shield.ask(ask()).await, &body, 0, 100);
    assert!(origin.hits(PATH) > before, "the origin was not asked again");
}

/// A purge drops the slices too, even if the origin keeps the `ETag` of a changed object.
#[tokio::test]
async fn purge_drops_slices_even_if_etag_is_unchanged() {
    let (old, new) = (noise(1, LENGTH), noise(2, LENGTH));
    let origin = Origin::start().await.on(PATH, version(&old, "\"1\""));
    let shield = slicing(&origin).await;
    let ask = || get(PATH).range("100000-199999");
    is_part(&shield.ask(ask()).await, &old, 100_000, 200_000);
    origin.set_script(PATH, version(&new, "\"1\""));
    shield.purge(PATH).await;
    is_part(&shield.ask(ask()).await, &new, 100_000, 200_000);
}

/// A slice is fetched once while the object's `ETag` is unchanged, however often its head is
/// fetched again.
#[tokio::test]
async fn slices_are_not_refetched_while_etag_is_unchanged() {
    let body = noise(1, LENGTH);
    let object = version(&body, "\"1\"").cache_control("max-age=1");
    let origin = Origin::start().await.on(PATH, object);
    let shield = slicing(&origin).await;
    let ask = || get(PATH).range("100000-199999");
    is_part(&shield.ask(ask()).await, &body, 100_000, 200_000);
    let fetched = slices(&origin, body.len()).len();
    let before = origin.hits(PATH);
    // It is stale by now and then, and requested again.
    shield
        .repeat_until(ask(), |_| origin.hits(PATH) > before)
        .await;
    is_part(&shield.ask(ask()).await, &body, 100_000, 200_000);
    assert_eq!(
        slices(&origin, body.len()).len(),
        fetched,
        "nothing came again"
    );
}

/// A response from stored slices alone is a hit.
#[tokio::test]
async fn response_from_stored_slices_alone_is_a_hit() {
    let body = noise(1, LENGTH);
    let origin = Origin::start().await.on(PATH, version(&body, "\"1\""));
    let shield = slicing(&origin).await;
    let told = |answer: &Response| answer.header("cache-status").unwrap().to_owned();
    let ask = || get(PATH).range("100000-199999");
    let first = told(&shield.ask(ask()).await);
    assert!(first.contains("fwd=partial"), "{first}");
    let again = told(&shield.ask(ask()).await);
    assert!(again.contains("; hit"), "{again}");
    let more = told(&shield.ask(get(PATH).range("100000-299999")).await);
    assert!(more.contains("fwd=partial"), "{more}");
    shield.get(PATH).await.assert_whole(&body);
    let all = shield.get(PATH).await;
    assert!(told(all.assert_whole(&body)).contains("; hit"));
}

/// A slice is sent to viewers as it arrives.
#[tokio::test]
async fn slice_is_streamed_as_it_arrives() {
    let (body, gate) = (noise(1, LENGTH), Gate::new());
    let (object, part) = (version(&body, "\"1\""), body.slice(..SLICE));
    let held = gate.clone();
    let script = computed(move |request| match request.header("range") {
        Some("bytes=0-65535") => status(206)
            .content_type("video/mp2t")
            .header("ETag", "\"1\"")
            .header("Content-Range", format!("bytes 0-65535/{LENGTH}"))
            .send(part.slice(..1000))
            .hold(&held)
            .send(part.slice(1000..)),
        _ => object.clone(),
    });
    let origin = Origin::start().await.on(PATH, script);
    let shield = slicing(&origin).await;
    let mut exchange = shield.begin(get(PATH).range("0-99999")).await;
    exchange.read(1000).await;
    gate.open();
    is_part(&exchange.finish().await, &body, 0, 100_000);
}

/// A part of a large file without a strong `ETag` is fetched as a part: the whole is never fetched
/// for it.
#[tokio::test]
async fn range_without_strong_etag_is_fetched_as_a_range() {
    for etag in [None, Some("W/\"1\"")] {
        let body = noise(1, LENGTH);
        let object = segment(Bytes::new()).with_ranges(body.clone());
        let object = match etag {
            Some(etag) => object.header("ETag", etag),
            None => object,
        };
        let origin = Origin::start().await.on(PATH, object);
        let shield = Shield::in_front_of(&origin)
            .with(|config| config.cache.object_bytes_max = WHOLE_MAX as u64)
            .proxy_settings(|waits| waits.uncacheable_ttl = std::time::Duration::from_millis(1))
            .start()
            .await;
        for start in [0, 100_000, 900_000] {
            let range = format!("{start}-{}", start + 99);
            let answer = shield.ask(get(PATH).range(&range)).await;
            is_part(&answer, &body, start, start + 100);
        }
        let asked = origin.requests(PATH);
        let wholes = asked.iter().filter(|asked| asked.header("range").is_none());
        assert_eq!(wholes.count(), 1, "that was to find out, and given up");
    }
}
