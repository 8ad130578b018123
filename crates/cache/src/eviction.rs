//! Chooses which objects to evict when memory is short. A pure policy: without a lock, and time is
//! a parameter. The store calls it at each insertion; `benches/eviction` replays exactly this code.
//!
//! Memory is divided by the value of objects to viewers, not by recency:
//!
//! - **Errors and redirects** have a small part of their own and never take more.
//! - **Manifests** may take a quarter. Media does not displace them there.
//! - **Media** share the rest. Live segments that no playlist lists any more are evicted first.
//!   Then objects requested once (a small FIFO queue as in S3-FIFO; objects requested again move
//!   on). Then the less likely one of two: the live segment with the lowest expected request rate
//!   in a random sample (`renditions`), or the oldest on-demand object without a hit in its last
//!   round (CLOCK).
//!
//! Expired objects are removed before all of these. A hit only increments a counter
//! ([`HitCounter`]); everything else happens when an object is stored.

mod bounds;
mod candidate;
mod expiry;
mod ghosts;
mod hits;
mod queues;
mod renditions;
mod room;

use std::collections::HashMap;
use std::ops::Deref;

use fastrand::Rng;

pub use bounds::MemoryBounds;
pub use candidate::{Candidate, EvictionReason, ObjectClass};
use expiry::{Expiry, Tick};
use ghosts::Ghosts;
pub use hits::HitCounter;
pub use queues::NodeId;
use queues::SlabQueues;
use renditions::Renditions;
pub use renditions::{Advance, LivePosition};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EvictionQueue {
    Departed,
    /// Media requested once.
    Probation,
    Live,
    OnDemand,
    /// Manifests requested once.
    NewManifests,
    Manifests,
    Errors,
    /// Markers without variants.
    Markers,
    /// Markers with variants. They stay until the last variant has gone.
    Parents,
}

const QUEUES: usize = 9;
/// Small, because every object has one. Data that only some need is in the role.
#[derive(Debug)]
struct Node<K, H> {
    key: K,
    /// Its hit counter; a marker has none.
    hits: Option<H>,
    marker: Option<NodeId>,
    role: Role,
    expiry: Tick,
}

#[derive(Debug)]
enum Role {
    Other,
    /// Media requested once, with the fingerprint of their key.
    Probation(u64),
    /// On-demand media, with the start of their round in milliseconds.
    OnDemand(u64),
    Live(Box<LiveRole>),
    Marker(Box<VariantsOfOne>),
}

#[derive(Clone, Copy, Debug)]
struct LiveRole {
    fingerprint: u64,
    rendition: u64,
    number: u64,
    /// Its index in [`Policy::live`].
    live_index: usize,
}

#[derive(Debug, Default)]
struct VariantsOfOne {
    ids: Vec<NodeId>,
}

impl<K, H: Deref<Target: AsRef<HitCounter>>> Node<K, H> {
    fn counter(&self) -> Option<&HitCounter> {
        self.hits.as_ref().map(|hits| (**hits).as_ref())
    }

    /// Hits since the last call.
    fn take_hits(&self) -> f32 {
        self.counter().map_or(0.0, HitCounter::take)
    }
}

/// The eviction policy of one partition.
#[derive(Debug)]
pub struct Policy<K, H> {
    queues: SlabQueues<Node<K, H>, QUEUES>,
    bounds: MemoryBounds,
    live: Vec<NodeId>,
    /// Live segments by fingerprint.
    listed: HashMap<u64, Vec<NodeId>, ahash::RandomState>,
    renditions: Renditions,
    ghosts: Ghosts,
    expiry: Expiry,
    rng: Rng,
    evictions: [u64; EvictionReason::ALL.len()],
}

impl<K: Clone, H: Deref<Target: AsRef<HitCounter>>> Policy<K, H> {
    /// A policy with these limits.
    pub fn new(bounds: MemoryBounds) -> Policy<K, H> {
        Policy {
            queues: SlabQueues::new(),
            bounds,
            live: Vec::new(),
            listed: HashMap::default(),
            renditions: Renditions::new(),
            ghosts: Ghosts::default(),
            expiry: Expiry::default(),
            rng: Rng::with_seed(0),
            evictions: Default::default(),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.queues.all_bytes()
    }

    /// Objects held, markers included.
    pub fn len(&self) -> u64 {
        self.queues.all_len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Evictions by reason, since start.
    pub fn evictions(&self) -> [(EvictionReason, u64); EvictionReason::ALL.len()] {
        EvictionReason::ALL.map(|reason| (reason, self.evictions[reason as usize]))
    }

    /// Makes room for an object and adds it, in place of `replaces` if given. Adds the keys of the
    /// evicted objects to `evicted`. `None` if it does not fit beside objects that must stay; the
    /// replaced object is removed all the same.
    pub fn insert(
        &mut self,
        candidate: Candidate<K, H>,
        replaces: Option<NodeId>,
        now_ms: u64,
        evicted: &mut Vec<K>,
    ) -> Option<NodeId> {
        let known = replaces.is_some_and(|id| self.remove_replaced(id, &candidate));
        self.expire(now_ms, evicted);
        candidate.credit_joined_requests();
        let Candidate {
            key,
            fingerprint,
            bytes,
            class,
            hits,
            requests,
            marker,
            kept_until_ms,
        } = candidate;
        let again = requests > 1 || known;
        let marker = marker.filter(|marker| self.is_marker(*marker));
        if let Some(marker) = marker {
            // The marker must not be evicted to make room for its own variant.
            self.queues.move_to(marker, EvictionQueue::Parents as usize);
        }
        let room = self.make_room(class, bytes, now_ms, evicted);
        if let (None, Some(marker)) = (room, marker) {
            self.remove_variant(marker, None);
        }
        room?;
        let again = again || class == ObjectClass::OnDemand && self.ghosts.recall(fingerprint);
        let queue = match class {
            ObjectClass::Error => EvictionQueue::Errors,
            ObjectClass::Manifest if again => EvictionQueue::Manifests,
            ObjectClass::Manifest => EvictionQueue::NewManifests,
            ObjectClass::Marker => EvictionQueue::Markers,
            ObjectClass::Live(_) => EvictionQueue::Live,
            ObjectClass::OnDemand if again => EvictionQueue::OnDemand,
            ObjectClass::OnDemand => EvictionQueue::Probation,
        };
        let role = match (class, queue) {
            (ObjectClass::Marker, _) => Role::Marker(Box::default()),
            (_, EvictionQueue::Probation) => Role::Probation(fingerprint),
            (_, EvictionQueue::OnDemand) => Role::OnDemand(now_ms),
            _ => Role::Other,
        };
        let node = Node {
            key,
            hits,
            marker,
            role,
            expiry: Tick::after(kept_until_ms),
        };
        let expiry = node.expiry;
        let id = self.queues.push(queue as usize, bytes, node);
        self.expiry.enter(expiry, id);
        if let ObjectClass::Live(position) = class {
            self.enter_live((id, fingerprint), position, requests, now_ms);
        }
        if let Some(marker) = marker {
            self.add_variant(marker, id);
        }
        Some(id)
    }

    /// Removes all expired objects and adds their keys to `expired`.
    pub fn expire(&mut self, now_ms: u64, expired: &mut Vec<K>) {
        while let Some(index) = self.expiry.first(now_ms) {
            let node = self.queues.id(index).and_then(|id| self.take(id));
            let Some(node) = node else {
                return;
            };
            expired.push(node.key.clone());
            self.depart_variants(node);
        }
    }

    /// Removes an object for another reason than eviction.
    pub fn remove(&mut self, id: NodeId) {
        if let Some(node) = self.take(id) {
            self.depart_variants(node);
        }
    }

    /// Counts the hits of an object by another counter from now on.
    pub fn replace_hits(&mut self, id: NodeId, hits: H) {
        if let Some(node) = self.queues.get_mut(id) {
            node.hits = Some(hits);
        }
    }

    /// Records that a live manifest lists new segments.
    pub fn advance(&mut self, advance: Advance, now_ms: u64) {
        let queues = &self.queues;
        let take = |id| Some(queues.get(id)?.take_hits());
        self.renditions.advance(advance, take, now_ms);
    }

    /// Records that no live manifest lists the objects with this fingerprint any more: they are
    /// evicted first.
    pub fn depart(&mut self, fingerprint: u64) {
        for id in self.listed.remove(&fingerprint).unwrap_or_default() {
            self.depart_one(id);
        }
    }

    /// The bytes that an object was charged with; 0 when it is not held.
    pub fn charged_bytes(&self, id: NodeId) -> u64 {
        self.queues.queue_of(id).map_or(0, |(_, bytes)| bytes)
    }

    /// Whether it is held and is among the first to be evicted.
    pub fn has_departed(&self, id: NodeId) -> bool {
        let queue = self.queues.queue_of(id);
        queue.is_some_and(|(queue, _)| queue == EvictionQueue::Departed as usize)
    }

    fn depart_one(&mut self, id: NodeId) {
        self.leave_live(id);
        self.queues.move_to(id, EvictionQueue::Departed as usize);
    }

    /// Without their marker the variants cannot be found.
    fn depart_variants(&mut self, node: Node<K, H>) {
        if let Role::Marker(variants) = node.role {
            for variant in variants.ids {
                self.depart_one(variant);
            }
        }
    }

    /// Removes a replaced object. Returns whether it was requested more than once.
    fn remove_replaced(&mut self, id: NodeId, by: &Candidate<K, H>) -> bool {
        let queue = self.queues.queue_of(id).map(|(queue, _)| queue);
        let Some(node) = self.take(id) else {
            return false;
        };
        let kept_queues = [EvictionQueue::Manifests, EvictionQueue::OnDemand];
        let was_kept = kept_queues.iter().any(|kept| Some(*kept as usize) == queue);
        let was_requested = node.counter().is_some_and(|hits| hits.count() > 0.0);
        if was_requested && let Some(hits) = &by.hits {
            (**hits).as_ref().add();
        }
        self.depart_variants(node);
        was_kept || was_requested
    }

    /// Removes a node from everything except its list of variants.
    fn take(&mut self, id: NodeId) -> Option<Node<K, H>> {
        self.leave_live(id);
        let node = self.queues.remove(id)?;
        self.expiry.leave(node.expiry, id);
        if let Some(marker) = node.marker {
            self.remove_variant(marker, Some(id));
        }
        Some(node)
    }

    fn is_marker(&self, id: NodeId) -> bool {
        let markers = [EvictionQueue::Markers, EvictionQueue::Parents];
        let queue = self.queues.queue_of(id);
        queue.is_some_and(|(queue, _)| markers.iter().any(|one| *one as usize == queue))
    }

    fn add_variant(&mut self, marker: NodeId, variant: NodeId) {
        if let Some(Role::Marker(variants)) = self.role(marker) {
            variants.ids.push(variant);
        }
    }

    fn remove_variant(&mut self, marker: NodeId, variant: Option<NodeId>) {
        if let Some(Role::Marker(variants)) = self.role(marker) {
            variants.ids.retain(|other| Some(*other) != variant);
            if variants.ids.is_empty() {
                self.queues.move_to(marker, EvictionQueue::Markers as usize);
            }
        }
    }

    fn role(&mut self, id: NodeId) -> Option<&mut Role> {
        Some(&mut self.queues.get_mut(id)?.role)
    }

    fn enter_live(
        &mut self,
        (id, fingerprint): (NodeId, u64),
        position: LivePosition,
        requests: u32,
        now_ms: u64,
    ) {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let requests = requests as f32;
        let number = self
            .renditions
            .record_stored(position, (id, requests), now_ms);
        let live = LiveRole {
            fingerprint,
            rendition: position.rendition,
            number: number.unwrap_or(0),
            live_index: self.live.len(),
        };
        if let Some(role) = self.role(id) {
            *role = Role::Live(Box::new(live));
            self.live.push(id);
            self.listed.entry(fingerprint).or_default().push(id);
        }
    }

    fn leave_live(&mut self, id: NodeId) {
        let Some(node) = self.queues.get_mut(id) else {
            return;
        };
        let Role::Live(live) = &node.role else {
            return;
        };
        let LiveRole {
            fingerprint,
            rendition,
            live_index,
            ..
        } = **live;
        node.role = Role::Other;
        self.renditions.record_removed(rendition, node.take_hits());
        self.live.swap_remove(live_index);
        if let Some(&moved) = self.live.get(live_index)
            && let Some(Role::Live(moved)) = self.role(moved)
        {
            moved.live_index = live_index;
        }
        if let Some(ids) = self.listed.get_mut(&fingerprint) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.listed.remove(&fingerprint);
            }
        }
    }
}

#[cfg(test)]
mod tests;
