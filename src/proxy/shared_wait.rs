//! Lets viewers that sent the same request, and wait for the same fill, share one response.
//!
//! A fill that many wait for, such as that of a blocking playlist reload, ends for all of them in
//! the same moment. Its response is then built once for each worker, not for each viewer.

use std::sync::Arc;

use super::context::{PipelineStep, RequestContext};
use super::rate_limits::ByteMeter;
use super::{SharedWait, Shield, ViewerResponse};
use seawall_cache::{FillHead, Follower, Lookup, Verdict};
use seawall_policy::Now;

impl Shield {
    /// A wait for the fill of this lookup. `None` if no fill is awaited, or the request needs a
    /// response of its own.
    pub(super) fn shared_wait(
        self: &Arc<Self>,
        context: RequestContext,
        lookup: Lookup,
        meter: Option<ByteMeter>,
    ) -> Option<SharedWait> {
        if context.is_logged() || context.names_its_id() {
            return None;
        }
        let fill = self.cache.awaited_fill(&lookup)?;
        let request = &context.request;
        if self
            .memo_for(&lookup, &context.headers, request, context.now)
            .is_some()
            || self.live.is_known_absent(&self.rules, request, Now::read())
        {
            return None;
        }
        let follower = fill.join()?;
        self.mark_class(request, |class| follower.mark_class(class));
        let record = context.abandoned_record();
        let limiter = self.rate_limits.of_cached(request).cloned();
        let shield = Arc::clone(self);
        Some(SharedWait {
            generation: self.generation,
            fill,
            join_until: context.repeat_until,
            response: Box::pin(shield.respond_to_all(context, lookup, follower)),
            record,
            meter,
            limiter,
        })
    }

    /// The response for all viewers that wait for a fill. `None` if the body is still arriving, or
    /// each of them must do more.
    async fn respond_to_all(
        self: Arc<Self>,
        mut context: RequestContext,
        lookup: Lookup,
        mut follower: Follower,
    ) -> Option<ViewerResponse> {
        context.collapsed = true;
        let upstream_headers = self.upstream_headers(&context);
        let waited = self
            .wait_for_fill(&mut context, &lookup, &mut follower, false)
            .await;
        if let Some(
            FillHead::Growing(_)
            | FillHead::Settled(Verdict::Pass | Verdict::Sliced | Verdict::StoredStale),
        ) = waited.0
        {
            return None;
        }
        let step = self
            .respond_to_fill(context, &lookup, &upstream_headers, follower, waited, None)
            .await;
        match step {
            PipelineStep::Respond(response) => Some(response),
            PipelineStep::Again(_) => None,
        }
    }
}
