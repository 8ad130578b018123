//! Takes one viewer request through its steps: admits it, looks its key up, and answers from memory
//! or from the key's fill. [`LookupOutcome`] and [`PipelineStep`] say where a step leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{self, ACCEPT_ENCODING};
use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;

use super::admission::Admitted;
use super::blocking_reload::{
    ReloadAction, is_kept_current, is_refreshed_low_latency, kept_current_for,
};
use super::coding::EncodingChoice;
use super::context::{ForwardReason, PipelineStep, RequestContext};
use super::fill::{FillTask, FillTrigger};
use super::stated_freshness::fields_unchanged_for;
use super::{
    MemoryAnswer, RepeatPermit, Shield, ViewerRequest, ViewerResponse, rejections, responses,
};
use crate::telemetry::Outcome;
use seawall_cache::{Fill, JoinOutcome, KeyMemo, Lookup, Object, StoredHead};
use seawall_policy::access::{Admission, CacheRequest};
use seawall_policy::directives::RequestDirectives;
use seawall_policy::encoding::is_requested_uncoded;
use seawall_policy::freshness::Freshness;
use seawall_policy::lifetime::Rule;
use seawall_policy::range::reaches;
use seawall_policy::{Now, headers};

/// Maximum fetches per request. The key is looked up and fetched again when a fill ended, or the
/// key turned out to have variants, in the meantime. After that the request goes to the origin by
/// itself.
const FETCHES_MAX: usize = 5;

/// Result of a cache lookup.
enum LookupOutcome {
    /// Answered from memory.
    Served(ViewerResponse),
    /// Answered from memory once the requested content coding is ready.
    AwaitsCoding(RequestContext, Arc<Object>),
    /// Nothing stored may be served as it is.
    NeedsFetch(RequestContext, Lookup),
}

/// How a stored object may be used for a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StoredUse {
    /// As the current version.
    Current,
    /// While it is refreshed.
    Stale,
    /// Not without the origin.
    None,
}

impl LookupOutcome {
    /// Permits sending the response again.
    fn with_repeat(mut self, permit: Option<RepeatPermit>) -> LookupOutcome {
        if let LookupOutcome::Served(response) = &mut self {
            response.repeat = permit;
        }
        self
    }
}

impl Shield {
    /// Answers a GET from memory, without waiting. At most a compression of the object has been
    /// started.
    pub fn answer_from_memory(self: &Arc<Self>, mut viewer_request: ViewerRequest) -> MemoryAnswer {
        let Admitted {
            admission,
            token,
            meter,
        } = self.admit(&mut viewer_request);
        let request = match admission {
            Admission::Cache(request) => request,
            Admission::Reject(rejection) if rejection.is_of_viewer() => {
                return MemoryAnswer::Respond(self.reject(&viewer_request, &rejection));
            }
            _ => return MemoryAnswer::Unknown,
        };
        let announced = self.announced_request(&viewer_request, &request);
        viewer_request.wants_repeat &= announced.is_none();
        match self.look_up_request(&mut viewer_request, request, token.repeat_until) {
            LookupOutcome::Served(mut response) => {
                self.prefetch_announced(announced);
                token.apply_to(&mut response);
                MemoryAnswer::Respond(response.with_meter(meter))
            }
            LookupOutcome::NeedsFetch(context, lookup) if context.wants_repeat => self
                .shared_wait(context, lookup, meter)
                .map_or(MemoryAnswer::Unknown, |wait| {
                    MemoryAnswer::Wait(Box::new(wait))
                }),
            LookupOutcome::AwaitsCoding(..) | LookupOutcome::NeedsFetch(..) => {
                MemoryAnswer::Unknown
            }
        }
    }

    fn begin_context(
        &self,
        viewer_request: &mut ViewerRequest,
        request: CacheRequest,
    ) -> RequestContext {
        let is_logged = self.telemetry.access_log.is_enabled();
        RequestContext::new(viewer_request, request, &self.rules.name, is_logged)
    }

    /// Answers one request. Never fails: every error has a status. A hit waits for nothing but a
    /// content coding that is being made, for at most 100 ms.
    pub async fn answer(self: &Arc<Self>, mut viewer_request: ViewerRequest) -> ViewerResponse {
        let Admitted {
            admission,
            token,
            meter,
        } = self.admit(&mut viewer_request);
        let is_logged = self.telemetry.access_log.is_enabled();
        let is_cut_by_drain = viewer_request.is_cut_by_drain.take();
        let mut response = match admission {
            Admission::Reject(rejection) => self.reject(&viewer_request, &rejection),
            Admission::Preflight(route) => {
                rejections::preflight(&viewer_request, &route, is_logged)
            }
            Admission::Redirect(route, status, location) => {
                rejections::redirect(&viewer_request, &route, (status, location), is_logged)
            }
            Admission::Pass(request) => {
                let host = viewer_request.host().to_owned();
                let context = self.begin_context(&mut viewer_request, request);
                // Boxed like all futures that wait: a connection reserves room for its largest
                // future.
                let record = (context.abandoned_record(), is_cut_by_drain);
                let (method, body) = (viewer_request.method, viewer_request.body);
                let answer = || self.pass_method(context, &host, method, body);
                Box::pin(self.record_if_abandoned(record, answer)).await
            }
            Admission::Cache(request) => {
                self.prefetch_announced(self.announced_request(&viewer_request, &request));
                match self.look_up_request(&mut viewer_request, request, token.repeat_until) {
                    LookupOutcome::Served(response) => response,
                    LookupOutcome::AwaitsCoding(context, object) => {
                        let record = (context.abandoned_record(), is_cut_by_drain);
                        let answer = || self.respond_when_coded(context, &object);
                        Box::pin(self.record_if_abandoned(record, answer)).await
                    }
                    LookupOutcome::NeedsFetch(context, lookup) => {
                        let record = (context.abandoned_record(), is_cut_by_drain);
                        let answer = || self.fetch_and_respond(context, lookup);
                        Box::pin(self.record_if_abandoned(record, answer)).await
                    }
                }
            }
        };
        token.apply_to(&mut response);
        response.with_meter(meter)
    }

    fn look_up_request(
        self: &Arc<Self>,
        viewer_request: &mut ViewerRequest,
        request: CacheRequest,
        repeat_until: Option<Instant>,
    ) -> LookupOutcome {
        let mut context = self.begin_context(viewer_request, request);
        context.repeat_until = repeat_until;
        if headers::loops(&context.headers, &self.rules.name) {
            return LookupOutcome::Served(rejections::looped(context));
        }
        self.look_up(context)
    }

    /// Looks the key up and serves what may be served without a wait.
    fn look_up(self: &Arc<Self>, mut context: RequestContext) -> LookupOutcome {
        match self.look_up_requested_version(&mut context) {
            ReloadAction::Serve(version) => return self.respond_with_hit(context, &version),
            ReloadAction::TooFar => return LookupOutcome::Served(rejections::too_far(context)),
            ReloadAction::LookUp => {}
        }
        let (request, now) = (&context.request, context.now);
        let upstream_headers = || self.upstream_headers(&context);
        let lookup = self
            .cache
            .lookup(&request.key, request.kind, now, upstream_headers);
        if let Some(object) = &lookup.object {
            let stored_use = self.use_of_stored(&context, object);
            let permit = self.repeat_permit(&context, &lookup, stored_use);
            match stored_use {
                StoredUse::Current => {
                    return self.respond_with_hit(context, object).with_repeat(permit);
                }
                StoredUse::Stale => {
                    let response = self.respond_with_stale(context, &lookup, object);
                    return LookupOutcome::Served(response).with_repeat(permit);
                }
                StoredUse::None => {}
            }
        }
        context.forward = ForwardReason::because(&lookup);
        if context.only_if_cached() {
            return LookupOutcome::Served(rejections::not_stored(context));
        }
        LookupOutcome::NeedsFetch(context, lookup)
    }

    /// How a stored object may be used for this request.
    fn use_of_stored(&self, context: &RequestContext, object: &Object) -> StoredUse {
        if self.is_outgrown(context, &object.head, object.body.len() as u64) {
            return StoredUse::None;
        }
        // The refresher keeps the playlist current, not the stored responses to blocking requests.
        let may_be_refreshed =
            context.directives.is_none() && !context.request.has_delivery_directives();
        match context.freshness(object) {
            Freshness::Fresh => StoredUse::Current,
            _ if may_be_refreshed && is_refreshed_low_latency(object, context.now) => {
                StoredUse::Current
            }
            Freshness::Stale => StoredUse::Stale,
            Freshness::IfError if may_be_refreshed && is_kept_current(object, context.now) => {
                StoredUse::Stale
            }
            Freshness::IfError | Freshness::Unusable => StoredUse::None,
        }
    }

    /// Fetches, and looks the key up again when the fetch asks for it.
    async fn fetch_and_respond(
        self: &Arc<Self>,
        mut context: RequestContext,
        mut lookup: Lookup,
    ) -> ViewerResponse {
        if self.is_fetch_for_one_client(&context, &lookup)
            && !self.clients.admit(context.client).await
        {
            return rejections::client_limited(context);
        }
        for _ in 0..FETCHES_MAX {
            context = match self.fetch(context, &lookup).await {
                PipelineStep::Respond(response) => return response,
                PipelineStep::Again(context) => context,
            };
            context.now = Instant::now();
            (context, lookup) = match self.look_up(context) {
                LookupOutcome::Served(response) => return response,
                LookupOutcome::AwaitsCoding(context, object) => {
                    return self.respond_when_coded(context, &object).await;
                }
                LookupOutcome::NeedsFetch(context, lookup) => (context, lookup),
            };
        }
        Box::pin(self.pass(context)).await
    }

    /// Whether the fetch would serve this request alone. A stored, tracked, newly listed or running
    /// one serves all viewers: clients behind one address do not pay for it.
    fn is_fetch_for_one_client(&self, context: &RequestContext, lookup: &Lookup) -> bool {
        let request = &context.request;
        !is_stored(lookup)
            && !self.cache.is_being_filled(lookup)
            && self.live.tracker(request).is_none()
            && !self.live.is_new(&request.key, context.now)
    }

    /// The viewer's range ends beyond the stored object, and a live manifest lists such ranges.
    fn is_outgrown(&self, context: &RequestContext, head: &StoredHead, length: u64) -> bool {
        self.live.has_byte_ranges()
            && reaches(&context.headers, self.settings.ranges_max, length)
            && self
                .live
                .is_outgrown(&context.request, length, &head.lifetime, context.now)
    }

    /// Permits repeating the response with the object of a lookup: one that is fresh, or that the
    /// refresher keeps current.
    fn repeat_permit(
        &self,
        context: &RequestContext,
        lookup: &Lookup,
        stored_use: StoredUse,
    ) -> Option<RepeatPermit> {
        if !context.wants_repeat
            || stored_use == StoredUse::None
            || self.is_response_variable(context)
        {
            return None;
        }
        let found_object = self.cache.found_object(lookup, context.now)?;
        let object = found_object.object();
        let needs_refresher = context.freshness(object) != Freshness::Fresh;
        let usable_for = if !needs_refresher {
            Duration::MAX
        } else if context.directives.is_none() {
            kept_current_for(object, context.now)?
        } else {
            return None;
        };
        let unchanged_for = fields_unchanged_for(&object.head, context.now).min(usable_for);
        let until = context.now + unchanged_for;
        (unchanged_for > Duration::ZERO).then(|| RepeatPermit {
            generation: self.generation,
            limiter: self.rate_limits.of_cached(&context.request).cloned(),
            until: context.repeat_until.map_or(until, |end| end.min(until)),
            found_object,
            needs_refresher,
        })
    }

    /// Whether the response depends on more than the stored object and its age.
    fn is_response_variable(&self, context: &RequestContext) -> bool {
        let has_directives = context
            .directives
            .as_ref()
            .is_some_and(|directives| *directives != RequestDirectives::default());
        context.is_logged()
            || context.names_its_id()
            || context.request.has_delivery_directives()
            || has_directives
            || self.live.has_byte_ranges() && context.headers.contains_key(header::RANGE)
    }

    fn respond_with_hit(&self, mut context: RequestContext, object: &Arc<Object>) -> LookupOutcome {
        let outcome = if object.head.status.is_client_error() {
            Outcome::Negative
        } else if !context.waited_before.is_zero() {
            // The fill for which it waited has stored the object since.
            context.forward = ForwardReason::UriMiss;
            context.collapsed = true;
            Outcome::Coalesced
        } else {
            Outcome::Hit
        };
        match self.choose_encoding(responses::full_or_delta(&context, object), &context.headers) {
            EncodingChoice::Ready(encoded) => {
                object.hits.add();
                self.mark_class(&context.request, |class| object.classes.mark(class));
                let response =
                    responses::respond_with_encoded(context, encoded, outcome, &self.settings);
                LookupOutcome::Served(response)
            }
            EncodingChoice::InProgress(..) => {
                LookupOutcome::AwaitsCoding(context, Arc::clone(object))
            }
        }
    }

    /// Serves a stale object and refreshes it in the background.
    fn respond_with_stale(
        self: &Arc<Self>,
        context: RequestContext,
        lookup: &Lookup,
        object: &Arc<Object>,
    ) -> ViewerResponse {
        object.hits.add();
        let request = &context.request;
        self.mark_class(request, |class| object.classes.mark(class));
        let has_refresher =
            !request.has_delivery_directives() && self.ensure_refreshed(request, object);
        if !has_refresher
            && !self.is_backing_off(lookup, &context.headers, request, context.now)
            && let Some(fill) = self.cache.lead(lookup, || self.upstream_headers(&context))
        {
            self.spawn_fill(request, fill, FillTrigger::Refresh);
        }
        // The response does not wait for the coding; this starts it for later requests.
        self.choose_encoding(responses::full_or_delta(&context, object), &context.headers);
        responses::respond_with_object(context, object, Outcome::Stale, &self.settings)
    }

    /// Whether the manifest is refreshed in the background. Starts that, if possible: this is its
    /// second request.
    fn ensure_refreshed(self: &Arc<Self>, request: &CacheRequest, object: &Object) -> bool {
        // After a soft purge, its next poll would come too late.
        let is_purged = object.head.lifetime.rule == Rule::SoftPurge;
        let access_tracker = object.head.access_tracker.as_ref();
        access_tracker.is_some_and(|access_tracker| {
            let tracker = || self.live.tracker(request);
            !is_purged
                && (access_tracker.has_refresher()
                    || tracker().is_some_and(|tracker| self.start_refresher(&tracker)))
        })
    }

    /// Nothing fresh is stored: the key's memo decides, else the request joins the fill.
    async fn fetch(self: &Arc<Self>, mut context: RequestContext, lookup: &Lookup) -> PipelineStep {
        match self.memo_for(lookup, &context.headers, &context.request, context.now) {
            Some(KeyMemo::Failed(error_object)) => {
                return self.serve_stale_or_failure(context, lookup, &error_object, |context| {
                    rejections::failure_response(context, &error_object, Outcome::Negative)
                });
            }
            Some(KeyMemo::Pass) => {
                return PipelineStep::Respond(Box::pin(self.pass(context)).await);
            }
            Some(KeyMemo::Sliced(slice_set))
                if self.is_outgrown(&context, &slice_set.head, slice_set.length) =>
            {
                self.cache.erase_memo(lookup);
            }
            Some(KeyMemo::Sliced(slice_set)) => {
                return self.respond_from_slices(context, lookup, slice_set).await;
            }
            Some(
                KeyMemo::Unsliceable
                | KeyMemo::Truncated
                | KeyMemo::Avoid(_)
                | KeyMemo::Unreachable(..),
            )
            | None => {}
        }
        let is_known_absent = || {
            self.live
                .is_known_absent(&self.rules, &context.request, Now::read())
        };
        if !is_stored(lookup) && is_known_absent() {
            return PipelineStep::Respond(rejections::too_early(context));
        }
        let upstream_headers = self.upstream_headers(&context);
        match self.cache.join(lookup, &upstream_headers) {
            JoinOutcome::Stored(_) | JoinOutcome::Retry => PipelineStep::Again(context),
            JoinOutcome::Crowded => self.serve_stale_or(context, lookup, rejections::crowded),
            JoinOutcome::Lead(fill, follower) => {
                self.mark_class(&context.request, |class| follower.mark_class(class));
                self.query_variance.observe(&context.request, context.now);
                let (pass_sender, pass_receiver) = oneshot::channel();
                let client_fetch = self.clients.begin_fetch(context.client);
                let trigger = FillTrigger::Viewer(pass_sender, client_fetch);
                self.spawn_fill(&context.request, fill, trigger);
                self.follow(
                    context,
                    lookup,
                    &upstream_headers,
                    follower,
                    Some(pass_receiver),
                )
                .await
            }
            JoinOutcome::Follow(follower) => {
                context.collapsed = true;
                self.mark_class(&context.request, |class| follower.mark_class(class));
                self.follow(context, lookup, &upstream_headers, follower, None)
                    .await
            }
        }
    }

    /// Starts a fill as a detached task.
    pub(super) fn spawn_fill(
        self: &Arc<Self>,
        request: &CacheRequest,
        fill: Fill,
        trigger: FillTrigger,
    ) {
        let task = FillTask::new(Arc::clone(self), request, fill, trigger);
        // The future takes kilobytes. tokio would move it several times, and `Box::pin` once.
        let run = Box::write(Box::new_uninit(), task.run());
        tokio::spawn(Box::into_pin(run));
    }

    /// The request's headers as they go to the origin.
    pub(super) fn upstream_headers(&self, context: &RequestContext) -> HeaderMap {
        self.upstream_headers_for(&context.headers, &context.request)
    }

    /// The viewer's headers that are sent upstream. Manifests and media are requested without a
    /// content coding.
    pub(super) fn upstream_headers_for(
        &self,
        viewer: &HeaderMap,
        request: &CacheRequest,
    ) -> HeaderMap {
        let forwarded = request.forwarded.as_deref();
        let mut upstream_headers =
            headers::upstream(viewer, forwarded, &request.route, &self.rules.name);
        if is_requested_uncoded(request.kind, request.target.path()) {
            upstream_headers.remove(ACCEPT_ENCODING);
        }
        upstream_headers
    }
}

/// A successful response is stored.
pub(super) fn is_stored(lookup: &Lookup) -> bool {
    let stored = lookup.object.as_ref();
    stored.is_some_and(|stored| stored.head.status == StatusCode::OK)
}
