//! Who is next? Those who wait, by rank and then in the order they came. Every step takes constant
//! time, leaving from the middle too: the rows are lists linked through the seats.
//!
//! Knows nothing of permits or clocks.

use std::task::Waker;

use crate::origin::Rank;

/// Those who wait, and those who have been called and have not heard it yet.
pub(super) struct Queue {
    seats: Vec<Seat>,
    vacant: Vec<usize>,
    /// By rank, and in each those who want a turn alone before those who want a permit too.
    rows: [[Row; 2]; Rank::COUNT],
}

/// A seat's number, good until [`Queue::vacate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(usize);

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// A permit, and a turn.
    Permit,
    /// A turn alone.
    Turn,
}

impl Wish {
    fn row(self) -> usize {
        match self {
            Wish::Turn => 0,
            Wish::Permit => 1,
        }
    }
}

/// How it stands with one who has a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// In its row.
    Waits,
    /// Called: a permit is reserved for it.
    Admitted,
    /// Called: it has had to make room.
    Displaced,
}

struct Seat {
    rank: Rank,
    wish: Wish,
    standing: Standing,
    /// `None`: has been called, or has not looked yet.
    waker: Option<Waker>,
    ahead: Option<usize>,
    behind: Option<usize>,
}

/// Those of one rank who wait, the oldest first.
#[derive(Clone, Copy, Default)]
struct Row {
    first: Option<usize>,
    last: Option<usize>,
    length: usize,
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue {
            seats: Vec::new(),
            vacant: Vec::new(),
            rows: [[Row::default(); 2]; Rank::COUNT],
        }
    }

    /// Takes a seat at the end of the rank's row.
    pub(super) fn join(&mut self, rank: Rank, wish: Wish) -> Ticket {
        let row = &mut self.rows[rank.index()][wish.row()];
        let seat = Seat {
            rank,
            wish,
            standing: Standing::Waits,
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
        Ticket(at)
    }

    /// The oldest of the first rank; where there are no permits for a rank, of those who want none.
    pub(super) fn first(&self, permits: impl Fn(Rank) -> bool) -> Option<Ticket> {
        let ranks = self.rows.iter().zip(Rank::ALL);
        let rows = ranks.map(|([turns, both], rank)| {
            let both = both.first.filter(|_| permits(rank));
            turns.first.or(both)
        });
        rows.flatten().next().map(Ticket)
    }

    /// The youngest of the last rank.
    pub(super) fn last(&self) -> Option<(Rank, Ticket)> {
        let mut rows = self.rows.iter().flatten().rev();
        let last = rows.find_map(|row| row.last)?;
        Some((self.seats[last].rank, Ticket(last)))
    }

    /// Ends a wait; the seat is kept until the news has been heard. Gives whom to wake.
    pub(super) fn call(&mut self, ticket: Ticket, news: Standing) -> Option<Waker> {
        self.unlink(ticket);
        let seat = &mut self.seats[ticket.0];
        seat.standing = news;
        seat.waker.take()
    }

    /// Gives the seat up, and tells how it stood with it.
    pub(super) fn vacate(&mut self, ticket: Ticket) -> Standing {
        let standing = self.standing(ticket);
        if standing == Standing::Waits {
            self.unlink(ticket);
        }
        self.seats[ticket.0].waker = None;
        self.vacant.push(ticket.0);
        standing
    }

    pub(super) fn standing(&self, ticket: Ticket) -> Standing {
        self.seats[ticket.0].standing
    }

    pub(super) fn wish(&self, ticket: Ticket) -> Wish {
        self.seats[ticket.0].wish
    }

    /// Whom to wake when this one is called.
    pub(super) fn waker(&mut self, ticket: Ticket) -> &mut Option<Waker> {
        &mut self.seats[ticket.0].waker
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lengths().iter().sum()
    }

    /// How many wait, by rank.
    pub(super) fn lengths(&self) -> [usize; Rank::COUNT] {
        self.rows
            .map(|rows| rows.iter().map(|row| row.length).sum())
    }

    fn unlink(&mut self, Ticket(at): Ticket) {
        let Seat {
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
        let mut queue = Queue::new();
        let behind = queue.join(Rank::Behind, Wish::Permit);
        let [first, second, third] = [(); 3].map(|()| queue.join(Rank::Segment, Wish::Permit));
        let manifest = queue.join(Rank::Manifest, Wish::Permit);
        assert_eq!(queue.lengths(), [1, 0, 3, 1, 0]);
        assert_eq!(queue.last(), Some((Rank::Behind, behind)));
        assert_eq!(queue.vacate(second), Standing::Waits);
        for expected in [manifest, first, third, behind] {
            assert_eq!(queue.first(|_| true), Some(expected));
            queue.call(expected, Standing::Admitted);
            assert_eq!(queue.standing(expected), Standing::Admitted);
        }
        assert!(queue.len() == 0 && queue.last().is_none());
    }

    #[test]
    fn who_wants_no_permit_goes_when_there_is_none() {
        let mut queue = Queue::new();
        let manifest = queue.join(Rank::Manifest, Wish::Permit);
        let [turn, behind] =
            [Rank::Manifest, Rank::Behind].map(|rank| queue.join(rank, Wish::Turn));
        assert_eq!(queue.first(|_| true), Some(turn));
        queue.vacate(turn);
        assert_eq!(queue.first(|_| true), Some(manifest));
        assert_eq!(queue.first(|_| false), Some(behind));
        assert_eq!(queue.last(), Some((Rank::Behind, behind)));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn seats_are_used_again() {
        let mut queue = Queue::new();
        for _ in 0..100 {
            let called = queue.join(Rank::Segment, Wish::Permit);
            let leaving = queue.join(Rank::Segment, Wish::Permit);
            queue.call(called, Standing::Displaced);
            queue.vacate(leaving);
            assert_eq!(queue.vacate(called), Standing::Displaced);
        }
        assert_eq!(queue.seats.len(), 2);
    }
}
