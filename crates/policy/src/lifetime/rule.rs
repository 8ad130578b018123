//! The rules that decide how long a response is fresh. Each has a phrase that `/explain` shows.

use std::time::Duration;

/// A freshness lifetime (RFC 9111 §4.2.1) and the rule that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FreshnessLifetime {
    pub(super) duration: Duration,
    pub(super) rule: Rule,
}

impl FreshnessLifetime {
    pub(super) fn new(duration: Duration, rule: Rule) -> FreshnessLifetime {
        FreshnessLifetime { duration, rule }
    }

    pub(super) fn at_most(self, bound: Duration, rule: Rule) -> FreshnessLifetime {
        if self.duration > bound {
            return FreshnessLifetime::new(bound, rule);
        }
        self
    }

    pub(super) fn at_least(self, bound: Duration, rule: Rule) -> FreshnessLifetime {
        if self.duration < bound {
            return FreshnessLifetime::new(bound, rule);
        }
        self
    }
}

/// What decided the freshness lifetime, by precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Not stored: valid for this response only.
    Nothing,
    /// The origin requires revalidation for each use.
    NoCache,
    /// The object does not exist: the route's `negative_max`.
    Negative,
    /// The object does not exist yet: until the computed time of its availability.
    Due,
    /// The route's `override_ttl`.
    Override,
    /// The origin's own lifetime.
    Origin,
    /// Half a target duration: the origin gives more or nothing.
    HalfTarget,
    /// Half a part: a low-latency playlist for which the origin gives no lifetime.
    HalfPart,
    /// A low-latency playlist version that was requested by number.
    RequestedVersion,
    /// The target duration of the listed playlists: the origin gives more or nothing.
    Multivariant,
    /// The MPD's update period: the origin gives more or nothing.
    UpdatePeriod,
    /// The MPD has no update period.
    NoUpdatePeriod,
    /// Half a segment of the MPD: the origin gives more or nothing.
    HalfSegment,
    /// An MPD patch for which the origin gives no lifetime.
    Patch,
    /// The manifest ended a moment ago and may continue.
    JustEnded,
    /// The route's upper bound.
    RouteMax,
    /// The route's lower bound.
    RouteMin,
    /// The route's default: no other rule applies.
    RouteDefault,
    /// A tenth of the time since the last modification.
    Heuristic,
    /// A soft purge ended it.
    SoftPurge,
}

impl Rule {
    /// The phrase that `/explain` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Nothing => "not stored, valid for this response only",
            Rule::NoCache => "the origin says no-cache",
            Rule::Negative => "does not exist: the route's negative_max",
            Rule::Due => "does not exist yet: until its computed availability",
            Rule::Override => "the route's override_ttl",
            Rule::Origin => "the origin's own lifetime",
            Rule::HalfTarget => "half a target duration of the playlist",
            Rule::HalfPart => "half a part of the playlist",
            Rule::RequestedVersion => "a requested playlist version: six target durations",
            Rule::Multivariant => "the target duration of the playlists it lists",
            Rule::JustEnded => "it was live a moment ago and may continue",
            Rule::UpdatePeriod => "the MPD's minimumUpdatePeriod",
            Rule::NoUpdatePeriod => "an MPD without minimumUpdatePeriod",
            Rule::HalfSegment => "half a segment of the MPD",
            Rule::Patch => "an MPD patch, and the origin gives no lifetime",
            Rule::RouteMax => "the route's upper bound (manifest_max, segment_max)",
            Rule::RouteMin => "the route's lower bound (segment_min)",
            Rule::RouteDefault => "the route's default: no other rule applies",
            Rule::Heuristic => "a tenth of the time since Last-Modified",
            Rule::SoftPurge => "a soft purge made it stale",
        }
    }
}
