//! Moves a body to another endpoint when the one that delivers it stops or is too slow. Both
//! responses are read; the other takes over as soon as it is further into the body. Used for whole
//! bodies and for slices. Does not depend on keys or on storage.

mod challenger;
mod losers;
mod pace;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::sleep;

pub(super) use pace::{BodyRate, ExpectedBody};

use self::challenger::{Challenger, ChallengerRequest, RaceLost, finish};
use self::losers::{BodyMovement, Losers, Loss};
use super::Shield;
use seawall_policy::{EndpointAvoidance, EndpointSet};
use seawall_upstream::{
    BudgetUse, Failure, Origin, UpstreamBody, UpstreamRequest, UpstreamResponse,
};

/// After this time without a byte, another endpoint is requested.
pub(super) const SILENCE: Duration = Duration::from_millis(700);
/// The same for a body that may still be produced: chunks can be a second apart.
const PAUSE: Duration = Duration::from_millis(1500);
/// Delay before the next attempt when the retry budget refuses, or no other endpoint is available.
const REFUSED_FOR: Duration = Duration::from_millis(250);
/// A body that no other endpoint can continue is cut after this further time, also one that stays
/// too slow: players request it again, and another endpoint answers.
const CUT_AFTER: Duration = Duration::from_millis(1300);
/// Interval of requests to other endpoints, after none answered or none was left, and of checks
/// whether the origin has the complete body.
const CHALLENGE_INTERVAL: Duration = Duration::from_secs(1);
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

/// How another endpoint's response fits the body that is being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseFit {
    /// It is the rest of the body, or the whole body while readers have nothing.
    Same,
    /// That endpoint has a different object under this URL; a new request would get that object.
    Another,
    /// It is neither.
    Nothing,
}

/// What a race needs to know about a body.
pub(super) trait TakeoverBody {
    fn shield(&self) -> &Arc<Shield>;
    fn origin_index(&self) -> usize;
    /// Request headers for the part after `received` bytes. `None`: no other endpoint can continue
    /// the body.
    fn rest(&self, received: u64) -> Option<HeaderMap>;
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
    /// Endpoints that were left a moment ago for this object: a new request would do no better
    /// there.
    fn failed_before(&self) -> EndpointSet;
    /// Called when the endpoint has stopped although the origin has the complete body.
    fn record_stopped(&self, _endpoint: usize) {}

    fn origin(&self) -> &Origin {
        &self.shield().origins[self.origin_index()]
    }
}

/// The endpoints of one body: which one delivers it, at what rate, and which ones may take over.
pub(super) struct Race {
    endpoint: usize,
    /// Other endpoints may be requested at all.
    may_move: bool,
    /// Endpoints from which another one has taken over.
    failed_endpoints: EndpointAvoidance,
    /// Endpoints already left when the body began; they do no better until the body ends.
    failed_before: Option<EndpointSet>,
    /// Endpoints that were requested without success.
    losers: Losers,
    /// The current endpoint's body broke off.
    is_broken: bool,
    pace: BodyRate,
    late_since: Option<Instant>,
    challenger: Option<Challenger>,
    /// When another endpoint was last requested.
    requested: Option<Instant>,
    /// When the race last checked whether the origin has the complete body.
    completeness_checked_at: Instant,
}

impl Race {
    /// `former`: endpoints from which another one has already taken over.
    pub(super) fn new(
        endpoint: usize,
        failed_endpoints: EndpointAvoidance,
        may_move: bool,
        expected: ExpectedBody,
    ) -> Race {
        let now = Instant::now();
        Race {
            endpoint,
            may_move,
            failed_endpoints,
            failed_before: None,
            losers: Losers::default(),
            is_broken: false,
            pace: BodyRate::new(expected, now),
            late_since: None,
            challenger: None,
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

    pub(super) fn may_move(&self) -> bool {
        self.may_move
    }

    pub(super) fn received(&self) -> u64 {
        self.pace.received()
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        self.pace.age(now)
    }

    /// The body is too slow so far, and another endpoint may still replace it.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.may_move
            && self.pace.is_behind(now)
            && (self.challenger.is_some() || !self.pace.is_late(now))
    }

    /// Readers receive the body from now on: another endpoint can only continue it, and lateness is
    /// measured from now.
    pub(super) fn mark_sent_to_viewers(&mut self) {
        self.challenger = None;
        self.late_since = None;
    }

    /// Excludes time in which the reader took no bytes.
    pub(super) fn pause(&mut self, span: Duration) {
        self.pace.pause(span);
    }

    /// Another endpoint continues the body.
    pub(super) fn move_to(&mut self, endpoint: usize) {
        let now = Instant::now();
        self.failed_endpoints.avoid(self.endpoint, now + AVOIDED);
        self.endpoint = endpoint;
        self.is_broken = false;
        self.pace.restart(now);
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
        let mut abandoned = pin!(abandoned);
        let mut next = pin!(upstream_body.next());
        let patience = if self.pace.is_complete() {
            SILENCE
        } else {
            PAUSE
        };
        let mut silent = pin!(sleep(patience));
        let mut too_long = pin!(sleep(patience + CUT_AFTER));
        let (mut is_silent, mut is_cut) = (false, false);
        loop {
            tokio::select! {
                biased;
                came = &mut next => match came {
                    Some(Err(failure)) => break self.handle_break(failure, body, abandoned).await,
                    Some(Ok(bytes)) => {
                        self.record_bytes(bytes.len(), body);
                        break BodyEvent::Received(Some(Ok(bytes)));
                    }
                    None => break BodyEvent::Received(None),
                },
                () = &mut abandoned => break BodyEvent::Abandoned,
                end = finish(&mut self.challenger) => {
                    if let Some(response) = self.settle(end, body) {
                        break BodyEvent::TakenOver(response);
                    }
                    // Another attempt may succeed later.
                    if is_silent && self.challenger.is_none() {
                        is_silent = false;
                        silent.as_mut().reset(tokio::time::Instant::now() + CHALLENGE_INTERVAL);
                    }
                }
                () = &mut silent, if !is_silent => {
                    let now = tokio::time::Instant::now();
                    self.check_if_complete(body);
                    let wait = self.handle_silence(body);
                    if wait.is_none() && !is_cut {
                        is_cut = self.pace.is_complete() && self.sent_to_viewers(body) > 0;
                        too_long.as_mut().reset(now + CUT_AFTER);
                    }
                    is_silent = self.challenger.is_some() || is_cut || !self.may_move;
                    silent.as_mut().reset(now + wait.unwrap_or(CHALLENGE_INTERVAL));
                }
                () = &mut too_long, if is_cut => {
                    break BodyEvent::Received(Some(Err(Failure::Truncated)));
                }
            }
        }
    }

    /// No byte has come for `patience`. Returns the time until the next attempt when no other
    /// endpoint may be requested now.
    fn handle_silence(&mut self, body: &impl TakeoverBody) -> Option<Duration> {
        let stands = self.may_move && self.has_other_endpoint(body);
        if stands && self.pace.is_complete() {
            body.record_stopped(self.endpoint);
        }
        let may = stands && self.challenge(body, true);
        (!may).then_some(REFUSED_FOR)
    }

    /// Counts received bytes. Requests another endpoint when the rate is too low; drops the
    /// challenger when it is not.
    fn record_bytes(&mut self, bytes: usize, body: &impl TakeoverBody) {
        let now = Instant::now();
        self.pace.add(bytes, now);
        if now >= self.completeness_checked_at + CHALLENGE_INTERVAL {
            self.check_if_complete(body);
        }
        if let Some(challenger) = &self.challenger {
            challenger.report(self.pace.received());
        }
        let is_late = self.pace.is_late(now);
        self.late_since = is_late.then(|| self.late_since.unwrap_or(now));
        if is_late {
            self.challenge(body, false);
        } else if self.challenger.take().is_some_and(|one| one.has_stopped) {
            body.origin().record_takeover(false);
        }
    }

    /// A body that was sent while it was produced is judged from the moment the origin has all of
    /// it.
    fn check_if_complete(&mut self, body: &impl TakeoverBody) {
        let now = Instant::now();
        self.completeness_checked_at = now;
        if self.may_move && !self.pace.is_complete() && body.is_complete() {
            self.pace.complete(now);
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
        self.losers.forget_overdue(Instant::now());
        self.is_broken = true;
        if !self.may_move || !self.has_other_endpoint(body) {
            return broken;
        }
        body.record_stopped(self.endpoint);
        self.challenge(body, true);
        while self.challenger.is_some() {
            tokio::select! {
                end = finish(&mut self.challenger) => {
                    if let Some(response) = self.settle(end, body) {
                        return BodyEvent::TakenOver(response);
                    }
                }
                () = &mut abandoned => return BodyEvent::Abandoned,
            }
        }
        broken
    }

    /// Handles the challenger's end: it has taken over, or the next endpoint is requested.
    fn settle(
        &mut self,
        end: Result<UpstreamResponse, RaceLost>,
        body: &impl TakeoverBody,
    ) -> Option<UpstreamResponse> {
        let challenger = self.challenger.take();
        let has_stopped = challenger.is_some_and(|one| one.has_stopped);
        match end {
            Ok(response) => {
                body.origin().record_takeover(true);
                Some(response)
            }
            Err(lost) => {
                if has_stopped {
                    body.origin().record_takeover(false);
                }
                if let RaceLost::By(endpoint, fit) = lost {
                    let now = Instant::now();
                    let loss = match fit {
                        ResponseFit::Another => Loss::Different,
                        ResponseFit::Same
                            if self.progress(has_stopped, now) == BodyMovement::Moves =>
                        {
                            Loss::Slower
                        }
                        ResponseFit::Same | ResponseFit::Nothing => Loss::Useless,
                    };
                    self.losers.add(endpoint, loss, now);
                    self.requested = None;
                    self.challenge(body, has_stopped);
                }
                None
            }
        }
    }

    /// Requests another endpoint, if one is available and can continue the body. Returns false when
    /// the retry budget refuses: further attempts would only add load.
    fn challenge(&mut self, body: &impl TakeoverBody, has_stopped: bool) -> bool {
        let now = Instant::now();
        let excluded = self.excluded(has_stopped, now);
        let is_busy = self.challenger.is_some();
        if is_busy || !self.may_move || !body.origin().has_another_in_good_standing(excluded) {
            return true;
        }
        let lately = |requested: Instant| now < requested + CHALLENGE_INTERVAL;
        if !has_stopped && self.requested.is_some_and(lately) {
            return true;
        }
        let received = self.received();
        let Some(headers) = body.rest(received) else {
            return true;
        };
        self.requested = Some(now);
        let Some(leave) = body.origin().take_over(self.endpoint, has_stopped) else {
            return false;
        };
        let upstream_request = UpstreamRequest {
            budget: BudgetUse::Paid,
            excluded,
            ..body.upstream_request(headers)
        };
        let request = ChallengerRequest {
            shield: Arc::clone(body.shield()),
            origin_index: body.origin_index(),
            upstream_request,
            match_response: body.response_matcher(received),
        };
        let sent_to_viewers = body.is_sent_to_viewers().then_some(received);
        let challenger =
            Challenger::start(request, sent_to_viewers, received, (has_stopped, leave));
        self.challenger = Some(challenger);
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
        if !is_long || !body.is_sent_to_viewers() || !self.may_move || self.challenger.is_some() {
            return false;
        }
        let progress = self.progress(false, now);
        if progress == BodyMovement::Moves && body.rest(self.received()).is_some() {
            return false;
        }
        let failed_before = self.failed_before.unwrap_or_default();
        let had_turns = self
            .failed_endpoints
            .ever()
            .and(failed_before)
            .and(body.failed_before());
        let losers = self.losers.no_better(progress);
        let no_better = had_turns.and(losers).with(self.endpoint);
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

    fn progress(&self, has_stopped: bool, now: Instant) -> BodyMovement {
        if self.is_broken {
            BodyMovement::Broken
        } else if has_stopped || self.pace.is_dribble(now) {
            BodyMovement::Stalled
        } else {
            BodyMovement::Moves
        }
    }

    /// Endpoints that a challenge must not use.
    fn excluded(&self, has_stopped: bool, now: Instant) -> EndpointSet {
        let progress = self.progress(has_stopped, now);
        let losers = self.losers.left_out(progress, true, now);
        self.excluded_endpoints(now).and(losers)
    }

    /// An endpoint is available that may do better, even with a different object, now that this one
    /// has stopped.
    fn has_other_endpoint(&self, body: &impl TakeoverBody) -> bool {
        let now = Instant::now();
        let progress = self.progress(true, now);
        let losers = self.losers.left_out(progress, false, now);
        body.origin()
            .has_another_in_good_standing(self.excluded_endpoints(now).and(losers))
    }

    /// The current endpoint and those left within [`AVOIDED`].
    fn excluded_endpoints(&self, now: Instant) -> EndpointSet {
        self.failed_endpoints.at(now).with(self.endpoint)
    }
}
