//! How does one endpoint stand, and what came of asking it? Its counters, and the guards that decide whether
//! it is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;

use super::check::Complaint;
use super::dial::Dial;
use super::guard::breaker::{Admit, Breaker, Outlook, Pass};
use super::guard::ejection::Ejection;
use super::guard::health::Health;
use super::guard::pace::{self, Pace};
use super::limit::{Census, Gate, Limits, Permit};
use super::stats::{Checked, Condition, EndpointStats, Ledger};
use super::{Failure, Rank, Settings};

/// One endpoint of a group.
pub(super) struct Site {
    /// As metrics and logs name it.
    label: Arc<str>,
    /// Its place in the group's list.
    pub(super) place: usize,
    pub(super) priority: u8,
    pub(super) weight: u32,
    pub(super) ledger: Ledger,
    /// How many others the group has.
    others: usize,
    cap: Option<Cap>,
    watched: Mutex<Watched>,
}

/// A bound of its own.
struct Cap {
    concurrency_max: usize,
    gate: Gate,
}

/// A place among the requests that an endpoint bears; free again when dropped.
pub(super) struct Slot {
    /// `None`: it bears any number.
    _permit: Option<Permit>,
    /// Its group's leave, where its asker does not hold it.
    _leave: Option<Permit>,
}

impl Slot {
    /// The same, with the group's leave for a request that nobody holds one for.
    pub(super) fn with(self, leave: Permit) -> Slot {
        Slot {
            _leave: Some(leave),
            ..self
        }
    }
}

/// How often one that is back from an ejection is tried behind the viewers.
const TRIAL_EVERY: Duration = Duration::from_secs(1);

/// What its past says of an endpoint.
struct Watched {
    breaker: Breaker,
    ejection: Ejection,
    /// Where it is checked.
    health: Option<Health>,
    pace: Pace,
    /// Ejected for having been slow; its old response times are forgotten when it returns.
    slow: bool,
    /// Not tried again behind the viewers before.
    trial_from: Option<Instant>,
}

impl Watched {
    /// The pace, without what was before the last return.
    fn pace(&mut self, now: Instant) -> &mut Pace {
        if self.slow && self.ejection.until(now).is_none() {
            self.slow = false;
            self.pace.clear(now);
        }
        &mut self.pace
    }
}

impl Site {
    /// The endpoint at a place in a group.
    pub(super) fn new(place: usize, group: &Settings) -> Site {
        let (endpoint, guards) = (&group.endpoints[place], &group.guards);
        let now = Instant::now();
        Site {
            label: endpoint.url().into(),
            place,
            priority: endpoint.priority,
            weight: endpoint.weight,
            ledger: Ledger::default(),
            others: group.endpoints.len().saturating_sub(1),
            cap: endpoint.concurrency_max.map(|concurrency_max| Cap {
                concurrency_max,
                gate: Gate::new(&Limits {
                    concurrency_max,
                    queue_max: group.queue_max,
                    requests_per_second_max: None,
                }),
            }),
            watched: Mutex::new(Watched {
                breaker: Breaker::new(guards.breaker, now),
                ejection: Ejection::new(guards.ejection),
                health: group.health.as_ref().map(|check| Health::new(check.pace)),
                pace: Pace::new(guards.pace, now),
                slow: false,
                trial_from: None,
            }),
        }
    }

    /// Nothing speaks against asking it.
    pub(super) fn in_good_standing(&self, now: Instant) -> bool {
        let watched = self.watched.lock();
        watched.breaker.outlook(now) == Outlook::Clear
            && watched.ejection.until(now).is_none()
            && !watched.ejection.on_trial()
            && watched.health.as_ref().is_none_or(Health::healthy)
    }

    /// Its breaker lets nobody pass.
    pub(super) fn refuses(&self, now: Instant) -> bool {
        let outlook = self.watched.lock().breaker.outlook(now);
        matches!(outlook, Outlook::Refused { .. })
    }

    /// A place, unless it is at its cap.
    pub(super) fn slot(&self) -> Option<Slot> {
        let permit = self.cap.as_ref().map(|cap| cap.gate.try_enter());
        match permit {
            Some(None) => None,
            permit => Some(Slot {
                _permit: permit.flatten(),
                _leave: None,
            }),
        }
    }

    /// The same, with a wait in order of rank.
    pub(super) async fn wait_for_slot(
        &self,
        rank: Rank,
        patience: Duration,
    ) -> Result<Slot, Failure> {
        let permit = match &self.cap {
            Some(cap) => Some(cap.gate.enter(rank, patience).await?),
            None => None,
        };
        Ok(Slot {
            _permit: permit,
            _leave: None,
        })
    }

    /// Who waits for it, and who did in vain.
    pub(super) fn census(&self) -> Census {
        let census = self.cap.as_ref().map(|cap| cap.gate.census());
        census.unwrap_or_default()
    }

    /// Its breaker would let one request try, or it is back from an ejection and has not proven itself:
    /// then the asker is to see whether it answers, and nobody else is for a while.
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        let mut watched = self.watched.lock();
        if watched.breaker.outlook(now) == Outlook::ProbeDue {
            return true;
        }
        let back = watched.ejection.on_trial() && watched.ejection.until(now).is_none();
        let due = back && watched.trial_from.is_none_or(|from| now >= from);
        if due {
            watched.trial_from = Some(now + TRIAL_EVERY);
        }
        due
    }

    /// Another endpoint was asked later and answered first. Once says nothing; time after time it means
    /// that this one is asked in vain.
    pub(super) fn beaten(&self, asked: Instant) {
        self.failed(asked, "late");
    }

    /// It failed somebody, for a reason: it may be ejected for that.
    fn failed(&self, asked: Instant, reason: &str) {
        let now = Instant::now();
        let until = self.watched.lock().ejection.failed(now, asked, self.others);
        if let Some(until) = until {
            self.tell_ejected(until.saturating_duration_since(now), reason);
        }
    }

    /// Leave for a check to stand in for the probe that its breaker wants, if it wants one.
    pub(super) fn leave_to_probe(&self, now: Instant) -> Option<Pass> {
        let mut watched = self.watched.lock();
        if watched.breaker.outlook(now) != Outlook::ProbeDue {
            return None;
        }
        match watched.breaker.admit(now) {
            Admit::Yes(pass) | Admit::Probe(pass) => Some(pass),
            Admit::No { .. } => None,
        }
    }

    /// Hears what came of a check. A bad one is not held against it by its breaker: what viewers ask
    /// for may be well.
    pub(super) fn checked(&self, result: Result<(), Complaint>, leave: Option<Pass>) {
        let now = Instant::now();
        let mut watched = self.watched.lock();
        match leave {
            Some(pass) if result.is_ok() => watched.breaker.record(pass, now, true),
            Some(pass) => watched.breaker.returned(pass, now),
            None => {}
        }
        let health = watched.health.as_mut();
        let turned = health.is_some_and(|health| health.record(result.is_ok()));
        drop(watched);
        let endpoint = &*self.label;
        match result {
            Ok(()) if turned => tracing::info!(endpoint, "origin endpoint healthy again"),
            Err(reason) if turned => {
                tracing::warn!(endpoint, %reason, "origin endpoint unhealthy");
            }
            _ => {}
        }
    }

    /// How fast it answers lately, as far as is known.
    pub(super) fn pace(&self, now: Instant) -> Option<pace::Reading> {
        self.watched.lock().pace(now).read(now)
    }

    /// An answer's head came so long after the request was sent, or did not come. It says something
    /// of the endpoint's pace unless the endpoint took its time by intent.
    pub(super) fn timed(&self, took: Duration, end: Result<(), Failure>, telling: bool) {
        if end.is_ok() {
            self.ledger.clocked.record(took);
        }
        if telling && matches!(end, Ok(()) | Err(Failure::Timeout)) {
            self.outlasted(Instant::now(), took);
        }
    }

    /// An answer took so long, or longer.
    pub(super) fn outlasted(&self, now: Instant, waited: Duration) {
        self.watched.lock().pace(now).record(now, waited);
    }

    /// Judges its pace by what is typical of so many others that stand.
    pub(super) fn compare(&self, now: Instant, typical: Duration, others: usize) {
        let mut watched = self.watched.lock();
        let Some(own) = watched.pace(now).read(now) else {
            return;
        };
        if let Some(until) = watched.ejection.judged(now, own.p50, typical, others) {
            watched.slow = true;
            drop(watched);
            self.tell_ejected(until.saturating_duration_since(now), "slow");
        }
    }

    fn tell_ejected(&self, span: Duration, reason: &str) {
        let (endpoint, seconds) = (&*self.label, span.as_secs());
        tracing::warn!(endpoint, seconds, reason, "origin endpoint ejected");
    }

    pub(super) fn read(&self, dial: &Dial) -> EndpointStats {
        let now = Instant::now();
        let mut watched = self.watched.lock();
        EndpointStats {
            endpoint: Arc::clone(&self.label),
            counts: self.ledger.read(),
            concurrency_max: self.cap.as_ref().map(|cap| cap.concurrency_max),
            condition: Condition {
                reachable: dial.reachable(self.place),
                ejected: watched.ejection.until(now).is_some(),
                ejections: watched.ejection.ejected_total(),
                breaker: watched.breaker.state().as_str(),
                breaker_opened: watched.breaker.opened_total(),
                health: watched.health.as_ref().map(|health| Checked {
                    healthy: health.healthy(),
                    passed: health.passed_total(),
                    failed: health.failed_total(),
                }),
            },
            pace: watched.pace(now).read(now),
            latency: self.ledger.clocked.read(),
        }
    }
}

/// One attempt at an endpoint: counted, and judged, once, at its end. Counted as given up unless that is told.
pub(super) struct Entry {
    site: Arc<Site>,
    _slot: Slot,
    asked: Instant,
    pass: Option<Pass>,
    end: Option<Result<StatusCode, Failure>>,
}

impl Entry {
    /// `None` while the endpoint's breaker lets nobody pass.
    pub(super) fn open(site: &Arc<Site>, slot: Slot, now: Instant) -> Option<Entry> {
        let pass = match site.watched.lock().breaker.admit(now) {
            Admit::Yes(pass) | Admit::Probe(pass) => pass,
            Admit::No { .. } => return None,
        };
        site.ledger.begun();
        Some(Entry {
            site: Arc::clone(site),
            _slot: slot,
            asked: now,
            pass: Some(pass),
            end: None,
        })
    }

    pub(super) fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// The answer's head is there; a bad one is held against the endpoint at once.
    pub(super) fn answered(&mut self, status: StatusCode) {
        if is_bad(status) {
            self.judge(false);
        }
    }

    pub(super) fn received(&self, bytes: usize) {
        self.site.ledger.received(bytes);
    }

    /// The answer arrived whole.
    pub(super) fn whole(mut self, status: StatusCode) {
        self.judge(true);
        self.end = Some(Ok(status));
    }

    /// It did not, and that is the endpoint's fault.
    pub(super) fn failed(mut self, failure: Failure) {
        self.judge(false);
        self.end = Some(Err(failure));
    }

    /// It did not, and that may be somebody else's fault: counted, but not held against the endpoint.
    pub(super) fn broke_off(mut self, failure: Failure) {
        self.end = Some(Err(failure));
    }

    fn judge(&mut self, good: bool) {
        let Some(pass) = self.pass.take() else {
            return;
        };
        let now = Instant::now();
        let mut watched = self.site.watched.lock();
        watched.breaker.record(pass, now, good);
        if good {
            watched.ejection.succeeded(now, self.asked);
        } else {
            drop(watched);
            self.site.failed(self.asked, "failures");
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.site.watched.lock().breaker.lost(pass, Instant::now());
        }
        self.site.ledger.ended(self.end);
    }
}

/// Says more about the endpoint than about what it was asked for, or how.
fn is_bad(status: StatusCode) -> bool {
    let how = status == StatusCode::NOT_IMPLEMENTED;
    (status.is_server_error() && !how) || status == StatusCode::TOO_MANY_REQUESTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::guard::ejection;
    use crate::origin::{Endpoint, Guards};

    #[test]
    fn who_returns_from_being_slow_starts_with_a_clean_sheet() {
        let ejection = ejection::Settings {
            slow_judgements: 2,
            ..ejection::Settings::default()
        };
        let mut settings = Settings::single("main", Endpoint::new(false, "o.example", 80));
        settings
            .endpoints
            .push(Endpoint::new(false, "p.example", 80));
        settings.guards = Guards {
            ejection,
            ..Guards::default()
        };
        let site = Site::new(0, &settings);
        let now = Instant::now();
        (0..20).for_each(|_| site.outlasted(now, Duration::from_secs(2)));
        let typical = Duration::from_millis(20);
        site.compare(now, typical, 1);
        assert!(site.in_good_standing(now));
        site.compare(now, typical, 1);
        assert!(!site.in_good_standing(now) && site.pace(now).is_some());
        let back = now + ejection.base;
        assert!(site.pace(back).is_none());
        assert!(!site.in_good_standing(back), "it has to prove itself first");
        assert!(
            site.wants_probe(back) && !site.wants_probe(back),
            "to one asker"
        );
    }
}
