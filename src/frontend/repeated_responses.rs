//! Remembers complete responses for a moment, to send them again to requests in the same words.
//!
//! Nine tenths of a hit's own time go into the parsed head, admission, the key, the lookup and the
//! fields of the response. Most hits repeat another one of the same second: for these, the bytes of
//! the request lead to the bytes of the response. The [`RepeatPermit`] says how long a response
//! stays the same; it ends at once when the object is replaced, purged or evicted. Everything here
//! belongs to one generation of settings: when a reload begins another one, all is forgotten.
//!
//! A response is remembered when its request comes for the second time, so that requests of which
//! each is different (tokens, sessions) cost one comparison each and take no memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashTable;
use http::{HeaderMap, HeaderValue};
use memchr::memmem;

use super::awaited_responses::{AwaitedResponses, SharedWaiter};
use super::request_key::{COPIED_BODY_MAX, RequestKey};
use crate::proxy::{
    RepeatPermit, RepeatRules, ResponseBody, ViewerResponse, X_REQUEST_ID, new_request_id,
};
use crate::telemetry::{RequestRecord, viewer_hash};
use seawall_cache::Object;
use seawall_policy::ViewerAddress;

/// Bytes of all remembered responses of one worker, listener and protocol, with the objects they
/// come from: these may have left the store.
const BYTES_MAX: usize = 4 << 20;
/// Requests whose hash is remembered, to recognise the second one.
const SEEN_ONCE: usize = 1 << 10;
/// Responses that have ended are forgotten this often, while requests arrive that have no
/// remembered response.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// An entry of a header map and the allocation of its value, about.
const FIELD_BYTES: usize = 128;

/// The generation of a table that was never used: no settings have it.
const NO_GENERATION: u64 = u64::MAX;

const REQUEST_ID_FIELD: &[u8] = b"\r\nx-request-id: ";

/// The head of a response, in the form in which its protocol sends it.
pub(super) trait RepeatedHead: 'static {
    /// Bytes of memory.
    fn bytes(&self) -> usize;
}

/// The head of an HTTP/1.1 response.
pub(super) struct Http1Head {
    text: Vec<u8>,
    /// Where the request id is in the text.
    request_id_at: usize,
}

impl Http1Head {
    /// `None` if it has no request id.
    pub(super) fn of(text: &[u8]) -> Option<Http1Head> {
        let request_id_at = memmem::find(text, REQUEST_ID_FIELD)? + REQUEST_ID_FIELD.len();
        Some(Http1Head {
            text: text.to_vec(),
            request_id_at,
        })
    }

    /// The text for another request.
    pub(super) fn with_new_id(&self, capacity: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(capacity.max(self.text.len()));
        text.extend_from_slice(&self.text);
        let id = new_request_id();
        text[self.request_id_at..][..id.len()].copy_from_slice(&id);
        text
    }
}

impl RepeatedHead for Http1Head {
    fn bytes(&self) -> usize {
        self.text.len()
    }
}

/// The fields of an HTTP/2 response.
pub(super) struct Http2Fields(HeaderMap);

impl Http2Fields {
    /// Copies the values: stored values share memory whose reference count all workers write.
    pub(super) fn of(fields: &HeaderMap) -> Option<Http2Fields> {
        let mut copies = HeaderMap::with_capacity(fields.keys_len());
        for (name, value) in fields {
            copies.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
        Some(Http2Fields(copies))
    }

    /// The fields for another request.
    pub(super) fn with_new_id(&self) -> HeaderMap {
        let mut fields = self.0.clone();
        if let Ok(id) = HeaderValue::from_bytes(&new_request_id()) {
            fields.insert(X_REQUEST_ID, id);
        }
        fields
    }
}

impl RepeatedHead for Http2Fields {
    fn bytes(&self) -> usize {
        let bytes = |(name, value): (&http::HeaderName, &HeaderValue)| {
            name.as_str().len() + value.len() + FIELD_BYTES
        };
        self.0.iter().map(bytes).sum()
    }
}

/// What a response that may be sent again needs besides its head.
pub(super) struct Repeatable {
    /// This worker's own copy: a clone of the stored body would move a reference count from core to
    /// core.
    body: Bytes,
    record: RequestRecord,
    permit: RepeatPermit,
}

impl Repeatable {
    /// `None` if the response cannot be sent again.
    pub(super) fn of(response: &mut ViewerResponse) -> Option<Repeatable> {
        let permit = response.repeat.take()?;
        // The permit keeps the whole object in memory, also when it has left the store.
        if permit.object().body.len() > COPIED_BODY_MAX {
            return None;
        }
        let body = match &response.body {
            ResponseBody::Empty => Bytes::new(),
            ResponseBody::Whole(Some(body)) if body.len() <= COPIED_BODY_MAX => {
                Bytes::copy_from_slice(body)
            }
            _ => return None,
        };
        Some(Repeatable {
            body,
            record: response.record.clone(),
            permit,
        })
    }

    pub(super) fn with_head<H>(self, head: H) -> RepeatedResponse<H> {
        RepeatedResponse { head, rest: self }
    }
}

/// A response that may be sent again.
pub(super) struct RepeatedResponse<H> {
    head: H,
    rest: Repeatable,
}

impl<H> RepeatedResponse<H> {
    pub(super) fn head(&self) -> &H {
        &self.head
    }

    pub(super) fn body(&self) -> ResponseBody {
        ResponseBody::whole(self.rest.body.clone())
    }

    /// The stored object whose body this response sends. `None`: it has no body, as a 304.
    pub(super) fn body_source(&self) -> Option<&Arc<Object>> {
        (!self.rest.body.is_empty()).then(|| self.rest.permit.object())
    }

    /// The record of another request.
    pub(super) fn record(&self, arrived: Instant, viewer: ViewerAddress) -> RequestRecord {
        RequestRecord {
            arrived,
            is_repeated: true,
            viewer_hash: viewer_hash(viewer.viewer),
            ..self.rest.record.clone()
        }
    }

    pub(super) fn permit(&self) -> &RepeatPermit {
        &self.rest.permit
    }
}

impl<H: RepeatedHead> RepeatedResponse<H> {
    fn bytes(&self) -> usize {
        let object = self.permit().object().own_bytes();
        size_of::<RepeatedResponse<H>>() + self.head.bytes() + self.rest.body.len() + object
    }
}

struct Entry<H> {
    key: RequestKey,
    response: Arc<RepeatedResponse<H>>,
    /// Until when the date in the head is correct.
    date_until: Instant,
}

/// What is remembered of a request.
pub(super) enum RepeatLookup<H> {
    /// The response to send again.
    Remembered(Arc<RepeatedResponse<H>>),
    /// Other viewers wait for the response: this one waits with them.
    Awaited(Box<SharedWaiter<H>>),
    /// The request came before: its response should be remembered under this key.
    SeenBefore(RequestKey),
    /// The request is new.
    New,
}

/// The responses that one worker remembers for one listener and protocol.
pub(super) struct RepeatedResponses<H> {
    /// Which requests are the same, in the generation of settings that everything here comes from.
    rules: RepeatRules,
    hasher: ahash::RandomState,
    /// The hashes of requests seen once; a later one with the same place replaces an earlier one.
    seen_once: Box<[u64]>,
    entries: HashTable<Entry<H>>,
    /// The responses that do not exist yet.
    pub(super) awaited: AwaitedResponses<H>,
    bytes: usize,
    next_sweep: Instant,
    /// Memory for the key of a request.
    buffer: Vec<u8>,
}

impl<H> Default for RepeatedResponses<H> {
    fn default() -> RepeatedResponses<H> {
        RepeatedResponses {
            rules: RepeatRules {
                generation: NO_GENERATION,
                ..RepeatRules::default()
            },
            hasher: ahash::RandomState::new(),
            seen_once: vec![0; SEEN_ONCE].into(),
            entries: HashTable::new(),
            awaited: AwaitedResponses::default(),
            bytes: 0,
            next_sweep: Instant::now(),
            buffer: Vec::new(),
        }
    }
}

impl<H: RepeatedHead> RepeatedResponses<H> {
    /// The generation of settings that everything here comes from.
    pub(super) fn generation(&self) -> u64 {
        self.rules.generation
    }

    /// Forgets everything, and begins another generation. Who waits for a response still gets it.
    pub(super) fn begin_generation(&mut self, rules: RepeatRules) {
        *self = RepeatedResponses {
            rules,
            ..RepeatedResponses::default()
        };
    }

    /// Looks a request up; `write_key` writes its key.
    pub(super) fn look_up(
        &mut self,
        now: Instant,
        write_key: impl FnOnce(&RepeatRules, &mut Vec<u8>),
    ) -> RepeatLookup<H> {
        self.buffer.clear();
        write_key(&self.rules, &mut self.buffer);
        let bytes = self.buffer.as_slice();
        let hash = self.hasher.hash_one(bytes);
        let is_same = |entry: &Entry<H>| entry.key.is_of(hash, bytes);
        let entry = self.entries.find(hash, is_same);
        if let Some(entry) = entry
            && entry.is_valid(now)
        {
            return RepeatLookup::Remembered(Arc::clone(&entry.response));
        }
        if let Some(waiter) = self.awaited.join(hash, bytes, now) {
            return RepeatLookup::Awaited(Box::new(waiter));
        }
        let place = usize::try_from(hash).unwrap_or_default() % SEEN_ONCE;
        let before = std::mem::replace(&mut self.seen_once[place], hash);
        if entry.is_none() && before != hash {
            return RepeatLookup::New;
        }
        RepeatLookup::SeenBefore(RequestKey::of(self.rules.generation, hash, bytes))
    }

    /// Bytes of all that is remembered.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Remembers the response to a request, unless a reload came between: an old key leaves out
    /// what may change a response now, and an old response is not what a lookup would lead to.
    pub(super) fn insert(
        &mut self,
        key: RequestKey,
        response: RepeatedResponse<H>,
        date_until: Instant,
    ) {
        let generations = [key.generation(), response.permit().generation()];
        if generations != [self.rules.generation; 2] {
            return;
        }
        let hash = key.hash();
        if let Ok(previous) = self.entries.find_entry(hash, |entry| entry.key == key) {
            self.bytes -= previous.remove().0.bytes();
        }
        let entry = Entry {
            key,
            response: Arc::new(response),
            date_until,
        };
        if self.bytes + entry.bytes() <= BYTES_MAX {
            self.bytes += entry.bytes();
            self.entries
                .insert_unique(hash, entry, |entry| entry.key.hash());
        }
    }

    /// Forgets the responses that have ended, once per [`SWEEP_INTERVAL`].
    pub(super) fn sweep(&mut self, now: Instant) {
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP_INTERVAL;
            self.entries.retain(|entry| entry.is_valid(now));
            self.awaited.sweep();
            self.bytes = self.entries.iter().map(Entry::bytes).sum();
        }
    }
}

impl<H: RepeatedHead> Entry<H> {
    fn is_valid(&self, now: Instant) -> bool {
        now < self.date_until && self.response.permit().is_valid(now)
    }

    fn bytes(&self) -> usize {
        size_of::<Entry<H>>() + self.key.bytes() + self.response.bytes()
    }
}
