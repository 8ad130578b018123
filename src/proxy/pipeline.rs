//! The steps of one request, one function per step; each returns the next step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ACCEPT_ENCODING, RANGE};
use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::blocking_reload::{ReloadAction, is_newest, is_tended};
use super::coding::EncodedForm;
use super::context::RequestContext;
use super::fill::{FillTask, FillTrigger};
use super::pass::PassThroughResponse;
use super::stale_on_error::servable_on_error;
use super::status::ForwardReason;
use super::{Shield, ViewerRequest, ViewerResponse, rejections, respond};
use crate::telemetry::Outcome;
use seawall_cache::{
    Fill, FillHead, Follower, JoinOutcome, KeyMemo, Lookup, Object, StoredHead, Verdict,
};
use seawall_policy::access::{Admission, CacheRequest, access};
use seawall_policy::encoding::is_asked_in_plain;
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

/// Where a step leads.
pub(super) enum PipelineStep {
    /// The response.
    Answer(ViewerResponse),
    /// Look the key up again.
    Again(RequestContext),
}

impl Shield {
    /// Answers a GET from memory, without waiting. `None` if that is not possible; nothing has
    /// changed then, and the request may go to [`Shield::answer`].
    pub fn answer_from_memory(
        self: &Arc<Self>,
        mut arrival: ViewerRequest,
    ) -> Option<ViewerResponse> {
        let Admission::Cache(entry) = self.judge(&arrival) else {
            return None;
        };
        let hint = self.announced_request(&arrival, &entry);
        match self.enter(&mut arrival, entry) {
            LookupOutcome::Served(answer) => {
                self.prefetch_announced(hint);
                Some(answer)
            }
            LookupOutcome::AwaitsCoding(..) | LookupOutcome::NeedsFetch(..) => None,
        }
    }

    fn judge(&self, arrival: &ViewerRequest) -> Admission {
        access(
            &self.rules,
            &arrival.method,
            &arrival.uri,
            arrival.version,
            &arrival.headers,
        )
    }

    fn ask(&self, arrival: &mut ViewerRequest, entry: CacheRequest) -> RequestContext {
        let line = self.telemetry.access_log.is_enabled();
        RequestContext::new(arrival, entry, &self.rules.name, line)
    }

    /// Answers one request. Never fails: every error has a status. Hits do not wait.
    pub async fn answer(self: &Arc<Self>, mut arrival: ViewerRequest) -> ViewerResponse {
        let line = self.telemetry.access_log.is_enabled();
        match self.judge(&arrival) {
            Admission::Refuse(refusal) => rejections::refused(&arrival, refusal, line),
            Admission::Preflight(route) => rejections::preflight(&arrival, &route, line),
            Admission::Pass(entry) => {
                let host = arrival.host().to_owned();
                let ask = self.ask(&mut arrival, entry);
                // Boxed like all futures that wait: a connection reserves room for its largest
                // future.
                let tale = ask.tale_if_left();
                let answering = self.pass_method(ask, &host, arrival.method, arrival.body);
                Box::pin(self.record_if_abandoned(tale, answering)).await
            }
            Admission::Cache(entry) => {
                self.prefetch_announced(self.announced_request(&arrival, &entry));
                match self.enter(&mut arrival, entry) {
                    LookupOutcome::Served(answer) => answer,
                    LookupOutcome::AwaitsCoding(ask, object) => {
                        let tale = ask.tale_if_left();
                        Box::pin(self.record_if_abandoned(tale, self.hit_with_coding(ask, &object)))
                            .await
                    }
                    LookupOutcome::NeedsFetch(ask, found) => {
                        let tale = ask.tale_if_left();
                        Box::pin(self.record_if_abandoned(tale, self.fetch_and_respond(ask, found)))
                            .await
                    }
                }
            }
        }
    }

    fn enter(self: &Arc<Self>, arrival: &mut ViewerRequest, entry: CacheRequest) -> LookupOutcome {
        let ask = self.ask(arrival, entry);
        if headers::loops(&ask.headers, &self.rules.name) {
            return LookupOutcome::Served(rejections::looped(ask));
        }
        self.look_up(ask)
    }

    /// Looks the key up and serves what may be served without a wait.
    fn look_up(self: &Arc<Self>, mut ask: RequestContext) -> LookupOutcome {
        match self.look_up_state(&mut ask) {
            ReloadAction::There(state) => return self.hit(ask, &state),
            ReloadAction::TooFar => return LookupOutcome::Served(rejections::too_far(ask)),
            ReloadAction::Open => {}
        }
        let (entry, now) = (&ask.entry, ask.now);
        let upstream = || self.upstream(&ask);
        let found = self.cache.lookup(&entry.key, entry.kind, now, upstream);
        if let Some(object) = &found.object
            && !self.is_outgrown(&ask, &object.head, object.body.len() as u64)
        {
            // The refresher keeps the playlist current, not the stored answers to blocking
            // requests.
            let looks = ask.directives.is_none() && !ask.entry.is_directed();
            match ask.freshness(object) {
                Freshness::Fresh => return self.hit(ask, object),
                _ if looks && is_newest(object, ask.now) => {
                    return self.hit(ask, object);
                }
                Freshness::Stale => return LookupOutcome::Served(self.stale(ask, &found, object)),
                Freshness::IfError if looks && is_tended(object, ask.now) => {
                    return LookupOutcome::Served(self.stale(ask, &found, object));
                }
                Freshness::IfError | Freshness::Unusable => {}
            }
        }
        ask.forward = ForwardReason::because(&found);
        if ask.only_if_cached() {
            return LookupOutcome::Served(rejections::not_held(ask));
        }
        LookupOutcome::NeedsFetch(ask, found)
    }

    /// Fetches, and looks the key up again when the fetch asks for it.
    async fn fetch_and_respond(
        self: &Arc<Self>,
        mut ask: RequestContext,
        mut found: Lookup,
    ) -> ViewerResponse {
        if self.is_wanted_by_one_alone(&ask, &found) && !self.clients.admit(ask.client).await {
            return rejections::client_limited(ask);
        }
        for _ in 0..LOOKUPS_MAX {
            ask = match self.fetch(ask, &found).await {
                PipelineStep::Answer(answer) => return answer,
                PipelineStep::Again(ask) => ask,
            };
            ask.now = Instant::now();
            (ask, found) = match self.look_up(ask) {
                LookupOutcome::Served(answer) => return answer,
                LookupOutcome::AwaitsCoding(ask, object) => {
                    return self.hit_with_coding(ask, &object).await;
                }
                LookupOutcome::NeedsFetch(ask, found) => (ask, found),
            };
        }
        Box::pin(self.pass(ask)).await
    }

    /// The viewer's range ends beyond the stored object, and a live manifest lists such ranges.
    fn is_outgrown(&self, ask: &RequestContext, head: &StoredHead, length: u64) -> bool {
        self.live.any_ranged()
            && reaches(&ask.headers, self.settings.ranges_max, length)
            && self
                .live
                .is_outgrown(&ask.entry, length, &head.lifetime, ask.now)
    }

    fn hit(&self, ask: RequestContext, object: &Arc<Object>) -> LookupOutcome {
        let outcome = if object.head.status.is_client_error() {
            Outcome::Negative
        } else {
            Outcome::Hit
        };
        match self.form(respond::asked_form(&ask, object), &ask.headers) {
            EncodedForm::Ready(form) => {
                object.hits.add();
                LookupOutcome::Served(respond::form(ask, form, outcome, &self.settings))
            }
            EncodedForm::Coming(..) => LookupOutcome::AwaitsCoding(ask, Arc::clone(object)),
        }
    }

    /// Serves a stale object and refreshes it in the background.
    fn stale(
        self: &Arc<Self>,
        ask: RequestContext,
        found: &Lookup,
        object: &Arc<Object>,
    ) -> ViewerResponse {
        object.hits.add();
        if (ask.entry.is_directed() || !self.ensure_refreshed(&ask.entry, object))
            && !self.failed_lately(found, &ask.headers, &ask.entry, ask.now)
            && let Some(fill) = self.cache.lead(found, || self.upstream(&ask))
        {
            self.spawn_fill(&ask.entry, fill, FillTrigger::Refresh);
        }
        // The response does not wait for the coding; this starts it for later requests.
        self.form(respond::asked_form(&ask, object), &ask.headers);
        respond::object(ask, object, Outcome::Stale, &self.settings)
    }

    /// Whether the manifest is refreshed in the background. Starts that, if possible: this is its
    /// second request.
    fn ensure_refreshed(self: &Arc<Self>, entry: &CacheRequest, object: &Object) -> bool {
        let attention = object.head.access_tracker.as_ref();
        attention.is_some_and(|attention| {
            attention.has_refresher()
                || self
                    .live
                    .watched(entry)
                    .is_some_and(|watch| self.start_refresher(&watch))
        })
    }

    /// An endpoint broke off inside the object a moment ago; the next request goes to another
    /// endpoint.
    fn broke_off_elsewhere(&self, found: &Lookup, now: Instant) -> bool {
        let noted = self.cache.memo(&found.slot, now);
        matches!(noted, Some(KeyMemo::Avoid(_)))
    }

    /// Nothing fresh is stored: the key's memo decides, else the request joins the fill.
    async fn fetch(self: &Arc<Self>, mut ask: RequestContext, found: &Lookup) -> PipelineStep {
        match self.noted(found, &ask.headers, &ask.entry, ask.now) {
            Some(KeyMemo::Failed(answer)) => {
                return self.covered_or(ask, found, &answer, |ask| {
                    rejections::failure_answer(ask, &answer, Outcome::Negative)
                });
            }
            Some(KeyMemo::Pass) => return PipelineStep::Answer(Box::pin(self.pass(ask)).await),
            Some(KeyMemo::Sliced(series))
                if self.is_outgrown(&ask, &series.head, series.length) =>
            {
                self.cache.forget_note(found);
            }
            Some(KeyMemo::Sliced(series)) => return self.sliced(ask, found, series).await,
            Some(
                KeyMemo::Unsliceable
                | KeyMemo::Truncated
                | KeyMemo::Avoid(_)
                | KeyMemo::Unreachable(..),
            )
            | None => {}
        }
        if !is_held(found) && self.live.is_known_absent(&ask.entry, Now::read()) {
            return PipelineStep::Answer(rejections::too_early(ask));
        }
        let upstream = self.upstream(&ask);
        match self.cache.join(found, &upstream) {
            JoinOutcome::Held(_) | JoinOutcome::Retry => PipelineStep::Again(ask),
            JoinOutcome::Crowded => self.stale_or(ask, found, rejections::crowded),
            JoinOutcome::Lead(fill, follower) => {
                let (passing, passed) = oneshot::channel();
                let visit = self.clients.begin_fetch(ask.client);
                self.spawn_fill(&ask.entry, fill, FillTrigger::Viewer(passing, visit));
                self.follow(ask, found, &upstream, follower, Some(passed))
                    .await
            }
            JoinOutcome::Follow(follower) => {
                ask.collapsed = true;
                self.follow(ask, found, &upstream, follower, None).await
            }
        }
    }

    /// Waits for a fill, within the viewer's deadline.
    async fn follow(
        self: &Arc<Self>,
        mut ask: RequestContext,
        found: &Lookup,
        upstream: &HeaderMap,
        mut follower: Follower,
        passed: Option<oneshot::Receiver<PassThroughResponse>>,
    ) -> PipelineStep {
        // A viewer who may insist on a fresh response waits for it.
        let settles_for_less = ask.directives.is_none() && servable_on_error(&ask, found).is_some();
        let patience = if settles_for_less {
            self.settings.stale_wait_max
        } else {
            self.patience(&ask.entry)
        };
        let leads = passed.is_some();
        let to_come = (!leads).then(|| self.live.wait_limit(&ask.entry, Now::read()));
        let since = Instant::now();
        let landing = timeout(patience, follower.wait_for_head()).await;
        ask.now = Instant::now();
        let waited = ask.now.saturating_duration_since(since);
        ask.waited_for_origin(waited);
        let outcome = match to_come {
            None => Outcome::Miss,
            // A response later than expected is late because of the origin, not because it is not
            // due yet.
            Some(Some(within)) if waited <= within => Outcome::HeldBack,
            Some(_) => Outcome::Coalesced,
        };
        let Ok(landing) = landing else {
            return self.stale_or(ask, found, rejections::timed_out);
        };
        if !leads && !follower.can_share(upstream) {
            ask.collapsed = false;
            return PipelineStep::Again(ask);
        }
        match landing {
            FillHead::Growing(head) => PipelineStep::Answer(
                respond::growing(ask, &head, follower, outcome, &self.settings).await,
            ),
            FillHead::Settled(Verdict::Refused(_)) if !follower.same_request(upstream) => {
                ask.collapsed = false;
                PipelineStep::Again(ask)
            }
            FillHead::Settled(Verdict::Failed(_) | Verdict::Lost | Verdict::Pass)
                if !self.concerns(&follower, upstream, &ask.entry) =>
            {
                ask.collapsed = false;
                PipelineStep::Again(ask)
            }
            FillHead::Settled(verdict) => {
                drop(follower);
                self.respond_to_verdict(ask, found, verdict, outcome, passed)
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
        ask: RequestContext,
        found: &Lookup,
        verdict: Verdict,
        outcome: Outcome,
        passed: Option<oneshot::Receiver<PassThroughResponse>>,
    ) -> PipelineStep {
        let settings = &self.settings;
        if let Verdict::Object(object) | Verdict::Revalidated(object) = &verdict {
            self.wait_for_form(respond::asked_form(&ask, object), &ask.headers)
                .await;
        }
        match verdict {
            Verdict::Object(object) | Verdict::Refused(object) => {
                PipelineStep::Answer(respond::object(ask, &object, outcome, settings))
            }
            Verdict::Revalidated(object) => {
                let outcome = match outcome {
                    Outcome::Miss => Outcome::Revalidated,
                    coalesced => coalesced,
                };
                PipelineStep::Answer(respond::object(ask, &object, outcome, settings))
            }
            Verdict::Failed(answer) => self.covered_or(ask, found, &answer, |ask| {
                rejections::failure_answer(ask, &answer, Outcome::Failed)
            }),
            Verdict::Exhausted(answer) => self.stale_or(ask, found, |ask| {
                rejections::failure_answer(ask, &answer, Outcome::Overload)
            }),
            // No viewer got a byte, and another endpoint may have the whole body.
            Verdict::Lost
                if servable_on_error(&ask, found).is_none()
                    && self.broke_off_elsewhere(found, ask.now) =>
            {
                PipelineStep::Again(ask)
            }
            Verdict::Lost => self.stale_or(ask, found, rejections::lost),
            Verdict::Sliced => PipelineStep::Again(ask),
            Verdict::Pass => match passed.and_then(|mut passed| passed.try_recv().ok()) {
                // A range of a large object that is not stored is fetched as a range.
                Some(passed)
                    if passed.reason == Some(UncacheableReason::TooLarge)
                        && ask.headers.contains_key(RANGE) =>
                {
                    drop(passed);
                    PipelineStep::Answer(Box::pin(self.pass(ask)).await)
                }
                Some(passed) => PipelineStep::Answer(respond::passing(ask, passed)),
                None => PipelineStep::Answer(Box::pin(self.pass(ask)).await),
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
    pub(super) fn upstream(&self, ask: &RequestContext) -> HeaderMap {
        self.sent(&ask.headers, &ask.entry)
    }

    /// The viewer's headers that are sent upstream. Manifests and media are requested without a
    /// content coding.
    pub(super) fn sent(&self, viewer: &HeaderMap, entry: &CacheRequest) -> HeaderMap {
        let forwarded = entry.forwarded.as_deref();
        let mut sent = headers::upstream(viewer, forwarded, &entry.route, &self.rules.name);
        if is_asked_in_plain(entry.kind, entry.target.path()) {
            sent.remove(ACCEPT_ENCODING);
        }
        sent
    }
}

/// A successful response is stored.
pub(super) fn is_held(found: &Lookup) -> bool {
    let held = found.object.as_ref();
    held.is_some_and(|held| held.head.status == StatusCode::OK)
}
