//! State machine of the limiter: who is admitted, waits or is rejected. No async code.
//!
//! The clock is a parameter. Each step adds the wakers to call to `wake_ups`; the caller wakes them
//! after it releases the lock.

use std::task::Waker;

use tokio::time::Instant;

use super::bucket::TokenBucket;
use super::queue::{EntryId, EntryState, PermitQueue, WaitingFor};
use super::{LimiterCounts, LimiterSettings, Rejection};
use crate::Priority;

/// Wakers to call.
pub(super) type WakeUps = Vec<Waker>;

/// Permits, the token bucket, and the queue for both.
pub(super) struct LimiterState {
    concurrency_max: usize,
    reserved_for_manifests: usize,
    queue_max: usize,
    in_flight: usize,
    bucket: Option<TokenBucket>,
    queue: PermitQueue,
    /// While permits are free but no token is, one waiting request has the token timer: its timer
    /// ends when the next token is due, and `admit_waiting` then admits the first in the queue.
    timer_owner: Option<EntryId>,
    rejected: [u64; Rejection::ALL.len()],
}

/// What became of a request for a permit or a token.
pub(super) enum LimiterAdmission {
    /// Admitted at once.
    Admitted,
    /// Queued.
    Queued(EntryId),
    /// Rejected: the queue is full.
    Rejected,
}

/// Result of a poll by a queued request.
pub(super) enum QueuePoll {
    /// Admitted; the entry is released.
    Admitted,
    /// Rejected; the entry is released.
    Rejected,
    /// Still waiting: poll again when woken, and at this time.
    Waiting(Instant),
}

impl LimiterState {
    pub(super) fn new(limits: &LimiterSettings) -> LimiterState {
        LimiterState {
            concurrency_max: limits.concurrency_max.max(1),
            reserved_for_manifests: limits.reserved_for_manifests,
            queue_max: limits.queue_max,
            in_flight: 0,
            bucket: limits.requests_per_second_max.map(TokenBucket::new),
            queue: PermitQueue::new(),
            timer_owner: None,
            rejected: [0; Rejection::ALL.len()],
        }
    }

    /// Uses other limits from now on. A higher one admits waiting requests at once. Under a lower
    /// one, permits in use stay, and none is granted until enough are returned; a queue that is
    /// longer than allowed shrinks by what leaves it.
    pub(super) fn set_limits(
        &mut self,
        limits: &LimiterSettings,
        now: Instant,
        wake_ups: &mut WakeUps,
    ) {
        self.concurrency_max = limits.concurrency_max.max(1);
        self.reserved_for_manifests = limits.reserved_for_manifests;
        self.queue_max = limits.queue_max;
        match (&mut self.bucket, limits.requests_per_second_max) {
            (Some(bucket), Some(per_second)) => bucket.set_rate(per_second, now),
            (bucket, rate) => *bucket = rate.map(TokenBucket::new),
        }
        // The next token may be due at another time: another timer is chosen.
        self.timer_owner = None;
        self.admit_waiting(now, wake_ups);
    }

    pub(super) fn concurrency_max(&self) -> usize {
        self.concurrency_max
    }

    /// Admits a request or queues it. If the queue is full, it displaces the newest request of the
    /// lowest priority, if that is lower than its own.
    pub(super) fn acquire(
        &mut self,
        (priority, waiting_for): (Priority, WaitingFor),
        now: Instant,
        wake_ups: &mut WakeUps,
    ) -> LimiterAdmission {
        let is_admitted = match waiting_for {
            WaitingFor::Permit => self.admit(priority, now, wake_ups),
            WaitingFor::Token => self.try_token(now, wake_ups),
        };
        if is_admitted {
            return LimiterAdmission::Admitted;
        }
        if self.queue.len() >= self.queue_max {
            match self.queue.last() {
                Some((last, entry)) if priority < last => {
                    self.reject(Rejection::Displaced);
                    self.end_wait(entry, EntryState::Displaced, wake_ups);
                }
                _ => {
                    self.reject(Rejection::QueueFull);
                    return LimiterAdmission::Rejected;
                }
            }
        }
        LimiterAdmission::Queued(self.queue.push(priority, waiting_for))
    }

    /// A request that does not wait. It has no priority, so the permits reserved for manifests are
    /// not available to it.
    pub(super) fn try_acquire(&mut self, now: Instant, wake_ups: &mut WakeUps) -> bool {
        self.admit(Priority::Prefetch, now, wake_ups)
    }

    fn admit(&mut self, priority: Priority, now: Instant, wake_ups: &mut WakeUps) -> bool {
        self.admit_waiting(now, wake_ups);
        // After `admit_waiting`, no waiting request can use a permit or token that is still free.
        let is_admitted = self.has_permit(priority) && self.take_token(now);
        self.in_flight += usize::from(is_admitted);
        is_admitted
    }

    /// A request that needs no permit, or has one. Requests that wait for a token go first.
    pub(super) fn try_token(&mut self, now: Instant, wake_ups: &mut WakeUps) -> bool {
        self.admit_waiting(now, wake_ups);
        self.take_token(now)
    }

    /// A queued request polls its state, and registers its waker.
    pub(super) fn poll(
        &mut self,
        entry: EntryId,
        until: Instant,
        waker: &Waker,
        now: Instant,
        wake_ups: &mut WakeUps,
    ) -> QueuePoll {
        self.admit_waiting(now, wake_ups);
        match self.queue.state(entry) {
            EntryState::Admitted => {
                self.queue.free(entry);
                QueuePoll::Admitted
            }
            EntryState::Displaced => {
                self.queue.free(entry);
                QueuePoll::Rejected
            }
            EntryState::Waiting if now >= until => {
                self.reject(Rejection::Deadline);
                self.give_up(entry, now, wake_ups);
                QueuePoll::Rejected
            }
            EntryState::Waiting => {
                *self.queue.waker(entry) = Some(waker.clone());
                let token_at = self.bucket.as_ref().map(|bucket| now + bucket.wait(now));
                match token_at.filter(|_| self.timer_owner == Some(entry)) {
                    Some(token_at) => QueuePoll::Waiting(token_at.min(until)),
                    None => QueuePoll::Waiting(until),
                }
            }
        }
    }

    /// A queued request gives up. A permit that it was granted goes to the next.
    pub(super) fn give_up(&mut self, entry: EntryId, now: Instant, wake_ups: &mut WakeUps) {
        self.clear_timer_owner(entry);
        let waiting_for = self.queue.waiting_for(entry);
        if self.queue.free(entry) == EntryState::Admitted {
            self.in_flight -= usize::from(waiting_for == WaitingFor::Permit);
            if let Some(bucket) = &mut self.bucket {
                bucket.put_back();
            }
        }
        self.admit_waiting(now, wake_ups);
    }

    /// A permit is returned.
    pub(super) fn release(&mut self, now: Instant, wake_ups: &mut WakeUps) {
        self.in_flight -= 1;
        self.admit_waiting(now, wake_ups);
    }

    /// A new request would get a token now.
    pub(super) fn has_token(&self, now: Instant) -> bool {
        let wait = self.bucket.as_ref().map(|bucket| bucket.wait(now));
        wait.is_none_or(|wait| wait.is_zero() && self.queue.len() == 0)
    }

    /// A new request would get a permit now.
    pub(super) fn has_free_permit(&self, now: Instant) -> bool {
        self.has_permit(Priority::Prefetch) && self.queue.len() == 0 && self.has_token(now)
    }

    pub(super) fn has_spare_permits(&self) -> bool {
        self.queue.len() == 0 && self.in_flight * 2 < self.concurrency_max
    }

    pub(super) fn counts(&self) -> LimiterCounts {
        LimiterCounts {
            in_flight: self.in_flight,
            queued: self.queue.lengths(),
            rejected: self.rejected,
        }
    }

    /// Admits waiting requests in order. Afterwards, if any still wait, there is no permit for
    /// them, or there is no token and a timer for the next one.
    fn admit_waiting(&mut self, now: Instant, wake_ups: &mut WakeUps) {
        while let Some(first) = self.queue.first(|priority| self.has_permit(priority)) {
            if !self.take_token(now) {
                return self.choose_timer_owner(wake_ups);
            }
            self.in_flight += usize::from(self.queue.waiting_for(first) == WaitingFor::Permit);
            self.end_wait(first, EntryState::Admitted, wake_ups);
        }
        self.timer_owner = None;
    }

    /// Gives the timer to the last in the queue: it will wait longest, so it is replaced least
    /// often.
    fn choose_timer_owner(&mut self, wake_ups: &mut WakeUps) {
        if self.timer_owner.is_none()
            && let Some((_, last)) = self.queue.last()
        {
            self.timer_owner = Some(last);
            wake_ups.extend(self.queue.waker(last).take());
        }
    }

    fn end_wait(&mut self, entry: EntryId, result: EntryState, wake_ups: &mut WakeUps) {
        self.clear_timer_owner(entry);
        wake_ups.extend(self.queue.end_wait(entry, result));
    }

    /// This request no longer waits: it cannot have the timer.
    fn clear_timer_owner(&mut self, entry: EntryId) {
        self.timer_owner = self.timer_owner.filter(|owner| *owner != entry);
    }

    fn has_permit(&self, priority: Priority) -> bool {
        let kept = match priority {
            Priority::Manifest => 0,
            _ => self.reserved_for_manifests,
        };
        self.in_flight + kept < self.concurrency_max
    }

    fn take_token(&mut self, now: Instant) -> bool {
        self.bucket.as_mut().is_none_or(|bucket| bucket.take(now))
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

    /// A limiter with its own clock. Wakers are not called.
    struct SimulatedLimiter {
        state: LimiterState,
        now: Instant,
        until: Instant,
    }

    impl SimulatedLimiter {
        /// Ten requests per second, burst one.
        fn paced(concurrency_max: usize, queue_max: usize) -> SimulatedLimiter {
            let now = Instant::now();
            SimulatedLimiter {
                state: LimiterState::new(&LimiterSettings {
                    concurrency_max,
                    reserved_for_manifests: 0,
                    queue_max,
                    requests_per_second_max: Some(10),
                }),
                now,
                until: now + LONG,
            }
        }

        fn is_admitted(&mut self, priority: Priority) -> bool {
            let admission = self.state.acquire(
                (priority, WaitingFor::Permit),
                self.now,
                &mut WakeUps::new(),
            );
            matches!(admission, LimiterAdmission::Admitted)
        }

        fn enqueue(&mut self, priority: Priority) -> EntryId {
            let admission = self.state.acquire(
                (priority, WaitingFor::Permit),
                self.now,
                &mut WakeUps::new(),
            );
            let LimiterAdmission::Queued(entry) = admission else {
                panic!("not queued");
            };
            entry
        }

        /// When to poll again; `None`: the wait is over.
        fn poll(&mut self, entry: EntryId) -> Option<Instant> {
            let (waker, mut wake_ups) = (Waker::noop(), WakeUps::new());
            let (until, now) = (self.until, self.now);
            match self.state.poll(entry, until, waker, now, &mut wake_ups) {
                QueuePoll::Waiting(again) => Some(again),
                QueuePoll::Admitted | QueuePoll::Rejected => None,
            }
        }
    }

    #[test]
    fn one_waiter_holds_the_timer_while_permits_are_free() {
        let mut scene = SimulatedLimiter::paced(2, 8);
        assert!(scene.is_admitted(Priority::Segment));
        let behind = scene.enqueue(Priority::Refresh);
        let token_at = scene.now + 100 * MS;
        assert_eq!(scene.poll(behind), Some(token_at), "it is the only one");
        let segment = scene.enqueue(Priority::Segment);
        assert_eq!(scene.poll(segment), Some(scene.until));
        scene.now = token_at;
        assert_eq!(scene.poll(behind), Some(scene.until), "no permit is left");
        assert_eq!(scene.poll(segment), None);
        let mut wake_ups = WakeUps::new();
        scene.state.release(scene.now, &mut wake_ups);
        assert_eq!(wake_ups.len(), 1, "the owner of the timer is woken");
        assert_eq!(scene.poll(behind), Some(token_at + 100 * MS));
    }

    #[test]
    fn due_token_is_granted_before_the_full_queue_rejects() {
        let mut scene = SimulatedLimiter::paced(2, 1);
        assert!(scene.is_admitted(Priority::Segment));
        let first = scene.enqueue(Priority::Segment);
        scene.now += 100 * MS;
        let second = scene.enqueue(Priority::Segment);
        assert_eq!(scene.poll(first), None);
        assert_eq!(scene.poll(second), Some(scene.until));
        assert_eq!(scene.state.counts().rejected, [0; 3]);
    }

    #[test]
    fn request_with_permit_takes_only_a_token() {
        let mut scene = SimulatedLimiter::paced(2, 8);
        assert!(scene.is_admitted(Priority::Manifest));
        let mut wake_ups = WakeUps::new();
        assert!(!scene.state.try_token(scene.now, &mut wake_ups));
        scene.now += 100 * MS;
        assert!(scene.state.try_token(scene.now, &mut wake_ups));
        let next = scene.enqueue(Priority::Manifest);
        assert_eq!(scene.state.counts().in_flight, 1);
        scene.now += 100 * MS;
        assert!(!scene.state.try_token(scene.now, &mut wake_ups), "{next:?}");
        assert_eq!(scene.poll(next), None);
    }

    #[test]
    fn request_waiting_for_a_token_needs_no_permit() {
        let mut scene = SimulatedLimiter::paced(1, 8);
        assert!(scene.is_admitted(Priority::Segment));
        let both = scene.enqueue(Priority::Manifest);
        let waiting_for = (Priority::Segment, WaitingFor::Token);
        let admission = scene
            .state
            .acquire(waiting_for, scene.now, &mut WakeUps::new());
        let LimiterAdmission::Queued(token_request) = admission else {
            panic!("there is no token yet");
        };
        scene.poll(both);
        assert!(scene.poll(token_request).is_some());
        scene.now += 100 * MS;
        assert_eq!(scene.poll(token_request), None);
        assert!(scene.poll(both).is_some(), "there is no permit");
        assert_eq!(scene.state.counts().in_flight, 1);
    }

    #[test]
    fn permits_reserved_for_manifests_are_not_given_to_segments() {
        let mut scene = SimulatedLimiter::paced(2, 8);
        scene.state.reserved_for_manifests = 1;
        scene.state.bucket = None;
        assert!(scene.is_admitted(Priority::Segment));
        let segment = scene.enqueue(Priority::Segment);
        assert!(!scene.state.try_acquire(scene.now, &mut WakeUps::new()));
        assert_eq!(scene.poll(segment), Some(scene.until));
        assert!(scene.is_admitted(Priority::Manifest));
        scene.state.release(scene.now, &mut WakeUps::new());
        assert_eq!(scene.poll(segment), Some(scene.until));
        scene.state.release(scene.now, &mut WakeUps::new());
        assert_eq!(scene.poll(segment), None);
    }

    #[test]
    fn new_request_does_not_overtake_waiters_of_its_priority() {
        let mut scene = SimulatedLimiter::paced(2, 8);
        assert!(scene.is_admitted(Priority::Segment));
        let first = scene.enqueue(Priority::Segment);
        scene.now += 100 * MS;
        assert!(!scene.is_admitted(Priority::Segment));
        assert_eq!(scene.poll(first), None);
    }
}
