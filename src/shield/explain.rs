//! What would happen to a request for this URL, and why? Looks only: nothing is asked for, and
//! nobody counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Uri, Version};

use super::Shield;
use super::streams::Due;
use crate::cache::{Known, Object};
use crate::media::Kind;
use crate::policy::Moment;
use crate::policy::access::{Access, Entry, Refusal, access};
use crate::policy::freshness::{Freshness, freshness};

/// All that is known of a URL.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The route that takes it, and how it is sent to which origin.
    pub entry: Entry,
    /// What it is: by the answer that is held, by what a manifest said, or by its path.
    pub kind: Kind,
    /// What is held of it.
    pub held: Option<Held>,
    /// It is held in variants by request headers; what is shown is for a request without any.
    pub varies: bool,
    /// What is remembered of it besides.
    pub known: Option<&'static str>,
    /// What is known of it beyond the version that is held, if it is a live manifest.
    pub followed: Option<Followed>,
    /// In how long it is to be there, if it is a segment that an MPD lets one reckon with.
    pub due_in: Option<Duration>,
    /// The endpoint that would be asked now; `None`: none may be.
    pub endpoint: Option<Arc<str>>,
}

/// What is held.
#[derive(Clone, Debug)]
pub struct Held {
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
pub struct Followed {
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
    pub fn explain(&self, url: &Uri) -> Result<Explanation, Refusal> {
        let headers = HeaderMap::new();
        // As over HTTP/2, a URL alone names its host.
        let entry = match access(&self.rules, &Method::GET, url, Version::HTTP_2, &headers) {
            Access::Enter(entry) | Access::Pass(entry) => entry,
            Access::Refuse(refusal) => return Err(refusal),
            // Only OPTIONS comes to that.
            Access::Preflight(_) => return Err(Refusal::not_served()),
        };
        let now = Moment::now();
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
                Some(Due::Reckoned(due_in, _)) if found.object.is_none() => Some(due_in),
                _ => None,
            },
            endpoint: origin.would_ask(&entry.target, entry.sent_host(), avoided),
            entry,
        })
    }
}

fn held(object: &Arc<Object>, now: Instant) -> Held {
    let lifetime = &object.head.lifetime;
    Held {
        age: lifetime.age(now),
        freshness: freshness(lifetime, now),
        tended_for: lifetime.tended_for(object.head.facts.as_deref()),
        object: Arc::clone(object),
    }
}

fn phrase(known: &Known) -> &'static str {
    match known {
        Known::Pass => "answers to it are not kept: each request goes to the origin",
        Known::Failed(_) | Known::Unheard(..) => {
            "the origin failed on it just now and is left alone for a moment"
        }
        Known::BrokenOff => "the origin's answer broke off just now",
        Known::Sliced(_) => "too large for one fetch: held in slices",
        Known::Avoid(_) => "an endpoint broke off in the middle of it, and others are asked first",
        Known::Unsliceable => "too large for one fetch, and the origin sends no parts of it",
    }
}
