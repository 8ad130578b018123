//! What will be asked for next? A new segment is fetched once, behind everything else, before the first
//! viewer asks for it. Bounded in number; where the origin is busy, nothing is fetched ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::HeaderMap;
use tokio::sync::Semaphore;

use super::watch::Hint;
use crate::cache::Attention;
use crate::policy::access::Entry;
use crate::shield::Shield;
use crate::shield::fill::Viewer;

/// Fetched ahead at once, at most.
const AHEAD_MAX: usize = 64;
/// Announced and waited for at once, at most: one a rendition of a low-latency stream.
const HINTS_MAX: usize = 512;

/// What is being fetched ahead, and what came of it.
pub(in crate::shield) struct Ahead {
    places: Arc<Semaphore>,
    hints: Arc<Semaphore>,
    fetched: AtomicU64,
    used: Arc<AtomicU64>,
    left_out: AtomicU64,
}

/// Counts, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AheadStats {
    /// Fetched ahead of viewers.
    pub fetched: u64,
    /// Of these, asked for by a viewer later.
    pub used: u64,
    /// Not fetched ahead: too much was under way.
    pub left_out: u64,
}

impl Default for Ahead {
    fn default() -> Ahead {
        Ahead {
            places: Arc::new(Semaphore::new(AHEAD_MAX)),
            hints: Arc::new(Semaphore::new(HINTS_MAX)),
            fetched: AtomicU64::new(0),
            used: Arc::default(),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Ahead {
    pub(super) fn read(&self) -> AheadStats {
        AheadStats {
            fetched: self.fetched.load(Ordering::Relaxed),
            used: self.used.load(Ordering::Relaxed),
            left_out: self.left_out.load(Ordering::Relaxed),
        }
    }
}

impl Shield {
    /// Fetches what a new version lists, if nobody has or does.
    pub(in crate::shield) fn fetch_ahead(self: &Arc<Self>, coming: Vec<Entry>) {
        for entry in coming {
            let origin = &self.origins[entry.route.origin_index];
            self.fetch_one(&entry, &self.streams.ahead.places, || origin.has_room());
        }
    }

    /// Asks for what a new version announces: the origin answers when it is there.
    pub(in crate::shield) fn fetch_hinted(self: &Arc<Self>, hinted: Vec<Hint>) {
        for hint in hinted.into_iter().filter(|hint| hint.whole && hint.new) {
            let origin = &self.origins[hint.entry.route.origin_index];
            let places = &self.streams.ahead.hints;
            self.fetch_one(&hint.entry, places, || origin.has_room_to_wait());
        }
    }

    fn fetch_one(
        self: &Arc<Self>,
        entry: &Entry,
        places: &Arc<Semaphore>,
        has_room: impl FnOnce() -> bool,
    ) {
        let ahead = &self.streams.ahead;
        let upstream = || self.sent(&HeaderMap::new(), entry);
        let mut found = self.cache.lookup(&entry.key, entry.kind, upstream);
        let status = found.object.as_ref().map(|object| object.head.status);
        if status.is_some_and(|status| status.is_client_error()) {
            // It was asked for too early. It is there now, and nobody shall be told otherwise.
            self.cache.purge(&entry.key, entry.kind);
            found.object = None;
        }
        if !entry.route.live.prefetch || found.object.is_some() || found.has_variants() {
            return;
        }
        let place = has_room().then(|| Arc::clone(places).try_acquire_owned().ok());
        let Some(place) = place.flatten() else {
            ahead.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if let Some(fill) = self.cache.lead(&found, upstream) {
            ahead.fetched.fetch_add(1, Ordering::Relaxed);
            let used = Arc::clone(&ahead.used);
            let attention = Arc::new(Attention::counted(Instant::now(), used));
            let coming = Viewer::Coming {
                attention,
                _place: place,
            };
            self.launch(entry, fill, coming);
        }
    }
}
