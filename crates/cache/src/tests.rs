//! The cache's promises: lookups are correct, and purged objects do not come back.

mod fills;
mod leaving;
mod orders;
mod purges;
mod soft_purges;
mod tags;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::*;
use seawall_policy::Lifetime;
use seawall_policy::vary::Vary;

fn key() -> Key {
    Key::of(&[b"origin", b"", b"/seg.ts"])
}

fn head() -> StoredHead {
    StoredHead {
        lifetime: Lifetime {
            fresh_for: Duration::from_mins(1),
            ..Lifetime::none(Instant::now())
        },
        ..StoredHead::plain(Kind::Segment)
    }
}

fn object(text: &'static str) -> Arc<Object> {
    Arc::new(Object::new(head(), Bytes::from_static(text.as_bytes())))
}

fn look(cache: &Cache) -> Lookup {
    look_with(cache, &HeaderMap::new())
}

fn look_with(cache: &Cache, upstream: &HeaderMap) -> Lookup {
    cache.lookup(&key(), Kind::Segment, Instant::now(), || upstream.clone())
}

fn lead(cache: &Cache, upstream: &HeaderMap) -> (Fill, Follower) {
    match cache.join(&look_with(cache, upstream), upstream) {
        JoinOutcome::Lead(fill, follower) => (fill, follower),
        _ => panic!("expected to lead"),
    }
}

/// Finishes a small fill, which completes at the first poll.
fn finish(fill: Fill) {
    let mut finished = std::pin::pin!(fill.finish());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(finished.as_mut().poll(&mut cx).is_ready());
}

fn keep_variant(fill: Fill, text: &'static str) -> StoreOutcome {
    fill.set_vary(Vary::On(vec![header::ACCEPT_ENCODING]));
    let variant = object(text);
    fill.store_and_publish(&variant, Verdict::Object(Arc::clone(&variant)))
}

fn accepting(coding: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(coding))])
}

#[derive(Default)]
struct Bell(AtomicU64);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A viewer that reads on request, and records whether it registered a waker.
struct Reader {
    follower: Follower,
    bell: Arc<Bell>,
    asleep_since: Option<u64>,
    read: Vec<u8>,
    end: Option<Result<(), BodyTruncated>>,
}

impl Reader {
    fn new(follower: Follower) -> Reader {
        Reader {
            follower,
            bell: Arc::default(),
            asleep_since: None,
            read: Vec::new(),
            end: None,
        }
    }

    fn rung(&self) -> u64 {
        self.bell.0.load(Ordering::Relaxed)
    }

    fn read(&mut self) {
        let waker = Waker::from(Arc::clone(&self.bell));
        let cx = Context::from_waker(&waker);
        while self.end.is_none() {
            match self.follower.poll_bytes(&cx) {
                Poll::Pending => {
                    self.asleep_since = Some(self.rung());
                    return;
                }
                Poll::Ready(Some(Ok(bytes))) => self.read.extend_from_slice(&bytes),
                Poll::Ready(Some(Err(cut))) => self.end = Some(Err(cut)),
                Poll::Ready(None) => self.end = Some(Ok(())),
            }
        }
        self.asleep_since = None;
    }

    fn was_woken(&self) -> bool {
        self.asleep_since.is_none_or(|rung| self.rung() > rung)
    }
}

#[test]
fn purge_during_fill_discards_its_response() {
    let cache = Cache::new(Settings::default());
    let (fill, _follower) = lead(&cache, &HeaderMap::new());
    cache.purge(&key(), Kind::Segment);
    let (next, _waiting) = lead(&cache, &HeaderMap::new());
    let old = object("old");
    assert_eq!(
        fill.store_and_publish(&old, Verdict::Object(Arc::clone(&old))),
        StoreOutcome::Purged
    );
    let new = object("new");
    assert_eq!(
        next.store_and_publish(&new, Verdict::Object(Arc::clone(&new))),
        StoreOutcome::Stored
    );
    assert_eq!(look(&cache).object.unwrap().body, "new");
}

#[test]
fn serves_only_the_matching_variant_and_purge_removes_all() {
    let cache = Cache::new(Settings::default());
    for (coding, text) in [("gzip", "coded"), ("identity", "plain")] {
        keep_variant(lead(&cache, &accepting(coding)).0, text);
    }
    let body = |coding| {
        look_with(&cache, &accepting(coding))
            .object
            .map(|o| o.body.clone())
    };
    assert_eq!(body("gzip").unwrap(), "coded");
    assert_eq!(body("identity").unwrap(), "plain");
    assert_eq!(body("br"), None);
    cache.purge(&key(), Kind::Segment);
    assert_eq!((body("gzip"), body("identity")), (None, None));
}

#[test]
fn purge_during_variant_revalidation_discards_its_result() {
    let cache = Cache::new(Settings::default());
    let vary = Vary::On(vec![header::ACCEPT_ENCODING]);
    let gzip = accepting("gzip");
    let (fill, _follower) = lead(&cache, &gzip);
    fill.set_vary(vary.clone());
    let held = object("held");
    fill.store_and_publish(&held, Verdict::Object(Arc::clone(&held)));
    let refresh = cache
        .lead(&look_with(&cache, &gzip), || gzip.clone())
        .unwrap();
    cache.purge(&key(), Kind::Segment);
    refresh.set_vary(vary);
    let stored = refresh.store_and_publish(&held, Verdict::Revalidated(Arc::clone(&held)));
    assert_eq!(stored, StoreOutcome::Purged);
    assert!(look_with(&cache, &gzip).object.is_none());
}

#[test]
fn refuses_variants_above_variants_max() {
    let cache = Cache::new(Settings {
        variants_max: 1,
        ..Settings::default()
    });
    let keep = |coding| keep_variant(lead(&cache, &accepting(coding)).0, "x");
    assert_eq!(keep("gzip"), StoreOutcome::Stored);
    assert_eq!(keep("br"), StoreOutcome::TooVaried);
    assert_eq!(cache.stats().too_varied, 1);
}

#[test]
fn request_joins_flight_of_its_own_variant_only() {
    let cache = Cache::new(Settings::default());
    let gzip = accepting("gzip");
    let (fill, _follower) = lead(&cache, &gzip);
    fill.set_vary(Vary::On(vec![header::ACCEPT_ENCODING]));
    fill.begin(Arc::new(head()));
    let lookup = look_with(&cache, &gzip);
    assert!(matches!(cache.join(&lookup, &gzip), JoinOutcome::Follow(_)));
    let other = accepting("identity");
    let lookup = look_with(&cache, &other);
    assert!(matches!(cache.join(&lookup, &other), JoinOutcome::Lead(..)));
}

#[test]
fn refuses_followers_above_waiters_max() {
    let cache = Cache::new(Settings {
        waiters_max: 1,
        ..Settings::default()
    });
    let (_fill, _follower) = lead(&cache, &HeaderMap::new());
    let joined = cache.join(&look(&cache), &HeaderMap::new());
    assert!(matches!(joined, JoinOutcome::Crowded));
    assert_eq!(cache.stats().crowded, 1);
}

#[test]
fn does_not_join_flight_from_before_purge_under_new_vary_marker() {
    let cache = Cache::new(Settings::default());
    let vary = Vary::On(vec![header::ACCEPT_ENCODING]);
    let (gzip, plain) = (accepting("gzip"), accepting("identity"));
    keep_variant(lead(&cache, &plain).0, "x");
    let (before, _waiting) = lead(&cache, &gzip);
    cache.purge(&key(), Kind::Segment);
    keep_variant(lead(&cache, &plain).0, "x");
    before.set_vary(vary.clone());
    before.begin(Arc::new(head()));
    let lookup = look_with(&cache, &gzip);
    assert!(matches!(cache.join(&lookup, &gzip), JoinOutcome::Lead(..)));
}

#[test]
fn evicted_variant_frees_room_below_variants_max() {
    let cache = Cache::new(Settings {
        variants_max: 1,
        ..Settings::default()
    });
    let keep = |coding| keep_variant(lead(&cache, &accepting(coding)).0, "x");
    assert_eq!(keep("gzip"), StoreOutcome::Stored);
    let lookup = look_with(&cache, &accepting("gzip"));
    cache.inner.store.remove(&lookup.slot, Kind::Segment);
    assert_eq!(keep("br"), StoreOutcome::Stored);
}

#[test]
fn found_variant_is_gone_when_its_marker_is_replaced() {
    let cache = Cache::new(Settings::default());
    let (gzip, plain) = (accepting("gzip"), accepting("identity"));
    keep_variant(lead(&cache, &gzip).0, "x");
    let found = cache.found_object(&look_with(&cache, &gzip), Instant::now());
    let found = found.expect("it is stored");
    keep_variant(lead(&cache, &plain).0, "x");
    assert!(found.is_still_stored(), "it is beside the new variant");
    let (fill, _follower) = lead(&cache, &accepting("br"));
    fill.set_vary(Vary::On(vec![header::ACCEPT_LANGUAGE]));
    assert!(look_with(&cache, &gzip).object.is_none());
    assert!(!found.is_still_stored());
}

#[test]
fn next_request_leads_after_fill_is_dropped() {
    let cache = Cache::new(Settings::default());
    let (fill, _follower) = lead(&cache, &HeaderMap::new());
    drop(fill);
    lead(&cache, &HeaderMap::new());
}

#[test]
fn a_memo_about_what_was_purged_is_not_written() {
    let cache = Cache::new(Settings::default());
    let (fill, _follower) = lead(&cache, &HeaderMap::new());
    cache.purge(&key(), Kind::Segment);
    let now = Instant::now();
    fill.write_memo(ExpiringMemo {
        until: now + Duration::from_mins(1),
        memo: KeyMemo::Pass,
    });
    assert!(cache.memo(&key(), now).is_none());
}

#[test]
fn dropped_follower_releases_its_waker() {
    let cache = Cache::new(Settings::default());
    let (_fill, follower) = lead(&cache, &HeaderMap::new());
    let mut reader = Reader::new(follower);
    reader.read();
    let bell = Arc::downgrade(&reader.bell);
    drop(reader);
    assert!(bell.upgrade().is_none());
}

#[test]
fn shared_head_lines_omit_x_request_id() {
    let mut headers = HeaderMap::new();
    for (name, value) in [("a", "1"), ("x-request-id", "theirs"), ("a", "2")] {
        headers.append(name, HeaderValue::from_static(value));
    }
    let headers = headers.into();
    let object = Object::new(StoredHead { headers, ..head() }, Bytes::new());
    assert_eq!(
        object.head.headers.shared(&HeaderMap::new()),
        b"a: 1\r\na: 2\r\n"
    );
}

#[test]
fn the_end_of_a_directorys_epoch_drops_what_belongs_to_it_and_what_is_on_its_way() {
    let cache = Cache::new(Settings::default());
    let directory = Key::of(&[b"directory"]);
    let file = |name: &str, epoch_token: Option<EpochToken>| {
        let lookup = cache.lookup(
            &Key::of(&[name.as_bytes()]),
            Kind::Segment,
            Instant::now(),
            HeaderMap::new,
        );
        let fill = cache
            .lead(&lookup, HeaderMap::new)
            .expect("no fill is in progress");
        let object = Arc::new(Object::new(
            StoredHead {
                epoch_token,
                ..head()
            },
            Bytes::from_static(b"x"),
        ));
        fill.store_and_publish(&object, Verdict::Object(Arc::clone(&object)));
    };
    let held = |name: &str| {
        let lookup = cache.lookup(
            &Key::of(&[name.as_bytes()]),
            Kind::Segment,
            Instant::now(),
            HeaderMap::new,
        );
        lookup.object.is_some()
    };
    file("old", Some(cache.bind_epoch(Some(&directory), None)));
    file("free", None);
    let on_its_way = cache.bind_epoch(Some(&directory), None);
    assert!(held("old") && held("free"));
    cache.end_epoch(&directory);
    file("late", Some(on_its_way));
    assert!(!held("old") && !held("late") && held("free"));
    file("old", Some(cache.bind_epoch(Some(&directory), None)));
    assert!(held("old"));
}

#[test]
fn request_after_epoch_end_does_not_join_the_older_flight() {
    let cache = Cache::new(Settings::default());
    let directory = Key::of(&[b"directory"]);
    let lookup = || {
        cache.lookup(
            &Key::of(&[b"segment"]),
            Kind::Segment,
            Instant::now(),
            HeaderMap::new,
        )
    };
    let join = || cache.join(&lookup(), &HeaderMap::new());
    let JoinOutcome::Lead(before, _first) = join() else {
        panic!("no fill is in progress");
    };
    before.set_epoch(&cache.bind_epoch(Some(&directory), None));
    assert!(matches!(join(), JoinOutcome::Follow(_)));
    cache.end_epoch(&directory);
    let JoinOutcome::Lead(after, _second) = join() else {
        panic!("what was asked for before is of no use");
    };
    after.set_epoch(&cache.bind_epoch(Some(&directory), None));
    drop(before);
    assert!(
        matches!(join(), JoinOutcome::Follow(_)),
        "it has its own epoch"
    );
    assert!(cache.lead(&lookup(), HeaderMap::new).is_none());
}

#[test]
fn playlist_with_epoch_is_kept_only_while_usable() {
    let cache = Cache::new(Settings::default());
    let retention = |kind, epoch_token| {
        Object::new(
            StoredHead {
                kind,
                epoch_token,
                ..head()
            },
            Bytes::new(),
        )
        .retention()
    };
    let epoch_token = || Some(cache.bind_epoch(Some(&Key::of(&[b"states"])), None));
    let usable = head().lifetime.usable_for();
    assert_eq!(retention(Kind::Hls, epoch_token()), usable);
    assert!(
        retention(Kind::Hls, None) > usable && retention(Kind::Segment, epoch_token()) > usable
    );
}

/// A fill asks whether there is room before it stores.
#[test]
fn estimated_weight_is_still_charged_when_stored() {
    let stored_bytes = |estimates: usize| {
        let cache = Cache::new(Settings::default());
        let (fill, _follower) = lead(&cache, &HeaderMap::new());
        let mut head = head();
        head.epoch_token = Some(cache.bind_epoch(Some(&Key::of(&[b"/live/"])), None));
        let object = Arc::new(Object::new(head, Bytes::from_static(b"media")));
        for _ in 0..estimates {
            assert!(fill.has_room_for(&object) && fill.will_have_room(&object.head, 5));
        }
        fill.store_and_publish(&object, Verdict::Object(Arc::clone(&object)));
        cache.stats().bytes
    };
    assert_eq!(stored_bytes(1), stored_bytes(0));
}
