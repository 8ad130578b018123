//! Limits the requests of a group: permits by priority, and separate limits for blocking requests
//! and for requests with slow viewers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::limit::{
    ConcurrencyLimiter, LimiterCounts, LimiterSettings, Permit, reserved_for_manifests,
};
use super::slow_viewers::{RequestPermits, SlowViewers};
use super::{Failure, Priority, Settings, UpstreamRequest};

/// The limits of one group.
pub(super) struct GroupLimits {
    requests: ConcurrencyLimiter,
    /// Blocking requests (LL-HLS): they cost the origin nothing while they wait, and
    /// must not delay others.
    blocking: ConcurrencyLimiter,
    /// Requests whose viewers are slow: they cost the origin nothing either.
    slow_viewers: Arc<SlowViewers>,
}

impl GroupLimits {
    pub(super) fn new(settings: &Settings) -> GroupLimits {
        GroupLimits {
            requests: ConcurrencyLimiter::new(&request_limits(settings)),
            blocking: ConcurrencyLimiter::new(&blocking_limits(settings)),
            slow_viewers: Arc::new(SlowViewers::new(settings.slow_viewers_max)),
        }
    }

    /// Uses the limits of these settings from now on, also for requests in progress and in queues.
    pub(super) fn apply(&self, settings: &Settings) {
        self.requests.set_limits(&request_limits(settings));
        self.blocking.set_limits(&blocking_limits(settings));
        self.slow_viewers.set_max(settings.slow_viewers_max);
    }

    /// Waits for a permit. A request whose priority rises moves forward in the queue.
    pub(super) async fn acquire(
        &self,
        request: &mut UpstreamRequest,
        timeout: Duration,
    ) -> Result<Arc<RequestPermits>, Failure> {
        let until = Instant::now() + timeout;
        let is_blocking = request.is_blocking;
        if let Some(priority_raise) = &mut request.priority_raise {
            tokio::select! {
                biased;
                permit = self.permit(is_blocking, request.priority, until) => {
                    return Ok(self.request_permits(permit?));
                }
                () = &mut priority_raise.when => request.priority = priority_raise.priority,
            }
            request.priority_raise = None;
        }
        let permit = self.permit(is_blocking, request.priority, until).await?;
        Ok(self.request_permits(permit))
    }

    fn request_permits(&self, permit: Permit) -> Arc<RequestPermits> {
        RequestPermits::new(&self.slow_viewers, permit)
    }

    async fn permit(
        &self,
        is_blocking: bool,
        priority: Priority,
        until: Instant,
    ) -> Result<Permit, Failure> {
        if !is_blocking {
            return self.requests.acquire(priority, remaining(until)).await;
        }
        let permit = self.blocking.acquire(priority, remaining(until)).await?;
        // The rate limit holds for blocking requests too.
        self.wait_for_token(priority, until).await?;
        Ok(permit)
    }

    /// Waits for a token of the rate limit only.
    pub(super) async fn wait_for_token(
        &self,
        priority: Priority,
        until: Instant,
    ) -> Result<(), Failure> {
        self.requests
            .wait_for_token(priority, remaining(until))
            .await
    }

    /// A token of the rate limit, if one is available at once.
    pub(super) fn try_token(&self) -> bool {
        self.requests.try_token()
    }

    /// A permit for an extra attempt, if one is free at once.
    pub(super) fn try_permit(&self) -> Option<Permit> {
        self.requests.try_acquire()
    }

    /// The queue is empty and more than half of the permits are free.
    pub(super) fn has_spare_permits(&self) -> bool {
        self.requests.has_spare_permits()
    }

    /// The same for blocking requests.
    pub(super) fn has_spare_permits_for_blocking(&self) -> bool {
        self.blocking.has_spare_permits()
    }

    pub(super) fn counts(&self) -> GroupCounts {
        let (slow_viewers, slow_viewers_cut) = self.slow_viewers.counts();
        GroupCounts {
            requests: self.requests.counts(),
            blocking: self.blocking.counts(),
            slow_viewers,
            slow_viewers_cut,
        }
    }
}

/// Counts of a group's limits.
pub(super) struct GroupCounts {
    pub(super) requests: LimiterCounts,
    pub(super) blocking: LimiterCounts,
    pub(super) slow_viewers: usize,
    pub(super) slow_viewers_cut: u64,
}

fn remaining(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

fn request_limits(settings: &Settings) -> LimiterSettings {
    let concurrency_max = concurrency_max(settings);
    let mut endpoints = settings.endpoints.iter();
    let has_quota = endpoints.any(|endpoint| endpoint.requests_per_second_max.is_some());
    LimiterSettings {
        concurrency_max,
        reserved_for_manifests: if has_quota {
            reserved_for_manifests(concurrency_max)
        } else {
            0
        },
        queue_max: settings.queue_max,
        requests_per_second_max: settings.requests_per_second_max,
    }
}

fn blocking_limits(settings: &Settings) -> LimiterSettings {
    LimiterSettings {
        concurrency_max: settings.blocking_max,
        reserved_for_manifests: 0,
        queue_max: settings.queue_max,
        requests_per_second_max: None,
    }
}

/// At most the sum of the endpoints' limits: the excess waits in the group's queue, where all
/// priorities compete.
fn concurrency_max(settings: &Settings) -> usize {
    let mut caps = settings
        .endpoints
        .iter()
        .map(|endpoint| endpoint.concurrency_max);
    let together = caps.try_fold(0_usize, |sum, cap| Some(sum.saturating_add(cap?)));
    together.map_or(settings.concurrency_max, |sum| {
        sum.min(settings.concurrency_max)
    })
}
