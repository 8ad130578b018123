//! The origin sends something to store: a manifest is read first, a segment goes to everyone chunk by
//! chunk, and what is too large for one fetch is left to slices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header};

use super::Job;
use crate::cache::{Flow, Known, Note, Object, Series, Verdict};
use crate::media::Kind;
use crate::origin::{Failure, Framing, Reply};
use crate::policy::Lifetime;
use crate::policy::lifetime::{Reason, Storage};
use crate::policy::vary::Vary;
use crate::shield::manifest::{self, Unfit};
use crate::shield::whole::{Unread, whole};

/// That an object is too large for one fetch is remembered for so long at most.
const LARGE_MEMORY_MAX: Duration = Duration::from_hours(1);

impl Job {
    /// A manifest is held whole, read, and only then handed on.
    pub(super) async fn manifest(self, mut reply: Reply) {
        let bytes_max = self.shield.settings.manifest_bytes_max;
        let reserve = |bytes| self.fill.reserve(bytes);
        let read = match whole(&mut reply.body, bytes_max, reserve).await {
            Ok(body) => {
                let kind = self.judge(&reply, None).kind;
                manifest::facts(kind, &reply.headers, &body, bytes_max).map(|facts| (body, facts))
            }
            Err(unread) => Err(unread.into()),
        };
        let (body, facts) = match read {
            Ok(read) => read,
            Err(Unfit::Body(Unread::Origin(failure))) => return self.failed(failure),
            Err(Unfit::Body(Unread::NoRoom)) => return self.failed(Failure::Busy),
            Err(unfit) => {
                tracing::warn!(path = self.target.path(), "manifest refused: {unfit}");
                return self.failed(Failure::Protocol);
            }
        };
        let judged = self.judge(&reply, facts.as_ref());
        match judged.storage {
            Storage::Store(lifetime) => {
                let vary = Vary::of(&reply.headers);
                let (status, headers) = (reply.status, reply.headers);
                let mut head = self.head(status, headers, judged.kind, lifetime, true);
                head.facts = facts;
                self.fill.varies(vary);
                let object = Arc::new(Object::new(head, body));
                let verdict = Verdict::Object(Arc::clone(&object));
                self.fill.keep(&object, verdict);
            }
            Storage::Pass(reason) => self.hand_over_whole(reply, body, reason),
            // Only other statuses come to these.
            Storage::Failure { .. } | Storage::Gone | Storage::Refused => {
                self.failed(Failure::Protocol);
            }
        }
    }

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
            // Without room for it now, it goes through a window, to all who wait all the same.
            self.fill.reserve(length);
        }
        self.fill.varies(Vary::of(&reply.headers));
        let mut inflow = reply.body;
        let mut head = self.head(reply.status, reply.headers, kind, lifetime, true);
        if let Framing::Length(length) = reply.framing {
            head.length = Some(length);
        }
        self.fill.begin(Arc::new(head));
        loop {
            let next = tokio::select! {
                next = inflow.next() => next,
                () = self.given_up() => return self.fill.cut(),
            };
            match next {
                None => return self.fill.finish(),
                Some(Err(failure)) => return self.broke_off(failure),
                Some(Ok(bytes)) => {
                    if self.fill.push(bytes).await == Flow::Deserted {
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
        sliceable.then(|| etag.clone())
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
            number: fastrand::u64(..),
        };
        self.fill.displace();
        self.fill.note(Note {
            until: now + memory,
            what: Known::Sliced(Arc::new(series)),
        });
        self.fill.settle(Verdict::Sliced);
    }
}
