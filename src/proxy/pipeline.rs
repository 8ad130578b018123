//! The steps of one request, one function per step; each returns the next step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ACCEPT_ENCODING, RANGE};
use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::blocking_reload::{ReloadAction, is_newest, is_tended};
use super::coding::EncodedForm;
use super::context::{ForwardReason, PipelineStep, RequestContext};
use super::fill::{FillTask, FillTrigger};
use super::pass_through_response::PassThroughResponse;
use super::stale_on_error::servable_on_error;
use super::{Shield, ViewerRequest, ViewerResponse, rejections, responses};
use crate::telemetry::Outcome;
use seawall_cache::{
    Fill, FillHead, Follower, JoinOutcome, KeyMemo, Lookup, Object, StoredHead, Verdict,
};
use seawall_policy::access::{Admission, CacheRequest, access};
use seawall_policy::encoding::is_requested_uncoded;
use seawall_policy::freshness::Freshness;
use seawall_policy::lifetime::UncacheableReason;
use seawall_policy::range::reaches;
use seawall_policy::{Now, headers};

/// Maximum lookups per request. A lookup is repeated when a fill ended, or the key turned out to
/// have variants, in the meantime. After that the request goes to the origin by itself.
const LOOKUPS_MAX: usize = 5;

/// Result of a cache lookup.
enum LookupOutcome {
    /// Answered from memory.
    Served(ViewerResponse),
    /// Answered from memory once the requested content coding is ready.
    AwaitsCoding(RequestContext, Arc<Object>),
    /// Nothing stored may be served as it is.
    NeedsFetch(RequestContext, Lookup),
}

impl Shield {
    /// Answers a GET from memory, without waiting. `None` if that is not possible; nothing has
    /// changed then, and the request may go to [`Shield::answer`].
    pub fn answer_from_memory(
        self: &Arc<Self>,
        mut request: ViewerRequest,
    ) -> Option<ViewerResponse> {
        let Admission::Cache(entry) = self.judge(&request) else {
            return None;
        };
        let hint = self.announced_request(&request, &entry);
        match self.enter(&mut request, entry) {
            LookupOutcome::Served(answer) => {
                self.prefetch_announced(hint);
                Some(answer)
            }
            LookupOutcome::AwaitsCoding(..) | LookupOutcome::NeedsFetch(..) => None,
        }
    }

    fn judge(&self, request: &ViewerRequest) -> Admission {
        access(
            &self.rules,
            &request.method,
            &request.uri,
            request.version,
            &request.headers,
        )
    }

    fn context_of(&self, request: &mut ViewerRequest, entry: CacheRequest) -> RequestContext {
        let line = self.telemetry.access_log.is_enabled();
        RequestContext::new(request, entry, &self.rules.name, line)
    }

    /// Answers one request. Never fails: every error has a status. Hits do not wait.
    pub async fn answer(self: &Arc<Self>, mut request: ViewerRequest) -> ViewerResponse {
        let line = self.telemetry.access_log.is_enabled();
        match self.judge(&request) {
            Admission::Reject(refusal) => rejections::refused(&request, refusal, line),
            Admission::Preflight(route) => rejections::preflight(&request, &route, line),
            Admission::Pass(entry) => {
                let host = request.host().to_owned();
                let context = self.context_of(&mut request, entry);
                // Boxed like all futures that wait: a connection reserves room for its largest
                // future.
                let record = context.record_if_left();
                let answering = self.pass_method(context, &host, request.method, request.body);
                Box::pin(self.record_if_abandoned(record, answering)).await
            }
            Admission::Cache(entry) => {
                self.prefetch_announced(self.announced_request(&request, &entry));
                match self.enter(&mut request, entry) {
                    LookupOutcome::Served(answer) => answer,
                    LookupOutcome::AwaitsCoding(context, object) => {
                        let record = context.record_if_left();
                        Box::pin(
                            self.record_if_abandoned(
                                record,
                                self.hit_with_coding(context, &object),
                            ),
                        )
                        .await
                    }
                    LookupOutcome::NeedsFetch(context, lookup) => {
                        let record = context.record_if_left();
                        Box::pin(
                            self.record_if_abandoned(
                                record,
                                self.fetch_and_respond(context, lookup),
                            ),
                        )
                        .await
                    }
                }
            }
        }
    }

    fn enter(self: &Arc<Self>, request: &mut ViewerRequest, entry: CacheRequest) -> LookupOutcome {
        let context = self.context_of(request, entry);
        if headers::loops(&context.headers, &self.rules.name) {
            return LookupOutcome::Served(rejections::looped(context));
        }
        self.look_up(context)
    }

    /// Looks the key up and serves what may be served without a wait.
    fn look_up(self: &Arc<Self>, mut context: RequestContext) -> LookupOutcome {
        match self.look_up_state(&mut context) {
            ReloadAction::Answer(state) => return self.hit(context, &state),
            ReloadAction::TooFar => return LookupOutcome::Served(rejections::too_far(context)),
            ReloadAction::LookUp => {}
        }
        let (entry, now) = (&context.entry, context.now);
        let upstream = || self.upstream(&context);
        let lookup = self.cache.lookup(&entry.key, entry.kind, now, upstream);
        if let Some(object) = &lookup.object
            && !self.is_outgrown(&context, &object.head, object.body.len() as u64)
        {
            // The refresher keeps the playlist current, not the stored answers to blocking
            // requests.
            let may_be_refreshed =
                context.directives.is_none() && !context.entry.has_delivery_directives();
            match context.freshness(object) {
                Freshness::Fresh => return self.hit(context, object),
                _ if may_be_refreshed && is_newest(object, context.now) => {
                    return self.hit(context, object);
                }
                Freshness::Stale => {
                    return LookupOutcome::Served(self.stale(context, &lookup, object));
                }
                Freshness::IfError if may_be_refreshed && is_tended(object, context.now) => {
                    return LookupOutcome::Served(self.stale(context, &lookup, object));
                }
                Freshness::IfError | Freshness::Unusable => {}
            }
        }
        context.forward = ForwardReason::because(&lookup);
        if context.only_if_cached() {
            return LookupOutcome::Served(rejections::not_held(context));
        }
        LookupOutcome::NeedsFetch(context, lookup)
    }

    /// Fetches, and looks the key up again when the fetch asks for it.
    async fn fetch_and_respond(
        self: &Arc<Self>,
        mut context: RequestContext,
        mut lookup: Lookup,
    ) -> ViewerResponse {
        if self.is_wanted_by_one_alone(&context, &lookup)
            && !self.clients.admit(context.client).await
        {
            return rejections::client_limited(context);
        }
        for _ in 0..LOOKUPS_MAX {
            context = match self.fetch(context, &lookup).await {
                PipelineStep::Answer(answer) => return answer,
                PipelineStep::Again(context) => context,
            };
            context.now = Instant::now();
            (context, lookup) = match self.look_up(context) {
                LookupOutcome::Served(answer) => return answer,
                LookupOutcome::AwaitsCoding(context, object) => {
                    return self.hit_with_coding(context, &object).await;
                }
                LookupOutcome::NeedsFetch(context, lookup) => (context, lookup),
            };
        }
        Box::pin(self.pass(context)).await
    }

    /// Only this request causes an origin request. An object that is stored, tracked, newly listed
    /// or being fetched is fetched once for all viewers: clients behind one address do not pay for
    /// it.
    fn is_wanted_by_one_alone(&self, context: &RequestContext, lookup: &Lookup) -> bool {
        let entry = &context.entry;
        !is_held(lookup)
            && !self.cache.is_being_filled(lookup)
            && self.live.tracker(entry).is_none()
            && !self.live.is_new(&entry.key, context.now)
    }

    /// The viewer's range ends beyond the stored object, and a live manifest lists such ranges.
    fn is_outgrown(&self, context: &RequestContext, head: &StoredHead, length: u64) -> bool {
        self.live.has_byte_ranges()
            && reaches(&context.headers, self.settings.ranges_max, length)
            && self
                .live
                .is_outgrown(&context.entry, length, &head.lifetime, context.now)
    }

    fn hit(&self, context: RequestContext, object: &Arc<Object>) -> LookupOutcome {
        let outcome = if object.head.status.is_client_error() {
            Outcome::Negative
        } else {
            Outcome::Hit
        };
        match self.form(
            responses::requested_form(&context, object),
            &context.headers,
        ) {
            EncodedForm::Ready(form) => {
                object.hits.add();
                LookupOutcome::Served(responses::form(context, form, outcome, &self.settings))
            }
            EncodedForm::Coming(..) => LookupOutcome::AwaitsCoding(context, Arc::clone(object)),
        }
    }

    /// Serves a stale object and refreshes it in the background.
    fn stale(
        self: &Arc<Self>,
        context: RequestContext,
        lookup: &Lookup,
        object: &Arc<Object>,
    ) -> ViewerResponse {
        object.hits.add();
        if (context.entry.has_delivery_directives()
            || !self.ensure_refreshed(&context.entry, object))
            && !self.is_backing_off(lookup, &context.headers, &context.entry, context.now)
            && let Some(fill) = self.cache.lead(lookup, || self.upstream(&context))
        {
            self.spawn_fill(&context.entry, fill, FillTrigger::Refresh);
        }
        // The response does not wait for the coding; this starts it for later requests.
        self.form(
            responses::requested_form(&context, object),
            &context.headers,
        );
        responses::object(context, object, Outcome::Stale, &self.settings)
    }

    /// Whether the manifest is refreshed in the background. Starts that, if possible: this is its
    /// second request.
    fn ensure_refreshed(self: &Arc<Self>, entry: &CacheRequest, object: &Object) -> bool {
        let attention = object.head.access_tracker.as_ref();
        attention.is_some_and(|attention| {
            attention.has_refresher()
                || self
                    .live
                    .tracker(entry)
                    .is_some_and(|tracker| self.start_refresher(&tracker))
        })
    }

    /// An endpoint broke off inside the object a moment ago; the next request goes to another
    /// endpoint.
    fn broke_off_elsewhere(&self, lookup: &Lookup, now: Instant) -> bool {
        let memo = self.cache.memo(&lookup.slot, now);
        matches!(memo, Some(KeyMemo::Avoid(_)))
    }

    /// Nothing fresh is stored: the key's memo decides, else the request joins the fill.
    async fn fetch(self: &Arc<Self>, mut context: RequestContext, lookup: &Lookup) -> PipelineStep {
        match self.memo_for(lookup, &context.headers, &context.entry, context.now) {
            Some(KeyMemo::Failed(answer)) => {
                return self.serve_stale_or_failure(context, lookup, &answer, |context| {
                    rejections::failure_answer(context, &answer, Outcome::Negative)
                });
            }
            Some(KeyMemo::Pass) => return PipelineStep::Answer(Box::pin(self.pass(context)).await),
            Some(KeyMemo::Sliced(slice_set))
                if self.is_outgrown(&context, &slice_set.head, slice_set.length) =>
            {
                self.cache.erase_memo(lookup);
            }
            Some(KeyMemo::Sliced(slice_set)) => {
                return self.sliced(context, lookup, slice_set).await;
            }
            Some(
                KeyMemo::Unsliceable
                | KeyMemo::Truncated
                | KeyMemo::Avoid(_)
                | KeyMemo::Unreachable(..),
            )
            | None => {}
        }
        if !is_held(lookup) && self.live.is_known_absent(&context.entry, Now::read()) {
            return PipelineStep::Answer(rejections::too_early(context));
        }
        let upstream = self.upstream(&context);
        match self.cache.join(lookup, &upstream) {
            JoinOutcome::Stored(_) | JoinOutcome::Retry => PipelineStep::Again(context),
            JoinOutcome::Crowded => self.serve_stale_or(context, lookup, rejections::crowded),
            JoinOutcome::Lead(fill, follower) => {
                let (passing, passed) = oneshot::channel();
                let client_fetch = self.clients.begin_fetch(context.client);
                self.spawn_fill(
                    &context.entry,
                    fill,
                    FillTrigger::Viewer(passing, client_fetch),
                );
                self.follow(context, lookup, &upstream, follower, Some(passed))
                    .await
            }
            JoinOutcome::Follow(follower) => {
                context.collapsed = true;
                self.follow(context, lookup, &upstream, follower, None)
                    .await
            }
        }
    }

    /// Waits for a fill, within the viewer's deadline.
    async fn follow(
        self: &Arc<Self>,
        mut context: RequestContext,
        lookup: &Lookup,
        upstream: &HeaderMap,
        mut follower: Follower,
        passed: Option<oneshot::Receiver<PassThroughResponse>>,
    ) -> PipelineStep {
        // A viewer who may insist on a fresh response waits for it.
        let accepts_stale =
            context.directives.is_none() && servable_on_error(&context, lookup).is_some();
        let patience = if accepts_stale {
            self.settings.stale_wait_max
        } else {
            self.patience(&context.entry)
        };
        let leads = passed.is_some();
        let held_back_limit = (!leads).then(|| self.live.wait_limit(&context.entry, Now::read()));
        let since = Instant::now();
        let fill_head = timeout(patience, follower.wait_for_head()).await;
        context.now = Instant::now();
        let waited = context.now.saturating_duration_since(since);
        context.waited_for_origin(waited);
        let outcome = match held_back_limit {
            None => Outcome::Miss,
            // A response later than expected is late because of the origin, not because it is not
            // due yet.
            Some(Some(within)) if waited <= within => Outcome::HeldBack,
            Some(_) => Outcome::Coalesced,
        };
        let Ok(fill_head) = fill_head else {
            return self.serve_stale_or(context, lookup, rejections::timed_out);
        };
        if !leads && !follower.can_share(upstream) {
            context.collapsed = false;
            return PipelineStep::Again(context);
        }
        match fill_head {
            FillHead::Growing(head) => PipelineStep::Answer(
                responses::growing(context, &head, follower, outcome, &self.settings).await,
            ),
            FillHead::Settled(Verdict::Refused(_)) if !follower.same_request(upstream) => {
                context.collapsed = false;
                PipelineStep::Again(context)
            }
            FillHead::Settled(Verdict::Failed(_) | Verdict::Lost | Verdict::Pass)
                if !self.failure_applies_to(&follower, upstream, &context.entry) =>
            {
                context.collapsed = false;
                PipelineStep::Again(context)
            }
            FillHead::Settled(verdict) => {
                drop(follower);
                self.respond_to_verdict(context, lookup, verdict, outcome, passed)
                    .await
            }
        }
    }

    /// How long a viewer waits when nothing stored can be served instead. A request that the origin
    /// holds back waits as long as the origin may hold it.
    fn patience(&self, entry: &CacheRequest) -> Duration {
        let origin = &self.origins[entry.route.origin_index];
        let held_back = self
            .live
            .may_be_held_back(entry, Instant::now())
            .then(|| origin.held_back_max());
        self.settings.wait_max.max(held_back.unwrap_or_default())
    }

    async fn respond_to_verdict(
        self: &Arc<Self>,
        context: RequestContext,
        lookup: &Lookup,
        verdict: Verdict,
        outcome: Outcome,
        passed: Option<oneshot::Receiver<PassThroughResponse>>,
    ) -> PipelineStep {
        let settings = &self.settings;
        if let Verdict::Object(object) | Verdict::Revalidated(object) = &verdict {
            self.wait_for_form(
                responses::requested_form(&context, object),
                &context.headers,
            )
            .await;
        }
        match verdict {
            Verdict::Object(object) | Verdict::Refused(object) => {
                PipelineStep::Answer(responses::object(context, &object, outcome, settings))
            }
            Verdict::Revalidated(object) => {
                let outcome = match outcome {
                    Outcome::Miss => Outcome::Revalidated,
                    coalesced => coalesced,
                };
                PipelineStep::Answer(responses::object(context, &object, outcome, settings))
            }
            Verdict::Failed(answer) => {
                self.serve_stale_or_failure(context, lookup, &answer, |context| {
                    rejections::failure_answer(context, &answer, Outcome::Failed)
                })
            }
            Verdict::Exhausted(answer) => self.serve_stale_or(context, lookup, |context| {
                rejections::failure_answer(context, &answer, Outcome::Overload)
            }),
            // No viewer got a byte, and another endpoint may have the whole body.
            Verdict::Lost
                if servable_on_error(&context, lookup).is_none()
                    && self.broke_off_elsewhere(lookup, context.now) =>
            {
                PipelineStep::Again(context)
            }
            Verdict::Lost => self.serve_stale_or(context, lookup, rejections::lost),
            Verdict::Sliced => PipelineStep::Again(context),
            Verdict::Pass => match passed.and_then(|mut passed| passed.try_recv().ok()) {
                // A range of a large object that is not stored is fetched as a range.
                Some(passed)
                    if passed.reason == Some(UncacheableReason::TooLarge)
                        && context.headers.contains_key(RANGE) =>
                {
                    drop(passed);
                    PipelineStep::Answer(Box::pin(self.pass(context)).await)
                }
                Some(passed) => PipelineStep::Answer(responses::passing(context, passed)),
                None => PipelineStep::Answer(Box::pin(self.pass(context)).await),
            },
        }
    }

    /// Starts a fill as a detached task.
    pub(super) fn spawn_fill(
        self: &Arc<Self>,
        entry: &CacheRequest,
        fill: Fill,
        viewer: FillTrigger,
    ) {
        tokio::spawn(FillTask::new(Arc::clone(self), entry, fill, viewer).run());
    }

    /// The request's headers as they go to the origin.
    pub(super) fn upstream(&self, context: &RequestContext) -> HeaderMap {
        self.sent(&context.headers, &context.entry)
    }

    /// The viewer's headers that are sent upstream. Manifests and media are requested without a
    /// content coding.
    pub(super) fn sent(&self, viewer: &HeaderMap, entry: &CacheRequest) -> HeaderMap {
        let forwarded = entry.forwarded.as_deref();
        let mut sent = headers::upstream(viewer, forwarded, &entry.route, &self.rules.name);
        if is_requested_uncoded(entry.kind, entry.target.path()) {
            sent.remove(ACCEPT_ENCODING);
        }
        sent
    }
}

/// A successful response is stored.
pub(super) fn is_held(lookup: &Lookup) -> bool {
    let held = lookup.object.as_ref();
    held.is_some_and(|held| held.head.status == StatusCode::OK)
}
