//! Finds the HTTP/2 streams whose body h2 has completely but does not send.
//!
//! hyper drops a stream when h2 has the last chunk of its body, and h2 waits for the windows of the
//! viewer without a limit. So the [`super::connection_timer`] checks these streams. It divides time
//! into turns of half a `send_rate_window`. Most streams are sent within a turn, so there is no
//! list of them, and no clock is read for them: they are only counted, by the turn in which they
//! last made progress.

use std::sync::atomic::{AtomicU32, Ordering};

/// A stream is late after this many whole turns without progress: see [`StreamLag`].
const LATE_TURNS: u32 = 2;

/// A stream is too late after this many whole turns without progress: four windows. h2 has at most
/// 32 KiB of a complete body, and they take less than four windows at the default minimum rate. If
/// many streams share a connection that is just fast enough for all, the last one waits that long.
const LATE_TURNS_MAX: u32 = 8;

/// Number of counters: for the current turn, the earlier turns that may have streams, and the next
/// turn. A power of two, because turn numbers wrap around.
const TURNS: usize = 16;

/// The number of streams per turn of their last progress.
#[derive(Default)]
pub(super) struct UnsentStreams {
    turn: AtomicU32,
    streams: [AtomicU32; TURNS],
}

/// Whether streams make no progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamLag {
    /// All have made progress recently.
    None,
    /// A stream has made no progress for two whole turns. It may have waited because other streams
    /// used the connection.
    Late,
    /// A stream has made no progress for longer than other streams can explain.
    TooLate,
}

/// The turn in which a stream last made progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendTurn(pub(super) u32);

impl UnsentStreams {
    /// Counts a stream in the current turn.
    pub(super) fn enter(&self) -> SendTurn {
        let turn = self.turn.load(Ordering::Relaxed);
        let streams = self.streams_in(turn);
        streams.store(streams.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        SendTurn(turn)
    }

    /// Removes a stream that has ended or moves to a later turn.
    pub(super) fn leave(&self, turn: SendTurn) {
        let streams = self.streams_in(turn.0);
        let remaining = streams.load(Ordering::Relaxed).saturating_sub(1);
        streams.store(remaining, Ordering::Relaxed);
    }

    /// Whether any stream is counted.
    pub(super) fn any(&self) -> bool {
        let count = |streams: &AtomicU32| streams.load(Ordering::Relaxed);
        self.streams.iter().any(|streams| count(streams) > 0)
    }

    /// Begins the next turn and returns the lag of the slowest stream.
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
    fn reports_late_after_two_turns_and_too_late_after_eight() {
        let unsent = UnsentStreams::default();
        assert!(!unsent.any());
        unsent.enter();
        assert!(unsent.any());
        assert_eq!(lags(&unsent, 2), [StreamLag::None; 2]);
        assert_eq!(lags(&unsent, 6), [StreamLag::Late; 6]);
        assert_eq!(unsent.next_turn(), StreamLag::TooLate);
    }

    #[test]
    fn never_reports_late_while_streams_finish() {
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
    fn stalled_stream_is_late_among_short_lived_ones() {
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
    fn counts_turns_across_the_wrap_around() {
        let unsent = UnsentStreams::default();
        unsent.turn.store(u32::MAX - 1, Ordering::Relaxed);
        unsent.enter();
        assert_eq!(
            lags(&unsent, 3),
            [StreamLag::None, StreamLag::None, StreamLag::Late]
        );
    }
}
