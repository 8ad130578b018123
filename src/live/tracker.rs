//! Tracks one live manifest across its versions.
//!
//! A version changes most of what is known of its manifest at once, under one lock:
//! `tracker_state::TrackerState`. So its parts are no objects of their own. Each file holds the
//! methods of `ManifestTracker` (T) or `TrackerState` (S) for one subject:
//!
//! | subject | file |
//! |---|---|
//! | comparing and applying a version; the position of an object; avoided endpoints | this one (T) |
//! | the fields; the durations that a version states | `tracker_state` (S) |
//! | what a version lists, compared with the version before | `manifest_diff` (S) |
//! | the ends of files that grow | `growing_files` (S) |
//! | do viewers watch it, and with which header fields is it requested in their absence | `demand` (T) |
//! | when is the next version due, when and how is it polled | `poll_schedule` (T, S) |
//! | is it late, stalled, live, or old by its own statement | `standstill` (T) |
//! | what has it listed since a restart | `restart_leftovers` (T) |
//! | its state for metrics and `/status` | `snapshot` (T) |
//! | the memory it uses | `tracker_size` (T) |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::avoided::AvoidedEndpoint;
use super::listed_window::millis;
use super::manifest_diff::{
    ManifestDiff, ManifestVersion, RestartedDirectories, VersionComparison,
};
use super::mpd_horizon::MpdHorizon;
use super::names_since_restart::NamesSinceRestart;
use super::owned_request::owned;
use super::representations::Representations;
use super::stream::LiveStream;
use super::tracker_state::TrackerState;
use super::variants::Variant;
use seawall_cache::AccessTracker;
use seawall_cache::eviction::{Advance, LivePosition};
use seawall_manifest::ManifestInfo;
use seawall_manifest::low_latency::ReloadDirectives;
use seawall_policy::access::CacheRequest;
use seawall_policy::progress::Progress;
use seawall_policy::{EndpointSet, Key, Now, Route, Rules, StreamNumber};

/// The manifests of a stream report a restart one after another, all within this many reload
/// intervals.
const RESTARTED_INTERVALS: u32 = 4;

/// A segment or a part that a manifest lists.
pub(crate) struct ListedObject {
    /// About the duration of its media.
    pub(crate) duration: Duration,
    /// It is a whole segment, not a part.
    pub(crate) is_segment: bool,
}

/// The tracker of one requested manifest.
pub(crate) struct ManifestTracker {
    /// The request for it, without delivery directives, as it was first made.
    pub(crate) request: CacheRequest,
    /// Its route as of the last reload.
    route: ArcSwap<Route>,
    pub(crate) access: Arc<AccessTracker>,
    pub(super) stream: Arc<LiveStream>,
    /// A task prefetches the segments whose times its clock gives.
    pub(super) has_clock_prefetch: AtomicBool,
    /// Notifies requests that wait for a version when any fill registers one.
    pub(crate) version_stored: Notify,
    pub(super) state: Mutex<TrackerState>,
    /// MPD only: how far the origin is ahead of the MPD's clock.
    pub(super) horizon: Mutex<MpdHorizon>,
    /// Locked while a version is compared, applied and published: one version at a time.
    publishing: Mutex<()>,
    /// The bytes of this tracker in the total of all trackers.
    pub(super) counted_bytes: AtomicUsize,
}

impl ManifestTracker {
    /// Starts with the first version.
    pub(super) fn new(
        request: CacheRequest,
        stream: Arc<LiveStream>,
        info: &ManifestInfo,
        current_at: Instant,
    ) -> ManifestTracker {
        ManifestTracker {
            route: ArcSwap::new(Arc::clone(&request.route)),
            request: owned(request),
            access: Arc::new(AccessTracker::new(current_at)),
            stream,
            has_clock_prefetch: AtomicBool::new(false),
            state: Mutex::new(TrackerState::new(info, current_at)),
            horizon: Mutex::default(),
            publishing: Mutex::default(),
            counted_bytes: AtomicUsize::new(0),
            version_stored: Notify::new(),
        }
    }

    /// The number of its stream.
    pub(crate) fn stream_number(&self) -> Option<StreamNumber> {
        self.stream.number()
    }

    /// Its route, with the settings of now.
    pub(crate) fn route(&self) -> Guard<Arc<Route>> {
        self.route.load()
    }

    /// Follows a reload. `false`: by these rules viewers have no such manifest any more, or one
    /// with another key.
    pub(super) fn follow(&self, rules: &Rules) -> bool {
        let request = self.request.under(rules);
        let has_request = request.is_some();
        if let Some(request) = request {
            self.route.store(request.route);
        }
        has_request
    }

    /// The caller holds it while a version is compared, applied and published.
    pub(crate) fn lock_publishing(&self) -> MutexGuard<'_, ()> {
        self.publishing.lock()
    }

    /// Longest time by which the publication of a version is delayed until its new segments begin
    /// to arrive.
    pub(crate) fn publication_delay_max(&self) -> Duration {
        const SHARE: u32 = 20;
        self.state.lock().reload_interval_max / SHARE
    }

    /// How long a viewer waits whose request for a future version all endpoints reject, before it
    /// gets the stored version: half the interval between versions. It limits how often a player
    /// that repeats the request at once gets the same version. Not to be confused with the time for
    /// which `proxy` stores what the origin itself answers too early; `docs/live.md` states both.
    pub(crate) fn pause_before_stored_version(&self) -> Duration {
        self.state.lock().version_interval / 2
    }

    /// Forgets the history: the next version of each variant counts as the first.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock();
        state.variants.forget();
        state.last_live = None;
    }

    /// The directories of the listed objects.
    pub(crate) fn directories(&self) -> Vec<Key> {
        self.state.lock().directories.clone()
    }

    /// Has a newer version of this variant been accepted after `then`?
    pub(crate) fn has_newer_version(&self, variant: Variant, then: Instant) -> bool {
        let state = self.state.lock();
        state
            .variants
            .accepted_at(variant)
            .is_some_and(|accepted_at| accepted_at > then)
    }

    /// Compares a version with the latest one of its variant.
    pub(crate) fn progress_of(
        &self,
        variant: Variant,
        info: &ManifestInfo,
        now: Instant,
    ) -> Progress {
        self.state.lock().variants.progress_of(variant, info, now)
    }

    /// What the manifest says of an object that it lists. `None`: it does not list it.
    pub(crate) fn listed_object(&self, request: &CacheRequest) -> Option<ListedObject> {
        let state = self.state.lock();
        let is_segment = state.window.is_segment(request.key.fingerprint())?;
        let duration = if is_segment {
            state.segment_duration
        } else {
            state.version_interval
        };
        Some(ListedObject {
            duration,
            is_segment,
        })
    }

    /// The segment duration.
    pub(crate) fn segment_duration(&self) -> Duration {
        self.state.lock().segment_duration
    }

    /// The wait after which a blocking request for a version, or for an announced object, is
    /// overdue.
    pub(crate) fn overdue_after(
        &self,
        requested: ReloadDirectives,
        now: Instant,
    ) -> Option<Duration> {
        let state = self.state.lock();
        let newest_since = state.accepted_at.unwrap_or(state.current_since);
        state
            .blocking
            .overdue_after(requested, now.saturating_duration_since(newest_since))
    }

    /// Does the request ask for a future version that the server will block for?
    pub(super) fn will_block_for(&self, requested: ReloadDirectives) -> bool {
        self.state.lock().blocking.will_block_for(requested)
    }

    /// The media sequence number of its last segment, if segments are numbered.
    pub(crate) fn last_sequence(&self) -> Option<u64> {
        self.state.lock().variants.last_sequence()
    }

    /// Records a poll that brought nothing newer than the known version.
    pub(crate) fn record_unchanged(&self, variant: Variant, current_at: Instant) {
        let mut state = self.state.lock();
        state.cadence.unchanged(current_at);
        state.variants.record_unchanged(variant, current_at);
        state.record_response(current_at);
    }

    /// Applies a version that is published from now on. Returns what it changes elsewhere.
    pub(super) fn apply_version(
        &self,
        rules: &Rules,
        version: &ManifestVersion,
        now: Now,
    ) -> ManifestDiff {
        let ManifestVersion {
            manifest,
            progress,
            current_at,
            ..
        } = *version;
        let state = &mut *self.state.lock();
        let is_first = state.accepted_at.is_none();
        state.record_response(current_at);
        let restart = (progress == Progress::Restarted).then(|| self.begin_restart(state, version));
        let has_previous = state.variants.has_version(version.variant);
        record_progress(state, version);
        self.record_durations(state, &manifest.info, current_at);
        self.update_cadence(state, version, has_previous);
        if progress != Progress::Same {
            self.record_accepted(state, version.variant, now.mono);
        }
        let comparison = VersionComparison {
            request: &self.request,
            rules,
            manifest,
            is_first,
            current_at,
            wall: now.wall,
        };
        let mut diff = state.compare_version(&comparison);
        diff.restart = restart.unwrap_or_default();
        diff.records_names = progress != Progress::Same && state.listed_since_restart.is_some();
        state.end_finished_restart(current_at);
        diff
    }

    /// Forgets what was listed before a restart.
    fn begin_restart(
        &self,
        state: &mut TrackerState,
        version: &ManifestVersion,
    ) -> RestartedDirectories {
        let current_at = version.current_at;
        *self.horizon.lock() = MpdHorizon::default();
        let all = state.forget_listed();
        state.listed_since_restart = Some(Box::new(NamesSinceRestart::new(true, current_at)));
        let restarted_within = state.reload_interval_max * RESTARTED_INTERVALS;
        let manifest = version.variant.name(self.request.base_key());
        let epochs_to_end =
            self.stream
                .record_restart(&manifest, all.clone(), (current_at, restarted_within));
        RestartedDirectories { all, epochs_to_end }
    }

    /// Records what a version states about durations and liveness.
    fn record_durations(&self, state: &mut TrackerState, info: &ManifestInfo, current_at: Instant) {
        if let Some(target) = info.stated_reload_interval() {
            self.stream.set_target_duration(target);
        }
        state.record_info(info, current_at);
    }

    /// Updates the cadence with the result of a poll. The first version of a variant is no result:
    /// it says nothing about when the manifest changes.
    fn update_cadence(
        &self,
        state: &mut TrackerState,
        version: &ManifestVersion,
        has_previous: bool,
    ) {
        let current_at = version.current_at;
        if version.may_be_from_blocking_request {
            // A version for which the origin blocked is never late: it did not exist earlier.
            state.cadence.unchanged(current_at);
        }
        if !has_previous {
            return;
        }
        match version.progress {
            Progress::Newer | Progress::Restarted => {
                let change = state.cadence.changed(current_at, state.version_interval);
                let current_for = current_at.saturating_duration_since(state.current_since);
                // Without a refresher the last poll may be long ago.
                if self.access.has_refresher() {
                    self.stream.record_replaced(current_for, change.late);
                }
                state.current_since = current_at;
            }
            Progress::Same | Progress::Behind => state.cadence.unchanged(current_at),
        }
    }

    /// Records that the current version changed.
    fn record_accepted(&self, state: &mut TrackerState, variant: Variant, now: Instant) {
        state.accepted_at = Some(now);
        state.variants.record_accepted(variant, now);
        self.stream.add_ideal_requests(1);
    }

    /// The representations, if it is an MPD.
    pub(super) fn representations(&self) -> Arc<Representations> {
        Arc::clone(&self.state.lock().representations)
    }

    /// Avoids an endpoint that sent a rejected version: others are tried first for a time. True if
    /// the endpoint was not avoided before.
    pub(crate) fn avoid(&self, endpoint: usize, now: Instant) -> bool {
        let mut state = self.state.lock();
        let reload_interval_max = state.reload_interval_max;
        AvoidedEndpoint::record_rejection(&mut state.avoided, endpoint, (reload_interval_max, now))
    }

    /// The endpoints that are avoided now.
    pub(crate) fn avoided(&self, now: Instant) -> EndpointSet {
        AvoidedEndpoint::still_avoided(&self.state.lock().avoided, now)
    }

    /// The position of an object that the live manifest lists or announces.
    pub(super) fn position(
        &self,
        rules: &Rules,
        request: &CacheRequest,
        now: SystemTime,
    ) -> Option<LivePosition> {
        let state = self.state.lock();
        if state.ended {
            return None;
        }
        let listed = state.window.position(request.key.fingerprint());
        let announced = || {
            let is_announced = state.announces_whole(&request.key);
            is_announced.then(|| state.window.next_part())
        };
        let by_clock = || {
            let representations = &state.representations;
            let position = representations.clock_position(rules, &self.request, request, now)?;
            Some(state.window.clock_position(position))
        };
        listed.or_else(announced).or_else(by_clock)
    }

    /// One new segment of a representation whose segments the clock announces, by the index of its
    /// template.
    pub(super) fn clock_advance(&self, template_index: usize) -> Advance {
        let state = self.state.lock();
        Advance {
            rendition: state.window.template_rendition(template_index),
            segments: 1,
            listed: state.representations.window_length_of(template_index),
            segment_interval_ms: millis(state.representations.segment_duration_of(template_index)),
        }
    }

    /// Removes from `dropped`, the segments of another manifest, those that this one still lists.
    pub(super) fn remove_listed(&self, dropped: &mut Vec<u64>) {
        self.state.lock().window.remove_listed(dropped);
    }

    /// Counts new segments that viewers want.
    pub(crate) fn count_new_segments(&self, by: usize) {
        self.stream.add_ideal_requests(by as u64);
    }
}

/// Records a version in the history of its variant.
fn record_progress(state: &mut TrackerState, version: &ManifestVersion) {
    let compared = (&version.manifest.info, version.progress);
    let times = (state.reload_interval_max, version.current_at);
    state.variants.record(version.variant, compared, times);
}
