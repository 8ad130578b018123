//! Purges what an operator selects: a URL, a path, a stream, a prefix, a host, or everything; and
//! invalidates what an unsafe request has changed at the origin (RFC 9111 §4.4).

mod counts;
mod selection;
mod unknown;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, HeaderValue, Uri};
use tokio::task::spawn_blocking;

pub(super) use self::counts::PurgeCounters;
pub use self::counts::PurgeStats;
use self::selection::KeySelection;
pub use self::unknown::UnknownTarget;
use super::{Shield, coding};
use crate::live::unlisted;
pub use seawall_cache::PurgeMode;
use seawall_cache::{CachePurge, Object};
use seawall_manifest::{RENDITIONS_MAX, directory_examples, read_manifest};
use seawall_policy::Key;
use seawall_policy::access::{Admission, CacheRequest};
use seawall_policy::tags::{self, TagScope};

/// Maximum manifests read for one stream: more than any stream has, even with personalised URLs.
const MANIFESTS_MAX: usize = 4096;

/// The process before an upgrade knows nothing of the purges of this one. This comes first: a fill
/// that begins after a purge must not bring back what it has dropped.
const PURGED: &str = "there was a purge";

/// The result of a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Number of objects removed; of a dry run, of those that would be.
    pub objects: u64,
    /// Bytes that these objects took in memory, overhead included.
    pub bytes: u64,
    /// If false, the stream has more manifests than were read, and some of its objects may remain.
    pub is_complete: bool,
    /// Viewers got these objects by other host names too.
    pub is_shared_among_hosts: bool,
}

/// A purge that an operator orders.
#[derive(Clone, Debug)]
pub struct PurgeOrder {
    /// What to purge.
    pub scope: PurgeScope,
    /// What to do with it.
    pub mode: PurgeMode,
    /// Who orders it, for the log.
    pub actor: String,
}

/// A purge before it is finished; the rest as in [`Purged`].
struct BegunPurge {
    purge: CachePurge,
    is_known: bool,
    is_complete: bool,
    is_shared_among_hosts: bool,
}

impl BegunPurge {
    fn of(purge: CachePurge) -> BegunPurge {
        BegunPurge {
            purge,
            is_known: true,
            is_complete: true,
            is_shared_among_hosts: false,
        }
    }
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
    /// The path of this URL, with any query.
    Path(Uri),
    /// The stream of a manifest: its manifests, their trackers, and everything in the directories
    /// of their segments.
    Stream(Uri),
    /// Every URL with this prefix.
    Prefix(Uri),
    /// Every URL with the host of this one.
    Host(Uri),
    /// Every object with one of these tags.
    Tags(TagSelection),
    /// Everything.
    Everything,
}

/// Tags, as origins name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagSelection {
    /// An object needs one of these.
    pub tags: Vec<String>,
    /// The origin group. `None`: all.
    pub origin: Option<String>,
}

impl PurgeScope {
    /// The names of all scopes.
    pub const NAMES: [&'static str; 7] = ["url", "path", "stream", "prefix", "host", "tag", "all"];

    /// Its name: the parameter of the request, and the label of the metric.
    pub fn name(&self) -> &'static str {
        match self {
            PurgeScope::Url(_) => "url",
            PurgeScope::Path(_) => "path",
            PurgeScope::Stream(_) => "stream",
            PurgeScope::Prefix(_) => "prefix",
            PurgeScope::Host(_) => "host",
            PurgeScope::Tags(_) => "tag",
            PurgeScope::Everything => "all",
        }
    }
}

impl Shield {
    /// Carries out a purge: once it has returned, nothing is served that it selects and that was
    /// requested from the origin before. The error: no route serves it, or the stream is unknown.
    pub async fn purge(self: &Arc<Self>, order: PurgeOrder) -> Result<Purged, UnknownTarget> {
        let PurgeOrder { scope, mode, actor } = order;
        if mode != PurgeMode::DryRun {
            self.handover.end_asking(PURGED);
        }
        let unknown = || self.unknown_target(&scope);
        let begun = self.begin_purge(&scope, mode).await.ok_or_else(unknown)?;
        let (is_known, is_complete) = (begun.is_known, begun.is_complete);
        let purge = begun.purge;
        let count = spawn_blocking(|| purge.finish()).await;
        let count = count.map_err(|_| unknown())?;
        self.purges.record(&scope, mode, count);
        let (objects, bytes, mode) = (count.objects, count.bytes, mode.as_str());
        tracing::info!(objects, bytes, mode, actor, ?scope, "purged");
        if !is_complete {
            tracing::warn!(
                ?scope,
                "the stream has too many manifests to purge all of them: purge the rest by prefix"
            );
        }
        if !is_known && objects == 0 {
            return Err(unknown());
        }
        Ok(Purged {
            objects,
            bytes,
            is_complete,
            is_shared_among_hosts: begun.is_shared_among_hosts,
        })
    }

    /// Counters of purges, for metrics.
    pub fn purges(&self) -> PurgeStats {
        self.purges.read()
    }

    /// The first step: from now on nothing of it is served. `None`: no route serves it.
    async fn begin_purge(
        self: &Arc<Self>,
        scope: &PurgeScope,
        mode: PurgeMode,
    ) -> Option<BegunPurge> {
        let selection = match scope {
            PurgeScope::Url(url) => {
                let mut purge = self.cache.purging(mode);
                self.forget(&self.request_of_url(url)?, &mut purge);
                return Some(BegunPurge::of(purge));
            }
            PurgeScope::Stream(url) => {
                let request = self.request_of_url(url)?;
                let shield = Arc::clone(self);
                return spawn_blocking(move || shield.purge_stream(&request, mode))
                    .await
                    .ok();
            }
            PurgeScope::Tags(selection) => {
                let shield = Arc::clone(self);
                let selection = selection.clone();
                let purge = spawn_blocking(move || shield.purge_tags(&selection, mode));
                return Some(BegunPurge::of(purge.await.ok()??));
            }
            PurgeScope::Path(url) => KeySelection::path(&self.request_of_url(url)?),
            PurgeScope::Prefix(url) => KeySelection::prefix(&self.rules, url)?,
            PurgeScope::Host(url) => KeySelection::host(&self.rules, url)?,
            PurgeScope::Everything => KeySelection::Everything,
        };
        let is_shared_among_hosts = selection.is_shared_among_hosts();
        let purge = self.purge_keys(selection, mode).await?;
        Some(BegunPurge {
            is_shared_among_hosts,
            ..BegunPurge::of(purge)
        })
    }

    /// `None`: there is no such origin.
    fn purge_tags(&self, selection: &TagSelection, mode: PurgeMode) -> Option<CachePurge> {
        let is_named = |origin: &&str| selection.origin.as_ref().is_none_or(|name| name == origin);
        let origins = self.rules.routes.iter().map(|route| &*route.origin);
        let origins: BTreeSet<&str> = origins.filter(is_named).collect();
        let mut purge = self.cache.purging(mode);
        for origin in &origins {
            let scope = TagScope { origin, host: b"" };
            for tag in &selection.tags {
                purge.tag(&scope.tag(tag.as_bytes()));
            }
            purge.tag(&scope.overflow());
        }
        (!origins.is_empty()).then_some(purge)
    }

    fn purge_stream(&self, request: &CacheRequest, mode: PurgeMode) -> BegunPurge {
        let mut purge = self.cache.purging(mode);
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
        BegunPurge {
            is_known,
            is_complete,
            ..BegunPurge::of(purge)
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

    async fn purge_keys(
        self: &Arc<Self>,
        selection: KeySelection,
        mode: PurgeMode,
    ) -> Option<CachePurge> {
        let shield = Arc::clone(self);
        let drop_all = move || {
            let mut purge = shield.cache.purging(mode);
            let selection = Arc::new(selection);
            if mode == PurgeMode::Hard {
                shield.live.forget_where(|key| selection.has(key));
            }
            let of_keys = Arc::clone(&selection);
            purge.all(
                move |key| of_keys.has(key),
                |place| selection.has_directory(place),
            );
            purge
        };
        spawn_blocking(drop_all).await.ok()
    }

    pub(super) fn request_of_url(&self, url: &Uri) -> Option<CacheRequest> {
        match self.admit_url(url) {
            Admission::Cache(request) => Some(request),
            _ => None,
        }
    }

    /// Purges the URL; for a playlist also all its versions and its progress, so that any next
    /// version is accepted.
    ///
    /// If viewers' headers are part of the key, all keys of the URL are purged.
    fn forget(&self, request: &CacheRequest, purge: &mut CachePurge) {
        let url = request.url();
        if let Some(url) = &url {
            purge.epoch(url);
        }
        if purge.mode() == PurgeMode::Hard {
            match self.live.tracker(request) {
                _ if url.is_some() => self.live.forget_url(request),
                Some(tracker) => tracker.forget(),
                None => {}
            }
        }
        purge.epoch(&request.playlist_epoch_key());
        purge.key(request.base_key(), request.kind);
        if request.base_key() != &request.key {
            purge.key(&request.key, request.kind);
        }
    }

    /// An unsafe method succeeded: purges its URI, the resources on the same host that the response
    /// names (RFC 9111 §4.4), and the cache groups that it names (RFC 9875 §3).
    pub(super) fn invalidate(&self, request: &CacheRequest, host: &str, response: &HeaderMap) {
        self.handover.end_asking(PURGED);
        let mut purge = self.cache.purging(PurgeMode::Hard);
        self.forget(request, &mut purge);
        let scope = tag_scope(request);
        let groups = tags::invalidated_groups(response, scope);
        if !groups.is_empty() {
            purge.tag(&scope.overflow());
        }
        for group in &groups {
            purge.tag(group);
        }
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

/// Where the tags of a request's response belong.
pub(super) fn tag_scope(request: &CacheRequest) -> TagScope<'_> {
    TagScope {
        origin: &request.route.origin,
        host: request.sent_host().map_or(b"", HeaderValue::as_bytes),
    }
}
