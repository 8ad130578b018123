//! Fetches all slices of an object ahead of viewers.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use tokio::time::{sleep, timeout_at};

use super::{Slice, SliceContext};
use crate::live::{PrefetchSource, PrefetchedObject};
use crate::proxy::Shield;
use crate::proxy::clients::Client;
use crate::proxy::warm::{ROOM_INTERVAL, WarmOutcome, read_to_end};
use seawall_cache::{Lookup, SliceSet};
use seawall_policy::access::CacheRequest;
use seawall_policy::range::ByteSpan;
use seawall_upstream::Priority;

impl Shield {
    /// Fetches the slices that are not stored, one after the other, each only while there is room,
    /// until the deadline. Returns how that ended, and how many bytes are stored.
    pub(in crate::proxy) async fn warm_slices(
        self: &Arc<Self>,
        request: &CacheRequest,
        lookup: &Lookup,
        slice_set: Arc<SliceSet>,
        headers: &HeaderMap,
        deadline: Instant,
    ) -> (WarmOutcome, u64) {
        let length = slice_set.length;
        let source = SliceContext::begin(
            self,
            (request, headers),
            lookup,
            &slice_set,
            (Client::of(None), Priority::Prefetch),
        );
        let (mut stored, mut outcome) = (0, WarmOutcome::Held);
        while stored < length {
            let span = source.span(stored);
            if source.has_stored(span) {
                stored = span.end;
                continue;
            }
            let permit = if source.is_being_filled(span) {
                // To join would give that fetch a viewer's priority.
                None
            } else {
                self.prefetch_permit(request, PrefetchedObject::Exists, PrefetchSource::Warm)
            };
            if permit.is_none() {
                if Instant::now() + ROOM_INTERVAL >= deadline {
                    return (WarmOutcome::Busy, stored);
                }
                sleep(ROOM_INTERVAL).await;
                continue;
            }
            let fetch = async {
                match source.slice_with_permit(stored, permit).await {
                    Ok(Slice::Stored(_)) => Some(()),
                    Ok(Slice::Growing(mut follower)) => {
                        read_to_end(&mut follower).await.map(|_| ())
                    }
                    Err(_) => None,
                }
            };
            match timeout_at(deadline.into(), fetch).await {
                Err(_) => return (WarmOutcome::Busy, stored),
                Ok(None) => return (WarmOutcome::Failed, stored),
                Ok(Some(())) => outcome = WarmOutcome::Fetched,
            }
            stored = span.end;
        }
        (outcome, length)
    }
}

impl SliceContext {
    fn is_being_filled(&self, span: ByteSpan) -> bool {
        let (key, kind) = (self.key(span), self.lookup.kind);
        let cache = &self.shield.cache;
        cache.is_being_filled(&cache.lookup(&key, kind, Instant::now(), HeaderMap::new))
    }
}
