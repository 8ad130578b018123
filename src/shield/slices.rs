//! An object too large for one fetch, served slice after slice. Each slice is an object of its own:
//! stored, single-flighted, and tied to the others by the strong `ETag` they all carry. A purge ends the series,
//! and with it all its slices.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::timeout;

use super::ask::Ask;
use super::journey::Step;
use super::respond::to_usize;
use super::status::Forward;
use super::whole::whole;
use super::{Body, Shield, rank, respond};
use crate::cache::{
    Cut, FieldLines, Fill, Found, Head, Joined, Known, Landing, Note, Object, Series, Tie, Verdict,
};
use crate::origin::{Errand, Reply};
use crate::policy::range::{Span, read_content_range};
use crate::policy::{Key, Lifetime, Route};
use crate::telemetry::Outcome;

/// The strong `ETag` in its key says that a slice cannot change: it may be kept for long.
const SLICE_KEPT: Duration = Duration::from_hours(24);
/// That an origin sends no parts of an object is remembered for so long.
const UNSLICEABLE_MEMORY: Duration = Duration::from_mins(10);
/// A slice is looked up again when its fill ended meanwhile; so often at most.
const LOOKUPS_MAX: usize = 3;

/// What all slices of one object share.
struct Source {
    shield: Arc<Shield>,
    route: Arc<Route>,
    /// Where the series is noted.
    found: Found,
    target: PathAndQuery,
    host: Option<HeaderValue>,
    upstream: HeaderMap,
    series: Arc<Series>,
}

/// Why a slice did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The object is another by now.
    Changed,
    /// The origin sends no parts after all.
    NoParts,
    /// It failed, or there was no room: the next try may do better.
    Failed,
}

impl Shield {
    /// Answers from slices. The first one needed is there before anything is promised; without it,
    /// the key is looked at again with what has been learned.
    pub(super) async fn sliced(
        self: &Arc<Self>,
        mut ask: Ask,
        found: &Found,
        series: Arc<Series>,
    ) -> Step {
        ask.forward = Forward::Partial;
        let entry = &ask.entry;
        let source = Arc::new(Source {
            shield: Arc::clone(self),
            route: Arc::clone(&entry.route),
            found: found.clone(),
            target: entry.target.clone(),
            host: entry.sent_host().cloned(),
            upstream: self.upstream(&ask),
            series: Arc::clone(&series),
        });
        // Several parts of a very large object: the whole is a permitted answer.
        let start = respond::first_byte(&ask, &series.head, series.length);
        if source.slice(start).await.is_err() {
            return Step::Again(ask);
        }
        let head = &series.head;
        Step::Answer(respond::sized(
            ask,
            head,
            series.length,
            Outcome::Miss,
            1,
            |spans| {
                let whole = Span {
                    start: 0,
                    end: series.length,
                };
                let span = spans.first().copied().unwrap_or(whole);
                Body::Sliced(Box::new(Sliced::new(source, span)))
            },
        ))
    }
}

type Fetch = Pin<Box<dyn Future<Output = Result<Arc<Object>, Cut>> + Send>>;

/// A body made of slices.
pub struct Sliced {
    source: Arc<Source>,
    at: u64,
    end: u64,
    fetch: Fetch,
}

impl Sliced {
    fn new(source: Arc<Source>, span: Span) -> Sliced {
        let fetch = fetch(&source, span.start);
        Sliced {
            source,
            at: span.start,
            end: span.end,
            fetch,
        }
    }

    pub(super) fn left(&self) -> u64 {
        self.end - self.at
    }

    pub(super) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let slice = match ready!(self.fetch.as_mut().poll(cx)) {
            Ok(slice) => slice,
            Err(cut) => {
                self.end = self.at;
                return Poll::Ready(Some(Err(cut)));
            }
        };
        let span = self.source.span(self.at);
        let end = span.end.min(self.end);
        let within = to_usize(self.at - span.start)..to_usize(end - span.start);
        let bytes = slice.body.slice(within);
        self.at = end;
        if self.at < self.end {
            self.fetch = fetch(&self.source, self.at);
        }
        Poll::Ready(Some(Ok(bytes)))
    }
}

fn fetch(source: &Arc<Source>, offset: u64) -> Fetch {
    let source = Arc::clone(source);
    Box::pin(async move { source.slice(offset).await })
}

impl Source {
    /// The slice that holds `offset`.
    fn span(&self, offset: u64) -> Span {
        let size = self.shield.settings.slice_bytes.max(1);
        let start = offset / size * size;
        Span {
            start,
            end: (start + size).min(self.series.length),
        }
    }

    fn key(&self, span: Span) -> Key {
        Key::of(&[
            b"slice",
            self.found.slot.bytes(),
            &self.series.number.to_be_bytes(),
            &span.start.to_be_bytes(),
            &span.end.to_be_bytes(),
        ])
    }

    async fn slice(self: &Arc<Self>, offset: u64) -> Result<Arc<Object>, Cut> {
        let span = self.span(offset);
        let key = self.key(span);
        let cache = &self.shield.cache;
        for _ in 0..LOOKUPS_MAX {
            let found = cache.lookup(&key, self.found.kind, HeaderMap::new);
            if let Some(object) = found.object {
                object.hits.add();
                return Ok(object);
            }
            let mut follower = match cache.join(&found, &self.upstream) {
                Joined::Held(object) => return Ok(object),
                Joined::Again => continue,
                Joined::Crowded => return Err(Cut),
                Joined::Follow(follower) => follower,
                Joined::Lead(fill, follower) => {
                    tokio::spawn(Arc::clone(self).fill(fill, span));
                    follower
                }
            };
            let wait_max = self.shield.settings.wait_max;
            return match timeout(wait_max, follower.landing()).await {
                Ok(Landing::Settled(Verdict::Object(object))) => Ok(object),
                _ => Err(Cut),
            };
        }
        Err(Cut)
    }

    /// One slice's fill.
    async fn fill(self: Arc<Self>, fill: Fill, span: Span) {
        match self.fetch(&fill, span).await {
            Ok(object) => {
                let object = Arc::new(object);
                fill.keep(&object, Verdict::Object(Arc::clone(&object)));
            }
            Err(fault) => {
                self.learn(fault);
                fill.settle(Verdict::Lost);
            }
        }
    }

    /// What a missing slice says of the whole.
    fn learn(&self, fault: Fault) {
        let cache = &self.shield.cache;
        match fault {
            Fault::Failed => {}
            Fault::Changed => cache.purge(&self.found.key, self.found.kind),
            Fault::NoParts => cache.note(
                &self.found,
                Note {
                    until: Instant::now() + UNSLICEABLE_MEMORY,
                    what: Known::Unsliceable,
                },
            ),
        }
    }

    async fn fetch(&self, fill: &Fill, span: Span) -> Result<Object, Fault> {
        let mut headers = fill.upstream().clone();
        let range = format!("bytes={}-{}", span.start, span.end - 1);
        let range = HeaderValue::try_from(range).map_err(|_| Fault::Failed)?;
        headers.insert(header::RANGE, range);
        headers.insert(header::IF_MATCH, self.series.etag.clone());
        let (target, host) = (self.target.clone(), self.host.clone());
        let errand = Errand::get(
            target,
            host,
            headers,
            rank::waited_for(self.found.kind, || false),
        );
        let origin = &self.shield.origins[self.route.origin_index];
        let mut reply = origin.fetch(errand).await.map_err(|_| Fault::Failed)?;
        self.examine(&reply, span)?;
        let reserve = |bytes| fill.reserve(bytes);
        let read = whole(&mut reply.body, span.length(), reserve).await;
        let body = read.map_err(|_| Fault::Failed)?;
        if body.len() as u64 != span.length() {
            return Err(Fault::Failed);
        }
        Ok(Object::new(self.head(), body))
    }

    /// Is this the slice that was asked for, of the object that is held?
    fn examine(&self, reply: &Reply, span: Span) -> Result<(), Fault> {
        let told = reply
            .headers
            .get(header::CONTENT_RANGE)
            .and_then(read_content_range);
        let etag = reply.headers.get(header::ETAG);
        match reply.status {
            StatusCode::PARTIAL_CONTENT if etag != Some(&self.series.etag) => Err(match etag {
                Some(other) if other.as_bytes().starts_with(b"\"") => Fault::Changed,
                _ => Fault::NoParts,
            }),
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

    fn head(&self) -> Head {
        Head {
            headers: FieldLines::default(),
            targeted: None,
            tie: self.series.head.tie.as_ref().map(Tie::of_part),
            lifetime: Lifetime {
                fresh_for: SLICE_KEPT,
                ..Lifetime::none(Instant::now())
            },
            ..self.series.head.clone()
        }
    }
}
