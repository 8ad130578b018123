//! What do manifests name that nobody may store, although its own name does not tell? Clocks
//! (DASH `UTCTiming`) and keys (`EXT-X-KEY`).

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::manifest::{Kind, Listing};
use crate::policy::access::CacheRequest;
use crate::policy::{Key, Rules};

/// So many that were named last are remembered at least, and twice as many at most.
const NAMED_MIN: usize = 10_000;

/// What is kept apart, by the place where it is.
#[derive(Default)]
pub(super) struct UncacheableUrls {
    named: Mutex<UncacheableSet>,
}

/// In two lists: when the later one is full it takes the place of the earlier one, so that what was
/// named longest ago makes room, and nobody has to look for it.
#[derive(Default)]
struct UncacheableSet {
    later: HashMap<Key, Kind, ahash::RandomState>,
    earlier: HashMap<Key, Kind, ahash::RandomState>,
}

impl UncacheableUrls {
    /// Remembers what a manifest names; gives what is news.
    ///
    /// A key may have another name for this host in its URL. With clocks that would be too much: most of them are
    /// nowhere near, and called `/`.
    pub(super) fn learn(
        &self,
        rules: &Rules,
        entry: &CacheRequest,
        listing: &Listing,
    ) -> Vec<CacheRequest> {
        let keys = listing.keys.iter();
        let keys = keys.filter_map(|name| Some((entry.namesake(rules, name)?, Kind::Key)));
        let clocks = listing.clocks.iter();
        let clocks = clocks.filter_map(|name| Some((entry.sibling(rules, name)?, Kind::Clock)));
        let clocks = clocks.filter(|(clock, _)| may_be_clock(entry, clock));
        let mut news = Vec::new();
        for (sibling, kind) in keys.chain(clocks) {
            if self.named.lock().name(sibling.spot(), kind) {
                news.push(sibling);
            }
        }
        news
    }

    /// What it is that is asked for, if a manifest said so.
    pub(super) fn kind_of(&self, entry: &CacheRequest) -> Option<Kind> {
        let named = self.named.lock();
        if named.later.is_empty() && named.earlier.is_empty() {
            return None;
        }
        named.kind_of(&entry.spot())
    }
}

/// Any answer has a `Date`, so a manifest may name itself or a segment as the clock; that is to be kept all the same.
fn may_be_clock(manifest: &CacheRequest, clock: &CacheRequest) -> bool {
    let is_content = clock.kind.is_manifest() || matches!(clock.kind, Kind::Segment | Kind::Init);
    !is_content && clock.spot() != manifest.spot()
}

impl UncacheableSet {
    /// Is it news?
    fn name(&mut self, spot: Key, kind: Kind) -> bool {
        let is_known = self.kind_of(&spot).is_some();
        self.later.insert(spot, kind);
        if self.later.len() >= NAMED_MIN {
            self.earlier = std::mem::take(&mut self.later);
        }
        !is_known
    }

    fn kind_of(&self, spot: &Key) -> Option<Kind> {
        let known = self.later.get(spot).or_else(|| self.earlier.get(spot));
        known.copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::Route;

    fn spot(number: usize) -> Key {
        Key::of(&[&number.to_be_bytes()])
    }

    #[test]
    fn what_was_named_longest_ago_makes_room() {
        let mut named = UncacheableSet::default();
        let mut is_news = |number| named.name(spot(number), Kind::Key);
        for number in 0..NAMED_MIN {
            assert!(is_news(number));
            assert!(!is_news(0), "named again and again");
        }
        for number in NAMED_MIN..3 * NAMED_MIN {
            assert!(is_news(number));
            assert!(!is_news(0), "named again and again");
        }
        assert!(!is_news(2 * NAMED_MIN + 1), "the last ones are known");
        assert!(is_news(1), "long ago");
        assert!(named.later.len() + named.earlier.len() <= 2 * NAMED_MIN);
    }

    #[test]
    fn a_clock_is_no_manifest_and_no_segment() {
        let rules = Rules {
            routes: vec![Arc::new(Route::everything("main"))],
            name: "seawall".into(),
        };
        let entry = CacheRequest::asked(&rules, "a", "/live/a.mpd?x=1");
        let (apart, own) = (
            UncacheableUrls::default(),
            CacheRequest::asked(&rules, "a", "/live/stream"),
        );
        let learn = |entry, clock: &str| {
            let clocks = vec![clock.to_owned()];
            let listing = Listing {
                clocks,
                ..Listing::default()
            };
            !apart.learn(&rules, entry, &listing).is_empty()
        };
        for clock in [
            "a.mpd",
            "?utc",
            "b.mpd",
            "init.mp4",
            "1.m4s",
            "https://b/utc",
        ] {
            assert!(!learn(&entry, clock), "{clock}");
        }
        assert!(!learn(&own, "?utc"));
        for clock in ["utc", "https://a/utc2"] {
            assert!(learn(&entry, clock), "{clock}");
        }
        let keys = vec!["https://b/1.bin".to_owned()];
        let listing = Listing {
            keys,
            ..Listing::default()
        };
        assert_eq!(apart.learn(&rules, &entry, &listing).len(), 1);
        let key = CacheRequest::asked(&rules, "a", "/1.bin");
        assert_eq!(apart.kind_of(&key), Some(Kind::Key));
    }
}
