//! Who is next? Those who wait, by rank and then in the order they came. Every step takes constant
//! time, leaving from the middle too: the rows are lists linked through the seats.
//!
//! Knows nothing of permits or clocks.

use std::task::Waker;

use crate::upstream::Priority;

/// Those who wait, and those who have been called and have not heard it yet.
pub(super) struct PermitQueue {
    seats: Vec<QueueSeat>,
    vacant: Vec<usize>,
    /// By rank, and in each those who want a turn alone before those who want a permit too.
    rows: [[PriorityRow; 2]; Priority::COUNT],
}

/// A seat's number, good until [`Queue::vacate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeatId(usize);

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitingFor {
    /// A permit, and a turn.
    Permit,
    /// A turn alone.
    Turn,
}

impl WaitingFor {
    fn row(self) -> usize {
        match self {
            WaitingFor::Turn => 0,
            WaitingFor::Permit => 1,
        }
    }
}

/// How it stands with one who has a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeatState {
    /// In its row.
    Waits,
    /// Called: a permit is reserved for it.
    Admitted,
    /// Called: it has had to make room.
    Displaced,
}

struct QueueSeat {
    rank: Priority,
    wish: WaitingFor,
    standing: SeatState,
    /// `None`: has been called, or has not looked yet.
    waker: Option<Waker>,
    ahead: Option<usize>,
    behind: Option<usize>,
}

/// Those of one rank who wait, the oldest first.
#[derive(Clone, Copy, Default)]
struct PriorityRow {
    first: Option<usize>,
    last: Option<usize>,
    length: usize,
}

impl PermitQueue {
    pub(super) fn new() -> PermitQueue {
        PermitQueue {
            seats: Vec::new(),
            vacant: Vec::new(),
            rows: [[PriorityRow::default(); 2]; Priority::COUNT],
        }
    }

    /// Takes a seat at the end of the rank's row.
    pub(super) fn join(&mut self, rank: Priority, wish: WaitingFor) -> SeatId {
        let row = &mut self.rows[rank.index()][wish.row()];
        let seat = QueueSeat {
            rank,
            wish,
            standing: SeatState::Waits,
            waker: None,
            ahead: row.last,
            behind: None,
        };
        let at = self.vacant.pop().unwrap_or(self.seats.len());
        match self.seats.get_mut(at) {
            Some(vacant) => *vacant = seat,
            None => self.seats.push(seat),
        }
        match row.last.replace(at) {
            Some(last) => self.seats[last].behind = Some(at),
            None => row.first = Some(at),
        }
        row.length += 1;
        SeatId(at)
    }

    /// The oldest of the first rank; where there are no permits for a rank, of those who want none.
    pub(super) fn first(&self, permits: impl Fn(Priority) -> bool) -> Option<SeatId> {
        let ranks = self.rows.iter().zip(Priority::ALL);
        let rows = ranks.map(|([turns, both], rank)| {
            let both = both.first.filter(|_| permits(rank));
            turns.first.or(both)
        });
        rows.flatten().next().map(SeatId)
    }

    /// The youngest of the last rank.
    pub(super) fn last(&self) -> Option<(Priority, SeatId)> {
        let mut rows = self.rows.iter().flatten().rev();
        let last = rows.find_map(|row| row.last)?;
        Some((self.seats[last].rank, SeatId(last)))
    }

    /// Ends a wait; the seat is kept until the news has been heard. Gives whom to wake.
    pub(super) fn call(&mut self, ticket: SeatId, news: SeatState) -> Option<Waker> {
        self.unlink(ticket);
        let seat = &mut self.seats[ticket.0];
        seat.standing = news;
        seat.waker.take()
    }

    /// Gives the seat up, and tells how it stood with it.
    pub(super) fn vacate(&mut self, ticket: SeatId) -> SeatState {
        let standing = self.standing(ticket);
        if standing == SeatState::Waits {
            self.unlink(ticket);
        }
        self.seats[ticket.0].waker = None;
        self.vacant.push(ticket.0);
        standing
    }

    pub(super) fn standing(&self, ticket: SeatId) -> SeatState {
        self.seats[ticket.0].standing
    }

    pub(super) fn wish(&self, ticket: SeatId) -> WaitingFor {
        self.seats[ticket.0].wish
    }

    /// Whom to wake when this one is called.
    pub(super) fn waker(&mut self, ticket: SeatId) -> &mut Option<Waker> {
        &mut self.seats[ticket.0].waker
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lengths().iter().sum()
    }

    /// How many wait, by rank.
    pub(super) fn lengths(&self) -> [usize; Priority::COUNT] {
        self.rows
            .map(|rows| rows.iter().map(|row| row.length).sum())
    }

    fn unlink(&mut self, SeatId(at): SeatId) {
        let QueueSeat {
            rank,
            wish,
            ahead,
            behind,
            ..
        } = self.seats[at];
        let row = &mut self.rows[rank.index()][wish.row()];
        match ahead {
            Some(ahead) => self.seats[ahead].behind = behind,
            None => row.first = behind,
        }
        match behind {
            Some(behind) => self.seats[behind].ahead = ahead,
            None => row.last = ahead,
        }
        row.length -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_first_then_age_and_the_middle_may_leave() {
        let mut queue = PermitQueue::new();
        let behind = queue.join(Priority::Behind, WaitingFor::Permit);
        let [first, second, third] =
            [(); 3].map(|()| queue.join(Priority::Segment, WaitingFor::Permit));
        let manifest = queue.join(Priority::Manifest, WaitingFor::Permit);
        assert_eq!(queue.lengths(), [1, 0, 3, 1, 0]);
        assert_eq!(queue.last(), Some((Priority::Behind, behind)));
        assert_eq!(queue.vacate(second), SeatState::Waits);
        for expected in [manifest, first, third, behind] {
            assert_eq!(queue.first(|_| true), Some(expected));
            queue.call(expected, SeatState::Admitted);
            assert_eq!(queue.standing(expected), SeatState::Admitted);
        }
        assert!(queue.len() == 0 && queue.last().is_none());
    }

    #[test]
    fn who_wants_no_permit_goes_when_there_is_none() {
        let mut queue = PermitQueue::new();
        let manifest = queue.join(Priority::Manifest, WaitingFor::Permit);
        let [turn, behind] =
            [Priority::Manifest, Priority::Behind].map(|rank| queue.join(rank, WaitingFor::Turn));
        assert_eq!(queue.first(|_| true), Some(turn));
        queue.vacate(turn);
        assert_eq!(queue.first(|_| true), Some(manifest));
        assert_eq!(queue.first(|_| false), Some(behind));
        assert_eq!(queue.last(), Some((Priority::Behind, behind)));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn seats_are_used_again() {
        let mut queue = PermitQueue::new();
        for _ in 0..100 {
            let called = queue.join(Priority::Segment, WaitingFor::Permit);
            let leaving = queue.join(Priority::Segment, WaitingFor::Permit);
            queue.call(called, SeatState::Displaced);
            queue.vacate(leaving);
            assert_eq!(queue.vacate(called), SeatState::Displaced);
        }
        assert_eq!(queue.seats.len(), 2);
    }
}
