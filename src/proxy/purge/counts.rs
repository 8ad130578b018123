//! Counts purges, for metrics.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::PurgeScope;
use seawall_cache::{PurgeCount, PurgeMode};

/// Purges since start.
#[derive(Clone, Debug, Default)]
pub struct PurgeStats {
    /// By scope and mode, both as in the metric.
    pub purges: BTreeMap<(&'static str, &'static str), u64>,
    /// Objects dropped or made stale.
    pub objects: u64,
    /// Bytes that they took.
    pub bytes: u64,
}

#[derive(Default)]
pub(in crate::proxy) struct PurgeCounters(Mutex<PurgeStats>);

impl PurgeCounters {
    pub(super) fn record(&self, scope: &PurgeScope, mode: PurgeMode, count: PurgeCount) {
        let mut stats = self.0.lock();
        let purges = (scope.name(), mode.as_str());
        *stats.purges.entry(purges).or_default() += 1;
        if mode != PurgeMode::DryRun {
            stats.objects += count.objects;
            stats.bytes += count.bytes;
        }
    }

    pub(in crate::proxy) fn read(&self) -> PurgeStats {
        self.0.lock().clone()
    }
}
