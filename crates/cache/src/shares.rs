//! Divides memory into partitions. Pure arithmetic.

use super::Settings;
use super::eviction::{MemoryBounds, ObjectClass};
use seawall_manifest::Kind;

/// Kinds with their own limits leave at least 1/16 of memory to the others.
const SHARED_PART_MIN: u64 = 16;

/// The partitions of memory.
#[derive(Clone, Debug)]
pub struct MemoryShares {
    /// The first partition is shared. The others belong to kinds with their own limit.
    pub(super) partitions: Vec<MemoryBounds>,
    pub(super) by_kind: [usize; Kind::ALL.len()],
}

impl MemoryShares {
    /// The partitions for these settings. If the kinds' limits exceed memory, all are reduced in
    /// proportion.
    pub fn new(settings: &Settings) -> MemoryShares {
        let memory = settings.memory_bytes;
        let apart = apart(settings);
        let apart_max = memory - memory / SHARED_PART_MIN;
        let mut partitions = vec![MemoryBounds::of(memory - apart.min(apart_max), false)];
        let mut by_kind = [0; Kind::ALL.len()];
        for (kind, bytes) in &settings.kind_bytes_max {
            by_kind[kind.index()] = partitions.len();
            let bytes = share(*bytes, apart, apart_max);
            partitions.push(MemoryBounds::of(bytes, counts_as_manifest(*kind)));
        }
        MemoryShares {
            partitions,
            by_kind,
        }
    }

    /// Whether the kinds without their own limit keep enough memory.
    pub fn leave_room(settings: &Settings) -> bool {
        let memory = settings.memory_bytes;
        apart(settings) <= memory - memory / SHARED_PART_MIN
    }

    /// Maximum body size of a kind that fits, whatever else is stored. Up to 1/16 of an object is
    /// assumed to be overhead.
    pub fn object_bytes_max(&self, kind: Kind) -> u64 {
        let class = if counts_as_manifest(kind) {
            ObjectClass::Manifest
        } else {
            ObjectClass::OnDemand
        };
        let room = self.bounds(kind).bytes_max(class);
        room - room.div_ceil(16)
    }

    /// The limits of a kind's partition.
    pub fn bounds(&self, kind: Kind) -> &MemoryBounds {
        &self.partitions[self.by_kind[kind.index()]]
    }
}

/// Initialization segments are small, and nothing plays without them: they count as manifests.
pub(super) fn counts_as_manifest(kind: Kind) -> bool {
    kind.is_manifest() || kind == Kind::Init
}

fn apart(settings: &Settings) -> u64 {
    let kinds = settings.kind_bytes_max.iter();
    kinds.fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
}

/// The limit of a kind, reduced when all kinds together exceed `apart_max`.
fn share(bytes: u64, apart: u64, apart_max: u64) -> u64 {
    if apart <= apart_max {
        return bytes;
    }
    let share = u128::from(bytes) * u128::from(apart_max) / u128::from(apart);
    u64::try_from(share).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn partitions_fit_in_memory_and_none_is_empty(
            memory in 1_u64 << 20..1 << 40,
            kinds in proptest::collection::btree_map(0..Kind::ALL.len(), 1_u64 << 16..1 << 41, 0..7)
        ) {
            let settings = Settings {
                memory_bytes: memory,
                kind_bytes_max: kinds.into_iter().map(|(at, max)| (Kind::ALL[at], max)).collect(),
                ..Settings::default()
            };
            let shares = MemoryShares::new(&settings);
            let all: u64 = shares.partitions.iter().map(MemoryBounds::bytes).sum();
            prop_assert!(all <= memory);
            let shared = shares.partitions[0].bytes();
            prop_assert!(shared >= memory / SHARED_PART_MIN);
            for (kind, _) in &settings.kind_bytes_max {
                prop_assert!(shares.by_kind[kind.index()] > 0);
                prop_assert!(shares.object_bytes_max(*kind) > 0, "{kind:?}");
            }
        }
    }

    #[test]
    fn object_size_limit_follows_partition_and_kind() {
        let settings = Settings {
            memory_bytes: 64 << 20,
            kind_bytes_max: vec![(Kind::Segment, 32 << 20), (Kind::Init, 4 << 20)],
            ..Settings::default()
        };
        let shares = MemoryShares::new(&settings);
        let mib = |kind| shares.object_bytes_max(kind) >> 20;
        assert_eq!(mib(Kind::Segment), 21, "three quarters of its part");
        assert_eq!(mib(Kind::Other), 19, "three quarters of what is left");
        assert_eq!(mib(Kind::Hls), 6, "a quarter of what is left");
        assert_eq!(mib(Kind::Init), 3, "nearly all of its part");
    }
}
