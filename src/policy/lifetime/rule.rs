//! Which rule decided how long something is fresh? Each has a name, so that people can be told.

use std::time::Duration;

/// A freshness, and the rule that made it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RuledDuration(pub(super) Duration, pub(super) Rule);

impl RuledDuration {
    pub(super) fn at_most(self, bound: Duration, rule: Rule) -> RuledDuration {
        if self.0 > bound {
            return RuledDuration(bound, rule);
        }
        self
    }

    pub(super) fn at_least(self, bound: Duration, rule: Rule) -> RuledDuration {
        if self.0 < bound {
            return RuledDuration(bound, rule);
        }
        self
    }
}

/// What decided how long something is fresh, in the order of authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is good for this moment only.
    Nothing,
    /// The origin wants to be asked each time.
    NoCache,
    /// It is not there: the route's bound for that.
    Negative,
    /// It is not there yet: until it is computed to be.
    Due,
    /// The route replaces every lifetime.
    Override,
    /// The origin says so.
    Origin,
    /// The origin gives more than the manifest's own text, or nothing: half a target duration.
    HalfTarget,
    /// A low-latency playlist of which the origin says nothing: half a part.
    HalfPart,
    /// The state of a low-latency playlist that was asked for.
    State,
    /// The same: what a multivariant playlist lists changes as often.
    Multivariant,
    /// The same: the MPD's update period.
    UpdatePeriod,
    /// The same: the MPD gives no update period.
    NoUpdatePeriod,
    /// The same: half a segment of the MPD.
    HalfSegment,
    /// A patch of which the origin does not say how long it is good.
    Patch,
    /// It was live a moment ago, and may go on.
    JustEnded,
    /// The route's upper bound.
    RouteMax,
    /// The route's lower bound.
    RouteMin,
    /// The route's default, as nobody says anything.
    RouteDefault,
    /// A tenth of the time since it changed last.
    Heuristic,
}

impl Rule {
    /// In a phrase, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Nothing => "good for this moment only",
            Rule::NoCache => "the origin says no-cache",
            Rule::Negative => "not there: the route's negative_max",
            Rule::Due => "not there yet: until it is computed to be",
            Rule::Override => "the route's override_ttl",
            Rule::Origin => "the origin says so",
            Rule::HalfTarget => "half a target duration of the playlist",
            Rule::HalfPart => "half a part of the playlist",
            Rule::State => "a state that was asked for: six target durations",
            Rule::Multivariant => "the target duration of the playlists it lists",
            Rule::JustEnded => "it was live a moment ago, and may go on",
            Rule::UpdatePeriod => "the MPD's minimumUpdatePeriod",
            Rule::NoUpdatePeriod => "an MPD without minimumUpdatePeriod",
            Rule::HalfSegment => "half a segment of the MPD",
            Rule::Patch => "an MPD patch of which the origin says nothing",
            Rule::RouteMax => "the route's upper bound (manifest_max, segment_max)",
            Rule::RouteMin => "the route's lower bound (segment_min)",
            Rule::RouteDefault => "the route's default, as nobody says anything",
            Rule::Heuristic => "a tenth of the time since Last-Modified",
        }
    }
}
