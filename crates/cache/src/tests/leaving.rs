//! For every way in which a body leaves the store: it counts as pinned while a slow viewer reads
//! it, and only then.

use std::sync::Weak;

use super::*;

const BODY: usize = 100 << 10;

struct Idle;

impl BodyConsumer for Idle {
    fn bytes_taken(&self) -> u64 {
        0
    }
}

fn slowly(body: &Arc<SharedBody>) -> SlowReader {
    let viewer: Weak<dyn BodyConsumer> = Weak::<Idle>::new();
    body.register_slow_reader(viewer, Waker::noop(), Instant::now())
}

fn push(fill: &Fill, bytes: usize) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut push = std::pin::pin!(fill.push(Bytes::from(vec![7; bytes])));
    assert!(push.as_mut().poll(&mut cx).is_ready());
}

/// A fill brings a body with this lifetime; a viewer that followed it continues to read slowly.
fn fetched(cache: &Cache, fresh_for: Duration) -> (Follower, SlowReader) {
    let mut head = head();
    head.lifetime.fresh_for = fresh_for;
    let fill = cache
        .lead(&look(cache), HeaderMap::new)
        .expect("no other request leads");
    let mut follower = fill.follower();
    fill.begin(Arc::new(head));
    push(&fill, BODY);
    let reader = slowly(&follower.take_new_body().expect("it reads from here on"));
    assert!(follower.take_new_body().is_none(), "told once");
    assert_eq!(
        cache.stats().pinned_bytes,
        0,
        "fills are counted by themselves"
    );
    finish(fill);
    (follower, reader)
}

fn pinned(cache: &Cache) -> u64 {
    let stats = cache.stats();
    assert_eq!(stats.fill_bytes, 0);
    stats.pinned_bytes
}

#[test]
fn purged_body_counts_as_pinned_while_it_is_read() {
    let cache = Cache::new(Settings::default());
    let reader = fetched(&cache, Duration::from_mins(1));
    let object = look(&cache).object.expect("stored");
    let second = slowly(object.shared_body().unwrap());
    assert_eq!(pinned(&cache), 0);
    cache.purge(&key(), Kind::Segment);
    assert_eq!(pinned(&cache), BODY as u64);
    drop(reader);
    assert_eq!(pinned(&cache), BODY as u64, "once for both");
    drop(second);
    assert_eq!(pinned(&cache), 0);
}

#[test]
fn body_purged_during_fill_counts_as_pinned() {
    let cache = Cache::new(Settings::default());
    let (fill, mut follower) = lead(&cache, &HeaderMap::new());
    fill.begin(Arc::new(head()));
    push(&fill, BODY);
    let reader = slowly(&follower.take_new_body().unwrap());
    cache.purge(&key(), Kind::Segment);
    finish(fill);
    assert_eq!(pinned(&cache), BODY as u64);
    drop(reader);
    assert_eq!(pinned(&cache), 0);
}

#[test]
fn replaced_body_counts_as_pinned() {
    let cache = Cache::new(Settings::default());
    let _old = fetched(&cache, Duration::from_mins(1));
    assert_eq!(pinned(&cache), 0);
    let _new = fetched(&cache, Duration::from_mins(1));
    assert_eq!(pinned(&cache), BODY as u64);
}

#[test]
fn revalidated_body_counts_as_pinned_only_after_purge() {
    let cache = Cache::new(Settings::default());
    let _reader = fetched(&cache, Duration::from_mins(1));
    let held = look(&cache).object.unwrap();
    let confirmed = Arc::new(held.with_head(head()));
    let fill = cache.lead(&look(&cache), HeaderMap::new).unwrap();
    let verdict = Verdict::Revalidated(Arc::clone(&confirmed));
    assert_eq!(
        fill.store_and_publish(&confirmed, verdict),
        StoreOutcome::Stored
    );
    drop(held);
    assert_eq!(pinned(&cache), 0);
    cache.purge(&key(), Kind::Segment);
    assert_eq!(pinned(&cache), BODY as u64);
}

#[test]
fn evicted_body_counts_as_pinned() {
    let cache = Cache::new(Settings {
        memory_bytes: 4 * BODY as u64,
        ..Settings::default()
    });
    let _reader = fetched(&cache, Duration::from_mins(1));
    for number in 0..10_u8 {
        let key = Key::of(&[&[number]]);
        let lookup = cache.lookup(&key, Kind::Segment, Instant::now(), HeaderMap::new);
        let other = Arc::new(Object::new(head(), Bytes::from(vec![7; BODY])));
        let fill = cache.lead(&lookup, HeaderMap::new).unwrap();
        fill.store_and_publish(&other, Verdict::Object(Arc::clone(&other)));
    }
    assert!(look(&cache).object.is_none());
    assert_eq!(pinned(&cache), BODY as u64);
}

#[test]
fn body_too_large_to_store_counts_as_pinned() {
    let cache = Cache::new(Settings {
        memory_bytes: BODY as u64 / 2,
        ..Settings::default()
    });
    let _reader = fetched(&cache, Duration::from_mins(1));
    assert_eq!(pinned(&cache), BODY as u64);
}

/// Counts the unread part of a body that was never held whole.
#[test]
fn windowed_body_counts_its_unread_bytes_as_pinned() {
    let cache = Cache::new(Settings {
        object_bytes_max: 1000,
        ..Settings::default()
    });
    let (fill, mut slow) = lead(&cache, &HeaderMap::new());
    let mut fast = Reader::new(fill.follower());
    fill.begin(Arc::new(head()));
    let reader = slowly(&slow.take_new_body().unwrap());
    for _ in 0..10 {
        push(&fill, 20_000);
        fast.read();
    }
    assert_eq!(cache.stats().pinned_bytes, 0);
    finish(fill);
    assert_eq!(pinned(&cache), 200_000);
    drop(reader);
    assert_eq!(pinned(&cache), 0);
}
