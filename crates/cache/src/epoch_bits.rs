//! Tells most objects that are bound to none of some epochs, without reading the objects.

/// A bit in each of four bytes for each epoch. What has no bit in common with the epochs of a purge
/// in one of the bytes is bound to none of them: that saves most of the reads that a purge of a
/// large store takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EpochBits([u8; 4]);

impl EpochBits {
    /// Adds the epoch at this address.
    pub(super) fn with(self, address: usize) -> EpochBits {
        // Fibonacci hashing: addresses are far from evenly spread.
        let hash = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        for (byte, shift) in bits.iter_mut().zip([61, 58, 55, 52]) {
            *byte |= 1 << (hash >> shift & 7);
        }
        EpochBits(bits)
    }

    /// Whether one epoch may be in both.
    pub(super) fn may_share_one_with(self, others: EpochBits) -> bool {
        let mut bytes = self.0.into_iter().zip(others.0);
        bytes.all(|(byte, other)| byte & other != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses as an allocator gives them: one after another, in steps of a size class.
    fn of_epochs(numbers: impl IntoIterator<Item = usize>) -> EpochBits {
        let addresses = numbers
            .into_iter()
            .map(|number| 0x7f00_0000_0000 + number * 96);
        addresses.fold(EpochBits::default(), EpochBits::with)
    }

    #[test]
    fn object_of_one_of_many_ended_epochs_is_read() {
        for ended in [1, 2, 7, 100] {
            let bits = of_epochs(0..ended);
            for epoch in 0..ended {
                let object = of_epochs([epoch, 5_000, 6_000]);
                assert!(object.may_share_one_with(bits), "{epoch} of {ended}");
            }
        }
    }

    #[test]
    fn few_objects_of_other_epochs_are_read() {
        let ended = of_epochs([0]);
        let read = (1..10_000).filter(|other| {
            let object = of_epochs([*other, 20_000 + other % 100]);
            object.may_share_one_with(ended)
        });
        let read = read.count();
        assert!(read < 100, "{read} of 10,000");
    }
}
