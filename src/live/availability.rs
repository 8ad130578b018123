//! Estimates when a requested object that does not exist yet will be available.

use std::num::IntErrorKind;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::mpd_horizon::HorizonDecision;
use super::{LiveStreams, ManifestTracker};
use seawall_manifest::Kind;
use seawall_policy::Now;
use seawall_policy::access::CacheRequest;
use seawall_policy::missing_manifest::is_absence;

/// What is known about a segment's availability.
pub(crate) enum Availability {
    /// A watched MPD says that it is due in this time.
    DueIn(Duration, Arc<ManifestTracker>),
    /// A watched MPD says that it has been available for this time.
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
    pub(crate) fn is_known_absent(&self, request: &CacheRequest, now: Now) -> bool {
        let Some(Availability::DueIn(due_in, tracker)) = self.availability_of(request, now) else {
            return false;
        };
        let segment_duration = tracker.segment_duration();
        let mut horizon = tracker.horizon.lock();
        let decision = horizon.decide(due_in, segment_duration, now.mono);
        drop(horizon);
        decision != HorizonDecision::Forward && !self.is_new(&request.key, now.mono)
    }

    /// Does the origin have the complete object? A playlist lists it, or it ended some time ago by
    /// an MPD's timeline. An MPD may list segments in production (`@availabilityTimeOffset`), and
    /// preload hints announce them.
    pub(crate) fn is_complete(&self, request: &CacheRequest, now: Now) -> bool {
        let listing = self.trackers_beside(request);
        listing.iter().any(|tracker| {
            if tracker.request.kind == Kind::Hls {
                return tracker.listed_duration(request).is_some();
            }
            let ends = tracker
                .representations()
                .ends_at(&self.rules, &tracker.request, request);
            let ended = ends.and_then(|ends| now.wall.duration_since(ends).ok());
            // Encoders are behind their MPD's clock.
            let margin = tracker.segment_duration().max(LATE_MAX);
            ended.is_some_and(|ended| ended >= margin)
        })
    }

    /// The wait after which the response to this request is late. Only for objects that by the
    /// stored manifests do not exist yet, and whose response comes as soon as they do. `None`: it
    /// exists, or that is unknown.
    pub(crate) fn wait_limit(&self, request: &CacheRequest, now: Now) -> Option<Duration> {
        let blocking = if request.has_delivery_directives() {
            let tracker = self.tracker(request);
            tracker.filter(|tracker| tracker.will_block_for(request.directives()))
        } else {
            let is_announced = self.is_announced(&request.key, now.mono);
            let mut listing = is_announced.then(|| self.trackers_beside(request));
            listing.as_mut().and_then(Vec::pop)
        };
        if let Some(tracker) = blocking {
            return tracker.overdue_after(request.directives(), now.mono);
        }
        match self.availability_of(request, now)? {
            Availability::DueIn(due_in, tracker) if due_in <= request.route.live.hold_early => {
                Some(due_in + tracker.segment_duration() / LATE_SHARE)
            }
            Availability::DueIn(..)
            | Availability::AvailableSince(..)
            | Availability::NextVersionIn(_) => None,
        }
    }

    /// Learns from a response how far the origin is ahead of its MPD's clock: segments present or
    /// absent before their time show it.
    pub(crate) fn record_presence(&self, request: &CacheRequest, status: StatusCode, now: Now) {
        let is_there = status == StatusCode::OK;
        if (is_there || is_absence(status))
            && let Some(Availability::DueIn(due_in, tracker)) = self.availability_of(request, now)
        {
            let mut horizon = tracker.horizon.lock();
            if is_there {
                horizon.record_present(due_in, now.mono);
            } else {
                horizon.record_absent(due_in, now.mono);
            }
        }
    }

    /// Looks the object up in the manifests that list objects in its directory.
    pub(crate) fn availability_of(&self, request: &CacheRequest, now: Now) -> Option<Availability> {
        let rules = &self.rules;
        // Not all segments have a name that shows their kind.
        if request.kind.is_manifest() || matches!(request.kind, Kind::Key | Kind::Clock) {
            return None;
        }
        let listing = self.trackers_beside(request);
        let with_huge_numbers = with_last_number(request.target.path());
        let with_huge_numbers: Vec<CacheRequest> = with_huge_numbers
            .filter_map(|path| request.resolve_any_host(rules, &path))
            .collect();
        // If several MPDs name it, the earliest time applies.
        let by_clock = listing.iter().filter_map(|tracker| {
            let representations = tracker.representations();
            let mut names = std::iter::once(request).chain(&with_huge_numbers);
            let at = |named| representations.available_at(rules, &tracker.request, named, now.wall);
            Some((names.find_map(at)?, tracker))
        });
        let by_clock = by_clock.min_by_key(|(at, _)| *at).map(|(at, tracker)| {
            let tracker = Arc::clone(tracker);
            match at.duration_since(now.wall) {
                Ok(due_in) => Availability::DueIn(due_in, tracker),
                Err(past) => Availability::AvailableSince(past.duration(), tracker),
            }
        });
        // For an MPD the times are known, independent of its versions.
        let playlists = listing
            .iter()
            .filter(|tracker| tracker.request.kind == Kind::Hls);
        let versions = playlists.filter_map(|tracker| tracker.next_version_in(now.mono));
        by_clock.or_else(|| versions.min().map(Availability::NextVersionIn))
    }
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
