//! The fills in progress by key: at most one per key, whatever the number of viewers.
//!
//! Sharded by key. The shard's lock orders a purge and the storing of what was fetched before it,
//! and the end of one fill and the start of the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::{HeaderMap, HeaderName};
use parking_lot::{Mutex, MutexGuard};

use super::epoch::EndedEpochs;
use super::flight::{Flight, FlightCounts, FlightState};
use super::partition::ChargedObject;
use super::purge_mode::PurgeMode;
use super::store::NewerObject;
use super::{
    AwaitedFill, CacheInner, EpochToken, ExpiringMemo, Follower, Lookup, Object, StoreOutcome,
    TagKeys,
};
use seawall_manifest::Kind;
use seawall_policy::Key;

const SHARDS: usize = 64;

type FlightShard = HashMap<Key, Arc<Flight>, ahash::RandomState>;

pub(crate) struct FlightRegistry {
    shards: [Mutex<FlightShard>; SHARDS],
    hasher: ahash::RandomState,
    pub(super) counts: Arc<FlightCounts>,
}

/// The result of an attempt to join a fill. `L` is what a new leader gets: the [`super::Fill`] that
/// it feeds.
pub enum JoinOutcome<L> {
    /// No fill was in progress. The caller must feed the new one, and follows it too.
    Lead(L, Follower),
    /// Another request's fill.
    Follow(Follower),
    /// An object was stored since the lookup.
    Stored(Arc<Object>),
    /// Since the lookup the key got variants, or the stored object was removed: look up again.
    Retry,
    /// Too many requests already wait for this key.
    Crowded,
}

impl Default for FlightRegistry {
    fn default() -> Self {
        FlightRegistry {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: ahash::RandomState::new(),
            counts: Arc::default(),
        }
    }
}

impl FlightRegistry {
    fn shard(&self, key: &Key) -> MutexGuard<'_, FlightShard> {
        // The low byte is enough to choose one of 64 shards.
        let [low, ..] = self.hasher.hash_one(key).to_le_bytes();
        self.shards[usize::from(low) % SHARDS].lock()
    }

    fn open(
        inner: &CacheInner,
        shard: &mut FlightShard,
        lookup: &Lookup,
        upstream_headers: &HeaderMap,
    ) -> Arc<Flight> {
        let waiters_max = inner.settings.waiters_max;
        let started_at = inner.registry.counts.tag_clock.load(Ordering::Acquire);
        let headers = upstream_headers.clone();
        let mut flight = Flight::new(lookup.clone(), headers, waiters_max);
        flight.started_at = started_at;
        let flight = Arc::new(flight);
        // A purge has removed this object or is about to. It may be evicted before the purge
        // reaches it.
        if flight.is_refresh() && flight.is_of(|key| inner.purges_in_progress.matches(key)) {
            flight.state().purged = true;
        }
        // The new flight replaces one that is no longer current. A purge could not find that one
        // any more.
        if let Some(before) = shard.insert(lookup.slot.clone(), Arc::clone(&flight)) {
            before.state().purged = true;
        }
        inner.registry.counts.fills.fetch_add(1, Ordering::Relaxed);
        flight
    }
}

/// Joins the flight for a lookup, or starts it; `lead` then makes of it what the leader gets.
pub(super) fn join<L>(
    inner: &CacheInner,
    lookup: &Lookup,
    upstream_headers: &HeaderMap,
    lead: impl FnOnce(Arc<Flight>) -> L,
) -> JoinOutcome<L> {
    let counts = &inner.registry.counts;
    let mut shard = inner.registry.shard(&lookup.slot);
    let flight = shard.get(&lookup.slot);
    if let Some(flight) = flight.filter(|flight| flight.is_current()) {
        if flight.is_crowded() {
            counts.crowded.fetch_add(1, Ordering::Relaxed);
            return JoinOutcome::Crowded;
        }
        flight.record_join();
        return JoinOutcome::Follow(Follower::new(Arc::clone(flight), Arc::clone(counts)));
    }
    // Since the caller's lookup, a fill may have ended or a purge begun.
    match inner.store.find_newer(lookup) {
        Some(NewerObject::Object(object)) => return JoinOutcome::Stored(object),
        Some(NewerObject::Marker | NewerObject::Gone) => return JoinOutcome::Retry,
        None => {}
    }
    let flight = FlightRegistry::open(inner, &mut shard, lookup, upstream_headers);
    flight.state().hints.requests = 1;
    let follower = Follower::new(Arc::clone(&flight), Arc::clone(counts));
    JoinOutcome::Lead(lead(flight), follower)
}

pub(super) fn is_being_filled(inner: &CacheInner, lookup: &Lookup) -> bool {
    let shard = inner.registry.shard(&lookup.slot);
    let flight = shard.get(&lookup.slot);
    flight.is_some_and(|flight| flight.is_current())
}

/// The flight for a lookup, if a new request would have to wait for it.
pub(super) fn awaited_fill(inner: &CacheInner, lookup: &Lookup) -> Option<AwaitedFill> {
    let shard = inner.registry.shard(&lookup.slot);
    let flight = shard.get(&lookup.slot)?;
    let counts = &inner.registry.counts;
    flight
        .is_waiting_for_head()
        .then(|| AwaitedFill::new(flight, counts))
}

/// Starts a flight without followers, unless one is in progress or the lookup is outdated.
pub(super) fn lead(
    inner: &CacheInner,
    lookup: &Lookup,
    upstream_headers: impl FnOnce() -> HeaderMap,
) -> Option<Arc<Flight>> {
    let mut shard = inner.registry.shard(&lookup.slot);
    let flight = shard.get(&lookup.slot);
    if flight.is_some_and(|flight| flight.is_current()) || inner.store.find_newer(lookup).is_some()
    {
        return None;
    }
    Some(FlightRegistry::open(
        inner,
        &mut shard,
        lookup,
        &upstream_headers(),
    ))
}

/// Records which request headers selected a flight's response. A flight that was purged is neither
/// registered nor marked: only its present followers get the response.
pub(super) fn record_vary(inner: &CacheInner, flight: &Arc<Flight>, names: &[HeaderName]) {
    let lookup = &flight.lookup;
    let store = &inner.store;
    let choose_slot = || store.variant_slot_for(lookup, names, &flight.upstream_headers);
    let Some(variant) = unless_purged(inner, flight, choose_slot) else {
        return;
    };
    // The flight first, then the marker: a request that sees the marker must find the flight.
    register_variant(inner, flight, &variant.slot);
    unless_purged(inner, flight, || store.mark(lookup, &variant));
    flight.state().variant_slot = Some(variant);
}

/// Registers a flight under its variant's slot too, unless another one has it. Requests reach the
/// slot only through the marker.
fn register_variant(inner: &CacheInner, flight: &Arc<Flight>, slot: &Key) {
    if *slot != flight.lookup.slot {
        let mut shard = inner.registry.shard(slot);
        let entry = shard.entry(slot.clone());
        entry.or_insert_with(|| Arc::clone(flight));
    }
}

/// Calls `change` under the lock of the flight's key, which a purge locks too. `None`: the key was
/// purged since the flight began.
fn unless_purged<R>(
    inner: &CacheInner,
    flight: &Arc<Flight>,
    change: impl FnOnce() -> R,
) -> Option<R> {
    let _shard = inner.registry.shard(&flight.lookup.key);
    (!is_purged(inner, flight)).then(change)
}

/// Whether the key was purged since this flight began. The caller holds the lock of the key's
/// shard.
fn is_purged(inner: &CacheInner, flight: &Arc<Flight>) -> bool {
    let lookup = &flight.lookup;
    let mut state = flight.state();
    // The marker of this flight's lookup is gone or replaced.
    state.purged |= lookup.has_variants() && !inner.store.same_variants(lookup);
    state.purged
}

/// Binds a flight and what it brings to the tags of its response. If one of them was purged since
/// the flight began, the result is not stored, or stored as stale, and only those get it who joined
/// before the purge.
pub(super) fn bind_tags(
    inner: &CacheInner,
    flight: &Arc<Flight>,
    token: &EpochToken,
    keys: &TagKeys,
) -> EpochToken {
    let binding = inner.tags.bind(keys);
    {
        // Before the purges are read: after a later one no request joins.
        let mut state = flight.state();
        let bound = state.epoch_token.take().unwrap_or_default();
        state.epoch_token = Some(bound.with_tags(binding.mark.clone()));
    }
    let purged = inner.tags.purged_since(&binding, flight.started_at);
    if let Some(mode) = purged {
        let mut state = flight.state();
        record_purge(&mut state, mode);
        state.is_tag_purged = true;
    }
    if purged == Some(PurgeMode::Hard) {
        detach(inner, flight);
    }
    token.with_tags(binding.mark)
}

/// Writes a memo for a flight's key, unless the key was purged since.
pub(super) fn write_memo(inner: &CacheInner, flight: &Arc<Flight>, memo: ExpiringMemo) {
    write_memo_under(inner, flight, &flight.lookup.slot, memo);
}

/// As [`write_memo`], under another slot than the flight's own.
pub(super) fn write_memo_under(
    inner: &CacheInner,
    flight: &Arc<Flight>,
    slot: &Key,
    memo: ExpiringMemo,
) {
    let write = || inner.memos.write(slot, memo);
    unless_purged(inner, flight, || {
        (!flight.state().is_soft_purged).then(write)
    });
}

/// Removes the object that was stored when a flight began.
pub(super) fn remove_previous(inner: &CacheInner, flight: &Arc<Flight>) {
    let lookup = &flight.lookup;
    unless_purged(inner, flight, || {
        inner.store.remove(&lookup.slot, lookup.kind)
    });
}

/// Stores a flight's result, unless a purge came first; after a soft purge, as stale.
pub(super) fn store(
    inner: &CacheInner,
    flight: &Arc<Flight>,
    object: &Arc<Object>,
) -> StoreOutcome {
    let lookup = &flight.lookup;
    // A purge locks the shard of the key itself, whatever the flight's slot.
    let _shard = inner.registry.shard(&lookup.key);
    let state = flight.state();
    let is_current = !state.is_soft_purged;
    // An object of an ended epoch must not replace one that was fetched after its end.
    let storable = storable(object, is_current).filter(|_| !state.purged);
    match (storable, &state.variant_slot) {
        (None, _) => StoreOutcome::Purged,
        (Some(object), None) => inner.store.insert(lookup, &object, &state.hints),
        (Some(object), Some(variant)) => {
            inner
                .store
                .insert_variant(lookup, variant, &object, &state.hints)
        }
    }
}

/// Stores under a key an object that was fetched under another key.
pub(super) fn store_under(inner: &CacheInner, key: &Key, kind: Kind, object: &Arc<Object>) {
    let _shard = inner.registry.shard(key);
    if let Some(object) = storable(object, true) {
        inner.store.replace(key, kind, &object.as_newest_version());
    }
}

/// The object as it may be stored now. `None` after a purge.
fn storable(object: &Arc<Object>, is_current: bool) -> Option<Arc<Object>> {
    if is_current && object.head.is_valid() {
        return Some(Arc::clone(object));
    }
    object.soft_purged(Instant::now()).map(Arc::new)
}

/// Removes a flight from the registry, so that new requests for its key start another one.
pub(super) fn detach(inner: &CacheInner, flight: &Arc<Flight>) {
    let variant_slot = {
        let state = flight.state();
        let variant = state.variant_slot.as_ref();
        variant.map(|variant| variant.slot.clone())
    };
    for slot in std::iter::once(&flight.lookup.slot).chain(&variant_slot) {
        let mut shard = inner.registry.shard(slot);
        let current = shard.get(slot);
        if current.is_some_and(|current| Arc::ptr_eq(current, flight)) {
            shard.remove(slot);
        }
    }
}

/// Purges a key. Returns the removed objects.
pub(super) fn purge(
    inner: &CacheInner,
    key: &Key,
    kind: Kind,
    ended: &mut EndedEpochs,
) -> Vec<ChargedObject> {
    let mut shard = inner.registry.shard(key);
    if let Some(flight) = shard.remove(key) {
        flight.state().purged = true;
    }
    inner.memos.erase(key);
    inner.epochs.end_for(&super::slice_directory(key), ended);
    inner.store.remove(key, kind)
}

/// Makes the objects of a key stale, and what is being fetched for it. Returns these objects with
/// their slots.
pub(super) fn soft_purge(inner: &CacheInner, key: &Key, kind: Kind) -> Vec<(Key, ChargedObject)> {
    mark_purged(inner, PurgeMode::Soft, |flight| flight.lookup.key == *key);
    let _shard = inner.registry.shard(key);
    inner.memos.erase(key);
    inner.store.soft_purge(key, kind)
}

/// Marks all matching flights as purged. A store that was in progress when this call began is
/// complete when it ends.
pub(super) fn mark_purged(inner: &CacheInner, mode: PurgeMode, is_match: impl Fn(&Flight) -> bool) {
    for shard in &inner.registry.shards {
        shard.lock().retain(|_, flight| {
            let is_marked = is_match(flight);
            if is_marked {
                record_purge(&mut flight.state(), mode);
            }
            // After a soft purge, the flight that replaces it finds it here.
            !is_marked || mode == PurgeMode::Soft
        });
    }
}

fn record_purge(state: &mut FlightState, mode: PurgeMode) {
    match mode {
        PurgeMode::Soft => state.is_soft_purged = true,
        PurgeMode::Hard | PurgeMode::DryRun => state.purged = true,
    }
}
