//! What is worth remembering about a key that has no object? That it is uncacheable, that its
//! origin just failed, or how it must be fetched. Bounded by bytes, each gone when its time is over.
//!
//! Failures have a table of their own: invented URLs that fail displace nothing else that is known. In both
//! tables the oldest go first, so that the newest failure is always remembered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Map;

use super::weight::{ARC_BYTES, allocated};
use super::{Head, Object, Tie};
use crate::policy::{EndpointSet, Key};

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
    /// The same since this moment, since no endpoint could be heard: only until one is back.
    Unheard(Arc<Object>, Instant),
    /// The origin's answer broke off midway: it may be asked again at once, and once.
    BrokenOff,
    /// The object is too large for one fetch: it is fetched in slices.
    Sliced(Arc<Series>),
    /// It is too large for one fetch, and its origin sends no parts: it streams through.
    Unsliceable,
    /// These endpoints broke off in the middle of it: others are asked first.
    Avoid(EndpointSet),
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
    /// Endpoints that stopped in the middle of it before, and until when that counts.
    pub left: Option<(EndpointSet, Instant)>,
}

impl Series {
    /// Those that count at this time.
    pub fn left_at(&self, now: Instant) -> EndpointSet {
        let left = self.left.filter(|(_, until)| now < *until);
        left.map(|(left, _)| left).unwrap_or_default()
    }
}

/// What a table keeps for each entry besides key and note.
const ENTRY_BYTES: usize = 340;
/// Each table may take this part of what the store may, besides that, …
const MEMORY_PART: u64 = 64;
/// … but no more than this, and always this much.
const BYTES_MAX: u64 = 8 << 20;
const BYTES_MIN: u64 = 64 << 10;

type Table = Map<Key, Note, ahash::RandomState>;

pub(crate) struct Notes {
    failures: Table,
    ways: Table,
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
        Known::Failed(answer) | Known::Unheard(answer, _) => answer.own_bytes(),
        Known::Sliced(series) => {
            allocated(size_of::<Series>() + ARC_BYTES)
                + series.head.own_bytes()
                + allocated(series.etag.len())
        }
        Known::Pass | Known::Unsliceable | Known::BrokenOff | Known::Avoid(_) => 0,
    };
    let key = allocated(key.bytes().len() + ARC_BYTES);
    u32::try_from(ENTRY_BYTES + size_of::<Note>() + key + what).unwrap_or(u32::MAX)
}

fn table(bytes_max: u64) -> Table {
    Map::builder()
        .max_capacity(bytes_max)
        .weigher(weigh)
        .eviction_policy(EvictionPolicy::lru())
        .expire_after(Until)
        .build_with_hasher(ahash::RandomState::new())
}

impl Notes {
    /// Beside a store of so many bytes.
    pub(crate) fn new(memory_bytes: u64) -> Notes {
        let bytes_max = (memory_bytes / MEMORY_PART).clamp(BYTES_MIN, BYTES_MAX);
        Notes {
            failures: table(bytes_max),
            ways: table(bytes_max),
        }
    }

    pub(crate) fn write(&self, key: &Key, note: Note) {
        if matches!(note.what, Known::Failed(_) | Known::Unheard(..)) {
            self.failures.insert(key.clone(), note);
        } else {
            self.failures.invalidate(key);
            self.ways.insert(key.clone(), note);
        }
    }

    /// What holds at a moment: a failure before everything else.
    pub(crate) fn read(&self, key: &Key, now: Instant) -> Option<Known> {
        let holds = |note: &Note| note.until > now && note.what.holds();
        let read = |table: &Table| table.get(key).filter(holds);
        let note = read(&self.failures).or_else(|| read(&self.ways))?;
        Some(note.what)
    }

    pub(crate) fn erase_where(&self, is_meant: impl Fn(&Key) -> bool) {
        for table in [&self.failures, &self.ways] {
            let meant = table.iter().filter(|(key, _)| is_meant(key));
            meant.for_each(|(key, _)| table.invalidate(&*key));
        }
    }

    pub(crate) fn erase(&self, key: &Key) {
        self.failures.invalidate(key);
        self.ways.invalidate(key);
    }
}

impl Known {
    fn holds(&self) -> bool {
        match self {
            Known::Sliced(series) => series.head.holds(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::media::Kind;
    use crate::policy::Lifetime;

    fn failed(now: Instant) -> Known {
        let head = Head {
            status: StatusCode::BAD_GATEWAY,
            headers: HeaderMap::new().into(),
            targeted: None,
            kind: Kind::Segment,
            lifetime: Lifetime::none(now),
            facts: None,
            length: None,
            stored: false,
            tie: None,
            attention: None,
        };
        Known::Failed(Arc::new(Object::new(head, Bytes::from(vec![0; 2000]))))
    }

    #[test]
    fn ten_thousand_failing_urls_displace_no_other_note_and_the_newest_failure_is_remembered() {
        let (notes, now) = (Notes::new(16 << 20), Instant::now());
        let until = now + Duration::from_mins(1);
        let key = |number: u32| Key::of(&[&number.to_be_bytes()]);
        let pass = Note {
            until,
            what: Known::Pass,
        };
        notes.write(&key(0), pass.clone());
        let note = Note {
            until,
            what: failed(now),
        };
        for number in 0..10_000 {
            notes.write(&key(number), note.clone());
        }
        notes.failures.run_pending_tasks();
        assert!(notes.failures.weighted_size() <= (16 << 20) / MEMORY_PART);
        assert!(matches!(notes.read(&key(0), now), Some(Known::Pass)));
        assert!(matches!(
            notes.read(&key(9999), now),
            Some(Known::Failed(_))
        ));
        // What has worked since has not failed.
        notes.write(&key(9999), pass);
        assert!(matches!(notes.read(&key(9999), now), Some(Known::Pass)));
        assert!(notes.read(&key(9999), until).is_none());
    }
}
