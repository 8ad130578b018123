//! Remembers the URLs that manifests name as uncacheable, although the URL itself does not show it:
//! time servers (DASH `UTCTiming`) and keys (`EXT-X-KEY`).

use std::collections::HashMap;

use parking_lot::Mutex;

use seawall_manifest::{Kind, Listing};
use seawall_policy::access::CacheRequest;
use seawall_policy::{Key, Rules};

/// At least this many of the last named URLs are remembered, and at most twice as many.
const NAMED_MIN: usize = 10_000;

/// The uncacheable URLs.
#[derive(Default)]
pub(super) struct UncacheableUrls {
    named: Mutex<UncacheableSet>,
}

/// Two maps: when `later` is full it replaces `earlier`, so that the oldest names are dropped
/// without a search.
#[derive(Default)]
struct UncacheableSet {
    later: HashMap<Key, Kind, ahash::RandomState>,
    earlier: HashMap<Key, Kind, ahash::RandomState>,
}

impl UncacheableUrls {
    /// Remembers the URLs that a manifest names; returns the new ones.
    ///
    /// The host in a key's URL is ignored: it may be another name of this one. For time servers
    /// that would match too much: most are on other hosts, with the path `/`.
    pub(super) fn learn(
        &self,
        rules: &Rules,
        request: &CacheRequest,
        listing: &Listing,
    ) -> Vec<CacheRequest> {
        let keys = listing.keys.iter();
        let keys = keys
            .filter_map(|name| Some((request.resolve_any_host(rules, name)?, Kind::DecryptionKey)));
        let time_servers = listing.time_servers.iter();
        let time_servers = time_servers
            .filter_map(|name| Some((request.resolve_same_host(rules, name)?, Kind::TimeServer)));
        let time_servers =
            time_servers.filter(|(time_server, _)| may_be_time_server(request, time_server));
        let mut new = Vec::new();
        for (sibling, kind) in keys.chain(time_servers) {
            if self.named.lock().name(sibling.path_key(), kind) {
                new.push(sibling);
            }
        }
        new
    }

    /// The kind of the requested object, if a manifest has named it.
    pub(super) fn kind_of(&self, request: &CacheRequest) -> Option<Kind> {
        let named = self.named.lock();
        if named.later.is_empty() && named.earlier.is_empty() {
            return None;
        }
        named.kind_of(&request.path_key())
    }
}

/// Any response has a `Date`, so a manifest may name itself or a segment as its time server; these
/// stay cacheable.
fn may_be_time_server(manifest: &CacheRequest, time_server: &CacheRequest) -> bool {
    let is_content =
        time_server.kind.is_manifest() || matches!(time_server.kind, Kind::Segment | Kind::Init);
    !is_content && time_server.path_key() != manifest.path_key()
}

impl UncacheableSet {
    /// Adds a name. Returns true if it is new.
    fn name(&mut self, path_key: Key, kind: Kind) -> bool {
        let is_known = self.kind_of(&path_key).is_some();
        self.later.insert(path_key, kind);
        if self.later.len() >= NAMED_MIN {
            self.earlier = std::mem::take(&mut self.later);
        }
        !is_known
    }

    fn kind_of(&self, path_key: &Key) -> Option<Kind> {
        let known = self
            .later
            .get(path_key)
            .or_else(|| self.earlier.get(path_key));
        known.copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use seawall_policy::Route;

    fn path_key_of(number: usize) -> Key {
        Key::of(&[&number.to_be_bytes()])
    }

    #[test]
    fn least_recently_named_url_is_evicted_first() {
        let mut named = UncacheableSet::default();
        let mut is_new = |number| named.name(path_key_of(number), Kind::DecryptionKey);
        for number in 0..NAMED_MIN {
            assert!(is_new(number));
            assert!(!is_new(0), "named again and again");
        }
        for number in NAMED_MIN..3 * NAMED_MIN {
            assert!(is_new(number));
            assert!(!is_new(0), "named again and again");
        }
        assert!(!is_new(2 * NAMED_MIN + 1), "the last ones are known");
        assert!(is_new(1), "long ago");
        assert!(named.later.len() + named.earlier.len() <= 2 * NAMED_MIN);
    }

    #[test]
    fn time_server_url_of_a_manifest_or_segment_is_not_learned() {
        let rules = Rules {
            routes: vec![Arc::new(Route::everything("main"))],
            name: "seawall".into(),
            trusted_proxies: seawall_policy::TrustedProxies::default(),
            client_classes: seawall_policy::ClientClasses::default(),
        };
        let request = CacheRequest::asked(&rules, "a", "/live/a.mpd?x=1");
        let (uncacheable, own) = (
            UncacheableUrls::default(),
            CacheRequest::asked(&rules, "a", "/live/stream"),
        );
        let learn = |request, time_server: &str| {
            let time_servers = vec![time_server.to_owned()];
            let listing = Listing {
                time_servers,
                ..Listing::default()
            };
            !uncacheable.learn(&rules, request, &listing).is_empty()
        };
        for time_server in [
            "a.mpd",
            "?utc",
            "b.mpd",
            "init.mp4",
            "1.m4s",
            "https://b/utc",
        ] {
            assert!(!learn(&request, time_server), "{time_server}");
        }
        assert!(!learn(&own, "?utc"));
        for time_server in ["utc", "https://a/utc2"] {
            assert!(learn(&request, time_server), "{time_server}");
        }
        let keys = vec!["https://b/1.bin".to_owned()];
        let listing = Listing {
            keys,
            ..Listing::default()
        };
        assert_eq!(uncacheable.learn(&rules, &request, &listing).len(), 1);
        let key = CacheRequest::asked(&rules, "a", "/1.bin");
        assert_eq!(uncacheable.kind_of(&key), Some(Kind::DecryptionKey));
    }
}
