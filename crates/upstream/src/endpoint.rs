//! The state of one endpoint: its counters, limits and the guards that decide whether it is used.
//! `record` has what stays when the group gets other settings.

mod outcome;
mod record;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::guard::FailureSubject;
use super::guard::breaker::{Breaker, BreakerAdmission, BreakerDecision, BreakerOutlook};
use super::guard::ejection::Ejection;
use super::guard::health::HealthState;
use super::guard::latency_window::{LatencyReading, LatencyWindow, TypicalLatency};
use super::guard::log_throttle::LogThrottle;
use super::limit::Permit;
use super::stats::{EndpointCondition, EndpointStats, HealthCheckStats};
use super::{Check, CheckKind, Failure, Priority, RequestClass, Settings};
pub(super) use outcome::{AttemptEnd, CheckFailure};
pub(super) use record::{EndpointRecord, EndpointRecords};

/// Which endpoints were in good standing when a request was last ordered and were not ejected
/// since.
pub(super) type StandingFlags = Arc<[AtomicBool]>;

/// One endpoint of a group: its place there, and what is known of it.
pub(super) struct EndpointState {
    /// Index in the group's list.
    pub(super) index: usize,
    pub(super) priority: u8,
    pub(super) weight: u32,
    /// Which endpoints of the group are in good standing, by index.
    standing_flags: StandingFlags,
    record: Arc<EndpointRecord>,
}

impl Deref for EndpointState {
    type Target = EndpointRecord;

    fn deref(&self) -> &EndpointRecord {
        &self.record
    }
}

/// What an endpoint's responses usually take, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UsualLatency {
    /// The 95th percentile of recent responses.
    pub(super) p95: Option<Duration>,
    /// The typical latency of all responses.
    pub(super) typical: Option<Duration>,
}

/// A slot for one request at an endpoint. Its permits are released when it is dropped.
pub(super) struct EndpointSlot {
    /// `None`: a blocking request, or handed over.
    pub(super) permit: Option<Permit>,
    /// A permit of the group, if the caller does not hold one for this attempt.
    pub(super) group_permit: Option<Permit>,
}

impl EndpointSlot {
    /// The same, with a permit of the group for an extra attempt.
    pub(super) fn with_group_permit(self, permit: Permit) -> EndpointSlot {
        EndpointSlot {
            group_permit: Some(permit),
            ..self
        }
    }
}

/// What a request for a slot depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotRequest {
    pub(super) priority: Priority,
    pub(super) class: RequestClass,
    /// A blocking request takes no permit of the endpoint.
    pub(super) is_blocking: bool,
}

/// The current time for the guards, by tokio's clock: tests pause it.
pub(super) fn std_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The failure subject of health checks.
const CHECK: FailureSubject = FailureSubject {
    url: 0,
    directory: 0,
};

/// Interval of background trials after an ejection.
const TRIAL_EVERY: Duration = Duration::from_secs(1);

/// Guards that judge an endpoint by its past requests.
pub(super) struct EndpointGuards {
    pub(super) breaker: Breaker,
    pub(super) ejection: Ejection,
    /// What the health checks ask for.
    check_kind: Option<CheckKind>,
    /// `None`: no health checks.
    health: Option<HealthState>,
    latency_window: LatencyWindow,
    typical: TypicalLatency,
    /// Ejected as slow; its old response times are dropped when it returns.
    is_ejected_as_slow: bool,
    /// Earliest time of the next background trial.
    trial_from: Option<Instant>,
    /// Throttles for log messages about the breaker (opened, closed) and ejections.
    breaker_log: [LogThrottle; 2],
    ejection_log: LogThrottle,
}

impl EndpointGuards {
    fn new(group: &Settings, now: Instant) -> EndpointGuards {
        let settings = &group.guards;
        let (check_kind, health) = EndpointGuards::health_of(group.health.as_ref());
        EndpointGuards {
            breaker: Breaker::new(settings.breaker, now),
            ejection: Ejection::new(settings.ejection),
            check_kind,
            health,
            latency_window: LatencyWindow::new(settings.latency, now),
            typical: TypicalLatency::default(),
            is_ejected_as_slow: false,
            trial_from: None,
            breaker_log: Default::default(),
            ejection_log: LogThrottle::default(),
        }
    }

    fn health_of(check: Option<&Check>) -> (Option<CheckKind>, Option<HealthState>) {
        let check = check.map(|check| (check.kind.clone(), HealthState::new(check.schedule)));
        check.unzip()
    }

    /// The latency window, cleared after an ejection as slow.
    fn latency_window(&mut self, now: Instant) -> &mut LatencyWindow {
        if self.is_ejected_as_slow && self.ejection.until(now).is_none() {
            self.is_ejected_as_slow = false;
            self.latency_window.clear(now);
        }
        &mut self.latency_window
    }
}

impl EndpointState {
    /// The endpoint with this index in a group.
    pub(super) fn new(
        index: usize,
        group: &Settings,
        record: &Arc<EndpointRecord>,
        standing_flags: &StandingFlags,
    ) -> EndpointState {
        let endpoint = &group.endpoints[index];
        EndpointState {
            index,
            priority: endpoint.priority,
            weight: endpoint.weight,
            standing_flags: Arc::clone(standing_flags),
            record: Arc::clone(record),
        }
    }

    /// Breaker closed, not ejected or on trial, and health checks pass.
    pub(super) fn is_in_good_standing(&self, now: Instant) -> bool {
        let guards = self.guards.lock();
        guards.breaker.outlook(now) == BreakerOutlook::Clear
            && guards.ejection.until(now).is_none()
            && !guards.ejection.is_on_trial()
            && guards.health.as_ref().is_none_or(HealthState::healthy)
    }

    /// What keeps it from good standing, for operators.
    pub(super) fn doubt(&self, is_reachable: bool, now: Instant) -> &'static str {
        let guards = self.guards.lock();
        if !is_reachable {
            "unreachable"
        } else if guards.breaker.outlook(now) != BreakerOutlook::Clear {
            "failing (breaker open)"
        } else if guards.ejection.until(now).is_some() || guards.ejection.is_on_trial() {
            "ejected"
        } else {
            "unhealthy by its health check"
        }
    }

    /// The URL, for metrics and logs.
    pub(super) fn url(&self) -> Arc<str> {
        Arc::clone(&self.url)
    }

    /// The breaker refuses requests for this subject.
    pub(super) fn refuses(&self, subject: FailureSubject, now: Instant) -> bool {
        let outlook = self.guards.lock().breaker.outlook_for(subject, now);
        matches!(outlook, BreakerOutlook::Refused { .. })
    }

    /// A slot if there is one now: a permit and a rate token. A blocking request takes a rate token
    /// but no permit.
    pub(super) fn try_slot(&self, class: RequestClass, is_blocking: bool) -> Option<EndpointSlot> {
        let permit = if is_blocking {
            None
        } else {
            Some(self.limiter.try_acquire()?)
        };
        let has_token = self.quotas.try_token(class);
        has_token.then_some(EndpointSlot {
            permit,
            group_permit: None,
        })
    }

    /// A slot is free now.
    pub(super) fn has_slot(&self, class: RequestClass) -> bool {
        self.limiter.has_free_permit() && self.quotas.has_token(class)
    }

    /// The same as [`EndpointState::try_slot`], but waits in order of priority. The rate token
    /// comes last, so that it is used at once.
    pub(super) async fn wait_for_slot(
        &self,
        request: SlotRequest,
        timeout: Duration,
    ) -> Result<EndpointSlot, Failure> {
        let until = tokio::time::Instant::now() + timeout;
        let permit = if request.is_blocking {
            None
        } else {
            Some(self.limiter.acquire(request.priority, timeout).await?)
        };
        let remaining = until.saturating_duration_since(tokio::time::Instant::now());
        self.quotas
            .wait_for_token(request.class, request.priority, remaining)
            .await?;
        Ok(EndpointSlot {
            permit,
            group_permit: None,
        })
    }

    /// A probe is due: the breaker accepts one, or the endpoint is on trial after an ejection. For
    /// a trial only the first caller gets `true` for a while.
    pub(super) fn claim_probe(&self, now: Instant) -> bool {
        let mut guards = self.guards.lock();
        if guards.breaker.outlook(now) == BreakerOutlook::ProbeDue {
            return true;
        }
        let has_returned = guards.ejection.is_on_trial() && guards.ejection.until(now).is_none();
        let is_due = has_returned && guards.trial_from.is_none_or(|from| now >= from);
        if is_due {
            guards.trial_from = Some(now + TRIAL_EVERY);
        }
        is_due
    }

    /// Records whether the endpoint is in good standing, for the ejection decisions of others.
    pub(super) fn set_in_good_standing(&self, is_in_good_standing: bool) {
        self.standing_flags[self.index].store(is_in_good_standing, Ordering::Relaxed);
    }

    fn count_others_in_good_standing(&self) -> usize {
        let others = self.standing_flags.iter().enumerate();
        let others = others.filter(|(index, _)| *index != self.index);
        others
            .filter(|(_, is_in_good_standing)| is_in_good_standing.load(Ordering::Relaxed))
            .count()
    }

    /// Admits a health check as a probe, if the breaker is due for one.
    pub(super) fn admit_probe(&self, now: Instant) -> Option<BreakerAdmission> {
        let mut guards = self.guards.lock();
        if guards.breaker.outlook(now) != BreakerOutlook::ProbeDue {
            return None;
        }
        // A health check has no subject that failed.
        match guards.breaker.admit(CHECK, now) {
            BreakerDecision::Admit(admission) | BreakerDecision::Probe(admission) => {
                Some(admission)
            }
            BreakerDecision::Refuse { .. } => None,
        }
    }

    /// Records a health check. A failed check does not count against the breaker: other URLs may
    /// work.
    pub(super) fn record_check(
        &self,
        result: Result<(), CheckFailure>,
        admission: Option<BreakerAdmission>,
    ) {
        let now = std_now();
        let mut change = None;
        let mut guards = self.guards.lock();
        match admission {
            Some(admission) if result.is_ok() => {
                change = guards.breaker.record_success(admission, now);
            }
            Some(admission) => guards.breaker.release(admission, now),
            None => {}
        }
        let suppressed = change.and_then(|_| guards.breaker_log[1].allows(now));
        let health = guards.health.as_mut();
        let turned = health.is_some_and(|health| health.record(result.is_ok()));
        drop(guards);
        self.log_breaker_transition(change, suppressed, None);
        let endpoint = &*self.url;
        match result {
            Ok(()) if turned => tracing::info!(endpoint, "origin endpoint healthy again"),
            Err(reason) if turned => {
                tracing::warn!(endpoint, %reason, "origin endpoint unhealthy");
            }
            _ => {}
        }
    }

    /// Recent latency, if known.
    pub(super) fn recent_latency(&self, now: Instant) -> Option<LatencyReading> {
        self.guards.lock().latency_window(now).read(now)
    }

    /// What the endpoint's responses usually take.
    pub(super) fn usual_latency(&self, now: Instant) -> UsualLatency {
        let mut guards = self.guards.lock();
        UsualLatency {
            p95: guards
                .latency_window(now)
                .read(now)
                .map(|reading| reading.p95),
            typical: guards.typical.read(),
        }
    }

    /// Records the time to the response head, or to its failure. `is_latency`: the time says
    /// something about the endpoint's latency (it does not for blocking requests).
    pub(super) fn record_response_time(
        &self,
        took: Duration,
        end: Result<(), Failure>,
        is_latency: bool,
    ) {
        if end.is_ok() {
            self.counters.response_times.record(took);
        }
        if is_latency && matches!(end, Ok(()) | Err(Failure::Timeout)) {
            self.record_latency(std_now(), took);
        }
        if is_latency && end.is_ok() {
            self.guards.lock().typical.record(took);
        }
    }

    /// Records a latency of at least this much.
    pub(super) fn record_latency(&self, now: Instant, waited: Duration) {
        self.guards.lock().latency_window(now).record(now, waited);
    }

    /// Compares its latency with that of `others` endpoints in good standing; ejects it if too
    /// slow.
    pub(super) fn judge_latency(&self, now: Instant, typical: Duration, others: usize) {
        let mut guards = self.guards.lock();
        let Some(latency) = guards.latency_window(now).read(now) else {
            return;
        };
        if let Some(until) = guards
            .ejection
            .judge_latency(now, latency.p50, typical, others)
        {
            guards.is_ejected_as_slow = true;
            drop(guards);
            self.record_ejection(until.saturating_duration_since(now), "slow");
        }
    }

    pub(super) fn read(&self, is_reachable: bool) -> EndpointStats {
        let now = std_now();
        let mut guards = self.guards.lock();
        EndpointStats {
            endpoint: Arc::clone(&self.url),
            counts: self.counters.read(),
            concurrency_max: self.concurrency_max(),
            quotas: self.quotas.read(),
            condition: EndpointCondition {
                reachable: is_reachable,
                ejected: guards.ejection.until(now).is_some(),
                ejections: guards.ejection.ejected_total(),
                breaker: guards.breaker.state().as_str(),
                breaker_opened: guards.breaker.opened_total(),
                health: guards.health.as_ref().map(|health| HealthCheckStats {
                    healthy: health.healthy(),
                    passed: health.passed_total(),
                    failed: health.failed_total(),
                }),
            },
            recent_latency: guards.latency_window(now).read(now),
            latency: self.counters.response_times.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::ejection;
    use crate::{Endpoint, Guards};

    #[test]
    fn slow_endpoint_returns_with_cleared_latency_and_one_probe() {
        let ejection = ejection::Settings {
            slow_judgements: 2,
            ..ejection::Settings::default()
        };
        let mut settings = Settings::single("main", Endpoint::new(false, "o.example", 80));
        settings
            .endpoints
            .push(Endpoint::new(false, "p.example", 80));
        settings.guards = Guards {
            ejection,
            ..Guards::default()
        };
        let standing_flags: StandingFlags = [true, true].map(AtomicBool::new).into();
        let (_, records) = EndpointRecords::default().succeed(&settings);
        let endpoint = EndpointState::new(0, &settings, &records[0], &standing_flags);
        let now = Instant::now();
        (0..20).for_each(|_| endpoint.record_latency(now, Duration::from_secs(2)));
        let typical = Duration::from_millis(20);
        endpoint.judge_latency(now, typical, 1);
        assert!(endpoint.is_in_good_standing(now));
        endpoint.judge_latency(now, typical, 1);
        assert!(!endpoint.is_in_good_standing(now) && endpoint.recent_latency(now).is_some());
        let back = now + ejection.base;
        assert!(endpoint.recent_latency(back).is_none());
        assert!(
            !endpoint.is_in_good_standing(back),
            "it has to prove itself first"
        );
        assert!(
            endpoint.claim_probe(back) && !endpoint.claim_probe(back),
            "only the first caller may probe"
        );
    }
}
