//! Sends a request to a group: acquires a permit, then tries endpoints until one gives a usable
//! response.
//!
//! A failed connection is not a retry: the next endpoint is tried at once. Any further attempt is a
//! retry, for requests that may be sent twice and within the retry budget. The same endpoint is
//! retried only after a quick failure and if no other response can be served: a timeout is not
//! repeated there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::attempt::AttemptResponse;
use super::attempt_guard::AttemptGuard;
use super::body::{BodyState, UpstreamBody};
use super::check::HealthChecks;
use super::choose::{EndpointCondition, WeightedRotation, order};
use super::connector::EndpointConnector;
use super::endpoint::EndpointState;
use super::guard::FailureSubject;
use super::guard::budget::RetryBudget;
use super::guard::sparing::LogThrottle;
use super::head::ResponseHead;
use super::limit::{ConcurrencyLimiter, Permit};
use super::next_step::{AttemptVerdict, NextStep, RemainingOptions, step};
use super::outliers::OutlierDetection;
use super::request::{self, AttemptRequest, GroupHeaders};
use super::resolve::share;
use super::response_value::{ResponseExpectation, ResponseValue};
use super::selection::{CandidateSet, EndpointSelection};
use super::sign::Signer;
use super::slow_viewers::{LimitHolder, SlowViewers};
use super::takeover::{Takeover, Takeovers};
use super::upload::{UpstreamUpload, read_ahead};
use super::{
    Balance, BudgetUse, Deadlines, Failure, Priority, Retry, UpstreamRequest, UpstreamResponse,
};
use seawall_policy::EndpointSet;

/// Total deadline of a request with a body: each step has its own deadline, and `frontend` limits
/// the sender, so a slow upload that progresses may continue.
const UPLOAD_MAX: Duration = Duration::from_hours(24);

/// The state of one origin group.
pub(super) struct OriginGroup {
    pub(super) limiter: ConcurrencyLimiter,
    /// Limiter for requests that the origin blocks (LL-HLS): they cost the origin nothing while
    /// they wait, and must not delay others.
    pub(super) blocking_limiter: ConcurrencyLimiter,
    /// Limits requests whose viewers are slow: they cost the origin nothing either.
    pub(super) slow_viewers: Arc<SlowViewers>,
    pub(super) connector: Arc<EndpointConnector>,
    pub(super) endpoints: Vec<Arc<EndpointState>>,
    pub(super) health_checks: Option<HealthChecks>,
    pub(super) balance: Balance,
    pub(super) rotation: Mutex<WeightedRotation>,
    pub(super) retry: Retry,
    pub(super) budget: Mutex<RetryBudget>,
    /// The last request that failed over to another endpoint succeeded there.
    pub(super) fail_over_helps: AtomicBool,
    pub(super) takeovers: Takeovers,
    pub(super) outlier_detection: OutlierDetection,
    pub(super) additions: GroupHeaders,
    pub(super) signer: Arc<Signer>,
    pub(super) deadlines: Deadlines,
    /// Throttles the log message about missing sockets.
    pub(super) shortage_lines: Mutex<LogThrottle>,
}

impl OriginGroup {
    pub(super) async fn fetch(
        self: &Arc<Self>,
        mut errand: UpstreamRequest,
    ) -> Result<UpstreamResponse, Failure> {
        if let Some(body) = errand.body.take() {
            errand.body = Some(read_ahead(body).await?);
        }
        let asked = Instant::now();
        let total = match errand.body {
            Some(_) => UPLOAD_MAX,
            None => self.deadlines.total,
        };
        let until = asked + total;
        let queue_until = asked + self.deadlines.queue.min(self.deadlines.total);
        // A request that every breaker would refuse must not wait or use up the rate limit.
        let subject = request::subject(&errand.path_and_query, errand.host.as_ref());
        if self
            .endpoints
            .iter()
            .all(|site| site.refuses(subject, now()))
        {
            return Err(Failure::Open);
        }
        // Wait for credentials before taking a permit: others can proceed.
        let ready = self.signer.ready(queue_until).await;
        ready.inspect_err(|&failure| self.endpoints[0].counters.missed(failure))?;
        let patience = queue_until.saturating_duration_since(Instant::now());
        let permit = self.enter(&mut errand, patience).await?;
        let hold = LimitHolder::new(&self.slow_viewers, permit);
        let answer = self.run_attempts(errand, &hold, queue_until, until).await?;
        Ok(self.build_response(answer, hold, asked))
    }

    /// Builds the response: its body follows and holds the permits.
    fn build_response(
        &self,
        answer: AttemptResponse,
        hold: Arc<LimitHolder>,
        asked: Instant,
    ) -> UpstreamResponse {
        let AttemptResponse {
            line,
            head,
            mut entry,
            outdone,
        } = answer;
        if let permit @ Some(_) = entry.endpoint_permit() {
            hold.adopt(permit);
        }
        let idle = head.idle();
        let endpoint = entry.site().place;
        let ResponseHead {
            status,
            headers,
            framing,
        } = head;
        let body = UpstreamBody::new(BodyState {
            connection: line,
            hold,
            entry,
            status,
            framing,
            idle,
            patience: self.deadlines.between_bytes,
            slack: self.deadlines.total,
            waited: Duration::ZERO,
            received: 0,
        });
        UpstreamResponse {
            status,
            headers,
            framing,
            body,
            waited: asked.elapsed(),
            endpoint,
            lacking_endpoint: outdone,
        }
    }

    /// Waits for a permit. A request whose priority rises moves forward in the queue.
    async fn enter(
        &self,
        errand: &mut UpstreamRequest,
        patience: Duration,
    ) -> Result<Permit, Failure> {
        let until = Instant::now() + patience;
        let held_back = errand.is_blocking;
        if let Some(upgrade) = &mut errand.upgrade {
            tokio::select! {
                biased;
                permit = self.permit(held_back, errand.rank, patience) => return permit,
                () = &mut upgrade.when => errand.rank = upgrade.rank,
            }
            errand.upgrade = None;
        }
        let left = until.saturating_duration_since(Instant::now());
        self.permit(held_back, errand.rank, left).await
    }

    async fn permit(
        &self,
        held_back: bool,
        rank: Priority,
        patience: Duration,
    ) -> Result<Permit, Failure> {
        if held_back {
            self.acquire_blocking_permit(rank, patience).await
        } else {
            self.limiter.enter(rank, patience).await
        }
    }

    /// Waits for a permit for a blocking request. It also needs a token of the rate limit.
    async fn acquire_blocking_permit(
        &self,
        rank: Priority,
        patience: Duration,
    ) -> Result<Permit, Failure> {
        let until = Instant::now() + patience;
        let permit = self.blocking_limiter.enter(rank, patience).await?;
        let left = until.saturating_duration_since(Instant::now());
        self.limiter.turn(rank, left).await?;
        Ok(permit)
    }

    async fn run_attempts(
        self: &Arc<Self>,
        errand: UpstreamRequest,
        hold: &Arc<LimitHolder>,
        queue_until: Instant,
        until: Instant,
    ) -> Result<AttemptResponse, Failure> {
        let covered = errand.has_fallback;
        let (request, mut body, mut tour) = self.prepare(errand, hold, queue_until, until)?;
        // The best response so far; it is returned only if no better one arrives.
        let (mut retries, mut poor) = (0, None);
        while let Some(entry) = self.next(&mut tour).await {
            let site = Arc::clone(entry.site());
            let asked = now();
            let outcome = self.race(entry, &request, &mut body, &mut tour).await;
            let left = self.left(&tour);
            let (tried, wait) = self.weigh(outcome, (&site, asked), &mut tour, &mut poor);
            if retries > 0 {
                let failed =
                    |answer: &AttemptResponse| tour.worth(answer) == ResponseValue::Failure;
                let helped =
                    matches!(tried, AttemptVerdict::Good) && !poor.as_ref().is_some_and(failed);
                self.fail_over_helps.store(helped, Ordering::Relaxed);
            }
            let again = request.repeatable() && retries < self.retry.attempts_max;
            let chances = RemainingOptions {
                left,
                covered,
                again,
            };
            match step(tried, chances) {
                NextStep::End => break,
                NextStep::Next => continue,
                NextStep::Retry(reach) => tour.candidates = reach,
            }
            let pause = self.pause(&tour, retries, wait);
            // A viewer waits and another endpoint is in good standing: a failing endpoint must not
            // cause viewer errors because the budget is spent. A group that fails as a whole is
            // retried within the budget only. A manifest that is not renewed freezes its viewers,
            // whatever is served meanwhile.
            let is_urgent = !covered || tour.question.is_of_manifest();
            let fails_over =
                is_urgent && tour.tried < tour.good && self.fail_over_helps.load(Ordering::Relaxed);
            if !self.wait_to_retry(pause, fails_over).await {
                break;
            }
            site.counters.retried();
            retries += 1;
        }
        // A response to a different question is returned only if no other endpoint can be asked.
        let is_void = |answer: &AttemptResponse| tour.worth(answer) == ResponseValue::Nothing;
        if poor.as_ref().is_some_and(is_void) && self.another_stands(&tour) {
            return Err(Failure::Protocol);
        }
        poor.ok_or(tour.failure)
    }

    /// Prepares the request head, its body, and the order of endpoints.
    fn prepare(
        self: &Arc<Self>,
        mut errand: UpstreamRequest,
        hold: &Arc<LimitHolder>,
        queue_until: Instant,
        until: Instant,
    ) -> Result<(AttemptRequest, Option<UpstreamUpload>, EndpointSelection), Failure> {
        let (question, rank) = (ResponseExpectation::of(&errand), errand.rank);
        let upgrade = errand.upgrade.take();
        let (avoided, excluded) = (errand.avoided, errand.excluded);
        let (overdue, budget) = (errand.late_after, errand.budget);
        let seal = self.signer.seal();
        // No endpoint was contacted; the failure is counted for the first one.
        let seal = seal.inspect_err(|&failure| self.endpoints[0].counters.missed(failure))?;
        let (request, body) = AttemptRequest::of(errand, seal)
            .inspect_err(|&failure| self.endpoints[0].counters.missed(failure))?;
        let body = body.map(|body| UpstreamUpload::of(body, hold));
        if budget == BudgetUse::Earns {
            self.budget.lock().request(now());
        }
        let order = self.order(&request, avoided, excluded);
        let tour = EndpointSelection {
            hedged: self.retry.hedges(rank, upgrade.as_ref(), &request),
            upgrade,
            class: request.class,
            held_back: request.held_back,
            overdue: overdue.filter(|_| request.repeatable()),
            ..EndpointSelection::new(
                order,
                (rank, request.subject()),
                question,
                queue_until,
                until,
            )
        };
        Ok((request, body, tour))
    }

    /// Acquires a retry and waits for the backoff; false if no retry is allowed.
    async fn wait_to_retry(&self, pause: Option<Duration>, fails_over: bool) -> bool {
        let Some(pause) = pause.filter(|_| self.acquire_retry(fails_over)) else {
            return false;
        };
        if !pause.is_zero() {
            sleep(pause).await;
        }
        true
    }

    /// Wait before a retry: zero if an endpoint not tried yet has room. `None`: no endpoint has
    /// room, or the one to retry asked for a longer pause.
    fn pause(
        &self,
        tour: &EndpointSelection,
        retries: u32,
        wait: Option<Duration>,
    ) -> Option<Duration> {
        if self.has_room(tour, tour.unasked()) {
            return Some(Duration::ZERO);
        }
        let again = tour.candidates == CandidateSet::All && self.has_room(tour, tour.asked());
        let backoff = &self.retry.backoff;
        again.then(|| backoff.wait(retries, fastrand::f64(), wait))?
    }

    /// Acquires a retry from the budget and a token of the rate limit: for the origin, a retry is
    /// one more request.
    fn acquire_retry(&self, fails_over: bool) -> bool {
        let mut budget = self.budget.lock();
        let affords = fails_over || budget.affords(now());
        affords && self.limiter.try_turn() && (budget.try_spend(now()) || fails_over)
    }

    /// Permits and counts a takeover; see [`super::Origin::take_over`].
    pub(super) fn take_over(&self, from: usize, failed: bool) -> Option<Takeover> {
        let spend = || self.budget.lock().try_spend(now());
        let takeover = self.takeovers.begin(failed, spend);
        self.endpoints[from].counters.left(takeover.is_some());
        takeover
    }

    fn has_room(&self, tour: &EndpointSelection, places: &[usize]) -> bool {
        let now = now();
        let mut sites = places.iter().map(|place| &self.endpoints[*place]);
        sites.any(|site| !site.refuses(tour.subject, now) && site.has_slot(tour.class))
    }

    /// Deadlines of the next attempt: for its connection, and for everything.
    pub(super) fn limits(&self, tour: &EndpointSelection) -> (Instant, Instant) {
        let connect_until = share(Instant::now() + self.deadlines.connect, self.left(tour) + 1);
        (connect_until.min(tour.until), tour.until)
    }

    /// Number of endpoints not tried yet whose breaker accepts the request.
    pub(super) fn left(&self, tour: &EndpointSelection) -> usize {
        let unasked = &tour.order[tour.tried..];
        let open = |place: &&usize| !self.endpoints[**place].refuses(tour.subject, now());
        unasked.iter().filter(open).count()
    }

    /// The endpoint is in good standing and reachable.
    pub(super) fn is_in_good_standing(
        &self,
        site: &EndpointState,
        now: std::time::Instant,
    ) -> bool {
        site.in_good_standing(now) && self.connector.reachable(site.place)
    }

    /// The order of endpoints without the excluded ones, and how many are in good standing. An
    /// endpoint that is due for a probe gets one in the background, unless no other can answer the
    /// request.
    fn order(
        self: &Arc<Self>,
        request: &AttemptRequest,
        avoided: EndpointSet,
        excluded: EndpointSet,
    ) -> (Vec<usize>, usize) {
        let now = now();
        self.connector.retry_unreachable();
        let stands = |site: &EndpointState| self.is_in_good_standing(site, now);
        self.outlier_detection.hold(&self.endpoints, now, stands);
        let standings = self.standings(avoided.and(excluded), now);
        for site in &self.endpoints {
            site.set_in_good_standing(stands(site));
        }
        let is_asked = |place: &usize| !excluded.contains(*place);
        let good = (0..standings.len()).filter(|place| standings[*place].good);
        let good = good.filter(is_asked).count();
        if good > 0 {
            let due = self.endpoints.iter().filter(|site| site.claim_probe(now));
            due.for_each(|site| self.probe(site, request));
        }
        let seed = request.seed();
        let mut order = order(&standings, self.balance, seed, &mut self.rotation.lock());
        order.retain(is_asked);
        (order, good)
    }

    fn standings(&self, avoided: EndpointSet, now: std::time::Instant) -> Vec<EndpointCondition> {
        let is_left = |site: &Arc<EndpointState>| {
            self.is_in_good_standing(site, now) && !avoided.contains(site.place)
        };
        // If all endpoints are avoided, the list has no effect.
        let any_left = self.endpoints.iter().any(is_left);
        let standing = |site: &Arc<EndpointState>| EndpointCondition {
            priority: site.priority,
            weight: site.weight,
            in_flight: site.counters.in_flight(),
            good: self.is_in_good_standing(site, now)
                && (!any_left || !avoided.contains(site.place)),
        };
        self.endpoints.iter().map(standing).collect()
    }

    /// The endpoint that would be tried first for this seed; `None`: no endpoint accepts it.
    pub(super) fn would_ask(
        &self,
        (seed, subject): (u64, FailureSubject),
        avoided: EndpointSet,
    ) -> Option<&Arc<EndpointState>> {
        let now = now();
        let standings = self.standings(avoided, now);
        // Work on a copy, so that the rotation does not advance.
        let mut wheel = self.rotation.lock().clone();
        let order = order(&standings, self.balance, seed, &mut wheel);
        let mut sites = order.into_iter().map(|place| &self.endpoints[place]);
        sites.find(|site| !site.refuses(subject, now))
    }

    /// Probes an endpoint with a HEAD of this request, in the background.
    fn probe(self: &Arc<Self>, site: &Arc<EndpointState>, request: &AttemptRequest) {
        let permit = site
            .has_slot(request.class)
            .then(|| self.limiter.try_enter());
        let slot = permit
            .flatten()
            .and_then(|permit| Some(site.slot(request.class)?.with(permit)));
        let Some(entry) =
            slot.and_then(|slot| AttemptGuard::open(site, slot, request.subject(), now()))
        else {
            return;
        };
        let (desk, request) = (Arc::clone(self), request.head_only());
        tokio::spawn(async move {
            let start = Instant::now();
            let connect_until = start + desk.deadlines.connect;
            let until = connect_until + request.patience(&desk.deadlines);
            if let Ok(answer) = desk
                .attempt(entry, &request, &mut None, (connect_until, until))
                .await
            {
                answer.dismiss();
            }
        });
    }
}

/// Current time for the guards; follows tokio's paused clock in tests.
pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}
