//! Who keeps a watched manifest fresh? One task for each: it looks when a change is due, ahead of viewers,
//! and ends when nobody watches any more.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::{sleep_until, timeout};

use super::blocking::Look;
use super::{Variant, Watch};
use crate::cache::{Fill, Joined, Object};
use crate::media::low_latency::Directives;
use crate::policy::access::Entry;
use crate::policy::freshness::{Freshness, freshness};
use crate::shield::Shield;
use crate::shield::fill::{Job, Viewer};

/// Ends with the task, however that ends: then viewers refresh the manifest themselves.
struct Tending {
    shield: Arc<Shield>,
    watch: Arc<Watch>,
}

impl Drop for Tending {
    fn drop(&mut self) {
        self.watch.attention.tend(false);
    }
}

impl Shield {
    /// Looks after a manifest from now on, if it is watched. True if somebody does.
    pub(in crate::shield) fn tend(self: &Arc<Self>, watch: &Arc<Watch>) -> bool {
        let look = watch.next_look(Instant::now());
        let Some(look) = look.filter(|_| watch.entry.route.live.cadence) else {
            return false;
        };
        // Caches behind are told, also by the answer that begins it.
        watch.attention.is_looked_at(look.at());
        if !watch.attention.tend(true) {
            return true;
        }
        let tending = Tending {
            shield: Arc::clone(self),
            watch: Arc::clone(watch),
        };
        tokio::spawn(async move {
            while let Some(look) = tending.watch.next_look(Instant::now()) {
                tending.watch.attention.is_looked_at(look.at());
                match look {
                    Look::At(at) => {
                        sleep_until(at.into()).await;
                        tending.look().await;
                    }
                    Look::Blocking(from, next) => {
                        sleep_until(from.into()).await;
                        tending.wait_for(next).await;
                    }
                }
            }
        });
        true
    }
}

impl Tending {
    async fn look(&self) {
        let Tending { shield, watch } = self;
        let heard = watch.heard();
        self.ask().await;
        if watch.heard() == heard {
            watch.rest(Instant::now(), shield.settings.failure_backoff);
        }
    }

    async fn ask(&self) {
        let Tending { shield, watch } = self;
        let entry = &watch.entry;
        let asking_with = watch.asking_with().unwrap_or_default();
        let upstream = || shield.sent(&asking_with, entry);
        let now = Instant::now();
        let found = shield.cache.lookup(&entry.key, entry.kind, now, upstream);
        if shield.failed_lately(&found, &asking_with, entry, now) {
            return;
        }
        match shield.cache.lead(&found, upstream) {
            Some(fill) => self.run(entry, fill).await,
            // Somebody looks already. Its result is as good.
            None => watch.unchanged(Variant::default(), Instant::now()),
        }
    }

    async fn run(&self, entry: &Entry, fill: Fill) {
        let shield = Arc::clone(&self.shield);
        let job = Job::new(shield, entry, fill, Viewer::Nobody);
        job.run().await;
    }

    /// Asks for the next version, or waits with the viewers who have asked for it.
    async fn wait_for(&self, next: Directives) {
        let Tending { shield, watch } = self;
        let taken = watch.waits(Instant::now());
        let Some(entry) = watch.entry.asking(next) else {
            return watch.waited(taken, Instant::now());
        };
        let upstream = shield.sent(&watch.asking_with().unwrap_or_default(), &entry);
        let cache = &shield.cache;
        let now = Instant::now();
        let found = cache.lookup(&entry.key, entry.kind, now, || upstream.clone());
        let held = found.object.clone();
        let held = held.filter(|held| freshness(&held.head.lifetime, now) == Freshness::Fresh);
        let joined = match held {
            Some(object) => Joined::Held(object),
            None => cache.join(&found, &upstream),
        };
        match joined {
            Joined::Lead(fill, follower) => {
                drop(follower);
                self.run(&entry, fill).await;
            }
            Joined::Follow(mut follower) => {
                let origin = &shield.origins[entry.route.origin_index];
                let _ = timeout(origin.held_back_max(), follower.landing()).await;
            }
            // It came in the meantime, and the watch knows.
            Joined::Held(object) if has(&object, next) => return,
            Joined::Held(_) | Joined::Again | Joined::Crowded => {}
        }
        watch.waited(taken, Instant::now());
    }
}

/// It is the version that was asked for, or a later one.
fn has(object: &Object, asked: Directives) -> bool {
    let facts = object.head.facts.as_deref();
    let edge = facts.and_then(|facts| facts.edge.as_ref());
    let reached = edge.zip(asked.msn);
    reached.is_some_and(|(edge, msn)| edge.has(msn, asked.part))
}
