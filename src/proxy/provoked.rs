//! Whom does an error concern? One that a request may have provoked by words of its own, which are sent and
//! in no key, concerns requests that say the same, and nobody else. What is remembered of it is filed apart.

use std::time::Instant;

use http::HeaderMap;

use super::Shield;
use super::live::Location;
use crate::cache::{EpochToken, Follower, KeyMemo, Lookup};
use crate::policy::access::CacheRequest;
use crate::policy::{Key, headers};

impl Shield {
    /// What a request belongs to until it is purged, or begins anew.
    pub(super) fn tie(&self, entry: &CacheRequest, places: &Location) -> Option<EpochToken> {
        let url = entry.url();
        let place = places.here.as_ref();
        let tied = place.is_some() || url.is_some();
        let tie = tied.then(|| self.cache.tie(place, url.as_ref()))?;
        Some(match &places.around {
            Some(around) => tie.within(&self.cache.tie(Some(around), None)),
            None => tie,
        })
    }

    /// Where notes of a request are filed that has words of its own.
    pub(super) fn own_slot(
        &self,
        found: &Lookup,
        sent: &HeaderMap,
        entry: &CacheRequest,
    ) -> Option<Key> {
        let words = headers::own_words(sent, &entry.route, &self.rules.name)?;
        Some(Key::of(&[b"own", found.slot.bytes(), &words]))
    }

    /// What is known of a key, for a viewer's request.
    pub(super) fn noted(
        &self,
        found: &Lookup,
        viewer: &HeaderMap,
        entry: &CacheRequest,
        now: Instant,
    ) -> Option<KeyMemo> {
        let known = self.still_true(self.cache.noted(&found.slot, now), entry);
        if known.is_some() || !headers::has_own_words(viewer, &entry.route) {
            return known;
        }
        let own = self.own_slot(found, &self.sent(viewer, entry), entry)?;
        self.still_true(self.cache.noted(&own, now), entry)
    }

    /// What failed while no endpoint could be heard is requested at once when one is back.
    fn still_true(&self, known: Option<KeyMemo>, entry: &CacheRequest) -> Option<KeyMemo> {
        let Some(KeyMemo::Unheard(answer, since)) = known else {
            return known;
        };
        let origin = &self.origins[entry.route.origin_index];
        let is_back = origin.has_returned_since(since);
        (!is_back).then_some(KeyMemo::Failed(answer))
    }

    /// The origin failed on it a moment ago and is left alone.
    pub(super) fn failed_lately(
        &self,
        found: &Lookup,
        viewer: &HeaderMap,
        entry: &CacheRequest,
        now: Instant,
    ) -> bool {
        let noted = self.noted(found, viewer, entry, now);
        matches!(noted, Some(KeyMemo::Failed(_)))
    }

    /// Does what went wrong with a fill concern a request that was sent like this?
    pub(super) fn concerns(
        &self,
        follower: &Follower,
        sent: &HeaderMap,
        entry: &CacheRequest,
    ) -> bool {
        let words = |sent| headers::own_words(sent, &entry.route, &self.rules.name);
        let led = words(follower.upstream());
        led.is_none() || led == words(sent)
    }
}
