//! What do manifests name that nobody may store, although its own name does not tell? Clocks
//! (DASH `UTCTiming`) and keys (`EXT-X-KEY`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::media::{Kind, Listing};
use crate::policy::access::Entry;
use crate::policy::{Key, Rules};

/// So many are remembered at most …
const NAMED_MAX: usize = 10_000;
/// … and so long after a manifest named them last: as long as a playlist that is held may be
/// played.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);

/// What is kept apart, by the place where it is.
#[derive(Default)]
pub(super) struct Apart {
    named: Mutex<HashMap<Key, (Kind, Instant), ahash::RandomState>>,
}

impl Apart {
    /// Remembers what a manifest names; gives what is news.
    pub(super) fn learn(
        &self,
        rules: &Rules,
        entry: &Entry,
        listing: &Listing,
        now: Instant,
    ) -> Vec<Entry> {
        let keys = listing.keys.iter().map(|name| (name, Kind::Key));
        let clocks = listing.clocks.iter().map(|name| (name, Kind::Clock));
        let siblings = keys
            .chain(clocks)
            .filter_map(|(name, kind)| Some((entry.sibling(rules, name)?, kind)));
        let mut news = Vec::new();
        for (sibling, kind) in siblings {
            if self.name(sibling.spot(), kind, now) {
                news.push(sibling);
            }
        }
        news
    }

    fn name(&self, spot: Key, kind: Kind, now: Instant) -> bool {
        let mut named = self.named.lock();
        if named.len() >= NAMED_MAX && !named.contains_key(&spot) {
            named.retain(|_, (_, last)| now.saturating_duration_since(*last) < FORGOTTEN_AFTER);
        }
        let full = named.len() >= NAMED_MAX && !named.contains_key(&spot);
        !full && named.insert(spot, (kind, now)).is_none()
    }

    /// What it is that is asked for, if a manifest said so.
    pub(super) fn kind_of(&self, entry: &Entry) -> Option<Kind> {
        let named = self.named.lock();
        if named.is_empty() {
            return None;
        }
        named.get(&entry.spot()).map(|(kind, _)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(number: usize) -> Key {
        Key::of(&[&number.to_be_bytes()])
    }

    #[test]
    fn what_nobody_names_any_more_makes_room() {
        let apart = Apart::default();
        let start = Instant::now();
        for number in 0..NAMED_MAX {
            assert!(apart.name(spot(number), Kind::Key, start));
        }
        assert!(!apart.name(spot(0), Kind::Key, start), "known");
        assert!(!apart.name(spot(NAMED_MAX), Kind::Key, start), "no room");
        let later = start + FORGOTTEN_AFTER;
        assert!(apart.name(spot(NAMED_MAX), Kind::Key, later));
        assert_eq!(apart.named.lock().len(), 1);
    }
}
