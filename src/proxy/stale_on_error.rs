//! Serves a stale object when the origin failed or did not answer in time.

use std::sync::Arc;

use super::context::{PipelineStep, RequestContext};
use super::{Shield, ViewerResponse, responses};
use crate::telemetry::Outcome;
use seawall_cache::{Lookup, Object};
use seawall_policy::freshness::{Freshness, freshness};
use seawall_policy::missing_manifest::is_absence;

impl Shield {
    /// Serves the stored object because of a failure; if that is not allowed, responds with
    /// `otherwise`.
    pub(super) fn serve_stale_or(
        &self,
        context: RequestContext,
        lookup: &Lookup,
        otherwise: impl FnOnce(RequestContext) -> ViewerResponse,
    ) -> PipelineStep {
        self.serve_stale(context, lookup, Outcome::StaleError, otherwise)
    }

    /// The same for a failure that has a response. Absence counts as a failure only while it is
    /// doubted.
    pub(super) fn serve_stale_or_failure(
        &self,
        context: RequestContext,
        lookup: &Lookup,
        failure: &Object,
        otherwise: impl FnOnce(RequestContext) -> ViewerResponse,
    ) -> PipelineStep {
        let outcome = if is_absence(failure.head.status) {
            Outcome::StaleMissing
        } else {
            Outcome::StaleError
        };
        self.serve_stale(context, lookup, outcome, otherwise)
    }

    fn serve_stale(
        &self,
        context: RequestContext,
        lookup: &Lookup,
        outcome: Outcome,
        otherwise: impl FnOnce(RequestContext) -> ViewerResponse,
    ) -> PipelineStep {
        PipelineStep::Respond(match servable_on_error(&context, lookup) {
            Some(object) => {
                responses::respond_with_object(context, object, outcome, &self.settings)
            }
            None => otherwise(context),
        })
    }
}

/// The stored object, if it may be served because the origin failed.
pub(super) fn servable_on_error<'f>(
    context: &RequestContext,
    lookup: &'f Lookup,
) -> Option<&'f Arc<Object>> {
    lookup
        .object
        .as_ref()
        .filter(|object| freshness(&object.head.lifetime, context.now) != Freshness::Unusable)
}
