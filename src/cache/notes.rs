//! What is worth remembering about a key that has no object? That it is uncacheable, that its
//! origin just failed, or how it must be fetched. Bounded by bytes, each gone when its time is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use moka::Expiry;
use moka::sync::Cache as Map;

use super::weight::{ARC_BYTES, STORE_ENTRY_BYTES, allocated};
use super::{Head, Object, Tie};
use crate::policy::Key;

/// Something remembered about a key, until a moment.
#[derive(Clone, Debug)]
pub struct Note {
    /// Until when it holds.
    pub until: Instant,
    /// What.
    pub what: Known,
}

/// What can be known of a key.
#[derive(Clone, Debug)]
pub enum Known {
    /// Answers to this key are not cacheable: go straight to the origin.
    Pass,
    /// The origin just failed on this key: do not ask again yet, and answer this where nothing stale is
    /// held.
    Failed(Arc<Object>),
    /// The origin's answer broke off midway: it may be asked again at once, and once.
    BrokenOff,
    /// The object is too large for one fetch: it is fetched in slices.
    Sliced(Arc<Series>),
    /// It is too large for one fetch, and its origin sends no parts: it streams through.
    Unsliceable,
    /// The endpoint at this place broke off in the middle of it: others are asked first.
    Avoid(usize),
}

/// What the slices of one object have in common.
#[derive(Debug)]
pub struct Series {
    /// Its head.
    pub head: Head,
    /// Its whole length.
    pub length: u64,
    /// All slices carry this strong `ETag`.
    pub etag: HeaderValue,
    /// Ends when the object is purged, and all slices with it.
    pub tie: Tie,
}

/// All notes together.
const BYTES_MAX: u64 = 16 << 20;
pub(crate) struct Notes {
    map: Map<Key, Note, ahash::RandomState>,
}

struct Until;

impl Expiry<Key, Note> for Until {
    fn expire_after_create(&self, _: &Key, note: &Note, now: Instant) -> Option<Duration> {
        Some(note.until.saturating_duration_since(now))
    }

    fn expire_after_update(
        &self,
        _: &Key,
        note: &Note,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(note.until.saturating_duration_since(now))
    }
}

fn weigh(key: &Key, note: &Note) -> u32 {
    let what = match &note.what {
        // An answer that many keys share counts for each of them.
        Known::Failed(answer) => answer.own_bytes(),
        Known::Sliced(series) => {
            allocated(size_of::<Series>() + ARC_BYTES)
                + series.head.own_bytes()
                + allocated(series.etag.len())
        }
        Known::Pass | Known::Unsliceable | Known::BrokenOff | Known::Avoid(_) => 0,
    };
    let key = allocated(key.bytes().len() + ARC_BYTES);
    u32::try_from(STORE_ENTRY_BYTES + size_of::<Note>() + key + what).unwrap_or(u32::MAX)
}

impl Default for Notes {
    fn default() -> Self {
        Notes {
            map: Map::builder()
                .max_capacity(BYTES_MAX)
                .weigher(weigh)
                .expire_after(Until)
                .build_with_hasher(ahash::RandomState::new()),
        }
    }
}

impl Notes {
    pub(crate) fn write(&self, key: &Key, note: Note) {
        self.map.insert(key.clone(), note);
    }

    pub(crate) fn read(&self, key: &Key) -> Option<Note> {
        self.map.get(key)
    }

    pub(crate) fn erase(&self, key: &Key) {
        self.map.invalidate(key);
    }
}
