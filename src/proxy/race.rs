//! Moves a body to another endpoint when the one that delivers it stops or is too slow. Both
//! responses are read; the other takes over as soon as it is further into the body. Used for whole
//! bodies and for slices. Does not depend on keys or on storage.

mod body_rate;
mod silence;
mod takeover_request;
mod tried_endpoints;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;

pub(super) use body_rate::{BodyRate, ExpectedBody};
pub(super) use silence::SILENCE;
pub(super) use takeover_request::ResponseFit;

use self::silence::{SilenceDeadlines, reached};
use self::takeover_request::{TakeoverError, TakeoverParts, TakeoverRequest, finish};
use self::tried_endpoints::{BodyMovement, TriedEndpoints, UnfitReason};
use seawall_policy::{EndpointAvoidance, EndpointSet};
use seawall_upstream::{
    BudgetUse, Failure, Origin, UpstreamBody, UpstreamRequest, UpstreamResponse,
};

/// Delay before the next attempt when the retry budget refuses, or no other endpoint is available.
const RETRY_AFTER_REFUSAL: Duration = Duration::from_millis(250);
/// A body that is found silent or too slow, and that no other endpoint continues, is cut this much
/// later: players then request the object again, and another endpoint answers.
const CUT_AFTER: Duration = Duration::from_millis(1300);
/// Interval of requests to other endpoints while none answers or none is available, and of checks
/// whether the origin has the complete body.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(1);
/// For this time, other endpoints are preferred to one that stopped inside a body of the same
/// object.
pub(super) const AVOIDED: Duration = Duration::from_secs(10);

/// The next event of a body.
pub(super) enum BodyEvent {
    /// From the endpoint that delivers the body: bytes, the end or a failure.
    Received(Option<Result<Bytes, Failure>>),
    /// The response of the endpoint that has taken over. If readers have a part of the body, this
    /// response begins where that part ends.
    TakenOver(UpstreamResponse),
    /// All readers have left.
    Abandoned,
}

/// What a race needs to know about a body.
pub(super) trait TakeoverBody {
    /// The origin group whose endpoints race. A reload does not change it.
    fn origin(&self) -> &Arc<Origin>;
    /// Request headers for the part after `received` bytes. `None`: no other endpoint can continue
    /// the body.
    fn range_headers_from(&self, received: u64) -> Option<HeaderMap>;
    /// The request for that part.
    fn upstream_request(&self, headers: HeaderMap) -> UpstreamRequest;
    /// Returns the function that says how the response to that request fits.
    fn response_matcher(
        &self,
        received: u64,
    ) -> Box<dyn FnOnce(&UpstreamResponse) -> ResponseFit + Send>;
    /// Readers have the received bytes: the body cannot restart.
    fn is_sent_to_viewers(&self) -> bool;
    /// The origin has the complete body by now.
    fn is_complete(&self) -> bool;
    /// Endpoints from which another one took over this object within [`AVOIDED`]: a new request
    /// would do no better there.
    fn failed_before(&self) -> EndpointSet;
    /// Called when the endpoint has stopped although the origin has the complete body.
    fn record_stopped(&self, _endpoint: usize) {}
}

/// The endpoints of one body: which one delivers it, at what rate, and which ones may take over.
pub(super) struct Race {
    endpoint: usize,
    /// Other endpoints may be requested at all.
    may_take_over: bool,
    /// Endpoints from which another one has taken over.
    failed_endpoints: EndpointAvoidance,
    /// What [`TakeoverBody::failed_before`] said when the body began; these endpoints do no better
    /// until it ends.
    failed_before: Option<EndpointSet>,
    /// Endpoints that were requested without success.
    tried_endpoints: TriedEndpoints,
    /// The current endpoint's body broke off.
    is_broken: bool,
    rate: BodyRate,
    late_since: Option<Instant>,
    takeover_request: Option<TakeoverRequest>,
    /// When another endpoint was last requested.
    requested: Option<Instant>,
    /// When the race last checked whether the origin has the complete body.
    completeness_checked_at: Instant,
}

impl Race {
    /// `failed_endpoints`: endpoints from which another one has already taken over.
    pub(super) fn new(
        endpoint: usize,
        failed_endpoints: EndpointAvoidance,
        may_take_over: bool,
        expected: ExpectedBody,
    ) -> Race {
        let now = Instant::now();
        Race {
            endpoint,
            may_take_over,
            failed_endpoints,
            failed_before: None,
            tried_endpoints: TriedEndpoints::default(),
            is_broken: false,
            rate: BodyRate::new(expected, now),
            late_since: None,
            takeover_request: None,
            requested: None,
            completeness_checked_at: now,
        }
    }

    /// The endpoint that delivers the body.
    pub(super) fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// All endpoints that delivered a part of the body, including the current one.
    pub(super) fn used_endpoints(mut self) -> EndpointAvoidance {
        self.failed_endpoints
            .avoid(self.endpoint, Instant::now() + AVOIDED);
        self.failed_endpoints
    }

    pub(super) fn may_take_over(&self) -> bool {
        self.may_take_over
    }

    pub(super) fn received(&self) -> u64 {
        self.rate.received()
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        self.rate.age(now)
    }

    /// The body is too slow so far, and another endpoint may still replace it.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.may_take_over
            && self.rate.is_behind(now)
            && (self.takeover_request.is_some() || !self.rate.is_late(now))
    }

    /// Readers receive the body from now on: another endpoint can only continue it, and lateness is
    /// measured from now.
    pub(super) fn mark_sent_to_viewers(&mut self) {
        self.takeover_request = None;
        self.late_since = None;
    }

    /// Excludes time in which the reader took no bytes.
    pub(super) fn pause(&mut self, span: Duration) {
        self.rate.pause(span);
    }

    /// Another endpoint continues the body.
    pub(super) fn move_to(&mut self, endpoint: usize) {
        let now = Instant::now();
        self.failed_endpoints.avoid(self.endpoint, now + AVOIDED);
        self.endpoint = endpoint;
        self.is_broken = false;
        self.rate.restart(now);
        self.late_since = None;
        self.requested = None;
    }

    /// Waits for the next chunk. While the endpoint is silent, too slow or broken, also waits for
    /// another endpoint to take over.
    pub(super) async fn next(
        &mut self,
        upstream_body: &mut UpstreamBody,
        body: &impl TakeoverBody,
        abandoned: impl Future<Output = ()>,
    ) -> BodyEvent {
        self.failed_before
            .get_or_insert_with(|| body.failed_before());
        if self.should_cut(body) {
            return BodyEvent::Received(Some(Err(Failure::Truncated)));
        }
        let mut deadlines = SilenceDeadlines::new(self.rate.is_complete());
        let mut abandoned = pin!(abandoned);
        let mut next = pin!(upstream_body.next());
        loop {
            let event = tokio::select! {
                biased;
                received = &mut next => {
                    return self.handle_received(received, body, abandoned).await;
                }
                () = &mut abandoned => Some(BodyEvent::Abandoned),
                end = finish(&mut self.takeover_request) => {
                    let response = self.handle_takeover_end(end, body);
                    if self.takeover_request.is_none() {
                        deadlines.allow_next_attempt();
                    }
                    response.map(BodyEvent::TakenOver)
                }
                () = reached(deadlines.attempt) => {
                    self.handle_silence(body, &mut deadlines);
                    None
                }
                () = reached(deadlines.cut) => {
                    Some(BodyEvent::Received(Some(Err(Failure::Truncated))))
                }
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// Handles what the delivering endpoint sent: a chunk, the end or a failure.
    async fn handle_received(
        &mut self,
        received: Option<Result<Bytes, Failure>>,
        body: &impl TakeoverBody,
        abandoned: Pin<&mut impl Future<Output = ()>>,
    ) -> BodyEvent {
        match received {
            Some(Err(failure)) => self.handle_break(failure, body, abandoned).await,
            Some(Ok(bytes)) => {
                let now = Instant::now();
                self.count_bytes(bytes.len(), body, now);
                self.start_or_drop_takeover(body, now);
                BodyEvent::Received(Some(Ok(bytes)))
            }
            None => BodyEvent::Received(None),
        }
    }

    /// No byte has come until `deadlines.attempt`: requests another endpoint, and plans the next
    /// attempt, or when to cut a body for which no endpoint takes over.
    fn handle_silence(&mut self, body: &impl TakeoverBody, deadlines: &mut SilenceDeadlines) {
        self.check_if_complete(body);
        let is_allowed = self.request_after_silence(body);
        let now = tokio::time::Instant::now();
        let may_be_cut = self.rate.is_complete() && self.sent_to_viewers(body) > 0;
        if is_allowed && may_be_cut && deadlines.cut.is_none() {
            deadlines.cut = Some(now + CUT_AFTER);
        }
        let is_decided =
            self.takeover_request.is_some() || deadlines.cut.is_some() || !self.may_take_over;
        let wait = if is_allowed {
            ATTEMPT_INTERVAL
        } else {
            RETRY_AFTER_REFUSAL
        };
        deadlines.attempt = (!is_decided).then(|| now + wait);
    }

    /// Requests another endpoint because this one is silent. False when none is available, or the
    /// retry budget refuses.
    fn request_after_silence(&mut self, body: &impl TakeoverBody) -> bool {
        if !self.may_take_over || !self.has_other_endpoint(body) {
            return false;
        }
        if self.rate.is_complete() {
            body.record_stopped(self.endpoint);
        }
        self.request_takeover(body, true)
    }

    /// Counts received bytes.
    fn count_bytes(&mut self, bytes: usize, body: &impl TakeoverBody, now: Instant) {
        self.rate.add(bytes, now);
        if now >= self.completeness_checked_at + ATTEMPT_INTERVAL {
            self.check_if_complete(body);
        }
        if let Some(request) = &self.takeover_request {
            request.report(self.rate.received());
        }
    }

    /// Requests another endpoint when the rate is too low, and drops that request when it is not.
    fn start_or_drop_takeover(&mut self, body: &impl TakeoverBody, now: Instant) {
        let is_late = self.rate.is_late(now);
        self.late_since = is_late.then(|| self.late_since.unwrap_or(now));
        if is_late {
            self.request_takeover(body, false);
        } else if self
            .takeover_request
            .take()
            .is_some_and(|request| request.has_stopped)
        {
            body.origin().record_takeover(false);
        }
    }

    /// The rate of a body sent while it is produced counts once the origin has all of it.
    fn check_if_complete(&mut self, body: &impl TakeoverBody) {
        let now = Instant::now();
        self.completeness_checked_at = now;
        if self.may_take_over && !self.rate.is_complete() && body.is_complete() {
            self.rate.complete(now);
        }
    }

    /// The body broke off: returns the response of another endpoint that can continue it. Each
    /// endpoint is requested once.
    async fn handle_break(
        &mut self,
        failure: Failure,
        body: &impl TakeoverBody,
        mut abandoned: Pin<&mut impl Future<Output = ()>>,
    ) -> BodyEvent {
        let broken = BodyEvent::Received(Some(Err(failure)));
        self.tried_endpoints.forget_overdue(Instant::now());
        self.is_broken = true;
        if !self.may_take_over || !self.has_other_endpoint(body) {
            return broken;
        }
        body.record_stopped(self.endpoint);
        self.request_takeover(body, true);
        while self.takeover_request.is_some() {
            tokio::select! {
                end = finish(&mut self.takeover_request) => {
                    if let Some(response) = self.handle_takeover_end(end, body) {
                        return BodyEvent::TakenOver(response);
                    }
                }
                () = &mut abandoned => return BodyEvent::Abandoned,
            }
        }
        broken
    }

    /// Handles the end of the takeover request: that endpoint has taken over, or the next one is
    /// requested.
    fn handle_takeover_end(
        &mut self,
        end: Result<UpstreamResponse, TakeoverError>,
        body: &impl TakeoverBody,
    ) -> Option<UpstreamResponse> {
        let ended = self.takeover_request.take();
        let has_stopped = ended.is_some_and(|request| request.has_stopped);
        match end {
            Ok(response) => {
                body.origin().record_takeover(true);
                return Some(response);
            }
            Err(_) if has_stopped => body.origin().record_takeover(false),
            Err(_) => {}
        }
        if let Err(TakeoverError::Rejected(endpoint, fit)) = end {
            let now = Instant::now();
            let reason = self.unfit_reason(fit, has_stopped, now);
            self.tried_endpoints.add(endpoint, reason, now);
            self.requested = None;
            self.request_takeover(body, has_stopped);
        }
        None
    }

    /// Why the endpoint of a response that fits like this has not taken over.
    fn unfit_reason(&self, fit: ResponseFit, has_stopped: bool, now: Instant) -> UnfitReason {
        match fit {
            ResponseFit::Another => UnfitReason::Different,
            ResponseFit::Same if self.movement(has_stopped, now) == BodyMovement::Moves => {
                UnfitReason::Slower
            }
            ResponseFit::Same | ResponseFit::Nothing => UnfitReason::Useless,
        }
    }

    /// Requests another endpoint, if one is available and can continue the body. Returns false when
    /// the retry budget refuses: further attempts would only add load.
    fn request_takeover(&mut self, body: &impl TakeoverBody, has_stopped: bool) -> bool {
        let now = Instant::now();
        let excluded = self.excluded(has_stopped, now);
        let is_busy = self.takeover_request.is_some();
        if is_busy || !self.may_take_over || !body.origin().has_another_in_good_standing(excluded) {
            return true;
        }
        let lately = |requested: Instant| now < requested + ATTEMPT_INTERVAL;
        if !has_stopped && self.requested.is_some_and(lately) {
            return true;
        }
        let received = self.received();
        let Some(headers) = body.range_headers_from(received) else {
            return true;
        };
        self.requested = Some(now);
        let Some(permission) = body.origin().take_over(self.endpoint, has_stopped) else {
            return false;
        };
        let upstream_request = UpstreamRequest {
            budget: BudgetUse::Paid,
            excluded,
            ..body.upstream_request(headers)
        };
        let parts = TakeoverParts {
            origin: Arc::clone(body.origin()),
            upstream_request,
            match_response: body.response_matcher(received),
        };
        let sent_to_viewers = body.is_sent_to_viewers().then_some(received);
        self.takeover_request = Some(TakeoverRequest::start(
            parts,
            sent_to_viewers,
            received,
            (has_stopped, permission),
        ));
        true
    }

    /// Whether to cut the body: it has been too slow for `CUT_AFTER`, no endpoint takes over, and
    /// an endpoint is available that has not delivered it yet. Readers are better off with a new
    /// request. False while bytes arrive and others can be asked for the rest: these take over.
    fn should_cut(&mut self, body: &impl TakeoverBody) -> bool {
        let now = Instant::now();
        let is_long = self
            .late_since
            .is_some_and(|since| now >= since + CUT_AFTER);
        if !is_long
            || !body.is_sent_to_viewers()
            || !self.may_take_over
            || self.takeover_request.is_some()
        {
            return false;
        }
        let progress = self.movement(false, now);
        if progress == BodyMovement::Moves && body.range_headers_from(self.received()).is_some() {
            return false;
        }
        let failed_before = self.failed_before.unwrap_or_default();
        let had_turns = self
            .failed_endpoints
            .ever()
            .union(failed_before)
            .union(body.failed_before());
        let tried_endpoints = self.tried_endpoints.no_better(progress);
        let no_better = had_turns.union(tried_endpoints).with(self.endpoint);
        if !body.origin().has_another_in_good_standing(no_better) {
            return false;
        }
        let allowed = body.origin().take_over(self.endpoint, false).is_some();
        if !allowed {
            self.late_since = Some(now);
        }
        allowed
    }

    /// Number of bytes that readers have.
    fn sent_to_viewers(&self, body: &impl TakeoverBody) -> u64 {
        if body.is_sent_to_viewers() {
            self.received()
        } else {
            0
        }
    }

    fn movement(&self, has_stopped: bool, now: Instant) -> BodyMovement {
        if self.is_broken {
            BodyMovement::Broken
        } else if has_stopped || self.rate.is_dribble(now) {
            BodyMovement::Stalled
        } else {
            BodyMovement::Moves
        }
    }

    /// Endpoints that a takeover request must not use.
    fn excluded(&self, has_stopped: bool, now: Instant) -> EndpointSet {
        let progress = self.movement(has_stopped, now);
        let tried_endpoints = self.tried_endpoints.excluded(progress, true, now);
        self.excluded_endpoints(now).union(tried_endpoints)
    }

    /// An endpoint is available that may do better, even with a different object, now that this one
    /// has stopped.
    fn has_other_endpoint(&self, body: &impl TakeoverBody) -> bool {
        let now = Instant::now();
        let progress = self.movement(true, now);
        let tried_endpoints = self.tried_endpoints.excluded(progress, false, now);
        body.origin()
            .has_another_in_good_standing(self.excluded_endpoints(now).union(tried_endpoints))
    }

    /// The current endpoint, and those from which another one took over within [`AVOIDED`].
    fn excluded_endpoints(&self, now: Instant) -> EndpointSet {
        self.failed_endpoints.at(now).with(self.endpoint)
    }
}
