//! An endpoint has begun to answer, and stops or slows down in the middle. Another one is asked too where that is
//! safe: before viewers have anything of the body, or where a strong `ETag` says that it is the same one. Both
//! go on: the other one takes over as soon as it is further than the one that began.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use tokio::time::sleep;

use super::Job;
use super::delivery::{Begun, Delivery, Race, Vain, finish};
use crate::cache::{Known, Note};
use crate::origin::{BudgetUse, Errand, Failure, Inflow, Origin, Reply};
use crate::policy::EndpointSet;

/// After so long without a byte another endpoint is asked.
pub(in crate::shield) const SILENCE: Duration = Duration::from_millis(700);
/// The same where nobody knows how long the body will be: it may still be made, a chunk a second.
const PAUSE: Duration = Duration::from_millis(1500);
/// Where no other may be asked, this is tried again after so long.
const REFUSED_FOR: Duration = Duration::from_millis(250);
/// So much later a body that no other endpoint can go on with is cut: players ask for it anew, and
/// are answered by another endpoint. The same for one that stays too slow.
pub(in crate::shield) const CUT_AFTER: Duration = Duration::from_millis(1300);
/// Where another endpoint could not be asked, or was of no use, none is asked before this has passed.
pub(in crate::shield) const ASKED_EVERY: Duration = Duration::from_secs(1);
/// For so long requests for the same go to others first.
pub(in crate::shield) const AVOIDED: Duration = Duration::from_secs(10);

/// A piece of a body, its end, or a failure.
pub(super) type Came = Option<Result<Bytes, Failure>>;

/// What comes next of a body.
pub(super) enum Piece {
    /// From the endpoint that began it.
    Came(Came),
    /// Another endpoint's answer to go on with.
    Elsewhere(Reply),
    /// All viewers have left.
    Deserted,
}

impl Job {
    /// Waits for the next piece; where the endpoint falls silent, is too slow or breaks off, also for another
    /// one to overtake it.
    pub(super) async fn piece(&self, inflow: &mut Inflow, delivery: &mut Delivery) -> Piece {
        if self.is_to_be_cut(delivery) {
            return Piece::Came(Some(Err(Failure::Truncated)));
        }
        let has_length = delivery.begun.length.is_some();
        let silence = if has_length { SILENCE } else { PAUSE };
        let mut next = pin!(inflow.next());
        let mut given_up = pin!(self.given_up(false));
        let mut silent = pin!(sleep(silence));
        let mut too_long = pin!(sleep(silence + CUT_AFTER));
        let (mut is_silent, mut is_cut) = (false, false);
        loop {
            tokio::select! {
                biased;
                came = &mut next => match came {
                    Some(Err(failure)) => break self.broken(failure, delivery).await,
                    Some(Ok(bytes)) => {
                        self.came(bytes.len(), delivery);
                        break Piece::Came(Some(Ok(bytes)));
                    }
                    None => break Piece::Came(None),
                },
                () = &mut given_up => break Piece::Deserted,
                end = finish(&mut delivery.race) => {
                    if let Some(other) = self.raced(end, delivery) {
                        break Piece::Elsewhere(other);
                    }
                    // In a while it may be otherwise.
                    if is_silent && delivery.race.is_none() {
                        is_silent = false;
                        silent.as_mut().reset(tokio::time::Instant::now() + ASKED_EVERY);
                    }
                }
                () = &mut silent, if !is_silent => {
                    is_silent = true;
                    if delivery.begun.may_move && self.another_stands(&delivery.begun) {
                        if delivery.begun.is_complete {
                            self.leave(delivery.begun.endpoint);
                        }
                        if self.ask_another(delivery, true) {
                            is_cut = delivery.begun.is_complete && delivery.begun.shown() > 0;
                        } else {
                            is_silent = false;
                            silent.as_mut().reset(tokio::time::Instant::now() + REFUSED_FOR);
                        }
                    }
                }
                () = &mut too_long, if is_cut => {
                    break Piece::Came(Some(Err(Failure::Truncated)));
                }
            }
        }
    }

    /// Bytes came: another endpoint is asked if they come too slowly, and not waited for if they do not.
    fn came(&self, bytes: usize, delivery: &mut Delivery) {
        if delivery.add(bytes, Instant::now()) {
            if delivery.race.is_none() {
                self.ask_another(delivery, false);
            }
        } else if delivery.race.take().is_some_and(|race| race.failed) {
            self.origin().took_over(false);
        }
    }

    /// The endpoint broke off: the other one's answer, if it can go on.
    async fn broken(&self, failure: Failure, delivery: &mut Delivery) -> Piece {
        let broken = Piece::Came(Some(Err(failure)));
        if !delivery.begun.may_move || !self.another_stands(&delivery.begun) {
            return broken;
        }
        self.leave(delivery.begun.endpoint);
        if delivery.race.is_none() && !self.ask_another(delivery, true) {
            return broken;
        }
        let mut given_up = pin!(self.given_up(false));
        while delivery.race.is_some() {
            tokio::select! {
                end = finish(&mut delivery.race) => {
                    if let Some(other) = self.raced(end, delivery) {
                        return Piece::Elsewhere(other);
                    }
                }
                () = &mut given_up => return Piece::Deserted,
            }
        }
        broken
    }

    /// The other endpoint has overtaken, or was of no use: the next one is asked then.
    fn raced(&self, end: Result<Reply, Vain>, delivery: &mut Delivery) -> Option<Reply> {
        let failed = delivery.race.take().is_some_and(|race| race.failed);
        match end {
            Ok(reply) => {
                self.leave(delivery.begun.endpoint);
                self.origin().took_over(true);
                Some(reply)
            }
            Err(Vain(vain)) => {
                if failed {
                    self.origin().took_over(false);
                }
                // Where one answered that was asked before, no other has it: to ask again at once is in vain too.
                if let Some(endpoint) = vain
                    && !delivery.begun.tried().contains(endpoint)
                {
                    delivery.begun.left = delivery.begun.left.with(endpoint);
                    delivery.asked = None;
                    self.ask_another(delivery, failed);
                }
                None
            }
        }
    }

    /// Asks another endpoint to go on, if it can and may. True unless it may not: more requests would only
    /// add to the load.
    fn ask_another(&self, delivery: &mut Delivery, failed: bool) -> bool {
        let begun = &delivery.begun;
        let now = Instant::now();
        let lately = delivery
            .asked
            .is_some_and(|asked| now < asked + ASKED_EVERY);
        if delivery.race.is_some() || !begun.may_move || !self.another_stands(begun) {
            return true;
        }
        let Some(headers) = begun.rest(self.fill.upstream()) else {
            return true;
        };
        if lately && !failed {
            return true;
        }
        delivery.asked = Some(now);
        let Some(leave) = self.origin().take_over(begun.endpoint, failed) else {
            return false;
        };
        let errand = Errand {
            budget: BudgetUse::Paid,
            ..self.errand(headers, self.others(begun.tried()))
        };
        let asks = (self.entry.route.origin_index, errand);
        let race = Race::start(Arc::clone(&self.shield), asks, begun, (failed, leave));
        delivery.race = Some(race);
        true
    }

    /// It has been too slow for a while, nobody can go on with it, and some endpoint has not been given up for the
    /// same a moment ago: whoever asks anew is better off.
    fn is_to_be_cut(&self, delivery: &mut Delivery) -> bool {
        let (begun, now) = (&delivery.begun, Instant::now());
        let since = delivery.late_since;
        let is_hopeless = since.is_some_and(|since| now >= since + CUT_AFTER);
        if !is_hopeless || !begun.is_shown || !begun.may_move || delivery.race.is_some() {
            return false;
        }
        let left = self.left_before(now).unwrap_or_default();
        if !self.origin().another_stands(left.and(begun.tried())) {
            return false;
        }
        let allowed = self.origin().take_over(begun.endpoint, false).is_some();
        if !allowed {
            delivery.late_since = Some(now);
        }
        allowed
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.shield.origins[self.entry.route.origin_index]
    }

    fn another_stands(&self, begun: &Begun) -> bool {
        self.origin().another_stands(begun.tried())
    }

    /// Whom to ask last, where these must not be asked.
    fn others(&self, than: EndpointSet) -> EndpointSet {
        let all = self.avoided().and(than);
        if self.origin().another_stands(all) {
            all
        } else {
            than
        }
    }

    /// The endpoints that are asked last, since they gave something unfit: for a manifest, or for what
    /// that lists.
    pub(super) fn avoided(&self) -> EndpointSet {
        let now = Instant::now();
        if let Some(left) = self.left_before(now) {
            return left;
        }
        if self.entry.kind.is_manifest() {
            let watch = self.watched();
            return watch.map(|watch| watch.avoided(now)).unwrap_or_default();
        }
        let listing = self.shield.streams.listing(&self.entry);
        let none = EndpointSet::default();
        listing
            .iter()
            .fold(none, |set, watch| set.and(watch.avoided(now)))
    }

    /// The endpoints that stopped in the middle of this a moment ago.
    fn left_before(&self, now: Instant) -> Option<EndpointSet> {
        match self.shield.cache.noted(&self.fill.found().slot, now) {
            Some(Known::Avoid(left)) => Some(left),
            _ => None,
        }
    }

    /// An endpoint is no good for what the manifests list: others are asked first for a while, for
    /// the manifests too.
    pub(super) fn avoid_for_media(&self, endpoint: usize, why: &str) {
        let now = Instant::now();
        let path = self.entry.target.path();
        for watch in self.shield.streams.listing(&self.entry) {
            if !watch.avoided(now).contains(endpoint) {
                tracing::warn!(path, endpoint, "another endpoint is asked first: {why}");
                watch.avoid(endpoint, now);
            }
        }
    }

    /// What another endpoint than this one says.
    pub(super) async fn elsewhere(&self, than: usize) -> Option<Reply> {
        let origin = self.origin();
        if !origin.has_others() {
            return None;
        }
        let avoided = self.others(EndpointSet::of(than));
        let reply = self.fetch(self.fill.upstream().clone(), avoided).await?;
        let reply = reply.ok()?;
        let fit = reply.status == StatusCode::OK && reply.endpoint != than;
        fit.then_some(reply)
    }

    /// An endpoint broke off: for the same others are asked first, and for what is listed with it.
    pub(super) fn leave(&self, endpoint: usize) {
        self.avoid_for_media(endpoint, "it stopped in the middle");
        let now = Instant::now();
        let left = self.left_before(now).unwrap_or_default().with(endpoint);
        self.fill.note(Note {
            until: now + AVOIDED,
            what: Known::Avoid(left),
        });
    }
}
