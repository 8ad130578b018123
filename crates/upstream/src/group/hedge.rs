//! Hedged requests: when an endpoint takes longer than usual and a viewer waits, the next endpoint
//! is asked too; the first good response wins and the others are cancelled. Being overtaken counts
//! as one failure of an endpoint. A blocking request is hedged after the time its caller sets,
//! without using the retry budget.
//!
//! All attempts run in the caller's task: dropping its future cancels them all.

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::evaluate::{self, has_content};
use crate::attempt::AttemptGuard;
use crate::attempt::UpstreamUpload;
use crate::attempt::{
    AttemptDeadlines, AttemptError, AttemptOutcome, AttemptResponse, EndpointClient,
};
use crate::connection::AttemptRequest;
use crate::connection::share;
use crate::endpoint::{EndpointState, UsualLatency, now};
use crate::response_value::ResponseValue;
use crate::selection::EndpointSelection;
use crate::selection::EndpointSelector;
use crate::{Priority, Retry};

/// Minimum wait before a manifest is hedged: below it a hedge costs more than it saves.
const PATIENCE_MIN: Duration = Duration::from_millis(20);
/// Minimum wait for larger objects, and the multiple of the usual latency that is allowed.
const MEDIA_PATIENCE_MIN: Duration = Duration::from_millis(100);
const MEDIA_FACTOR: u32 = 2;

/// For a blocking request: an endpoint that answers within this fraction of the wait already had
/// the object. Otherwise both endpoints blocked, and the first to answer proves nothing about the
/// other.
const HAD_SHARE: u32 = 4;

/// A request that a viewer waits for may be hedged. Not a blocking request: its caller sets when it
/// is late.
pub(crate) fn may_hedge(retry: &Retry, final_rank: Priority, request: &AttemptRequest) -> bool {
    let is_wanted = final_rank <= Priority::Segment && request.method == http::Method::GET;
    retry.hedge && is_wanted && request.is_repeatable() && !request.may_block()
}

/// Sends one request to endpoints, to a further one each time that it is late.
pub(crate) struct HedgedSender<'a> {
    pub(crate) selector: &'a EndpointSelector,
    pub(crate) client: &'a EndpointClient,
    pub(crate) retry: &'a Retry,
    pub(crate) connect_timeout: Duration,
    pub(crate) request: &'a AttemptRequest,
}

/// One running attempt.
struct HedgedAttempt<'a> {
    endpoint: Arc<EndpointState>,
    started: Instant,
    /// Wait before the next hedge.
    patience: Duration,
    is_hedge: bool,
    outcome: Pin<Box<dyn Future<Output = AttemptOutcome> + Send + 'a>>,
}

/// What happens next while attempts run.
#[expect(
    clippy::large_enum_variant,
    reason = "it is matched at once, and kept nowhere"
)]
enum HedgeEvent<'a> {
    /// An attempt ended.
    Ended(HedgedAttempt<'a>, AttemptOutcome),
    /// The running attempts are late. `None`: no endpoint can be asked too.
    Late(Option<AttemptGuard>),
}

impl<'a> HedgedSender<'a> {
    /// Sends the request with the first attempt, and to the next endpoint of the selection each
    /// time that all running attempts are late. Returns the first good outcome, or the best.
    pub(crate) async fn send(
        &self,
        first: AttemptGuard,
        upload: &mut Option<UpstreamUpload>,
        selection: &mut EndpointSelection,
    ) -> AttemptOutcome {
        let endpoint = Arc::clone(first.endpoint());
        let deadlines = self.deadlines(selection);
        let outcome = Box::pin(self.client.attempt(first, self.request, upload, deadlines));
        let Some(patience) = self.patience(&endpoint, selection) else {
            return outcome.await;
        };
        let started = Instant::now();
        let first = HedgedAttempt {
            endpoint,
            started,
            patience,
            is_hedge: false,
            outcome,
        };
        let mut hedge_at = Some(first.late_at());
        let mut running = vec![first];
        let mut best = None;
        loop {
            let (ended, outcome) = match self.next_event(&mut running, hedge_at, selection).await {
                HedgeEvent::Ended(ended, outcome) => (ended, outcome),
                HedgeEvent::Late(attempt) => {
                    let hedge = attempt.map(|attempt| self.start_hedge(attempt, selection));
                    hedge_at = hedge.as_ref().map(HedgedAttempt::late_at);
                    running.extend(hedge);
                    continue;
                }
            };
            let is_good = self.is_good(&outcome, selection);
            let outcome = better(outcome, best.take(), selection);
            if is_good && ended.is_hedge {
                return self
                    .finish_with_hedge(ended, outcome, running, selection)
                    .await;
            }
            if is_good || running.is_empty() {
                return outcome;
            }
            best = Some(outcome);
        }
    }

    /// Waits until an attempt ends or one more may be started.
    async fn next_event<'r>(
        &self,
        running: &mut Vec<HedgedAttempt<'r>>,
        hedge_at: Option<Instant>,
        selection: &mut EndpointSelection,
    ) -> HedgeEvent<'r> {
        tokio::select! {
            biased;
            (ended, outcome) = first_ended(running) => HedgeEvent::Ended(ended, outcome),
            attempt = self.next_hedge(hedge_at, selection) => HedgeEvent::Late(attempt),
        }
    }

    /// Starts an attempt at one more endpoint when the running ones are late. Never resolves if no
    /// more are allowed.
    async fn next_hedge(
        &self,
        hedge_at: Option<Instant>,
        selection: &mut EndpointSelection,
    ) -> Option<AttemptGuard> {
        let Some(hedge_at) = hedge_at else {
            return pending().await;
        };
        if !selection.request.is_blocking {
            selection.until_urgent().await;
        }
        sleep_until(hedge_at).await;
        self.selector.next_hedge(selection).await
    }

    fn start_hedge(
        &self,
        attempt: AttemptGuard,
        selection: &EndpointSelection,
    ) -> HedgedAttempt<'a> {
        let endpoint = Arc::clone(attempt.endpoint());
        endpoint.counters.hedged();
        let (client, request) = (self.client, self.request);
        let deadlines = self.deadlines(selection);
        let patience = self.patience(&endpoint, selection);
        HedgedAttempt {
            started: Instant::now(),
            patience: patience.unwrap_or(self.retry.hedge_after_max),
            endpoint,
            is_hedge: true,
            outcome: Box::pin(async move {
                client.attempt(attempt, request, &mut None, deadlines).await
            }),
        }
    }

    /// A hedge got a good response while other attempts are running.
    async fn finish_with_hedge(
        &self,
        hedge: HedgedAttempt<'_>,
        outcome: AttemptOutcome,
        mut slower: Vec<HedgedAttempt<'_>>,
        selection: &mut EndpointSelection,
    ) -> AttemptOutcome {
        let response = outcome?;
        if !has_content(response.head.status) {
            // The hedge lacks the object: give the slower endpoint, which may have it, more time.
            let patience = slower
                .first()
                .map_or(Duration::ZERO, |slower| slower.patience);
            let patience = patience.max(self.retry.hedge_after_max * 2);
            let other = timeout(patience, self.first_good(&mut slower, selection)).await;
            let Some(other) = other.ok().flatten() else {
                return Ok(response);
            };
            response.dismiss();
            return Ok(other);
        }
        hedge.endpoint.counters.hedge_won();
        let mut lacking_endpoint = None;
        for slower in slower
            .iter()
            .filter(|slower| slower.started < hedge.started)
        {
            if self.record_overtaken(slower, &hedge, selection) {
                lacking_endpoint = lacking_endpoint.or(Some(slower.endpoint.index));
            }
        }
        Ok(AttemptResponse {
            lacking_endpoint,
            ..response
        })
    }

    /// The first good response among the running attempts.
    async fn first_good(
        &self,
        running: &mut Vec<HedgedAttempt<'_>>,
        selection: &mut EndpointSelection,
    ) -> Option<AttemptResponse> {
        while !running.is_empty() {
            let (_, outcome) = first_ended(running).await;
            if let Ok(response) = outcome
                && self.is_good_response(&response, selection)
            {
                return Some(response);
            }
        }
        None
    }

    /// Records that another endpoint was quicker; true if this endpoint is reported as lacking the
    /// object.
    fn record_overtaken(
        &self,
        slow: &HedgedAttempt<'_>,
        quick: &HedgedAttempt<'_>,
        selection: &EndpointSelection,
    ) -> bool {
        let is_blocking = selection.request.is_blocking;
        let waited = slow.started.elapsed();
        let quick_had_it = !is_blocking || quick.started.elapsed() < slow.patience / HAD_SHARE;
        if quick_had_it {
            let started = slow.started.into_std();
            slow.endpoint
                .record_overtaken(started, selection.request.subject);
        }
        if !is_blocking {
            // Its response would have taken even longer.
            slow.endpoint.record_latency(now(), waited);
        }
        // A short delay is not reported.
        let is_late = is_blocking || waited >= self.retry.hedge_after_max;
        quick_had_it && is_late
    }

    /// Wait before a hedge; `None`: no hedge.
    fn patience(
        &self,
        endpoint: &EndpointState,
        selection: &EndpointSelection,
    ) -> Option<Duration> {
        if selection.request.is_blocking {
            return selection.request.late_after;
        }
        if !selection.request.is_hedged || self.selector.endpoints.len() < 2 {
            return None;
        }
        let is_manifest = selection.final_rank() == Priority::Manifest;
        let usual = endpoint.usual_latency(now());
        Some(patience(is_manifest, usual, self.retry.hedge_after_max))
    }

    /// Deadlines of the next attempt.
    fn deadlines(&self, selection: &EndpointSelection) -> AttemptDeadlines {
        let total = selection.request.until;
        let connect_until = Instant::now() + self.connect_timeout;
        let connect_until = share(connect_until, self.selector.remaining(selection) + 1);
        AttemptDeadlines {
            connect: connect_until.min(total),
            total,
        }
    }

    fn is_good(&self, outcome: &AttemptOutcome, selection: &EndpointSelection) -> bool {
        outcome
            .as_ref()
            .is_ok_and(|response| self.is_good_response(response, selection))
    }

    /// A response that no other endpoint could improve on.
    fn is_good_response(&self, response: &AttemptResponse, selection: &EndpointSelection) -> bool {
        let status = response.head.status;
        // An endpoint that answers that the object is missing, instead of blocking, does not help.
        if selection.request.is_blocking && !status.is_success() {
            return false;
        }
        let is_retried = self.retry.statuses.contains(&status);
        !is_retried && evaluate::worth(response, selection) == ResponseValue::Answer
    }
}

impl HedgedAttempt<'_> {
    fn late_at(&self) -> Instant {
        self.started + self.patience
    }
}

/// Wait before a hedge, from the usual latency. `longest`: maximum for endpoints that are not
/// always slow.
fn patience(is_manifest: bool, usual: UsualLatency, longest: Duration) -> Duration {
    // Responses that were overtaken count with about the maximum, so allow a margin.
    const LONGER: (u32, u32) = (5, 4);
    let UsualLatency { p95, typical } = usual;
    if let Some(typical) = typical
        && typical > longest * LONGER.0 / LONGER.1
    {
        let patience = typical * MEDIA_FACTOR;
        return p95.map_or(patience, |p95| p95.max(patience));
    }
    let Some(p95) = p95 else {
        return longest;
    };
    let patience = if is_manifest {
        p95.max(PATIENCE_MIN)
    } else {
        (p95 * MEDIA_FACTOR).max(MEDIA_PATIENCE_MIN)
    };
    patience.min(longest)
}

/// Waits for the first attempt to end, and removes it. There must be one.
async fn first_ended<'a>(
    running: &mut Vec<HedgedAttempt<'a>>,
) -> (HedgedAttempt<'a>, AttemptOutcome) {
    poll_fn(|context| {
        for index in 0..running.len() {
            if let Poll::Ready(outcome) = running[index].outcome.as_mut().poll(context) {
                return Poll::Ready((running.remove(index), outcome));
            }
        }
        Poll::Pending
    })
    .await
}

/// The better of two outcomes; a poor response is better than none.
fn better(
    later: AttemptOutcome,
    earlier: Option<AttemptOutcome>,
    selection: &EndpointSelection,
) -> AttemptOutcome {
    match (later, earlier) {
        (later, None) => later,
        (Ok(later), Some(Ok(earlier))) => Ok(evaluate::better(later, earlier, selection)),
        (Ok(response), Some(Err(_))) | (Err(_), Some(Ok(response))) => Ok(response),
        (Err(later), Some(Err(earlier))) => Err(AttemptError {
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
        let after = |is_manifest, p95: Option<u64>| {
            let p95 = p95.map(millis);
            let usual = UsualLatency {
                p95,
                typical: p95.map(|_| millis(10)),
            };
            patience(is_manifest, usual, LONGEST).as_millis()
        };
        assert_eq!([after(true, Some(5)), after(false, Some(5))], [20, 100]);
        assert_eq!([after(true, Some(90)), after(false, Some(90))], [90, 180]);
        assert_eq!([after(true, Some(900)), after(false, Some(900))], [500; 2]);
        assert_eq!([after(true, None), after(false, None)], [500; 2]);
    }

    #[test]
    fn an_endpoint_that_is_slow_by_nature_is_not_asked_for_twice_each_time() {
        let usual = |p95| UsualLatency {
            p95,
            typical: Some(millis(800)),
        };
        assert_eq!(patience(false, usual(None), LONGEST), millis(1600));
        assert_eq!(
            patience(true, usual(Some(millis(1900))), LONGEST),
            millis(1900)
        );
    }
}
