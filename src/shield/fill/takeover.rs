//! An endpoint has begun to answer, and stops or slows down in the middle. Another one is asked too where that is
//! safe: before viewers have anything of the body, or where a strong `ETag` says that it is the same one. Both
//! go on: the other one takes over as soon as it is further than the one that began.

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::{sleep, timeout};

use super::Job;
use super::pace::{BodyPace, Expected};
use crate::cache::{Known, Note};
use crate::origin::{Errand, Failure, Framing, Inflow, Origin, Reply};
use crate::policy::EndpointSet;
use crate::policy::range::{Span, read_content_range};
use crate::shield::Shield;

/// After so long without a byte another endpoint is asked.
pub(in crate::shield) const SILENCE: Duration = Duration::from_millis(700);
/// The same where nobody knows how long the body will be: it may still be made, a chunk a second.
const PAUSE: Duration = Duration::from_millis(1500);
/// So much later a body that no other endpoint can go on with is cut: players ask for it anew, and
/// are answered by another endpoint. The same for one that stays too slow.
const CUT_AFTER: Duration = Duration::from_millis(1300);
/// Where another endpoint could not be asked, or was of no use, none is asked before this has passed.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// So long, and so much of it, a slow body is kept from viewers, so that another endpoint may begin anew.
const HELD_MAX: Duration = Duration::from_secs(3);
const HELD_BYTES_MAX: u64 = 256 << 10;
/// An endpoint that has brought so much and is still behind the one that began is of no use.
const RACE_BYTES_MAX: u64 = 1 << 20;
/// For so long requests for the same go to others first.
const AVOIDED: Duration = Duration::from_secs(10);

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

/// How far a body has come, and what another endpoint would have to go on from.
#[derive(Clone)]
pub(super) struct Begun {
    pub(super) endpoint: usize,
    /// Those that had it before, or were asked to go on and did not.
    left: EndpointSet,
    etag: Option<HeaderValue>,
    /// Some servers give what they have coded the `ETag` of what they have not.
    codings: Vec<HeaderValue>,
    pub(super) length: Option<u64>,
    pub(super) received: u64,
    /// Viewers have the head, and what has been received so far.
    is_shown: bool,
    /// Another endpoint may be asked to go on.
    pub(super) may_move: bool,
}

impl Begun {
    pub(super) fn new(reply: &Reply, left: EndpointSet, may_move: bool) -> Begun {
        let etag = reply.headers.get(header::ETAG);
        let strong = etag.filter(|etag| etag.as_bytes().starts_with(b"\""));
        Begun {
            endpoint: reply.endpoint,
            left,
            etag: strong.cloned(),
            codings: codings(reply).cloned().collect(),
            length: match reply.framing {
                Framing::Length(length) => Some(length),
                Framing::Delimited | Framing::UntilClose => None,
            },
            received: 0,
            is_shown: false,
            may_move: may_move && reply.status == StatusCode::OK,
        }
    }

    /// The endpoints that are of no use for it.
    fn tried(&self) -> EndpointSet {
        self.left.with(self.endpoint)
    }

    /// Whether all has come that was promised when the body began.
    pub(super) fn is_whole(&self) -> bool {
        self.length.is_none_or(|length| length == self.received)
    }

    /// More has come than was promised.
    pub(super) fn is_too_long(&self) -> bool {
        self.length.is_some_and(|length| self.received > length)
    }

    /// Where another endpoint would have to go on from.
    fn shown(&self) -> u64 {
        if self.is_shown { self.received } else { 0 }
    }

    /// An answer to this is the rest of it, or all of it where viewers have nothing yet. `None`: no
    /// other endpoint can go on.
    fn rest(&self, upstream: &HeaderMap) -> Option<HeaderMap> {
        let mut headers = upstream.clone();
        if self.shown() > 0 {
            let etag = self.etag.as_ref()?;
            let range = HeaderValue::try_from(format!("bytes={}-", self.received)).ok()?;
            headers.insert(header::RANGE, range);
            headers.insert(header::IF_MATCH, etag.clone());
        }
        Some(headers)
    }

    fn is_rest(&self, reply: &Reply) -> bool {
        if self.tried().contains(reply.endpoint) {
            return false;
        }
        if self.shown() == 0 {
            return reply.status == StatusCode::OK;
        }
        let told = reply.headers.get(header::CONTENT_RANGE);
        let told = told.and_then(read_content_range);
        let goes_on = told.is_some_and(|(Span { start, end }, whole)| {
            start == self.received
                && end == whole
                && self.length.is_none_or(|length| length == whole)
        });
        reply.status == StatusCode::PARTIAL_CONTENT
            && reply.headers.get(header::ETAG) == self.etag.as_ref()
            && codings(reply).eq(&self.codings)
            && goes_on
    }
}

fn codings(reply: &Reply) -> impl Iterator<Item = &HeaderValue> {
    reply.headers.get_all(header::CONTENT_ENCODING).into_iter()
}

/// A body under way.
pub(super) struct Delivery {
    pub(super) begun: Begun,
    pace: BodyPace,
    is_complete: bool,
    /// Another endpoint that is asked for it too.
    race: Option<Race>,
    late_since: Option<Instant>,
    asked: Option<Instant>,
}

/// Another endpoint on its way to overtake the one that began.
struct Race {
    other: Pin<Box<dyn Future<Output = Result<Reply, Option<usize>>> + Send>>,
    /// How far the one that began has come.
    came: Arc<AtomicU64>,
    /// That one is silent or has failed. If not, it is slow.
    failed: bool,
}

impl Delivery {
    pub(super) fn new(begun: Begun, expected: Expected) -> Delivery {
        Delivery {
            begun,
            pace: BodyPace::new(expected, Instant::now()),
            is_complete: expected.is_complete,
            race: None,
            late_since: None,
            asked: None,
        }
    }

    /// It may yet be replaced: viewers are to have nothing of it.
    pub(super) fn is_held(&self) -> bool {
        let now = Instant::now();
        self.begun.may_move
            && self.pace.is_behind(now)
            && (self.race.is_some() || !self.pace.is_late(now))
            && self.pace.age(now) < HELD_MAX
            && self.begun.received < HELD_BYTES_MAX
    }

    /// Viewers have the head, and what has come: from now on only the rest of the same will do.
    pub(super) fn show(&mut self) {
        self.begun.is_shown = true;
        self.race = None;
    }

    /// Its reader took so long.
    pub(super) fn pause(&mut self, span: Duration) {
        self.pace.pause(span);
    }

    /// Another endpoint goes on with it.
    pub(super) fn move_to(&mut self, endpoint: usize) {
        self.begun.left = self.begun.tried();
        self.begun.endpoint = endpoint;
        self.pace.restart(Instant::now());
        self.late_since = None;
        self.asked = None;
    }

    /// Bytes came; true where they come too slowly.
    fn add(&mut self, bytes: usize, now: Instant) -> bool {
        self.begun.received += bytes as u64;
        self.pace.add(bytes, now);
        if let Some(race) = &self.race {
            race.came.store(self.begun.received, Ordering::Relaxed);
        }
        let is_late = self.pace.is_late(now);
        self.late_since = is_late.then(|| self.late_since.unwrap_or(now));
        is_late
    }
}

/// Asks another endpoint, and reads its answer until that is further than the one that began. Fails with the
/// endpoint that was of no use.
async fn overtake(
    shield: Arc<Shield>,
    (origin_index, errand): (usize, Errand),
    begun: Begun,
    came: Arc<AtomicU64>,
) -> Result<Reply, Option<usize>> {
    let reply = shield.origins[origin_index].fetch(errand).await;
    let mut reply = reply.map_err(|_| None)?;
    let vain = Err(Some(reply.endpoint));
    if !begun.is_rest(&reply) {
        return vain;
    }
    loop {
        let ahead = reply.body.ahead_bytes();
        let came = came.load(Ordering::Relaxed) - begun.shown();
        if ahead > came {
            reply.body.skip(if begun.is_shown { came } else { 0 });
            return Ok(reply);
        }
        if ahead > RACE_BYTES_MAX {
            return vain;
        }
        match timeout(SILENCE, reply.body.read_ahead()).await {
            Ok(Some(Ok(()))) => {}
            // Nothing is the whole of it.
            Ok(None) if came == 0 => return Ok(reply),
            Ok(Some(Err(_)) | None) | Err(_) => return vain,
        }
    }
}

/// How another endpoint's race ends; never, where none is asked.
async fn finish(race: &mut Option<Race>) -> Result<Reply, Option<usize>> {
    match race {
        Some(race) => race.other.as_mut().await,
        None => pending().await,
    }
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
                }
                () = &mut silent, if !is_silent => {
                    is_silent = true;
                    if delivery.begun.may_move && self.another_stands(&delivery.begun) {
                        if delivery.is_complete {
                            self.leave(delivery.begun.endpoint);
                        }
                        let is_shown = delivery.begun.shown() > 0;
                        is_cut = self.ask_another(delivery, true) && delivery.is_complete && is_shown;
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
    fn raced(&self, end: Result<Reply, Option<usize>>, delivery: &mut Delivery) -> Option<Reply> {
        let failed = delivery.race.take().is_some_and(|race| race.failed);
        match end {
            Ok(reply) => {
                self.leave(delivery.begun.endpoint);
                self.origin().took_over(true);
                Some(reply)
            }
            Err(vain) => {
                if failed {
                    self.origin().took_over(false);
                }
                if let Some(endpoint) = vain {
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
        if !self.origin().may_take_over(begun.endpoint, failed) {
            return false;
        }
        let errand = Errand {
            takes_over: true,
            ..self.errand(headers, self.others(begun.tried()))
        };
        let came = Arc::new(AtomicU64::new(begun.received));
        let index = self.entry.route.origin_index;
        let (shield, begun) = (Arc::clone(&self.shield), begun.clone());
        let other = Box::pin(overtake(shield, (index, errand), begun, Arc::clone(&came)));
        delivery.race = Some(Race {
            other,
            came,
            failed,
        });
        true
    }

    /// It has been too slow for a while, nobody can go on with it, and another endpoint has not been given up
    /// for the same a moment ago: whoever asks anew is better off.
    fn is_to_be_cut(&self, delivery: &mut Delivery) -> bool {
        let (begun, now) = (&delivery.begun, Instant::now());
        let since = delivery.late_since;
        let is_hopeless = since.is_some_and(|since| now >= since + CUT_AFTER);
        if !is_hopeless || !begun.is_shown || !begun.may_move || delivery.race.is_some() {
            return false;
        }
        let left = self.left_before(now).unwrap_or_default();
        if left.has_other_than(begun.endpoint) || !self.another_stands(begun) {
            return false;
        }
        let allowed = self.origin().may_take_over(begun.endpoint, false);
        if !allowed {
            delivery.late_since = Some(now);
        }
        allowed
    }

    fn origin(&self) -> &Origin {
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
        let origin = &self.shield.origins[self.entry.route.origin_index];
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
