//! Keeps watched manifests fresh. One task per manifest polls when a change is due, ahead of
//! viewers, and ends when no viewer watches.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::{sleep_until, timeout};

use super::blocking::PlannedPoll;
use super::{PlaylistTracker, Variant};
use crate::proxy::Shield;
use crate::proxy::fill::{FillTask, FillTrigger};
use seawall_cache::{Fill, JoinOutcome, Object};
use seawall_manifest::low_latency::ReloadDirectives;
use seawall_policy::access::CacheRequest;
use seawall_policy::freshness::{Freshness, freshness};

/// Dropped when the task ends, for any reason: viewers' requests then refresh the manifest.
struct RefresherGuard {
    shield: Arc<Shield>,
    watch: Arc<PlaylistTracker>,
}

impl Drop for RefresherGuard {
    fn drop(&mut self) {
        self.watch.attention.set_has_refresher(false);
    }
}

impl Shield {
    /// Starts a refresher for a watched manifest. True if one is running.
    pub(in crate::proxy) fn start_refresher(
        self: &Arc<Self>,
        watch: &Arc<PlaylistTracker>,
    ) -> bool {
        let look = watch.next_poll(Instant::now());
        let Some(look) = look.filter(|_| watch.entry.route.live.cadence) else {
            return false;
        };
        // Downstream caches learn the time of the next poll, also from the response that starts the
        // refresher.
        watch.attention.set_next_poll(look.at());
        if !watch.attention.set_has_refresher(true) {
            return true;
        }
        let tending = RefresherGuard {
            shield: Arc::clone(self),
            watch: Arc::clone(watch),
        };
        tokio::spawn(async move {
            while let Some(look) = tending.watch.next_poll(Instant::now()) {
                tending.watch.attention.set_next_poll(look.at());
                match look {
                    PlannedPoll::At(at) => {
                        sleep_until(at.into()).await;
                        tending.poll().await;
                    }
                    PlannedPoll::Blocking(from, next) => {
                        sleep_until(from.into()).await;
                        tending.poll_blocking(next).await;
                    }
                }
            }
        });
        true
    }
}

impl RefresherGuard {
    async fn poll(&self) {
        let RefresherGuard { shield, watch } = self;
        let heard = watch.heard();
        self.ask().await;
        if watch.heard() == heard {
            watch.rest(Instant::now(), shield.settings.failure_backoff);
        }
    }

    async fn ask(&self) {
        let RefresherGuard { shield, watch } = self;
        let entry = &watch.entry;
        let asking_with = watch.background_headers().unwrap_or_default();
        let upstream = || shield.sent(&asking_with, entry);
        let now = Instant::now();
        let found = shield.cache.lookup(&entry.key, entry.kind, now, upstream);
        if shield.failed_lately(&found, &asking_with, entry, now) {
            return;
        }
        match shield.cache.lead(&found, upstream) {
            Some(fill) => self.run(entry, fill).await,
            // Another fill polls already. Its result serves as well.
            None => watch.record_unchanged(Variant::default(), Instant::now()),
        }
    }

    async fn run(&self, entry: &CacheRequest, fill: Fill) {
        let shield = Arc::clone(&self.shield);
        let job = FillTask::new(shield, entry, fill, FillTrigger::Refresh);
        job.run().await;
    }

    /// Sends a blocking request for the next version, or follows that of a viewer.
    async fn poll_blocking(&self, next: ReloadDirectives) {
        let RefresherGuard { shield, watch } = self;
        let taken = watch.begin_blocking(Instant::now());
        let Some(entry) = watch.entry.with_directives(next) else {
            return watch.end_blocking(taken, Instant::now());
        };
        let upstream = shield.sent(&watch.background_headers().unwrap_or_default(), &entry);
        let cache = &shield.cache;
        let now = Instant::now();
        let found = cache.lookup(&entry.key, entry.kind, now, || upstream.clone());
        let held = found.object.clone();
        let held = held.filter(|held| freshness(&held.head.lifetime, now) == Freshness::Fresh);
        let joined = match held {
            Some(object) => JoinOutcome::Held(object),
            None => cache.join(&found, &upstream),
        };
        match joined {
            JoinOutcome::Lead(fill, follower) => {
                drop(follower);
                self.run(&entry, fill).await;
            }
            JoinOutcome::Follow(mut follower) => {
                let origin = &shield.origins[entry.route.origin_index];
                let _ = timeout(origin.held_back_max(), follower.wait_for_head()).await;
            }
            // It has arrived in the meantime and is registered.
            JoinOutcome::Held(object) if has(&object, next) => return,
            JoinOutcome::Held(_) | JoinOutcome::Retry | JoinOutcome::Crowded => {}
        }
        watch.end_blocking(taken, Instant::now());
    }
}

/// Is it the requested version, or a later one?
fn has(object: &Object, asked: ReloadDirectives) -> bool {
    let facts = object.head.facts.as_deref();
    let edge = facts.and_then(|facts| facts.playlist_edge());
    let reached = edge.zip(asked.msn);
    reached.is_some_and(|(edge, msn)| edge.has(msn, asked.part))
}
