//! Handles a manifest that is older than what viewers have seen, or that was overtaken on its way.
//! This is no failure: the stored version is newer, and followers get that one.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::FillTask;
use super::manifest::{ManifestText, left};
use seawall_cache::{Object, Verdict};
use seawall_policy::Lifetime;
use seawall_policy::lifetime::Storage;
use seawall_policy::progress::Progress;
use seawall_policy::vary::Vary;

impl FillTask {
    /// An endpoint is behind.
    pub(super) fn outdated(self, text: ManifestText) {
        let watch = text.watch.clone();
        let _turn = watch.as_ref().map(|watch| watch.turn());
        self.settle_with_newest(text);
    }

    /// Gives the newest version to all followers, as if the origin had just confirmed it. The
    /// caller holds the manifest's turn. If nothing newer is stored any more, the older version is
    /// served.
    pub(super) fn settle_with_newest(self, text: ManifestText) {
        let newest = self.newest();
        let Some(held) = newest.filter(|held| is_newest(&text, held)) else {
            return self.settle_unstored(text);
        };
        let headers = held.head.headers.to_map();
        let (object, stored) = self.revalidated_object((&held, false), headers, None, &text.reply);
        let object = Arc::new(object);
        if let Some(watch) = text.watch.as_ref().filter(|_| stored) {
            watch.record_unchanged(text.variant, text.seen);
            watch.set_fresh_for(left(&object.head, text.seen), text.seen);
            self.look_elsewhere_if_stalled(watch, text.reply.endpoint, text.old);
            self.shield.start_refresher(watch);
        }
        let verdict = Verdict::Revalidated(Arc::clone(&object));
        if self.entry.is_directed() {
            if stored {
                let (key, kind) = (self.entry.identity(), self.entry.kind);
                self.shield.cache.store_under(key, kind, &object);
            }
            self.fill.settle(verdict);
        } else if stored {
            self.fill.set_vary(self.vary(&object.head.headers.to_map()));
            self.fill.store_and_publish(&object, verdict);
        } else {
            self.fill.settle(verdict);
        }
    }

    /// The newest stored version of the manifest.
    pub(super) fn newest(&self) -> Option<Arc<Object>> {
        let (key, kind) = (self.entry.identity(), self.entry.kind);
        let upstream = || self.fill.upstream().clone();
        let cache = &self.shield.cache;
        let newest = cache.lookup(key, kind, Instant::now(), upstream).object;
        newest.filter(|newest| newest.head.status == StatusCode::OK)
    }

    /// Gives it to the current followers, without storing it.
    fn settle_unstored(mut self, text: ManifestText) {
        let judged = self.judge(&text.reply, text.kind, text.facts(), false);
        if let Storage::Pass(reason) = judged {
            return self.hand_over_text(text, reason);
        }
        if self.vary(&text.reply.headers) != Vary::Nothing {
            self.fill.set_vary(self.vary(&text.reply.headers));
        }
        let lifetime = Lifetime::none(Instant::now());
        let version = self.version(text, lifetime, Progress::Same);
        self.fill.settle(Verdict::Object(Arc::new(version.object)));
    }
}

/// Whether the stored version is the newest that viewers have seen.
fn is_newest(text: &ManifestText, held: &Object) -> bool {
    let Some((watch, facts)) = text.watch.as_ref().zip(held.head.facts.as_deref()) else {
        return true;
    };
    watch.judge(text.variant, facts, Instant::now()) != Progress::Behind
}
