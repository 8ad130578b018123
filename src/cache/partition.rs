//! A bounded part of memory: moka's concurrent map, unbounded by itself, and the policy that decides what
//! leaves it. Hits go to the map alone; whatever is stored takes the policy's lock, so that both always
//! say the same, and the bound holds after every insertion.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache as Map;
use parking_lot::{Mutex, MutexGuard};

use super::Object;
use super::eviction::{
    Advance, Candidate, EvictionReason, LivePosition, NodeId, ObjectClass, Policy,
};
use super::store::Variants;
use crate::media::Kind;
use crate::policy::Key;

const MARKER_BYTES: usize = 512;
const MARKER_KEPT: Duration = Duration::from_hours(30 * 24);

/// What lies under a key.
#[derive(Clone)]
pub(super) enum Entry {
    Object(Arc<Object>),
    Variants(Arc<Variants>),
}

/// What is known of an object besides itself when it is stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// Where it is in a live stream, if a live manifest lists it.
    pub(crate) live: Option<LivePosition>,
    /// Requests of viewers that were answered with it so far.
    pub(crate) requests: u32,
}

#[derive(Clone)]
struct Held {
    entry: Entry,
    id: NodeId,
}

pub(super) struct Partition {
    map: Map<Key, Held, ahash::RandomState>,
    policy: Mutex<Policy<Key, Arc<Object>>>,
    /// What the map dropped by itself, as its time was over: the policy hears of it later.
    expired: Arc<Mutex<Vec<NodeId>>>,
    since: Instant,
}

struct KeptFor;

impl Expiry<Key, Held> for KeptFor {
    fn expire_after_create(&self, _: &Key, held: &Held, now: Instant) -> Option<Duration> {
        Some(match &held.entry {
            Entry::Object(object) => {
                let resident = now.saturating_duration_since(object.head.lifetime.received);
                object.kept_for().saturating_sub(resident)
            }
            Entry::Variants(_) => MARKER_KEPT,
        })
    }

    fn expire_after_update(
        &self,
        key: &Key,
        held: &Held,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, held, now)
    }
}

impl Partition {
    /// For so many bytes; `manifests_only`: no media come here.
    pub(super) fn new(bytes_max: u64, manifests_only: bool) -> Partition {
        let expired = Arc::<Mutex<Vec<NodeId>>>::default();
        let dropped = Arc::clone(&expired);
        let map = Map::builder()
            .expire_after(KeptFor)
            // Of what the policy itself has dropped, it hears a second time; that changes nothing.
            .eviction_listener(move |_, held: Held, _| dropped.lock().push(held.id))
            .build_with_hasher(ahash::RandomState::new());
        Partition {
            map,
            policy: Mutex::new(Policy::new(bytes_max, manifests_only)),
            expired,
            since: Instant::now(),
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        self.map.get(key).map(|held| held.entry)
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.map.contains_key(key)
    }

    /// Files an object; false where it does not fit beside what must stay.
    pub(super) fn insert(&self, slot: Key, object: &Arc<Object>, standing: &Standing) -> bool {
        let name = slot.fingerprint();
        self.place(
            slot,
            name,
            Entry::Object(Arc::clone(object)),
            standing,
            None,
        )
    }

    /// Files one of a key's variants.
    pub(super) fn insert_variant(
        &self,
        (key, slot): (&Key, Key),
        object: &Arc<Object>,
        standing: &Standing,
    ) -> bool {
        let entry = Entry::Object(Arc::clone(object));
        self.place(slot, key.fingerprint(), entry, standing, Some(key))
    }

    /// Files the marker of a key's variants.
    pub(super) fn mark(&self, key: Key, variants: &Arc<Variants>) {
        if let Some(Entry::Variants(now)) = self.get(&key)
            && Arc::ptr_eq(&now, variants)
        {
            return;
        }
        let name = key.fingerprint();
        let entry = Entry::Variants(Arc::clone(variants));
        self.place(key, name, entry, &Standing::default(), None);
    }

    fn place(
        &self,
        slot: Key,
        name: u64,
        entry: Entry,
        standing: &Standing,
        marker: Option<&Key>,
    ) -> bool {
        let (class, bytes, hits) = match &entry {
            Entry::Object(object) => (
                class(object, standing),
                object.weight_bytes(slot.bytes().len()),
                Some(Arc::clone(object)),
            ),
            Entry::Variants(_) => (ObjectClass::Marker, MARKER_BYTES + slot.bytes().len(), None),
        };
        let id_of = |key: &Key| self.map.get(key).map(|held| held.id);
        let mut evicted = Vec::new();
        let mut policy = self.policy();
        let candidate = Candidate {
            key: slot.clone(),
            name,
            bytes: bytes as u64,
            class,
            hits,
            requests: standing.requests,
            marker: marker.and_then(id_of),
        };
        let replaces = id_of(&slot);
        let placed = policy.insert(candidate, replaces, self.now_ms(), &mut evicted);
        for key in &evicted {
            self.map.invalidate(key);
        }
        match placed {
            Some(id) => self.map.insert(slot, Held { entry, id }),
            None => self.map.invalidate(&slot),
        }
        drop(policy);
        self.settle();
        placed.is_some()
    }

    pub(super) fn remove(&self, key: &Key) {
        let mut policy = self.policy();
        if let Some(held) = self.map.remove(key) {
            policy.remove(held.id);
        }
    }

    /// See [`Policy::advance`] and [`Policy::depart`].
    pub(super) fn slide(&self, advances: &[Advance], departed: &[u64]) {
        let mut policy = self.policy();
        let now_ms = self.now_ms();
        for advance in advances {
            policy.advance(*advance, now_ms);
        }
        for name in departed {
            policy.depart(*name);
        }
    }

    /// The map frees what has left it, and finds out what has expired, when it is told to; then the policy
    /// has to let go of that too.
    pub(super) fn settle(&self) {
        self.map.run_pending_tasks();
        drop(self.policy());
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

    /// The policy, which knows of all that has expired.
    fn policy(&self) -> MutexGuard<'_, Policy<Key, Arc<Object>>> {
        let mut policy = self.policy.lock();
        let expired = std::mem::take(&mut *self.expired.lock());
        for id in expired {
            policy.remove(id);
        }
        policy
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Initialisation segments are small, and nothing plays without them: they count as manifests.
fn class(object: &Object, standing: &Standing) -> ObjectClass {
    let head = &object.head;
    match (head.kind, standing.live) {
        _ if !head.status.is_success() => ObjectClass::Error,
        (Kind::Init, _) => ObjectClass::Manifest,
        (kind, _) if kind.is_manifest() => ObjectClass::Manifest,
        (_, Some(position)) => ObjectClass::Live(position),
        (_, None) => ObjectClass::OnDemand,
    }
}
