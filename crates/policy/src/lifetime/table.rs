//! Freshness lifetimes and stale windows for each kind of object. What the manifest states precedes
//! the route's defaults; the origin's lifetime applies if it is shorter.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::rule::{Rule, RuledDuration};
use super::{ManifestContext, ResponseFacts, dated, is_negative};
use crate::directives::ResponseDirectives;
use crate::route::Lifetimes;
use crate::{Now, Route};
use seawall_manifest::{Kind, ManifestInfo, MpdInfo};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

/// A requested version of a low-latency playlist is stored for this many target durations.
const STATE_TARGETS: u32 = 6;

/// Stale-if-error window of a live manifest in segment durations …
const STALE_PERIODS: u32 = 3;
/// … and its minimum: viewers must not get errors from an outage of half a minute.
const STALE_MIN: Duration = Duration::from_mins(1);

pub(super) fn fresh_for(
    answer: &ResponseFacts<'_>,
    route: &Route,
    explicit: Option<Duration>,
    now: Now,
) -> Option<RuledDuration> {
    let lifetimes = &route.lifetimes;
    let told = explicit.map(|told| RuledDuration(told, Rule::Origin));
    if is_negative(answer.status) {
        return Some(absence(answer, told, lifetimes));
    }
    if answer.status != StatusCode::OK {
        let of_the_request = answer.status.is_client_error() || answer.status.is_server_error();
        let bound = if of_the_request {
            lifetimes.negative_max
        } else {
            Duration::MAX
        };
        return told.map(|told| told.at_most(bound, Rule::Negative));
    }
    if let Some(fixed) = lifetimes.override_ttl {
        return Some(RuledDuration(fixed, Rule::Override));
    }
    let heuristic = || {
        let guessed = heuristic_freshness(answer.headers, now);
        let guessed = guessed.filter(|_| route.heuristic_freshness);
        guessed.map(|guessed| RuledDuration(guessed, Rule::Heuristic))
    };
    match answer.kind {
        Kind::Hls | Kind::Dash => Some(manifest_freshness(answer, lifetimes, told)),
        Kind::Segment | Kind::Init => {
            let told = told.or_else(heuristic);
            Some(segment_freshness(told, lifetimes))
        }
        Kind::Key | Kind::Clock | Kind::Other => told.or_else(heuristic),
    }
}

/// Freshness of a manifest that has just ended, because the stream may continue.
const JUST_ENDED: Duration = Duration::from_secs(10);

/// Freshness of a negative response: short, and no longer than the computed time until the object
/// exists.
fn absence(
    answer: &ResponseFacts<'_>,
    told: Option<RuledDuration>,
    lifetimes: &Lifetimes,
) -> RuledDuration {
    let term = told.unwrap_or(RuledDuration(lifetimes.negative_max, Rule::Negative));
    let term = term.at_most(lifetimes.negative_max, Rule::Negative);
    let term = match answer.status {
        StatusCode::TOO_EARLY => term.at_most(SECOND, Rule::Negative),
        _ => term,
    };
    match answer.due_in {
        Some(due_in) => term.at_most(due_in, Rule::Due),
        None => term,
    }
}

/// A zero from the origin stays zero: the route's minimum must not extend it.
fn segment_freshness(told: Option<RuledDuration>, lifetimes: &Lifetimes) -> RuledDuration {
    match told {
        Some(told) if told.0.is_zero() => told,
        told => told
            .unwrap_or(RuledDuration(lifetimes.segment_default, Rule::RouteDefault))
            .at_least(lifetimes.segment_min, Rule::RouteMin)
            .at_most(lifetimes.segment_max, Rule::RouteMax),
    }
}

/// RFC 9111 §4.2.2: a tenth of the time since the last modification, at most a day.
fn heuristic_freshness(headers: &HeaderMap, now: Now) -> Option<Duration> {
    let made = dated(headers, header::DATE).unwrap_or(now.wall);
    let changed = dated(headers, header::LAST_MODIFIED)?;
    let since = made.duration_since(changed).ok()?;
    Some((since / 10).min(DAY))
}

fn manifest_freshness(
    answer: &ResponseFacts<'_>,
    lifetimes: &Lifetimes,
    told: Option<RuledDuration>,
) -> RuledDuration {
    let by_default = RuledDuration(lifetimes.manifest_default, Rule::RouteDefault);
    let is_state = answer.context == ManifestContext::State;
    let by_text = match answer.facts {
        None => {
            return told
                .unwrap_or(by_default)
                .at_most(lifetimes.manifest_max, Rule::RouteMax);
        }
        Some(facts) if facts.is_patch() => {
            let told = told.unwrap_or(RuledDuration(SECOND, Rule::Patch));
            return told.at_most(lifetimes.manifest_max, Rule::RouteMax);
        }
        Some(facts) if !facts.is_live() => {
            let term = told.unwrap_or(RuledDuration(lifetimes.ended_default, Rule::RouteDefault));
            return if answer.context == ManifestContext::JustEnded {
                term.at_most(JUST_ENDED, Rule::JustEnded)
            } else {
                term
            };
        }
        Some(ManifestInfo::Dash(mpd)) => dynamic(mpd),
        Some(ManifestInfo::Hls(playlist)) if playlist.is_multivariant => {
            multivariant(answer.child_target_duration)
        }
        Some(ManifestInfo::Hls(playlist)) => match playlist.target_duration {
            Some(target) if is_state => RuledDuration(target * STATE_TARGETS, Rule::State),
            Some(target) => RuledDuration(target / 2, Rule::HalfTarget),
            None => by_default,
        },
    };
    let RuledDuration(bound, rule) = by_text;
    let part = answer.facts.and_then(ManifestInfo::part_target);
    let untold = match part.filter(|_| !is_state) {
        Some(part) => RuledDuration(part / 2, Rule::HalfPart),
        None => by_text,
    };
    told.unwrap_or(untold)
        .at_most(bound, rule)
        .at_most(lifetimes.manifest_max, Rule::RouteMax)
}

/// A live multivariant playlist changes when renditions are added or removed.
fn multivariant(children: Option<Duration>) -> RuledDuration {
    const UNTOLD: Duration = Duration::from_secs(6);
    RuledDuration(children.unwrap_or(UNTOLD), Rule::Multivariant)
}

/// A dynamic MPD. One with no update period, or a period of zero, changes when in-band events say
/// so.
fn dynamic(mpd: &MpdInfo) -> RuledDuration {
    let period = mpd.update_period.filter(|period| !period.is_zero());
    let term = match period {
        Some(period) => RuledDuration(period, Rule::UpdatePeriod),
        None => RuledDuration(SECOND, Rule::NoUpdatePeriod),
    };
    match mpd.segment_duration {
        Some(segment) => term.at_most(segment / 2, Rule::HalfSegment),
        None => term,
    }
}

/// The windows in which a stale response may be served: while it is refreshed, and when the origin
/// fails.
pub(super) fn stale_windows(
    answer: &ResponseFacts<'_>,
    directives: &ResponseDirectives,
    lifetimes: &Lifetimes,
    fresh_for: Duration,
) -> (Duration, Duration) {
    let nothing = (Duration::ZERO, Duration::ZERO);
    if answer.context == ManifestContext::State {
        return nothing;
    }
    let ended = |facts: &ManifestInfo| !facts.is_live();
    let (while_revalidate, if_error) = match answer.kind {
        _ if answer.status != StatusCode::OK => nothing,
        // A patch applies only to the MPD version that it was made for.
        Kind::Hls | Kind::Dash if answer.facts.is_some_and(ManifestInfo::is_patch) => {
            return nothing;
        }
        Kind::Hls | Kind::Dash if answer.facts.is_some_and(ended) => (fresh_for, DAY),
        Kind::Hls | Kind::Dash => (
            fresh_for.mul_f64(lifetimes.manifest_stale_share),
            lifetimes
                .manifest_stale_if_error
                .unwrap_or_else(|| live_stale_if_error(answer.facts))
                .max(lifetimes.manifest_stale_if_missing),
        ),
        Kind::Segment | Kind::Init => (Duration::ZERO, lifetimes.segment_stale_if_error),
        Kind::Key | Kind::Clock | Kind::Other => nothing,
    };
    // A low-latency player should lag by one part at most.
    let live = answer.facts.filter(|facts| facts.is_live());
    let stale_max = live.and_then(ManifestInfo::part_target);
    let while_revalidate = directives.stale_while_revalidate_or(while_revalidate);
    (
        while_revalidate.min(stale_max.unwrap_or(Duration::MAX)),
        directives.stale_if_error_or(if_error),
    )
}

/// Players with an empty buffer continue when the origin recovers; an error response would stop
/// them.
fn live_stale_if_error(facts: Option<&ManifestInfo>) -> Duration {
    let lists_segments = facts.filter(|facts| !facts.is_multivariant());
    let segment = lists_segments.and_then(ManifestInfo::segment_duration_max);
    STALE_MIN.max(segment.unwrap_or_default().saturating_mul(STALE_PERIODS))
}
