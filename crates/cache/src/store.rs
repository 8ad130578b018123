//! Stores complete objects in memory, in partitions with a limit in bytes. [`super::eviction`]
//! chooses what is evicted.
//!
//! A response with `Vary` is stored in two steps. The key holds a marker that names the request
//! headers in `Vary`. A second key holds the object. It is derived from the first key, the marker's
//! generation and the values of these headers. A new marker is a new generation, so removing a
//! marker removes all its variants in one step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderMap, HeaderName};

use super::epoch_bits::EpochBits;
use super::eviction::{Advance, EvictionReason};
use super::partition::{ChargedEntry, ChargedObject, Partition, StorageHints, TableEntry};
use super::pinned::PinnedBodies;
use super::shares::MemoryShares;
use super::variants::{VariantIndex, VariantSlot};
use super::{FoundObject, Object, Settings};
use seawall_manifest::Kind;
use seawall_policy::Key;

/// The result of a lookup.
#[derive(Clone)]
pub struct Lookup {
    /// The requested key.
    pub key: Key,
    /// Selects the partition.
    pub kind: Kind,
    /// The key under which this request's object is stored or would be stored, as far as is known.
    pub slot: Key,
    /// The stored object, fresh or stale.
    pub object: Option<Arc<Object>>,
    /// The variant marker, when the key has variants.
    pub(crate) variants: Option<Arc<VariantIndex>>,
}

impl Lookup {
    /// Whether the key has variants, for these or other request headers.
    pub fn has_variants(&self) -> bool {
        self.variants.is_some()
    }

    /// The request headers that select a variant, when the key has variants.
    pub fn variant_names(&self) -> Option<&[HeaderName]> {
        self.variants.as_ref().map(|variants| variants.names())
    }
}

/// The result of storing an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// The object is stored.
    Stored,
    /// The key already has the maximum number of variants.
    TooVaried,
    /// The key was purged during the fetch.
    Purged,
    /// The object does not fit in memory beside manifests.
    NoRoom,
}

pub(crate) struct Store {
    partitions: Vec<Partition>,
    shares: MemoryShares,
    variants_max: usize,
    generations: AtomicU64,
    insertions: AtomicU64,
    too_varied: AtomicU64,
}

impl Store {
    pub(crate) fn new(settings: &Settings, pinned: &Arc<PinnedBodies>) -> Store {
        let shares = MemoryShares::new(settings);
        let partitions = shares.partitions.iter();
        let partitions = partitions.map(|bounds| Partition::new(bounds.clone(), pinned));
        Store {
            partitions: partitions.collect(),
            shares,
            variants_max: settings.variants_max,
            generations: AtomicU64::new(0),
            insertions: AtomicU64::new(0),
            too_varied: AtomicU64::new(0),
        }
    }

    /// The division of memory into partitions.
    pub(crate) fn shares(&self) -> &MemoryShares {
        &self.shares
    }

    fn partition_of(&self, kind: Kind) -> &Partition {
        &self.partitions[self.shares.by_kind[kind.index()]]
    }

    pub(crate) fn lookup(
        &self,
        key: &Key,
        kind: Kind,
        now: Instant,
        upstream_headers: impl FnOnce() -> HeaderMap,
    ) -> Lookup {
        let mut lookup = Lookup {
            key: key.clone(),
            kind,
            slot: key.clone(),
            object: None,
            variants: None,
        };
        match self.partition_of(kind).get(key, now) {
            None => {}
            Some(TableEntry::Object(object)) => lookup.object = self.usable(kind, key, object),
            Some(TableEntry::Variants(variants)) => {
                lookup.slot = variants.slot(key, &upstream_headers());
                lookup.object = self.object(kind, &lookup.slot, now);
                lookup.variants = Some(variants);
            }
        }
        lookup
    }

    /// The object of a lookup, if it is still stored.
    pub(crate) fn found_object(&self, lookup: &Lookup, now: Instant) -> Option<FoundObject> {
        let object = lookup.object.as_ref()?;
        FoundObject::new(object, lookup.variants.as_ref(), || {
            let is_reached = lookup.variants.is_none() || self.same_variants(lookup);
            let current = self.object(lookup.kind, &lookup.slot, now);
            is_reached && current.is_some_and(|current| Arc::ptr_eq(&current, object))
        })
    }

    fn object(&self, kind: Kind, slot: &Key, now: Instant) -> Option<Arc<Object>> {
        match self.partition_of(kind).get(slot, now) {
            Some(TableEntry::Object(object)) => self.usable(kind, slot, object),
            _ => None,
        }
    }

    /// The object, or what a soft purge of its epoch has left of it. `None`: its epoch has ended.
    fn usable(&self, kind: Kind, slot: &Key, object: Arc<Object>) -> Option<Arc<Object>> {
        if object.head.is_valid() {
            return Some(object);
        }
        self.stale_form(kind, slot, &object)
    }

    #[cold]
    fn stale_form(&self, kind: Kind, slot: &Key, object: &Arc<Object>) -> Option<Arc<Object>> {
        // What may not be served stale stays for the purge, which counts it.
        let stale = Arc::new(object.soft_purged(Instant::now())?);
        self.partition_of(kind).exchange(slot, object, Some(stale))
    }

    /// Makes the objects of a key stale, and removes those that may not be served stale. Returns
    /// what they were, with their slots.
    pub(crate) fn soft_purge(&self, key: &Key, kind: Kind) -> Vec<(Key, ChargedObject)> {
        let charged = self.charged_objects(key, kind);
        for (slot, charged) in &charged {
            make_stale(self.partition_of(kind), slot, &charged.object);
        }
        charged
    }

    fn marker(&self, kind: Kind, key: &Key) -> Option<Arc<VariantIndex>> {
        match self.partition_of(kind).get(key, Instant::now()) {
            Some(TableEntry::Variants(variants)) => Some(variants),
            _ => None,
        }
    }

    /// What changed in the store after this lookup: a new object or marker, or its object is gone.
    pub(crate) fn find_newer(&self, lookup: &Lookup) -> Option<NewerObject> {
        let now = Instant::now();
        let object = match (
            self.partition_of(lookup.kind).get(&lookup.key, now),
            &lookup.variants,
        ) {
            (Some(TableEntry::Variants(seen)), Some(then)) if Arc::ptr_eq(&seen, then) => {
                self.object(lookup.kind, &lookup.slot, now)
            }
            (Some(TableEntry::Variants(_)), _) => return Some(NewerObject::Marker),
            (Some(TableEntry::Object(object)), _) => self.usable(lookup.kind, &lookup.key, object),
            (None, _) => None,
        };
        match object {
            Some(object) => NewerObject::unless_same(object, lookup),
            None => lookup.object.is_some().then_some(NewerObject::Gone),
        }
    }

    /// The slot of a response with `Vary`: under the current marker, or under a new one that is not
    /// stored yet.
    pub(crate) fn variant_slot_for(
        &self,
        lookup: &Lookup,
        names: &[HeaderName],
        upstream_headers: &HeaderMap,
    ) -> VariantSlot {
        let variants = match self.marker(lookup.kind, &lookup.key) {
            Some(variants) if variants.names() == names => variants,
            _ => {
                let generation = self.generations.fetch_add(1, Ordering::Relaxed);
                Arc::new(VariantIndex::new(names, generation))
            }
        };
        let slot = variants.slot(&lookup.key, upstream_headers);
        VariantSlot { variants, slot }
    }

    /// Stores a slot's marker, so that other requests find the variants.
    pub(crate) fn mark(&self, lookup: &Lookup, variant_slot: &VariantSlot) {
        self.partition_of(lookup.kind)
            .mark(lookup.key.clone(), &variant_slot.variants);
    }

    /// Stores an object that does not vary.
    pub(crate) fn insert(
        &self,
        lookup: &Lookup,
        object: &Arc<Object>,
        hints: &StorageHints,
    ) -> StoreOutcome {
        if !self.admits(lookup, object) {
            return StoreOutcome::TooVaried;
        }
        let partition = self.partition_of(lookup.kind);
        let once = StorageHints::default();
        // Players request a numbered version all at once and never again. The number of requests so
        // far says nothing about later ones.
        let hints = if object.is_numbered_version() {
            &once
        } else {
            hints
        };
        self.record_insertion(partition.insert(lookup.key.clone(), object, hints))
    }

    /// Limits the number of keys of one URL, where viewers' request headers are part of the key.
    fn admits(&self, lookup: &Lookup, object: &Object) -> bool {
        let partition = self.partition_of(lookup.kind);
        let now = Instant::now();
        let is_stored = |key: &Key| partition.contains(key, now);
        let epoch_token = object.head.epoch_token.as_ref();
        let admitted = epoch_token
            .is_none_or(|epoch_token| epoch_token.admit(&lookup.key, self.variants_max, is_stored));
        if !admitted {
            self.too_varied.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// Stores the newest version of a playlist, unless the key has variants. Requests under other
    /// keys use it too, so it starts with two requests and stays longer than older versions.
    pub(crate) fn replace(&self, key: &Key, kind: Kind, object: &Arc<Object>) {
        let partition = self.partition_of(kind);
        if self.marker(kind, key).is_none() {
            let hints = StorageHints {
                live: None,
                requests: 2,
                ..StorageHints::default()
            };
            let stored = partition.insert(key.clone(), object, &hints);
            self.record_insertion(stored);
        }
    }

    /// Stores a variant in its slot, while its marker is the current one.
    pub(crate) fn insert_variant(
        &self,
        lookup: &Lookup,
        variant_slot: &VariantSlot,
        object: &Arc<Object>,
        hints: &StorageHints,
    ) -> StoreOutcome {
        let partition = self.partition_of(lookup.kind);
        match self.marker(lookup.kind, &lookup.key) {
            Some(now) if Arc::ptr_eq(&now, &variant_slot.variants) => {}
            _ => return StoreOutcome::Purged,
        }
        if !self.admits(lookup, object) {
            return StoreOutcome::TooVaried;
        }
        let now = Instant::now();
        let is_stored = |slot: &Key| partition.contains(slot, now);
        if !variant_slot
            .variants
            .admit(&variant_slot.slot, self.variants_max, is_stored)
        {
            self.too_varied.fetch_add(1, Ordering::Relaxed);
            return StoreOutcome::TooVaried;
        }
        let keys = (&lookup.key, variant_slot.slot.clone());
        self.record_insertion(partition.insert_variant(keys, object, hints))
    }

    fn record_insertion(&self, stored: bool) -> StoreOutcome {
        if !stored {
            return StoreOutcome::NoRoom;
        }
        self.insertions.fetch_add(1, Ordering::Relaxed);
        StoreOutcome::Stored
    }

    /// Passes on new segments of live renditions and unlisted objects; see [`super::eviction`].
    pub(crate) fn update_live_windows(&self, advances: &[Advance], departed: &[u64]) {
        for partition in &self.partitions {
            partition.update_live_windows(advances, departed);
        }
    }

    /// Whether the marker of this lookup is still the current one.
    pub(crate) fn same_variants(&self, lookup: &Lookup) -> bool {
        match (&lookup.variants, self.marker(lookup.kind, &lookup.key)) {
            (Some(then), Some(now)) => Arc::ptr_eq(then, &now),
            _ => false,
        }
    }

    /// Removes a key with its variants. Returns the removed objects.
    pub(crate) fn remove(&self, key: &Key, kind: Kind) -> Vec<ChargedObject> {
        let partition = self.partition_of(kind);
        let Some(removed) = partition.remove(key) else {
            return Vec::new();
        };
        match &removed.entry {
            TableEntry::Object(_) => removed.object().into_iter().collect(),
            TableEntry::Variants(variants) => {
                let slots = variants.slots();
                let gone = slots.iter().filter_map(|slot| partition.remove(slot));
                gone.filter_map(ChargedEntry::object).collect()
            }
        }
    }

    /// The objects that [`Store::remove`] would remove, each with its slot.
    pub(crate) fn charged_objects(&self, key: &Key, kind: Kind) -> Vec<(Key, ChargedObject)> {
        let partition = self.partition_of(kind);
        let slots = match partition.charged_entry(key).map(|charged| charged.entry) {
            Some(TableEntry::Variants(variants)) => variants.slots(),
            _ => vec![key.clone()],
        };
        let charged = |slot: Key| {
            let charged = partition.charged_entry(&slot)?.object()?;
            Some((slot, charged))
        };
        slots.into_iter().filter_map(charged).collect()
    }

    /// Removes all entries that match, in all partitions, and passes each removed object to `gone`.
    /// `epochs`: only objects of one of these may match.
    pub(crate) fn remove_where(
        &self,
        epochs: Option<EpochBits>,
        is_match: impl Fn(&Key, Option<&Object>) -> bool,
        mut gone: impl FnMut(ChargedObject),
    ) {
        for (partition, keys) in self.keys_where(epochs, is_match) {
            partition.remove_each(&keys, |entry| {
                entry.object().into_iter().for_each(&mut gone);
            });
        }
    }

    /// Passes each object that [`Store::remove_where`] would remove to `found`.
    pub(crate) fn find_where(
        &self,
        epochs: Option<EpochBits>,
        is_match: impl Fn(&Key, Option<&Object>) -> bool,
        mut found: impl FnMut(ChargedObject),
    ) {
        for (partition, keys) in self.keys_where(epochs, is_match) {
            let charged = keys.iter().filter_map(|key| partition.charged_entry(key));
            charged
                .filter_map(ChargedEntry::object)
                .for_each(&mut found);
        }
    }

    /// The keys of all matching entries of each partition.
    fn keys_where(
        &self,
        epochs: Option<EpochBits>,
        is_match: impl Fn(&Key, Option<&Object>) -> bool,
    ) -> impl Iterator<Item = (&Partition, Vec<Key>)> {
        self.partitions.iter().map(move |partition| {
            let keys = partition.keys_where(epochs, |key, entry| match entry {
                TableEntry::Object(object) => is_match(key, Some(object)),
                TableEntry::Variants(_) => is_match(key, None),
            });
            (partition, keys)
        })
    }

    /// Makes all matching objects stale for which `found` says so; it gets each with its slot.
    /// Removes those that may not be served stale.
    pub(crate) fn soft_purge_where(
        &self,
        epochs: Option<EpochBits>,
        is_match: impl Fn(&Key, &Object) -> bool,
        mut found: impl FnMut(&Key, &ChargedObject) -> bool,
    ) {
        let is_object =
            |key: &Key, object: Option<&Object>| object.is_some_and(|object| is_match(key, object));
        for (partition, keys) in self.keys_where(epochs, is_object) {
            for key in &keys {
                let charged = partition.charged_entry(key);
                if let Some(charged) = charged.and_then(ChargedEntry::object)
                    && found(key, &charged)
                {
                    make_stale(partition, key, &charged.object);
                }
            }
        }
    }

    /// All objects of a key, in all variants.
    pub(crate) fn objects_of(&self, key: &Key, kind: Kind, now: Instant) -> Vec<Arc<Object>> {
        let slots = match self.partition_of(kind).get(key, now) {
            Some(TableEntry::Variants(variants)) => variants.slots(),
            _ => vec![key.clone()],
        };
        let objects = slots.iter().filter_map(|slot| self.object(kind, slot, now));
        objects.collect()
    }

    /// Removes all expired entries.
    pub(crate) fn expire(&self) {
        self.partitions.iter().for_each(Partition::expire);
    }

    pub(crate) fn objects(&self) -> u64 {
        self.partitions.iter().map(Partition::objects).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.partitions.iter().map(Partition::bytes).sum()
    }

    pub(crate) fn evictions(&self) -> [(EvictionReason, u64); EvictionReason::ALL.len()] {
        let mut sums = EvictionReason::ALL.map(|reason| (reason, 0));
        for partition in &self.partitions {
            let of_one = sums.iter_mut().zip(partition.evictions());
            of_one.for_each(|((_, sum), (_, count))| *sum += count);
        }
        sums
    }

    pub(crate) fn too_varied(&self) -> u64 {
        self.too_varied.load(Ordering::Relaxed)
    }

    pub(crate) fn insertions(&self) -> u64 {
        self.insertions.load(Ordering::Relaxed)
    }
}

/// Replaces an object by one that is stale from now on, or removes it if it may not be served
/// stale. If its epoch has ended for good, the purge that ended it removes and counts it.
fn make_stale(partition: &Partition, slot: &Key, object: &Arc<Object>) {
    if !object.head.has_ended() {
        let stale = object.soft_purged(Instant::now()).map(Arc::new);
        partition.exchange(slot, object, stale);
    }
}

/// What changed in the store after a lookup.
pub(crate) enum NewerObject {
    Object(Arc<Object>),
    /// A marker: the caller must look up again.
    Marker,
    /// The object of the lookup was removed. No fill may start from it.
    Gone,
}

impl NewerObject {
    fn unless_same(object: Arc<Object>, lookup: &Lookup) -> Option<NewerObject> {
        match &lookup.object {
            Some(seen) if Arc::ptr_eq(seen, &object) => None,
            _ => Some(NewerObject::Object(object)),
        }
    }
}
