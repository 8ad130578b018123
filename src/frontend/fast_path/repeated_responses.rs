//! Remembers complete responses for a moment, to send them again to requests in the same words.
//!
//! Nine tenths of a hit's own time go into the parsed head, admission, the key, the lookup and the
//! fields of the response. Most hits repeat another one of the same second: for these, the bytes of
//! the request lead to the bytes of the response. The [`RepeatPermit`] says how long a response
//! stays the same; it ends at once when the object is replaced, purged or evicted.
//!
//! A response is remembered when its request comes for the second time, so that requests of which
//! each is different (tokens, sessions) cost one comparison each and take no memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashTable;
use memchr::memmem;

use crate::proxy::{RepeatPermit, ResponseBody, ViewerResponse, new_request_id};
use crate::telemetry::RequestRecord;

/// Larger bodies take longer to send than to look up.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of all remembered responses of one worker and listener, with the objects they come from:
/// these may have left the store.
const BYTES_MAX: usize = 8 << 20;
/// Requests whose hash is remembered, to recognise the second one.
const SEEN_ONCE: usize = 1 << 10;
/// Responses that have ended are forgotten this often, while requests arrive that have no
/// remembered response.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

const REQUEST_ID_FIELD: &[u8] = b"\r\nx-request-id: ";

/// A response that may be sent again.
pub(super) struct RepeatedResponse {
    /// The head with all fields.
    head: Vec<u8>,
    /// Where the request id is in the head.
    request_id_at: usize,
    /// This worker's own copy: a clone of the stored body would move a reference count from core to
    /// core.
    body: Bytes,
    record: RequestRecord,
    permit: RepeatPermit,
}

impl RepeatedResponse {
    /// `None` if the response cannot be sent again.
    pub(super) fn of(response: &mut ViewerResponse, head: &[u8]) -> Option<RepeatedResponse> {
        let permit = response.repeat.take()?;
        // The permit keeps the whole object in memory, also when it has left the store.
        if permit.object().body.len() > BODY_BYTES_MAX {
            return None;
        }
        let body = match &response.body {
            ResponseBody::Empty => Bytes::new(),
            ResponseBody::Whole(Some(body)) if body.len() <= BODY_BYTES_MAX => {
                Bytes::copy_from_slice(body)
            }
            _ => return None,
        };
        let request_id_at = memmem::find(head, REQUEST_ID_FIELD)? + REQUEST_ID_FIELD.len();
        Some(RepeatedResponse {
            head: head.to_vec(),
            request_id_at,
            body,
            record: response.record.clone(),
            permit,
        })
    }

    /// The head for another request.
    pub(super) fn head(&self, capacity: usize) -> Vec<u8> {
        let mut head = Vec::with_capacity(capacity.max(self.head.len()));
        head.extend_from_slice(&self.head);
        let id = new_request_id();
        head[self.request_id_at..][..id.len()].copy_from_slice(&id);
        head
    }

    pub(super) fn body(&self) -> ResponseBody {
        ResponseBody::whole(self.body.clone())
    }

    /// The record of another request.
    pub(super) fn record(&self, arrived: Instant) -> RequestRecord {
        RequestRecord {
            arrived,
            is_repeated: true,
            ..self.record.clone()
        }
    }

    pub(super) fn permit(&self) -> &RepeatPermit {
        &self.permit
    }

    fn bytes(&self) -> usize {
        let object = self.permit.object().own_bytes();
        size_of::<RepeatedResponse>() + self.head.len() + self.body.len() + object
    }
}

struct Entry {
    hash: u64,
    /// All of a request that can change its response.
    key: Box<[u8]>,
    response: Arc<RepeatedResponse>,
    /// Until when the date in the head is correct.
    date_until: Instant,
}

/// What is remembered of a request.
pub(super) enum RepeatLookup {
    /// The response to send again.
    Remembered(Arc<RepeatedResponse>),
    /// The request came before: its response should be remembered.
    SeenBefore,
    /// The request is new.
    New,
}

/// The responses that one worker remembers for one listener.
pub(in crate::frontend) struct RepeatedResponses {
    hasher: ahash::RandomState,
    /// The hashes of requests seen once; a later one with the same place replaces an earlier one.
    seen_once: Box<[u64]>,
    entries: HashTable<Entry>,
    bytes: usize,
    next_sweep: Instant,
    /// The key of the last request that was looked up.
    key: Vec<u8>,
}

impl Default for RepeatedResponses {
    fn default() -> RepeatedResponses {
        RepeatedResponses {
            hasher: ahash::RandomState::new(),
            seen_once: vec![0; SEEN_ONCE].into(),
            entries: HashTable::new(),
            bytes: 0,
            next_sweep: Instant::now(),
            key: Vec::new(),
        }
    }
}

impl RepeatedResponses {
    /// Looks a request up; `write_key` writes its key.
    pub(super) fn look_up(
        &mut self,
        now: Instant,
        write_key: impl FnOnce(&mut Vec<u8>),
    ) -> RepeatLookup {
        self.key.clear();
        write_key(&mut self.key);
        let hash = self.hasher.hash_one(&self.key);
        let entry = self
            .entries
            .find(hash, |entry| entry.hash == hash && *entry.key == *self.key);
        if let Some(entry) = entry {
            return if entry.is_valid(now) {
                RepeatLookup::Remembered(Arc::clone(&entry.response))
            } else {
                RepeatLookup::SeenBefore
            };
        }
        let place = usize::try_from(hash).unwrap_or_default() % SEEN_ONCE;
        if std::mem::replace(&mut self.seen_once[place], hash) == hash {
            RepeatLookup::SeenBefore
        } else {
            RepeatLookup::New
        }
    }

    /// Bytes of all that is remembered.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Remembers the response to the request of the last lookup.
    pub(super) fn insert(&mut self, response: RepeatedResponse, date_until: Instant) {
        let hash = self.hasher.hash_one(&self.key);
        let previous = self
            .entries
            .find_entry(hash, |entry| entry.hash == hash && *entry.key == *self.key);
        if let Ok(previous) = previous {
            self.bytes -= previous.remove().0.bytes();
        }
        let entry = Entry {
            hash,
            key: self.key.as_slice().into(),
            response: Arc::new(response),
            date_until,
        };
        if self.bytes + entry.bytes() <= BYTES_MAX {
            self.bytes += entry.bytes();
            self.entries.insert_unique(hash, entry, |entry| entry.hash);
        }
    }

    /// Forgets the responses that have ended, once per [`SWEEP_INTERVAL`].
    pub(super) fn sweep(&mut self, now: Instant) {
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP_INTERVAL;
            self.entries.retain(|entry| entry.is_valid(now));
            self.bytes = self.entries.iter().map(Entry::bytes).sum();
        }
    }
}

impl Entry {
    fn is_valid(&self, now: Instant) -> bool {
        now < self.date_until && self.response.permit.is_valid(now)
    }

    fn bytes(&self) -> usize {
        size_of::<Entry>() + self.key.len() + self.response.bytes()
    }
}
