//! A soft purge leaves nothing fresh, whatever was in progress, and drops what may not be stale.

use super::*;
use seawall_policy::freshness::{Freshness, freshness};
use seawall_policy::lifetime::Rule;

/// A head that may be served stale.
fn lasting() -> StoredHead {
    let mut head = head();
    head.lifetime.stale_while_revalidate = Duration::from_mins(1);
    head
}

fn keep(cache: &Cache, head: StoredHead) -> Arc<Object> {
    let held = Arc::new(Object::new(head, Bytes::from_static(b"old")));
    let (fill, _follower) = lead(cache, &HeaderMap::new());
    let outcome = fill.store_and_publish(&held, Verdict::Object(Arc::clone(&held)));
    assert_eq!(outcome, StoreOutcome::Stored);
    held
}

fn bound(cache: &Cache, directory: &Key) -> StoredHead {
    StoredHead {
        epoch_token: Some(cache.bind_epoch(Some(directory), None)),
        ..lasting()
    }
}

fn stored_freshness(cache: &Cache) -> Option<Freshness> {
    let object = look(cache).object?;
    Some(freshness(&object.head.lifetime, Instant::now()))
}

/// The ways to purge the one object of these tests.
fn purges() -> [fn(&mut CachePurge); 3] {
    [
        |purge| purge.key(&key(), Kind::Segment),
        |purge| purge.epoch(&Key::of(&[b"directory"])),
        |purge| purge.all(|matching| *matching == key(), |_| false),
    ]
}

fn soft_purge(cache: &Cache, select: fn(&mut CachePurge)) -> u64 {
    let mut purge = cache.purging(PurgeMode::Soft);
    select(&mut purge);
    purge.finish().objects
}

#[test]
fn purged_object_is_stale_and_keeps_its_place_in_memory() {
    for select in purges() {
        let cache = Cache::new(Settings::default());
        let held = keep(&cache, bound(&cache, &Key::of(&[b"directory"])));
        let (found, stats) = (look(&cache), cache.stats());
        let found = cache.found_object(&found, Instant::now()).unwrap();
        assert!(found.is_still_stored());
        assert_eq!(soft_purge(&cache, select), 1);
        assert_eq!(stored_freshness(&cache), Some(Freshness::Stale));
        assert!(!found.is_still_stored());
        let after = look(&cache).object.unwrap();
        assert_eq!(after.body, held.body);
        assert!(after.head.is_valid() && after.head.lifetime.rule == Rule::SoftPurge);
        assert_eq!(cache.stats(), stats);
        assert_eq!(soft_purge(&cache, select), 1, "it is stored still");
    }
}

#[test]
fn what_may_not_be_served_stale_is_dropped() {
    for select in purges() {
        let cache = Cache::new(Settings::default());
        let mut strict = bound(&cache, &Key::of(&[b"directory"]));
        strict.lifetime.stale_while_revalidate = Duration::ZERO;
        keep(&cache, strict);
        assert_eq!(soft_purge(&cache, select), 1);
        assert!(look(&cache).object.is_none());
        assert_eq!(cache.stats().objects, 0);
    }
}

/// The first step alone must do: a lookup may come before the walk.
#[test]
fn lookup_before_the_walk_finds_a_stale_object_that_counts_once() {
    let cache = Cache::new(Settings::default());
    let directory = Key::of(&[b"directory"]);
    keep(&cache, bound(&cache, &directory));
    let mut purge = cache.purging(PurgeMode::Soft);
    purge.epoch(&directory);
    assert_eq!(stored_freshness(&cache), Some(Freshness::Stale));
    let stale = look(&cache).object.unwrap();
    assert_eq!(purge.finish().objects, 1);
    assert!(Arc::ptr_eq(&stale, &look(&cache).object.unwrap()));
}

#[test]
fn fill_in_flight_is_stored_as_stale_and_joined_by_no_request() {
    for select in purges() {
        let cache = Cache::new(Settings::default());
        let directory = Key::of(&[b"directory"]);
        let (fill, _follower) = lead(&cache, &HeaderMap::new());
        let head = bound(&cache, &directory);
        fill.set_epoch(head.epoch_token.as_ref().unwrap());
        soft_purge(&cache, select);
        assert!(!cache.is_being_filled(&look(&cache)));
        assert!(cache.awaited_fill(&look(&cache)).is_none());
        let object = Arc::new(Object::new(head, Bytes::from_static(b"old")));
        let outcome = fill.store_and_publish(&object, Verdict::Object(Arc::clone(&object)));
        assert_eq!(outcome, StoreOutcome::Stored);
        assert_eq!(stored_freshness(&cache), Some(Freshness::Stale));
    }
}

#[test]
fn fill_from_before_the_purge_does_not_replace_the_result_of_one_after_it() {
    for select in purges() {
        let cache = Cache::new(Settings::default());
        let directory = Key::of(&[b"directory"]);
        let (before, _follower) = lead(&cache, &HeaderMap::new());
        let head = bound(&cache, &directory);
        before.set_epoch(head.epoch_token.as_ref().unwrap());
        soft_purge(&cache, select);
        let new = keep(&cache, bound(&cache, &directory));
        let old = Arc::new(Object::new(head, Bytes::from_static(b"older")));
        let outcome = before.store_and_publish(&old, Verdict::Object(Arc::clone(&old)));
        assert_eq!(outcome, StoreOutcome::Purged);
        assert!(Arc::ptr_eq(&look(&cache).object.unwrap(), &new));
        assert_eq!(stored_freshness(&cache), Some(Freshness::Fresh));
    }
}

/// A variant's fill in progress, of request headers that no stored variant has.
#[test]
fn fill_of_a_new_variant_is_stored_as_stale() {
    let cache = Cache::new(Settings::default());
    let varied = |fill: Fill| {
        fill.set_vary(Vary::On(vec![header::ACCEPT_ENCODING]));
        let variant = Arc::new(Object::new(lasting(), Bytes::from_static(b"x")));
        fill.store_and_publish(&variant, Verdict::Object(Arc::clone(&variant)))
    };
    varied(lead(&cache, &accepting("gzip")).0);
    let (fill, _follower) = lead(&cache, &accepting("br"));
    assert_eq!(soft_purge(&cache, purges()[0]), 1);
    varied(fill);
    for coding in ["gzip", "br"] {
        let found = look_with(&cache, &accepting(coding)).object.unwrap();
        let freshness = freshness(&found.head.lifetime, Instant::now());
        assert_eq!(freshness, Freshness::Stale, "{coding}");
    }
}

/// The origin confirms the object: it is fresh again, if it was asked after the purge.
#[test]
fn revalidation_makes_it_fresh_only_if_it_began_after_the_purge() {
    for select in purges() {
        for begins_before in [true, false] {
            let cache = Cache::new(Settings::default());
            let directory = Key::of(&[b"directory"]);
            keep(&cache, bound(&cache, &directory));
            let refresh = || cache.lead(&look(&cache), HeaderMap::new);
            let before = refresh().filter(|_| begins_before);
            soft_purge(&cache, select);
            let fill = before.unwrap_or_else(|| refresh().expect("no current fill"));
            let stored = fill.lookup().object.clone().unwrap();
            let confirmed = Arc::new(stored.with_head(StoredHead {
                epoch_token: stored.head.epoch_token.clone(),
                ..lasting()
            }));
            let verdict = Verdict::Revalidated(Arc::clone(&confirmed));
            assert_eq!(
                fill.store_and_publish(&confirmed, verdict),
                StoreOutcome::Stored
            );
            let expected = if begins_before {
                Freshness::Stale
            } else {
                Freshness::Fresh
            };
            assert_eq!(stored_freshness(&cache), Some(expected));
        }
    }
}

#[test]
fn hard_purge_drops_and_counts_what_a_soft_one_is_making_stale() {
    for looks_up in [true, false] {
        let cache = Cache::new(Settings::default());
        let directory = Key::of(&[b"directory"]);
        keep(&cache, bound(&cache, &directory));
        let mut soft = cache.purging(PurgeMode::Soft);
        soft.epoch(&directory);
        if looks_up {
            assert!(look(&cache).object.is_some());
        }
        let mut hard = cache.purging(PurgeMode::Hard);
        hard.epoch(&directory);
        assert!(look(&cache).object.is_none());
        assert_eq!(soft.finish().objects, 0);
        assert!(look(&cache).object.is_none());
        assert_eq!(hard.finish().objects, 1);
        assert_eq!(cache.stats().objects, 0);
    }
}

/// What was requested after the purge began is not stale when the walk finds it.
#[test]
fn object_of_a_later_request_stays_fresh() {
    let cache = Cache::new(Settings::default());
    let mut purge = cache.purging(PurgeMode::Soft);
    purge.all(|matching| *matching == key(), |_| false);
    keep(&cache, lasting());
    assert_eq!(purge.finish().objects, 0);
    assert_eq!(stored_freshness(&cache), Some(Freshness::Fresh));
}

/// The key of a slice has the `ETag` that the origin must confirm for the whole object.
#[test]
fn slices_stay_as_they_are() {
    let cache = Cache::new(Settings::default());
    let directory = Key::of(&[b"directory"]);
    let token = cache.bind_epoch(Some(&directory), None);
    let whole = cache.bind_slices(&key());
    keep(
        &cache,
        StoredHead {
            epoch_token: Some(token.of_slice(&whole)),
            ..head()
        },
    );
    assert_eq!(soft_purge(&cache, purges()[1]), 1);
    assert_eq!(stored_freshness(&cache), Some(Freshness::Fresh));
    assert!(look(&cache).object.unwrap().head.is_valid());
}
