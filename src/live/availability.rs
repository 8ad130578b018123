//! Estimates when a requested object that does not exist yet will be available.

use std::num::IntErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;

use super::mpd_horizon::HorizonDecision;
use super::{LiveStreams, ManifestTracker};
use seawall_manifest::Kind;
use seawall_policy::access::CacheRequest;
use seawall_policy::missing_manifest::is_absence;
use seawall_policy::{Now, Rules};

/// What is known about a segment's availability.
pub(crate) enum Availability {
    /// An MPD says that it is due in this time.
    DueIn(Duration, Arc<ManifestTracker>),
    /// An MPD says that it has been available for this time.
    AvailableSince(Duration, Arc<ManifestTracker>),
    /// The next version of a playlist, which may list it, is due in this time.
    NextVersionIn(Duration),
}

/// Packagers are usually late by no more than this …
const LATE_MAX: Duration = Duration::from_secs(2);
/// … and a late segment may appear at any moment: its absence is cached for this time only.
const LATE_ABSENT_FOR: Duration = Duration::from_millis(100);

/// Players have segments buffered: they tolerate a delay of 1/n segment.
const LATE_SHARE: u32 = 2;

/// A segment available for longer may have left the window.
const EXPECTED_MAX: Duration = Duration::from_mins(1);

impl Availability {
    /// It should be available now.
    pub(crate) fn is_expected(&self) -> bool {
        matches!(self, Availability::AvailableSince(since, _) if *since < EXPECTED_MAX)
    }

    /// How long its absence may be cached at most. `None`: the usual time.
    pub(crate) fn absent_for(&self) -> Option<Duration> {
        match self {
            Availability::DueIn(due_in, _) => Some(*due_in),
            Availability::NextVersionIn(due_in) => Some(*due_in).filter(|due_in| !due_in.is_zero()),
            Availability::AvailableSince(since, _) => {
                (*since < LATE_MAX).then_some(LATE_ABSENT_FOR)
            }
        }
    }
}

impl LiveStreams {
    /// May the shield answer 404 without a request to the origin? Yes, if an MPD says that the
    /// segment is due much later, and the origin has just answered 404 for a segment that is due as
    /// soon or sooner, or has got as many requests for such segments as it may.
    pub(crate) fn is_known_absent(&self, rules: &Rules, request: &CacheRequest, now: Now) -> bool {
        let due = self.availability_of(rules, request, now);
        let Some(Availability::DueIn(due_in, tracker)) = due else {
            return false;
        };
        let segment_duration = tracker.segment_duration();
        let mut horizon = tracker.horizon.lock();
        let decision = horizon.decide_forwarding(due_in, segment_duration, now.mono);
        drop(horizon);
        decision != HorizonDecision::Forward && !self.is_new(&request.key, now.mono)
    }

    /// Does the origin have the complete object? A playlist lists it, or it ended some time ago by
    /// an MPD's timeline. An MPD may list segments in production (`@availabilityTimeOffset`), and
    /// preload hints announce them.
    pub(crate) fn is_complete(&self, rules: &Rules, request: &CacheRequest, now: Now) -> bool {
        let beside = self.trackers_beside(request);
        beside.iter().any(|tracker| {
            if tracker.request.kind == Kind::Hls {
                tracker.listed_object(request).is_some()
            } else {
                ended_long_ago(rules, tracker, request, now.wall)
            }
        })
    }

    /// How long the response to a request may take before it is late. Only for an object that does
    /// not exist yet by the stored manifests, and whose response comes as soon as it does. `None`:
    /// it exists, or that is unknown.
    pub(crate) fn wait_limit(
        &self,
        rules: &Rules,
        request: &CacheRequest,
        now: Now,
    ) -> Option<Duration> {
        if let Some(playlist) = self.playlist_with_next(request, now.mono) {
            return playlist.overdue_after(request.directives(), now.mono);
        }
        match self.availability_of(rules, request, now)? {
            Availability::DueIn(due_in, tracker) if due_in <= request.route.live.hold_early => {
                Some(due_in + tracker.segment_duration() / LATE_SHARE)
            }
            Availability::DueIn(..)
            | Availability::AvailableSince(..)
            | Availability::NextVersionIn(_) => None,
        }
    }

    /// The playlist of which a future version is requested, or which announces the requested
    /// object. `None`: the request is for neither.
    fn playlist_with_next(
        &self,
        request: &CacheRequest,
        now: Instant,
    ) -> Option<Arc<ManifestTracker>> {
        if request.has_delivery_directives() {
            let tracker = self.tracker(request)?;
            return tracker
                .will_block_for(request.directives())
                .then_some(tracker);
        }
        if self.is_announced(&request.key, now) {
            return self.trackers_beside(request).pop();
        }
        None
    }

    /// Learns from a response how far the origin is ahead of its MPD's clock: segments present or
    /// absent before their time show it.
    pub(crate) fn record_presence(
        &self,
        rules: &Rules,
        request: &CacheRequest,
        status: StatusCode,
        now: Now,
    ) {
        let is_present = status == StatusCode::OK;
        if !is_present && !is_absence(status) {
            return;
        }
        let due = self.availability_of(rules, request, now);
        let Some(Availability::DueIn(due_in, tracker)) = due else {
            return;
        };
        let mut horizon = tracker.horizon.lock();
        if is_present {
            horizon.record_present(due_in, now.mono);
        } else {
            horizon.record_absent(due_in, now.mono);
        }
    }

    /// When the object becomes or became available, as the manifests that list objects in its
    /// directory say: by an MPD's clock, else with the next version of a playlist. `None`: they do
    /// not say.
    pub(crate) fn availability_of(
        &self,
        rules: &Rules,
        request: &CacheRequest,
        now: Now,
    ) -> Option<Availability> {
        // Any other kind may be a segment: not all segments have a name that shows it.
        if request.kind.is_manifest()
            || matches!(request.kind, Kind::DecryptionKey | Kind::TimeServer)
        {
            return None;
        }
        let beside = self.trackers_beside(request);
        if beside.is_empty() {
            return None;
        }
        availability_by_clock(rules, &beside, request, now)
            .or_else(|| next_playlist_version(&beside, now.mono))
    }
}

/// When the object is available by the MPDs among these manifests that name it: the earliest
/// time applies.
fn availability_by_clock(
    rules: &Rules,
    manifests: &[Arc<ManifestTracker>],
    request: &CacheRequest,
    now: Now,
) -> Option<Availability> {
    let names = names_with_parsable_numbers(rules, request);
    let mut earliest: Option<(SystemTime, &Arc<ManifestTracker>)> = None;
    for tracker in manifests {
        let Some(at) = available_at(rules, tracker, &names, now.wall) else {
            continue;
        };
        if earliest.is_none_or(|(known, _)| at < known) {
            earliest = Some((at, tracker));
        }
    }
    let (at, tracker) = earliest?;
    let tracker = Arc::clone(tracker);
    Some(match at.duration_since(now.wall) {
        Ok(due_in) => Availability::DueIn(due_in, tracker),
        Err(past) => Availability::AvailableSince(past.duration(), tracker),
    })
}

/// When an MPD says that the object is available, by the first of these names that it uses.
fn available_at(
    rules: &Rules,
    mpd: &ManifestTracker,
    names: &[CacheRequest],
    now: SystemTime,
) -> Option<SystemTime> {
    let representations = mpd.representations();
    names
        .iter()
        .find_map(|name| representations.available_at(rules, &mpd.request, name, now))
}

/// The request itself, and requests whose numbers are small enough to be parsed.
fn names_with_parsable_numbers(rules: &Rules, request: &CacheRequest) -> Vec<CacheRequest> {
    let paths = with_last_number(request.target.path());
    let others = paths.filter_map(|path| request.resolve_any_host(rules, &path));
    std::iter::once(request.clone()).chain(others).collect()
}

/// Whether an MPD's segment ended, by its timeline, at least a segment duration and
/// [`LATE_MAX`] ago: the encoder must have it.
fn ended_long_ago(
    rules: &Rules,
    mpd: &ManifestTracker,
    request: &CacheRequest,
    now: SystemTime,
) -> bool {
    let representations = mpd.representations();
    let Some(end) = representations.ends_at(rules, &mpd.request, request) else {
        return false;
    };
    // Encoders are behind their MPD's clock.
    let margin = mpd.segment_duration().max(LATE_MAX);
    now.duration_since(end)
        .is_ok_and(|elapsed| elapsed >= margin)
}

/// The next version of the playlist among these manifests whose version is due first. MPDs do not
/// count: they say when segments are available, whatever the time of their next version.
fn next_playlist_version(manifests: &[Arc<ManifestTracker>], now: Instant) -> Option<Availability> {
    manifests
        .iter()
        .filter(|tracker| tracker.request.kind == Kind::Hls)
        .filter_map(|tracker| tracker.next_version_in(now))
        .min()
        .map(Availability::NextVersionIn)
}

/// Names in which a number beyond `u64` is replaced by `u64::MAX`: both are equally far away. One
/// name for each such number.
fn with_last_number(path: &str) -> impl Iterator<Item = String> {
    /// An invented path may contain many such numbers.
    const NUMBERS_MAX: usize = 4;
    let mut after = path;
    let names = std::iter::from_fn(move || {
        loop {
            let from = after.find(|first: char| first.is_ascii_digit())?;
            let number = &after[from..];
            let length = number.find(|next: char| !next.is_ascii_digit());
            let (digits, rest) = number.split_at(length.unwrap_or(number.len()));
            after = rest;
            let parsed = digits.parse::<u64>();
            if parsed.is_err_and(|error| *error.kind() == IntErrorKind::PosOverflow) {
                let before = &path[..path.len() - number.len()];
                return Some(format!("{before}{}{rest}", u64::MAX));
            }
        }
    });
    names.take(NUMBERS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflowing_numbers_are_replaced_by_u64_max() {
        let names = |path: &str| with_last_number(path).collect::<Vec<_>>();
        assert_eq!(names("/v1/18446744073709551615.m4s"), [""; 0]);
        assert_eq!(
            names("/v1/18446744073709551616.m4s"),
            ["/v1/18446744073709551615.m4s"]
        );
        let long = "9".repeat(30);
        assert_eq!(
            names(&format!("/{long}/a{long}")),
            [
                format!("/{}/a{long}", u64::MAX),
                format!("/{long}/a{}", u64::MAX)
            ]
        );
        assert_eq!(names(&format!("/{long}").repeat(9)).len(), 4);
    }
}
