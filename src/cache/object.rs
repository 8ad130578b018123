//! What is an answer made of? A head, whose lifetime is decided, and a body in one piece.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;

use super::eviction::HitCounter;
use super::pinned::{PinnedBodies, SharedBody};
use super::weight::{ARC_BYTES, SHARED_BYTES, allocated, entry_bytes};
use super::{AccessTracker, EncodedBodies, EpochToken, FieldLines};
use crate::manifest::{Kind, ManifestInfo};
use crate::policy::Lifetime;

/// The head of an answer, shared by all who get it.
#[derive(Clone, Debug)]
pub struct StoredHead {
    /// Status.
    pub status: StatusCode,
    /// As sent to viewers: hop-by-hop fields gone, `Age` and `Content-Length` left out.
    pub headers: FieldLines,
    /// The cache-control fields meant for caches like this one (RFC 9213): a 304 that does not repeat
    /// them leaves them in force.
    pub targeted: Option<Box<FieldLines>>,
    /// What it really carries.
    pub kind: Kind,
    /// For how long it is good.
    pub lifetime: Lifetime,
    /// What a manifest says about itself.
    pub facts: Option<Box<ManifestInfo>>,
    /// Body length, where it is known already.
    pub length: Option<u64>,
    /// It is to be stored, as far as is known when it goes out.
    pub stored: bool,
    /// Held no longer than its place's epoch lasts.
    pub tie: Option<EpochToken>,
    /// Whoever is served it leaves a mark, where somebody looks after it or fetched it ahead.
    pub attention: Option<Arc<AccessTracker>>,
}

impl StoredHead {
    /// It belongs to no epoch that has ended.
    pub fn holds(&self) -> bool {
        self.tie.as_ref().is_none_or(EpochToken::holds)
    }

    /// Bytes of memory that it takes besides its own size. Epochs and attention are shared.
    pub fn own_bytes(&self) -> usize {
        let fields = |fields: &FieldLines| allocated(fields.text_bytes());
        let targeted = self
            .targeted
            .iter()
            .map(|targeted| allocated(size_of::<FieldLines>()) + fields(targeted));
        let facts = self.facts.iter().map(|facts| {
            let names = facts.edge.iter().map(|edge| size_of_val(&*edge.names));
            allocated(size_of::<ManifestInfo>()) + names.map(allocated).sum::<usize>()
        });
        let tie = self.tie.iter().map(EpochToken::own_bytes);
        fields(&self.headers) + targeted.chain(facts).chain(tie).sum::<usize>()
    }

    /// It may be served past what its origin stated, as it is looked after: then each answer says how long
    /// it is fresh. A low-latency playlist is not: who asks for that waits for the next one.
    pub fn restates_freshness(&self) -> bool {
        let blocks = |facts: &ManifestInfo| facts.part_target.is_some() || facts.control.can_block;
        let may_be_tended = self.kind.is_manifest() && self.attention.is_some();
        may_be_tended && !self.facts.as_deref().is_some_and(blocks)
    }
}

/// What else a manifest is to be had in.
#[derive(Clone, Debug, Default)]
struct ManifestForms {
    coded: Option<EncodedBodies>,
    delta: Option<Arc<Object>>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its head; `length` is known.
    pub head: StoredHead,
    /// Its body, in one allocation.
    pub body: Bytes,
    /// Only of some manifests.
    forms: Option<Box<ManifestForms>>,
    /// How often it was served from memory, for eviction.
    pub hits: HitCounter,
    /// Who holds and who reads the body; nothing where it is small.
    shared: Option<Arc<SharedBody>>,
}

impl Object {
    /// Puts a whole answer together.
    pub fn new(mut head: StoredHead, body: Bytes) -> Object {
        head.length = Some(body.len() as u64);
        Object {
            shared: SharedBody::of(body.len()),
            head,
            body,
            forms: None,
            hits: HitCounter::default(),
        }
    }

    /// The same body under another head.
    #[must_use]
    pub fn under(&self, head: StoredHead) -> Object {
        Object {
            shared: self.shared.clone(),
            ..Object::new(head, self.body.clone())
        }
    }

    /// The text of this object in a coding: whoever reads that counts as a reader of this.
    #[must_use]
    pub fn coded_as(&self, head: StoredHead, body: Bytes) -> Object {
        Object {
            shared: self.shared.clone(),
            ..Object::new(head, body)
        }
    }

    /// Of what a fill brought, whose followers go on reading it.
    pub(super) fn of_fill(head: StoredHead, body: Bytes, shared: &Arc<SharedBody>) -> Object {
        Object {
            shared: Arc::clone(shared).sized(body.len()),
            ..Object::new(head, body)
        }
    }

    /// What slow readers of the body are registered at; nothing where it is too small to count.
    pub fn shared_body(&self) -> Option<&Arc<SharedBody>> {
        self.shared.as_ref()
    }

    fn shared_bodies(&self) -> impl Iterator<Item = &Arc<SharedBody>> {
        let delta = self.delta().and_then(|delta| delta.shared.as_ref());
        self.shared.iter().chain(delta)
    }

    pub(super) fn enters_store(&self, pinned: &Arc<PinnedBodies>) {
        self.shared_bodies().for_each(|body| body.enter(pinned));
    }

    pub(super) fn leaves_store(&self, now: Instant) {
        self.shared_bodies().for_each(|body| body.leave(now));
    }

    /// It is handed to viewers without having been stored.
    pub(super) fn passes_store_by(&self, pinned: &Arc<PinnedBodies>, now: Instant) {
        self.shared_bodies()
            .for_each(|body| body.pass_by(pinned, now));
    }

    /// The same answer with another lifetime. Its bytes are shared.
    #[must_use]
    pub fn lasting(&self, lifetime: &Lifetime) -> Object {
        let forms = self.forms.as_ref().map(|forms| {
            let delta = forms.delta.as_ref();
            Box::new(ManifestForms {
                coded: forms.coded.as_ref().map(EncodedBodies::again),
                delta: delta.map(|delta| Arc::new(delta.lasting(lifetime))),
            })
        });
        Object {
            head: StoredHead {
                lifetime: lifetime.clone(),
                ..self.head.clone()
            },
            forms,
            ..self.clone()
        }
    }

    /// The same in the codings that are made here, for those who take one; nothing where it is not to be coded.
    pub fn coded(&self) -> Option<&EncodedBodies> {
        self.forms.as_ref()?.coded.as_ref()
    }

    /// The same playlist without its old segments (LL-HLS), for those who have these.
    pub fn delta(&self) -> Option<&Arc<Object>> {
        self.forms.as_ref()?.delta.as_ref()
    }

    /// Says in which codings it is to be had.
    pub fn set_coded(&mut self, coded: Option<EncodedBodies>) {
        if coded.is_some() || self.forms.is_some() {
            self.forms.get_or_insert_default().coded = coded;
        }
    }

    /// Says what it is without its old segments.
    pub fn set_delta(&mut self, delta: Option<Arc<Object>>) {
        if delta.is_some() || self.forms.is_some() {
            self.forms.get_or_insert_default().delta = delta;
        }
    }

    /// Bytes of memory that it takes in the store, under a key of `key_bytes`.
    pub fn weight_bytes(&self, key_bytes: usize) -> usize {
        entry_bytes(key_bytes) + epoch_bytes(&self.head) + self.own_bytes()
    }

    /// About the same, of an object with this head and a body of so many bytes that is still to come.
    pub(super) fn weight_to_come(head: &StoredHead, body_bytes: usize, key_bytes: usize) -> usize {
        let shared = allocated(size_of::<SharedBody>() + ARC_BYTES) + SHARED_BYTES;
        let object = allocated(size_of::<Object>() + ARC_BYTES) + head.own_bytes();
        entry_bytes(key_bytes) + epoch_bytes(head) + object + allocated(body_bytes) + shared
    }

    /// It is handed out and not stored.
    pub fn set_unstored(&mut self) {
        self.head.stored = false;
        let delta = self.forms.as_mut().and_then(|forms| forms.delta.as_mut());
        if let Some(delta) = delta {
            Arc::make_mut(delta).set_unstored();
        }
    }

    /// Bytes of memory that it takes by itself, wherever it is.
    pub fn own_bytes(&self) -> usize {
        let shared = self
            .shared
            .iter()
            .map(|_| allocated(size_of::<SharedBody>() + ARC_BYTES));
        let body = allocated(self.body.len()) + SHARED_BYTES + shared.sum::<usize>();
        // Codings are made later: together they are about as large as the text.
        let coded = self.coded().map(|_| body + self.head.own_bytes());
        let delta = self.delta().map(|delta| delta.own_bytes());
        let forms = self
            .forms
            .iter()
            .map(|_| allocated(size_of::<ManifestForms>()));
        let forms: usize = forms.chain(coded).chain(delta).sum();
        allocated(size_of::<Object>() + ARC_BYTES) + self.head.own_bytes() + body + forms
    }

    /// As the newest version of what this is a state of. One that may hardly be served as it is belongs to no
    /// epoch then: it is kept, to be confirmed, until a newer one takes its place.
    pub(super) fn as_newest(self: &Arc<Object>) -> Arc<Object> {
        const SHORT: Duration = Duration::from_secs(10);
        let tie = self.head.tie.as_ref();
        if !tie.is_some_and(EpochToken::is_to_place) || self.head.lifetime.usable_for() >= SHORT {
            return Arc::clone(self);
        }
        let mut newest = Object::clone(self);
        newest.head.tie = tie.and_then(EpochToken::to_url);
        Arc::new(newest)
    }

    /// It is a state of a playlist that somebody asked for by number: a version that the next one replaces.
    pub(super) fn is_state(&self) -> bool {
        let tie = self.head.tie.as_ref();
        self.head.kind.is_manifest() && tie.is_some_and(EpochToken::is_to_place)
    }

    /// How long after its making an object is of any use: while it may be served at all and, since
    /// a 304 revives it cheaply, for a while after. Not a manifest of an epoch: a low-latency playlist
    /// leaves one behind with every part, and nobody asks for that one again. Nor an error, which a 304
    /// does not make any cheaper.
    pub fn kept_for(&self) -> Duration {
        const REVIVABLE: Duration = Duration::from_mins(10);
        let revivable = if self.is_state() || !self.head.status.is_success() {
            Duration::ZERO
        } else {
            REVIVABLE
        };
        self.head.lifetime.usable_for().saturating_add(revivable)
    }

    /// What is left of that.
    pub(super) fn kept_left(&self, now: Instant) -> Duration {
        let resident = now.saturating_duration_since(self.head.lifetime.received);
        self.kept_for().saturating_sub(resident)
    }
}

fn epoch_bytes(head: &StoredHead) -> usize {
    head.tie.as_ref().map_or(0, EpochToken::epoch_bytes)
}

impl AsRef<HitCounter> for Object {
    fn as_ref(&self) -> &HitCounter {
        &self.hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be a million of them: a word more would take a size class of 320 bytes.
    #[test]
    fn an_object_takes_256_bytes_of_the_allocator() {
        assert!(allocated(size_of::<Object>() + ARC_BYTES) <= 256);
    }
}
