//! How is an origin asked? A permit, then one endpoint after another until one answers as it should.
//!
//! An endpoint that could not even be connected to costs nothing but the time: the next is asked at once. Any
//! further attempt is a retry, for requests that may be sent twice and as long as the budget lasts. The same
//! endpoint is asked again only after quick failures, where nothing is served instead: whoever
//! waited for a timeout does not wait for another.

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
use crate::policy::EndpointSet;

/// A request with a body has the deadlines of its steps, and those that the edge sets its sender. It may take
/// as long as it moves: so long at most, in all.
const UPLOAD_MAX: Duration = Duration::from_hours(24);

/// What asking takes.
pub(super) struct OriginGroup {
    pub(super) gate: ConcurrencyLimiter,
    /// Where requests are that the origin holds back: they cost it nothing while they wait, and keep
    /// nobody else waiting.
    pub(super) waiting_room: ConcurrencyLimiter,
    /// Where requests are whose viewers are slow: those cost it nothing either.
    pub(super) slow_viewers: Arc<SlowViewers>,
    pub(super) dial: Arc<EndpointConnector>,
    pub(super) sites: Vec<Arc<EndpointState>>,
    pub(super) checkups: Option<HealthChecks>,
    pub(super) balance: Balance,
    pub(super) wheel: Mutex<WeightedRotation>,
    pub(super) retry: Retry,
    pub(super) budget: Mutex<RetryBudget>,
    /// The last request that failed over to another endpoint was answered well there.
    pub(super) fail_over_helps: AtomicBool,
    pub(super) takeovers: Takeovers,
    pub(super) review: OutlierDetection,
    pub(super) additions: GroupHeaders,
    pub(super) signer: Arc<Signer>,
    pub(super) deadlines: Deadlines,
    /// Bounds how often it is logged that this host has no sockets left.
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
        // Who would be refused after all neither waits nor uses up the rate.
        let subject = request::subject(&errand.path_and_query, errand.host.as_ref());
        if self.sites.iter().all(|site| site.refuses(subject, now())) {
            return Err(Failure::Open);
        }
        // Who waits for credentials keeps nobody else waiting.
        let ready = self.signer.ready(queue_until).await;
        ready.inspect_err(|&failure| self.sites[0].ledger.missed(failure))?;
        let patience = queue_until.saturating_duration_since(Instant::now());
        let permit = self.enter(&mut errand, patience).await?;
        let hold = LimitHolder::new(&self.slow_viewers, permit);
        let answer = self.ask(errand, &hold, queue_until, until).await?;
        Ok(self.begun(answer, hold, asked))
    }

    /// The answer's head is there: its body follows, under what the request holds.
    fn begun(
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
            line,
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
            outdone,
        }
    }

    /// Waits for a permit. Whoever becomes more urgent meanwhile waits further ahead in the queue.
    async fn enter(
        &self,
        errand: &mut UpstreamRequest,
        patience: Duration,
    ) -> Result<Permit, Failure> {
        let until = Instant::now() + patience;
        let held_back = errand.held_back;
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
            self.enter_waiting_room(rank, patience).await
        } else {
            self.gate.enter(rank, patience).await
        }
    }

    /// Leave to wait at the origin. Where requests have a pace this is one of them.
    async fn enter_waiting_room(
        &self,
        rank: Priority,
        patience: Duration,
    ) -> Result<Permit, Failure> {
        let until = Instant::now() + patience;
        let permit = self.waiting_room.enter(rank, patience).await?;
        let left = until.saturating_duration_since(Instant::now());
        self.gate.turn(rank, left).await?;
        Ok(permit)
    }

    async fn ask(
        self: &Arc<Self>,
        errand: UpstreamRequest,
        hold: &Arc<LimitHolder>,
        queue_until: Instant,
        until: Instant,
    ) -> Result<AttemptResponse, Failure> {
        let covered = errand.covered;
        let (request, mut body, mut tour) = self.prepare(errand, hold, queue_until, until)?;
        // The latest answer: as good as none, but for when there will be no other.
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
                NextStep::Retry(reach) => tour.reach = reach,
            }
            let pause = self.pause(&tour, retries, wait);
            // Somebody waits, and another endpoint is well: one that fails must not cost viewers errors
            // once the budget is spent. A group that fails as a whole is asked again by the budget alone.
            // A manifest that is not renewed freezes its viewers, whatever is served meanwhile.
            let is_urgent = !covered || tour.question.is_of_manifest();
            let fails_over =
                is_urgent && tour.turns < tour.good && self.fail_over_helps.load(Ordering::Relaxed);
            if !self.wait_to_retry(pause, fails_over).await {
                break;
            }
            site.ledger.retried();
            retries += 1;
        }
        // What answers another question is believed only where nobody else could be asked.
        let is_void = |answer: &AttemptResponse| tour.worth(answer) == ResponseValue::Nothing;
        if poor.as_ref().is_some_and(is_void) && self.another_stands(&tour) {
            return Err(Failure::Protocol);
        }
        poor.ok_or(tour.failure)
    }

    /// The request as it is sent, its body, and whom to ask.
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
        let (overdue, budget) = (errand.overdue, errand.budget);
        let seal = self.signer.seal();
        // Nobody was asked; it is told where it would have been.
        let seal = seal.inspect_err(|&failure| self.sites[0].ledger.missed(failure))?;
        let (request, body) = AttemptRequest::of(errand, seal)
            .inspect_err(|&failure| self.sites[0].ledger.missed(failure))?;
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

    /// Takes leave for a retry, and waits until it may be made; false where it may not.
    async fn wait_to_retry(&self, pause: Option<Duration>, fails_over: bool) -> bool {
        let Some(pause) = pause.filter(|_| self.may_retry(fails_over)) else {
            return false;
        };
        if !pause.is_zero() {
            sleep(pause).await;
        }
        true
    }

    /// How long to wait before a retry: not at all where another endpoint has room for it. `None`:
    /// nobody has, or nobody who wants to be asked again so soon.
    fn pause(
        &self,
        tour: &EndpointSelection,
        retries: u32,
        wait: Option<Duration>,
    ) -> Option<Duration> {
        if self.has_room(tour, tour.unasked()) {
            return Some(Duration::ZERO);
        }
        let again = tour.reach == CandidateSet::All && self.has_room(tour, tour.asked());
        let backoff = &self.retry.backoff;
        again.then(|| backoff.wait(retries, fastrand::f64(), wait))?
    }

    /// Takes leave for a retry, and a turn: in the origin's eyes it is one more request.
    fn may_retry(&self, fails_over: bool) -> bool {
        let mut budget = self.budget.lock();
        let affords = fails_over || budget.affords(now());
        affords && self.gate.try_turn() && (budget.try_spend(now()) || fails_over)
    }

    /// Takes leave to ask another endpoint for a body that one has begun.
    pub(super) fn take_over(&self, from: usize, failed: bool) -> Option<Takeover> {
        let spend = || self.budget.lock().try_spend(now());
        let takeover = self.takeovers.begin(failed, spend);
        self.sites[from].ledger.left(takeover.is_some());
        takeover
    }

    fn has_room(&self, tour: &EndpointSelection, places: &[usize]) -> bool {
        let now = now();
        let mut sites = places.iter().map(|place| &self.sites[*place]);
        sites.any(|site| !site.refuses(tour.subject, now) && site.has_slot(tour.class))
    }

    /// Until when there must be a connection to the endpoint whose turn it is, and until when
    /// everything.
    pub(super) fn limits(&self, tour: &EndpointSelection) -> (Instant, Instant) {
        let connect_until = share(Instant::now() + self.deadlines.connect, self.left(tour) + 1);
        (connect_until.min(tour.until), tour.until)
    }

    /// How many endpoints have not been asked yet and may be.
    pub(super) fn left(&self, tour: &EndpointSelection) -> usize {
        let unasked = &tour.order[tour.turns..];
        let open = |place: &&usize| !self.sites[**place].refuses(tour.subject, now());
        unasked.iter().filter(open).count()
    }

    /// Nothing speaks against asking this endpoint first.
    pub(super) fn stands(&self, site: &EndpointState, now: std::time::Instant) -> bool {
        site.in_good_standing(now) && self.dial.reachable(site.place)
    }

    /// Whom to ask, in which order: none of those that are excluded. An endpoint that wants a probe gets one behind the request, unless
    /// nobody else can answer it. Also, how many are in good standing.
    fn order(
        self: &Arc<Self>,
        request: &AttemptRequest,
        avoided: EndpointSet,
        excluded: EndpointSet,
    ) -> (Vec<usize>, usize) {
        let now = now();
        self.dial.look_for_lost();
        let stands = |site: &EndpointState| self.stands(site, now);
        self.review.hold(&self.sites, now, stands);
        let standings = self.standings(avoided.and(excluded), now);
        for site in &self.sites {
            site.enrol(stands(site));
        }
        let is_asked = |place: &usize| !excluded.contains(*place);
        let good = (0..standings.len()).filter(|place| standings[*place].good);
        let good = good.filter(is_asked).count();
        if good > 0 {
            let due = self.sites.iter().filter(|site| site.wants_probe(now));
            due.for_each(|site| self.probe(site, request));
        }
        let seed = request.seed();
        let mut order = order(&standings, self.balance, seed, &mut self.wheel.lock());
        order.retain(is_asked);
        (order, good)
    }

    fn standings(&self, avoided: EndpointSet, now: std::time::Instant) -> Vec<EndpointCondition> {
        let is_left =
            |site: &Arc<EndpointState>| self.stands(site, now) && !avoided.contains(site.place);
        // Where all are to be avoided, none is.
        let any_left = self.sites.iter().any(is_left);
        let standing = |site: &Arc<EndpointState>| EndpointCondition {
            priority: site.priority,
            weight: site.weight,
            in_flight: site.ledger.in_flight(),
            good: self.stands(site, now) && (!any_left || !avoided.contains(site.place)),
        };
        self.sites.iter().map(standing).collect()
    }

    /// Who would be asked first, were a request with this seed sent now. `None`: nobody may be.
    pub(super) fn would_ask(
        &self,
        (seed, subject): (u64, FailureSubject),
        avoided: EndpointSet,
    ) -> Option<&Arc<EndpointState>> {
        let now = now();
        let standings = self.standings(avoided, now);
        // Nobody's turn is used up.
        let mut wheel = self.wheel.lock().clone();
        let order = order(&standings, self.balance, seed, &mut wheel);
        let mut sites = order.into_iter().map(|place| &self.sites[place]);
        sites.find(|site| !site.refuses(subject, now))
    }

    /// Tries an endpoint with what is being asked for, without its body. Nobody waits for the answer.
    fn probe(self: &Arc<Self>, site: &Arc<EndpointState>, request: &AttemptRequest) {
        let permit = site.has_slot(request.class).then(|| self.gate.try_enter());
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

/// The guards' clock.
pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}
