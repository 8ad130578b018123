//! Which streams of an HTTP/2 connection have been handed to h2 whole and do not leave?
//!
//! hyper lets go of a stream when h2 has the last piece of its body, and h2 waits for the viewer's
//! windows for as long as it takes. Nobody else looks after such a stream, so the connection's
//! [`super::watch`] does. Most are gone within a turn: no list is kept of them, and no clock is read.
//! They are counted by the turn in which they last made progress, and a turn ends when the watch says
//! so.

use std::sync::atomic::{AtomicU32, Ordering};

/// A stream is late after so many whole turns without progress: see [`Lag`].
const LATE_TURNS: u32 = 2;

/// Nothing excuses a stream after so many whole turns without progress. Two turns are a window, and what h2 has
/// whole (32 KiB) takes less than four windows at the default rate: where many streams share a connection that is
/// just fast enough for all of them, the last one waits for so long.
const LATE_TURNS_MAX: u32 = 8;

/// The turn that runs, those before it in which a stream may still be, and the next. A power of two: turns are
/// counted past the largest number.
const TURNS: usize = 16;

/// How many streams made progress last in which turn.
#[derive(Default)]
pub(super) struct UnsentStreams {
    turn: AtomicU32,
    streams: [AtomicU32; TURNS],
}

/// Whether streams make no progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamLag {
    /// Each has made progress lately.
    None,
    /// Some stream has made none in two whole turns. It may have waited for others to take what the connection
    /// can carry.
    Late,
    /// Some stream has made none for longer than others can explain.
    TooLate,
}

/// The turn in which a stream made progress last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendTurn(pub(super) u32);

impl UnsentStreams {
    /// Counts a stream in the turn that runs.
    pub(super) fn enter(&self) -> SendTurn {
        let turn = self.turn.load(Ordering::Relaxed);
        let streams = self.streams_in(turn);
        streams.store(streams.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        SendTurn(turn)
    }

    /// A stream is gone, or counts in a later turn.
    pub(super) fn leave(&self, turn: SendTurn) {
        let streams = self.streams_in(turn.0);
        let left = streams.load(Ordering::Relaxed).saturating_sub(1);
        streams.store(left, Ordering::Relaxed);
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        let count = |streams: &AtomicU32| streams.load(Ordering::Relaxed);
        self.streams.iter().any(|streams| count(streams) > 0)
    }

    /// Begins the next turn, and says how those that ended were used.
    pub(super) fn next_turn(&self) -> StreamLag {
        let next = self.turn.load(Ordering::Relaxed).wrapping_add(1);
        self.turn.store(next, Ordering::Relaxed);
        let has_any = |turns: u32| {
            let entered = next.wrapping_sub(1 + turns);
            self.streams_in(entered).load(Ordering::Relaxed) > 0
        };
        if has_any(LATE_TURNS_MAX) {
            StreamLag::TooLate
        } else if (LATE_TURNS..LATE_TURNS_MAX).any(has_any) {
            StreamLag::Late
        } else {
            StreamLag::None
        }
    }

    fn streams_in(&self, turn: u32) -> &AtomicU32 {
        &self.streams[turn as usize % TURNS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lags(unsent: &UnsentStreams, turns: usize) -> Vec<StreamLag> {
        (0..turns).map(|_| unsent.next_turn()).collect()
    }

    #[test]
    fn a_stream_without_progress_is_late_after_two_whole_turns_and_too_late_after_eight() {
        let unsent = UnsentStreams::default();
        assert!(!unsent.any());
        unsent.enter();
        assert!(unsent.any());
        assert_eq!(lags(&unsent, 2), [StreamLag::None; 2]);
        assert_eq!(lags(&unsent, 6), [StreamLag::Late; 6]);
        assert_eq!(unsent.next_turn(), StreamLag::TooLate);
    }

    #[test]
    fn streams_that_come_and_go_are_never_late() {
        let unsent = UnsentStreams::default();
        let mut before = unsent.enter();
        for _ in 0..3 * TURNS {
            let stream = unsent.enter();
            assert_eq!(unsent.next_turn(), StreamLag::None);
            unsent.leave(before);
            before = stream;
        }
        unsent.leave(before);
        assert!(!unsent.any());
    }

    #[test]
    fn one_that_stays_is_late_among_those_that_go() {
        let unsent = UnsentStreams::default();
        lags(&unsent, 1);
        unsent.enter();
        let found = (0..9).map(|_| {
            let other = unsent.enter();
            let lag = unsent.next_turn();
            unsent.leave(other);
            lag
        });
        let found: Vec<_> = found.collect();
        assert_eq!(found[..2], [StreamLag::None; 2]);
        assert_eq!(found[2..8], [StreamLag::Late; 6]);
        assert_eq!(found[8], StreamLag::TooLate);
    }

    #[test]
    fn turns_are_counted_past_the_largest_number() {
        let unsent = UnsentStreams::default();
        unsent.turn.store(u32::MAX - 1, Ordering::Relaxed);
        unsent.enter();
        assert_eq!(
            lags(&unsent, 3),
            [StreamLag::None, StreamLag::None, StreamLag::Late]
        );
    }
}
