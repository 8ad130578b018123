//! What came is older than what viewers have seen, or was overtaken on its way. That is no failure: it
//! proves that what is held is newer, and whoever waits gets that.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::FillTask;
use super::manifest::{ManifestText, left};
use crate::cache::{Object, Verdict};
use crate::policy::Lifetime;
use crate::policy::lifetime::Storage;
use crate::policy::progress::Progress;
use crate::policy::vary::Vary;

impl FillTask {
    /// An endpoint lags.
    pub(super) fn outdated(self, text: ManifestText) {
        let watch = text.watch.clone();
        let _turn = watch.as_ref().map(|watch| watch.turn());
        self.give_newer(text);
    }

    /// Gives the newest version to all who wait, as if the origin had just confirmed it. The caller has the
    /// manifest's turn. Where nothing is held any more, what came is better than nothing.
    pub(super) fn give_newer(self, text: ManifestText) {
        let newest = self.newest();
        let Some(held) = newest.filter(|held| is_newest(&text, held)) else {
            return self.give_as_it_is(text);
        };
        let headers = held.head.headers.to_map();
        let (object, stored) = self.renewed((&held, false), headers, None, &text.reply);
        let object = Arc::new(object);
        if let Some(watch) = text.watch.as_ref().filter(|_| stored) {
            watch.unchanged(text.variant, text.seen);
            watch.good_for(left(&object.head, text.seen), text.seen);
            self.look_elsewhere_if_stalled(watch, text.reply.endpoint, text.old);
            self.shield.tend(watch);
        }
        let verdict = Verdict::Revalidated(Arc::clone(&object));
        if self.entry.is_directed() {
            if stored {
                let (key, kind) = (self.entry.identity(), self.entry.kind);
                self.shield.cache.file(key, kind, &object);
            }
            self.fill.settle(verdict);
        } else if stored {
            self.fill.varies(self.vary(&object.head.headers.to_map()));
            self.fill.keep(&object, verdict);
        } else {
            self.fill.settle(verdict);
        }
    }

    /// The newest version that is held of what this is a state of.
    pub(super) fn newest(&self) -> Option<Arc<Object>> {
        let (key, kind) = (self.entry.identity(), self.entry.kind);
        let upstream = || self.fill.upstream().clone();
        let cache = &self.shield.cache;
        let newest = cache.lookup(key, kind, Instant::now(), upstream).object;
        newest.filter(|newest| newest.head.status == StatusCode::OK)
    }

    /// To all who wait now, and to nobody after them.
    fn give_as_it_is(mut self, text: ManifestText) {
        let judged = self.judge(&text.reply, text.kind, text.facts(), false);
        if let Storage::Pass(reason) = judged {
            return self.hand_over_text(text, reason);
        }
        if self.vary(&text.reply.headers) != Vary::Nothing {
            self.fill.varies(self.vary(&text.reply.headers));
        }
        let lifetime = Lifetime::none(Instant::now());
        let version = self.version(text, lifetime, Progress::Same);
        self.fill.settle(Verdict::Object(Arc::new(version.object)));
    }
}

/// Is what is held what viewers have seen last?
fn is_newest(text: &ManifestText, held: &Object) -> bool {
    let Some((watch, facts)) = text.watch.as_ref().zip(held.head.facts.as_deref()) else {
        return true;
    };
    watch.judge(text.variant, facts, Instant::now()) != Progress::Behind
}
