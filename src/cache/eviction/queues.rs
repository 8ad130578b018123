//! The queues of an eviction policy: doubly linked lists in one slab of nodes, oldest first. Every
//! operation takes constant time. Knows nothing of why a node is in a queue.

use std::num::NonZeroU32;

/// Names a node. The id of a removed node names nothing, also when its place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId {
    index: u32,
    /// Never zero, so that an optional id takes no more room.
    generation: NonZeroU32,
}

/// Nodes are allotted so many at a time: a table that grows by doubling would be half empty.
const CHUNK: usize = 512;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot<T> {
    generation: NonZeroU32,
    before: u32,
    after: u32,
    queue: u8,
    bytes: u64,
    /// `None`: a free place.
    node: Option<T>,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
    bytes: u64,
    len: usize,
}

impl Ends {
    const EMPTY: Ends = Ends {
        first: NONE,
        last: NONE,
        bytes: 0,
        len: 0,
    };
}

/// A fixed number of queues that share a slab.
#[derive(Debug)]
pub(super) struct Queues<T, const N: usize> {
    chunks: Vec<Vec<Slot<T>>>,
    free: Vec<u32>,
    ends: [Ends; N],
}

impl<T, const N: usize> Queues<T, N> {
    pub(super) fn new() -> Queues<T, N> {
        Queues {
            chunks: Vec::new(),
            free: Vec::new(),
            ends: [Ends::EMPTY; N],
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

    /// The queue of a node and its weight.
    pub(super) fn place(&self, id: NodeId) -> Option<(usize, u64)> {
        let slot = self.slot(id)?;
        Some((usize::from(slot.queue), slot.bytes))
    }

    /// Adds a node at the end of a queue.
    pub(super) fn push(&mut self, queue: usize, bytes: u64, node: T) -> NodeId {
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        let slot = self.at(index);
        slot.generation = slot.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        slot.bytes = bytes;
        slot.node = Some(node);
        let generation = slot.generation;
        self.link(index, queue);
        NodeId { index, generation }
    }

    /// Takes a node out.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<T> {
        self.slot(id)?;
        self.unlink(id.index);
        let node = self.at(id.index).node.take()?;
        self.free.push(id.index);
        Some(node)
    }

    /// Moves a node to the end of a queue, perhaps its own.
    pub(super) fn shift(&mut self, id: NodeId, queue: usize) {
        if self.slot(id).is_some() {
            self.unlink(id.index);
            self.link(id.index, queue);
        }
    }

    /// The slot of a node, if that is still there.
    fn slot(&self, id: NodeId) -> Option<&Slot<T>> {
        let chunk = self.chunks.get(id.index as usize / CHUNK)?;
        let slot = chunk.get(id.index as usize % CHUNK)?;
        (slot.generation == id.generation && slot.node.is_some()).then_some(slot)
    }

    fn at(&mut self, index: u32) -> &mut Slot<T> {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    fn id(&self, index: u32) -> Option<NodeId> {
        let chunk = self.chunks.get(index as usize / CHUNK)?;
        let generation = chunk.get(index as usize % CHUNK)?.generation;
        Some(NodeId { index, generation })
    }

    fn grow(&mut self) -> u32 {
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let Some(last) = self.chunks.last_mut() else {
            return NONE;
        };
        last.push(Slot {
            generation: NonZeroU32::MIN,
            before: NONE,
            after: NONE,
            queue: 0,
            bytes: 0,
            node: None,
        });
        // A node takes more than a byte: there are fewer of them than u32 counts.
        u32::try_from(before + last.len() - 1).unwrap_or(NONE)
    }

    fn link(&mut self, index: u32, queue: usize) {
        let last = self.ends[queue].last;
        let slot = self.at(index);
        slot.before = last;
        slot.after = NONE;
        // There are fewer queues than a byte counts.
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
