//! Records a version of a manifest in all that `LiveStreams` knows, and returns what the caller has
//! to change elsewhere: in the cache, and by prefetches.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::expected_segment::ExpectedSegment;
use super::listed_window::WindowChange;
use super::manifest_diff::{AnnouncedPart, ManifestDiff, ManifestVersion};
use super::{LiveStreams, ManifestTracker, directories};
use seawall_policy::access::CacheRequest;
use seawall_policy::{Key, Now, Rules};

/// What a recorded version changes outside the trackers.
#[derive(Default)]
pub(crate) struct VersionEffects {
    /// URLs that the version is the first to name as uncacheable: stored responses must go.
    pub(crate) uncacheable: Vec<CacheRequest>,
    /// Segments that were added or dropped: the cache evicts by these.
    pub(crate) window: WindowChange,
    /// Epochs to end: of the directories from before a restart, and of the objects that no
    /// manifest listed until now.
    pub(crate) epochs_to_end: Vec<Key>,
    /// New objects to prefetch if viewers want them.
    pub(crate) to_prefetch: Vec<ExpectedSegment>,
    /// Objects that do not exist yet: the origin blocks a request for them until they do.
    pub(crate) announced: Vec<AnnouncedPart>,
}

impl LiveStreams {
    /// Records a version. `tracker`: the tracker of the manifest, if it has one. The caller holds
    /// the tracker's `lock_publishing`.
    pub(crate) fn record_version(
        &self,
        rules: &Rules,
        tracker: Option<&Arc<ManifestTracker>>,
        version: &ManifestVersion,
        now: Now,
    ) -> VersionEffects {
        let ManifestVersion {
            request, manifest, ..
        } = version;
        if manifest.info.is_multivariant() {
            self.join_stream(rules, request, manifest, version.current_at);
        }
        let uncacheable = self.uncacheable.learn(rules, request, &manifest.listing);
        let Some(tracker) = tracker else {
            return VersionEffects {
                uncacheable,
                ..VersionEffects::default()
            };
        };
        let mut diff = tracker.apply_version(rules, version, now);
        self.register(&diff, tracker);
        let mut window = std::mem::take(&mut diff.window_change);
        if !window.dropped.is_empty() {
            for other in self.neighbors_in_use(tracker, diff.current_at) {
                other.remove_listed(&mut window.dropped);
            }
        }
        VersionEffects {
            uncacheable,
            window,
            epochs_to_end: diff.epochs_to_end(&tracker.directories()),
            to_prefetch: diff.to_prefetch,
            announced: diff.announced,
        }
    }

    /// Registers what a new version of this manifest lists.
    pub(super) fn register(&self, diff: &ManifestDiff, tracker: &Arc<ManifestTracker>) {
        let (bytes, directories) = (tracker.weight_bytes(), tracker.directories());
        let mut index = self.index.lock();
        index.sweep(diff.current_at);
        if diff.has_numbered_directories {
            self.has_numbered_directories.store(true, Ordering::Relaxed);
        }
        index.update_size(tracker, bytes, diff.current_at);
        let listed = diff.listed.iter().map(|key| self.hasher.hash_one(key));
        index.mark_new(listed, diff.new_until);
        directories::register_version(&mut index.directories, diff, &directories, tracker);
        index.record_announced(diff);
        drop(index);
        self.notify_others(diff, tracker);
    }

    /// Applies what a version says about other manifests: files may grow; and where a packager
    /// restarted, every manifest that lists from the same directories begins to remember what it
    /// lists.
    pub(super) fn notify_others(&self, diff: &ManifestDiff, tracker: &Arc<ManifestTracker>) {
        if diff.has_byte_ranges {
            self.has_byte_ranges.store(true, Ordering::Relaxed);
        }
        if !diff.restart.all.is_empty() {
            self.has_restarts.store(true, Ordering::Relaxed);
        } else if !self.has_restarts.load(Ordering::Relaxed) {
            return;
        }
        for neighbor in self.trackers_of_directories_with_unstored(&diff.restart.all) {
            neighbor.record_neighbor_restart(diff.current_at);
        }
        let neighbors = self.trackers_of_directories_with_unstored(&diff.new_directories);
        let has_restarted =
            |neighbor: &Arc<ManifestTracker>| neighbor.has_unfinished_restart(diff.current_at);
        if neighbors.iter().any(has_restarted) {
            tracker.record_neighbor_restart(diff.current_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::live::fixtures::{
        at, one_segment, playlist, publish, request, rules, seconds, version,
    };
    use seawall_manifest::{Kind, Manifest, read_manifest};
    use seawall_policy::progress::Progress;

    /// The paths of the objects to prefetch.
    fn prefetched(effects: &VersionEffects) -> Vec<&str> {
        let segments = effects.to_prefetch.iter();
        segments
            .map(|segment| segment.request.target.path())
            .collect()
    }

    #[test]
    fn the_first_version_changes_nothing_else() {
        let (live, start) = (LiveStreams::new(1 << 30), Instant::now());
        let (_, _, effects) = publish(&live, "/live/a.m3u8", &one_segment(1), start);
        assert_eq!(prefetched(&effects), [""; 0]);
        assert!(effects.epochs_to_end.is_empty() && effects.window.dropped.is_empty());
    }

    #[test]
    fn a_new_segment_is_prefetched_and_the_old_one_departs() {
        let (live, start) = (LiveStreams::new(1 << 30), Instant::now());
        publish(&live, "/live/a.m3u8", &one_segment(1), start);
        let next = start + seconds(4);
        let (_, progress, effects) = publish(&live, "/live/a.m3u8", &one_segment(2), next);
        assert_eq!(progress, Progress::Newer);
        assert_eq!(prefetched(&effects), ["/live/2.ts"]);
        let dropped = request("/live/1.ts").key.fingerprint();
        assert_eq!(effects.window.dropped, [dropped]);
        assert!(effects.epochs_to_end.is_empty());
        let now = next + seconds(1);
        assert!(live.is_new(&request("/live/2.ts").key, now));
    }

    #[test]
    fn a_segment_that_another_playlist_still_lists_does_not_depart() {
        let (live, start) = (LiveStreams::new(1 << 30), Instant::now());
        for uri in ["/live/a.m3u8", "/live/b.m3u8"] {
            let (tracker, ..) = publish(&live, uri, &one_segment(1), start);
            tracker.access.set_has_refresher(true);
        }
        let next = start + seconds(4);
        let (_, _, effects) = publish(&live, "/live/a.m3u8", &one_segment(2), next);
        assert_eq!(effects.window.dropped, [0; 0]);
    }

    #[test]
    fn a_restart_ends_the_epoch_of_its_directory_once() {
        let (live, start) = (LiveStreams::new(1 << 30), Instant::now());
        let directory = request("/live/1.ts").directory();
        publish(&live, "/live/a.m3u8", &one_segment(5000), start);
        let next = start + seconds(4);
        let (_, progress, effects) = publish(&live, "/live/a.m3u8", &one_segment(1), next);
        assert_eq!(progress, Progress::Restarted);
        assert!(effects.epochs_to_end.contains(&directory));
        let next = next + seconds(4);
        let (_, _, effects) = publish(&live, "/live/a.m3u8", &one_segment(2), next);
        assert!(!effects.epochs_to_end.contains(&directory));
        assert_eq!(effects.epochs_to_end, [super::super::unlisted(&directory)]);
    }

    /// Segments of 2 s that are announced in versions up to 30 s apart.
    fn rarely_updated_mpd(media: &str) -> Manifest {
        let mpd = format!(
            "<MPD type='dynamic' availabilityStartTime='1970-01-01T00:00:00Z' \
             minimumUpdatePeriod='PT30S'><Period start='PT0S'><AdaptationSet>{media}\
             <Representation/></AdaptationSet></Period></MPD>"
        );
        read_manifest(Kind::Dash, mpd.as_bytes()).unwrap()
    }

    fn timeline_until(last: usize) -> Manifest {
        rarely_updated_mpd(&format!(
            "<SegmentTemplate media='$Number$.m4s'><SegmentTimeline><S t='0' d='2' r='{last}'/>\
             </SegmentTimeline></SegmentTemplate>"
        ))
    }

    #[test]
    fn eviction_learns_the_time_between_segments_not_between_versions() {
        let (live, start) = (LiveStreams::new(1 << 30), Instant::now());
        publish(&live, "/live/a.mpd", &timeline_until(9), start);
        let next = start + seconds(30);
        let (_, _, effects) = publish(&live, "/live/a.mpd", &timeline_until(24), next);
        let advances = effects.window.advances;
        assert_eq!(
            (advances[0].segments, advances[0].segment_interval_ms),
            (15, 2000)
        );
    }

    #[test]
    fn eviction_learns_the_time_between_segments_that_the_clock_announces() {
        let (live, start) = (LiveStreams::new(1 << 30), Instant::now());
        let by_clock = rarely_updated_mpd("<SegmentTemplate media='$Number$.m4s' duration='2'/>");
        let (tracker, ..) = publish(&live, "/live/a.mpd", &by_clock, start);
        assert_eq!(tracker.clock_advance(0).segment_interval_ms, 2000);
    }

    #[test]
    fn the_first_version_is_no_poll_that_found_nothing() {
        let (live, start) = (LiveStreams::new(1 << 30), Instant::now());
        let (tracker, ..) = publish(&live, "/live/a.m3u8", &one_segment(1), start);
        assert_eq!(
            tracker.next_version_in(start),
            Some(seconds(3)),
            "a search at three quarters of the interval narrows the time of the change"
        );
        assert_eq!(
            tracker.stream.stats(0, None).ideal_requests,
            1,
            "it had to be requested"
        );
    }

    #[test]
    fn the_first_version_of_a_variant_says_nothing_about_the_cadence() {
        let (live, start) = (LiveStreams::new(1 << 30), Instant::now());
        let (tracker, ..) = publish(&live, "/live/a.m3u8", &one_segment(1), start);
        let due = tracker.next_version_in(start);
        let (manifest, request) = (one_segment(1), request("/live/a.m3u8"));
        let other = live.variant(Some(b"other"));
        let later = start + seconds(1);
        let version = ManifestVersion {
            variant: other,
            ..version(
                &request,
                &manifest,
                tracker.progress_of(other, &manifest.info, later),
                later,
            )
        };
        live.record_version(&rules(), Some(&tracker), &version, at(later));
        assert_eq!(tracker.next_version_in(start), due);
    }

    #[test]
    fn the_first_version_after_a_purge_is_no_change_at_the_origin() {
        let (live, start) = (LiveStreams::new(1 << 30), Instant::now());
        let (tracker, ..) = publish(&live, "/live/a.m3u8", &one_segment(1), start);
        let due = tracker.next_version_in(start);
        tracker.forget();
        publish(&live, "/live/a.m3u8", &one_segment(1), start + seconds(1));
        assert_eq!(tracker.next_version_in(start), due);
    }

    #[test]
    fn an_unchanged_version_changes_nothing() {
        let (live, start) = (LiveStreams::new(1 << 30), Instant::now());
        publish(&live, "/live/a.m3u8", &one_segment(1), start);
        let next = start + seconds(4);
        let (_, progress, effects) = publish(&live, "/live/a.m3u8", &one_segment(1), next);
        assert_eq!(progress, Progress::Same);
        assert_eq!(prefetched(&effects), [""; 0]);
        assert!(effects.epochs_to_end.is_empty() && effects.window.dropped.is_empty());
    }

    #[test]
    fn a_key_is_purged_when_a_manifest_first_names_it() {
        let (live, start) = (LiveStreams::new(1 << 30), Instant::now());
        let manifest = playlist("#EXT-X-KEY:METHOD=AES-128,URI=\"k\"\n#EXTINF:4,\n1.ts\n");
        for is_first in [true, false] {
            let (_, _, effects) = publish(&live, "/live/a.m3u8", &manifest, start);
            let named: Vec<_> = effects.uncacheable.iter().collect();
            assert_eq!(named.len(), usize::from(is_first));
        }
    }
}
