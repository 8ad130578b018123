//! Hedged requests: when an endpoint takes longer than usual and a viewer waits, the next endpoint
//! is asked too; the first good response wins and the others are cancelled. Being overtaken counts
//! as one failure of an endpoint. A blocking request is hedged after the time its caller sets,
//! without using the retry budget.
//!
//! All attempts run in the caller's task: dropping its future cancels them all.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep_until, timeout};

use super::attempt::{AttemptError, AttemptResponse};
use super::attempt_guard::AttemptGuard;
use super::endpoint::EndpointState;
use super::group::{OriginGroup, now};
use super::request::AttemptRequest;
use super::selection::EndpointSelection;
use super::upload::UpstreamUpload;
use super::{Priority, Retry, Upgrade};

/// Minimum wait before a manifest is hedged: below it a hedge costs more than it saves.
const PATIENCE_MIN: Duration = Duration::from_millis(20);
/// Minimum wait for larger objects, and the multiple of the usual latency that is allowed.
const MEDIA_PATIENCE_MIN: Duration = Duration::from_millis(100);
const MEDIA_FACTOR: u32 = 2;

/// For a blocking request: an endpoint that answers within this fraction of the wait already had
/// the object. Otherwise both endpoints blocked, and the first to answer proves nothing about the
/// other.
const HAD_SHARE: u32 = 4;

type RaceOutcome = Result<AttemptResponse, AttemptError>;

impl Retry {
    /// A request that a viewer waits for may be hedged. Not a blocking request: its caller sets
    /// when it is late.
    pub(super) fn hedges(
        &self,
        rank: Priority,
        later: Option<&Upgrade>,
        request: &AttemptRequest,
    ) -> bool {
        let rank = later.map_or(rank, |later| later.rank);
        let wanted = rank <= Priority::Segment && request.method == http::Method::GET;
        self.hedge && wanted && request.repeatable() && !request.blocks()
    }
}

/// One running attempt.
struct HedgedAttempt<'a> {
    site: Arc<EndpointState>,
    asked: Instant,
    /// Wait before the next hedge.
    patience: Duration,
    is_hedge: bool,
    attempt: Pin<Box<dyn Future<Output = RaceOutcome> + Send + 'a>>,
}

impl OriginGroup {
    /// Asks an endpoint, and the next one of the selection each time that all running attempts are
    /// late.
    pub(super) async fn race(
        &self,
        entry: AttemptGuard,
        request: &AttemptRequest,
        body: &mut Option<UpstreamUpload>,
        tour: &mut EndpointSelection,
    ) -> RaceOutcome {
        let site = Arc::clone(entry.site());
        let attempt = Box::pin(self.attempt(entry, request, body, self.limits(tour)));
        let Some(patience) = self.patience(&site, tour) else {
            return attempt.await;
        };
        let mut racers = vec![HedgedAttempt {
            site,
            asked: Instant::now(),
            patience,
            is_hedge: false,
            attempt,
        }];
        let mut next_at = racers.last().map(HedgedAttempt::late_at);
        let mut poor = None;
        loop {
            let (racer, outcome) = tokio::select! {
                biased;
                came = first_of(&mut racers) => came,
                entry = self.join(next_at, tour) => {
                    let hedge = entry.map(|entry| self.hedge_with(entry, request, tour));
                    next_at = hedge.as_ref().map(HedgedAttempt::late_at);
                    racers.extend(hedge);
                    continue;
                }
            };
            let is_good = self.is_good(&outcome, tour);
            let outcome = match poor.take() {
                Some(poor) => better(outcome, poor, tour),
                None => outcome,
            };
            if is_good && racer.is_hedge {
                return self.hedge_came(racer, outcome, racers, tour).await;
            }
            if is_good || racers.is_empty() {
                return outcome;
            }
            poor = Some(outcome);
        }
    }

    /// Starts an attempt at one more endpoint when the running ones are late. Never resolves if no
    /// more are allowed.
    async fn join(
        &self,
        next_at: Option<Instant>,
        tour: &mut EndpointSelection,
    ) -> Option<AttemptGuard> {
        let Some(next_at) = next_at else {
            return pending().await;
        };
        if !tour.held_back {
            tour.until_urgent().await;
        }
        sleep_until(next_at).await;
        self.second(tour).await
    }

    fn hedge_with<'a>(
        &'a self,
        entry: AttemptGuard,
        request: &'a AttemptRequest,
        tour: &EndpointSelection,
    ) -> HedgedAttempt<'a> {
        let site = Arc::clone(entry.site());
        site.counters.hedged();
        let limits = self.limits(tour);
        HedgedAttempt {
            asked: Instant::now(),
            patience: self
                .patience(&site, tour)
                .unwrap_or(self.retry.hedge_after_max),
            site,
            is_hedge: true,
            attempt: Box::pin(async move {
                let mut nothing = None;
                self.attempt(entry, request, &mut nothing, limits).await
            }),
        }
    }

    /// A hedge got a good response while other attempts are running.
    async fn hedge_came(
        &self,
        quick: HedgedAttempt<'_>,
        outcome: RaceOutcome,
        mut slow: Vec<HedgedAttempt<'_>>,
        tour: &mut EndpointSelection,
    ) -> RaceOutcome {
        if !has_content(&outcome) {
            // The hedge lacks the object: give the slower endpoint, which may have it, more time.
            let patience = slow.first().map_or(Duration::ZERO, |slow| slow.patience);
            let another = timeout(self.grace(patience), self.another(&mut slow, tour));
            return match another.await.ok().flatten() {
                Some(another) => {
                    if let Ok(answer) = outcome {
                        answer.dismiss();
                    }
                    another
                }
                None => outcome,
            };
        }
        quick.site.counters.hedge_won();
        let mut outdone = None;
        for slow in slow.iter().filter(|slow| slow.asked < quick.asked) {
            if self.overtaken(slow, &quick, tour) {
                outdone = outdone.or(Some(slow.site.place));
            }
        }
        outcome.map(|answer| AttemptResponse { outdone, ..answer })
    }

    /// The first good response among the running attempts.
    async fn another(
        &self,
        racers: &mut Vec<HedgedAttempt<'_>>,
        tour: &mut EndpointSelection,
    ) -> Option<RaceOutcome> {
        while !racers.is_empty() {
            let (_, outcome) = first_of(racers).await;
            if self.is_good(&outcome, tour) {
                return Some(outcome);
            }
        }
        None
    }

    /// Records that another endpoint was quicker; true if this endpoint is reported as lacking the
    /// object.
    fn overtaken(
        &self,
        slow: &HedgedAttempt<'_>,
        quick: &HedgedAttempt<'_>,
        tour: &EndpointSelection,
    ) -> bool {
        let (site, waited) = (&slow.site, slow.asked.elapsed());
        let had = !tour.held_back || quick.asked.elapsed() < slow.patience / HAD_SHARE;
        if had {
            site.record_overtaken(slow.asked.into_std(), tour.subject);
        }
        if !tour.held_back {
            // Its response would have taken even longer.
            site.record_latency(now(), waited);
        }
        // A short delay is not reported.
        let late = tour.held_back || waited >= self.retry.hedge_after_max;
        had && late
    }

    /// Extra wait for the first endpoint when the hedge lacks the object.
    fn grace(&self, patience: Duration) -> Duration {
        patience.max(self.retry.hedge_after_max * 2)
    }

    /// Wait before a hedge; `None`: no hedge.
    fn patience(&self, site: &EndpointState, tour: &EndpointSelection) -> Option<Duration> {
        if tour.held_back {
            return tour.overdue;
        }
        if !tour.hedged || self.endpoints.len() < 2 {
            return None;
        }
        let is_manifest = match &tour.upgrade {
            Some(upgrade) => upgrade.rank == Priority::Manifest,
            None => tour.rank == Priority::Manifest,
        };
        let (p95, typical) = site.speed(now());
        Some(patience(
            is_manifest,
            (p95, typical),
            self.retry.hedge_after_max,
        ))
    }

    async fn second(&self, tour: &mut EndpointSelection) -> Option<AttemptGuard> {
        if tour.held_back {
            self.hedge_blocking(tour).await
        } else {
            self.hedge(tour)
        }
    }

    /// Starts an attempt at the next endpoint for a blocking request that is late, under the first
    /// one's permit. It uses no retry budget: that is for failing origins, and nothing indicates a
    /// failure here.
    async fn hedge_blocking(&self, tour: &mut EndpointSelection) -> Option<AttemptGuard> {
        let site = Arc::clone(&self.endpoints[*tour.order.get(tour.tried)?]);
        let patience = tour.until.saturating_duration_since(Instant::now());
        self.limiter.turn(tour.rank, patience).await.ok()?;
        let slot = site.slot_for(tour.class, tour.held_back)?;
        tour.tried += 1;
        AttemptGuard::open(&site, slot, tour.subject, now())
    }

    /// Starts an attempt at the next endpoint, if it is in good standing, not tried yet and has
    /// room, and the budget allows it.
    fn hedge(&self, tour: &mut EndpointSelection) -> Option<AttemptGuard> {
        let site = &self.endpoints[*tour.order.get(tour.tried)?];
        let now = now();
        if !self.is_in_good_standing(site, now) {
            return None;
        }
        let mut budget = self.budget.lock();
        // Checked first: a rate token taken in vain is lost.
        if !budget.affords(now) || !site.has_slot(tour.class) {
            return None;
        }
        // It needs a permit of its own: a hedge never exceeds a limit.
        let permit = self.limiter.try_enter()?;
        let slot = site.slot(tour.class)?.with(permit);
        budget.try_spend(now);
        tour.tried += 1;
        AttemptGuard::open(site, slot, tour.subject, now)
    }

    fn is_good(&self, outcome: &RaceOutcome, tour: &EndpointSelection) -> bool {
        outcome.as_ref().is_ok_and(|answer| {
            // An endpoint that answers that the object is missing, instead of blocking, does not
            // help.
            let has = !tour.held_back || answer.head.status.is_success();
            has && self.is_good_answer(answer, tour)
        })
    }
}

/// Wait before a hedge, from the recent p95 and the typical latency. `longest`: maximum for
/// endpoints that are not always slow.
fn patience(
    is_manifest: bool,
    (p95, typical): (Option<Duration>, Option<Duration>),
    longest: Duration,
) -> Duration {
    // Responses that were overtaken count with about the maximum, so allow a margin.
    const LONGER: (u32, u32) = (5, 4);
    if let Some(typical) = typical.filter(|&typical| typical > longest * LONGER.0 / LONGER.1) {
        let usual = typical * MEDIA_FACTOR;
        return p95.map_or(usual, |p95| p95.max(usual));
    }
    let usual = p95.map(|p95| {
        if is_manifest {
            p95.max(PATIENCE_MIN)
        } else {
            (p95 * MEDIA_FACTOR).max(MEDIA_PATIENCE_MIN)
        }
    });
    usual.map_or(longest, |usual| usual.min(longest))
}

impl HedgedAttempt<'_> {
    fn late_at(&self) -> Instant {
        self.asked + self.patience
    }
}

/// Waits for the first attempt to end, and removes it. There must be one.
async fn first_of<'a>(racers: &mut Vec<HedgedAttempt<'a>>) -> (HedgedAttempt<'a>, RaceOutcome) {
    poll_fn(|context| {
        for index in 0..racers.len() {
            if let Poll::Ready(outcome) = racers[index].attempt.as_mut().poll(context) {
                return Poll::Ready((racers.remove(index), outcome));
            }
        }
        Poll::Pending
    })
    .await
}

/// The response has the object, and is not a claim that it is missing.
fn has_content(outcome: &RaceOutcome) -> bool {
    let status = outcome.as_ref().map(|answer| answer.head.status);
    status.is_ok_and(|status| status.is_success() || status == StatusCode::NOT_MODIFIED)
}

/// The better of two outcomes; a poor response is better than none.
fn better(later: RaceOutcome, earlier: RaceOutcome, tour: &EndpointSelection) -> RaceOutcome {
    match (later, earlier) {
        (Ok(later), Ok(earlier)) => Ok(tour.better(later, earlier)),
        (Ok(answer), Err(_)) | (Err(_), Ok(answer)) => Ok(answer),
        (Err(later), Err(earlier)) => Err(AttemptError {
            sent: later.sent || earlier.sent,
            resent: later.resent || earlier.resent,
            ..later
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_millis(500);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_quick_endpoint_is_late_soon_and_none_is_given_longer_than_the_longest() {
        let after = |manifest, p95: Option<u64>| {
            let typical = p95.map(|_| millis(10));
            patience(manifest, (p95.map(millis), typical), LONGEST).as_millis()
        };
        assert_eq!([after(true, Some(5)), after(false, Some(5))], [20, 100]);
        assert_eq!([after(true, Some(90)), after(false, Some(90))], [90, 180]);
        assert_eq!([after(true, Some(900)), after(false, Some(900))], [500; 2]);
        assert_eq!([after(true, None), after(false, None)], [500; 2]);
    }

    #[test]
    fn an_endpoint_that_is_slow_by_nature_is_not_asked_for_twice_each_time() {
        let slow = Some(millis(800));
        assert_eq!(patience(false, (None, slow), LONGEST), millis(1600));
        assert_eq!(
            patience(true, (Some(millis(1900)), slow), LONGEST),
            millis(1900)
        );
    }
}
