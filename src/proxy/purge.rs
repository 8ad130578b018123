//! Purges one URL, a stream, all URLs with a prefix, or everything; and invalidates what an unsafe
//! request has changed at the origin (RFC 9111 §4.4).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method, Uri, Version};
use tokio::task::spawn_blocking;

use super::{Shield, coding};
use crate::live::unlisted;
use seawall_cache::{CachePurge, Object};
use seawall_manifest::{RENDITIONS_MAX, directory_examples, read_manifest};
use seawall_policy::access::{Admission, CacheRequest, Requester, access, host_of};
use seawall_policy::key::KeyParts;
use seawall_policy::{Key, Rules};

/// Maximum manifests read for one stream: more than any stream has, even with personalised URLs.
const MANIFESTS_MAX: usize = 4096;

/// The result of a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Number of objects removed.
    pub objects: u64,
    /// If false, the stream has more manifests than were read, and some of its objects may remain.
    pub is_complete: bool,
}

/// A stream's purge, before it is finished.
struct StreamPurge {
    purge: CachePurge,
    is_known: bool,
    is_complete: bool,
}

/// The URLs in a stored manifest.
#[derive(Default)]
struct ListedUrls {
    manifests: Vec<CacheRequest>,
    /// Directories of everything else that it lists.
    directories: Vec<Key>,
    /// It may list more manifests than were read from it.
    has_more: bool,
}

/// What to purge. URLs are absolute (`http://host/path?query`), as viewers request them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeScope {
    /// One URL with its variants and slices; for a playlist, all its versions.
    Url(Uri),
    /// The stream of a manifest: its manifests, their trackers, and everything in the directories
    /// of their segments.
    Stream(Uri),
    /// Every URL with this prefix.
    Prefix(Uri),
    /// Everything.
    Everything,
}

/// The parts that the keys of all URLs with a prefix share.
struct Prefix {
    /// Empty: all origins.
    origins: Vec<OriginAndHost>,
    target: Box<[u8]>,
}

/// An origin group, and the host if it is sent to that group.
type OriginAndHost = (Box<[u8]>, Box<[u8]>);

impl Shield {
    /// Removes what `scope` selects, and stops current fills from being stored: from now on nothing
    /// of it is served. `None`: no route serves it, or the stream is unknown.
    pub async fn purge(self: &Arc<Self>, scope: PurgeScope) -> Option<Purged> {
        let (mut is_known, mut is_complete) = (true, true);
        let purge = match &scope {
            PurgeScope::Url(url) => {
                let mut purge = self.cache.purging();
                self.forget(&self.request_of_url(url)?, &mut purge);
                purge
            }
            PurgeScope::Stream(url) => {
                let request = self.request_of_url(url)?;
                let shield = Arc::clone(self);
                let read = spawn_blocking(move || shield.purge_stream(&request));
                let read = read.await.ok()?;
                (is_known, is_complete) = (read.is_known, read.is_complete);
                read.purge
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
                "the stream has too many manifests to purge all of them: purge the rest by prefix"
            );
        }
        (is_known || objects > 0).then_some(Purged {
            objects,
            is_complete,
        })
    }

    fn purge_stream(&self, request: &CacheRequest) -> StreamPurge {
        let mut purge = self.cache.purging();
        let stream = self.live.stream_manifests(request);
        let (mut is_known, mut is_complete) = (stream.is_some(), true);
        let mut directories = HashSet::new();
        let mut to_read = VecDeque::from([request.without_directives()]);
        for key in stream.iter().flat_map(|stream| &stream.manifests) {
            to_read.extend(self.request_of_key(request, key));
        }
        for tracker in stream.iter().flat_map(|stream| &stream.trackers) {
            to_read.push_back(tracker.request.clone());
            directories.extend(tracker.directories());
        }
        let mut seen = HashSet::new();
        while let Some(manifest) = to_read.pop_front() {
            if seen.contains(manifest.base_key()) {
                continue;
            }
            if seen.len() >= MANIFESTS_MAX {
                is_complete = false;
                break;
            }
            seen.insert(manifest.base_key().clone());
            let url = manifest.url();
            let stored = self
                .cache
                .objects_of(manifest.base_key(), url.as_ref(), manifest.kind);
            is_known |= !stored.is_empty();
            if stored.is_empty() && manifest.kind.is_manifest() {
                // An unknown manifest's objects are most likely in its own directory.
                directories.insert(manifest.directory());
            }
            for object in stored {
                let listed = self.urls_listed_in(&manifest, &object);
                to_read.extend(listed.manifests);
                directories.extend(listed.directories);
                is_complete &= !listed.has_more;
            }
            self.forget(&manifest, &mut purge);
        }
        for key in stream.iter().flat_map(|stream| &stream.manifests) {
            purge.key(key, request.kind);
        }
        for place in &directories {
            purge.epoch(place);
            purge.epoch(&unlisted(place));
        }
        purge.memos(|key| {
            key.directory()
                .is_some_and(|place| directories.contains(&place))
        });
        StreamPurge {
            purge,
            is_known,
            is_complete,
        }
    }

    /// The request for a manifest of the same stream of which only the key is known.
    fn request_of_key(&self, request: &CacheRequest, key: &Key) -> Option<CacheRequest> {
        let target = str::from_utf8(key.request_parts()?.target).ok()?;
        let other = request.resolve_any_host(&self.rules, target)?;
        (other.base_key() == key).then_some(other)
    }

    fn urls_listed_in(&self, request: &CacheRequest, object: &Object) -> ListedUrls {
        let headers = object.head.headers.to_map();
        let bytes_max = self.settings.manifest_bytes_max;
        let text = coding::decoded_text(&headers, &object.body, bytes_max);
        let kind = object.head.kind;
        let (Ok(Some(text)), true) = (text, kind.is_manifest()) else {
            return ListedUrls::default();
        };
        let renditions = match read_manifest(kind, &text) {
            Ok(manifest) if manifest.info.is_multivariant() => manifest.listing.renditions,
            _ => Vec::new(),
        };
        if !renditions.is_empty() {
            let renditions_listed = renditions.iter();
            let renditions_listed =
                renditions_listed.filter_map(|name| request.resolve_same_host(&self.rules, name));
            return ListedUrls {
                manifests: renditions_listed.collect(),
                has_more: renditions.len() >= RENDITIONS_MAX,
                ..ListedUrls::default()
            };
        }
        let mut directories = Vec::new();
        directory_examples(kind, &text, |name| {
            let named = request.resolve_any_host(&self.rules, name);
            directories.extend(named.map(|named| named.directory()));
        });
        ListedUrls {
            directories,
            ..ListedUrls::default()
        }
    }

    async fn purge_prefix(self: &Arc<Self>, prefix: Arc<Prefix>) -> Option<CachePurge> {
        let shield = Arc::clone(self);
        let drop_all = move || {
            let mut purge = shield.cache.purging();
            shield.live.forget_where(|key| prefix.has(key));
            let of_keys = Arc::clone(&prefix);
            purge.all(move |key| of_keys.has(key), |place| prefix.has(place));
            purge
        };
        spawn_blocking(drop_all).await.ok()
    }

    fn request_of_url(&self, url: &Uri) -> Option<CacheRequest> {
        let headers = HeaderMap::new();
        // As in HTTP/2, the URL alone names the host.
        let (get, http2, unrestricted) = (&Method::GET, Version::HTTP_2, Requester::Unrestricted);
        match access(&self.rules, get, url, http2, &headers, unrestricted) {
            Admission::Cache(request) => Some(request),
            _ => None,
        }
    }

    /// Purges the URL; for a playlist also all its versions and its progress, so that any next
    /// version is accepted.
    ///
    /// If viewers' headers are part of the key, all keys of the URL are purged.
    fn forget(&self, request: &CacheRequest, purge: &mut CachePurge) {
        if let Some(url) = request.url() {
            purge.epoch(&url);
            self.live.forget_url(request);
        } else if let Some(tracker) = self.live.tracker(request) {
            tracker.forget();
        }
        purge.epoch(&request.playlist_epoch_key());
        purge.key(request.base_key(), request.kind);
        if request.base_key() != &request.key {
            purge.key(&request.key, request.kind);
        }
    }

    /// An unsafe method succeeded: purges its URI and the resources on the same host that the
    /// response names (RFC 9111 §4.4).
    pub(super) fn invalidate(&self, request: &CacheRequest, host: &str, response: &HeaderMap) {
        let mut purge = self.cache.purging();
        self.forget(request, &mut purge);
        for field in [LOCATION, CONTENT_LOCATION] {
            let named = response.get(field).and_then(|value| value.to_str().ok());
            let path = named.filter(|path| path.starts_with('/') && !path.starts_with("//"));
            let url = path.and_then(|path| format!("http://{host}{path}").parse().ok());
            if let Some(request) = url.and_then(|url| self.request_of_url(&url)) {
                self.forget(&request, &mut purge);
            }
        }
    }
}

impl Prefix {
    /// `None`: no route serves a URL with this prefix.
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
        }) = key.request_parts()
        else {
            return false;
        };
        let mut origins = self.origins.iter();
        target.starts_with(&self.target)
            && origins.any(|(one, named)| **one == *origin && **named == *host)
    }
}
