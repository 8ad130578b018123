//! Purged objects do not come back, not even for requests that found them before.

use super::*;

fn keep(cache: &Cache) -> Arc<Object> {
    let (fill, _follower) = lead(cache, &HeaderMap::new());
    let held = object("old");
    fill.store_and_publish(&held, Verdict::Object(Arc::clone(&held)));
    held
}

fn keep_coded(cache: &Cache) {
    keep_variant(lead(cache, &accepting("gzip")).0, "old");
}

/// Stores an object that is bound to the directory's epoch, and begins its refresh.
fn refresh_of_bound(cache: &Cache, directory: &Key) -> (Arc<Object>, Fill) {
    let bound = StoredHead {
        epoch_token: Some(cache.bind_epoch(Some(directory), None)),
        ..head()
    };
    let held = Arc::new(Object::new(bound, Bytes::from_static(b"old")));
    let (fill, _follower) = lead(cache, &HeaderMap::new());
    fill.store_and_publish(&held, Verdict::Object(Arc::clone(&held)));
    let refresh = cache.lead(&look(cache), HeaderMap::new).unwrap();
    (held, refresh)
}

/// Evicts the object, as when memory is short.
fn evict(cache: &Cache) {
    let gone = cache.inner.store.remove(&key(), Kind::Segment);
    assert_eq!(gone.len(), 1);
}

/// A purge of a path prefix, which removes objects while it walks the store.
#[test]
fn revalidation_started_during_purge_walk_is_discarded() {
    let cache = Cache::new(Settings::default());
    let held = keep(&cache);
    let mut purge = cache.purging(PurgeMode::Hard);
    purge.all(|matching| *matching == key(), |_| false);
    let lookup = look(&cache);
    let refresh = cache.lead(&lookup, HeaderMap::new).expect("it is held");
    assert_eq!(purge.finish().objects, 1);
    let stored = refresh.store_and_publish(&held, Verdict::Revalidated(Arc::clone(&held)));
    assert_eq!(stored, StoreOutcome::Purged);
    assert!(look(&cache).object.is_none());
}

/// The object is evicted in between, so the walk does not find it.
#[test]
fn refresh_of_object_evicted_during_purge_walk_is_discarded() {
    for is_confirmed in [true, false] {
        for ends_first in [true, false] {
            let cache = Cache::new(Settings::default());
            let held = keep(&cache);
            let mut purge = cache.purging(PurgeMode::Hard);
            purge.all(|matching| *matching == key(), |_| false);
            let refresh = cache.lead(&look(&cache), HeaderMap::new).unwrap();
            evict(&cache);
            let mut ended = None;
            let mut end = |refresh: Fill| {
                let verdict = if is_confirmed {
                    Verdict::Revalidated(Arc::clone(&held))
                } else {
                    Verdict::Object(Arc::clone(&held))
                };
                ended = Some(refresh.store_and_publish(&held, verdict));
            };
            if ends_first {
                end(refresh);
                assert_eq!(purge.finish().objects, 0);
            } else {
                assert_eq!(purge.finish().objects, 0);
                // Requests after the purge do not get its result either.
                let (_fill, _follower) = lead(&cache, &HeaderMap::new());
                end(refresh);
            }
            assert_eq!(ended, Some(StoreOutcome::Purged));
            assert!(look(&cache).object.is_none());
        }
    }
}

/// The matcher is dropped together with its purge.
#[test]
fn refresh_started_after_purge_is_stored() {
    let purges: [fn(CachePurge); 2] = [|purge| assert_eq!(purge.finish().objects, 0), drop];
    for end in purges {
        let cache = Cache::new(Settings::default());
        let mut purge = cache.purging(PurgeMode::Hard);
        purge.all(|matching| *matching == key(), |_| false);
        end(purge);
        let held = keep(&cache);
        let refresh = cache.lead(&look(&cache), HeaderMap::new).unwrap();
        let verdict = Verdict::Revalidated(Arc::clone(&held));
        assert_eq!(
            refresh.store_and_publish(&held, verdict),
            StoreOutcome::Stored
        );
    }
}

/// A refresh belongs to its object's directory from the start, not only after it was bound to an
/// epoch.
#[test]
fn refresh_of_dropped_directory_is_joined_by_no_request() {
    let directory = Key::of(&[b"directory"]);
    for ends_before_binding in [true, false] {
        let cache = Cache::new(Settings::default());
        let (held, refresh) = refresh_of_bound(&cache, &directory);
        if ends_before_binding {
            cache.end_epoch(&directory);
            refresh.set_epoch(&cache.bind_epoch(Some(&directory), None));
        } else {
            refresh.set_epoch(&cache.bind_epoch(Some(&directory), None));
            cache.end_epoch(&directory);
        }
        let (_fill, _follower) = lead(&cache, &HeaderMap::new());
        let verdict = Verdict::Revalidated(Arc::clone(&held));
        assert_eq!(
            refresh.store_and_publish(&held, verdict),
            StoreOutcome::Purged
        );
        assert!(look(&cache).object.is_none());
    }
}

/// A second fill has replaced the refresh, because a restart ended the epoch of the refreshed
/// object. The purge finds only the second fill.
#[test]
fn purge_discards_refresh_already_replaced_by_second_fill() {
    let directory = Key::of(&[b"directory"]);
    for is_prefix in [true, false] {
        let cache = Cache::new(Settings::default());
        let (_held, refresh) = refresh_of_bound(&cache, &directory);
        cache.end_epoch(&directory);
        let (_fill, _follower) = lead(&cache, &HeaderMap::new());
        if is_prefix {
            let mut purge = cache.purging(PurgeMode::Hard);
            purge.all(|matching| *matching == key(), |_| false);
            purge.finish();
        } else {
            cache.purge(&key(), Kind::Segment);
        }
        let brought = object("of before the purge");
        let stored = refresh.store_and_publish(&brought, Verdict::Object(Arc::clone(&brought)));
        assert_eq!(stored, StoreOutcome::Purged);
        assert!(look(&cache).object.is_none());
    }
}

#[test]
fn object_revalidated_during_purge_walk_is_purged() {
    let cache = Cache::new(Settings::default());
    let held = keep(&cache);
    let mut purge = cache.purging(PurgeMode::Hard);
    purge.all(|matching| *matching == key(), |_| false);
    let refresh = cache.lead(&look(&cache), HeaderMap::new).unwrap();
    refresh.store_and_publish(&held, Verdict::Revalidated(Arc::clone(&held)));
    purge.finish();
    assert!(look(&cache).object.is_none());
}

/// A new request does not belong to anything purged.
#[test]
fn new_fill_during_purge_walk_is_stored() {
    let cache = Cache::new(Settings::default());
    let mut purge = cache.purging(PurgeMode::Hard);
    purge.all(|matching| *matching == key(), |_| false);
    let (fill, _follower) = lead(&cache, &HeaderMap::new());
    purge.finish();
    let new = object("new");
    let stored = fill.store_and_publish(&new, Verdict::Object(Arc::clone(&new)));
    assert_eq!(stored, StoreOutcome::Stored);
}

#[test]
fn no_fill_starts_from_object_purged_after_lookup() {
    let gzip = accepting("gzip");
    let directory = Key::of(&[b"directory"]);
    let purges: [fn(&Cache); 2] = [
        |cache| cache.purge(&key(), Kind::Segment),
        |cache| {
            let mut purge = cache.purging(PurgeMode::Hard);
            purge.all(|matching| *matching == key(), |_| false);
            purge.finish();
        },
    ];
    for purge in purges {
        for coded in [false, true] {
            let cache = Cache::new(Settings::default());
            let upstream = if coded { &gzip } else { &HeaderMap::new() };
            if coded {
                keep_coded(&cache);
            } else {
                keep(&cache);
            }
            let lookup = look_with(&cache, upstream);
            assert!(lookup.object.is_some());
            purge(&cache);
            assert!(cache.lead(&lookup, || upstream.clone()).is_none());
            assert!(matches!(cache.join(&lookup, upstream), JoinOutcome::Retry));
            // A new lookup finds nothing, and its fill starts without an object.
            let (fill, _follower) = lead(&cache, upstream);
            assert!(fill.lookup().object.is_none());
        }
    }
    // The same when all objects of a directory are dropped in one step.
    let cache = Cache::new(Settings::default());
    let bound = StoredHead {
        epoch_token: Some(cache.bind_epoch(Some(&directory), None)),
        ..head()
    };
    let bound = Arc::new(Object::new(bound, Bytes::from_static(b"old")));
    let (fill, _follower) = lead(&cache, &HeaderMap::new());
    fill.store_and_publish(&bound, Verdict::Object(Arc::clone(&bound)));
    let lookup = look(&cache);
    assert!(lookup.object.is_some());
    cache.end_epoch(&directory);
    assert!(cache.lead(&lookup, HeaderMap::new).is_none());
    assert!(matches!(
        cache.join(&lookup, &HeaderMap::new()),
        JoinOutcome::Retry
    ));
}
