//! Explains how a request for a URL would be handled. Read-only: sends no request and counts
//! nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Uri};

use super::Shield;
use crate::live::{Availability, TrackedManifest};
use seawall_cache::{KeyMemo, Object};
use seawall_manifest::Kind;
use seawall_policy::Now;
use seawall_policy::access::{AccessRejection, Admission, CacheRequest};
use seawall_policy::freshness::{Freshness, freshness};

/// All that is known of a URL.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The request as it would be cached and sent: route, origin, key.
    pub request: CacheRequest,
    /// The kind of object: by the stored response, a manifest's listing, or the path.
    pub kind: Kind,
    /// The stored object.
    pub stored: Option<StoredObject>,
    /// The object is stored in variants by request headers; `stored` is for a request without
    /// headers.
    pub varies: bool,
    /// The key's memo, in words.
    pub memo: Option<&'static str>,
    /// The state of its tracker, if it is a live manifest.
    pub tracked: Option<TrackedManifest>,
    /// Time until the segment exists, if an MPD predicts that.
    pub due_in: Option<Duration>,
    /// The endpoint that a request would go to now; `None`: no endpoint is allowed.
    pub endpoint: Option<Arc<str>>,
    /// Query parameters that nearly every fetch of this path sends with another value.
    pub varying_parameters: Vec<String>,
}

/// A stored object.
#[derive(Clone, Debug)]
pub struct StoredObject {
    /// The object.
    pub object: Arc<Object>,
    /// Its age.
    pub age: Duration,
    /// What may be done with it now.
    pub freshness: Freshness,
    /// The maximum age at which it is served while the refresher keeps it current.
    pub refreshed_max_age: Duration,
}

impl Shield {
    /// Explains an absolute URL, as a viewer would request it.
    pub fn explain(&self, url: &Uri) -> Result<Explanation, AccessRejection> {
        let headers = HeaderMap::new();
        let request = match self.admit_url(url) {
            Admission::Cache(request) | Admission::Pass(request) => request,
            Admission::Reject(refusal) => return Err(refusal),
            // Only OPTIONS leads here.
            Admission::Preflight(_) => return Err(AccessRejection::not_served()),
            Admission::Redirect(..) => return Err(AccessRejection::redirected()),
        };
        let now = Now::read();
        let upstream_headers = || self.upstream_headers_for(&headers, &request);
        let lookup = self
            .cache
            .lookup(&request.key, request.kind, now.mono, upstream_headers);
        let stored = lookup
            .object
            .as_ref()
            .map(|object| stored_object(object, now.mono));
        let stored_kind = stored.as_ref().map(|stored| stored.object.head.kind);
        let memo = self.memo_for(&lookup, &headers, &request, now.mono);
        let tracker = self.live.tracker(&request);
        let due = self.live.availability_of(&self.rules, &request, now);
        let avoided = tracker.as_ref().map(|tracker| tracker.avoided(now.mono));
        let avoided = avoided.unwrap_or_default();
        let origin = self.origin_of(&request.route);
        Ok(Explanation {
            kind: stored_kind.unwrap_or_else(|| self.live.kind_of(&request)),
            stored,
            varies: lookup.has_variants(),
            memo: memo.as_ref().map(phrase),
            tracked: tracker.map(|tracker| tracker.tracked_manifest(now.mono)),
            due_in: match due {
                Some(Availability::DueIn(due_in, _)) if lookup.object.is_none() => Some(due_in),
                _ => None,
            },
            endpoint: origin.first_choice(&request.target, request.sent_host(), avoided),
            varying_parameters: self.query_variance.of_request(&request),
            request,
        })
    }
}

fn stored_object(object: &Arc<Object>, now: Instant) -> StoredObject {
    let lifetime = &object.head.lifetime;
    StoredObject {
        age: lifetime.age(now),
        freshness: freshness(lifetime, now),
        refreshed_max_age: lifetime.refreshed_max_age(object.head.manifest_info.as_deref()),
        object: Arc::clone(object),
    }
}

fn phrase(memo: &KeyMemo) -> &'static str {
    match memo {
        KeyMemo::Pass => "answers to it are not kept: each request goes to the origin",
        KeyMemo::Failed(_) | KeyMemo::Unreachable(..) => {
            "the origin failed on it just now: no request until its backoff ends"
        }
        KeyMemo::Truncated => "the origin's response broke off just now",
        KeyMemo::Sliced(_) => "too large for one fetch: stored in slices",
        KeyMemo::Avoid(_) => "an endpoint broke off inside its body: others are asked first",
        KeyMemo::Unsliceable => "too large for one fetch, and the origin ignores range requests",
    }
}
