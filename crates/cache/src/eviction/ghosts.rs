//! Remembers which objects were evicted recently after one request. A new request for one of them
//! shows that it is more than a one-off. Holds fingerprints only.

use std::collections::{HashMap, VecDeque};

#[derive(Debug, Default)]
pub(super) struct Ghosts {
    order: VecDeque<(u64, u64)>,
    since: HashMap<u64, u64, ahash::RandomState>,
    count: u64,
}

impl Ghosts {
    /// Adds a fingerprint, and removes the oldest ones until at most `len_max` are left.
    pub(super) fn remember(&mut self, fingerprint: u64, len_max: usize) {
        self.count += 1;
        self.since.insert(fingerprint, self.count);
        self.order.push_back((fingerprint, self.count));
        while self.order.len() > len_max {
            let Some((oldest, since)) = self.order.pop_front() else {
                return;
            };
            if self.since.get(&oldest) == Some(&since) {
                self.since.remove(&oldest);
            }
        }
    }

    /// Removes a fingerprint. Returns whether it was remembered.
    pub(super) fn recall(&mut self, fingerprint: u64) -> bool {
        self.since.remove(&fingerprint).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_most_recent_ghosts_and_recalls_each_once() {
        let mut ghosts = Ghosts::default();
        (0..5).for_each(|fingerprint| ghosts.remember(fingerprint, 3));
        assert!(!ghosts.recall(1) && ghosts.recall(2) && !ghosts.recall(2));
        ghosts.remember(3, 3);
        ghosts.remember(5, 3);
        assert!(ghosts.recall(3), "remembered a second time");
        assert!(ghosts.order.len() <= 3 && ghosts.since.len() <= 3);
    }
}
