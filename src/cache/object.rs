//! What is an answer made of? A head, whose lifetime is decided, and a body in one piece.

use std::mem::size_of;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::eviction::HitCounter;
use super::{Attention, Codings, Tie};
use crate::media::{Facts, Kind};
use crate::policy::Lifetime;

/// The head of an answer, shared by all who get it.
#[derive(Clone, Debug)]
pub struct Head {
    /// Status.
    pub status: StatusCode,
    /// As sent to viewers: hop-by-hop and targeted fields gone, `Age` and `Content-Length` left out.
    pub headers: HeaderMap,
    /// The cache-control fields meant for caches like this one alone (RFC 9213): not sent on, but a 304
    /// that does not repeat them leaves them in force.
    pub targeted: Option<Box<HeaderMap>>,
    /// What it really carries.
    pub kind: Kind,
    /// For how long it is good.
    pub lifetime: Lifetime,
    /// What a manifest says about itself.
    pub facts: Option<Facts>,
    /// Body length, where it is known already.
    pub length: Option<u64>,
    /// It is to be stored, as far as is known when it goes out.
    pub stored: bool,
    /// Held no longer than its place's epoch lasts.
    pub tie: Option<Tie>,
    /// Whoever is served it leaves a mark, where somebody looks after it or fetched it ahead.
    pub attention: Option<Arc<Attention>>,
}

impl Head {
    /// It belongs to no epoch that has ended.
    pub fn holds(&self) -> bool {
        self.tie.as_ref().is_none_or(Tie::holds)
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its head; `length` is known.
    pub head: Head,
    /// Its body, in one allocation.
    pub body: Bytes,
    /// The head's fields as HTTP/1 writes them, but for [`SAID_ANEW`]: written once, not with every hit.
    pub lines: Box<[u8]>,
    /// The same in the codings that are made here, for those who take one; nothing where it is not to be coded.
    pub coded: Option<Codings>,
    /// The same playlist without its old segments (LL-HLS), for those who have these.
    pub delta: Option<Arc<Object>>,
    /// How often it was served from memory, for eviction.
    pub hits: Arc<HitCounter>,
}

/// What an answer says anew, or leaves out, whatever the origin said.
pub static SAID_ANEW: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    HeaderName::from_static("x-request-id"),
];

/// Answers add so many fields to a copy of the stored ones: a map that has room for them in its index
/// saves every hit a rebuilding.
pub const FIELDS_ADDED: usize = 10;

/// A rough price of what surrounds each object: the allocations of its map entries and headers.
const OVERHEAD_BYTES: usize = 1400;
const HEADER_OVERHEAD_BYTES: usize = 80;

impl Object {
    /// Puts a whole answer together.
    pub fn new(mut head: Head, body: Bytes) -> Object {
        head.length = Some(body.len() as u64);
        head.headers.reserve(FIELDS_ADDED);
        let lines = lines(&head.headers);
        Object {
            head,
            body,
            lines,
            coded: None,
            delta: None,
            hits: Arc::default(),
        }
    }

    /// The same answer with another lifetime. Its bytes are shared.
    #[must_use]
    pub fn lasting(&self, lifetime: &Lifetime) -> Object {
        let coded = self.coded.as_ref();
        let delta = self.delta.as_ref();
        Object {
            head: Head {
                lifetime: lifetime.clone(),
                ..self.head.clone()
            },
            coded: coded.map(|coded| coded.each(|_, object| object.lasting(lifetime))),
            delta: delta.map(|delta| Arc::new(delta.lasting(lifetime))),
            ..self.clone()
        }
    }

    /// Bytes of memory this object takes, filed under a key of `key_bytes`.
    pub fn weight_bytes(&self, key_bytes: usize) -> usize {
        let headers: usize = self
            .head
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES)
            .sum();
        let texts = headers + self.lines.len();
        // Codings are made later: together they are about as large as the text.
        let codings = self.coded.iter().map(|_| self.body.len() + OVERHEAD_BYTES);
        let delta = self.delta.iter().map(|delta| delta.weight_bytes(0));
        let forms: usize = codings.chain(delta).sum();
        size_of::<Object>() + OVERHEAD_BYTES + key_bytes + texts + self.body.len() + forms
    }

    /// How long after its making an object is of any use: while it may be served at all and, since
    /// a 304 revives it cheaply, for a while after. Not a manifest of an epoch: a low-latency playlist
    /// leaves one behind with every part, and nobody asks for that one again. Nor an error, which a 304
    /// does not make any cheaper.
    pub fn kept_for(&self) -> Duration {
        const REVIVABLE: Duration = Duration::from_mins(10);
        let tie = self.head.tie.as_ref();
        let passes = self.head.kind.is_manifest() && tie.is_some_and(Tie::is_to_place);
        let revivable = if passes || !self.head.status.is_success() {
            Duration::ZERO
        } else {
            REVIVABLE
        };
        self.head.lifetime.usable_for().saturating_add(revivable)
    }
}

fn lines(headers: &HeaderMap) -> Box<[u8]> {
    let mut lines = Vec::new();
    for (name, value) in headers {
        if !SAID_ANEW.contains(name) {
            write_field(&mut lines, name, value);
        }
    }
    lines.into()
}

/// One field as HTTP/1 writes it.
pub fn write_field(lines: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    lines.extend_from_slice(name.as_str().as_bytes());
    lines.extend_from_slice(b": ");
    lines.extend_from_slice(value.as_bytes());
    lines.extend_from_slice(b"\r\n");
}
