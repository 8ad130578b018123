//! A stored response: its head with its lifetime, its body in one allocation, and for some
//! manifests what is made from it (encoded, playlist delta update).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;

use super::eviction::HitCounter;
use super::pinned::{PinnedBodies, SharedBody};
use super::removals::RemovalCount;
use super::weight::{ARC_BYTES, SHARED_BYTES, allocated, entry_bytes};
use super::{AccessTracker, ClassMarks, EncodedBodySet, EpochToken, FieldLines};
use seawall_manifest::{Kind, ManifestInfo};
use seawall_policy::encoding::ContentCoding;
use seawall_policy::{Lifetime, StreamNumber};

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
    pub manifest_info: Option<Box<ManifestInfo>>,
    /// Body length in bytes, if known.
    pub length: Option<u64>,
    /// Whether it will be stored, as far as is known when the response is sent.
    pub will_be_stored: bool,
    /// The shield made it: no origin sent its body.
    pub is_own: bool,
    /// The live stream that it belongs to. `None`: to none, or to one without a number.
    pub stream: Option<StreamNumber>,
    /// Its epoch. The object is not used after the epoch's end.
    pub epoch_token: Option<EpochToken>,
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
            manifest_info: None,
            length: None,
            will_be_stored: true,
            is_own: false,
            stream: None,
            epoch_token: None,
            access_tracker: None,
        }
    }
}

impl StoredHead {
    /// Whether none of its epochs has ended.
    pub fn is_valid(&self) -> bool {
        self.epoch_token.as_ref().is_none_or(EpochToken::is_valid)
    }

    /// Whether one of its epochs has ended for good.
    pub(super) fn has_ended(&self) -> bool {
        let epoch_token = self.epoch_token.as_ref();
        epoch_token.is_some_and(|epoch_token| epoch_token.renewed().is_none())
    }

    /// Bytes of memory besides its own size. Epochs and access trackers are shared.
    pub fn own_bytes(&self) -> usize {
        let fields = |fields: &FieldLines| allocated(fields.text_bytes());
        let targeted = self
            .targeted
            .iter()
            .map(|targeted| allocated(size_of::<FieldLines>()) + fields(targeted));
        let info = self
            .manifest_info
            .iter()
            .map(|info| allocated(size_of::<ManifestInfo>()) + allocated(info.heap_bytes()));
        let epoch_token = self.epoch_token.iter().map(EpochToken::own_bytes);
        fields(&self.headers) + targeted.chain(info).chain(epoch_token).sum::<usize>()
    }

    /// Records that the weight of its epoch is charged to a stored object.
    pub(super) fn charge_epoch(&self) {
        if let Some(epoch_token) = &self.epoch_token {
            epoch_token.charge();
        }
    }

    /// Whether each response states the remaining freshness, because a background refresh lets it
    /// be served past the lifetime its origin stated. Not for low-latency playlists: their players
    /// wait for the next version.
    pub fn restates_freshness(&self) -> bool {
        let blocks = |info: &ManifestInfo| info.part_target().is_some() || info.can_block_reload();
        let may_have_refresher = self.kind.is_manifest() && self.access_tracker.is_some();
        may_have_refresher && !self.manifest_info.as_deref().is_some_and(blocks)
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
    pub fn of_next_version(before: Option<&EncodedBodies>) -> (EncodedBodies, Vec<ContentCoding>) {
        let (bodies, to_encode) =
            EncodedBodySet::of_next_version(before.map(|before| &*before.bodies));
        (EncodedBodies::of(Arc::new(bodies)), to_encode)
    }

    fn of(bodies: Arc<EncodedBodySet>) -> EncodedBodies {
        EncodedBodies {
            bodies,
            objects: Default::default(),
        }
    }

    /// The same encoded bodies for an object with another head.
    #[must_use]
    pub fn for_other_head(&self) -> EncodedBodies {
        EncodedBodies::of(Arc::clone(&self.bodies))
    }

    /// The shared encoded bodies.
    pub fn bodies(&self) -> &Arc<EncodedBodySet> {
        &self.bodies
    }

    /// The object in a coding, if its body exists. `encoded` creates the object, once.
    pub fn in_coding(
        &self,
        coding: ContentCoding,
        encoded: impl FnOnce(Bytes) -> Object,
    ) -> Option<&Arc<Object>> {
        let body = self.bodies.body(coding)?;
        let object = &self.objects[coding as usize];
        Some(object.get_or_init(|| Arc::new(encoded(body.clone()))))
    }
}

/// What the shield makes from a manifest.
#[derive(Clone, Debug, Default)]
struct DerivedBodies {
    encodings: Option<EncodedBodies>,
    delta: Option<Arc<Object>>,
}

/// How long an object stays in memory after it may no longer be served, for its revalidation. As
/// the `keep` time of Varnish.
const KEEP: Duration = Duration::from_mins(10);

/// A complete response.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its head. `length` is always set.
    pub head: StoredHead,
    /// Its body, in one allocation.
    pub body: Bytes,
    /// Only for some manifests.
    derived: Option<Box<DerivedBodies>>,
    /// Hits from memory, for eviction.
    pub hits: HitCounter,
    /// The classes of clients that have got it.
    pub classes: ClassMarks,
    pub(super) removals: RemovalCount,
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
            derived: None,
            hits: HitCounter::default(),
            classes: ClassMarks::default(),
            removals: RemovalCount::default(),
        }
    }

    /// The same body with another head.
    #[must_use]
    pub fn with_head(&self, head: StoredHead) -> Object {
        Object {
            shared: self.shared.clone(),
            ..Object::new(head, self.body.clone())
        }
    }

    /// An encoded form of this object. Its readers count as readers of this object's body.
    #[must_use]
    pub fn with_encoded_body(&self, head: StoredHead, body: Bytes) -> Object {
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

    pub(super) fn enter_store(&self, pinned: &Arc<PinnedBodies>) {
        self.shared_bodies().for_each(|body| body.add_entry(pinned));
    }

    pub(super) fn leave_store(&self, now: Instant) {
        self.removals.add();
        self.shared_bodies().for_each(|body| body.remove_entry(now));
    }

    /// The object is sent to viewers but was not stored.
    pub(super) fn skip_store(&self, pinned: &Arc<PinnedBodies>, now: Instant) {
        self.shared_bodies()
            .for_each(|body| body.record_unstored(pinned, now));
    }

    /// The same response with another lifetime. Its body is shared.
    #[must_use]
    pub fn with_lifetime(&self, lifetime: &Lifetime) -> Object {
        let derived = self.derived.as_ref().map(|derived| {
            let delta = derived.delta.as_ref();
            Box::new(DerivedBodies {
                encodings: derived
                    .encodings
                    .as_ref()
                    .map(EncodedBodies::for_other_head),
                delta: delta.map(|delta| Arc::new(delta.with_lifetime(lifetime))),
            })
        });
        Object {
            head: StoredHead {
                lifetime: lifetime.clone(),
                ..self.head.clone()
            },
            derived,
            ..self.clone()
        }
    }

    /// What a soft purge at this time leaves of it: the same response, stale from now on. `None` if
    /// it may not be served stale, or if its epoch has ended for good. A slice stays as it is: its
    /// key has the `ETag` that the origin must confirm for the whole object.
    pub(super) fn soft_purged(&self, now: Instant) -> Option<Object> {
        let epoch_token = match &self.head.epoch_token {
            Some(epoch_token) => Some(epoch_token.renewed()?),
            None => None,
        };
        let lifetime = if epoch_token.as_ref().is_some_and(EpochToken::is_of_slice) {
            self.head.lifetime.clone()
        } else {
            self.head.lifetime.soft_purged(now)?
        };
        let mut object = self.with_lifetime(&lifetime);
        object.head.epoch_token = epoch_token;
        Some(object)
    }

    /// Its encoded bodies. `None` when it is not to be encoded.
    pub fn encodings(&self) -> Option<&EncodedBodies> {
        self.derived.as_ref()?.encodings.as_ref()
    }

    /// The playlist delta update (LL-HLS): the same playlist without its old segments.
    pub fn delta(&self) -> Option<&Arc<Object>> {
        self.derived.as_ref()?.delta.as_ref()
    }

    /// Sets its encoded bodies.
    pub fn set_encodings(&mut self, encodings: Option<EncodedBodies>) {
        if encodings.is_some() || self.derived.is_some() {
            self.derived.get_or_insert_default().encodings = encodings;
        }
    }

    /// Sets its playlist delta update.
    pub fn set_delta(&mut self, delta: Option<Arc<Object>>) {
        if delta.is_some() || self.derived.is_some() {
            self.derived.get_or_insert_default().delta = delta;
        }
    }

    /// Bytes of memory in the store, under a key of `key_bytes`. Includes the directory's epoch
    /// until the store charges it to a stored object.
    pub fn weight_bytes(&self, key_bytes: usize) -> usize {
        entry_bytes(key_bytes) + epoch_bytes(&self.head) + self.own_bytes()
    }

    /// An estimate of [`Object::weight_bytes`] for an object whose body is still to arrive.
    pub(super) fn expected_weight_bytes(
        head: &StoredHead,
        body_bytes: usize,
        key_bytes: usize,
    ) -> usize {
        let shared = allocated(size_of::<SharedBody>() + ARC_BYTES) + SHARED_BYTES;
        let object = allocated(size_of::<Object>() + ARC_BYTES) + head.own_bytes();
        entry_bytes(key_bytes) + epoch_bytes(head) + object + allocated(body_bytes) + shared
    }

    /// Marks it as sent to viewers but not stored.
    pub fn set_unstored(&mut self) {
        self.head.will_be_stored = false;
        let delta = self
            .derived
            .as_mut()
            .and_then(|derived| derived.delta.as_mut());
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
        let encodings = self.encodings().map(|_| body + self.head.own_bytes());
        let delta = self.delta().map(|delta| delta.own_bytes());
        let derived = self
            .derived
            .iter()
            .map(|_| allocated(size_of::<DerivedBodies>()));
        let derived: usize = derived.chain(encodings).chain(delta).sum();
        allocated(size_of::<Object>() + ARC_BYTES) + self.head.own_bytes() + body + derived
    }

    /// The newest version of a playlist, as it is stored under the playlist's own key. A version
    /// that may be served for a short time only is bound to its URL instead of its directory. It
    /// then stays in memory for revalidation until a newer version replaces it.
    pub(super) fn as_newest_version(self: &Arc<Object>) -> Arc<Object> {
        const SHORT: Duration = Duration::from_secs(10);
        let epoch_token = self.head.epoch_token.as_ref();
        if !epoch_token.is_some_and(EpochToken::is_bound_to_directory)
            || self.head.lifetime.usable_for() >= SHORT
        {
            return Arc::clone(self);
        }
        let mut newest = Object::clone(self);
        newest.head.epoch_token = epoch_token.and_then(EpochToken::to_url);
        Arc::new(newest)
    }

    /// Whether it is a numbered version of a playlist, which the next version replaces.
    pub(super) fn is_numbered_version(&self) -> bool {
        let epoch_token = self.head.epoch_token.as_ref();
        self.head.kind.is_manifest() && epoch_token.is_some_and(EpochToken::is_bound_to_directory)
    }

    /// How long an object stays in memory after its reception: as long as it may be served, and
    /// then for a further time, because a 304 revalidates it cheaply. Two kinds of objects are not
    /// kept beyond their use: numbered versions of a playlist, which no player requests again, and
    /// errors, for which a 304 is no cheaper.
    pub fn retention(&self) -> Duration {
        let keep = if self.is_numbered_version() || !self.head.status.is_success() {
            Duration::ZERO
        } else {
            KEEP
        };
        self.head.lifetime.usable_for().saturating_add(keep)
    }

    /// What is left of [`Object::retention`].
    pub(super) fn retention_remaining(&self, now: Instant) -> Duration {
        let resident = now.saturating_duration_since(self.head.lifetime.received);
        self.retention().saturating_sub(resident)
    }
}

fn epoch_bytes(head: &StoredHead) -> usize {
    head.epoch_token
        .as_ref()
        .map_or(0, EpochToken::uncharged_bytes)
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
    fn object_allocation_is_at_most_256_bytes() {
        assert!(allocated(size_of::<Object>() + ARC_BYTES) <= 256);
    }

    #[test]
    fn each_encoding_is_ordered_once_and_shared_by_all_heads() {
        let (codings, to_encode) = EncodedBodies::of_next_version(None);
        assert_eq!(to_encode, []);
        let bodies = codings.bodies();
        assert!(bodies.request(ContentCoding::Gzip) && !bodies.request(ContentCoding::Gzip));
        let again = codings.for_other_head();
        assert!(
            !again.bodies().request(ContentCoding::Gzip),
            "it is being made"
        );
        assert!(codings.in_coding(ContentCoding::Gzip, object).is_none());
        bodies.set_made(ContentCoding::Gzip, Some("small".into()));
        bodies.request(ContentCoding::Zstd);
        bodies.set_made(ContentCoding::Zstd, None);
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
