//! What will be asked for next? A new segment is fetched once, behind everything else, before the first
//! viewer asks for it. Bounded in number; where the origin is busy, nothing is fetched ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::HeaderMap;
use tokio::sync::Semaphore;

use crate::cache::Attention;
use crate::policy::access::Entry;
use crate::shield::Shield;
use crate::shield::fill::Viewer;

/// Fetched ahead at once, at most.
const AHEAD_MAX: usize = 64;

/// What is being fetched ahead, and what came of it.
pub(in crate::shield) struct Ahead {
    places: Arc<Semaphore>,
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
        let ahead = &self.streams.ahead;
        for entry in coming {
            if !entry.route.live.prefetch {
                continue;
            }
            let upstream = || self.sent(&HeaderMap::new(), &entry);
            let found = self.cache.lookup(&entry.key, entry.kind, upstream);
            if found.object.is_some() || found.has_variants() {
                continue;
            }
            let spare = self.origins[entry.route.origin_index].has_room();
            let place = spare.then(|| Arc::clone(&ahead.places).try_acquire_owned().ok());
            let Some(place) = place.flatten() else {
                ahead.left_out.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if let Some(fill) = self.cache.lead(&found, upstream) {
                ahead.fetched.fetch_add(1, Ordering::Relaxed);
                let used = Arc::clone(&ahead.used);
                let attention = Arc::new(Attention::counted(Instant::now(), used));
                let coming = Viewer::Coming {
                    attention,
                    _place: place,
                };
                self.launch(&entry, fill, coming);
            }
        }
    }
}
