//! Answers LL-HLS blocking requests from the stored version once that has the requested state,
//! whichever request brought it.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, StatusCode};

use super::Shield;
use super::context::RequestContext;
use seawall_cache::{Object, StoredHead};
use seawall_manifest::ManifestInfo;
use seawall_manifest::low_latency::ReloadDirectives;
use seawall_policy::access::CacheRequest;
use seawall_policy::freshness::{Freshness, freshness};

/// How the newest stored version relates to a request's directives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReloadStatus {
    /// It answers them.
    Answers,
    /// They have no effect: the current playlist is the answer.
    Nothing,
    /// It does not have the state yet, or this is unknown.
    Waits,
}

/// What to do with a request for a state.
pub(super) enum ReloadAction {
    /// Answer with this version.
    There(Arc<Object>),
    /// Refuse the request.
    TooFar,
    /// Look the request's key up.
    Open,
}

impl Shield {
    /// Compares a request for a state with the newest stored version. Normalises the directives
    /// first; if they have no effect, the request becomes one for the current playlist.
    pub(super) fn look_up_state(&self, ask: &mut RequestContext) -> ReloadAction {
        if !ask.entry.is_directed() {
            return ReloadAction::Open;
        }
        let Some(newest) = self.newest(&ask.entry, ask.now, || self.upstream(ask)) else {
            return ReloadAction::Open;
        };
        let served = ask.freshness(&newest) == Freshness::Fresh
            || ask.directives.is_none() && is_newest(&newest, ask.now);
        let asked = ask.entry.directives();
        if let Some(facts) = segments(&newest) {
            if is_newest(&newest, ask.now) && is_far(asked, facts) {
                return ReloadAction::TooFar;
            }
            let read = asked.at(facts);
            if let Some(entry) = (read != asked)
                .then(|| ask.entry.with_directives(read))
                .flatten()
            {
                ask.entry = entry;
            }
        }
        match reload_status(&newest, ask.entry.directives()) {
            ReloadStatus::Answers if served => return ReloadAction::There(newest),
            ReloadStatus::Waits => {}
            // A version that must not be served as it is: request the current one.
            ReloadStatus::Answers | ReloadStatus::Nothing => ask.entry = ask.entry.plain(),
        }
        ReloadAction::Open
    }

    pub(super) fn newest(
        &self,
        entry: &CacheRequest,
        now: Instant,
        upstream: impl FnOnce() -> HeaderMap,
    ) -> Option<Arc<Object>> {
        let (key, kind) = (entry.identity(), entry.kind);
        self.cache.lookup(key, kind, now, upstream).object
    }

    /// The newest version, if it answers a request for a state and may be served.
    pub(super) fn newest_for(
        &self,
        entry: &CacheRequest,
        upstream: impl FnOnce() -> HeaderMap,
    ) -> Option<Arc<Object>> {
        let now = Instant::now();
        let newest = self.newest(entry, now, upstream)?;
        let fresh = freshness(&newest.head.lifetime, now) == Freshness::Fresh;
        let served = fresh || is_newest(&newest, now);
        let answers = reload_status(&newest, entry.directives()) != ReloadStatus::Waits;
        (served && answers).then_some(newest)
    }

    /// Is a held-back response certain? A stored playlist must say so or announce the object; a
    /// viewer's directives alone are not enough.
    pub(super) fn is_known_to_be_held_back(
        &self,
        entry: &CacheRequest,
        upstream: &HeaderMap,
    ) -> bool {
        self.live.is_announced(&entry.key, Instant::now())
            || self.is_near(entry, || upstream.clone())
    }

    /// The requested state is near enough to the newest version for a server to block on it.
    pub(super) fn is_near(
        &self,
        entry: &CacheRequest,
        upstream: impl FnOnce() -> HeaderMap,
    ) -> bool {
        let asked = entry.directives();
        if asked.msn.is_none() {
            return false;
        }
        let newest = self.newest(entry, Instant::now(), upstream);
        let newest = newest.as_deref().and_then(segments);
        newest.is_some_and(|facts| !is_far(asked, facts))
    }
}

/// The facts of a live playlist that supports blocking requests.
fn segments(object: &Object) -> Option<&ManifestInfo> {
    let facts = facts(object)?;
    let waits = facts.is_live() && facts.can_block_reload();
    Some(facts).filter(|_| waits)
}

fn facts(object: &Object) -> Option<&ManifestInfo> {
    let head = &object.head;
    let facts = head.facts.as_deref();
    facts.filter(|facts| head.status == StatusCode::OK && !facts.is_multivariant())
}

fn is_far(asked: ReloadDirectives, facts: &ManifestInfo) -> bool {
    let edge = facts.playlist_edge();
    let is_far = |msn| edge.is_some_and(|edge| edge.is_too_far(msn));
    asked.msn.is_some_and(is_far)
}

fn reload_status(object: &Object, asked: ReloadDirectives) -> ReloadStatus {
    let Some(facts) = facts(object) else {
        return ReloadStatus::Waits;
    };
    if !facts.is_live() {
        return ReloadStatus::Nothing;
    }
    let (Some(msn), Some(edge)) = (asked.msn, facts.playlist_edge()) else {
        return ReloadStatus::Waits;
    };
    if !facts.can_block_reload() {
        return ReloadStatus::Nothing;
    }
    // A delta update that the shield does not make must come from the origin.
    if asked.skip.is_some() || !edge.has(msn, asked.part) {
        return ReloadStatus::Waits;
    }
    ReloadStatus::Answers
}

/// Whether this is the current version of a refreshed low-latency playlist: the refresher has
/// requested the next version, and the origin has not answered yet.
pub(super) fn is_newest(object: &Object, now: Instant) -> bool {
    let facts = object.head.facts.as_deref();
    let blocks = facts.is_some_and(ManifestInfo::can_block_reload);
    blocks && is_tended(object, now)
}

/// Whether the refresher keeps this manifest current; it is then valid for longer than its
/// freshness.
pub(super) fn is_tended(object: &Object, now: Instant) -> bool {
    let StoredHead {
        lifetime,
        access_tracker: attention,
        facts,
        ..
    } = &object.head;
    let tended = attention
        .as_ref()
        .is_some_and(|attention| attention.has_refresher());
    tended && lifetime.age(now) < lifetime.refreshed_max_age(facts.as_deref())
}
