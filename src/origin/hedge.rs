//! Who answers first? Where the first endpoint takes longer than it mostly does, the next is asked
//! too, and the first good answer wins. The other request is cancelled, and nobody is blamed for
//! that.
//!
//! Both are asked in the asker's own task: whoever stops waiting stops both.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::attempt::{Answer, Trouble};
use super::entry::Entry;
use super::fetch::{Desk, now};
use super::request::Request;
use super::tour::Tour;
use super::{Rank, RequestBody, Retry};

/// Quick endpoints are given this long: below it a hedge costs more than it saves.
const PATIENCE_MIN: Duration = Duration::from_millis(20);

type Outcome = Result<Answer, Trouble>;

impl Retry {
    /// Players stop without manifests, and manifests are small: those alone are worth asking for
    /// twice. Not those that the origin holds back by intent, for the other would hold them as
    /// long.
    pub(super) fn hedges(&self, rank: Rank, request: &Request) -> bool {
        let small = rank == Rank::Manifest && request.method == http::Method::GET;
        self.hedge && small && request.repeatable() && !request.blocks()
    }
}

impl Desk {
    /// Asks an endpoint, and the tour's next one too if the first is late.
    pub(super) async fn race(
        &self,
        entry: Entry,
        request: &Request,
        body: &mut Option<RequestBody>,
        tour: &mut Tour,
    ) -> Outcome {
        let slow = Arc::clone(entry.site());
        let usual = tour.hedged.then(|| slow.pace(now())).flatten();
        let began = Instant::now();
        let mut first = Box::pin(self.attempt(entry, request, body, self.limits(tour)));
        let Some(usual) = usual else {
            return first.await;
        };
        if let Ok(outcome) = timeout(usual.p95.max(PATIENCE_MIN), &mut first).await {
            return outcome;
        }
        let Some(entry) = self.hedge(tour) else {
            return first.await;
        };
        let quick = Arc::clone(entry.site());
        quick.ledger.hedged();
        let mut nothing = None;
        let mut second = Box::pin(self.attempt(entry, request, &mut nothing, self.limits(tour)));
        let other = tokio::select! {
            biased;
            outcome = &mut first => {
                if self.is_good(&outcome, tour) {
                    return outcome;
                }
                let other = second.await;
                if self.is_good(&other, tour) {
                    quick.ledger.hedge_won();
                }
                return better(other, outcome);
            }
            outcome = &mut second => outcome,
        };
        if self.is_good(&other, tour) {
            quick.ledger.hedge_won();
            // Its answer would have taken longer still.
            slow.outlasted(now(), began.elapsed());
            slow.beaten(began.into_std());
            return other;
        }
        better(first.await, other)
    }

    /// Opens an entry with the next endpoint, if it is a good one not asked yet that has room, and the
    /// budget allows it.
    fn hedge(&self, tour: &mut Tour) -> Option<Entry> {
        let site = &self.sites[*tour.order.get(tour.turns)?];
        let now = now();
        if !self.stands(site, now) {
            return None;
        }
        let mut budget = self.budget.lock();
        // Looked at first: a turn taken in vain is lost.
        if !budget.affords(now) {
            return None;
        }
        // It must fit beside the first one: a hedge never goes over a cap.
        let slot = site.slot()?.with(self.gate.try_enter()?);
        budget.try_spend(now);
        tour.turns += 1;
        Entry::open(site, slot, now)
    }

    fn is_good(&self, outcome: &Outcome, tour: &Tour) -> bool {
        let status = outcome.as_ref().map(|answer| answer.head.status);
        status.is_ok_and(|status| !self.is_poor(status, tour.expected))
    }
}

/// Of two that are not good: a poor answer is better than none.
fn better(later: Outcome, earlier: Outcome) -> Outcome {
    match (later, earlier) {
        (Ok(later), Ok(earlier)) => {
            earlier.dismiss();
            Ok(later)
        }
        (Ok(answer), Err(_)) | (Err(_), Ok(answer)) => Ok(answer),
        (Err(later), Err(earlier)) => Err(Trouble {
            sent: later.sent || earlier.sent,
            resent: later.resent || earlier.resent,
            ..later
        }),
    }
}
