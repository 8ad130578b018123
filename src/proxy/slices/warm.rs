//! Fetches all slices of an object ahead of viewers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use tokio::time::{sleep, timeout_at};

use super::{Slice, SliceContext};
use crate::live::{PrefetchSource, PrefetchedObject};
use crate::proxy::Shield;
use crate::proxy::clients::Client;
use crate::proxy::warm::{ROOM_INTERVAL, WarmBatch, WarmOutcome, read_to_end};
use seawall_cache::{Lookup, SliceSet};
use seawall_policy::access::CacheRequest;
use seawall_policy::range::ByteSpan;
use seawall_upstream::Priority;

/// After this time it says how far it is. The caller asks again.
const SLICES_TIMEOUT: Duration = Duration::from_secs(5);

/// How far an object is whose slices are fetched.
pub(in crate::proxy) struct WarmedSlices {
    pub(in crate::proxy) outcome: WarmOutcome,
    /// Bytes from its beginning that are stored.
    pub(in crate::proxy) stored: u64,
    /// Bytes of the slices that were requested now.
    pub(in crate::proxy) received: u64,
}

impl Shield {
    /// Fetches the slices that are not stored, one after the other, each only while there is room,
    /// for a moment and while the batch has bytes left.
    pub(in crate::proxy) async fn warm_slices(
        self: &Arc<Self>,
        request: &CacheRequest,
        lookup: &Lookup,
        slice_set: Arc<SliceSet>,
        headers: &HeaderMap,
        batch: &WarmBatch,
    ) -> WarmedSlices {
        let deadline = batch.deadline.min(Instant::now() + SLICES_TIMEOUT);
        let length = slice_set.length;
        let source = SliceContext::begin(
            self,
            (request, headers),
            lookup,
            &slice_set,
            (Client::of(None), Priority::Prefetch),
        );
        let mut warmed = WarmedSlices {
            outcome: WarmOutcome::Held,
            stored: 0,
            received: 0,
        };
        while warmed.stored < length {
            let span = source.span(warmed.stored);
            if source.has_stored(span) {
                warmed.stored = span.end;
                continue;
            }
            let permit = if source.is_being_filled(span) {
                // To join would give that fetch a viewer's priority.
                None
            } else {
                self.prefetch_permit(request, PrefetchedObject::Exists, PrefetchSource::Warm)
            };
            let now = Instant::now();
            let Some(permit) = permit else {
                if now + ROOM_INTERVAL >= deadline || self.outage(request).is_some() {
                    return warmed.ended(WarmOutcome::Busy);
                }
                sleep(ROOM_INTERVAL).await;
                continue;
            };
            if !batch.take_bytes(span.length()) {
                return warmed.ended(WarmOutcome::Busy);
            }
            let fetch = async {
                match source.slice_with_permit(warmed.stored, Some(permit)).await {
                    Ok(Slice::Stored(_)) => true,
                    Ok(Slice::Growing(mut follower)) => read_to_end(&mut follower, &mut 0).await,
                    Err(_) => false,
                }
            };
            match timeout_at(deadline.into(), fetch).await {
                // It goes on, and is counted now: no later step fetches it.
                Err(_) => {
                    warmed.received += span.length();
                    return warmed.ended(WarmOutcome::Busy);
                }
                Ok(false) => return warmed.ended(WarmOutcome::Failed),
                Ok(true) => {
                    warmed.received += span.length();
                    warmed.outcome = WarmOutcome::Fetched;
                }
            }
            warmed.stored = span.end;
        }
        warmed
    }
}

impl WarmedSlices {
    fn ended(self, outcome: WarmOutcome) -> WarmedSlices {
        WarmedSlices { outcome, ..self }
    }
}

impl SliceContext {
    fn is_being_filled(&self, span: ByteSpan) -> bool {
        let (key, kind) = (self.key(span), self.lookup.kind);
        let cache = &self.shield.cache;
        cache.is_being_filled(&cache.lookup(&key, kind, Instant::now(), HeaderMap::new))
    }
}
