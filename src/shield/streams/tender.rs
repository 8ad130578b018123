//! Who keeps a watched manifest fresh? One task for each: it looks when a change is due, ahead of viewers,
//! and ends when nobody watches any more.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use tokio::time::sleep_until;

use super::Watch;
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
        let wanted = watch.entry.route.live.cadence && watch.next_look(Instant::now()).is_some();
        if !wanted || !watch.attention.tend(true) {
            return wanted;
        }
        let tending = Tending {
            shield: Arc::clone(self),
            watch: Arc::clone(watch),
        };
        tokio::spawn(async move {
            while let Some(at) = tending.watch.next_look(Instant::now()) {
                sleep_until(at.into()).await;
                tending.look().await;
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
        let upstream = || shield.sent(&HeaderMap::new(), entry);
        let found = shield.cache.lookup(&entry.key, entry.kind, upstream);
        if shield.failed_lately(&found, Instant::now()) {
            return;
        }
        match shield.cache.lead(&found, upstream) {
            Some(fill) => {
                let job = Job::new(Arc::clone(shield), entry, fill, Viewer::Nobody);
                job.run().await;
            }
            // Somebody looks already. Its result is as good.
            None => watch.unchanged(Instant::now()),
        }
    }
}
