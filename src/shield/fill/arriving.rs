//! The origin sends something that viewers need not wait for the end of: it goes to everyone chunk by
//! chunk, and what is too large for one fetch is left to slices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header};

use super::Job;
use crate::cache::{Flow, Known, Note, Series, Verdict};
use crate::media::Kind;
use crate::origin::{Framing, Reply};
use crate::policy::Lifetime;
use crate::policy::lifetime::Reason;
use crate::policy::vary::Vary;

/// That an object is too large for one fetch is remembered for so long at most.
const LARGE_MEMORY_MAX: Duration = Duration::from_hours(1);

impl Job {
    /// Hands every chunk to everyone as it arrives, and stores the whole.
    pub(super) async fn stream(self, reply: Reply, kind: Kind, lifetime: Lifetime) {
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
        self.fill.varies(self.vary(&reply.headers));
        let mut inflow = reply.body;
        let mut head = self.head(reply.status, reply.headers, kind, lifetime, true);
        if let Framing::Length(length) = reply.framing {
            head.length = Some(length);
        }
        self.fill.begin(Arc::new(head));
        loop {
            let next = tokio::select! {
                next = inflow.next() => next,
                () = self.given_up(false) => return self.fill.cut(),
            };
            match next {
                None => return self.fill.finish().await,
                Some(Err(failure)) => return self.broke_off(failure),
                Some(Ok(bytes)) => {
                    let pushed = inflow.wait_for_viewer(self.fill.push(bytes)).await;
                    if pushed != Some(Flow::On) {
                        return self.fill.cut();
                    }
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
