//! Remembers the names that a manifest has listed since a restart.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use seawall_policy::access::CacheRequest;

/// A restart is remembered as long as objects may be stored.
const REMEMBERED_FOR: Duration = Duration::from_hours(24);
/// At least this many of the last listed names are remembered, and at most twice as many.
const LISTED_MIN: usize = 2048;

/// The names that a manifest has listed since a restart in one of its directories. They are in two
/// sets: when `later` has [`LISTED_MIN`] names, it replaces `earlier`, whose names are forgotten,
/// and a new `later` begins.
pub(super) struct NamesSinceRestart {
    began: Instant,
    /// The manifest itself restarted, not another one in the same directory.
    is_own: bool,
    later: HashSet<u64, ahash::RandomState>,
    earlier: HashSet<u64, ahash::RandomState>,
}

impl NamesSinceRestart {
    pub(super) fn new(is_own: bool, now: Instant) -> NamesSinceRestart {
        NamesSinceRestart {
            began: now,
            is_own,
            later: HashSet::default(),
            earlier: HashSet::default(),
        }
    }

    pub(super) fn is_own_restart(&self) -> bool {
        self.is_own
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= REMEMBERED_FOR
    }

    /// Records a name that is listed after the restart.
    pub(super) fn record(&mut self, name_hash: u64) {
        self.later.insert(name_hash);
        if self.later.len() >= LISTED_MIN {
            self.earlier = std::mem::take(&mut self.later);
        }
    }

    pub(super) fn contains(&self, name_hash: u64) -> bool {
        self.later.contains(&name_hash) || self.earlier.contains(&name_hash)
    }

    /// No name has been recorded: nothing can be said about what is listed.
    pub(super) fn is_empty(&self) -> bool {
        self.later.is_empty() && self.earlier.is_empty()
    }

    /// Approximate bytes of memory.
    pub(super) fn weight_bytes(&self) -> usize {
        (self.later.capacity() + self.earlier.capacity()) * (size_of::<u64>() + 1)
    }
}

/// A hash of the object's name.
pub(super) fn name_hash(hasher: &ahash::RandomState, request: &CacheRequest) -> u64 {
    hasher.hash_one(request.path_key())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_most_recently_listed_names() {
        let mut names = NamesSinceRestart::new(true, Instant::now());
        assert!(names.is_empty());
        for name_hash in 0..3 * LISTED_MIN as u64 {
            names.record(name_hash);
            assert!(names.contains(name_hash));
        }
        let last = 3 * LISTED_MIN as u64 - 1;
        assert!(names.contains(last - LISTED_MIN as u64 + 1));
        assert!(!names.contains(0) && !names.is_empty());
    }
}
