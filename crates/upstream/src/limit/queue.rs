//! The queue of a limiter: ordered by priority, then by arrival. Every operation takes constant
//! time, including removal from the middle: the requests of one priority are a linked list, oldest
//! first, over one slab of entries. Each entry is one request.
//!
//! Independent of permits and clocks.

use std::task::Waker;

use crate::Priority;

/// Waiting requests, and those that have a result they have not polled yet.
pub(super) struct PermitQueue {
    entries: Vec<QueueEntry>,
    free_entries: Vec<usize>,
    /// By priority; in each, requests for a token only come before those for a permit.
    lists: [[WaitingList; 2]; Priority::COUNT],
}

/// Index of an entry, valid until [`PermitQueue::free`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryId(usize);

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitingFor {
    /// A permit and a rate token.
    Permit,
    /// A rate token only.
    Token,
}

impl WaitingFor {
    /// Index of its list among those of a priority.
    fn list(self) -> usize {
        match self {
            WaitingFor::Token => 0,
            WaitingFor::Permit => 1,
        }
    }
}

/// State of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryState {
    /// Waiting in its list.
    Waiting,
    /// Admitted: a permit is reserved for it.
    Admitted,
    /// Displaced by a request of a higher priority.
    Displaced,
}

struct QueueEntry {
    priority: Priority,
    waiting_for: WaitingFor,
    state: EntryState,
    /// `None`: already woken, or not polled yet.
    waker: Option<Waker>,
    ahead: Option<usize>,
    behind: Option<usize>,
}

/// The requests of one priority that wait for the same, oldest first.
#[derive(Clone, Copy, Default)]
struct WaitingList {
    first: Option<usize>,
    last: Option<usize>,
    length: usize,
}

impl PermitQueue {
    pub(super) fn new() -> PermitQueue {
        PermitQueue {
            entries: Vec::new(),
            free_entries: Vec::new(),
            lists: [[WaitingList::default(); 2]; Priority::COUNT],
        }
    }

    /// Adds a request at the end of its list.
    pub(super) fn push(&mut self, priority: Priority, waiting_for: WaitingFor) -> EntryId {
        let list = &mut self.lists[priority.index()][waiting_for.list()];
        let entry = QueueEntry {
            priority,
            waiting_for,
            state: EntryState::Waiting,
            waker: None,
            ahead: list.last,
            behind: None,
        };
        let at = self.free_entries.pop().unwrap_or(self.entries.len());
        match self.entries.get_mut(at) {
            Some(free) => *free = entry,
            None => self.entries.push(entry),
        }
        match list.last.replace(at) {
            Some(last) => self.entries[last].behind = Some(at),
            None => list.first = Some(at),
        }
        list.length += 1;
        EntryId(at)
    }

    /// The oldest request of the highest priority. Where `permits` is false for a priority, only
    /// requests for a token.
    pub(super) fn first(&self, permits: impl Fn(Priority) -> bool) -> Option<EntryId> {
        let lists = self.lists.iter().zip(Priority::ALL);
        let lists = lists.map(|([token_list, permit_list], priority)| {
            let permit = permit_list.first.filter(|_| permits(priority));
            token_list.first.or(permit)
        });
        lists.flatten().next().map(EntryId)
    }

    /// The newest request of the lowest priority.
    pub(super) fn last(&self) -> Option<(Priority, EntryId)> {
        let mut lists = self.lists.iter().flatten().rev();
        let last = lists.find_map(|list| list.last)?;
        Some((self.entries[last].priority, EntryId(last)))
    }

    /// Ends a wait with this result; the entry stays until the request has polled it. Returns the
    /// waker.
    pub(super) fn end_wait(&mut self, id: EntryId, end: EntryState) -> Option<Waker> {
        self.unlink(id);
        let entry = &mut self.entries[id.0];
        entry.state = end;
        entry.waker.take()
    }

    /// Frees the entry and returns its state.
    pub(super) fn free(&mut self, id: EntryId) -> EntryState {
        let state = self.state(id);
        if state == EntryState::Waiting {
            self.unlink(id);
        }
        self.entries[id.0].waker = None;
        self.free_entries.push(id.0);
        state
    }

    pub(super) fn state(&self, id: EntryId) -> EntryState {
        self.entries[id.0].state
    }

    pub(super) fn waiting_for(&self, id: EntryId) -> WaitingFor {
        self.entries[id.0].waiting_for
    }

    /// The waker of an entry.
    pub(super) fn waker(&mut self, id: EntryId) -> &mut Option<Waker> {
        &mut self.entries[id.0].waker
    }

    /// Number of waiting requests.
    pub(super) fn len(&self) -> usize {
        self.lengths().iter().sum()
    }

    /// Number of waiting requests, by priority.
    pub(super) fn lengths(&self) -> [usize; Priority::COUNT] {
        self.lists
            .map(|lists| lists.iter().map(|list| list.length).sum())
    }

    fn unlink(&mut self, EntryId(at): EntryId) {
        let QueueEntry {
            priority,
            waiting_for,
            ahead,
            behind,
            ..
        } = self.entries[at];
        let list = &mut self.lists[priority.index()][waiting_for.list()];
        match ahead {
            Some(ahead) => self.entries[ahead].behind = behind,
            None => list.first = behind,
        }
        match behind {
            Some(behind) => self.entries[behind].ahead = ahead,
            None => list.last = ahead,
        }
        list.length -= 1;
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
        assert_eq!(queue.free(second), EntryState::Waiting);
        for expected in [manifest, first, third, behind] {
            assert_eq!(queue.first(|_| true), Some(expected));
            queue.end_wait(expected, EntryState::Admitted);
            assert_eq!(queue.state(expected), EntryState::Admitted);
        }
        assert!(queue.len() == 0 && queue.last().is_none());
    }

    #[test]
    fn without_permits_only_token_requests_leave_the_queue() {
        let mut queue = PermitQueue::new();
        let manifest = queue.push(Priority::Manifest, WaitingFor::Permit);
        let [token_request, behind] = [Priority::Manifest, Priority::Refresh]
            .map(|priority| queue.push(priority, WaitingFor::Token));
        assert_eq!(queue.first(|_| true), Some(token_request));
        queue.free(token_request);
        assert_eq!(queue.first(|_| true), Some(manifest));
        assert_eq!(queue.first(|_| false), Some(behind));
        assert_eq!(queue.last(), Some((Priority::Refresh, behind)));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn queue_entries_are_reused() {
        let mut queue = PermitQueue::new();
        for _ in 0..100 {
            let called = queue.push(Priority::Segment, WaitingFor::Permit);
            let leaving = queue.push(Priority::Segment, WaitingFor::Permit);
            queue.end_wait(called, EntryState::Displaced);
            queue.free(leaving);
            assert_eq!(queue.free(called), EntryState::Displaced);
        }
        assert_eq!(queue.entries.len(), 2);
    }
}
