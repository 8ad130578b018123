//! Hedged requests: when an endpoint takes longer than usual and a viewer waits, the next endpoint
//! is requested too; the first response with the object wins and the others are cancelled. A
//! refusal is used only after the others had time to answer. Being overtaken counts as one failure
//! of an endpoint. A blocking request is hedged after the time its caller sets, without using the
//! retry budget.
//!
//! All attempts run in the caller's task: dropping its future cancels them all.

use std::future::{Future, pending, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::evaluate::{self, has_content};
use crate::attempt::{
    AttemptDeadlines, AttemptError, AttemptGuard, AttemptOutcome, AttemptResponse, EndpointClient,
    UpstreamUpload,
};
use crate::connection::{AttemptRequest, attempt_deadline};
use crate::endpoint::{EndpointState, UsualLatency, std_now};
use crate::response_value::ResponseValue;
use crate::selection::{EndpointSelection, EndpointSelector};
use crate::{Priority, Retry};

/// Minimum delay before a manifest is hedged: below it a hedge costs more than it saves.
const MANIFEST_DELAY_MIN: Duration = Duration::from_millis(20);
/// Minimum delay before a larger object is hedged.
const MEDIA_DELAY_MIN: Duration = Duration::from_millis(100);
/// A larger object is hedged after this multiple of the usual latency.
const MEDIA_FACTOR: u32 = 2;

/// A hedge of a blocking request that is answered within this fraction of the hedge delay proves
/// that its endpoint already had the object while the slower one blocked. Later answers prove
/// nothing: both endpoints waited for the object to be produced.
const HAD_OBJECT_FRACTION: u32 = 4;

/// A request that a viewer waits for may be hedged. Not a blocking request: its caller sets when it
/// is late.
pub(crate) fn may_hedge(retry: &Retry, final_priority: Priority, request: &AttemptRequest) -> bool {
    let is_waited_for = final_priority <= Priority::Segment && request.method == http::Method::GET;
    retry.hedge && is_waited_for && request.is_repeatable() && !request.may_block()
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
    /// The next endpoint is requested too after this time.
    hedge_delay: Duration,
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
    /// The running attempts are late. `None`: no endpoint can be requested too.
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
        let outcome = Box::pin(
            self.client
                .send_attempt(first, self.request, upload, deadlines),
        );
        let Some(hedge_delay) = self.hedge_delay(&endpoint, selection) else {
            return outcome.await;
        };
        let started = Instant::now();
        let first = HedgedAttempt {
            endpoint,
            started,
            hedge_delay,
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
            if is_good {
                return Box::pin(
                    self.complete_with_good_response(ended, outcome, running, selection),
                )
                .await;
            }
            if running.is_empty() {
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

    fn start_hedge(&self, guard: AttemptGuard, selection: &EndpointSelection) -> HedgedAttempt<'a> {
        let endpoint = Arc::clone(guard.endpoint());
        endpoint.counters.record_hedge();
        let (client, request) = (self.client, self.request);
        let deadlines = self.deadlines(selection);
        let hedge_delay = self.hedge_delay(&endpoint, selection);
        HedgedAttempt {
            started: Instant::now(),
            hedge_delay: hedge_delay.unwrap_or(self.retry.hedge_after_max),
            endpoint,
            is_hedge: true,
            outcome: Box::pin(async move {
                client
                    .send_attempt(guard, request, &mut None, deadlines)
                    .await
            }),
        }
    }

    /// Completes the request with a good response, which arrived while these attempts are running.
    async fn complete_with_good_response(
        &self,
        ended: HedgedAttempt<'_>,
        outcome: AttemptOutcome,
        mut running: Vec<HedgedAttempt<'_>>,
        selection: &mut EndpointSelection,
    ) -> AttemptOutcome {
        let mut response = outcome?;
        if !has_content(response.head.status) {
            // The endpoint lacks the object: give the others, which may have it, more time.
            let hedge_delay = running.first().map(|other| other.hedge_delay);
            let patience = hedge_delay
                .unwrap_or_default()
                .max(self.retry.hedge_after_max * 2);
            let waiting = self.wait_for_object(&mut response, &mut running, selection);
            // In time or not: the response is the best one.
            let _ = timeout(patience, waiting).await;
            return Ok(response);
        }
        if !ended.is_hedge {
            return Ok(response);
        }
        ended.endpoint.counters.record_hedge_won();
        let mut endpoint_to_avoid = None;
        for slower in running
            .iter()
            .filter(|slower| slower.started < ended.started)
        {
            if self.record_overtaken(slower, &ended, selection) {
                endpoint_to_avoid = endpoint_to_avoid.or(Some(slower.endpoint.index));
            }
        }
        Ok(AttemptResponse {
            endpoint_to_avoid,
            ..response
        })
    }

    /// Waits for a running attempt to bring the object, which then replaces the refusal. When all
    /// endpoints refuse the object, the refusal of the first one does.
    async fn wait_for_object(
        &self,
        response: &mut AttemptResponse,
        running: &mut Vec<HedgedAttempt<'_>>,
        selection: &mut EndpointSelection,
    ) {
        while !running.is_empty() && !has_content(response.head.status) {
            let (ended, outcome) = first_ended(running).await;
            let Ok(other) = outcome else {
                continue;
            };
            let is_good = self.is_good_response(&other, selection);
            let is_object = has_content(other.head.status);
            if !is_good || (ended.is_hedge && !is_object) {
                other.discard();
                continue;
            }
            if ended.is_hedge {
                ended.endpoint.counters.record_hedge_won();
            }
            mem::replace(response, other).discard();
        }
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
        let quick_had_it =
            !is_blocking || quick.started.elapsed() < slow.hedge_delay / HAD_OBJECT_FRACTION;
        if quick_had_it {
            let started = slow.started.into_std();
            slow.endpoint
                .record_overtaken(started, selection.request.subject);
        }
        if !is_blocking {
            // A lower bound: its response would have taken even longer.
            slow.endpoint.record_latency(std_now(), waited);
        }
        // A short delay is not reported.
        let is_late = is_blocking || waited >= self.retry.hedge_after_max;
        quick_had_it && is_late
    }

    /// How long the attempt may run before the next endpoint is requested too. `None`: no
    /// hedge.
    fn hedge_delay(
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
        let is_manifest = selection.final_priority() == Priority::Manifest;
        let usual = endpoint.usual_latency(std_now());
        Some(latency_hedge_delay(
            is_manifest,
            usual,
            self.retry.hedge_after_max,
        ))
    }

    /// Deadlines of the next attempt.
    fn deadlines(&self, selection: &EndpointSelection) -> AttemptDeadlines {
        let total = selection.request.until;
        let connect_until = Instant::now() + self.connect_timeout;
        let connect_until = attempt_deadline(connect_until, self.selector.remaining(selection) + 1);
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
        !is_retried && evaluate::rate(response, selection) == ResponseValue::Answer
    }
}

impl HedgedAttempt<'_> {
    fn late_at(&self) -> Instant {
        self.started + self.hedge_delay
    }
}

/// The delay before a hedge, from the usual latency. `longest`: maximum for endpoints that are not
/// always slow.
fn latency_hedge_delay(is_manifest: bool, usual: UsualLatency, longest: Duration) -> Duration {
    // A response that was overtaken counts with about `longest`: only a typical latency a quarter
    // above it belongs to an endpoint that is always slow.
    let UsualLatency { p95, typical } = usual;
    if let Some(typical) = typical
        && typical > longest * 5 / 4
    {
        let hedge_delay = typical * MEDIA_FACTOR;
        return p95.map_or(hedge_delay, |p95| p95.max(hedge_delay));
    }
    let Some(p95) = p95 else {
        return longest;
    };
    let hedge_delay = if is_manifest {
        p95.max(MANIFEST_DELAY_MIN)
    } else {
        (p95 * MEDIA_FACTOR).max(MEDIA_DELAY_MIN)
    };
    hedge_delay.min(longest)
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
            may_have_arrived: later.may_have_arrived || earlier.may_have_arrived,
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
    fn hedge_delay_follows_p95_between_minimum_and_longest() {
        let after = |is_manifest, p95: Option<u64>| {
            let p95 = p95.map(millis);
            let usual = UsualLatency {
                p95,
                typical: p95.map(|_| millis(10)),
            };
            latency_hedge_delay(is_manifest, usual, LONGEST).as_millis()
        };
        assert_eq!([after(true, Some(5)), after(false, Some(5))], [20, 100]);
        assert_eq!([after(true, Some(90)), after(false, Some(90))], [90, 180]);
        assert_eq!([after(true, Some(900)), after(false, Some(900))], [500; 2]);
        assert_eq!([after(true, None), after(false, None)], [500; 2]);
    }

    #[test]
    fn typically_slow_endpoint_is_not_hedged_every_time() {
        let usual = |p95| UsualLatency {
            p95,
            typical: Some(millis(800)),
        };
        assert_eq!(
            latency_hedge_delay(false, usual(None), LONGEST),
            millis(1600)
        );
        assert_eq!(
            latency_hedge_delay(true, usual(Some(millis(1900))), LONGEST),
            millis(1900)
        );
    }
}
