//! Some manifests may not be stored: each viewer gets a text of its own. Such a text steers nothing that other
//! viewers get, but for two things that it says: that a packager began anew, and how far a file reaches that grows.
//! Both only make that untrue which is held, so the worst that a text can do is a fetch.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::lists::{Places, lies_in, lies_no_more};
use super::stream::Stream;
use super::variants::Variant;
use super::{News, Streams, Watch};
use crate::media::{Facts, Liveness, Manifest};
use crate::policy::Key;
use crate::policy::access::Entry;
use crate::policy::progress::Progress;
use crate::shield::Shield;

/// So many of these manifests are known at once, at most. Beyond, the half is forgotten that was asked for
/// longest ago.
const UNSTORED_MAX: usize = 2048;
/// Where viewers have numbers of their own under one URL, each other text seems to begin anew. So many times one
/// manifest is believed …
const RESTARTS_MAX: u32 = 3;
/// … within so long.
const RESTARTS_WITHIN: Duration = Duration::from_mins(10);

/// All of them.
#[derive(Default)]
pub(super) struct Unstored {
    watches: HashMap<Key, Known, ahash::RandomState>,
    /// Which of them list what lies in a directory, the last one at the end.
    places: Places,
}

struct Known {
    watch: Arc<Watch>,
    asked: Instant,
    /// How often it began anew, and since when that is counted.
    restarts: (u32, Instant),
}

impl Unstored {
    /// What is known of one, and whether that has just begun.
    fn watch(&mut self, entry: &Entry, facts: &Facts, now: Instant) -> (Arc<Watch>, bool) {
        if let Some(known) = self.watches.get_mut(entry.identity()) {
            known.asked = now;
            return (Arc::clone(&known.watch), false);
        }
        if self.watches.len() >= UNSTORED_MAX {
            self.make_room();
        }
        let plain = entry.plain();
        let key = plain.key.clone();
        // The same playlist for another session tells of the same restart.
        let spot = plain.spot();
        let mut others = self.watches.values();
        let same = others.find(|known| known.watch.entry.spot() == spot);
        let stream = same.map(|known| Arc::clone(&known.watch.stream));
        let stream = stream.unwrap_or_else(|| Arc::new(Stream::new(plain.target.path())));
        let watch = Arc::new(Watch::new(plain, stream, facts, now));
        let known = Known {
            watch: Arc::clone(&watch),
            asked: now,
            restarts: (0, now),
        };
        self.watches.insert(key, known);
        (watch, true)
    }

    fn make_room(&mut self) {
        let mut asked: Vec<Instant> = self.watches.values().map(|known| known.asked).collect();
        let middle = asked.len() / 2;
        let (_, middle, _) = asked.select_nth_unstable(middle);
        let middle = *middle;
        self.watches.retain(|_, known| known.asked > middle);
        let is_known = |watch: &Weak<Watch>| watch.strong_count() > 0;
        self.places
            .retain(|_, listing| listing.iter().any(is_known));
    }

    /// Is it believed that this one begins anew?
    fn may_begin_anew(&mut self, entry: &Entry, now: Instant) -> bool {
        let Some(known) = self.watches.get_mut(entry.identity()) else {
            return false;
        };
        let (times, since) = &mut known.restarts;
        if now.saturating_duration_since(*since) >= RESTARTS_WITHIN {
            (*times, *since) = (0, now);
        }
        *times += 1;
        *times <= RESTARTS_MAX
    }

    pub(super) fn lists(&self, place: &Key) -> bool {
        self.places.contains_key(place)
    }

    /// Those that list what lies there.
    pub(super) fn listing(&self, place: &Key) -> impl Iterator<Item = Arc<Watch>> {
        let listing = self.places.get(place).into_iter().flatten();
        listing.filter_map(Weak::upgrade)
    }

    fn file(&mut self, news: &News, watch: &Arc<Watch>) {
        for place in &news.forgotten {
            lies_no_more(&mut self.places, place, watch);
        }
        for place in &news.places {
            lies_in(&mut self.places, place, watch, news.found);
        }
    }
}

impl Streams {
    /// The manifests that list what lies beside something, also those that may not be stored.
    pub(super) fn all_listing(&self, entry: &Entry) -> Vec<Arc<Watch>> {
        let mut listing = self.listing(entry);
        let places = self.places_of(entry);
        let unstored = self.unstored.lock();
        if !unstored.watches.is_empty() {
            let places = places.around.iter().chain(&places.here);
            listing.extend(places.flat_map(|place| unstored.listing(place)));
        }
        listing
    }

    /// Takes a text, after a look at what it is to the one before it. `None`: it says nothing new.
    fn take_unstored(
        &self,
        shield: &Shield,
        (entry, variant): (&Entry, Variant),
        manifest: &Manifest,
        sent: Instant,
    ) -> Option<(Arc<Watch>, News, Progress)> {
        let facts = &manifest.facts;
        let (watch, is_first) = self.unstored.lock().watch(entry, facts, sent);
        let turn = watch.turn();
        let progress = match watch.judge(variant, facts, sent) {
            Progress::Behind => return None,
            Progress::Same if !is_first => {
                watch.unchanged(variant, sent);
                return None;
            }
            progress => progress,
        };
        if progress == Progress::Restarted && !self.unstored.lock().may_begin_anew(entry, sent) {
            watch.forget_restart();
            return None;
        }
        let news = watch.takes(&shield.rules, manifest, (variant, progress), (sent, false));
        drop(turn);
        self.unstored.lock().file(&news, &watch);
        if news.numbered {
            self.any_numbered.store(true, Ordering::Relaxed);
        }
        self.tell_others(&news, &watch);
        Some((watch, news, progress))
    }
}

impl Shield {
    /// What a manifest says that is handed on and not stored.
    pub(in crate::shield) fn learn_unstored(
        &self,
        (entry, variant): (&Entry, Variant),
        manifest: &Manifest,
        sent: Instant,
    ) {
        let facts = &manifest.facts;
        // One that has ended never begins anew.
        if facts.multivariant || facts.is_patch || facts.liveness == Liveness::Ended {
            return;
        }
        let what = (entry, variant);
        let Some((watch, news, progress)) = self.streams.take_unstored(self, what, manifest, sent)
        else {
            return;
        };
        for place in news.left.iter().chain(&news.unlisted(&watch)) {
            self.cache.end_epoch(place);
        }
        if progress == Progress::Restarted {
            let path = entry.target.path();
            tracing::warn!(path, "stream began anew: what was held of it is dropped");
        }
    }
}
