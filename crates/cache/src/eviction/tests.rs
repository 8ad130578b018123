//! Which objects are evicted first, which never, and that the limit always holds.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

mod live_edge;

const KIB: u64 = 1024;

/// A store of 1 KiB objects with numbers as keys.
struct Shelf {
    policy: Policy<u64, Arc<HitCounter>>,
    held: HashMap<u64, (NodeId, Arc<HitCounter>)>,
    now_ms: u64,
    /// Requests for the next stored object.
    requests: u32,
}

impl Shelf {
    fn of(bytes_max: u64) -> Shelf {
        Shelf {
            policy: Policy::new(MemoryBounds::of(bytes_max, false)),
            held: HashMap::new(),
            now_ms: 0,
            requests: 1,
        }
    }

    fn store(&mut self, key: u64, class: ObjectClass) -> bool {
        self.store_large(key, class, KIB, None)
    }

    fn store_large(
        &mut self,
        key: u64,
        class: ObjectClass,
        bytes: u64,
        marker: Option<u64>,
    ) -> bool {
        self.store_for(key, class, bytes, marker, u64::from(u32::MAX))
    }

    /// Stores an object that already had `requests` requests.
    fn store_asked(&mut self, key: u64, class: ObjectClass, requests: u32) -> bool {
        let asked = std::mem::replace(&mut self.requests, requests);
        let stored = self.store(key, class);
        self.requests = asked;
        stored
    }

    fn store_for(
        &mut self,
        key: u64,
        class: ObjectClass,
        bytes: u64,
        marker: Option<u64>,
        kept_for_ms: u64,
    ) -> bool {
        self.now_ms += 10;
        let hits = Arc::new(HitCounter::default());
        let candidate = Candidate {
            key,
            fingerprint: marker.unwrap_or(key),
            bytes,
            class,
            hits: (class != ObjectClass::Marker).then(|| Arc::clone(&hits)),
            requests: self.requests,
            marker: marker.and_then(|marker| Some(self.held.get(&marker)?.0)),
            kept_until_ms: self.now_ms + kept_for_ms,
        };
        let replaces = self.held.remove(&key).map(|(id, _)| id);
        let mut evicted = Vec::new();
        let id = self
            .policy
            .insert(candidate, replaces, self.now_ms, &mut evicted);
        for key in evicted {
            assert!(self.held.remove(&key).is_some(), "evicted what is not held");
        }
        self.held.extend(id.map(|id| (key, (id, hits))));
        id.is_some()
    }

    fn ask(&self, key: u64) -> bool {
        let held = self.held.get(&key);
        held.inspect(|(_, hits)| hits.add()).is_some()
    }

    fn holds(&self, key: u64) -> bool {
        self.held.contains_key(&key)
    }

    fn advance(&mut self, rendition: u64) {
        self.now_ms += 1000;
        let advance = Advance {
            rendition,
            segments: 1,
            listed: 6,
            segment_interval_ms: 1000,
        };
        self.policy.advance(advance, self.now_ms);
    }

    fn evictions(&self, reason: EvictionReason) -> u64 {
        let all = self.policy.evictions();
        all.iter()
            .find(|(one, _)| *one == reason)
            .map_or(0, |(_, count)| *count)
    }
}

fn live(rendition: u64) -> ObjectClass {
    ObjectClass::Live(LivePosition {
        rendition,
        segments_from_edge: 0,
    })
}

#[test]
fn evicts_departed_segments_first_even_if_popular() {
    let mut shelf = Shelf::of(20 * KIB);
    (0..8).for_each(|key| assert!(shelf.store(key, live(1))));
    (0..1000).for_each(|_| assert!(shelf.ask(3)));
    shelf.policy.depart(3);
    shelf.policy.depart(5);
    (8..30).for_each(|key| assert!(shelf.store(key, live(1))));
    assert!(!shelf.holds(3) && !shelf.holds(5));
    assert_eq!(shelf.evictions(EvictionReason::Departed), 2);
}

#[test]
fn stores_live_segment_when_memory_is_full() {
    let mut shelf = Shelf::of(64 * KIB);
    for key in 0..200 {
        shelf.store(key, ObjectClass::OnDemand);
        (0..9).for_each(|_| {
            let _ = shelf.ask(key);
        });
    }
    for key in 200..400 {
        assert!(shelf.store(key, live(7)), "refused {key}");
        assert!(shelf.ask(key));
    }
}

#[test]
fn keeps_segments_of_rendition_with_more_viewers() {
    let mut shelf = Shelf::of(8 * KIB);
    let mut hits = [0, 0];
    for number in 0..200_u64 {
        for rendition in 0..5 {
            let key = number * 10 + rendition;
            shelf.advance(rendition);
            shelf.store(key, live(rendition));
        }
        // Two segment durations later, 50 viewers request the first rendition's segment, and one
        // another's.
        let earlier = number.saturating_sub(2) * 10;
        let segments_from_edge = number.min(2);
        for (audience, rendition, viewers) in [(0, 0, 50), (1, 4, 1)] {
            for _ in 0..viewers {
                if shelf.ask(earlier + rendition) {
                    hits[audience] += 1;
                } else {
                    let position = LivePosition {
                        rendition,
                        segments_from_edge,
                    };
                    shelf.store(earlier + rendition, ObjectClass::Live(position));
                }
            }
        }
    }
    assert!(hits[0] > 180 * 50, "{hits:?}");
    assert!(hits[1] < 150, "{hits:?}");
}

/// Some viewers of one object come after the fetch that the others shared. All other objects are
/// popular, and further fetches end in between.
#[test]
fn object_fetched_for_several_viewers_stays_until_the_next_have_come() {
    let mut shelf = Shelf::of(64 * KIB);
    (0..100).for_each(|key| assert!(shelf.store_asked(key, ObjectClass::OnDemand, 2)));
    shelf.store_asked(1000, ObjectClass::OnDemand, 400);
    for key in 1001..1020 {
        (0..1000)
            .filter(|other| shelf.holds(*other))
            .for_each(|other| assert!(shelf.ask(other)));
        shelf.store_asked(key, ObjectClass::OnDemand, 2);
        assert!(shelf.ask(1000), "after {} fetches", key - 1000);
    }
}

/// As above, in a live stream that no one watched until now.
#[test]
fn segment_of_unwatched_rendition_stays_when_many_viewers_request_it() {
    let mut shelf = Shelf::of(64 * KIB);
    for round in 0..3 {
        for rendition in 0..100 {
            shelf.advance(rendition);
            shelf.store_asked(100 * round + rendition, live(rendition), 50);
        }
        shelf.advance(500);
    }
    shelf.store_asked(1000, live(500), 400);
    for rendition in 0..10 {
        shelf.advance(rendition);
        shelf.store_asked(1001 + rendition, live(rendition), 50);
        assert!(shelf.holds(1000), "after {} fetches", rendition + 1);
    }
}

#[test]
fn one_off_urls_evict_nothing_that_was_requested_again() {
    let mut shelf = Shelf::of(128 * KIB);
    for key in 0..100 {
        shelf.store(
            key,
            if key % 2 == 0 {
                ObjectClass::OnDemand
            } else {
                live(1)
            },
        );
        shelf.ask(key);
    }
    (1000..11_000).for_each(|key| assert!(shelf.store(key, ObjectClass::OnDemand)));
    let lost = (0..100).filter(|key| !shelf.holds(*key)).count();
    assert_eq!(lost, 0);
    assert!(shelf.evictions(EvictionReason::OneOff) > 9000);
}

#[test]
fn errors_evict_only_other_errors() {
    let mut shelf = Shelf::of(64 * KIB);
    (0..50).for_each(|key| assert!(shelf.store(key, ObjectClass::OnDemand)));
    (100..10_000).for_each(|key| assert!(shelf.store(key, ObjectClass::Error)));
    assert!((0..50).all(|key| shelf.holds(key)));
    assert_eq!(
        shelf.held.len(),
        52,
        "a thirty-second of memory is for errors"
    );
}

#[test]
fn media_evicts_no_manifest_and_manifests_use_at_most_a_quarter() {
    let mut shelf = Shelf::of(64 * KIB);
    (0..10).for_each(|key| assert!(shelf.store(key, ObjectClass::Manifest)));
    (100..1000).for_each(|key| assert!(shelf.store(key, ObjectClass::OnDemand)));
    assert!((0..10).all(|key| shelf.holds(key)));
    (0..10).for_each(|key| assert!(shelf.ask(key)));
    (2000..5000).for_each(|key| assert!(shelf.store(key, ObjectClass::Manifest)));
    assert!(
        (0..10).all(|key| shelf.holds(key)),
        "they were asked for again"
    );
    assert_eq!(shelf.held.keys().filter(|key| **key >= 2000).count(), 5);
}

#[test]
fn new_manifest_version_inherits_accesses_of_the_old_one() {
    let mut shelf = Shelf::of(64 * KIB);
    shelf.store(1, ObjectClass::Manifest);
    shelf.ask(1);
    shelf.store(1, ObjectClass::Manifest);
    (2000..5000).for_each(|key| assert!(shelf.store(key, ObjectClass::Manifest)));
    assert!(
        shelf.holds(1),
        "its versions were asked for again and again"
    );
    assert!(!shelf.store_large(1, ObjectClass::Manifest, 65 * KIB, None));
    assert_eq!(shelf.policy.len(), shelf.held.len() as u64);
}

#[test]
fn variants_keep_their_vary_marker_and_depart_with_it() {
    let mut shelf = Shelf::of(64 * KIB);
    shelf.store(1, ObjectClass::Marker);
    assert!(shelf.store_large(2, live(1), KIB, Some(1)));
    (100..200).for_each(|key| assert!(shelf.store(key, ObjectClass::Marker)));
    assert!(shelf.holds(1) && !shelf.holds(100));
    (1000..1100).for_each(|key| assert!(shelf.store(key, ObjectClass::OnDemand)));
    assert!(shelf.holds(1) && shelf.holds(2));
    // Without the marker the variant cannot be found.
    let (marker, _) = shelf.held.remove(&1).unwrap();
    shelf.policy.remove(marker);
    assert!(shelf.policy.has_departed(shelf.held[&2].0));
}

#[test]
fn evicts_expired_objects_before_others() {
    let mut shelf = Shelf::of(64 * KIB);
    shelf.store(1, ObjectClass::Marker);
    shelf.store_large(2, live(1), KIB, Some(1));
    assert!(shelf.store_for(3, live(1), KIB, None, 5000));
    (100..150).for_each(|key| assert!(shelf.store_for(key, live(1), KIB, None, 5000)));
    (200..205).for_each(|key| assert!(shelf.store(key, live(1))));
    shelf.now_ms += 6000;
    (300..340).for_each(|key| assert!(shelf.store(key, live(1))));
    assert!([1, 2].iter().all(|key| shelf.holds(*key)));
    assert!((200..205).all(|key| shelf.holds(key)));
    assert!(!shelf.holds(3) && !(100..150).any(|key| shelf.holds(key)));
    assert_eq!(shelf.evictions(EvictionReason::Live), 0);
}

#[test]
fn new_version_expires_by_its_own_keep_time() {
    let mut shelf = Shelf::of(64 * KIB);
    shelf.store_for(1, ObjectClass::Manifest, KIB, None, 5000);
    shelf.store_for(1, ObjectClass::Manifest, KIB, None, 50_000);
    shelf.now_ms += 6000;
    shelf.store(2, ObjectClass::Manifest);
    assert!(shelf.holds(1));
    shelf.now_ms += 50_000;
    shelf.store(3, ObjectClass::Manifest);
    assert!(!shelf.holds(1));
}

#[test]
fn variants_depart_when_their_listed_url_departs() {
    let mut shelf = Shelf::of(64 * KIB);
    shelf.store(1, ObjectClass::Marker);
    shelf.store_large(2, live(1), KIB, Some(1));
    shelf.store_large(3, live(1), KIB, Some(1));
    shelf.policy.depart(1);
    assert!(
        [2, 3]
            .iter()
            .all(|key| shelf.policy.has_departed(shelf.held[key].0))
    );
}

/// An event for a key.
#[derive(Clone, Copy, Debug)]
enum Step {
    Store(ObjectClass, u64, u64),
    Variant(u64),
    Ask,
    Depart,
    Remove,
    Advance,
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let position = (0..4_u64, 0..40_u64).prop_map(|(rendition, segments_from_edge)| LivePosition {
        rendition,
        segments_from_edge,
    });
    let class = prop_oneof![
        Just(ObjectClass::Error),
        Just(ObjectClass::Manifest),
        Just(ObjectClass::Marker),
        Just(ObjectClass::OnDemand),
        position.prop_map(ObjectClass::Live),
    ];
    let step = prop_oneof![
        4 => (class, 1..20 * KIB, 0..10_000_u64)
            .prop_map(|(class, bytes, kept_for_ms)| Step::Store(class, bytes, kept_for_ms)),
        1 => (1..5 * KIB).prop_map(Step::Variant),
        3 => Just(Step::Ask),
        1 => Just(Step::Depart),
        1 => Just(Step::Remove),
        1 => Just(Step::Advance),
    ];
    (0..30_u64, step)
}

proptest! {
    /// After any events: the limit holds, the counts are correct, and a live segment that fits is
    /// stored.
    #[test]
    fn counts_match_and_limit_holds_after_random_operations(
        steps in proptest::collection::vec(step(), 1..300)
    ) {
        const MAX: u64 = 64 * KIB;
        let mut shelf = Shelf::of(MAX);
        for (key, step) in steps {
            match step {
                Step::Store(class, bytes, kept_for_ms) => {
                    let stored = shelf.store_for(key, class, bytes, None, kept_for_ms);
                    let fits = bytes <= if class == ObjectClass::Manifest { MAX / 5 } else { MAX / 2 };
                    prop_assert!(stored || !fits || class == ObjectClass::Error);
                }
                Step::Variant(bytes) => {
                    shelf.store_large(100 + key, ObjectClass::OnDemand, bytes, Some(key));
                }
                Step::Ask => {
            let _ = shelf.ask(key);
        },
                Step::Depart => shelf.policy.depart(key),
                Step::Advance => shelf.advance(key % 4),
                Step::Remove => {
                    if let Some((id, _)) = shelf.held.remove(&key) {
                        shelf.policy.remove(id);
                        // A second removal has no effect.
                        shelf.policy.remove(id);
                    }
                }
            }
            prop_assert!(shelf.policy.bytes() <= MAX);
            prop_assert_eq!(shelf.policy.len(), shelf.held.len() as u64);
            let live = shelf.policy.live.len();
            prop_assert_eq!(live, shelf.policy.queues.len(EvictionQueue::Live as usize));
        }
        let (mut expired, held) = (Vec::new(), std::mem::take(&mut shelf.held));
        shelf.policy.expire(shelf.now_ms + 11_000, &mut expired);
        for (key, (id, _)) in &held {
            prop_assert!(!expired.contains(key) || !shelf.policy.has_departed(*id));
            shelf.policy.remove(*id);
        }
        prop_assert_eq!((shelf.policy.bytes(), shelf.policy.len()), (0, 0));
        prop_assert!(shelf.policy.listed.is_empty());
    }
}
