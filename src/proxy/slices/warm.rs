//! Fetches all slices of an object ahead of viewers.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::time::timeout_at;

use super::{Slice, SliceContext};
use crate::proxy::Shield;
use crate::proxy::clients::Client;
use crate::proxy::warm::{WarmOutcome, read_to_end};
use seawall_cache::{Lookup, SliceSet};
use seawall_policy::access::CacheRequest;
use seawall_upstream::Priority;

impl Shield {
    /// Fetches the slices that are not stored, one after the other, until the deadline. Returns how
    /// that ended, and how many bytes are stored.
    pub(in crate::proxy) async fn warm_slices(
        self: &Arc<Self>,
        request: &CacheRequest,
        lookup: &Lookup,
        slice_set: Arc<SliceSet>,
        headers: &HeaderMap,
        deadline: Instant,
    ) -> (WarmOutcome, u64) {
        let length = slice_set.length;
        let source = Arc::new(SliceContext {
            shield: Arc::clone(self),
            route: Arc::clone(&request.route),
            lookup: lookup.clone(),
            target: request.target.clone(),
            host: request.sent_host().cloned(),
            upstream_headers: self.upstream_headers_for(headers, request),
            failed_before: slice_set.avoided.at(Instant::now()),
            slice_set,
            client: Client::of(None),
            priority: Priority::Prefetch,
            failed_endpoints: Mutex::default(),
        });
        let (mut stored, mut outcome) = (0, WarmOutcome::Held);
        while stored < length {
            let fetch = async {
                match source.slice(stored).await {
                    Ok(Slice::Stored(_)) => Some(WarmOutcome::Held),
                    Ok(Slice::Growing(mut follower)) => {
                        let read = read_to_end(&mut follower).await;
                        read.map(|_| WarmOutcome::Fetched)
                    }
                    Err(_) => None,
                }
            };
            match timeout_at(deadline.into(), fetch).await {
                Err(_) => return (WarmOutcome::Busy, stored),
                Ok(None) => return (WarmOutcome::Failed, stored),
                Ok(Some(WarmOutcome::Held)) => {}
                Ok(Some(fetched)) => outcome = fetched,
            }
            stored = source.span(stored).end;
        }
        (outcome, length)
    }
}
