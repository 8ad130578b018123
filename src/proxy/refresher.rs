//! Keeps watched manifests fresh. One task per manifest polls when a change is due, ahead of
//! viewers, and ends when no viewer watches.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::{sleep_until, timeout};

use super::Shield;
use super::fill::{FillTask, FillTrigger};
use crate::live::{PlannedPoll, PlaylistTracker, Variant};
use seawall_cache::{Fill, JoinOutcome, Object};
use seawall_manifest::low_latency::ReloadDirectives;
use seawall_policy::access::CacheRequest;
use seawall_policy::freshness::{Freshness, freshness};

/// The task of one manifest.
struct Refresher {
    shield: Arc<Shield>,
    tracker: Arc<PlaylistTracker>,
}

/// When the task ends, for any reason, viewers' requests refresh the manifest.
impl Drop for Refresher {
    fn drop(&mut self) {
        self.tracker.access.set_has_refresher(false);
    }
}

impl Shield {
    /// Starts a refresher for a watched manifest. True if one is running.
    pub(super) fn start_refresher(self: &Arc<Self>, tracker: &Arc<PlaylistTracker>) -> bool {
        if !tracker.request.route.live.cadence {
            return false;
        }
        let Some(poll) = tracker.next_poll(Instant::now()) else {
            return false;
        };
        // Downstream caches learn the time of the next poll, also from the response that starts the
        // refresher.
        tracker.access.set_next_poll(poll.at());
        if !tracker.access.set_has_refresher(true) {
            return true;
        }
        let refresher = Refresher {
            shield: Arc::clone(self),
            tracker: Arc::clone(tracker),
        };
        tokio::spawn(async move { refresher.run().await });
        true
    }
}

impl Refresher {
    async fn run(&self) {
        while let Some(poll) = self.tracker.next_poll(Instant::now()) {
            self.tracker.access.set_next_poll(poll.at());
            sleep_until(poll.at().into()).await;
            match poll {
                PlannedPoll::At(_) => self.poll().await,
                PlannedPoll::Blocking(_, next) => self.poll_blocking(next).await,
            }
        }
    }

    /// Polls once. After a failed poll the manifest rests.
    async fn poll(&self) {
        let Refresher { shield, tracker } = self;
        let responses = tracker.responses();
        self.fetch_newest().await;
        if tracker.responses() == responses {
            tracker.rest(Instant::now(), shield.settings.failure_backoff);
        }
    }

    async fn fetch_newest(&self) {
        let Refresher { shield, tracker } = self;
        let request = &tracker.request;
        let client_headers = tracker.background_headers().unwrap_or_default();
        let upstream_headers = || shield.upstream_headers_for(&client_headers, request);
        let now = Instant::now();
        let lookup = shield
            .cache
            .lookup(&request.key, request.kind, now, upstream_headers);
        if shield.is_backing_off(&lookup, &client_headers, request, now) {
            return;
        }
        match shield.cache.lead(&lookup, upstream_headers) {
            Some(fill) => self.run_fill(request, fill).await,
            // Another fill polls already. Its result serves as well.
            None => tracker.record_unchanged(Variant::default(), Instant::now()),
        }
    }

    async fn run_fill(&self, request: &CacheRequest, fill: Fill) {
        let shield = Arc::clone(&self.shield);
        let task = FillTask::new(shield, request, fill, FillTrigger::Refresh);
        task.run().await;
    }

    /// Sends a blocking request for the next version, or follows that of a viewer.
    async fn poll_blocking(&self, next: ReloadDirectives) {
        let Refresher { shield, tracker } = self;
        let newest = tracker.begin_blocking(Instant::now());
        let Some(request) = tracker.request.with_directives(next) else {
            return tracker.end_blocking(newest, Instant::now());
        };
        let client_headers = tracker.background_headers().unwrap_or_default();
        let upstream_headers = shield.upstream_headers_for(&client_headers, &request);
        let now = Instant::now();
        let cache = &shield.cache;
        let lookup = cache.lookup(&request.key, request.kind, now, || upstream_headers.clone());
        let joined = match &lookup.object {
            Some(stored) if freshness(&stored.head.lifetime, now) == Freshness::Fresh => {
                JoinOutcome::Stored(Arc::clone(stored))
            }
            _ => cache.join(&lookup, &upstream_headers),
        };
        match joined {
            JoinOutcome::Lead(fill, follower) => {
                drop(follower);
                self.run_fill(&request, fill).await;
            }
            JoinOutcome::Follow(mut follower) => {
                let origin = &shield.origins[request.route.origin_index];
                let _ = timeout(origin.held_back_max(), follower.wait_for_head()).await;
            }
            // It has arrived in the meantime and is recorded.
            JoinOutcome::Stored(object) if has_requested_version(&object, next) => return,
            JoinOutcome::Stored(_) | JoinOutcome::Retry | JoinOutcome::Crowded => {}
        }
        tracker.end_blocking(newest, Instant::now());
    }
}

/// Is it the requested version, or a later one?
fn has_requested_version(object: &Object, requested: ReloadDirectives) -> bool {
    let facts = object.head.facts.as_deref();
    let edge = facts.and_then(|facts| facts.playlist_edge());
    let (Some(edge), Some(msn)) = (edge, requested.msn) else {
        return false;
    };
    edge.has(msn, requested.part)
}
