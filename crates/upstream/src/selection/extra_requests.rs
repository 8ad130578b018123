//! Grants the extra requests of a group: retries, hedges and takeovers. Each costs a share of the
//! retry budget and a token of the rate limit, because the origin serves one more request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::takeover::{Takeover, Takeovers};
use crate::RequestClass;
use crate::endpoint::{EndpointSlot, EndpointState, std_now};
use crate::group_limits::GroupLimits;
use crate::guard::budget::{self, RetryBudget};

/// Grants the extra requests of one group.
pub(crate) struct ExtraRequests {
    limits: Arc<GroupLimits>,
    pub(crate) budget: Mutex<RetryBudget>,
    /// The last request that failed over to another endpoint succeeded there.
    failover_helps: AtomicBool,
    takeovers: Takeovers,
}

impl ExtraRequests {
    pub(crate) fn new(budget: budget::Settings, limits: Arc<GroupLimits>) -> ExtraRequests {
        ExtraRequests {
            limits,
            budget: Mutex::new(RetryBudget::new(budget, std_now())),
            failover_helps: AtomicBool::new(true),
            takeovers: Takeovers::default(),
        }
    }

    /// Uses another budget from now on.
    pub(crate) fn set_budget(&self, settings: budget::Settings) {
        self.budget.lock().set_settings(settings, std_now());
    }

    /// Counts a first request: it earns a share of an extra request.
    pub(crate) fn record_request(&self) {
        self.budget.lock().record_request(std_now());
    }

    /// A retry. A failover that is likely to help is granted beyond the budget.
    pub(crate) fn try_retry(&self, is_failover: bool) -> bool {
        let mut budget = self.budget.lock();
        let is_affordable = is_failover || budget.can_afford(std_now());
        is_affordable && self.limits.try_token() && (budget.try_spend(std_now()) || is_failover)
    }

    /// A slot for a hedge, with a permit of its own: a hedge never exceeds a limit.
    pub(crate) fn try_hedge(
        &self,
        endpoint: &EndpointState,
        class: RequestClass,
    ) -> Option<EndpointSlot> {
        let mut budget = self.budget.lock();
        // Checked first: a rate token taken in vain is lost.
        if !budget.can_afford(std_now()) || !endpoint.has_slot(class) {
            return None;
        }
        let permit = self.limits.try_permit()?;
        let slot = endpoint.try_slot(class, false)?.with_group_permit(permit);
        budget.try_spend(std_now());
        Some(slot)
    }

    /// Failing over to another endpoint is likely to help.
    pub(crate) fn failover_helps(&self) -> bool {
        self.failover_helps.load(Ordering::Relaxed)
    }

    pub(crate) fn record_failover(&self, helped: bool) {
        self.failover_helps.store(helped, Ordering::Relaxed);
    }

    /// Permits and counts a takeover; see [`crate::Origin::take_over`].
    pub(crate) fn take_over(&self, from: &EndpointState, failed: bool) -> Option<Takeover> {
        let spend = || self.budget.lock().try_spend(std_now());
        let takeover = self.takeovers.begin(failed, spend);
        from.counters.record_takeover(takeover.is_some());
        takeover
    }

    pub(crate) fn record_takeover(&self, helped: bool) {
        self.takeovers.end(helped);
    }
}
