//! How long are a stream's segments? One that an advertisement cut short, or that is longer than its neighbours, changes
//! nothing.

use std::time::Duration;

/// From so many of the last durations the usual one is told.
pub(super) const USUAL_OF: usize = 5;

/// The middle one.
pub(super) fn usual(durations: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut durations: Vec<Duration> = durations.collect();
    durations.sort_unstable();
    let middle = durations.get(durations.len() / 2).copied();
    middle.filter(|duration| !duration.is_zero())
}
