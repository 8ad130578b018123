//! The delays of a crowd in many turns, in a few figures.

use std::time::{Duration, Instant};

use crate::figures::millis;

/// The delays of one turn: from the origin's answer to the last byte at each viewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnDelays {
    pub first: Duration,
    pub median: Duration,
    pub p99: Duration,
    pub last: Duration,
}

impl TurnDelays {
    /// `None` without viewers. A viewer who was served before the answer waited for no time.
    pub fn of(written: Instant, mut done_at: Vec<Instant>) -> Option<TurnDelays> {
        done_at.sort_unstable();
        let at = |percent: usize| {
            let place = (done_at.len() * percent / 100).min(done_at.len().checked_sub(1)?);
            Some(done_at[place].saturating_duration_since(written))
        };
        Some(TurnDelays {
            first: at(0)?,
            median: at(50)?,
            p99: at(99)?,
            last: at(100)?,
        })
    }
}

/// First, median, 99th percentile and last viewer, each the median of all turns, and the last
/// viewer of the worst turn: in milliseconds.
pub fn cells(turns: &[TurnDelays]) -> [String; 5] {
    let median = |figure: fn(&TurnDelays) -> Duration| {
        let mut figures: Vec<_> = turns.iter().map(figure).collect();
        figures.sort_unstable();
        let median = figures.get(figures.len() / 2);
        median.copied().map(millis).unwrap_or_default()
    };
    let worst = turns.iter().map(|turn| turn.last).max();
    [
        median(|turn| turn.first),
        median(|turn| turn.median),
        median(|turn| turn.p99),
        median(|turn| turn.last),
        worst.map(millis).unwrap_or_default(),
    ]
}
