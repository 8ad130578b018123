//! The typical segment duration of a stream. A single shorter (advertisement) or longer segment
//! does not change it.

use std::time::Duration;

/// Number of last durations used.
pub(super) const TYPICAL_OF: usize = 5;

/// The median of the last durations; `None` without one, or if it is zero.
pub(super) fn median(durations: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut durations: Vec<Duration> = durations.collect();
    durations.sort_unstable();
    let middle = durations.get(durations.len() / 2).copied();
    middle.filter(|duration| !duration.is_zero())
}
