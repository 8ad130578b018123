//! The numbers of an epoch at which an object may have been bound and is still usable.

use super::purge_mode::PurgeMode;

/// The number of an epoch. Each end increases it. After a soft purge, objects of the ended epoch
/// may still be served as stale: these numbers reach back to `stale_from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EpochSpan {
    stale_from: u32,
    pub(super) number: u32,
}

impl EpochSpan {
    pub(super) fn of(bits: u64) -> EpochSpan {
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
        EpochSpan {
            stale_from: half(bits >> 32),
            number: half(bits),
        }
    }

    pub(super) fn bits(self) -> u64 {
        u64::from(self.stale_from) << 32 | u64::from(self.number)
    }

    /// Whether what was bound at this number may still be served, as stale at least.
    pub(super) fn has(self, number: u32) -> bool {
        (self.stale_from..=self.number).contains(&number)
    }

    pub(super) fn ended(self, mode: PurgeMode) -> EpochSpan {
        let number = self.number.wrapping_add(1);
        EpochSpan {
            stale_from: if mode == PurgeMode::Soft {
                self.stale_from
            } else {
                number
            },
            number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_ends_keep_what_was_bound_before_until_a_hard_one() {
        let first = EpochSpan::of(0);
        let soft = first.ended(PurgeMode::Soft).ended(PurgeMode::Soft);
        assert_eq!(EpochSpan::of(soft.bits()), soft);
        assert_eq!(soft.number, 2);
        assert!([0, 1, 2].iter().all(|number| soft.has(*number)));
        let hard = soft.ended(PurgeMode::Hard);
        assert!(hard.has(3) && !hard.has(2) && !hard.has(0));
        let after = hard.ended(PurgeMode::Soft);
        assert!(after.has(3) && after.has(4) && !after.has(2));
    }
}
