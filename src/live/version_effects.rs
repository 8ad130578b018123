//! Records a version of a manifest in all that `LiveStreams` knows, and returns what the caller has
//! to change elsewhere: in the cache, and by prefetches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::manifest_diff::{AnnouncedPart, ManifestDiff};
use super::representations::ExpectedSegment;
use super::window::WindowChange;
use super::{LiveStreams, PlaylistTracker, Variant, places};
use seawall_manifest::Manifest;
use seawall_policy::access::CacheRequest;
use seawall_policy::progress::Progress;
use seawall_policy::{Key, Now};

/// A version that is published from now on.
pub(crate) struct ManifestVersion<'a> {
    pub(crate) request: &'a CacheRequest,
    pub(crate) manifest: &'a Manifest,
    pub(crate) variant: Variant,
    pub(crate) progress: Progress,
    /// When the poll was sent; if the origin held the response back, the moment when the version
    /// became the newest.
    pub(crate) seen: Instant,
    /// The origin held the response back.
    pub(crate) held_back: bool,
}

/// What a recorded version changes outside the trackers.
#[derive(Default)]
pub(crate) struct VersionEffects {
    /// URLs that the version is the first to name as uncacheable: stored responses must go.
    pub(crate) uncacheable: Vec<CacheRequest>,
    /// Segments that became newer or departed: the cache evicts by these.
    pub(crate) window: WindowChange,
    /// Epochs to end: of the directories from before a restart, and of the objects that no
    /// manifest listed until now.
    pub(crate) ended_epochs: Vec<Key>,
    /// New objects to prefetch if viewers want them.
    pub(crate) to_prefetch: Vec<ExpectedSegment>,
    /// Objects that do not exist yet; the origin holds a request for them back.
    pub(crate) announced: Vec<AnnouncedPart>,
}

impl LiveStreams {
    /// Records a version. `tracker`: the tracker of the manifest, if it has one. The caller holds
    /// the tracker's turn.
    pub(crate) fn record_version(
        &self,
        tracker: Option<&Arc<PlaylistTracker>>,
        version: &ManifestVersion,
        now: Now,
    ) -> VersionEffects {
        let ManifestVersion {
            request, manifest, ..
        } = version;
        if manifest.info.is_multivariant() {
            self.join_stream(request, manifest, version.seen);
        }
        let uncacheable = self
            .uncacheable
            .learn(&self.rules, request, &manifest.listing);
        let Some(tracker) = tracker else {
            return VersionEffects {
                uncacheable,
                ..VersionEffects::default()
            };
        };
        let mut diff = tracker.take_version(&self.rules, version, now);
        self.register(&diff, tracker);
        let mut window = std::mem::take(&mut diff.slide);
        if !window.departed.is_empty() {
            for other in self.beside(tracker, diff.found) {
                other.keeps(&mut window.departed);
            }
        }
        VersionEffects {
            uncacheable,
            window,
            ended_epochs: diff.epochs_to_end(tracker),
            to_prefetch: diff.to_prefetch,
            announced: diff.announced,
        }
    }

    /// Registers what a new version of this manifest lists.
    pub(super) fn register(&self, diff: &ManifestDiff, tracker: &Arc<PlaylistTracker>) {
        let (bytes, directories) = (tracker.weight_bytes(), tracker.places());
        let mut lists = self.lists.lock();
        lists.sweep(diff.found);
        if diff.numbered {
            self.any_numbered.store(true, Ordering::Relaxed);
        }
        lists.weigh(tracker, bytes, diff.found);
        let listed = diff.listed.iter().map(|key| self.hasher.hash_one(key));
        lists.mark_new(listed, diff.new_until);
        places::register_version(&mut lists.places, diff, &directories, tracker);
        lists.announce(diff);
        drop(lists);
        self.notify_others(diff, tracker);
    }

    /// Applies what a version says about other manifests: files may grow; and where a packager
    /// restarted, every manifest that lists from the same directories begins to remember what it
    /// lists.
    pub(super) fn notify_others(&self, diff: &ManifestDiff, tracker: &Arc<PlaylistTracker>) {
        if diff.ranged {
            self.any_ranged.store(true, Ordering::Relaxed);
        }
        if !diff.restarted_directories.is_empty() {
            self.any_anew.store(true, Ordering::Relaxed);
        } else if !self.any_anew.load(Ordering::Relaxed) {
            return;
        }
        let neighbors = self.trackers_in(&diff.restarted_directories);
        let newcomer_to = self.trackers_in(&diff.places);
        for neighbor in neighbors {
            neighbor.record_neighbor_restart(diff.found);
        }
        let mut others = newcomer_to.iter();
        if others.any(|other| other.has_unfinished_restart(diff.found)) {
            tracker.record_neighbor_restart(diff.found);
        }
    }
}
