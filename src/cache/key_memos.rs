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
use super::{EpochToken, Object, StoredHead};
use crate::policy::{EndpointSet, Key};

/// Something remembered about a key, until a moment.
#[derive(Clone, Debug)]
pub struct ExpiringMemo {
    /// Until when it holds.
    pub until: Instant,
    /// What.
    pub what: KeyMemo,
}

/// What can be known of a key.
#[derive(Clone, Debug)]
pub enum KeyMemo {
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
    Sliced(Arc<SliceSet>),
    /// It is too large for one fetch, and its origin sends no parts: it streams through.
    Unsliceable,
    /// These endpoints broke off in the middle of it: others are asked first.
    Avoid(EndpointSet),
}

/// What the slices of one object have in common.
#[derive(Debug)]
pub struct SliceSet {
    /// Its head.
    pub head: StoredHead,
    /// Its whole length.
    pub length: u64,
    /// All slices carry this strong `ETag`.
    pub etag: HeaderValue,
    /// Ends when the object is purged, and all slices with it.
    pub tie: EpochToken,
    /// Endpoints that stopped in the middle of it before, and until when that counts.
    pub left: Option<(EndpointSet, Instant)>,
}

impl SliceSet {
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

type MemoTable = Map<Key, ExpiringMemo, ahash::RandomState>;

pub(crate) struct KeyMemos {
    failures: MemoTable,
    ways: MemoTable,
}

struct MemoExpiry;

impl Expiry<Key, ExpiringMemo> for MemoExpiry {
    fn expire_after_create(&self, _: &Key, note: &ExpiringMemo, now: Instant) -> Option<Duration> {
        Some(note.until.saturating_duration_since(now))
    }

    fn expire_after_update(
        &self,
        _: &Key,
        note: &ExpiringMemo,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(note.until.saturating_duration_since(now))
    }
}

fn weigh(key: &Key, note: &ExpiringMemo) -> u32 {
    let what = match &note.what {
        // An answer that many keys share counts for each of them.
        KeyMemo::Failed(answer) | KeyMemo::Unheard(answer, _) => answer.own_bytes(),
        KeyMemo::Sliced(series) => {
            allocated(size_of::<SliceSet>() + ARC_BYTES)
                + series.head.own_bytes()
                + allocated(series.etag.len())
        }
        KeyMemo::Pass | KeyMemo::Unsliceable | KeyMemo::BrokenOff | KeyMemo::Avoid(_) => 0,
    };
    let key = allocated(key.bytes().len() + ARC_BYTES);
    u32::try_from(ENTRY_BYTES + size_of::<ExpiringMemo>() + key + what).unwrap_or(u32::MAX)
}

fn table(bytes_max: u64) -> MemoTable {
    Map::builder()
        .max_capacity(bytes_max)
        .weigher(weigh)
        .eviction_policy(EvictionPolicy::lru())
        .expire_after(MemoExpiry)
        .build_with_hasher(ahash::RandomState::new())
}

impl KeyMemos {
    /// Beside a store of so many bytes.
    pub(crate) fn new(memory_bytes: u64) -> KeyMemos {
        let bytes_max = (memory_bytes / MEMORY_PART).clamp(BYTES_MIN, BYTES_MAX);
        KeyMemos {
            failures: table(bytes_max),
            ways: table(bytes_max),
        }
    }

    pub(crate) fn write(&self, key: &Key, note: ExpiringMemo) {
        if matches!(note.what, KeyMemo::Failed(_) | KeyMemo::Unheard(..)) {
            self.failures.insert(key.clone(), note);
        } else {
            self.failures.invalidate(key);
            self.ways.insert(key.clone(), note);
        }
    }

    /// What holds at a moment: a failure before everything else.
    pub(crate) fn read(&self, key: &Key, now: Instant) -> Option<KeyMemo> {
        let holds = |note: &ExpiringMemo| note.until > now && note.what.holds();
        let read = |table: &MemoTable| table.get(key).filter(holds);
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

impl KeyMemo {
    fn holds(&self) -> bool {
        match self {
            KeyMemo::Sliced(series) => series.head.holds(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::manifest::Kind;
    use crate::policy::Lifetime;

    fn failed(now: Instant) -> KeyMemo {
        let head = StoredHead {
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
        KeyMemo::Failed(Arc::new(Object::new(head, Bytes::from(vec![0; 2000]))))
    }

    #[test]
    fn ten_thousand_failing_urls_displace_no_other_note_and_the_newest_failure_is_remembered() {
        let (notes, now) = (KeyMemos::new(16 << 20), Instant::now());
        let until = now + Duration::from_mins(1);
        let key = |number: u32| Key::of(&[&number.to_be_bytes()]);
        let pass = ExpiringMemo {
            until,
            what: KeyMemo::Pass,
        };
        notes.write(&key(0), pass.clone());
        let note = ExpiringMemo {
            until,
            what: failed(now),
        };
        for number in 0..10_000 {
            notes.write(&key(number), note.clone());
        }
        notes.failures.run_pending_tasks();
        assert!(notes.failures.weighted_size() <= (16 << 20) / MEMORY_PART);
        assert!(matches!(notes.read(&key(0), now), Some(KeyMemo::Pass)));
        assert!(matches!(
            notes.read(&key(9999), now),
            Some(KeyMemo::Failed(_))
        ));
        // What has worked since has not failed.
        notes.write(&key(9999), pass);
        assert!(matches!(notes.read(&key(9999), now), Some(KeyMemo::Pass)));
        assert!(notes.read(&key(9999), until).is_none());
    }
}
