//! Memos: what is known about keys without an object, for example that a response is uncacheable,
//! that the origin just failed, or how to fetch it. Limited in bytes; each memo expires.
//!
//! Failures have a table of their own, so that invented URLs that fail do not displace other memos.
//! Both tables evict the least recently used memo, so that the newest failure is always kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Map;

use super::weight::{ARC_BYTES, allocated};
use super::{EpochToken, Object, StoredHead};
use seawall_policy::{EndpointAvoidance, Key};

/// A memo with its expiry.
#[derive(Clone, Debug)]
pub struct ExpiringMemo {
    /// When it expires.
    pub until: Instant,
    /// The memo.
    pub memo: KeyMemo,
}

/// A memo about a key.
#[derive(Clone, Debug)]
pub enum KeyMemo {
    /// Responses are not cacheable: go straight to the origin.
    Pass,
    /// The origin just failed for this key. Do not contact it yet, and send this response when
    /// there is no stale object.
    Failed(Arc<Object>),
    /// As `Failed`, because no endpoint responded, since this moment. Valid only until one responds
    /// again.
    Unreachable(Arc<Object>, Instant),
    /// The origin's response was truncated. One more request may follow at once.
    Truncated,
    /// The object is too large for one fetch: fetch it in slices.
    Sliced(Arc<SliceSet>),
    /// It is too large for one fetch, and the origin does not support ranges: stream it through.
    Unsliceable,
    /// These endpoints truncated the body before: prefer other endpoints.
    Avoid(EndpointAvoidance),
}

/// What all slices of an object have in common.
#[derive(Debug)]
pub struct SliceSet {
    /// The head of the object.
    pub head: StoredHead,
    /// The length of the object, in bytes.
    pub length: u64,
    /// The strong `ETag` that all slices must have.
    pub etag: HeaderValue,
    /// Ends, with all slices, when the object is purged.
    pub epoch_token: EpochToken,
    /// Endpoints that truncated the body before.
    pub avoided: EndpointAvoidance,
}

/// Overhead of a table entry, besides its key and memo.
const ENTRY_BYTES: usize = 340;
/// Each table may take 1/64 of the store's limit, in addition to it, …
const MEMORY_PART: u64 = 64;
/// … but at most and at least these sizes.
const BYTES_MAX: u64 = 8 << 20;
const BYTES_MIN: u64 = 64 << 10;

type MemoTable = Map<Key, ExpiringMemo, ahash::RandomState>;

pub(crate) struct KeyMemos {
    failures: MemoTable,
    other_memos: MemoTable,
}

struct MemoExpiry;

impl Expiry<Key, ExpiringMemo> for MemoExpiry {
    fn expire_after_create(&self, _: &Key, memo: &ExpiringMemo, now: Instant) -> Option<Duration> {
        Some(memo.until.saturating_duration_since(now))
    }

    fn expire_after_update(
        &self,
        _: &Key,
        memo: &ExpiringMemo,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(memo.until.saturating_duration_since(now))
    }
}

fn weigh(key: &Key, memo: &ExpiringMemo) -> u32 {
    let content = match &memo.memo {
        // A response that several keys share is charged to each of them.
        KeyMemo::Failed(error_object) | KeyMemo::Unreachable(error_object, _) => {
            error_object.own_bytes()
        }
        KeyMemo::Sliced(slice_set) => {
            allocated(size_of::<SliceSet>() + ARC_BYTES)
                + slice_set.head.own_bytes()
                + allocated(slice_set.etag.len())
                + allocated(slice_set.avoided.heap_bytes())
        }
        KeyMemo::Avoid(avoided) => allocated(avoided.heap_bytes()),
        KeyMemo::Pass | KeyMemo::Unsliceable | KeyMemo::Truncated => 0,
    };
    let key = allocated(key.bytes().len() + ARC_BYTES);
    u32::try_from(ENTRY_BYTES + size_of::<ExpiringMemo>() + key + content).unwrap_or(u32::MAX)
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
    /// For a store with a limit of `memory_bytes`.
    pub(crate) fn new(memory_bytes: u64) -> KeyMemos {
        let bytes_max = (memory_bytes / MEMORY_PART).clamp(BYTES_MIN, BYTES_MAX);
        KeyMemos {
            failures: table(bytes_max),
            other_memos: table(bytes_max),
        }
    }

    pub(crate) fn write(&self, key: &Key, memo: ExpiringMemo) {
        if matches!(memo.memo, KeyMemo::Failed(_) | KeyMemo::Unreachable(..)) {
            self.failures.insert(key.clone(), memo);
        } else {
            self.failures.invalidate(key);
            self.other_memos.insert(key.clone(), memo);
        }
    }

    /// The memo that is valid at a time. A failure has precedence.
    pub(crate) fn read(&self, key: &Key, now: Instant) -> Option<KeyMemo> {
        let is_valid = |memo: &ExpiringMemo| memo.until > now && memo.memo.is_valid();
        let read = |table: &MemoTable| table.get(key).filter(is_valid);
        let memo = read(&self.failures).or_else(|| read(&self.other_memos))?;
        Some(memo.memo)
    }

    pub(crate) fn erase_where(&self, is_match: impl Fn(&Key) -> bool) {
        for table in [&self.failures, &self.other_memos] {
            let matching = table.iter().filter(|(key, _)| is_match(key));
            matching.for_each(|(key, _)| table.invalidate(&*key));
        }
    }

    pub(crate) fn erase(&self, key: &Key) {
        self.failures.invalidate(key);
        self.other_memos.invalidate(key);
    }
}

impl KeyMemo {
    fn is_valid(&self) -> bool {
        match self {
            KeyMemo::Sliced(slice_set) => slice_set.head.is_valid(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;
    use seawall_manifest::Kind;
    use seawall_policy::Lifetime;

    fn failed(now: Instant) -> KeyMemo {
        let head = StoredHead {
            status: StatusCode::BAD_GATEWAY,
            lifetime: Lifetime::none(now),
            will_be_stored: false,
            ..StoredHead::plain(Kind::Segment)
        };
        KeyMemo::Failed(Arc::new(Object::new(head, Bytes::from(vec![0; 2000]))))
    }

    #[test]
    fn ten_thousand_failing_urls_displace_no_other_memo_and_the_newest_failure_is_remembered() {
        let (memos, now) = (KeyMemos::new(16 << 20), Instant::now());
        let until = now + Duration::from_mins(1);
        let key = |number: u32| Key::of(&[&number.to_be_bytes()]);
        let pass = ExpiringMemo {
            until,
            memo: KeyMemo::Pass,
        };
        memos.write(&key(0), pass.clone());
        let memo = ExpiringMemo {
            until,
            memo: failed(now),
        };
        for number in 0..10_000 {
            memos.write(&key(number), memo.clone());
        }
        memos.failures.run_pending_tasks();
        assert!(memos.failures.weighted_size() <= (16 << 20) / MEMORY_PART);
        assert!(matches!(memos.read(&key(0), now), Some(KeyMemo::Pass)));
        assert!(matches!(
            memos.read(&key(9999), now),
            Some(KeyMemo::Failed(_))
        ));
        // A later success replaces the failure.
        memos.write(&key(9999), pass);
        assert!(matches!(memos.read(&key(9999), now), Some(KeyMemo::Pass)));
        assert!(memos.read(&key(9999), until).is_none());
    }
}
