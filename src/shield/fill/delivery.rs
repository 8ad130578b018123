//! A body under way: how far and how fast it has come, and which other endpoint is on its way to overtake it.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::timeout;

use super::pace::{BodyPace, Expected};
use super::takeover::SILENCE;
use crate::origin::{Errand, Framing, Inflow, Reply, Takeover};
use crate::policy::EndpointSet;
use crate::policy::range::{Span, read_content_range};
use crate::shield::Shield;

/// So long, and so much of it, a slow body is kept from viewers, so that another endpoint may begin anew.
const HELD_MAX: Duration = Duration::from_secs(3);
const HELD_BYTES_MAX: u64 = 256 << 10;
/// An endpoint that has brought so much and is still behind the one that began is of no use.
const RACE_BYTES_MAX: u64 = 1 << 20;

/// How far a body has come, and what another endpoint would have to go on from.
#[derive(Clone)]
pub(super) struct Begun {
    pub(super) endpoint: usize,
    /// Those that had it before, or were asked to go on and did not.
    pub(super) left: EndpointSet,
    etag: Option<HeaderValue>,
    /// Some servers give what they have coded the `ETag` of what they have not.
    codings: Vec<HeaderValue>,
    pub(super) length: Option<u64>,
    /// The origin has all of it. If not, nothing says where it ends but the one that produces it.
    pub(super) is_complete: bool,
    pub(super) received: u64,
    /// Viewers have the head, and what has been received so far.
    pub(super) is_shown: bool,
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
            is_complete: matches!(reply.framing, Framing::Length(_)),
            received: 0,
            is_shown: false,
            may_move: may_move && reply.status == StatusCode::OK,
        }
    }

    /// The endpoints that are of no use for it.
    pub(super) fn tried(&self) -> EndpointSet {
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
    pub(super) fn shown(&self) -> u64 {
        if self.is_shown { self.received } else { 0 }
    }

    /// An answer to this is the rest of it, or all of it where viewers have nothing yet. `None`: no
    /// other endpoint can go on.
    pub(super) fn rest(&self, upstream: &HeaderMap) -> Option<HeaderMap> {
        let mut headers = upstream.clone();
        if self.shown() > 0 {
            // Where another endpoint is not as far with it, its end is not the end.
            if !self.is_complete {
                return None;
            }
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
        let goes_on = told(reply).is_some_and(|(Span { start, end }, whole)| {
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

/// Which part of how much it says that it is.
fn told(reply: &Reply) -> Option<(Span, u64)> {
    let told = reply.headers.get(header::CONTENT_RANGE);
    told.and_then(read_content_range)
}

fn codings(reply: &Reply) -> impl Iterator<Item = &HeaderValue> {
    reply.headers.get_all(header::CONTENT_ENCODING).into_iter()
}

/// A body under way.
pub(super) struct Delivery {
    pub(super) begun: Begun,
    pace: BodyPace,
    /// Another endpoint that is asked for it too.
    pub(super) race: Option<Race>,
    pub(super) late_since: Option<Instant>,
    pub(super) asked: Option<Instant>,
}

/// Another endpoint on its way to overtake the one that began.
pub(super) struct Race {
    other: Pin<Box<dyn Future<Output = Result<Reply, Vain>> + Send>>,
    /// How far the one that began has come.
    came: Arc<AtomicU64>,
    /// That one is silent or has failed. If not, it is slow.
    pub(super) failed: bool,
    _leave: Takeover,
}

/// No other endpoint was of use: this one, where one answered.
pub(super) struct Vain(pub(super) Option<usize>);

impl Race {
    pub(super) fn start(
        shield: Arc<Shield>,
        asks: (usize, Errand),
        begun: &Begun,
        (failed, leave): (bool, Takeover),
    ) -> Race {
        let came = Arc::new(AtomicU64::new(begun.received));
        let other = overtake(shield, asks, begun.clone(), Arc::clone(&came));
        Race {
            other: Box::pin(other),
            came,
            failed,
            _leave: leave,
        }
    }
}

impl Delivery {
    pub(super) fn new(mut begun: Begun, expected: Expected) -> Delivery {
        begun.is_complete = expected.is_complete;
        Delivery {
            begun,
            pace: BodyPace::new(expected, Instant::now()),
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
        self.late_since = None;
    }

    /// Its reader took so long.
    pub(super) fn pause(&mut self, span: Duration) {
        self.pace.pause(span);
    }

    /// Another endpoint goes on with it, and has said how long it is.
    pub(super) fn move_to(&mut self, reply: &Reply) {
        self.begun.left = self.begun.tried();
        self.begun.endpoint = reply.endpoint;
        let told = told(reply).map(|(_, length)| length);
        self.begun.length = self.begun.length.or(told);
        self.pace.restart(Instant::now());
        self.late_since = None;
        self.asked = None;
    }

    /// Bytes came; true where they come too slowly.
    pub(super) fn add(&mut self, bytes: usize, now: Instant) -> bool {
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
) -> Result<Reply, Vain> {
    let reply = shield.origins[origin_index].fetch(errand).await;
    let mut reply = reply.map_err(|_| Vain(None))?;
    let vain = Err(Vain(Some(reply.endpoint)));
    if !begun.is_rest(&reply) {
        return vain;
    }
    match get_ahead(&mut reply.body, &came, begun.shown()).await {
        Some(shown) if begun.is_shown => reply.body.skip(shown),
        Some(_) => {}
        None => return vain,
    }
    Ok(reply)
}

/// Reads a body that begins at `from` until it is further than another one has come. Gives how far that one is
/// in it; `None`: it does not get there.
pub(in crate::shield) async fn get_ahead(
    body: &mut Inflow,
    came: &AtomicU64,
    from: u64,
) -> Option<u64> {
    loop {
        let ahead = body.ahead_bytes();
        let came = came.load(Ordering::Relaxed) - from;
        if ahead > came {
            return Some(came);
        }
        if ahead > RACE_BYTES_MAX {
            return None;
        }
        match timeout(SILENCE, body.read_ahead()).await {
            Ok(Some(Ok(()))) => {}
            // Nothing is the whole of it.
            Ok(None) if came == 0 => return Some(0),
            Ok(Some(Err(_)) | None) | Err(_) => return None,
        }
    }
}

/// How another endpoint's race ends; never, where none is asked.
pub(super) async fn finish(race: &mut Option<Race>) -> Result<Reply, Vain> {
    match race {
        Some(race) => race.other.as_mut().await,
        None => pending().await,
    }
}
