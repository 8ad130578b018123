//! Who may ask now, who waits, and who is turned away? The gate's state, without a wait in it.
//!
//! The clock is an argument. Nobody is woken in here either: each step adds to `calls` whom to wake
//! once the state is let go of.

use std::task::Waker;

use tokio::time::Instant;

use super::bucket::TokenBucket;
use super::queue::{PermitQueue, SeatId, SeatState, WaitingFor};
use super::{LimiterCounts, LimiterSettings, Rejection};
use crate::upstream::Priority;

/// Whom to wake.
pub(super) type WakeUps = Vec<Waker>;

/// Permits, the pace, and the queue for both.
pub(super) struct LimiterState {
    concurrency_max: usize,
    kept_for_manifests: usize,
    queue_max: usize,
    in_flight: usize,
    pace: Option<TokenBucket>,
    queue: PermitQueue,
    /// While there are permits but no tokens, one who waits keeps time for all: at the next token
    /// it looks again, and so hands it to whoever is first then.
    timekeeper: Option<SeatId>,
    rejected: [u64; Rejection::ALL.len()],
}

/// What a newcomer meets.
pub(super) enum LimiterAdmission {
    /// A permit, at once.
    Open,
    /// A seat in the queue.
    Queued(SeatId),
    /// A full queue.
    Closed,
}

/// What one who waits sees.
pub(super) enum QueueOutlook {
    /// A permit. The seat is given up.
    Admitted,
    /// It has waited in vain. The seat is given up.
    Rejected,
    /// Nothing new. It is to look again when it is called, and at this time.
    Waits(Instant),
}

impl LimiterState {
    pub(super) fn new(limits: &LimiterSettings) -> LimiterState {
        LimiterState {
            concurrency_max: limits.concurrency_max.max(1),
            kept_for_manifests: limits.kept_for_manifests,
            queue_max: limits.queue_max,
            in_flight: 0,
            pace: limits.requests_per_second_max.map(TokenBucket::new),
            queue: PermitQueue::new(),
            timekeeper: None,
            rejected: [0; Rejection::ALL.len()],
        }
    }

    /// Someone comes. A seat in a full queue is found at the cost of the youngest waiter of the
    /// last rank, if that comes after the newcomer's.
    pub(super) fn enter(
        &mut self,
        (rank, wish): (Priority, WaitingFor),
        now: Instant,
        calls: &mut WakeUps,
    ) -> LimiterAdmission {
        let open = match wish {
            WaitingFor::Permit => self.admit(rank, now, calls),
            WaitingFor::Turn => self.try_turn(now, calls),
        };
        if open {
            return LimiterAdmission::Open;
        }
        if self.queue.len() >= self.queue_max {
            match self.queue.last() {
                Some((last, ticket)) if rank < last => {
                    self.reject(Rejection::Displaced);
                    self.call(ticket, SeatState::Displaced, calls);
                }
                _ => {
                    self.reject(Rejection::QueueFull);
                    return LimiterAdmission::Closed;
                }
            }
        }
        LimiterAdmission::Queued(self.queue.join(rank, wish))
    }

    /// Someone comes who would not wait, and is of no rank: what is kept for manifests is not for him.
    pub(super) fn try_enter(&mut self, now: Instant, calls: &mut WakeUps) -> bool {
        self.admit(Priority::Ahead, now, calls)
    }

    fn admit(&mut self, rank: Priority, now: Instant, calls: &mut WakeUps) -> bool {
        self.settle(now, calls);
        // What is left now nobody waits for who could have it.
        let open = self.has_permit(rank) && self.take_token(now);
        self.in_flight += usize::from(open);
        open
    }

    /// Someone asks who needs no permit, or has one. Those who wait for a turn go first.
    pub(super) fn try_turn(&mut self, now: Instant, calls: &mut WakeUps) -> bool {
        self.settle(now, calls);
        self.take_token(now)
    }

    /// One who waits looks how it stands, and will be woken when that changes.
    pub(super) fn look(
        &mut self,
        ticket: SeatId,
        until: Instant,
        waker: &Waker,
        now: Instant,
        calls: &mut WakeUps,
    ) -> QueueOutlook {
        self.settle(now, calls);
        match self.queue.standing(ticket) {
            SeatState::Admitted => {
                self.queue.vacate(ticket);
                QueueOutlook::Admitted
            }
            SeatState::Displaced => {
                self.queue.vacate(ticket);
                QueueOutlook::Rejected
            }
            SeatState::Waits if now >= until => {
                self.reject(Rejection::Deadline);
                self.give_up(ticket, now, calls);
                QueueOutlook::Rejected
            }
            SeatState::Waits => {
                *self.queue.waker(ticket) = Some(waker.clone());
                let token_at = self.pace.as_ref().map(|pace| now + pace.wait(now));
                match token_at.filter(|_| self.timekeeper == Some(ticket)) {
                    Some(token_at) => QueueOutlook::Waits(token_at.min(until)),
                    None => QueueOutlook::Waits(until),
                }
            }
        }
    }

    /// One who waits will look no more. What it was given and has not taken goes to the next.
    pub(super) fn give_up(&mut self, ticket: SeatId, now: Instant, calls: &mut WakeUps) {
        self.resign(ticket);
        let wish = self.queue.wish(ticket);
        if self.queue.vacate(ticket) == SeatState::Admitted {
            self.in_flight -= usize::from(wish == WaitingFor::Permit);
            if let Some(pace) = &mut self.pace {
                pace.put_back();
            }
        }
        self.settle(now, calls);
    }

    /// A permit comes back.
    pub(super) fn leave(&mut self, now: Instant, calls: &mut WakeUps) {
        self.in_flight -= 1;
        self.settle(now, calls);
    }

    /// A newcomer would get a turn now.
    pub(super) fn has_turn(&self, now: Instant) -> bool {
        let wait = self.pace.as_ref().map(|pace| pace.wait(now));
        wait.is_none_or(|wait| wait.is_zero() && self.queue.len() == 0)
    }

    /// A newcomer would get a permit now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.has_permit(Priority::Ahead) && self.queue.len() == 0 && self.has_turn(now)
    }

    pub(super) fn has_room(&self) -> bool {
        self.queue.len() == 0 && self.in_flight * 2 < self.concurrency_max
    }

    pub(super) fn census(&self) -> LimiterCounts {
        LimiterCounts {
            in_flight: self.in_flight,
            queued: self.queue.lengths(),
            rejected: self.rejected,
        }
    }

    /// Hands out what there is, to those who are first. Afterwards, where someone waits, there is
    /// no permit for them, or there is no token and someone keeps time for the next.
    fn settle(&mut self, now: Instant, calls: &mut WakeUps) {
        while let Some(first) = self.queue.first(|rank| self.has_permit(rank)) {
            if !self.take_token(now) {
                return self.appoint(calls);
            }
            self.in_flight += usize::from(self.queue.wish(first) == WaitingFor::Permit);
            self.call(first, SeatState::Admitted, calls);
        }
        self.timekeeper = None;
    }

    /// The one who will wait longest keeps time: it has to be replaced least often.
    fn appoint(&mut self, calls: &mut WakeUps) {
        if self.timekeeper.is_none()
            && let Some((_, last)) = self.queue.last()
        {
            self.timekeeper = Some(last);
            calls.extend(self.queue.waker(last).take());
        }
    }

    fn call(&mut self, ticket: SeatId, news: SeatState, calls: &mut WakeUps) {
        self.resign(ticket);
        calls.extend(self.queue.call(ticket, news));
    }

    fn resign(&mut self, ticket: SeatId) {
        self.timekeeper = self.timekeeper.filter(|keeper| *keeper != ticket);
    }

    fn has_permit(&self, rank: Priority) -> bool {
        let kept = match rank {
            Priority::Manifest => 0,
            _ => self.kept_for_manifests,
        };
        self.in_flight + kept < self.concurrency_max
    }

    fn take_token(&mut self, now: Instant) -> bool {
        self.pace.as_mut().is_none_or(|pace| pace.take(now))
    }

    fn reject(&mut self, reason: Rejection) {
        self.rejected[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(30);

    /// A turnstile with its clock beside it. Nobody is really woken.
    struct Scene {
        turnstile: LimiterState,
        now: Instant,
        until: Instant,
    }

    impl Scene {
        /// Ten a second, one at once.
        fn paced(concurrency_max: usize, queue_max: usize) -> Scene {
            let now = Instant::now();
            Scene {
                turnstile: LimiterState::new(&LimiterSettings {
                    concurrency_max,
                    kept_for_manifests: 0,
                    queue_max,
                    requests_per_second_max: Some(10),
                }),
                now,
                until: now + LONG,
            }
        }

        fn enters(&mut self, rank: Priority) -> bool {
            let entrance =
                self.turnstile
                    .enter((rank, WaitingFor::Permit), self.now, &mut WakeUps::new());
            matches!(entrance, LimiterAdmission::Open)
        }

        fn queues(&mut self, rank: Priority) -> SeatId {
            let entrance =
                self.turnstile
                    .enter((rank, WaitingFor::Permit), self.now, &mut WakeUps::new());
            let LimiterAdmission::Queued(ticket) = entrance else {
                panic!("let in at once, or turned away");
            };
            ticket
        }

        /// When to look again; `None`: the wait is over.
        fn look(&mut self, ticket: SeatId) -> Option<Instant> {
            let (waker, mut calls) = (Waker::noop(), WakeUps::new());
            let (until, now) = (self.until, self.now);
            match self.turnstile.look(ticket, until, waker, now, &mut calls) {
                QueueOutlook::Waits(again) => Some(again),
                QueueOutlook::Admitted | QueueOutlook::Rejected => None,
            }
        }
    }

    #[test]
    fn one_keeps_time_for_all_and_only_while_there_are_permits() {
        let mut scene = Scene::paced(2, 8);
        assert!(scene.enters(Priority::Segment));
        let behind = scene.queues(Priority::Behind);
        let token_at = scene.now + 100 * MS;
        assert_eq!(scene.look(behind), Some(token_at), "it is the only one");
        let segment = scene.queues(Priority::Segment);
        assert_eq!(scene.look(segment), Some(scene.until));
        scene.now = token_at;
        assert_eq!(scene.look(behind), Some(scene.until), "no permit is left");
        assert_eq!(scene.look(segment), None);
        let mut calls = WakeUps::new();
        scene.turnstile.leave(scene.now, &mut calls);
        assert_eq!(calls.len(), 1, "the timekeeper is told");
        assert_eq!(scene.look(behind), Some(token_at + 100 * MS));
    }

    #[test]
    fn a_token_that_has_come_makes_room_before_a_newcomer_is_turned_away() {
        let mut scene = Scene::paced(2, 1);
        assert!(scene.enters(Priority::Segment));
        let first = scene.queues(Priority::Segment);
        scene.now += 100 * MS;
        let second = scene.queues(Priority::Segment);
        assert_eq!(scene.look(first), None);
        assert_eq!(scene.look(second), Some(scene.until));
        assert_eq!(scene.turnstile.census().rejected, [0; 3]);
    }

    #[test]
    fn a_second_turn_takes_a_token_and_no_permit() {
        let mut scene = Scene::paced(2, 8);
        assert!(scene.enters(Priority::Manifest));
        let mut calls = WakeUps::new();
        assert!(!scene.turnstile.try_turn(scene.now, &mut calls));
        scene.now += 100 * MS;
        assert!(scene.turnstile.try_turn(scene.now, &mut calls));
        let next = scene.queues(Priority::Manifest);
        assert_eq!(scene.turnstile.census().in_flight, 1);
        scene.now += 100 * MS;
        assert!(!scene.turnstile.try_turn(scene.now, &mut calls), "{next:?}");
        assert_eq!(scene.look(next), None);
    }

    #[test]
    fn who_waits_for_a_turn_alone_needs_no_permit() {
        let mut scene = Scene::paced(1, 8);
        assert!(scene.enters(Priority::Segment));
        let both = scene.queues(Priority::Manifest);
        let wish = (Priority::Segment, WaitingFor::Turn);
        let entrance = scene.turnstile.enter(wish, scene.now, &mut WakeUps::new());
        let LimiterAdmission::Queued(turn) = entrance else {
            panic!("there is no token yet");
        };
        scene.look(both);
        assert!(scene.look(turn).is_some());
        scene.now += 100 * MS;
        assert_eq!(scene.look(turn), None);
        assert!(scene.look(both).is_some(), "there is no permit");
        assert_eq!(scene.turnstile.census().in_flight, 1);
    }

    #[test]
    fn what_is_kept_for_manifests_no_other_takes() {
        let mut scene = Scene::paced(2, 8);
        scene.turnstile.kept_for_manifests = 1;
        scene.turnstile.pace = None;
        assert!(scene.enters(Priority::Segment));
        let segment = scene.queues(Priority::Segment);
        assert!(!scene.turnstile.try_enter(scene.now, &mut WakeUps::new()));
        assert_eq!(scene.look(segment), Some(scene.until));
        assert!(scene.enters(Priority::Manifest));
        scene.turnstile.leave(scene.now, &mut WakeUps::new());
        assert_eq!(scene.look(segment), Some(scene.until));
        scene.turnstile.leave(scene.now, &mut WakeUps::new());
        assert_eq!(scene.look(segment), None);
    }

    #[test]
    fn a_newcomer_does_not_take_what_others_wait_for() {
        let mut scene = Scene::paced(2, 8);
        assert!(scene.enters(Priority::Segment));
        let first = scene.queues(Priority::Segment);
        scene.now += 100 * MS;
        assert!(!scene.enters(Priority::Segment));
        assert_eq!(scene.look(first), None);
    }
}
