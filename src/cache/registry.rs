//! Which keys are being filled? At most one fill a key, whatever the number of viewers.
//!
//! Sharded by key. The shard's lock orders what must not cross: a purge and the storing of what was
//! fetched before it; the end of one fill and the start of the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName};
use parking_lot::{Mutex, MutexGuard};

use super::epoch::EndedEpochs;
use super::flight::Flight;
use super::store::NewerObject;
use super::{CacheInner, ExpiringMemo, Fill, Follower, Lookup, Object, StoreOutcome};
use crate::manifest::Kind;
use crate::policy::Key;

const SHARDS: usize = 64;

type FlightShard = HashMap<Key, Arc<Flight>, ahash::RandomState>;

pub(crate) struct FlightRegistry {
    shards: [Mutex<FlightShard>; SHARDS],
    hasher: ahash::RandomState,
    pub(super) counts: Arc<FlightCounts>,
}

#[derive(Default)]
pub(crate) struct FlightCounts {
    pub(super) fills: AtomicU64,
    pub(super) followers: AtomicU64,
    pub(super) crowded: AtomicU64,
    pub(super) windowed: AtomicU64,
}

impl FlightCounts {
    pub(super) fn add_windowed(&self, fills: u64) {
        self.windowed.fetch_add(fills, Ordering::Relaxed);
    }

    pub(super) fn fill_ended(&self) {
        self.fills.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn follower_came(&self) {
        self.followers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn follower_left(&self) {
        self.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came of wanting to join.
pub enum JoinOutcome {
    /// No fill was under way: this caller must feed the new one, and follows it too.
    Lead(Fill, Follower),
    /// Someone else's fill.
    Follow(Follower),
    /// Meanwhile an object was stored.
    Held(Arc<Object>),
    /// Meanwhile the key turned out to have variants, or what was found was dropped: look up again.
    Again,
    /// Too many wait for this key already.
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
        // The low byte alone chooses: there are fewer shards than that tells apart.
        let [low, ..] = self.hasher.hash_one(key).to_le_bytes();
        self.shards[usize::from(low) % SHARDS].lock()
    }

    fn open(
        inner: &Arc<CacheInner>,
        shard: &mut FlightShard,
        found: &Lookup,
        upstream: &HeaderMap,
    ) -> Fill {
        let flight = Arc::new(Flight::new(found.clone(), upstream.clone()));
        // What it may have confirmed is gone, or about to go, and may be evicted before a purge comes to it.
        if flight.is_refresh() && flight.is_of(|key| inner.walks.mean(key)) {
            flight.state().doomed = true;
        }
        // One that is no longer current gives way, and no purge would find it any more.
        if let Some(before) = shard.insert(found.slot.clone(), Arc::clone(&flight)) {
            before.state().doomed = true;
        }
        inner.registry.counts.fills.fetch_add(1, Ordering::Relaxed);
        Fill::new(Arc::clone(inner), flight)
    }
}

pub(super) fn join(inner: &Arc<CacheInner>, found: &Lookup, upstream: &HeaderMap) -> JoinOutcome {
    let counts = &inner.registry.counts;
    let mut shard = inner.registry.shard(&found.slot);
    let flight = shard.get(&found.slot);
    if let Some(flight) = flight.filter(|flight| flight.is_current()) {
        if flight.state().seated() >= inner.settings.waiters_max {
            counts.crowded.fetch_add(1, Ordering::Relaxed);
            return JoinOutcome::Crowded;
        }
        flight.state().standing.requests += 1;
        flight.join();
        return JoinOutcome::Follow(Follower::new(Arc::clone(flight), Arc::clone(counts)));
    }
    // A fill may have ended between the caller's lookup and this lock, or a purge begun.
    match inner.store.newer(found) {
        Some(NewerObject::Object(object)) => return JoinOutcome::Held(object),
        Some(NewerObject::Marker | NewerObject::Gone) => return JoinOutcome::Again,
        None => {}
    }
    let fill = FlightRegistry::open(inner, &mut shard, found, upstream);
    fill.flight().state().standing.requests = 1;
    let follower = fill.follower();
    JoinOutcome::Lead(fill, follower)
}

pub(super) fn is_being_filled(inner: &CacheInner, found: &Lookup) -> bool {
    let shard = inner.registry.shard(&found.slot);
    let flight = shard.get(&found.slot);
    flight.is_some_and(|flight| flight.is_current())
}

pub(super) fn lead(
    inner: &Arc<CacheInner>,
    found: &Lookup,
    upstream: impl FnOnce() -> HeaderMap,
) -> Option<Fill> {
    let mut shard = inner.registry.shard(&found.slot);
    let flight = shard.get(&found.slot);
    if flight.is_some_and(|flight| flight.is_current()) || inner.store.newer(found).is_some() {
        return None;
    }
    Some(FlightRegistry::open(inner, &mut shard, found, &upstream()))
}

/// Learns which request headers chose a flight's answer: lists the flight under its variant's slot, then
/// files the marker, so that whoever sees the marker finds the flight too. A flight that was purged
/// meanwhile is neither listed nor marked: it answers only those who were there before.
pub(super) fn vary(inner: &CacheInner, flight: &Arc<Flight>, names: &[HeaderName]) {
    let found = &flight.found;
    let place = {
        let _shard = inner.registry.shard(&found.key);
        if is_doomed(inner, flight) {
            return;
        }
        inner.store.place(found, names, &flight.upstream)
    };
    let slot = place.slot.clone();
    if slot != found.slot {
        // Reachable only through the marker that is filed next, or that the flight was found with.
        let mut shard = inner.registry.shard(&slot);
        shard.entry(slot).or_insert_with(|| Arc::clone(flight));
    }
    let _shard = inner.registry.shard(&found.key);
    if !is_doomed(inner, flight) {
        inner.store.mark(found, &place);
    }
    flight.state().place = Some(place);
}

/// Was the key purged since this flight began? The caller holds the lock of the key's shard.
fn is_doomed(inner: &CacheInner, flight: &Arc<Flight>) -> bool {
    let found = &flight.found;
    let mut state = flight.state();
    // The marker this flight was looked up with is gone, or another.
    state.doomed |= found.has_variants() && !inner.store.same_variants(found);
    state.doomed
}

/// Remembers something about a flight's key, unless it was purged since.
pub(super) fn note(inner: &CacheInner, flight: &Arc<Flight>, note: ExpiringMemo) {
    note_apart(inner, flight, &flight.found.slot, note);
}

/// The same under another name than the flight's own.
pub(super) fn note_apart(inner: &CacheInner, flight: &Arc<Flight>, slot: &Key, note: ExpiringMemo) {
    let _shard = inner.registry.shard(&flight.found.key);
    if !is_doomed(inner, flight) {
        inner.notes.write(slot, note);
    }
}

/// Forgets what was held when a flight began.
pub(super) fn displace(inner: &CacheInner, flight: &Arc<Flight>) {
    let found = &flight.found;
    let _shard = inner.registry.shard(&found.key);
    if !is_doomed(inner, flight) {
        inner.store.remove(&found.slot, found.kind);
    }
}

/// Stores what a flight brought, unless a purge came first.
pub(super) fn store(
    inner: &CacheInner,
    flight: &Arc<Flight>,
    object: &Arc<Object>,
) -> StoreOutcome {
    let found = &flight.found;
    // A purge takes the lock of the key itself, whatever slot the flight belongs to.
    let _shard = inner.registry.shard(&found.key);
    let state = flight.state();
    match &state.place {
        // What belongs to an epoch that has ended must not displace what was fetched after its end.
        _ if state.doomed || !object.head.holds() => StoreOutcome::Purged,
        None => inner.store.insert(found, object, &state.standing),
        Some(place) => inner
            .store
            .insert_variant(found, place, object, &state.standing),
    }
}

/// Stores under a key what was fetched under another one.
pub(super) fn file(inner: &CacheInner, key: &Key, kind: Kind, object: &Arc<Object>) {
    let _shard = inner.registry.shard(key);
    if object.head.holds() {
        inner.store.replace(key, kind, &object.as_newest());
    }
}

/// Lets new viewers of this key start a flight of their own.
pub(super) fn detach(inner: &CacheInner, flight: &Arc<Flight>) {
    let place = flight
        .state()
        .place
        .as_ref()
        .map(|place| place.slot.clone());
    for slot in std::iter::once(&flight.found.slot).chain(&place) {
        let mut shard = inner.registry.shard(slot);
        if shard
            .get(slot)
            .is_some_and(|current| Arc::ptr_eq(current, flight))
        {
            shard.remove(slot);
        }
    }
}

/// Gives what was held.
pub(super) fn purge(
    inner: &CacheInner,
    key: &Key,
    kind: Kind,
    ended: &mut EndedEpochs,
) -> Vec<Arc<Object>> {
    let mut shard = inner.registry.shard(key);
    if let Some(flight) = shard.remove(key) {
        flight.state().doomed = true;
    }
    inner.notes.erase(key);
    inner.epochs.end_for(&super::slices_of(key), ended);
    inner.store.remove(key, kind)
}

/// Dooms all flights that are meant. Whatever was being filed when this began is filed when it ends.
pub(super) fn doom(inner: &CacheInner, is_meant: impl Fn(&Flight) -> bool) {
    for shard in &inner.registry.shards {
        shard.lock().retain(|_, flight| {
            let meant = is_meant(flight);
            if meant {
                flight.state().doomed = true;
            }
            !meant
        });
    }
}
