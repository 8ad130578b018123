//! The queues of an eviction policy: doubly linked lists in one slab of nodes, oldest first. Every
//! operation takes constant time. The module does not know why a node is in a queue.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

/// Identifies a node. The id of a removed node stays invalid, even when its slot is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId {
    index: u32,
    /// The serial number of the node: another node in the same slot has another one. Never zero, so
    /// that an optional id has the same size.
    serial: NonZeroU32,
}

impl NodeId {
    /// The slot of the node.
    pub(super) fn index(self) -> u32 {
        self.index
    }
}

/// Slots per chunk. A table that grows by doubling would be half empty.
const CHUNK: usize = 512;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct NodeSlot<T> {
    serial: NonZeroU32,
    before: u32,
    /// In a free slot: the next free slot of the chunk.
    after: u32,
    queue: u8,
    bytes: u64,
    /// `None`: a free slot.
    node: Option<T>,
}

/// An empty chunk uses no memory.
#[derive(Debug)]
struct SlabChunk<T> {
    slots: Vec<NodeSlot<T>>,
    first_free: u32,
    held: usize,
}

#[derive(Clone, Copy, Debug)]
struct QueueEnds {
    first: u32,
    last: u32,
    bytes: u64,
    len: usize,
}

impl QueueEnds {
    const EMPTY: QueueEnds = QueueEnds {
        first: NONE,
        last: NONE,
        bytes: 0,
        len: 0,
    };
}

/// A fixed number of queues that share a slab.
#[derive(Debug)]
pub(super) struct SlabQueues<T, const N: usize> {
    chunks: Vec<SlabChunk<T>>,
    /// Chunks with free slots. The first one is filled first, so that others become empty.
    open: BTreeSet<usize>,
    last_serial: NonZeroU32,
    ends: [QueueEnds; N],
}

impl<T, const N: usize> SlabQueues<T, N> {
    pub(super) fn new() -> SlabQueues<T, N> {
        SlabQueues {
            chunks: Vec::new(),
            open: BTreeSet::new(),
            last_serial: NonZeroU32::MIN,
            ends: [QueueEnds::EMPTY; N],
        }
    }

    pub(super) fn bytes(&self, queue: usize) -> u64 {
        self.ends[queue].bytes
    }

    pub(super) fn len(&self, queue: usize) -> usize {
        self.ends[queue].len
    }

    pub(super) fn all_bytes(&self) -> u64 {
        self.ends.iter().map(|ends| ends.bytes).sum()
    }

    pub(super) fn all_len(&self) -> u64 {
        self.ends.iter().map(|ends| ends.len as u64).sum()
    }

    pub(super) fn first(&self, queue: usize) -> Option<NodeId> {
        self.id(self.ends[queue].first)
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&T> {
        self.slot(id)?.node.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut T> {
        self.slot(id)?;
        self.at(id.index).node.as_mut()
    }

    /// The queue of a node, and its weight in bytes.
    pub(super) fn queue_of(&self, id: NodeId) -> Option<(usize, u64)> {
        let slot = self.slot(id)?;
        Some((usize::from(slot.queue), slot.bytes))
    }

    /// Adds a node at the end of a queue.
    pub(super) fn push(&mut self, queue: usize, bytes: u64, node: T) -> NodeId {
        // A serial number repeats only after four billion nodes.
        let serial = self.last_serial.checked_add(1);
        let serial = serial.unwrap_or(NonZeroU32::MIN);
        self.last_serial = serial;
        let index = self.allot(NodeSlot {
            serial,
            before: NONE,
            after: NONE,
            queue: 0,
            bytes,
            node: Some(node),
        });
        self.link(index, queue);
        NodeId { index, serial }
    }

    /// Removes a node.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<T> {
        self.slot(id)?;
        self.unlink(id.index);
        self.free(id.index)
    }

    /// Moves a node to the end of a queue, which may be its own.
    pub(super) fn move_to(&mut self, id: NodeId, queue: usize) {
        if self.slot(id).is_some() {
            self.unlink(id.index);
            self.link(id.index, queue);
        }
    }

    /// The slot of a node, if the node still exists.
    fn slot(&self, id: NodeId) -> Option<&NodeSlot<T>> {
        let chunk = self.chunks.get(id.index as usize / CHUNK)?;
        let slot = chunk.slots.get(id.index as usize % CHUNK)?;
        (slot.serial == id.serial && slot.node.is_some()).then_some(slot)
    }

    fn at(&mut self, index: u32) -> &mut NodeSlot<T> {
        &mut self.chunks[index as usize / CHUNK].slots[index as usize % CHUNK]
    }

    /// The node in a slot.
    pub(super) fn id(&self, index: u32) -> Option<NodeId> {
        let chunk = self.chunks.get(index as usize / CHUNK)?;
        let serial = chunk.slots.get(index as usize % CHUNK)?.serial;
        Some(NodeId { index, serial })
    }

    /// Writes a slot to the first free position.
    fn allot(&mut self, slot: NodeSlot<T>) -> u32 {
        let number = self.open.first().copied().unwrap_or(self.chunks.len());
        if number == self.chunks.len() {
            self.open.insert(number);
            self.chunks.push(SlabChunk::empty());
        }
        let chunk = &mut self.chunks[number];
        let at = chunk.put(slot);
        if chunk.held == CHUNK {
            self.open.remove(&number);
        }
        // A node takes more than a byte, so the index fits in `u32`.
        u32::try_from(number * CHUNK + at).unwrap_or(NONE)
    }

    fn free(&mut self, index: u32) -> Option<T> {
        let (number, at) = (index as usize / CHUNK, index as usize % CHUNK);
        let node = self.chunks[number].take(at);
        self.open.insert(number);
        node
    }

    fn link(&mut self, index: u32, queue: usize) {
        let last = self.ends[queue].last;
        let slot = self.at(index);
        slot.before = last;
        slot.after = NONE;
        // There are fewer than 256 queues.
        slot.queue = u8::try_from(queue).unwrap_or(u8::MAX);
        let bytes = slot.bytes;
        if last == NONE {
            self.ends[queue].first = index;
        } else {
            self.at(last).after = index;
        }
        let ends = &mut self.ends[queue];
        ends.last = index;
        ends.bytes += bytes;
        ends.len += 1;
    }

    fn unlink(&mut self, index: u32) {
        let slot = self.at(index);
        let (before, after) = (slot.before, slot.after);
        let (queue, bytes) = (usize::from(slot.queue), slot.bytes);
        if before == NONE {
            self.ends[queue].first = after;
        } else {
            self.at(before).after = after;
        }
        if after == NONE {
            self.ends[queue].last = before;
        } else {
            self.at(after).before = before;
        }
        let ends = &mut self.ends[queue];
        ends.bytes -= bytes;
        ends.len -= 1;
    }
}

impl<T> SlabChunk<T> {
    fn empty() -> SlabChunk<T> {
        SlabChunk {
            slots: Vec::new(),
            first_free: NONE,
            held: 0,
        }
    }

    fn put(&mut self, slot: NodeSlot<T>) -> usize {
        self.held += 1;
        if let Some(free) = self.slots.get_mut(self.first_free as usize) {
            let at = self.first_free as usize;
            self.first_free = free.after;
            *free = slot;
            return at;
        }
        if self.slots.is_empty() {
            self.slots.reserve_exact(CHUNK);
        }
        self.slots.push(slot);
        self.slots.len() - 1
    }

    fn take(&mut self, at: usize) -> Option<T> {
        let slot = &mut self.slots[at];
        let node = slot.node.take();
        slot.after = self.first_free;
        // A chunk has fewer slots than `u32` counts.
        self.first_free = u32::try_from(at).unwrap_or(NONE);
        self.held -= 1;
        if self.held == 0 {
            *self = SlabChunk::empty();
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The nodes of a queue, oldest first.
    fn listed(queues: &SlabQueues<u16, 2>, queue: usize) -> Vec<u16> {
        let (mut at, mut listed) = (queues.ends[queue].first, Vec::new());
        while let Some(slot) =
            (at != NONE).then(|| &queues.chunks[at as usize / CHUNK].slots[at as usize % CHUNK])
        {
            listed.extend(slot.node);
            at = slot.after;
        }
        listed
    }

    proptest! {
        #[test]
        fn queues_match_model_after_random_operations(
            steps in proptest::collection::vec((0..3_u8, 0..2_usize, any::<usize>()), 1..3000)
        ) {
            let mut queues = SlabQueues::<u16, 2>::new();
            let mut held: Vec<(NodeId, u16, usize)> = Vec::new();
            let mut gone = Vec::new();
            for (number, (step, queue, which)) in (0..).zip(steps) {
                match step {
                    0 => held.push((queues.push(queue, 1, number), number, queue)),
                    1 if !held.is_empty() => {
                        let (id, node, _) = held.remove(which % held.len());
                        queues.move_to(id, queue);
                        held.push((id, node, queue));
                    }
                    _ if !held.is_empty() => {
                        let (id, node, _) = held.remove(which % held.len());
                        prop_assert_eq!(queues.remove(id), Some(node));
                        gone.push(id);
                    }
                    _ => {}
                }
            }
            for queue in 0..2 {
                let of = held.iter().filter(|(.., of)| *of == queue);
                let expected: Vec<u16> = of.map(|(_, node, _)| *node).collect();
                prop_assert_eq!(listed(&queues, queue), expected);
            }
            prop_assert!(gone.iter().all(|id| queues.get(*id).is_none()));
            prop_assert_eq!(queues.all_len(), held.len() as u64);
        }
    }

    #[test]
    fn frees_memory_of_empty_chunks() {
        let mut queues = SlabQueues::<u64, 1>::new();
        let chunks = |queues: &SlabQueues<u64, 1>| {
            let chunks = queues.chunks.iter();
            chunks.filter(|chunk| chunk.slots.capacity() > 0).count()
        };
        let ids: Vec<NodeId> = (0..10 * CHUNK as u64)
            .map(|number| queues.push(0, 1, number))
            .collect();
        assert_eq!(chunks(&queues), 10);
        for id in &ids[..9 * CHUNK] {
            queues.remove(*id);
        }
        assert_eq!(chunks(&queues), 1);
        // New nodes fill the first chunks.
        queues.push(0, 1, 7);
        assert_eq!(chunks(&queues), 2);
        assert!(ids[..9 * CHUNK].iter().all(|id| queues.get(*id).is_none()));
        assert!(ids[9 * CHUNK..].iter().all(|id| queues.get(*id).is_some()));
    }
}
