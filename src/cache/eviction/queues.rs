//! The queues of an eviction policy: doubly linked lists in one slab of nodes, oldest first. Every
//! operation takes constant time. Knows nothing of why a node is in a queue.

/// Names a node. The id of a removed node names nothing, also when its place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId {
    index: u32,
    generation: u32,
}

const NONE: u32 = u32::MAX;

/// Nodes that are allocated at once.
const BLOCK: usize = 256;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    before: u32,
    after: u32,
    /// The queue, the weight, and what the policy knows of it; `None`: a free place.
    held: Option<(usize, u64, T)>,
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
    /// In blocks of the same size: a slab that grows in one piece takes half as much again as it holds.
    blocks: Vec<Vec<Slot<T>>>,
    len: usize,
    free: Vec<u32>,
    ends: [Ends; N],
}

impl<T, const N: usize> Queues<T, N> {
    pub(super) fn new() -> Queues<T, N> {
        Queues {
            blocks: Vec::new(),
            len: 0,
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
        let slot = self.slot(id.index)?;
        let (_, _, node) = slot.held.as_ref()?;
        (slot.generation == id.generation).then_some(node)
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut T> {
        let slot = self.slot_mut(id.index)?;
        let (_, _, node) = slot.held.as_mut()?;
        (slot.generation == id.generation).then_some(node)
    }

    /// The queue of a node and its weight.
    pub(super) fn place(&self, id: NodeId) -> Option<(usize, u64)> {
        let slot = self.slot(id.index)?;
        let (queue, bytes, _) = slot.held.as_ref()?;
        (slot.generation == id.generation).then_some((*queue, *bytes))
    }

    /// Adds a node at the end of a queue.
    pub(super) fn push(&mut self, queue: usize, bytes: u64, node: T) -> NodeId {
        let index = self.free.pop().unwrap_or_else(|| {
            if self.len == self.blocks.len() * BLOCK {
                self.blocks.push(Vec::with_capacity(BLOCK));
            }
            if let Some(block) = self.blocks.last_mut() {
                block.push(Slot {
                    generation: 0,
                    before: NONE,
                    after: NONE,
                    held: None,
                });
            }
            self.len += 1;
            // A node takes more than a byte: there are fewer of them than u32 counts.
            u32::try_from(self.len - 1).unwrap_or(NONE)
        });
        let slot = self.at(index);
        slot.generation = slot.generation.wrapping_add(1);
        slot.held = Some((queue, bytes, node));
        let generation = slot.generation;
        self.link(index, queue, bytes);
        NodeId { index, generation }
    }

    /// Takes a node out.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<T> {
        let (queue, bytes) = self.place(id)?;
        self.unlink(id.index, queue, bytes);
        let (.., node) = self.at(id.index).held.take()?;
        self.free.push(id.index);
        Some(node)
    }

    /// Moves a node to the end of a queue, perhaps its own.
    pub(super) fn shift(&mut self, id: NodeId, queue: usize) {
        if let Some((from, bytes)) = self.place(id) {
            self.unlink(id.index, from, bytes);
            if let Some(held) = &mut self.at(id.index).held {
                held.0 = queue;
            }
            self.link(id.index, queue, bytes);
        }
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        self.blocks
            .get(index as usize / BLOCK)?
            .get(index as usize % BLOCK)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        self.blocks
            .get_mut(index as usize / BLOCK)?
            .get_mut(index as usize % BLOCK)
    }

    fn at(&mut self, index: u32) -> &mut Slot<T> {
        &mut self.blocks[index as usize / BLOCK][index as usize % BLOCK]
    }

    fn id(&self, index: u32) -> Option<NodeId> {
        let generation = self.slot(index)?.generation;
        Some(NodeId { index, generation })
    }

    fn link(&mut self, index: u32, queue: usize, bytes: u64) {
        let last = self.ends[queue].last;
        let slot = self.at(index);
        slot.before = last;
        slot.after = NONE;
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

    fn unlink(&mut self, index: u32, queue: usize, bytes: u64) {
        let Slot { before, after, .. } = *self.at(index);
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
