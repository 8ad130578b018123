//! Computes how much memory an object takes: the allocator's size classes, and the store's
//! overhead. `tests/weight.rs` compares these figures with the allocator's own count.

/// The store's overhead per entry besides key and value: the entries in the table, in the eviction
/// policy and in the expiry order, with a share of the free space there.
const STORE_ENTRY_BYTES: usize = 182;

/// Bytes of an entry besides its value, under a key of this length.
pub(crate) fn entry_bytes(key_bytes: usize) -> usize {
    STORE_ENTRY_BYTES + allocated(key_bytes + ARC_BYTES)
}

/// The two counters of an `Arc`.
pub(crate) const ARC_BYTES: usize = 16;

/// `Bytes` that were shared once have a counter of their own.
pub(crate) const SHARED_BYTES: usize = 32;

/// From this size on the allocator returns whole pages, plus one to vary the start address.
const LARGE_BYTES_MIN: usize = 14 << 10;
const PAGE_BYTES: usize = 4 << 10;

/// The bytes that the allocator (jemalloc) uses for a request of `bytes`. Below a few pages it has
/// four size classes between one power of two and the next.
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
    fn allocated_size_matches_allocator_size_classes() {
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
