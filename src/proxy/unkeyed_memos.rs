//! Limits errors that a request's unkeyed headers may have caused to requests with the same values.
//! Their memos have a key of their own.

use std::time::Instant;

use http::HeaderMap;

use super::Shield;
use crate::live::Location;
use seawall_cache::{EpochToken, Follower, KeyMemo, Lookup};
use seawall_policy::access::CacheRequest;
use seawall_policy::{Key, headers};

impl Shield {
    /// The epoch of a request's object: it ends with a purge or a restart.
    pub(super) fn epoch_token(
        &self,
        request: &CacheRequest,
        location: &Location,
    ) -> Option<EpochToken> {
        let url = request.url();
        let directory = location.directory.as_ref();
        let is_bound = directory.is_some() || url.is_some();
        let epoch_token = is_bound.then(|| self.cache.bind_epoch(directory, url.as_ref()))?;
        Some(match &location.numbered_directory {
            Some(around) => epoch_token.within(&self.cache.bind_epoch(Some(around), None)),
            None => epoch_token,
        })
    }

    /// The memo key of a request with unkeyed headers.
    pub(super) fn unkeyed_memo_key(
        &self,
        lookup: &Lookup,
        upstream_headers: &HeaderMap,
        request: &CacheRequest,
    ) -> Option<Key> {
        let values = headers::unkeyed_values(upstream_headers, &request.route, &self.rules.name)?;
        Some(Key::of(&[b"own", lookup.slot.bytes(), &values]))
    }

    /// The memo of a key that applies to a viewer's request.
    pub(super) fn memo_for(
        &self,
        lookup: &Lookup,
        viewer: &HeaderMap,
        request: &CacheRequest,
        now: Instant,
    ) -> Option<KeyMemo> {
        let memo = self.drop_recovered(self.cache.memo(&lookup.slot, now), request);
        if memo.is_some() || !headers::has_unkeyed_values(viewer, &request.route) {
            return memo;
        }
        let unkeyed_key =
            self.unkeyed_memo_key(lookup, &self.upstream_headers_for(viewer, request), request)?;
        self.drop_recovered(self.cache.memo(&unkeyed_key, now), request)
    }

    /// Drops the memo of a failure without any connection once an endpoint is back.
    fn drop_recovered(&self, memo: Option<KeyMemo>, request: &CacheRequest) -> Option<KeyMemo> {
        let Some(KeyMemo::Unreachable(error_object, since)) = memo else {
            return memo;
        };
        let origin = self.origin_of(&request.route);
        let is_back = origin.has_recovered_since(since);
        (!is_back).then_some(KeyMemo::Failed(error_object))
    }

    /// The origin failed on this key a moment ago; the key backs off.
    pub(super) fn is_backing_off(
        &self,
        lookup: &Lookup,
        viewer: &HeaderMap,
        request: &CacheRequest,
        now: Instant,
    ) -> bool {
        let memo = self.memo_for(lookup, viewer, request, now);
        matches!(memo, Some(KeyMemo::Failed(_)))
    }

    /// Whether a fill's failure also applies to a request with these headers.
    pub(super) fn failure_applies_to(
        &self,
        follower: &Follower,
        upstream_headers: &HeaderMap,
        request: &CacheRequest,
    ) -> bool {
        let values = |upstream_headers| {
            headers::unkeyed_values(upstream_headers, &request.route, &self.rules.name)
        };
        let leader_values = values(follower.upstream_headers());
        leader_values.is_none() || leader_values == values(upstream_headers)
    }
}
