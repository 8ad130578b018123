//! What does a thing really take in memory? The allocator's size classes, and what the store adds.
//! `tests/weight.rs` holds these figures against the allocator's own count.

/// What the store keeps for each entry besides key and value: its places in the table, in the policy of
/// eviction and in the order of expiry, with their share of what is free there.
const STORE_ENTRY_BYTES: usize = 190;

/// What an entry takes besides its value, under a key of so many bytes.
pub(crate) fn entry_bytes(key_bytes: usize) -> usize {
    STORE_ENTRY_BYTES + allocated(key_bytes + ARC_BYTES)
}

/// The two counters of an `Arc`.
pub(crate) const ARC_BYTES: usize = 16;

/// `Bytes` that were shared once keep a counter of their own.
pub(crate) const SHARED_BYTES: usize = 32;

/// From this size on the allocator gives whole pages, and one more to vary where they begin.
const LARGE_BYTES_MIN: usize = 14 << 10;
const PAGE_BYTES: usize = 4 << 10;

/// The bytes that the allocator (jemalloc) gives for so many. Below a few pages it has four sizes
/// between one power of two and the next.
pub(crate) fn allocated(bytes: usize) -> usize {
    const SPACING_BYTES: usize = 16;
    if bytes <= 8 {
        return bytes.next_multiple_of(8);
    }
    if bytes > LARGE_BYTES_MIN {
        let pages = bytes.checked_next_multiple_of(PAGE_BYTES);
        return pages.unwrap_or(bytes).saturating_add(PAGE_BYTES);
    }
    let power = (bytes - 1).ilog2();
    bytes.next_multiple_of((1_usize << power >> 2).max(SPACING_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_allocators_classes() {
        for (bytes, class) in [
            (0, 0),
            (1, 8),
            (10, 16),
            (100, 112),
            (128, 128),
            (129, 160),
            (257, 320),
            (1025, 1280),
            (14_336, 14_336),
            (14_337, 16_384 + 4096),
            (5 << 20, (5 << 20) + 4096),
            ((5 << 20) + 1, (5 << 20) + 8192),
        ] {
            assert_eq!(allocated(bytes), class, "{bytes}");
        }
        assert_eq!(allocated(usize::MAX), usize::MAX);
    }
}
