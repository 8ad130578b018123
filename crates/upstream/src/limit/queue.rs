//! The queue of a limiter: ordered by priority, then by arrival. Every operation takes constant
//! time, including removal from the middle: the rows are linked lists over a slab of seats. A seat
//! is the place of one request; a row links the seats of one priority, oldest first.
//!
//! Independent of permits and clocks.

use std::task::Waker;

use crate::Priority;

/// Waiting requests, and those that have a result they have not polled yet.
pub(super) struct PermitQueue {
    seats: Vec<QueueSeat>,
    free_seats: Vec<usize>,
    /// By priority; in each, requests for a token only come before those for a permit.
    rows: [[PriorityRow; 2]; Priority::COUNT],
}

/// Index of a seat, valid until [`PermitQueue::free`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeatId(usize);

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitingFor {
    /// A permit and a rate token.
    Permit,
    /// A rate token only.
    Token,
}

impl WaitingFor {
    fn row(self) -> usize {
        match self {
            WaitingFor::Token => 0,
            WaitingFor::Permit => 1,
        }
    }
}

/// State of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeatState {
    /// Waiting in its row.
    Waiting,
    /// Admitted: a permit is reserved for it.
    Admitted,
    /// Displaced by a request of a higher priority.
    Displaced,
}

struct QueueSeat {
    priority: Priority,
    waiting_for: WaitingFor,
    state: SeatState,
    /// `None`: already woken, or not polled yet.
    waker: Option<Waker>,
    ahead: Option<usize>,
    behind: Option<usize>,
}

/// The waiting requests of one priority, oldest first.
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
            free_seats: Vec::new(),
            rows: [[PriorityRow::default(); 2]; Priority::COUNT],
        }
    }

    /// Adds a request at the end of its row.
    pub(super) fn push(&mut self, priority: Priority, waiting_for: WaitingFor) -> SeatId {
        let row = &mut self.rows[priority.index()][waiting_for.row()];
        let seat = QueueSeat {
            priority,
            waiting_for,
            state: SeatState::Waiting,
            waker: None,
            ahead: row.last,
            behind: None,
        };
        let at = self.free_seats.pop().unwrap_or(self.seats.len());
        match self.seats.get_mut(at) {
            Some(free) => *free = seat,
            None => self.seats.push(seat),
        }
        match row.last.replace(at) {
            Some(last) => self.seats[last].behind = Some(at),
            None => row.first = Some(at),
        }
        row.length += 1;
        SeatId(at)
    }

    /// The oldest request of the highest priority. Where `permits` is false for a priority, only
    /// requests for a token.
    pub(super) fn first(&self, permits: impl Fn(Priority) -> bool) -> Option<SeatId> {
        let rows = self.rows.iter().zip(Priority::ALL);
        let rows = rows.map(|([token_row, permit_row], priority)| {
            let permit = permit_row.first.filter(|_| permits(priority));
            token_row.first.or(permit)
        });
        rows.flatten().next().map(SeatId)
    }

    /// The newest request of the lowest priority.
    pub(super) fn last(&self) -> Option<(Priority, SeatId)> {
        let mut rows = self.rows.iter().flatten().rev();
        let last = rows.find_map(|row| row.last)?;
        Some((self.seats[last].priority, SeatId(last)))
    }

    /// Ends a wait with this result; the seat stays until the request has polled it. Returns the
    /// waker.
    pub(super) fn end_wait(&mut self, seat_id: SeatId, end: SeatState) -> Option<Waker> {
        self.unlink(seat_id);
        let seat = &mut self.seats[seat_id.0];
        seat.state = end;
        seat.waker.take()
    }

    /// Frees the seat and returns its state.
    pub(super) fn free(&mut self, seat_id: SeatId) -> SeatState {
        let state = self.state(seat_id);
        if state == SeatState::Waiting {
            self.unlink(seat_id);
        }
        self.seats[seat_id.0].waker = None;
        self.free_seats.push(seat_id.0);
        state
    }

    pub(super) fn state(&self, seat_id: SeatId) -> SeatState {
        self.seats[seat_id.0].state
    }

    pub(super) fn waiting_for(&self, seat_id: SeatId) -> WaitingFor {
        self.seats[seat_id.0].waiting_for
    }

    /// The waker of a seat.
    pub(super) fn waker(&mut self, seat_id: SeatId) -> &mut Option<Waker> {
        &mut self.seats[seat_id.0].waker
    }

    /// Number of waiting requests.
    pub(super) fn len(&self) -> usize {
        self.lengths().iter().sum()
    }

    /// Number of waiting requests, by priority.
    pub(super) fn lengths(&self) -> [usize; Priority::COUNT] {
        self.rows
            .map(|rows| rows.iter().map(|row| row.length).sum())
    }

    fn unlink(&mut self, SeatId(at): SeatId) {
        let QueueSeat {
            priority,
            waiting_for,
            ahead,
            behind,
            ..
        } = self.seats[at];
        let row = &mut self.rows[priority.index()][waiting_for.row()];
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
    fn queue_orders_by_priority_then_age_and_allows_removal() {
        let mut queue = PermitQueue::new();
        let behind = queue.push(Priority::Refresh, WaitingFor::Permit);
        let [first, second, third] =
            [(); 3].map(|()| queue.push(Priority::Segment, WaitingFor::Permit));
        let manifest = queue.push(Priority::Manifest, WaitingFor::Permit);
        assert_eq!(queue.lengths(), [1, 0, 3, 1, 0]);
        assert_eq!(queue.last(), Some((Priority::Refresh, behind)));
        assert_eq!(queue.free(second), SeatState::Waiting);
        for expected in [manifest, first, third, behind] {
            assert_eq!(queue.first(|_| true), Some(expected));
            queue.end_wait(expected, SeatState::Admitted);
            assert_eq!(queue.state(expected), SeatState::Admitted);
        }
        assert!(queue.len() == 0 && queue.last().is_none());
    }

    #[test]
    fn without_permits_only_token_requests_leave_the_queue() {
        let mut queue = PermitQueue::new();
        let manifest = queue.push(Priority::Manifest, WaitingFor::Permit);
        let [turn, behind] = [Priority::Manifest, Priority::Refresh]
            .map(|priority| queue.push(priority, WaitingFor::Token));
        assert_eq!(queue.first(|_| true), Some(turn));
        queue.free(turn);
        assert_eq!(queue.first(|_| true), Some(manifest));
        assert_eq!(queue.first(|_| false), Some(behind));
        assert_eq!(queue.last(), Some((Priority::Refresh, behind)));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn queue_seats_are_reused() {
        let mut queue = PermitQueue::new();
        for _ in 0..100 {
            let called = queue.push(Priority::Segment, WaitingFor::Permit);
            let leaving = queue.push(Priority::Segment, WaitingFor::Permit);
            queue.end_wait(called, SeatState::Displaced);
            queue.free(leaving);
            assert_eq!(queue.free(called), SeatState::Displaced);
        }
        assert_eq!(queue.seats.len(), 2);
    }
}
