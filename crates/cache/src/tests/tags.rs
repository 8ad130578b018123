//! A purge of a tag drops the objects that have it and no other, whatever the order of events.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn tag(number: u8) -> Key {
    Key::of(&[b"tag", &[number]])
}

fn tag_keys(tags: &BTreeSet<u8>) -> TagKeys {
    TagKeys {
        keys: tags.iter().map(|number| tag(*number)).collect(),
        overflow: Key::of(&[b"overflow"]),
    }
}

fn object_key(number: u8) -> Key {
    Key::of(&[b"object", &[number]])
}

fn look_up(cache: &Cache, number: u8) -> Lookup {
    cache.lookup(
        &object_key(number),
        Kind::Segment,
        Instant::now(),
        HeaderMap::new,
    )
}

/// Binds the fill to the tags and stores an object of this generation.
fn end(fill: Fill, tags: &BTreeSet<u8>, generation: usize) {
    let token = (!tags.is_empty()).then(|| fill.bind_tags(None, &tag_keys(tags)));
    let head = StoredHead {
        epoch_token: token,
        ..head()
    };
    let body = Bytes::from(generation.to_string());
    let object = Arc::new(Object::new(head, body));
    fill.store_and_publish(&object, Verdict::Object(Arc::clone(&object)));
}

fn purge(cache: &Cache, number: u8) -> u64 {
    let mut purge = cache.purging(PurgeMode::Hard);
    purge.tag(&tag(number));
    purge.finish().objects
}

#[derive(Clone, Debug)]
enum Step {
    Begin(u8),
    End(u8, BTreeSet<u8>),
    Purge(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let tags = proptest::collection::btree_set(0..4_u8, 0..3);
    prop_oneof![
        2 => (0..6_u8).prop_map(Step::Begin),
        2 => (0..6_u8, tags).prop_map(|(object, tags)| Step::End(object, tags)),
        1 => (0..4_u8).prop_map(Step::Purge),
    ]
}

proptest! {
    #[test]
    fn matches_a_model_after_random_steps(steps in proptest::collection::vec(step(), 1..80)) {
        let cache = Cache::new(Settings::default());
        let mut stored: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
        // The fills in progress, with the tags that were purged since each began.
        let mut fills: BTreeMap<u8, (Fill, BTreeSet<u8>)> = BTreeMap::new();
        for (generation, step) in steps.into_iter().enumerate() {
            match step {
                Step::Begin(object) => {
                    if !fills.contains_key(&object)
                        && let Some(fill) = cache.lead(&look_up(&cache, object), HeaderMap::new)
                    {
                        fills.insert(object, (fill, BTreeSet::new()));
                    }
                }
                Step::End(object, tags) => {
                    if let Some((fill, purged)) = fills.remove(&object) {
                        let is_purged = !tags.is_disjoint(&purged);
                        end(fill, &tags, generation);
                        if !is_purged {
                            stored.insert(object, tags);
                        }
                    }
                }
                Step::Purge(number) => {
                    let before = stored.len();
                    stored.retain(|_, tags| !tags.contains(&number));
                    let gone = before - stored.len();
                    prop_assert_eq!(purge(&cache, number), gone as u64);
                    for (_, purged) in fills.values_mut() {
                        purged.insert(number);
                    }
                }
            }
            for object in 0..6 {
                let found = look_up(&cache, object).object.is_some();
                prop_assert_eq!(found, stored.contains_key(&object), "{}", object);
            }
        }
        drop(fills);
        let mut purge = cache.purging(PurgeMode::Hard);
        purge.all(|_| true, |_| true);
        purge.finish();
        prop_assert!(cache.stats().tags <= 4, "only the purged ones are remembered");
    }
}

/// Viewers request an object while it is fetched and its tag purged, on several threads. Whoever
/// asks after a purge has returned gets what was requested from the origin after that purge began.
#[test]
fn viewer_after_the_answer_never_gets_old_bytes() {
    use std::sync::atomic::AtomicUsize;
    const FILLS: usize = 1000;
    let cache = Cache::new(Settings::default());
    // The origin's current version, and the least that a viewer may get.
    let (version, least) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let fills = AtomicUsize::new(0);
    let tags = BTreeSet::from([1]);
    let read = |body: &Bytes| str::from_utf8(body).unwrap().parse::<usize>().unwrap();
    let check = |object: &Object, least: usize| assert!(read(&object.body) >= least);
    let view = |seed: u64| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.build().unwrap();
        while fills.load(Ordering::Relaxed) < FILLS {
            let least = least.load(Ordering::SeqCst);
            let lookup = look_up(&cache, 0);
            if let Some(object) = &lookup.object {
                check(object, least);
                continue;
            }
            match cache.join(&lookup, &HeaderMap::new()) {
                JoinOutcome::Stored(object) => check(&object, least),
                JoinOutcome::Lead(fill, _follower) => {
                    // The request reaches the origin, and its response takes a while.
                    let fetched = version.load(Ordering::SeqCst);
                    (0..rng.usize(0..20)).for_each(|_| std::thread::yield_now());
                    end(fill, &tags, fetched);
                    fills.fetch_add(1, Ordering::Relaxed);
                }
                JoinOutcome::Follow(mut follower) => {
                    let ended = runtime.block_on(follower.wait_for_head());
                    if let FillHead::Settled(Verdict::Object(object)) = ended
                        && !follower.has_joined_after_purge()
                    {
                        check(&object, least);
                    }
                }
                JoinOutcome::Retry | JoinOutcome::Crowded => {}
            }
        }
    };
    let edit = || {
        let mut rng = fastrand::Rng::with_seed(0);
        while fills.load(Ordering::Relaxed) < FILLS {
            let new = version.fetch_add(1, Ordering::SeqCst) + 1;
            purge(&cache, 1);
            least.store(new, Ordering::SeqCst);
            (0..rng.usize(0..40)).for_each(|_| std::thread::yield_now());
        }
    };
    std::thread::scope(|scope| {
        for seed in 1..4 {
            scope.spawn(move || view(seed));
        }
        scope.spawn(edit);
    });
}

#[test]
fn viewer_between_two_purges_does_not_share_a_fill_from_before_both() {
    let cache = Cache::new(Settings::default());
    let lookup = look_up(&cache, 0);
    let JoinOutcome::Lead(fill, leader) = cache.join(&lookup, &HeaderMap::new()) else {
        panic!("nothing is in progress")
    };
    let join = || match cache.join(&lookup, &HeaderMap::new()) {
        JoinOutcome::Follow(follower) => follower,
        _ => panic!("the fill is in progress"),
    };
    let before = join();
    purge(&cache, 1);
    let between = join();
    purge(&cache, 1);
    let after = join();
    end(fill, &BTreeSet::from([1]), 0);
    let joined_after = [&leader, &before, &between, &after].map(Follower::has_joined_after_purge);
    assert_eq!(joined_after, [false, false, true, true]);
}

#[test]
fn fill_older_than_all_remembered_purges_counts_as_purged() {
    let cache = Cache::new(Settings::default());
    let old = cache.lead(&look_up(&cache, 0), HeaderMap::new).unwrap();
    let untagged = cache.lead(&look_up(&cache, 1), HeaderMap::new).unwrap();
    for number in 0..2000_u32 {
        let mut purge = cache.purging(PurgeMode::Hard);
        purge.tag(&Key::of(&[b"tag", &number.to_be_bytes()]));
        purge.finish();
    }
    let new = cache.lead(&look_up(&cache, 2), HeaderMap::new).unwrap();
    let tags = BTreeSet::from([1]);
    end(old, &tags, 0);
    end(untagged, &BTreeSet::new(), 0);
    end(new, &tags, 0);
    let found = |number| look_up(&cache, number).object.is_some();
    assert_eq!([found(0), found(1), found(2)], [false, true, true]);
}
