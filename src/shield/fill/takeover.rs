//! An endpoint has begun to answer and stops in the middle. Another one takes over where that is safe:
//! before viewers have anything of the body, or where a strong `ETag` says that it is the same one. It does
//! so with its first byte: it may be as late as the one that began.

use std::future::pending;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::sleep;

use super::Job;
use crate::cache::{Known, Note};
use crate::origin::{Failure, Framing, Inflow, Reply};
use crate::policy::range::{Span, read_content_range};

/// After so long without a byte another endpoint is asked.
pub(in crate::shield) const SILENCE: Duration = Duration::from_millis(700);
/// The same where nobody knows how long the body will be: it may still be made, a chunk a second.
const PAUSE: Duration = Duration::from_millis(1500);
/// So much later a body that no other endpoint can go on with is cut: players ask for it anew, and
/// are answered by another endpoint.
const CUT_AFTER: Duration = Duration::from_millis(1300);
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
pub(super) struct Begun {
    pub(super) endpoint: usize,
    etag: Option<HeaderValue>,
    /// Some servers give what they have coded the `ETag` of what they have not.
    codings: Vec<HeaderValue>,
    pub(super) length: Option<u64>,
    pub(super) received: u64,
    /// Another endpoint may be asked to go on.
    pub(super) may_move: bool,
}

impl Begun {
    pub(super) fn new(reply: &Reply, may_move: bool) -> Begun {
        let etag = reply.headers.get(header::ETAG);
        let strong = etag.filter(|etag| etag.as_bytes().starts_with(b"\""));
        Begun {
            endpoint: reply.endpoint,
            etag: strong.cloned(),
            codings: codings(reply).cloned().collect(),
            length: match reply.framing {
                Framing::Length(length) => Some(length),
                Framing::Delimited | Framing::UntilClose => None,
            },
            received: 0,
            may_move: may_move && reply.status == StatusCode::OK,
        }
    }

    /// Whether all has come that was promised when the body began.
    pub(super) fn is_whole(&self) -> bool {
        self.length.is_none_or(|length| length == self.received)
    }

    /// More has come than was promised.
    pub(super) fn is_too_long(&self) -> bool {
        self.length.is_some_and(|length| self.received > length)
    }

    /// What is promised is there; what is still being made may have pauses.
    fn is_promised(&self) -> bool {
        self.length.is_some()
    }

    /// An answer to this is the rest of it, or all of it where viewers have nothing yet. `None`: no
    /// other endpoint can go on.
    fn rest(&self, upstream: &HeaderMap) -> Option<HeaderMap> {
        let mut headers = upstream.clone();
        if self.received > 0 {
            let (etag, _) = self.etag.as_ref().zip(self.length)?;
            let range = HeaderValue::try_from(format!("bytes={}-", self.received)).ok()?;
            headers.insert(header::RANGE, range);
            headers.insert(header::IF_MATCH, etag.clone());
        }
        Some(headers)
    }

    fn is_rest(&self, reply: &Reply) -> bool {
        if reply.endpoint == self.endpoint {
            return false;
        }
        if self.received == 0 {
            return reply.status == StatusCode::OK;
        }
        let told = reply.headers.get(header::CONTENT_RANGE);
        let told = told.and_then(read_content_range);
        let wanted = self.length.map(|length| {
            let (start, end) = (self.received, length);
            (Span { start, end }, length)
        });
        reply.status == StatusCode::PARTIAL_CONTENT
            && reply.headers.get(header::ETAG) == self.etag.as_ref()
            && codings(reply).eq(&self.codings)
            && told.is_some()
            && told == wanted
    }
}

fn codings(reply: &Reply) -> impl Iterator<Item = &HeaderValue> {
    reply.headers.get_all(header::CONTENT_ENCODING).into_iter()
}

impl Job {
    /// Waits for the next piece; where the endpoint falls silent or breaks off, for another one's
    /// answer to go on with too.
    pub(super) async fn piece(&self, inflow: &mut Inflow, begun: &Begun) -> Piece {
        let mut next = pin!(inflow.next());
        let mut given_up = pin!(self.given_up(false));
        let is_promised = begun.is_promised();
        let silence = if is_promised { SILENCE } else { PAUSE };
        let came = tokio::select! {
            came = &mut next => Some(came),
            () = &mut given_up => return Piece::Deserted,
            () = sleep(silence), if begun.may_move => None,
        };
        let origin = &self.shield.origins[self.entry.route.origin_index];
        let may_move = || begun.may_move && origin.another_stands(begun.endpoint);
        match came {
            Some(Some(Err(failure))) => {
                let broken = Piece::Came(Some(Err(failure)));
                if !may_move() {
                    return broken;
                }
                self.leave(begun.endpoint);
                tokio::select! {
                    other = self.rest_elsewhere(begun) => other.map_or(broken, Piece::Elsewhere),
                    () = &mut given_up => Piece::Deserted,
                }
            }
            Some(came) => Piece::Came(came),
            None if may_move() => {
                if is_promised {
                    self.leave(begun.endpoint);
                }
                let too_long = async {
                    if !is_promised || begun.received == 0 {
                        return pending().await;
                    }
                    sleep(CUT_AFTER).await;
                };
                tokio::select! {
                    biased;
                    came = &mut next => Piece::Came(came),
                    () = &mut given_up => Piece::Deserted,
                    Some(other) = self.rest_elsewhere(begun) => {
                        if !is_promised {
                            self.leave(begun.endpoint);
                        }
                        Piece::Elsewhere(other)
                    }
                    () = too_long => Piece::Came(Some(Err(Failure::Truncated))),
                }
            }
            None => tokio::select! {
                came = &mut next => Piece::Came(came),
                () = &mut given_up => Piece::Deserted,
            },
        }
    }

    /// The endpoint that is asked last, since it gave something unfit: for a manifest, or for what
    /// that lists.
    pub(super) fn avoided(&self) -> Option<usize> {
        let now = Instant::now();
        let noted = self.shield.cache.noted(&self.fill.found().slot, now);
        if let Some(Known::Avoid(endpoint)) = noted {
            return Some(endpoint);
        }
        if self.entry.kind.is_manifest() {
            return self.watched()?.avoided(now);
        }
        let listing = self.shield.streams.listing(&self.entry);
        listing.iter().rev().find_map(|watch| watch.avoided(now))
    }

    /// An endpoint is no good for what the manifests list: others are asked first for a while, for
    /// the manifests too.
    pub(super) fn avoid_for_media(&self, endpoint: usize, why: &str) {
        let now = Instant::now();
        let path = self.entry.target.path();
        for watch in self.shield.streams.listing(&self.entry) {
            if watch.avoided(now) != Some(endpoint) {
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
        let reply = self.fetch(self.fill.upstream().clone(), Some(than)).await?;
        let reply = reply.ok()?;
        let fit = reply.status == StatusCode::OK && reply.endpoint != than;
        fit.then_some(reply)
    }

    /// What another endpoint answers, if the body can go on with that, from its first byte on.
    async fn rest_elsewhere(&self, begun: &Begun) -> Option<Reply> {
        let headers = begun.rest(self.fill.upstream())?;
        let mut reply = self.fetch(headers, Some(begun.endpoint)).await?.ok()?;
        let goes_on = begun.is_rest(&reply) && reply.body.has_begun().await;
        goes_on.then_some(reply)
    }

    /// An endpoint broke off: for the same others are asked first, and for what is listed with it.
    pub(super) fn leave(&self, endpoint: usize) {
        self.avoid_for_media(endpoint, "it stopped in the middle");
        self.fill.note(Note {
            until: Instant::now() + AVOIDED,
            what: Known::Avoid(endpoint),
        });
    }
}
