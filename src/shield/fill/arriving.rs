//! The origin sends something that viewers need not wait for the end of: it goes to everyone chunk by
//! chunk, and what is too large for one fetch is left to slices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header};

use super::Job;
use super::empty::has_bytes;
use super::takeover::{Begun, Came, Piece};
use crate::cache::{Flow, Known, Note, Series, Verdict};
use crate::media::Kind;
use crate::origin::{Failure, Framing, Inflow, Reply};
use crate::policy::Lifetime;
use crate::policy::lifetime::Reason;
use crate::policy::vary::Vary;

/// That an object is too large for one fetch is remembered for so long at most.
const LARGE_MEMORY_MAX: Duration = Duration::from_hours(1);

impl Job {
    /// Hands every chunk to everyone as it arrives, and stores the whole.
    pub(super) async fn stream(mut self, reply: Reply, kind: Kind, lifetime: Lifetime) {
        if let Framing::Length(length) = reply.framing {
            let settings = &self.shield.settings;
            if length > settings.whole_fetch_max
                && let Some(etag) = self.sliceable(&reply, &lifetime)
            {
                return self.slice(reply, kind, lifetime, length, etag);
            }
            if !self.fill.fits(length) {
                return self.pass(reply, Reason::TooLarge);
            }
        }
        let has_bytes = has_bytes(kind, reply.status);
        if has_bytes && reply.framing == Framing::Length(0) {
            return self.empty(reply.endpoint).await;
        }
        let origin = &self.shield.origins[self.entry.route.origin_index];
        let begun = Begun::new(&reply, !self.moved && origin.has_others());
        let mut inflow = reply.body;
        // Another endpoint can give another answer only until viewers have this one's head.
        let mut first = None;
        let is_doubtful = has_bytes && begun.length.is_none();
        if begun.may_move || is_doubtful {
            match self.piece(&mut inflow, &begun).await {
                Piece::Came(Some(Err(failure))) => return self.failed(failure),
                Piece::Came(None) if has_bytes => return self.empty(begun.endpoint).await,
                Piece::Came(came) => first = Some(came),
                Piece::Deserted => return self.fill.cut(),
                Piece::Elsewhere(other) => {
                    inflow.outdone();
                    self.moved = true;
                    return Box::pin(self.landed(other)).await;
                }
            }
        }
        self.fill.varies(self.vary(&reply.headers));
        let mut head = self.head(reply.status, reply.headers, kind, lifetime, true);
        head.length = begun.length;
        self.fill.begin(Arc::new(head));
        self.feed(inflow, begun, first).await;
    }

    /// Hands on what comes, from this endpoint or from the one that takes over.
    async fn feed(self, mut inflow: Inflow, mut begun: Begun, mut first: Option<Came>) {
        loop {
            let piece = match first.take() {
                Some(came) => Piece::Came(came),
                None => self.piece(&mut inflow, &begun).await,
            };
            match piece {
                Piece::Deserted => return self.fill.cut(),
                Piece::Came(None) if begun.is_whole() => return self.fill.finish().await,
                Piece::Came(None) => return self.broke_off(Failure::Truncated, begun.endpoint),
                Piece::Came(Some(Err(failure))) => {
                    return self.broke_off(failure, begun.endpoint);
                }
                Piece::Came(Some(Ok(bytes))) => {
                    begun.received += bytes.len() as u64;
                    if begun.is_too_long() {
                        return self.broke_off(Failure::Truncated, begun.endpoint);
                    }
                    let pushed = inflow.wait_for_viewer(self.fill.push(bytes)).await;
                    if pushed != Some(Flow::On) {
                        return self.fill.cut();
                    }
                }
                Piece::Elsewhere(other) => {
                    begun.endpoint = other.endpoint;
                    begun.may_move = false;
                    std::mem::replace(&mut inflow, other.body).outdone();
                }
            }
        }
    }

    /// Slices need parts, a strong validator to tie them together, and time to be of use; variants are
    /// never sliced, nor is what could not be sliced a moment ago.
    fn sliceable(&self, reply: &Reply, lifetime: &Lifetime) -> Option<HeaderValue> {
        let now = Instant::now();
        let found = self.fill.found();
        let known = self.shield.cache.noted(&found.slot, now);
        let ranges = reply.headers.get(header::ACCEPT_RANGES)?;
        let etag = reply.headers.get(header::ETAG)?;
        let sliceable = ranges == "bytes"
            && etag.as_bytes().starts_with(b"\"")
            && reply.status == StatusCode::OK
            && Vary::of(&reply.headers) == Vary::Nothing
            && !found.has_variants()
            && !lifetime.fresh_left(now).is_zero()
            && !matches!(known, Some(Known::Unsliceable));
        // A copy: it is kept for long, and what it was read into is not.
        let etag = HeaderValue::from_bytes(etag.as_bytes()).ok()?;
        sliceable.then_some(etag)
    }

    /// Too large for one fetch: this one is given up, and slices take over.
    fn slice(self, reply: Reply, kind: Kind, lifetime: Lifetime, length: u64, etag: HeaderValue) {
        let now = Instant::now();
        let memory = lifetime.fresh_left(now).min(LARGE_MEMORY_MAX);
        let mut head = self.head(reply.status, reply.headers, kind, lifetime, true);
        head.length = Some(length);
        let series = Series {
            head,
            length,
            etag,
            tie: self.shield.cache.tie_slices(&self.fill.found().key),
        };
        self.fill.displace();
        self.fill.note(Note {
            until: now + memory,
            what: Known::Sliced(Arc::new(series)),
        });
        self.fill.settle(Verdict::Sliced);
    }
}
