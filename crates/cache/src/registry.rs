//! The fills in progress by key: at most one per key, whatever the number of viewers.
//!
//! Sharded by key. The shard's lock orders a purge and the storing of what was fetched before it,
//! and the end of one fill and the start of the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderMap, HeaderName};
use parking_lot::{Mutex, MutexGuard};

use super::epoch::EndedEpochs;
use super::flight::{Flight, FlightCounts};
use super::store::NewerObject;
use super::{CacheInner, ExpiringMemo, Follower, Lookup, Object, StoreOutcome};
use seawall_manifest::Kind;
use seawall_policy::Key;

const SHARDS: usize = 64;

type FlightShard = HashMap<Key, Arc<Flight>, ahash::RandomState>;

pub(crate) struct FlightRegistry {
    shards: [Mutex<FlightShard>; SHARDS],
    hasher: ahash::RandomState,
    pub(super) counts: Arc<FlightCounts>,
}

/// What a request that wants to follow a fill gets.
pub(super) enum Joined {
    /// A new flight, which the caller must feed, and its first follower.
    Lead(Arc<Flight>, Follower),
    /// A flight in progress.
    Follow(Follower),
    /// An object was stored since the lookup.
    Held(Arc<Object>),
    /// The lookup is outdated.
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
        found: &Lookup,
        upstream: &HeaderMap,
    ) -> Arc<Flight> {
        let flight = Arc::new(Flight::new(found.clone(), upstream.clone()));
        // A purge has removed this object or is about to. It may be evicted before the purge
        // reaches it.
        if flight.is_refresh() && flight.is_of(|key| inner.walks.matches(key)) {
            flight.state().doomed = true;
        }
        // The new flight replaces one that is no longer current. A purge could not find that one
        // any more.
        if let Some(before) = shard.insert(found.slot.clone(), Arc::clone(&flight)) {
            before.state().doomed = true;
        }
        inner.registry.counts.fills.fetch_add(1, Ordering::Relaxed);
        flight
    }
}

/// Joins the flight for a lookup, or starts it.
pub(super) fn join(inner: &CacheInner, found: &Lookup, upstream: &HeaderMap) -> Joined {
    let counts = &inner.registry.counts;
    let mut shard = inner.registry.shard(&found.slot);
    let flight = shard.get(&found.slot);
    if let Some(flight) = flight.filter(|flight| flight.is_current()) {
        if flight.state().follower_count() >= inner.settings.waiters_max {
            counts.crowded.fetch_add(1, Ordering::Relaxed);
            return Joined::Crowded;
        }
        flight.state().standing.requests += 1;
        flight.join();
        return Joined::Follow(Follower::new(Arc::clone(flight), Arc::clone(counts)));
    }
    // Since the caller's lookup, a fill may have ended or a purge begun.
    match inner.store.find_newer(found) {
        Some(NewerObject::Object(object)) => return Joined::Held(object),
        Some(NewerObject::Marker | NewerObject::Gone) => return Joined::Retry,
        None => {}
    }
    let flight = FlightRegistry::open(inner, &mut shard, found, upstream);
    flight.state().standing.requests = 1;
    let follower = Follower::new(Arc::clone(&flight), Arc::clone(counts));
    Joined::Lead(flight, follower)
}

pub(super) fn is_being_filled(inner: &CacheInner, found: &Lookup) -> bool {
    let shard = inner.registry.shard(&found.slot);
    let flight = shard.get(&found.slot);
    flight.is_some_and(|flight| flight.is_current())
}

/// Starts a flight without followers, unless one is in progress or the lookup is outdated.
pub(super) fn lead(
    inner: &CacheInner,
    found: &Lookup,
    upstream: impl FnOnce() -> HeaderMap,
) -> Option<Arc<Flight>> {
    let mut shard = inner.registry.shard(&found.slot);
    let flight = shard.get(&found.slot);
    if flight.is_some_and(|flight| flight.is_current()) || inner.store.find_newer(found).is_some() {
        return None;
    }
    Some(FlightRegistry::open(inner, &mut shard, found, &upstream()))
}

/// Records which request headers selected a flight's response. Registers the flight under its
/// variant's slot, then stores the marker, so that a request that sees the marker also finds the
/// flight. A flight that was purged is neither registered nor marked: only its present followers
/// get the response.
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
        // Reachable only through the marker that is stored next, or that the flight's lookup found.
        let mut shard = inner.registry.shard(&slot);
        shard.entry(slot).or_insert_with(|| Arc::clone(flight));
    }
    let _shard = inner.registry.shard(&found.key);
    if !is_doomed(inner, flight) {
        inner.store.mark(found, &place);
    }
    flight.state().place = Some(place);
}

/// Whether the key was purged since this flight began. The caller holds the lock of the key's
/// shard.
fn is_doomed(inner: &CacheInner, flight: &Arc<Flight>) -> bool {
    let found = &flight.found;
    let mut state = flight.state();
    // The marker of this flight's lookup is gone or replaced.
    state.doomed |= found.has_variants() && !inner.store.same_variants(found);
    state.doomed
}

/// Writes a memo for a flight's key, unless the key was purged since.
pub(super) fn note(inner: &CacheInner, flight: &Arc<Flight>, note: ExpiringMemo) {
    note_apart(inner, flight, &flight.found.slot, note);
}

/// As [`note`], under another slot than the flight's own.
pub(super) fn note_apart(inner: &CacheInner, flight: &Arc<Flight>, slot: &Key, note: ExpiringMemo) {
    let _shard = inner.registry.shard(&flight.found.key);
    if !is_doomed(inner, flight) {
        inner.notes.write(slot, note);
    }
}

/// Removes the object that was stored when a flight began.
pub(super) fn displace(inner: &CacheInner, flight: &Arc<Flight>) {
    let found = &flight.found;
    let _shard = inner.registry.shard(&found.key);
    if !is_doomed(inner, flight) {
        inner.store.remove(&found.slot, found.kind);
    }
}

/// Stores a flight's result, unless a purge came first.
pub(super) fn store(
    inner: &CacheInner,
    flight: &Arc<Flight>,
    object: &Arc<Object>,
) -> StoreOutcome {
    let found = &flight.found;
    // A purge locks the shard of the key itself, whatever the flight's slot.
    let _shard = inner.registry.shard(&found.key);
    let state = flight.state();
    match &state.place {
        // An object of an ended epoch must not replace one that was fetched after its end.
        _ if state.doomed || !object.head.is_valid() => StoreOutcome::Purged,
        None => inner.store.insert(found, object, &state.standing),
        Some(place) => inner
            .store
            .insert_variant(found, place, object, &state.standing),
    }
}

/// Stores under a key an object that was fetched under another key.
pub(super) fn file(inner: &CacheInner, key: &Key, kind: Kind, object: &Arc<Object>) {
    let _shard = inner.registry.shard(key);
    if object.head.is_valid() {
        inner.store.replace(key, kind, &object.as_newest());
    }
}

/// Removes a flight from the registry, so that new requests for its key start another one.
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

/// Returns the removed objects.
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

/// Dooms all matching flights. A store that was in progress when this call began is complete when
/// it ends.
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
