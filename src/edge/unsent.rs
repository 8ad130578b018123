//! Which streams of an HTTP/2 connection have been handed to h2 whole and do not leave?
//!
//! hyper lets go of a stream when h2 has the last piece of its body, and h2 waits for the viewer's
//! windows for as long as it takes. Nobody else looks after such a stream, so the connection's
//! [`super::watch`] does. Most are gone within a turn: no list is kept of them, and no clock is read.
//! They are counted by the turn in which they last made progress, and a turn ends when the watch says
//! so.

use std::sync::atomic::{AtomicU32, Ordering};

/// The turn that runs, those before it in which a stream may still be, and the next.
const TURNS: usize = 4;

/// How many streams made progress last in which turn.
#[derive(Default)]
pub(super) struct Unsent {
    turn: AtomicU32,
    streams: [AtomicU32; TURNS],
}

/// The turn in which a stream made progress last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn(pub(super) u32);

impl Unsent {
    /// Counts a stream in the turn that runs.
    pub(super) fn enter(&self) -> Turn {
        let turn = self.turn.load(Ordering::Relaxed);
        let streams = self.streams_in(turn);
        streams.store(streams.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Turn(turn)
    }

    /// A stream is gone, or counts in a later turn.
    pub(super) fn leave(&self, turn: Turn) {
        let streams = self.streams_in(turn.0);
        let left = streams.load(Ordering::Relaxed).saturating_sub(1);
        streams.store(left, Ordering::Relaxed);
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        let count = |streams: &AtomicU32| streams.load(Ordering::Relaxed);
        self.streams.iter().any(|streams| count(streams) > 0)
    }

    /// Begins the next turn. `true`: some stream has made no progress in two whole turns.
    pub(super) fn next_turn(&self) -> bool {
        let next = self.turn.load(Ordering::Relaxed).wrapping_add(1);
        self.turn.store(next, Ordering::Relaxed);
        self.streams_in(next.wrapping_sub(3))
            .load(Ordering::Relaxed)
            > 0
    }

    fn streams_in(&self, turn: u32) -> &AtomicU32 {
        &self.streams[turn as usize % TURNS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_stays_is_found_after_two_whole_turns() {
        let unsent = Unsent::default();
        assert!(!unsent.any());
        unsent.enter();
        assert!(unsent.any());
        assert_eq!([(); 3].map(|()| unsent.next_turn()), [false, false, true]);
    }

    #[test]
    fn streams_that_come_and_go_are_never_found() {
        let unsent = Unsent::default();
        let mut before = unsent.enter();
        for _ in 0..10 {
            let stream = unsent.enter();
            assert!(!unsent.next_turn());
            unsent.leave(before);
            before = stream;
        }
        unsent.leave(before);
        assert!(!unsent.any());
    }

    #[test]
    fn one_that_stays_is_found_among_those_that_go() {
        let unsent = Unsent::default();
        unsent.next_turn();
        unsent.enter();
        let found = (0..9).position(|_| {
            let other = unsent.enter();
            let found = unsent.next_turn();
            unsent.leave(other);
            found
        });
        assert_eq!(found, Some(2));
    }
}
