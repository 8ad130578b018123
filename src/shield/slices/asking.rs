//! How is one slice asked for? Of one endpoint after another, where one does not have it or stops in the middle.

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::sleep;

use super::{Fault, Source};
use crate::cache::{Fill, Known, Note};
use crate::origin::{BudgetUse, Errand, Failure, Inflow, Origin, Reply, Takeover};
use crate::policy::EndpointSet;
use crate::policy::range::{Span, read_content_range};
use crate::shield::fill::{
    ASKED_EVERY, AVOIDED, BodyPace, CUT_AFTER, Expected, SILENCE, get_ahead,
};
use crate::shield::rank;

/// What comes next of a slice.
pub(super) enum Next {
    /// From the endpoint that began it: a piece, its end, or a failure.
    Came(Option<Result<Bytes, Failure>>),
    /// Another endpoint's answer to go on with.
    Elsewhere(Reply),
}

/// A slice under way.
pub(super) struct SliceDelivery {
    /// What has not come yet.
    left: Span,
    endpoint: usize,
    /// Endpoints that had it before, or have another object.
    tried: EndpointSet,
    pace: BodyPace,
    race: Option<SliceRace>,
    asked: Option<Instant>,
}

/// Another endpoint on its way to overtake.
struct SliceRace {
    other: Pin<Box<dyn Future<Output = Result<Reply, Vain>> + Send>>,
    /// How far the one that began has come.
    came: Arc<AtomicU64>,
    /// That one is silent or has failed. If not, it is slow.
    failed: bool,
    _leave: Takeover,
}

/// Another endpoint was asked in vain: the one that cannot go on, where that is known.
struct Vain(Option<usize>);

impl SliceDelivery {
    pub(super) fn new(span: Span, endpoint: usize) -> SliceDelivery {
        let expected = Expected {
            length: Some(span.length()),
            duration: None,
            is_complete: true,
        };
        SliceDelivery {
            left: span,
            endpoint,
            tried: EndpointSet::of(endpoint),
            pace: BodyPace::new(expected, Instant::now()),
            race: None,
            asked: None,
        }
    }

    /// Another endpoint goes on. Gives the one before.
    pub(super) fn move_to(&mut self, endpoint: usize) -> usize {
        self.tried = self.tried.with(endpoint);
        self.pace.restart(Instant::now());
        std::mem::replace(&mut self.endpoint, endpoint)
    }

    /// Its reader took so long.
    pub(super) fn pause(&mut self, span: Duration) {
        self.pace.pause(span);
    }

    pub(super) fn endpoint(&self) -> usize {
        self.endpoint
    }

    pub(super) fn is_whole(&self) -> bool {
        self.left.length() == 0
    }
}

/// What another endpoint goes on with, once it is further; never, where none is asked.
async fn finish(race: &mut Option<SliceRace>) -> Result<Reply, Vain> {
    match race {
        Some(race) => race.other.as_mut().await,
        None => pending().await,
    }
}

impl Source {
    /// Waits for the next piece; where the endpoint falls silent, is too slow or breaks off, also for another
    /// one to overtake it.
    pub(super) async fn next(
        self: &Arc<Self>,
        fill: &Fill,
        inflow: &mut Inflow,
        delivery: &mut SliceDelivery,
    ) -> Next {
        let mut next = pin!(inflow.next());
        let mut silent = pin!(sleep(SILENCE));
        let mut too_long = pin!(sleep(SILENCE + CUT_AFTER));
        let mut is_cut = false;
        loop {
            tokio::select! {
                biased;
                came = &mut next => {
                    match &came {
                        Some(Ok(bytes)) => self.came(fill, bytes.len() as u64, delivery),
                        Some(Err(_)) => {
                            self.ask_another(fill, delivery, true);
                            while delivery.race.is_some() {
                                if let Some(other) = self.raced(fill, delivery).await {
                                    return Next::Elsewhere(other);
                                }
                            }
                        }
                        None => {}
                    }
                    return Next::Came(came);
                }
                other = self.raced(fill, delivery) => {
                    if let Some(other) = other {
                        return Next::Elsewhere(other);
                    }
                }
                () = &mut silent, if !is_cut => {
                    let now = tokio::time::Instant::now();
                    is_cut = self.ask_another(fill, delivery, true)
                        && self.others_stand(delivery.endpoint);
                    silent.as_mut().reset(now + SILENCE);
                    too_long.as_mut().reset(now + CUT_AFTER);
                }
                () = &mut too_long, if is_cut => {
                    return Next::Came(Some(Err(Failure::Truncated)));
                }
            }
        }
    }

    fn came(self: &Arc<Self>, fill: &Fill, bytes: u64, delivery: &mut SliceDelivery) {
        let now = Instant::now();
        delivery.left.start = delivery.left.end.min(delivery.left.start + bytes);
        delivery
            .pace
            .add(usize::try_from(bytes).unwrap_or(usize::MAX), now);
        if !delivery.pace.is_late(now) {
            if delivery.race.take().is_some_and(|race| race.failed) {
                self.origin().took_over(false);
            }
        } else if let Some(race) = &delivery.race {
            race.came.store(delivery.left.start, Ordering::Relaxed);
        } else {
            self.ask_another(fill, delivery, false);
        }
    }

    /// The other endpoint's answer, when it has overtaken. Where that was of no use the next one is asked.
    async fn raced(self: &Arc<Self>, fill: &Fill, delivery: &mut SliceDelivery) -> Option<Reply> {
        let end = finish(&mut delivery.race).await;
        let failed = delivery.race.take().is_some_and(|race| race.failed);
        if failed || end.is_ok() {
            self.origin().took_over(end.is_ok());
        }
        match end {
            Ok(other) => Some(other),
            Err(Vain(vain)) => {
                if let Some(endpoint) = vain.filter(|&vain| !delivery.tried.contains(vain)) {
                    delivery.tried = delivery.tried.with(endpoint);
                    self.ask_another(fill, delivery, failed);
                }
                None
            }
        }
    }

    /// Asks another endpoint for the rest, if one stands. True unless it may not be asked: more requests would
    /// only add to the load.
    fn ask_another(
        self: &Arc<Self>,
        fill: &Fill,
        delivery: &mut SliceDelivery,
        failed: bool,
    ) -> bool {
        let (left, tried) = (delivery.left, delivery.tried);
        let origin = self.origin();
        let now = Instant::now();
        let lately = delivery
            .asked
            .is_some_and(|asked| now < asked + ASKED_EVERY);
        if delivery.race.is_some()
            || left.length() == 0
            || (lately && !failed)
            || !origin.another_stands(tried)
        {
            return true;
        }
        delivery.asked = Some(now);
        let Some(leave) = origin.take_over(delivery.endpoint, failed) else {
            return false;
        };
        let came = Arc::new(AtomicU64::new(left.start));
        let (source, position) = (Arc::clone(self), Arc::clone(&came));
        let upstream = fill.upstream().clone();
        let other = Box::pin(async move {
            let mut other = source
                .ask(upstream, left, tried, BudgetUse::Paid)
                .await
                .map_err(|_| Vain(None))?;
            let vain = Vain(Some(other.endpoint));
            if tried.contains(other.endpoint) || source.examine(&other, left).is_err() {
                return Err(vain);
            }
            let Some(shown) = get_ahead(&mut other.body, &position, left.start).await else {
                return Err(vain);
            };
            other.body.skip(shown);
            Ok(other)
        });
        delivery.race = Some(SliceRace {
            other,
            came,
            failed,
            _leave: leave,
        });
        true
    }

    /// Another one stands than this one and those that stopped before.
    fn others_stand(&self, endpoint: usize) -> bool {
        let left = self.left.lock().with(endpoint);
        self.origin().another_stands(left)
    }

    /// An endpoint stopped in the middle, and no other has the rest of this object: whoever asks anew finds
    /// what another one has, which may have another name for it.
    pub(super) fn leave(&self, endpoint: usize) {
        let (now, cache) = (Instant::now(), &self.shield.cache);
        let noted = cache.noted(&self.found.slot, now);
        let is_ours =
            matches!(noted, Some(Known::Sliced(series)) if series.etag == self.series.etag);
        if is_ours && self.others_stand(endpoint) {
            cache.note(
                &self.found,
                Note {
                    until: now + AVOIDED,
                    what: Known::Avoid(self.left.lock().with(endpoint)),
                },
            );
        }
    }

    fn origin(&self) -> &Origin {
        &self.shield.origins[self.route.origin_index]
    }

    /// Twins may name the same object differently, or have another one for a while: where one endpoint does
    /// not have this one, another is asked.
    pub(super) async fn fetch(&self, fill: &Fill, span: Span) -> Result<Reply, Fault> {
        let upstream = || fill.upstream().clone();
        let none = EndpointSet::default();
        let reply = self.ask(upstream(), span, none, BudgetUse::Earns).await?;
        let Err(fault) = self.examine(&reply, span) else {
            return Ok(reply);
        };
        let origin = self.origin();
        if fault == Fault::Failed || !origin.has_others() {
            return Err(fault);
        }
        let endpoint = reply.endpoint;
        // What it holds of the origin's limits is needed now.
        drop(reply);
        let other = self
            .ask(
                upstream(),
                span,
                EndpointSet::of(endpoint),
                BudgetUse::Earns,
            )
            .await;
        let other = other.ok().filter(|other| other.endpoint != endpoint);
        let fit = other.filter(|other| self.examine(other, span).is_ok());
        fit.ok_or(fault)
    }

    /// `avoided`: endpoints that do not have it.
    async fn ask(
        &self,
        mut headers: HeaderMap,
        span: Span,
        avoided: EndpointSet,
        budget: BudgetUse,
    ) -> Result<Reply, Fault> {
        let range = format!("bytes={}-{}", span.start, span.end - 1);
        let range = HeaderValue::try_from(range).map_err(|_| Fault::Failed)?;
        headers.insert(header::RANGE, range);
        headers.insert(header::IF_MATCH, self.series.etag.clone());
        let (target, host) = (self.target.clone(), self.host.clone());
        let rank = rank::waited_for(self.found.kind, || false);
        let errand = Errand {
            class: self.found.kind.into(),
            avoided: avoided.and(*self.left.lock()),
            budget,
            ..Errand::get(target, host, headers, rank)
        };
        self.origin().fetch(errand).await.map_err(|_| Fault::Failed)
    }

    /// Is this the slice that was asked for, of the object that is held?
    fn examine(&self, reply: &Reply, span: Span) -> Result<(), Fault> {
        let told = reply
            .headers
            .get(header::CONTENT_RANGE)
            .and_then(read_content_range);
        let etag = reply.headers.get(header::ETAG);
        // Some servers give what they have coded the `ETag` of what they have not.
        let is_coded = reply.headers.contains_key(header::CONTENT_ENCODING);
        match reply.status {
            StatusCode::PARTIAL_CONTENT if etag != Some(&self.series.etag) => Err(match etag {
                Some(other) if other.as_bytes().starts_with(b"\"") => Fault::Changed,
                _ => Fault::NoParts,
            }),
            StatusCode::PARTIAL_CONTENT if is_coded => Err(Fault::NoParts),
            StatusCode::PARTIAL_CONTENT => match told {
                Some((_, length)) if length != self.series.length => Err(Fault::Changed),
                Some((there, _)) if there == span => Ok(()),
                _ => Err(Fault::NoParts),
            },
            StatusCode::OK if etag == Some(&self.series.etag) => Err(Fault::NoParts),
            StatusCode::OK | StatusCode::PRECONDITION_FAILED => Err(Fault::Changed),
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND | StatusCode::GONE => {
                Err(Fault::Changed)
            }
            _ => Err(Fault::Failed),
        }
    }
}
