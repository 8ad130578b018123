//! The token buckets of clients, in memory that does not grow: a table of sets of places.
//!
//! A client has its places in one set, by a keyed hash. While clients are over no limit, their
//! buckets are full after a moment and say nothing, so their places are free again. When a set has
//! no free place, a new client gets the one whose bucket is full the earliest, and goes on with
//! what is missing in it: a client that returns under a new address gains nothing, and who is new
//! loses the least.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use seawall_policy::rate_limit::RateBuckets;

/// Places of a set: they are compared one after another.
const WAYS: usize = 8;
/// 131,072 places in 3.3 MB.
const SETS: usize = 1 << 14;

/// The hash of a client and of what limits it. Two clients of one hash share a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketKey(u64);

#[derive(Clone, Copy, Default)]
struct BucketPlace {
    key: u64,
    buckets: RateBuckets,
}

/// The buckets of all clients of all routes.
pub(super) struct ClientBuckets {
    hasher: ahash::RandomState,
    sets: Box<[Mutex<[BucketPlace; WAYS]>]>,
    displaced: AtomicU64,
}

impl Default for ClientBuckets {
    fn default() -> ClientBuckets {
        ClientBuckets::with_sets(SETS)
    }
}

impl ClientBuckets {
    /// `sets`: a power of two.
    fn with_sets(sets: usize) -> ClientBuckets {
        ClientBuckets {
            // Its key is random: nobody can choose addresses that share a set.
            hasher: ahash::RandomState::new(),
            sets: (0..sets).map(|_| Mutex::default()).collect(),
            displaced: AtomicU64::new(0),
        }
    }

    pub(super) fn key_of(&self, limited: impl Hash) -> BucketKey {
        BucketKey(self.hasher.hash_one(limited))
    }

    /// Calls `f` with the buckets of a client, which no other thread uses meanwhile.
    pub(super) fn with<T>(
        &self,
        BucketKey(key): BucketKey,
        now: u64,
        f: impl FnOnce(&mut RateBuckets) -> T,
    ) -> T {
        // The upper half chooses the set; the comparison needs all of it.
        let set = usize::try_from(key >> 32).unwrap_or_default() & (self.sets.len() - 1);
        let mut set = self.sets[set].lock();
        let own = set.iter().position(|place| place.key == key);
        let index = own.unwrap_or_else(|| {
            let by_end = |index: &usize| set[*index].buckets.full_at();
            let index = (0..WAYS).min_by_key(by_end).unwrap_or_default();
            if set[index].buckets.full_at() > now {
                self.displaced.fetch_add(1, Ordering::Relaxed);
            }
            set[index].key = key;
            index
        });
        f(&mut set[index].buckets)
    }

    /// How often a client got the place of another one whose bucket was not full.
    pub(super) fn displaced(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_policy::rate_limit::{Allowance, RateLimit};

    const SECOND: u64 = 1_000_000_000;
    const LIMIT: RateLimit = RateLimit {
        requests: Some(Allowance {
            per_second: 50.0,
            burst: 100.0,
        }),
        bytes: None,
    };

    fn is_admitted(buckets: &ClientBuckets, client: impl Hash, now: u64) -> bool {
        buckets.with(buckets.key_of(client), now, |own| {
            let is_admitted = own.check(&LIMIT, now).is_ok();
            if is_admitted {
                own.take_request(&LIMIT, now);
            }
            is_admitted
        })
    }

    #[test]
    fn hundred_thousand_clients_within_the_limit_are_all_admitted() {
        let buckets = ClientBuckets::default();
        // Each sends 10 requests per second, evenly, for three seconds.
        for tenth in 0..30 {
            for client in 0..100_000_u64 {
                let now = SECOND + tenth * SECOND / 10 + client * 1000;
                assert!(is_admitted(&buckets, client, now), "{client}");
            }
        }
        // Some sets have more clients than others.
        assert!(buckets.displaced() < 3000, "{}", buckets.displaced());
    }

    /// Half a million addresses that send a request each do not let the abuser begin anew.
    #[test]
    fn abuser_stays_limited_in_a_crowd_and_the_crowd_is_admitted() {
        let buckets = ClientBuckets::default();
        let (mut abuser, mut refused_of_crowd) = (0, 0);
        for number in 0..500_000_u64 {
            let now = SECOND + number * 2000;
            abuser += u64::from(is_admitted(&buckets, "abuser", now));
            refused_of_crowd += u64::from(!is_admitted(&buckets, number, now));
        }
        // 100 at once, then 50 in one second.
        assert!((149..=151).contains(&abuser), "{abuser}");
        assert_eq!(refused_of_crowd, 0);
    }

    /// More clients over the limit than there are places: none of them gains by that.
    #[test]
    fn client_without_a_place_goes_on_with_what_another_has_used() {
        let buckets = ClientBuckets::with_sets(1);
        for client in 0..WAYS {
            while is_admitted(&buckets, client, SECOND) {}
        }
        assert!(!is_admitted(&buckets, "new", SECOND));
        assert_eq!(buckets.displaced(), 1);
        // After a moment it is admitted at the rate, like the others.
        let later = SECOND + SECOND / 50;
        assert!(is_admitted(&buckets, "new", later));
        assert!(!is_admitted(&buckets, "new", later));
    }
}
