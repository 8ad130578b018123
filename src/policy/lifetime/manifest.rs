//! For how long is a manifest fresh? As long as its own text allows, or less where the origin says so.

use std::time::Duration;

use super::Answered;
use crate::media::{Kind, Liveness};
use crate::policy::route::Lifetimes;

/// A state of a low-latency playlist is asked for so many target durations at most.
pub const STATE_TARGETS: u32 = 6;

pub(super) fn freshness(
    answer: &Answered<'_>,
    lifetimes: &Lifetimes,
    explicit: Option<Duration>,
) -> Duration {
    /// A multivariant playlist of a live stream changes when renditions come and go.
    const MULTIVARIANT_MAX: Duration = Duration::from_secs(6);
    const UPDATE_PERIOD_MIN: Duration = Duration::from_secs(1);
    let Some(facts) = answer.facts else {
        return explicit
            .unwrap_or(lifetimes.manifest_default)
            .min(lifetimes.manifest_max);
    };
    if facts.liveness == Liveness::Ended {
        return explicit.unwrap_or(lifetimes.ended_default);
    }
    if let Some(target) = facts.target_duration.filter(|_| answer.is_state) {
        let good = STATE_TARGETS * target;
        return explicit
            .unwrap_or(good)
            .min(good)
            .min(lifetimes.manifest_max);
    }
    if let Some(part) = facts.part_target {
        let by_text = facts.target_duration.unwrap_or(part) / 2;
        return explicit
            .unwrap_or(part / 2)
            .min(by_text)
            .min(lifetimes.manifest_max);
    }
    let by_text = match (facts.multivariant, facts.target_duration, answer.kind) {
        (true, _, _) => MULTIVARIANT_MAX,
        (_, Some(period), Kind::Dash) => period.max(UPDATE_PERIOD_MIN),
        (_, Some(target), _) => target / 2,
        (_, None, _) => lifetimes.manifest_default,
    };
    explicit
        .unwrap_or(if facts.multivariant {
            by_text
        } else {
            by_text.min(lifetimes.manifest_default)
        })
        .min(by_text)
        .min(lifetimes.manifest_max)
}
