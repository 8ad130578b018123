//! The origin failed, or did not answer in time: is there something stale to serve instead?

use std::sync::Arc;

use super::ask::Ask;
use super::journey::Step;
use super::{Answer, Shield, respond};
use crate::cache::{Found, Object};
use crate::policy::absence::is_absence;
use crate::policy::freshness::{Freshness, freshness};
use crate::telemetry::Outcome;

impl Shield {
    /// Serves stale because of a failure; without a servable copy, what `otherwise` says.
    pub(super) fn stale_or(
        &self,
        ask: Ask,
        found: &Found,
        otherwise: impl FnOnce(Ask) -> Answer,
    ) -> Step {
        self.cover(ask, found, Outcome::StaleError, otherwise)
    }

    /// The same where the failure has an answer. One that says of something held that it is not there
    /// counts as a failure only while it is doubted.
    pub(super) fn covered_or(
        &self,
        ask: Ask,
        found: &Found,
        failure: &Object,
        otherwise: impl FnOnce(Ask) -> Answer,
    ) -> Step {
        let outcome = if is_absence(failure.head.status) {
            Outcome::StaleMissing
        } else {
            Outcome::StaleError
        };
        self.cover(ask, found, outcome, otherwise)
    }

    fn cover(
        &self,
        ask: Ask,
        found: &Found,
        outcome: Outcome,
        otherwise: impl FnOnce(Ask) -> Answer,
    ) -> Step {
        Step::Answer(match servable_on_error(&ask, found) {
            Some(object) => respond::object(ask, object, outcome, &self.settings),
            None => otherwise(ask),
        })
    }
}

/// The held object, when the origin's failure makes it servable.
pub(super) fn servable_on_error<'f>(ask: &Ask, found: &'f Found) -> Option<&'f Arc<Object>> {
    found
        .object
        .as_ref()
        .filter(|object| freshness(&object.head.lifetime, ask.now) != Freshness::Dead)
}
