//! Chooses the objects to evict, to make room for another one.

use std::ops::Deref;

use super::queues::NodeId;
use super::{EvictionQueue, EvictionReason, HitCounter, ObjectClass, Policy, Role};

/// Markers without variants may take 1/32 of memory.
const MARKERS_PART: u64 = 32;
/// Objects requested once may always take 1/50 of the part of media or manifests.
const PROBATION_PART: u64 = 50;
/// Size of the random sample of live segments; the one with the lowest expected rate is evicted.
const SAMPLE_SIZE: usize = 32;
/// An object without a request in its last round is assumed to get half a request in the next one.
const REQUESTS_EXPECTED: f32 = 0.5;

const MEDIA: [EvictionQueue; 6] = [
    EvictionQueue::Departed,
    EvictionQueue::Probation,
    EvictionQueue::Live,
    EvictionQueue::OnDemand,
    EvictionQueue::Markers,
    EvictionQueue::Parents,
];
const MANIFESTS: [EvictionQueue; 2] = [EvictionQueue::NewManifests, EvictionQueue::Manifests];

impl<K: Clone, H: Deref<Target: AsRef<HitCounter>>> Policy<K, H> {
    /// Makes room for an object of a class. `None` if that is impossible.
    pub(super) fn make_room(
        &mut self,
        class: ObjectClass,
        bytes: u64,
        now_ms: u64,
        evicted: &mut Vec<K>,
    ) -> Option<()> {
        if bytes > self.bounds.bytes_max(class) {
            return None;
        }
        if class == ObjectClass::Error {
            while self.bytes_of(&[EvictionQueue::Errors]) + bytes > self.bounds.errors {
                self.evict_oldest(EvictionQueue::Errors, EvictionReason::Error, evicted)?;
            }
            return Some(());
        }
        if class == ObjectClass::Manifest {
            while self.bytes_of(&MANIFESTS) + bytes > self.bounds.manifests {
                self.evict_manifest(evicted)?;
            }
        }
        if class == ObjectClass::Marker {
            while self.bytes_of(&[EvictionQueue::Markers]) > self.bounds.others / MARKERS_PART {
                self.evict_oldest(EvictionQueue::Markers, EvictionReason::Marker, evicted)?;
            }
        }
        while self.bytes_of(&MEDIA) + self.bytes_of(&MANIFESTS) + bytes > self.bounds.others {
            // Only markers of manifests' variants may be left.
            self.evict_media(now_ms, evicted)
                .or_else(|| self.evict_manifest(evicted))?;
        }
        Some(())
    }

    fn bytes_of(&self, queues: &[EvictionQueue]) -> u64 {
        queues
            .iter()
            .map(|queue| self.queues.bytes(*queue as usize))
            .sum()
    }

    fn evict_manifest(&mut self, evicted: &mut Vec<K>) -> Option<()> {
        let probation = self.bytes_of(&[EvictionQueue::NewManifests]);
        let is_full = probation > self.bounds.manifests / PROBATION_PART;
        if probation > 0 && (is_full || self.bytes_of(&[EvictionQueue::Manifests]) == 0) {
            let first = self.queues.first(EvictionQueue::NewManifests as usize)?;
            if self.was_requested(first) {
                self.queues
                    .move_to(first, EvictionQueue::Manifests as usize);
            } else {
                self.evict(first, EvictionReason::Manifest, evicted);
            }
            return Some(());
        }
        self.evict_oldest(EvictionQueue::Manifests, EvictionReason::Manifest, evicted)
    }

    /// Evicts the oldest object of a queue, or moves it to the end if it had a hit since the last
    /// check.
    fn evict_oldest(
        &mut self,
        queue: EvictionQueue,
        reason: EvictionReason,
        evicted: &mut Vec<K>,
    ) -> Option<()> {
        let first = self.queues.first(queue as usize)?;
        if self.was_requested(first) {
            self.queues.move_to(first, queue as usize);
        } else {
            self.evict(first, reason, evicted);
        }
        Some(())
    }

    /// Evicts an object, or moves one to another queue; then there is another one to evict.
    fn evict_media(&mut self, now_ms: u64, evicted: &mut Vec<K>) -> Option<()> {
        if let Some(first) = self.queues.first(EvictionQueue::Departed as usize) {
            self.evict(first, EvictionReason::Departed, evicted);
            return Some(());
        }
        let once = self.queues.first(EvictionQueue::Probation as usize);
        let is_full =
            self.bytes_of(&[EvictionQueue::Probation]) > self.bounds.others / PROBATION_PART;
        let others = self.bytes_of(&[EvictionQueue::Live, EvictionQueue::OnDemand]) > 0;
        if let Some(once) = once.filter(|_| is_full || !others) {
            self.end_probation(once, now_ms, evicted);
            return Some(());
        }
        self.evict_less_likely(now_ms, evicted)
            .or_else(|| self.evict_oldest(EvictionQueue::Markers, EvictionReason::Marker, evicted))
    }

    /// Evicts the less likely one of a live segment and the oldest on-demand object. An on-demand
    /// object that had a request begins another round instead.
    fn evict_less_likely(&mut self, now_ms: u64, evicted: &mut Vec<K>) -> Option<()> {
        let live = self.least_wanted(now_ms);
        match self.queues.first(EvictionQueue::OnDemand as usize) {
            Some(oldest) if self.was_requested(oldest) => {
                self.queues.get_mut(oldest)?.role = Role::OnDemand(now_ms);
                self.queues
                    .move_to(oldest, EvictionQueue::OnDemand as usize);
            }
            Some(oldest)
                if live.is_none_or(|(rate, _)| self.on_demand_rate(oldest, now_ms) <= rate) =>
            {
                self.evict(oldest, EvictionReason::OnDemand, evicted);
            }
            _ => self.evict(live?.1, EvictionReason::Live, evicted),
        }
        Some(())
    }

    /// The expected request rate per second of an on-demand object without a request in its round.
    fn on_demand_rate(&self, id: NodeId, now_ms: u64) -> f32 {
        let role = self.queues.get(id).map(|node| &node.role);
        let since_ms = match role {
            Some(Role::OnDemand(since_ms)) => *since_ms,
            _ => now_ms,
        };
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let round = now_ms.saturating_sub(since_ms).max(1) as f32 / 1000.0;
        REQUESTS_EXPECTED / round
    }

    /// Keeps an object that was requested again. Otherwise evicts it and remembers its fingerprint
    /// for a while.
    fn end_probation(&mut self, id: NodeId, now_ms: u64, evicted: &mut Vec<K>) {
        if self.was_requested(id) {
            if let Some(node) = self.queues.get_mut(id) {
                node.role = Role::OnDemand(now_ms);
            }
            self.queues.move_to(id, EvictionQueue::OnDemand as usize);
            return;
        }
        if let Some(&mut Role::Probation(fingerprint)) = self.role(id) {
            let len = self.queues.len(EvictionQueue::OnDemand as usize) + self.live.len();
            self.ghosts.remember(
                fingerprint,
                len + self.queues.len(EvictionQueue::Probation as usize),
            );
        }
        self.evict(id, EvictionReason::OneOff, evicted);
    }

    /// The live segment with the lowest expected request rate in a random sample, and that rate per
    /// second.
    fn least_wanted(&mut self, now_ms: u64) -> Option<(f32, NodeId)> {
        let mut least: Option<(f32, NodeId)> = None;
        for _ in 0..SAMPLE_SIZE.min(self.live.len() * 2) {
            let drawn = self.live[self.rng.usize(..self.live.len())];
            let Some(node) = self.queues.get(drawn) else {
                continue;
            };
            let (Role::Live(live), Some(hits)) = (&node.role, node.counter()) else {
                continue;
            };
            let segment = (live.rendition, live.number);
            let rate = self.renditions.rate(segment, hits, now_ms);
            if least.is_none_or(|(lowest, _)| rate < lowest) {
                least = Some((rate, drawn));
            }
        }
        least
    }

    fn was_requested(&self, id: NodeId) -> bool {
        let node = self.queues.get(id);
        node.is_some_and(|node| node.take_hits() > 0.0)
    }

    fn evict(&mut self, id: NodeId, reason: EvictionReason, evicted: &mut Vec<K>) {
        if let Some(node) = self.take(id) {
            self.evictions[reason as usize] += 1;
            evicted.push(node.key);
        }
    }
}
