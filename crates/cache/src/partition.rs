//! A part of memory with a limit: a table without a limit, and the policy that decides what is
//! evicted. Hits use only the table. A store takes the policy's lock, so that table and policy
//! agree and the limit holds after every insertion.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::class_marks::ClassMarks;
use super::epoch::EpochToken;
use super::epoch_bits::EpochBits;
use super::eviction::{
    Advance, Candidate, EvictionReason, LivePosition, MemoryBounds, NodeId, ObjectClass, Policy,
};
use super::pinned::PinnedBodies;
use super::shares::counts_as_manifest;
use super::table::ObjectTable;
use super::variants::VariantIndex;
use super::{Object, StoredHead};
use seawall_policy::Key;

const MARKER_BYTES: usize = 512;
const MARKER_RETENTION: Duration = Duration::from_hours(30 * 24);

/// What a key holds.
#[derive(Clone)]
pub(super) enum TableEntry {
    Object(Arc<Object>),
    Variants(Arc<VariantIndex>),
}

/// What is known about an object when it is stored, besides its content.
#[derive(Clone, Debug, Default)]
pub(crate) struct StorageHints {
    /// Its position in a live stream, if a live manifest lists it.
    pub(crate) live: Option<LivePosition>,
    /// Viewers' requests that were answered with it so far.
    pub(crate) requests: u32,
    /// The classes of clients that wait for it.
    pub(crate) classes: ClassMarks,
}

/// An entry and the bytes that it was charged with.
pub(super) struct ChargedEntry {
    pub(super) entry: TableEntry,
    pub(super) bytes: u64,
}

/// An object of the store and the bytes that it was charged with.
pub(crate) struct ChargedObject {
    pub(crate) object: Arc<Object>,
    pub(crate) bytes: u64,
}

/// Entries that a purge removes under one lock.
const REMOVED_AT_ONCE: usize = 32;

/// An entry of the table. Its drop, for whatever reason, reports that the object or the marker left
/// the store.
struct EntryGuard {
    entry: TableEntry,
    id: NodeId,
    /// Of the object's epochs.
    epochs: EpochBits,
}

impl EntryGuard {
    fn new(entry: TableEntry, id: NodeId, pinned: &Arc<PinnedBodies>) -> EntryGuard {
        let mut epochs = EpochBits::default();
        if let TableEntry::Object(object) = &entry {
            object.enter_store(pinned);
            let token = object.head.epoch_token.as_ref();
            epochs = token.map(EpochToken::bits).unwrap_or_default();
        }
        EntryGuard { entry, id, epochs }
    }
}

impl Drop for EntryGuard {
    fn drop(&mut self) {
        match &self.entry {
            TableEntry::Object(object) => object.leave_store(Instant::now()),
            TableEntry::Variants(variants) => variants.removals.add(),
        }
    }
}

pub(super) struct Partition {
    table: ObjectTable<EntryGuard>,
    policy: Mutex<Policy<Key, Arc<Object>>>,
    pinned: Arc<PinnedBodies>,
    since: Instant,
}

impl Partition {
    /// An empty partition with these limits.
    pub(super) fn new(bounds: MemoryBounds, pinned: &Arc<PinnedBodies>) -> Partition {
        Partition {
            table: ObjectTable::new(),
            policy: Mutex::new(Policy::new(bounds)),
            pinned: Arc::clone(pinned),
            since: Instant::now(),
        }
    }

    /// The entry of a key, unless it has expired.
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<TableEntry> {
        let entry = self.table.read(key, |guard| guard.entry.clone())?;
        entry.is_retained(now).then_some(entry)
    }

    pub(super) fn contains(&self, key: &Key, now: Instant) -> bool {
        let is_retained = self.table.read(key, |guard| guard.entry.is_retained(now));
        is_retained.unwrap_or(false)
    }

    /// Stores an object. False when it does not fit beside objects that must stay.
    pub(super) fn insert(&self, slot: Key, object: &Arc<Object>, hints: &StorageHints) -> bool {
        let fingerprint = slot.fingerprint();
        self.insert_entry(
            slot,
            fingerprint,
            TableEntry::Object(Arc::clone(object)),
            hints,
            None,
        )
    }

    /// Stores a variant of a key.
    pub(super) fn insert_variant(
        &self,
        (key, slot): (&Key, Key),
        object: &Arc<Object>,
        hints: &StorageHints,
    ) -> bool {
        let entry = TableEntry::Object(Arc::clone(object));
        self.insert_entry(slot, key.fingerprint(), entry, hints, Some(key))
    }

    /// Stores the marker of a key's variants.
    pub(super) fn mark(&self, key: Key, variants: &Arc<VariantIndex>) {
        let is_current = |guard: &EntryGuard| match &guard.entry {
            TableEntry::Variants(stored) => Arc::ptr_eq(stored, variants),
            TableEntry::Object(_) => false,
        };
        if self.table.read(&key, is_current) == Some(true) {
            return;
        }
        let fingerprint = key.fingerprint();
        let entry = TableEntry::Variants(Arc::clone(variants));
        self.insert_entry(key, fingerprint, entry, &StorageHints::default(), None);
    }

    /// Makes room for an entry and stores it. False when it does not fit: then the previous entry
    /// of this slot is removed.
    fn insert_entry(
        &self,
        slot: Key,
        fingerprint: u64,
        entry: TableEntry,
        hints: &StorageHints,
        marker: Option<&Key>,
    ) -> bool {
        let now = Instant::now();
        let now_ms = self.ms(now);
        let mut evicted = Vec::new();
        let mut policy = self.policy.lock();
        let candidate = Candidate {
            key: slot.clone(),
            fingerprint,
            bytes: entry.weight_bytes(&slot) as u64,
            class: entry.class(hints),
            hits: entry.as_object().map(Arc::clone),
            requests: hints.requests,
            marker: marker.and_then(|marker| self.id_of(marker)),
            kept_until_ms: now_ms.saturating_add(millis(entry.retention_remaining(now))),
        };
        let replaced = self.id_of(&slot);
        let inserted = policy.insert(candidate, replaced, now_ms, &mut evicted);
        let mut removed = self.take_all(&evicted);
        removed.extend(match inserted {
            Some(id) => self.put_in_table(slot, entry, id),
            None => self.table.remove(&slot),
        });
        // Frees the removed objects after the lock is released.
        drop(policy);
        drop(removed);
        inserted.is_some()
    }

    /// Returns the previous entry.
    fn put_in_table(&self, slot: Key, entry: TableEntry, id: NodeId) -> Option<EntryGuard> {
        entry.charge_epoch();
        let guard = EntryGuard::new(entry, id, &self.pinned);
        self.table.insert(slot, guard)
    }

    fn id_of(&self, slot: &Key) -> Option<NodeId> {
        self.table.read(slot, |guard| guard.id)
    }

    fn take_all(&self, keys: &[Key]) -> Vec<EntryGuard> {
        let taken = keys.iter().filter_map(|key| self.table.remove(key));
        taken.collect()
    }

    /// Replaces an object by another form of it, which takes the same room and its place among the
    /// candidates for eviction, or removes it. Returns the new form. If the slot no longer holds
    /// this object, does nothing and returns the object that it holds, if that one is valid.
    pub(super) fn exchange(
        &self,
        slot: &Key,
        object: &Arc<Object>,
        other: Option<Arc<Object>>,
    ) -> Option<Arc<Object>> {
        let mut policy = self.policy.lock();
        let (stored, id) = self.table.read(slot, |guard| {
            let stored = guard.entry.clone().object();
            (stored, guard.id)
        })?;
        let stored = stored?;
        if !Arc::ptr_eq(&stored, object) {
            return Some(stored).filter(|stored| stored.head.is_valid());
        }
        let before = if let Some(other) = &other {
            policy.replace_hits(id, Arc::clone(other));
            self.put_in_table(slot.clone(), TableEntry::Object(Arc::clone(other)), id)
        } else {
            policy.remove(id);
            self.table.remove(slot)
        };
        // Freed after the lock is released.
        drop(policy);
        drop(before);
        other
    }

    /// Returns the removed entry.
    pub(super) fn remove(&self, key: &Key) -> Option<ChargedEntry> {
        let mut removed = None;
        self.remove_each(std::slice::from_ref(key), |gone| removed = Some(gone));
        removed
    }

    /// Removes these entries, and passes on what they were. With a lock for each, a purge would
    /// wait for the workers thousands of times; with one for all, a worker would wait for it.
    pub(super) fn remove_each(&self, keys: &[Key], mut gone: impl FnMut(ChargedEntry)) {
        for keys in keys.chunks(REMOVED_AT_ONCE) {
            let mut policy = self.policy.lock();
            let removed = keys.iter().filter_map(|key| {
                let guard = self.table.remove(key)?;
                let bytes = policy.charged_bytes(guard.id);
                policy.remove(guard.id);
                Some((guard, bytes))
            });
            let removed: Vec<_> = removed.collect();
            drop(policy);
            for (guard, bytes) in removed {
                gone(ChargedEntry {
                    entry: guard.entry.clone(),
                    bytes,
                });
            }
        }
    }

    /// The entry of a key, expired or not, and its bytes.
    pub(super) fn charged_entry(&self, key: &Key) -> Option<ChargedEntry> {
        let policy = self.policy.lock();
        self.table.read(key, |guard| ChargedEntry {
            entry: guard.entry.clone(),
            bytes: policy.charged_bytes(guard.id),
        })
    }

    /// The keys of all matching entries. `epochs`: only an object of one of these may match.
    pub(super) fn keys_where(
        &self,
        epochs: Option<EpochBits>,
        is_match: impl Fn(&Key, &TableEntry) -> bool,
    ) -> Vec<Key> {
        let may_match = |guard: &EntryGuard| {
            epochs.is_none_or(|epochs| guard.epochs.may_share_one_with(epochs))
        };
        let is_match =
            |key: &Key, guard: &EntryGuard| may_match(guard) && is_match(key, &guard.entry);
        self.table.keys_where(is_match)
    }

    /// See [`Policy::advance`] and [`Policy::depart`].
    pub(super) fn update_live_windows(&self, advances: &[Advance], departed: &[u64]) {
        let mut policy = self.policy.lock();
        let now_ms = self.ms(Instant::now());
        for advance in advances {
            policy.advance(*advance, now_ms);
        }
        for fingerprint in departed {
            policy.depart(*fingerprint);
        }
    }

    /// Removes all expired entries.
    pub(super) fn expire(&self) {
        let mut expired = Vec::new();
        let mut policy = self.policy.lock();
        policy.expire(self.ms(Instant::now()), &mut expired);
        let gone = self.take_all(&expired);
        drop(policy);
        drop(gone);
    }

    pub(super) fn objects(&self) -> u64 {
        self.policy.lock().len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.policy.lock().bytes()
    }

    pub(super) fn evictions(&self) -> [(EvictionReason, u64); EvictionReason::ALL.len()] {
        self.policy.lock().evictions()
    }

    fn ms(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.since))
    }
}

impl ChargedEntry {
    pub(super) fn object(self) -> Option<ChargedObject> {
        let bytes = self.bytes;
        let object = self.entry.object()?;
        Some(ChargedObject { object, bytes })
    }
}

impl TableEntry {
    pub(super) fn object(self) -> Option<Arc<Object>> {
        match self {
            TableEntry::Object(object) => Some(object),
            TableEntry::Variants(_) => None,
        }
    }

    fn as_object(&self) -> Option<&Arc<Object>> {
        match self {
            TableEntry::Object(object) => Some(object),
            TableEntry::Variants(_) => None,
        }
    }

    fn weight_bytes(&self, slot: &Key) -> usize {
        let key_bytes = slot.bytes().len();
        match self.as_object() {
            Some(object) => object.weight_bytes(key_bytes),
            None => MARKER_BYTES + key_bytes,
        }
    }

    /// Its weight, which may include that of an epoch, has been charged.
    fn charge_epoch(&self) {
        if let Some(object) = self.as_object() {
            object.head.charge_epoch();
        }
    }

    fn class(&self, hints: &StorageHints) -> ObjectClass {
        let object = self.as_object();
        object.map_or(ObjectClass::Marker, |object| {
            class(&object.head, hints.live)
        })
    }

    fn retention_remaining(&self, now: Instant) -> Duration {
        let object = self.as_object();
        object.map_or(MARKER_RETENTION, |object| object.retention_remaining(now))
    }

    fn is_retained(&self, now: Instant) -> bool {
        !self.retention_remaining(now).is_zero()
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The eviction class of an object with this head.
pub(super) fn class(head: &StoredHead, live: Option<LivePosition>) -> ObjectClass {
    match live {
        _ if !head.status.is_success() => ObjectClass::Error,
        _ if counts_as_manifest(head.kind) => ObjectClass::Manifest,
        Some(position) => ObjectClass::Live(position),
        None => ObjectClass::OnDemand,
    }
}
