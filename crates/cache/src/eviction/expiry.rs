//! Orders objects by expiry, in steps of a second.

use std::collections::BTreeSet;

use super::queues::NodeId;

/// A time in seconds. Eight bytes less per object than an exact time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

impl Tick {
    /// The first tick that is not before a time.
    pub(super) fn after(ms: u64) -> Tick {
        Tick(u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX))
    }

    fn has_come(self, now_ms: u64) -> bool {
        u64::from(self.0) * 1000 <= now_ms
    }
}

/// The expiry of all nodes, by their slots: a node leaves before another one gets its slot.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    ticks: BTreeSet<(Tick, u32)>,
}

impl Expiry {
    pub(super) fn enter(&mut self, tick: Tick, id: NodeId) {
        self.ticks.insert((tick, id.index()));
    }

    pub(super) fn leave(&mut self, tick: Tick, id: NodeId) {
        self.ticks.remove(&(tick, id.index()));
    }

    /// The slot of a node that has expired.
    pub(super) fn first(&self, now_ms: u64) -> Option<u32> {
        let (tick, index) = *self.ticks.first()?;
        tick.has_come(now_ms).then_some(index)
    }
}
