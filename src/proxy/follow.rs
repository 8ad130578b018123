//! Waits for a key's fill, and responds with what it brings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::RANGE;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::context::{PipelineStep, RequestContext};
use super::pass_through_response::PassThroughResponse;
use super::stale_on_error::servable_on_error;
use super::{Shield, ViewerResponse, rejections, responses};
use crate::telemetry::Outcome;
use seawall_cache::{FillHead, Follower, KeyMemo, Lookup, Verdict};
use seawall_policy::Now;
use seawall_policy::access::CacheRequest;
use seawall_policy::lifetime::UncacheableReason;

impl Shield {
    /// Waits for a fill's head, and responds with what it brings. After the wait, the viewer gets a
    /// stale object or a 504.
    pub(super) async fn follow(
        self: &Arc<Self>,
        mut context: RequestContext,
        lookup: &Lookup,
        upstream_headers: &HeaderMap,
        mut follower: Follower,
        pass_receiver: Option<oneshot::Receiver<PassThroughResponse>>,
    ) -> PipelineStep {
        let leads = pass_receiver.is_some();
        let (fill_head, outcome) = self
            .wait_for_fill(&mut context, lookup, &mut follower, leads)
            .await;
        self.respond_to_fill(
            context,
            lookup,
            upstream_headers,
            follower,
            (fill_head, outcome),
            pass_receiver,
        )
        .await
    }

    /// Waits for a fill's head; `None` if that takes too long. Says what the wait was.
    pub(super) async fn wait_for_fill(
        &self,
        context: &mut RequestContext,
        lookup: &Lookup,
        follower: &mut Follower,
        leads: bool,
    ) -> (Option<FillHead>, Outcome) {
        // A viewer who may insist on a fresh response waits for it.
        let accepts_stale =
            context.directives.is_none() && servable_on_error(context, lookup).is_some();
        let wait_max = if accepts_stale {
            self.settings.stale_wait_max
        } else {
            self.wait_max_for(&context.request)
        };
        let wait_max = wait_max.saturating_sub(context.waited_before);
        let wait_limit = if leads {
            None
        } else {
            self.live
                .wait_limit(&self.rules, &context.request, Now::read())
        };
        let since = Instant::now();
        let fill_head = timeout(wait_max, follower.wait_for_head()).await;
        context.now = Instant::now();
        let waited = context.now.saturating_duration_since(since);
        context.waited_for_origin(waited);
        // A response later than expected is late because of the origin, not because it is not due
        // yet.
        let is_blocking = wait_limit.is_some_and(|limit| waited <= limit);
        let outcome = match (leads, is_blocking) {
            (true, _) => Outcome::Miss,
            (false, true) => Outcome::Blocking,
            (false, false) => Outcome::Coalesced,
        };
        (fill_head.ok(), outcome)
    }

    /// Responds with what the wait for a fill brought.
    pub(super) async fn respond_to_fill(
        self: &Arc<Self>,
        mut context: RequestContext,
        lookup: &Lookup,
        upstream_headers: &HeaderMap,
        follower: Follower,
        (fill_head, outcome): (Option<FillHead>, Outcome),
        pass_receiver: Option<oneshot::Receiver<PassThroughResponse>>,
    ) -> PipelineStep {
        let Some(fill_head) = fill_head else {
            return self.serve_stale_or(context, lookup, rejections::timed_out);
        };
        let leads = pass_receiver.is_some();
        let is_for_others =
            follower.has_joined_after_purge() || !leads && !follower.can_share(upstream_headers);
        if is_for_others {
            context.collapsed = false;
            return PipelineStep::Again(context);
        }
        match fill_head {
            FillHead::Growing(head) => PipelineStep::Respond(
                responses::respond_streaming(context, &head, follower, outcome, &self.settings)
                    .await,
            ),
            FillHead::Settled(Verdict::Refused(_)) if !follower.same_request(upstream_headers) => {
                context.collapsed = false;
                PipelineStep::Again(context)
            }
            FillHead::Settled(Verdict::Failed(_) | Verdict::Lost | Verdict::Pass)
                if !self.failure_applies_to(&follower, upstream_headers, &context.request) =>
            {
                context.collapsed = false;
                PipelineStep::Again(context)
            }
            FillHead::Settled(verdict) => {
                drop(follower);
                self.respond_to_verdict(context, lookup, verdict, outcome, pass_receiver)
                    .await
            }
        }
    }

    /// How long a viewer waits when nothing stored can be served instead. A blocking request waits
    /// as long as the origin may block it.
    fn wait_max_for(&self, request: &CacheRequest) -> Duration {
        let origin = self.origin_of(&request.route);
        let blocking_wait_max = self
            .live
            .may_be_blocking(request, Instant::now())
            .then(|| origin.blocking_wait_max());
        self.settings
            .wait_max
            .max(blocking_wait_max.unwrap_or_default())
    }

    async fn respond_to_verdict(
        self: &Arc<Self>,
        context: RequestContext,
        lookup: &Lookup,
        verdict: Verdict,
        outcome: Outcome,
        pass_receiver: Option<oneshot::Receiver<PassThroughResponse>>,
    ) -> PipelineStep {
        let settings = &self.settings;
        if let Verdict::Object(object) | Verdict::Revalidated(object) = &verdict {
            self.wait_for_encoding(responses::full_or_delta(&context, object), &context.headers)
                .await;
        }
        match verdict {
            Verdict::Object(object) | Verdict::Refused(object) => PipelineStep::Respond(
                responses::respond_with_object(context, &object, outcome, settings),
            ),
            Verdict::Revalidated(object) => {
                let outcome = match outcome {
                    Outcome::Miss => Outcome::Revalidated,
                    coalesced => coalesced,
                };
                PipelineStep::Respond(responses::respond_with_object(
                    context, &object, outcome, settings,
                ))
            }
            Verdict::Failed(error_object) => {
                self.serve_stale_or_failure(context, lookup, &error_object, |context| {
                    rejections::failure_response(context, &error_object, Outcome::Failed)
                })
            }
            Verdict::Exhausted(error_object) => self.serve_stale_or(context, lookup, |context| {
                rejections::failure_response(context, &error_object, Outcome::Overload)
            }),
            // No viewer got a byte, and another endpoint may have the whole body.
            Verdict::Lost
                if servable_on_error(&context, lookup).is_none()
                    && self.broke_off_elsewhere(lookup, context.now) =>
            {
                PipelineStep::Again(context)
            }
            Verdict::Lost => self.serve_stale_or(context, lookup, rejections::lost),
            Verdict::Sliced | Verdict::StoredStale => PipelineStep::Again(context),
            Verdict::Pass => {
                let passed = pass_receiver.and_then(|mut receiver| receiver.try_recv().ok());
                PipelineStep::Respond(self.respond_to_pass(context, passed).await)
            }
        }
    }

    /// Responds to the leader with the response that may not be shared. Any other viewer makes a
    /// request of its own, and so does a leader that wants a range of an object too large to store.
    async fn respond_to_pass(
        self: &Arc<Self>,
        context: RequestContext,
        passed: Option<PassThroughResponse>,
    ) -> ViewerResponse {
        let is_range = context.headers.contains_key(RANGE);
        let is_for_viewer = |passed: &PassThroughResponse| {
            !(is_range && passed.reason == Some(UncacheableReason::TooLarge))
        };
        match passed.filter(is_for_viewer) {
            Some(passed) => responses::respond_with_pass_through(context, passed),
            None => Box::pin(self.pass(context)).await,
        }
    }

    /// An endpoint broke off inside the object a moment ago; the next request goes to another
    /// endpoint.
    fn broke_off_elsewhere(&self, lookup: &Lookup, now: Instant) -> bool {
        let memo = self.cache.memo(&lookup.slot, now);
        matches!(memo, Some(KeyMemo::Avoid(_)))
    }
}
