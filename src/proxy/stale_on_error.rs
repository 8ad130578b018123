//! Serves a stale object when the origin failed or did not answer in time.

use std::sync::Arc;

use super::context::RequestContext;
use super::pipeline::PipelineStep;
use super::{Shield, ViewerResponse, respond};
use crate::telemetry::Outcome;
use seawall_cache::{Lookup, Object};
use seawall_policy::freshness::{Freshness, freshness};
use seawall_policy::missing_manifest::is_absence;

impl Shield {
    /// Serves the stored object because of a failure; if that is not allowed, responds with
    /// `otherwise`.
    pub(super) fn stale_or(
        &self,
        ask: RequestContext,
        found: &Lookup,
        otherwise: impl FnOnce(RequestContext) -> ViewerResponse,
    ) -> PipelineStep {
        self.cover(ask, found, Outcome::StaleError, otherwise)
    }

    /// The same for a failure that has a response. Absence counts as a failure only while it is
    /// doubted.
    pub(super) fn covered_or(
        &self,
        ask: RequestContext,
        found: &Lookup,
        failure: &Object,
        otherwise: impl FnOnce(RequestContext) -> ViewerResponse,
    ) -> PipelineStep {
        let outcome = if is_absence(failure.head.status) {
            Outcome::StaleMissing
        } else {
            Outcome::StaleError
        };
        self.cover(ask, found, outcome, otherwise)
    }

    fn cover(
        &self,
        ask: RequestContext,
        found: &Lookup,
        outcome: Outcome,
        otherwise: impl FnOnce(RequestContext) -> ViewerResponse,
    ) -> PipelineStep {
        PipelineStep::Answer(match servable_on_error(&ask, found) {
            Some(object) => respond::object(ask, object, outcome, &self.settings),
            None => otherwise(ask),
        })
    }
}

/// The stored object, if it may be served because the origin failed.
pub(super) fn servable_on_error<'f>(
    ask: &RequestContext,
    found: &'f Lookup,
) -> Option<&'f Arc<Object>> {
    found
        .object
        .as_ref()
        .filter(|object| freshness(&object.head.lifetime, ask.now) != Freshness::Unusable)
}
