//! Freshness lifetimes and stale windows for each kind of object. What the manifest states precedes
//! the route's defaults; the origin's lifetime applies if it is shorter.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::rule::{FreshnessLifetime, Rule};
use super::{ManifestContext, ResponseFacts, dated, is_negative};
use crate::directives::ResponseDirectives;
use crate::route::Lifetimes;
use crate::{Now, Route};
use seawall_manifest::{Kind, ManifestInfo, MpdInfo};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

/// A requested version of a low-latency playlist is stored for this many target durations.
const REQUESTED_VERSION_TARGETS: u32 = 6;

/// Stale-if-error window of a live manifest in segment durations …
const STALE_SEGMENTS: u32 = 3;
/// … and its minimum: viewers must not get errors from an outage of half a minute.
const STALE_MIN: Duration = Duration::from_mins(1);

pub(super) fn freshness_lifetime(
    response: &ResponseFacts<'_>,
    route: &Route,
    explicit: Option<Duration>,
    now: Now,
) -> Option<FreshnessLifetime> {
    let lifetimes = &route.lifetimes;
    let explicit = explicit.map(|duration| FreshnessLifetime::new(duration, Rule::Origin));
    if is_negative(response.status) {
        return Some(negative_freshness(response, explicit, lifetimes));
    }
    if response.status != StatusCode::OK {
        let is_error = response.status.is_client_error() || response.status.is_server_error();
        let bound = if is_error {
            lifetimes.negative_max
        } else {
            Duration::MAX
        };
        return explicit.map(|explicit| explicit.at_most(bound, Rule::Negative));
    }
    if let Some(override_ttl) = lifetimes.override_ttl {
        return Some(FreshnessLifetime::new(override_ttl, Rule::Override));
    }
    let heuristic = || heuristic_freshness(response.headers, route, now);
    match response.kind {
        Kind::Hls | Kind::Dash => Some(manifest_freshness(response, lifetimes, explicit)),
        Kind::Segment | Kind::Init => {
            let stated = explicit.or_else(heuristic);
            Some(segment_freshness(stated, lifetimes))
        }
        Kind::DecryptionKey | Kind::TimeServer | Kind::Other => explicit.or_else(heuristic),
    }
}

/// Freshness of a manifest that has just ended, because the stream may continue.
const JUST_ENDED: Duration = Duration::from_secs(10);

/// Freshness of a negative response: short, and no longer than the computed time until the object
/// exists.
fn negative_freshness(
    response: &ResponseFacts<'_>,
    explicit: Option<FreshnessLifetime>,
    lifetimes: &Lifetimes,
) -> FreshnessLifetime {
    let by_default = FreshnessLifetime::new(lifetimes.negative_max, Rule::Negative);
    let mut lifetime = explicit
        .unwrap_or(by_default)
        .at_most(lifetimes.negative_max, Rule::Negative);
    if response.status == StatusCode::TOO_EARLY {
        lifetime = lifetime.at_most(SECOND, Rule::Negative);
    }
    if let Some(due_in) = response.due_in {
        lifetime = lifetime.at_most(due_in, Rule::Due);
    }
    lifetime
}

/// Freshness of a segment: as the origin says or its last modification suggests, else by the
/// route's default; within the route's bounds. A zero from the origin stays zero: the route's
/// minimum must not extend it.
fn segment_freshness(
    stated: Option<FreshnessLifetime>,
    lifetimes: &Lifetimes,
) -> FreshnessLifetime {
    let by_default = FreshnessLifetime::new(lifetimes.segment_default, Rule::RouteDefault);
    if let Some(stated) = stated
        && stated.duration.is_zero()
    {
        return stated;
    }
    stated
        .unwrap_or(by_default)
        .at_least(lifetimes.segment_min, Rule::RouteMin)
        .at_most(lifetimes.segment_max, Rule::RouteMax)
}

/// RFC 9111 §4.2.2: a tenth of the time since the last modification, at most a day; if the route
/// allows it.
fn heuristic_freshness(headers: &HeaderMap, route: &Route, now: Now) -> Option<FreshnessLifetime> {
    if !route.heuristic_freshness {
        return None;
    }
    let generated = dated(headers, header::DATE).unwrap_or(now.wall);
    let modified = dated(headers, header::LAST_MODIFIED)?;
    let since_modified = generated.duration_since(modified).ok()?;
    let duration = (since_modified / 10).min(DAY);
    Some(FreshnessLifetime::new(duration, Rule::Heuristic))
}

/// How long a manifest is fresh: as the origin says, but a live one no longer than its content
/// allows, and none longer than the route allows, except where a stream has ended.
fn manifest_freshness(
    response: &ResponseFacts<'_>,
    lifetimes: &Lifetimes,
    explicit: Option<FreshnessLifetime>,
) -> FreshnessLifetime {
    let by_default = FreshnessLifetime::new(lifetimes.manifest_default, Rule::RouteDefault);
    let lifetime = match response.info {
        None => explicit.unwrap_or(by_default),
        Some(info) if info.is_patch() => {
            explicit.unwrap_or(FreshnessLifetime::new(SECOND, Rule::Patch))
        }
        Some(info) if !info.is_live() => {
            return ended_freshness(response.context, lifetimes, explicit);
        }
        Some(info) => live_freshness(response, info, explicit, by_default),
    };
    lifetime.at_most(lifetimes.manifest_max, Rule::RouteMax)
}

/// A manifest that has ended, or of on-demand content.
fn ended_freshness(
    context: ManifestContext,
    lifetimes: &Lifetimes,
    explicit: Option<FreshnessLifetime>,
) -> FreshnessLifetime {
    let by_default = FreshnessLifetime::new(lifetimes.ended_default, Rule::RouteDefault);
    let lifetime = explicit.unwrap_or(by_default);
    match context {
        ManifestContext::JustEnded => lifetime.at_most(JUST_ENDED, Rule::JustEnded),
        ManifestContext::CurrentVersion | ManifestContext::RequestedVersion => lifetime,
    }
}

/// A live manifest: as the origin says, else half a part in low latency; no longer than its content
/// allows.
fn live_freshness(
    response: &ResponseFacts<'_>,
    info: &ManifestInfo,
    explicit: Option<FreshnessLifetime>,
    by_default: FreshnessLifetime,
) -> FreshnessLifetime {
    let by_content = freshness_by_content(response, info, by_default);
    let is_requested_version = response.context == ManifestContext::RequestedVersion;
    let without_explicit = match info.part_target() {
        Some(part) if !is_requested_version => FreshnessLifetime::new(part / 2, Rule::HalfPart),
        Some(_) | None => by_content,
    };
    explicit
        .unwrap_or(without_explicit)
        .at_most(by_content.duration, by_content.rule)
}

/// How long a live manifest stays current, by what it says; `by_default` where it does not say.
fn freshness_by_content(
    response: &ResponseFacts<'_>,
    info: &ManifestInfo,
    by_default: FreshnessLifetime,
) -> FreshnessLifetime {
    let playlist = match info {
        ManifestInfo::Dash(mpd) => return dynamic_mpd_freshness(mpd),
        ManifestInfo::Hls(playlist) if playlist.is_multivariant => {
            return multivariant_freshness(response.child_target_duration);
        }
        ManifestInfo::Hls(playlist) => playlist,
    };
    let Some(target_duration) = playlist.target_duration else {
        return by_default;
    };
    if response.context == ManifestContext::RequestedVersion {
        let six_targets = target_duration * REQUESTED_VERSION_TARGETS;
        return FreshnessLifetime::new(six_targets, Rule::RequestedVersion);
    }
    FreshnessLifetime::new(target_duration / 2, Rule::HalfTarget)
}

/// A live multivariant playlist changes when renditions are added or removed.
fn multivariant_freshness(child_target_duration: Option<Duration>) -> FreshnessLifetime {
    const TARGET_DURATION_UNKNOWN: Duration = Duration::from_secs(6);
    FreshnessLifetime::new(
        child_target_duration.unwrap_or(TARGET_DURATION_UNKNOWN),
        Rule::Multivariant,
    )
}

/// A dynamic MPD. One with no update period, or a period of zero, changes when in-band events say
/// so.
fn dynamic_mpd_freshness(mpd: &MpdInfo) -> FreshnessLifetime {
    let period = mpd.update_period.filter(|period| !period.is_zero());
    let lifetime = match period {
        Some(period) => FreshnessLifetime::new(period, Rule::UpdatePeriod),
        None => FreshnessLifetime::new(SECOND, Rule::NoUpdatePeriod),
    };
    match mpd.segment_duration {
        Some(segment_duration) => lifetime.at_most(segment_duration / 2, Rule::HalfSegment),
        None => lifetime,
    }
}

/// The windows in which a stale response may be served: while it is refreshed, and when the origin
/// fails.
pub(super) fn stale_windows(
    response: &ResponseFacts<'_>,
    directives: &ResponseDirectives,
    lifetimes: &Lifetimes,
    fresh_for: Duration,
) -> (Duration, Duration) {
    let is_requested_version = response.context == ManifestContext::RequestedVersion;
    if is_requested_version || is_stored_patch(response) {
        return NO_STALE_WINDOWS;
    }
    let (while_revalidate, if_error) = default_stale_windows(response, lifetimes, fresh_for);
    // A low-latency player should lag by one part at most.
    let live = response.info.filter(|info| info.is_live());
    let stale_max = live.and_then(ManifestInfo::part_target);
    let while_revalidate = directives.stale_while_revalidate_or(while_revalidate);
    (
        while_revalidate.min(stale_max.unwrap_or(Duration::MAX)),
        directives.stale_if_error_or(if_error),
    )
}

const NO_STALE_WINDOWS: (Duration, Duration) = (Duration::ZERO, Duration::ZERO);

/// A patch applies only to the MPD version that it was made for.
fn is_stored_patch(response: &ResponseFacts<'_>) -> bool {
    response.status == StatusCode::OK
        && response.kind.is_manifest()
        && response.info.is_some_and(ManifestInfo::is_patch)
}

/// The stale windows where the origin states none.
fn default_stale_windows(
    response: &ResponseFacts<'_>,
    lifetimes: &Lifetimes,
    fresh_for: Duration,
) -> (Duration, Duration) {
    if response.status != StatusCode::OK {
        return NO_STALE_WINDOWS;
    }
    let has_ended = response.info.is_some_and(|info| !info.is_live());
    match response.kind {
        Kind::Hls | Kind::Dash if has_ended => (fresh_for, DAY),
        Kind::Hls | Kind::Dash => (
            fresh_for.mul_f64(lifetimes.manifest_stale_share),
            lifetimes
                .manifest_stale_if_error
                .unwrap_or_else(|| live_stale_if_error(response.info))
                .max(lifetimes.manifest_stale_if_missing),
        ),
        Kind::Segment | Kind::Init => (Duration::ZERO, lifetimes.segment_stale_if_error),
        Kind::DecryptionKey | Kind::TimeServer | Kind::Other => NO_STALE_WINDOWS,
    }
}

/// Players with an empty buffer continue when the origin recovers; an error response would stop
/// them.
fn live_stale_if_error(info: Option<&ManifestInfo>) -> Duration {
    let lists_segments = info.filter(|info| !info.is_multivariant());
    let segment_duration = lists_segments.and_then(ManifestInfo::segment_duration_max);
    STALE_MIN.max(
        segment_duration
            .unwrap_or_default()
            .saturating_mul(STALE_SEGMENTS),
    )
}
