//! What would happen to a request for this URL, and why? Looks only: nothing is asked for, and
//! nobody counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Uri, Version};

use super::Shield;
use super::live::Availability;
use crate::cache::{KeyMemo, Object};
use crate::manifest::Kind;
use crate::policy::Now;
use crate::policy::access::{AccessDenial, Admission, CacheRequest, access};
use crate::policy::freshness::{Freshness, freshness};

/// All that is known of a URL.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The route that takes it, and how it is sent to which origin.
    pub entry: CacheRequest,
    /// What it is: by the answer that is held, by what a manifest said, or by its path.
    pub kind: Kind,
    /// What is held of it.
    pub held: Option<StoredObject>,
    /// It is held in variants by request headers; what is shown is for a request without any.
    pub varies: bool,
    /// What is remembered of it besides.
    pub known: Option<&'static str>,
    /// What is known of it beyond the version that is held, if it is a live manifest.
    pub followed: Option<TrackedManifest>,
    /// In how long it is to be there, if it is a segment that an MPD lets one reckon with.
    pub due_in: Option<Duration>,
    /// The endpoint that would be asked now; `None`: none may be.
    pub endpoint: Option<Arc<str>>,
}

/// What is held.
#[derive(Clone, Debug)]
pub struct StoredObject {
    /// Whole.
    pub object: Arc<Object>,
    /// How old it is.
    pub age: Duration,
    /// What may be done with it.
    pub freshness: Freshness,
    /// How old it may be served while it is looked after.
    pub tended_for: Duration,
}

/// A live manifest that is followed from version to version.
#[derive(Clone, Debug)]
pub struct TrackedManifest {
    /// The manifest that its stream begins with.
    pub stream: Arc<str>,
    /// It is refreshed ahead of viewers.
    pub is_tended: bool,
    /// It is refreshed ahead of viewers, and should have changed long ago.
    pub is_stalled: bool,
    /// For how long no viewer has asked for it; `None`: none ever did.
    pub unasked_for: Option<Duration>,
    /// In how long it is looked at; `None`: when a viewer asks.
    pub next_look_in: Option<Duration>,
}

impl Shield {
    /// Explains an absolute URL, as a viewer would ask for it.
    pub fn explain(&self, url: &Uri) -> Result<Explanation, AccessDenial> {
        let headers = HeaderMap::new();
        // As over HTTP/2, a URL alone names its host.
        let entry = match access(&self.rules, &Method::GET, url, Version::HTTP_2, &headers) {
            Admission::Enter(entry) | Admission::Pass(entry) => entry,
            Admission::Refuse(refusal) => return Err(refusal),
            // Only OPTIONS comes to that.
            Admission::Preflight(_) => return Err(AccessDenial::not_served()),
        };
        let now = Now::now();
        let upstream = || self.sent(&headers, &entry);
        let found = self
            .cache
            .lookup(&entry.key, entry.kind, now.mono, upstream);
        let held = found.object.as_ref().map(|object| held(object, now.mono));
        let told = held.as_ref().map(|held| held.object.head.kind);
        let known = self.noted(&found, &headers, &entry, now.mono);
        let watch = self.streams.watched(&entry);
        let due = self.streams.due(&self.rules, &entry, now);
        let avoided = watch.as_ref().map(|watch| watch.avoided(now.mono));
        let avoided = avoided.unwrap_or_default();
        let origin = &self.origins[entry.route.origin_index];
        Ok(Explanation {
            kind: told.unwrap_or_else(|| self.streams.kind_of(&entry)),
            held,
            varies: found.has_variants(),
            known: known.as_ref().map(phrase),
            followed: watch.map(|watch| watch.followed(now.mono)),
            due_in: match due {
                Some(Availability::Reckoned(due_in, _)) if found.object.is_none() => Some(due_in),
                _ => None,
            },
            endpoint: origin.would_ask(&entry.target, entry.sent_host(), avoided),
            entry,
        })
    }
}

fn held(object: &Arc<Object>, now: Instant) -> StoredObject {
    let lifetime = &object.head.lifetime;
    StoredObject {
        age: lifetime.age(now),
        freshness: freshness(lifetime, now),
        tended_for: lifetime.tended_for(object.head.facts.as_deref()),
        object: Arc::clone(object),
    }
}

fn phrase(known: &KeyMemo) -> &'static str {
    match known {
        KeyMemo::Pass => "answers to it are not kept: each request goes to the origin",
        KeyMemo::Failed(_) | KeyMemo::Unheard(..) => {
            "the origin failed on it just now and is left alone for a moment"
        }
        KeyMemo::BrokenOff => "the origin's answer broke off just now",
        KeyMemo::Sliced(_) => "too large for one fetch: held in slices",
        KeyMemo::Avoid(_) => {
            "an endpoint broke off in the middle of it, and others are asked first"
        }
        KeyMemo::Unsliceable => "too large for one fetch, and the origin sends no parts of it",
    }
}
