//! Keeps manifests in use fresh. One task per manifest polls when a change is due, ahead of
//! viewers, and ends when the manifest is idle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep_until, timeout};

use super::fill::{FillTask, FillTrigger};
use super::{ActiveShield, Shield};
use crate::live::{ManifestTracker, PlannedPoll};
use seawall_cache::{Fill, FillHead, JoinOutcome, Object, Verdict};
use seawall_manifest::low_latency::ReloadDirectives;
use seawall_policy::access::CacheRequest;
use seawall_policy::freshness::{Freshness, freshness};

/// The task of one manifest.
struct Refresher {
    active: Arc<ActiveShield>,
    tracker: Arc<ManifestTracker>,
}

/// One poll of a manifest, under the settings of its moment.
struct ManifestPoll<'r> {
    shield: Arc<Shield>,
    tracker: &'r ManifestTracker,
    request: CacheRequest,
}

/// When the task ends, for any reason, viewers' requests refresh the manifest.
impl Drop for Refresher {
    fn drop(&mut self) {
        self.tracker.access.set_has_refresher(false);
    }
}

impl Shield {
    /// Starts the refresher of a manifest. True if one runs.
    pub(super) fn start_refresher(self: &Arc<Self>, tracker: &Arc<ManifestTracker>) -> bool {
        if !tracker.route().live.cadence || self.handover.has_successor() {
            return false;
        }
        let Some(poll) = tracker.next_poll(Instant::now()) else {
            return false;
        };
        // Downstream caches learn the time of the next poll, also from the response that starts the
        // refresher.
        tracker.access.set_next_poll(poll.at());
        let Some(active) = self.active.upgrade() else {
            return false;
        };
        if !tracker.access.set_has_refresher(true) {
            return true;
        }
        let refresher = Refresher {
            active,
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
            let Some(manifest) = self.begin_poll() else {
                return;
            };
            match poll {
                PlannedPoll::Plain(_) => manifest.poll().await,
                PlannedPoll::Blocking(_, next) => manifest.poll_blocking(next).await,
            }
        }
    }

    /// Takes the current settings. `None`: a reload has changed them, and viewers' requests have
    /// another key now, or the route forbids refreshes; or another process serves by now.
    fn begin_poll(&self) -> Option<ManifestPoll<'_>> {
        let shield = self.active.current();
        if shield.handover.has_successor() {
            return None;
        }
        let request = self.tracker.request.under(&shield.rules)?;
        request.route.live.cadence.then_some(ManifestPoll {
            shield,
            tracker: &self.tracker,
            request,
        })
    }
}

impl ManifestPoll<'_> {
    /// Polls once. After a failed poll the manifest rests.
    async fn poll(&self) {
        let ManifestPoll {
            shield, tracker, ..
        } = self;
        let responses = tracker.responses();
        let is_fetched_elsewhere = self.fetch_newest().await;
        if tracker.responses() == responses && !is_fetched_elsewhere {
            tracker.record_failed_poll(Instant::now(), shield.settings.failure_backoff);
        }
    }

    /// Fetches the newest version, or waits for the fill that fetches it already. True if that
    /// other fill brought a version: it may have recorded the origin's response before this poll.
    async fn fetch_newest(&self) -> bool {
        let ManifestPoll {
            shield,
            tracker,
            request,
        } = self;
        let client_headers = tracker.background_headers().unwrap_or_default();
        let upstream_headers = shield.upstream_headers_for(&client_headers, request);
        let (cache, now) = (&shield.cache, Instant::now());
        let lookup = cache.lookup(&request.key, request.kind, now, || upstream_headers.clone());
        if shield.is_backing_off(&lookup, &client_headers, request, now) {
            return false;
        }
        let joined = cache.join(&lookup, &upstream_headers);
        self.run_or_follow(request, joined, shield.settings.wait_max)
            .await
    }

    /// Runs the fill, or waits for that of another request. True if the other one brought a
    /// version.
    async fn run_or_follow(
        &self,
        request: &CacheRequest,
        joined: JoinOutcome<Fill>,
        wait_max: Duration,
    ) -> bool {
        match joined {
            JoinOutcome::Lead(fill, follower) => {
                drop(follower);
                let shield = Arc::clone(&self.shield);
                let task = FillTask::new(shield, request, fill, FillTrigger::Refresh);
                // Boxed: while it waits for the next poll, a refresher keeps no room for a fill.
                Box::pin(task.run()).await;
                false
            }
            JoinOutcome::Follow(mut follower) => matches!(
                timeout(wait_max, follower.wait_for_head()).await,
                Ok(FillHead::Settled(
                    Verdict::Object(_) | Verdict::Revalidated(_)
                ))
            ),
            JoinOutcome::Stored(_) => true,
            JoinOutcome::Retry | JoinOutcome::Crowded => false,
        }
    }

    /// Sends a blocking request for the next version, or follows that of a viewer.
    async fn poll_blocking(&self, next: ReloadDirectives) {
        let ManifestPoll {
            shield, tracker, ..
        } = self;
        let accepted_at = tracker.begin_blocking(Instant::now());
        if let Some(request) = self.request.with_directives(next) {
            let joined = self.join_unless_fresh(&request);
            let has_arrived = matches!(
                &joined,
                JoinOutcome::Stored(object) if has_requested_version(object, next)
            );
            if has_arrived {
                return;
            }
            let wait_max = shield.origin_of(&request.route).blocking_wait_max();
            self.run_or_follow(&request, joined, wait_max).await;
        }
        tracker.end_blocking(accepted_at, Instant::now());
    }

    /// The stored response to a request, if it is fresh; else joins or begins the fill of its key.
    fn join_unless_fresh(&self, request: &CacheRequest) -> JoinOutcome<Fill> {
        let ManifestPoll {
            shield, tracker, ..
        } = self;
        let client_headers = tracker.background_headers().unwrap_or_default();
        let upstream_headers = shield.upstream_headers_for(&client_headers, request);
        let now = Instant::now();
        let cache = &shield.cache;
        let lookup = cache.lookup(&request.key, request.kind, now, || upstream_headers.clone());
        match &lookup.object {
            Some(stored) if freshness(&stored.head.lifetime, now) == Freshness::Fresh => {
                JoinOutcome::Stored(Arc::clone(stored))
            }
            _ => cache.join(&lookup, &upstream_headers),
        }
    }
}

/// Is it the requested version, or a later one?
fn has_requested_version(object: &Object, requested: ReloadDirectives) -> bool {
    let info = object.head.manifest_info.as_deref();
    let edge = info.and_then(|info| info.playlist_edge());
    let (Some(edge), Some(msn)) = (edge, requested.msn) else {
        return false;
    };
    edge.has(msn, requested.part)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use seawall_manifest::{Kind, read_manifest};

    const PLAYLIST: &[u8] = b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n";

    fn refresher_of(active: &Arc<ActiveShield>) -> Refresher {
        let shield = active.current();
        let request = CacheRequest::asked(&shield.rules, "a", "/live/index.m3u8");
        let info = read_manifest(Kind::Hls, PLAYLIST).unwrap().info;
        let (live, generation) = (&shield.live, shield.generation());
        let tracker = live.tracker_or_new(&request, generation, &info, Instant::now());
        Refresher {
            active: Arc::clone(active),
            tracker: tracker.unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn poll_that_finds_a_running_fill_waits_for_it_and_records_no_response() {
        let active = ActiveShield::without_origins();
        let refresher = refresher_of(&active);
        let (shield, tracker) = (active.current(), &refresher.tracker);
        let (request, now) = (&tracker.request, Instant::now());
        let headers = shield.upstream_headers_for(&http::HeaderMap::new(), request);
        let cache = &shield.cache;
        let lookup = cache.lookup(&request.key, request.kind, now, || headers.clone());
        let fill = cache.lead(&lookup, || headers).unwrap();
        {
            let manifest = refresher.begin_poll().unwrap();
            let mut poll = pin!(manifest.fetch_newest());
            let mut context = Context::from_waker(Waker::noop());
            assert!(poll.as_mut().poll(&mut context).is_pending());
            fill.settle(Verdict::Lost);
            assert!(!poll.await, "the other fill has failed");
        }
        assert_eq!(tracker.responses(), 0, "no origin has answered");
    }
}
