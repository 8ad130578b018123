//! A stored response: its head with its lifetime, its body in one allocation, and for some
//! manifests other forms of it (encoded, playlist delta update).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;

use super::eviction::HitCounter;
use super::pinned::{PinnedBodies, SharedBody};
use super::weight::{ARC_BYTES, SHARED_BYTES, allocated, entry_bytes};
use super::{AccessTracker, EncodedBodySet, EpochToken, FieldLines};
use seawall_manifest::{Kind, ManifestInfo};
use seawall_policy::Lifetime;
use seawall_policy::encoding::ContentCoding;

/// The head of a response, shared by all requests that get it.
#[derive(Clone, Debug)]
pub struct StoredHead {
    /// The status code.
    pub status: StatusCode,
    /// As sent to viewers: without hop-by-hop fields, `Age` and `Content-Length`.
    pub headers: FieldLines,
    /// The targeted cache-control fields for caches like this one (RFC 9213). A 304 that does not
    /// repeat them leaves them in force.
    pub targeted: Option<Box<FieldLines>>,
    /// The kind of the content itself.
    pub kind: Kind,
    /// How long it is fresh, and may be served stale.
    pub lifetime: Lifetime,
    /// What a manifest says about itself.
    pub facts: Option<Box<ManifestInfo>>,
    /// Body length in bytes, if known.
    pub length: Option<u64>,
    /// Whether it is to be stored, as far as is known when the response is sent.
    pub stored: bool,
    /// Its epoch. The object is not used after the epoch's end.
    pub tie: Option<EpochToken>,
    /// Records accesses, when the object is refreshed in the background or was prefetched.
    pub access_tracker: Option<Arc<AccessTracker>>,
}

/// For the tests of this crate and of those that build on it.
#[cfg(any(test, feature = "test-util"))]
impl StoredHead {
    /// The head of a stored 200 response without fields that is never fresh.
    pub fn plain(kind: Kind) -> StoredHead {
        StoredHead {
            status: StatusCode::OK,
            headers: FieldLines::default(),
            targeted: None,
            kind,
            lifetime: Lifetime::none(Instant::now()),
            facts: None,
            length: None,
            stored: true,
            tie: None,
            access_tracker: None,
        }
    }
}

impl StoredHead {
    /// Whether none of its epochs has ended.
    pub fn is_valid(&self) -> bool {
        self.tie.as_ref().is_none_or(EpochToken::is_valid)
    }

    /// Bytes of memory besides its own size. Epochs and access trackers are shared.
    pub fn own_bytes(&self) -> usize {
        let fields = |fields: &FieldLines| allocated(fields.text_bytes());
        let targeted = self
            .targeted
            .iter()
            .map(|targeted| allocated(size_of::<FieldLines>()) + fields(targeted));
        let facts = self
            .facts
            .iter()
            .map(|facts| allocated(size_of::<ManifestInfo>()) + allocated(facts.heap_bytes()));
        let tie = self.tie.iter().map(EpochToken::own_bytes);
        fields(&self.headers) + targeted.chain(facts).chain(tie).sum::<usize>()
    }

    /// Whether each response states the remaining freshness, because a background refresh lets it
    /// be served past the lifetime its origin stated. Not for low-latency playlists: their players
    /// wait for the next version.
    pub fn restates_freshness(&self) -> bool {
        let blocks =
            |facts: &ManifestInfo| facts.part_target().is_some() || facts.can_block_reload();
        let may_be_tended = self.kind.is_manifest() && self.access_tracker.is_some();
        may_be_tended && !self.facts.as_deref().is_some_and(blocks)
    }
}

/// The encoded bodies of a text, and the objects that have them.
#[derive(Clone, Debug)]
pub struct EncodedBodies {
    bodies: Arc<EncodedBodySet>,
    /// Objects with the encoded bodies, created at the first use.
    objects: [OnceLock<Arc<Object>>; ContentCoding::ALL.len()],
}

impl EncodedBodies {
    /// Creates the set for a new text, still without encoded bodies. Codings that were requested
    /// for recent versions are made for this one too; the second value lists those to encode at
    /// once.
    pub fn after(before: Option<&EncodedBodies>) -> (EncodedBodies, Vec<ContentCoding>) {
        let (bodies, ordered) = EncodedBodySet::after(before.map(|before| &*before.bodies));
        (EncodedBodies::of(Arc::new(bodies)), ordered)
    }

    fn of(bodies: Arc<EncodedBodySet>) -> EncodedBodies {
        EncodedBodies {
            bodies,
            objects: Default::default(),
        }
    }

    /// The same encoded bodies for an object with another head.
    #[must_use]
    pub fn again(&self) -> EncodedBodies {
        EncodedBodies::of(Arc::clone(&self.bodies))
    }

    /// The shared encoded bodies.
    pub fn bodies(&self) -> &Arc<EncodedBodySet> {
        &self.bodies
    }

    /// The object in a coding, if its body exists. `around` creates the object, once.
    pub fn in_coding(
        &self,
        coding: ContentCoding,
        around: impl FnOnce(Bytes) -> Object,
    ) -> Option<&Arc<Object>> {
        let body = self.bodies.body(coding)?;
        let object = &self.objects[coding as usize];
        Some(object.get_or_init(|| Arc::new(around(body.clone()))))
    }
}

/// Other forms of a manifest.
#[derive(Clone, Debug, Default)]
struct ManifestForms {
    coded: Option<EncodedBodies>,
    delta: Option<Arc<Object>>,
}

/// A complete response.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its head. `length` is always set.
    pub head: StoredHead,
    /// Its body, in one allocation.
    pub body: Bytes,
    /// Only for some manifests.
    forms: Option<Box<ManifestForms>>,
    /// Hits from memory, for eviction.
    pub hits: HitCounter,
    /// The store entries and slow readers of the body. `None` for a small body.
    shared: Option<Arc<SharedBody>>,
}

impl Object {
    /// Creates an object from a head and a complete body.
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

    /// The same body with another head.
    #[must_use]
    pub fn under(&self, head: StoredHead) -> Object {
        Object {
            shared: self.shared.clone(),
            ..Object::new(head, self.body.clone())
        }
    }

    /// An encoded form of this object. Its readers count as readers of this object's body.
    #[must_use]
    pub fn coded_as(&self, head: StoredHead, body: Bytes) -> Object {
        Object {
            shared: self.shared.clone(),
            ..Object::new(head, body)
        }
    }

    /// From the body of a fill. Followers may still be reading it.
    pub(super) fn of_fill(head: StoredHead, body: Bytes, shared: &Arc<SharedBody>) -> Object {
        Object {
            shared: Arc::clone(shared).sized(body.len()),
            ..Object::new(head, body)
        }
    }

    /// Where slow readers of the body are registered. `None` for a small body.
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

    /// The object is sent to viewers but was not stored.
    pub(super) fn skip_store(&self, pinned: &Arc<PinnedBodies>, now: Instant) {
        self.shared_bodies()
            .for_each(|body| body.pass_by(pinned, now));
    }

    /// The same response with another lifetime. Its body is shared.
    #[must_use]
    pub fn with_lifetime(&self, lifetime: &Lifetime) -> Object {
        let forms = self.forms.as_ref().map(|forms| {
            let delta = forms.delta.as_ref();
            Box::new(ManifestForms {
                coded: forms.coded.as_ref().map(EncodedBodies::again),
                delta: delta.map(|delta| Arc::new(delta.with_lifetime(lifetime))),
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

    /// Its encoded bodies. `None` when it is not to be encoded.
    pub fn coded(&self) -> Option<&EncodedBodies> {
        self.forms.as_ref()?.coded.as_ref()
    }

    /// The playlist delta update (LL-HLS): the same playlist without its old segments.
    pub fn delta(&self) -> Option<&Arc<Object>> {
        self.forms.as_ref()?.delta.as_ref()
    }

    /// Sets its encoded bodies.
    pub fn set_coded(&mut self, coded: Option<EncodedBodies>) {
        if coded.is_some() || self.forms.is_some() {
            self.forms.get_or_insert_default().coded = coded;
        }
    }

    /// Sets its playlist delta update.
    pub fn set_delta(&mut self, delta: Option<Arc<Object>>) {
        if delta.is_some() || self.forms.is_some() {
            self.forms.get_or_insert_default().delta = delta;
        }
    }

    /// Bytes of memory in the store, under a key of `key_bytes`.
    pub fn weight_bytes(&self, key_bytes: usize) -> usize {
        entry_bytes(key_bytes) + epoch_bytes(&self.head) + self.own_bytes()
    }

    /// An estimate of [`Object::weight_bytes`] for an object whose body is still to arrive.
    pub(super) fn weight_to_come(head: &StoredHead, body_bytes: usize, key_bytes: usize) -> usize {
        let shared = allocated(size_of::<SharedBody>() + ARC_BYTES) + SHARED_BYTES;
        let object = allocated(size_of::<Object>() + ARC_BYTES) + head.own_bytes();
        entry_bytes(key_bytes) + epoch_bytes(head) + object + allocated(body_bytes) + shared
    }

    /// Records that the store is charged for what [`Object::weight_bytes`] said.
    pub(super) fn mark_charged(&self) {
        if let Some(token) = &self.head.tie {
            token.mark_epoch_charged();
        }
    }

    /// Marks it as sent to viewers but not stored.
    pub fn set_unstored(&mut self) {
        self.head.stored = false;
        let delta = self.forms.as_mut().and_then(|forms| forms.delta.as_mut());
        if let Some(delta) = delta {
            Arc::make_mut(delta).set_unstored();
        }
    }

    /// Bytes of memory that it takes by itself, outside the store too.
    pub fn own_bytes(&self) -> usize {
        let shared = self
            .shared
            .iter()
            .map(|_| allocated(size_of::<SharedBody>() + ARC_BYTES));
        let body = allocated(self.body.len()) + SHARED_BYTES + shared.sum::<usize>();
        // The encoded bodies are made later. Together they are about as large as the text.
        let coded = self.coded().map(|_| body + self.head.own_bytes());
        let delta = self.delta().map(|delta| delta.own_bytes());
        let forms = self
            .forms
            .iter()
            .map(|_| allocated(size_of::<ManifestForms>()));
        let forms: usize = forms.chain(coded).chain(delta).sum();
        allocated(size_of::<Object>() + ARC_BYTES) + self.head.own_bytes() + body + forms
    }

    /// This object as the newest version of its playlist. A version with a very short lifetime is
    /// detached from its epoch: it is kept for revalidation, until a newer version replaces it.
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

    /// Whether it is a numbered version of a playlist, which the next version replaces.
    pub(super) fn is_state(&self) -> bool {
        let tie = self.head.tie.as_ref();
        self.head.kind.is_manifest() && tie.is_some_and(EpochToken::is_to_place)
    }

    /// How long an object is of use after its reception: while it may be served, and for a time
    /// after, because a 304 revalidates it cheaply. Not for a manifest in an epoch: a low-latency
    /// playlist leaves one version behind with every part, and no player requests that one again.
    /// Not for an error either, which a 304 does not make cheaper.
    pub fn kept_for(&self) -> Duration {
        const REVIVABLE: Duration = Duration::from_mins(10);
        let revivable = if self.is_state() || !self.head.status.is_success() {
            Duration::ZERO
        } else {
            REVIVABLE
        };
        self.head.lifetime.usable_for().saturating_add(revivable)
    }

    /// The part of this time that is left.
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

    fn object(body: Bytes) -> Object {
        Object::new(StoredHead::plain(Kind::Hls), body)
    }

    /// A store may have a million objects. One more word would need the size class of 320 bytes.
    #[test]
    fn an_object_takes_256_bytes_of_the_allocator() {
        assert!(allocated(size_of::<Object>() + ARC_BYTES) <= 256);
    }

    #[test]
    fn each_is_ordered_once_and_shared_by_all_heads_of_a_text() {
        let (codings, ordered) = EncodedBodies::after(None);
        assert_eq!(ordered, []);
        let bodies = codings.bodies();
        assert!(bodies.ask(ContentCoding::Gzip) && !bodies.ask(ContentCoding::Gzip));
        let again = codings.again();
        assert!(!again.bodies().ask(ContentCoding::Gzip), "it is being made");
        assert!(codings.in_coding(ContentCoding::Gzip, object).is_none());
        bodies.deliver(ContentCoding::Gzip, Some("small".into()));
        bodies.ask(ContentCoding::Zstd);
        bodies.deliver(ContentCoding::Zstd, None);
        for one in [&codings, &again] {
            let gzip = one.in_coding(ContentCoding::Gzip, object);
            assert_eq!(gzip.unwrap().body, "small");
            assert!(
                one.in_coding(ContentCoding::Zstd, object).is_none(),
                "no smaller"
            );
        }
    }
}
