//! Stored objects that go from one process to the one that follows it in an upgrade. The new one
//! asks the old one before it asks an origin: this is the seam for every source that a fill tries
//! first. It does not know how the connections between them come about.
//!
//! The old process gives what it has stored, and fetches nothing for it. The new one judges that as
//! a response of the origin, with its age.

mod giver;
mod metrics;
mod source;
mod wire;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::giver::{GivenCount, ObjectGiver};
pub use self::metrics::HANDOVER_METRICS;
pub use self::source::ObjectSource;
pub(super) use self::source::{GivenObject, GivenTerms};
pub(super) use self::wire::ObjectQuestion;

/// Where this process stands between the one before it and the one after it.
#[derive(Default)]
pub struct ObjectHandover {
    source: OnceLock<ObjectSource>,
    has_successor: AtomicBool,
}

/// Numbers for metrics.
#[derive(Clone, Debug, Default)]
pub struct HandoverStats {
    /// Questions so far, by result.
    pub questions: [(&'static str, u64); 4],
    /// Bytes of the bodies that came.
    pub bytes: u64,
    /// Connections that are left.
    pub connections: usize,
}

impl ObjectHandover {
    /// From now on this process is asked before an origin. It is set once.
    pub fn set_source(&self, source: ObjectSource) {
        // A process has one predecessor.
        let _ = self.source.set(source);
    }

    /// What is asked before an origin.
    pub(super) fn source(&self) -> Option<&ObjectSource> {
        self.source.get().filter(|source| !source.has_ended())
    }

    /// Asks no more: the process before this one may have what must not come back.
    pub(super) fn end_asking(&self, why: &'static str) {
        if let Some(source) = self.source() {
            source.end(why);
        }
    }

    /// Another process serves in place of this one: nothing is fetched ahead of viewers any more.
    pub fn record_successor(&self) {
        self.has_successor.store(true, Ordering::Relaxed);
    }

    /// Whether another process serves in place of this one.
    pub(super) fn has_successor(&self) -> bool {
        self.has_successor.load(Ordering::Relaxed)
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> HandoverStats {
        self.source.get().map_or_else(
            || HandoverStats {
                questions: source::results_of(|_| 0),
                ..HandoverStats::default()
            },
            ObjectSource::stats,
        )
    }
}
