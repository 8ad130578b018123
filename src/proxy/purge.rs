//! Purges: of one URL, of a stream, of all URLs with a prefix, of everything; and the invalidation of what an
//! unsafe request has changed at the origin (RFC 9111 §4.4).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method, Uri, Version};
use tokio::task::spawn_blocking;

use super::live::unlisted;
use super::{Shield, coding};
use crate::cache::{CachePurge, Object};
use crate::manifest::{RENDITIONS_MAX, directory_examples, read_manifest};
use crate::policy::access::{Admission, CacheRequest, access, host_of};
use crate::policy::key::KeyParts;
use crate::policy::{Key, Rules};

/// More manifests than a stream has, also where some viewers get names of their own for them.
const MANIFESTS_MAX: usize = 4096;

/// What came of a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// So many objects were held until then.
    pub objects: u64,
    /// If not, the stream has more manifests than were looked through, and something of it may be held still.
    pub is_complete: bool,
}

/// What was found of a stream that is to be purged.
struct StreamPurge {
    purge: CachePurge,
    is_known: bool,
    is_complete: bool,
}

/// What a held manifest names.
#[derive(Default)]
struct Named {
    manifests: Vec<CacheRequest>,
    /// Where everything else lies.
    places: Vec<Key>,
    /// It may name more manifests than are read of it.
    has_more: bool,
}

/// What an operator wants dropped. URLs are absolute (`http://host/path?query`), as viewers ask for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeScope {
    /// One URL with its variants and slices; of a playlist every state of it.
    Url(Uri),
    /// The stream that a manifest belongs to: its manifests, what is known of them, and all that lies where
    /// they say that their segments do.
    Stream(Uri),
    /// Every URL that begins like this.
    Prefix(Uri),
    /// Everything.
    Everything,
}

/// The parts of a key that all URLs with a prefix have in common.
struct Prefix {
    /// Empty: all of them.
    origins: Vec<OriginAndHost>,
    target: Box<[u8]>,
}

/// A group of origins, and the host where that is sent to it.
type OriginAndHost = (Box<[u8]>, Box<[u8]>);

impl Shield {
    /// Drops it, and dooms the fills under way for it: from now on nothing of it is served. `None`: no route
    /// serves it, or no such stream is known.
    pub async fn purge(self: &Arc<Self>, scope: PurgeScope) -> Option<Purged> {
        let (mut is_known, mut is_complete) = (true, true);
        let purge = match &scope {
            PurgeScope::Url(url) => {
                let mut purge = self.cache.purging();
                self.forget(&self.entry(url)?, &mut purge);
                purge
            }
            PurgeScope::Stream(url) => {
                let entry = self.entry(url)?;
                let shield = Arc::clone(self);
                let read = spawn_blocking(move || shield.purge_stream(&entry));
                let found = read.await.ok()?;
                (is_known, is_complete) = (found.is_known, found.is_complete);
                found.purge
            }
            PurgeScope::Prefix(url) => {
                let prefix = Prefix::of(&self.rules, url)?;
                self.purge_prefix(Arc::new(prefix)).await?
            }
            PurgeScope::Everything => {
                let everything = Prefix {
                    origins: Vec::new(),
                    target: Box::default(),
                };
                self.purge_prefix(Arc::new(everything)).await?
            }
        };
        let objects = spawn_blocking(|| purge.finish()).await.ok()?;
        tracing::info!(objects, ?scope, "purged");
        if !is_complete {
            tracing::warn!(
                ?scope,
                "the stream has too many manifests to purge them all: purge the rest by prefix"
            );
        }
        (is_known || objects > 0).then_some(Purged {
            objects,
            is_complete,
        })
    }

    fn purge_stream(&self, entry: &CacheRequest) -> StreamPurge {
        let mut purge = self.cache.purging();
        let unit = self.streams.unit(entry);
        let (mut is_known, mut is_complete) = (unit.is_some(), true);
        let mut places = HashSet::new();
        let mut to_read = VecDeque::from([entry.plain()]);
        for key in unit.iter().flat_map(|unit| &unit.manifests) {
            to_read.extend(self.entry_of(entry, key));
        }
        for watch in unit.iter().flat_map(|unit| &unit.watches) {
            to_read.push_back(watch.entry.clone());
            places.extend(watch.places());
        }
        let mut seen = HashSet::new();
        while let Some(manifest) = to_read.pop_front() {
            if seen.contains(manifest.identity()) {
                continue;
            }
            if seen.len() >= MANIFESTS_MAX {
                is_complete = false;
                break;
            }
            seen.insert(manifest.identity().clone());
            let url = manifest.url();
            let held = self
                .cache
                .held(manifest.identity(), url.as_ref(), manifest.kind);
            is_known |= !held.is_empty();
            if held.is_empty() && manifest.kind.is_manifest() {
                // What it lists most likely lies beside it.
                places.insert(manifest.place());
            }
            for object in held {
                let named = self.named(&manifest, &object);
                to_read.extend(named.manifests);
                places.extend(named.places);
                is_complete &= !named.has_more;
            }
            self.forget(&manifest, &mut purge);
        }
        for key in unit.iter().flat_map(|unit| &unit.manifests) {
            purge.key(key, entry.kind);
        }
        for place in &places {
            purge.epoch(place);
            purge.epoch(&unlisted(place));
        }
        purge.notes(|key| key.place().is_some_and(|place| places.contains(&place)));
        StreamPurge {
            purge,
            is_known,
            is_complete,
        }
    }

    /// The request for a manifest of the same stream, of which only the key is known.
    fn entry_of(&self, entry: &CacheRequest, key: &Key) -> Option<CacheRequest> {
        let target = str::from_utf8(key.asked()?.target).ok()?;
        let other = entry.namesake(&self.rules, target)?;
        (other.identity() == key).then_some(other)
    }

    fn named(&self, entry: &CacheRequest, object: &Object) -> Named {
        let headers = object.head.headers.to_map();
        let bytes_max = self.settings.manifest_bytes_max;
        let text = coding::plain(&headers, &object.body, bytes_max);
        let kind = object.head.kind;
        let (Ok(Some(text)), true) = (text, kind.is_manifest()) else {
            return Named::default();
        };
        let renditions = match read_manifest(kind, &text) {
            Ok(manifest) if manifest.facts.multivariant => manifest.listing.renditions,
            _ => Vec::new(),
        };
        if !renditions.is_empty() {
            let siblings = renditions.iter();
            let siblings = siblings.filter_map(|name| entry.sibling(&self.rules, name));
            return Named {
                manifests: siblings.collect(),
                has_more: renditions.len() >= RENDITIONS_MAX,
                ..Named::default()
            };
        }
        let mut places = Vec::new();
        directory_examples(kind, &text, |name| {
            let named = entry.namesake(&self.rules, name);
            places.extend(named.map(|named| named.place()));
        });
        Named {
            places,
            ..Named::default()
        }
    }

    async fn purge_prefix(self: &Arc<Self>, prefix: Arc<Prefix>) -> Option<CachePurge> {
        let shield = Arc::clone(self);
        let drop_all = move || {
            let mut purge = shield.cache.purging();
            shield.streams.forget_where(|key| prefix.has(key));
            let of_keys = Arc::clone(&prefix);
            purge.all(move |key| of_keys.has(key), |place| prefix.has(place));
            purge
        };
        spawn_blocking(drop_all).await.ok()
    }

    fn entry(&self, url: &Uri) -> Option<CacheRequest> {
        let headers = HeaderMap::new();
        // As over HTTP/2, a URL alone names its host.
        match access(&self.rules, &Method::GET, url, Version::HTTP_2, &headers) {
            Admission::Enter(entry) => Some(entry),
            _ => None,
        }
    }

    /// What is asked for, and of a playlist every state of it and how far it had come: the next version is
    /// the first.
    ///
    /// Where viewers' fields are part of the key, all keys of the URL are forgotten.
    fn forget(&self, entry: &CacheRequest, purge: &mut CachePurge) {
        if let Some(url) = entry.url() {
            purge.epoch(&url);
            self.streams.forget_url(entry);
        } else if let Some(watch) = self.streams.watched(entry) {
            watch.forget();
        }
        purge.epoch(&entry.states());
        purge.key(entry.identity(), entry.kind);
        if entry.identity() != &entry.key {
            purge.key(&entry.key, entry.kind);
        }
    }

    /// A method that changes something succeeded: what is held for its URI, and for the resources on
    /// the same host that the answer names, is no longer true (RFC 9111 §4.4).
    pub(super) fn invalidate(&self, entry: &CacheRequest, host: &str, response: &HeaderMap) {
        let mut purge = self.cache.purging();
        self.forget(entry, &mut purge);
        for field in [LOCATION, CONTENT_LOCATION] {
            let named = response.get(field).and_then(|value| value.to_str().ok());
            let path = named.filter(|path| path.starts_with('/') && !path.starts_with("//"));
            let url = path.and_then(|path| format!("http://{host}{path}").parse().ok());
            if let Some(entry) = url.and_then(|url| self.entry(&url)) {
                self.forget(&entry, &mut purge);
            }
        }
    }
}

impl Prefix {
    /// `None`: no route serves anything that begins so.
    fn of(rules: &Rules, url: &Uri) -> Option<Prefix> {
        let target = url.path_and_query()?.as_str();
        let host = host_of(url)?;
        let origins = rules.routes_below(&host, url.path()).map(|route| {
            let sent = if route.forward_host { &*host } else { "" };
            (route.origin.as_bytes().into(), sent.as_bytes().into())
        });
        let origins: Vec<_> = origins.collect();
        (!origins.is_empty()).then(|| Prefix {
            origins,
            target: target.as_bytes().into(),
        })
    }

    fn has(&self, key: &Key) -> bool {
        if self.origins.is_empty() {
            return true;
        }
        let Some(KeyParts {
            origin,
            host,
            target,
        }) = key.asked()
        else {
            return false;
        };
        let mut origins = self.origins.iter();
        target.starts_with(&self.target)
            && origins.any(|(one, named)| **one == *origin && **named == *host)
    }
}
