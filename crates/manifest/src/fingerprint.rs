//! A hash of a name that is the same in every process and every version of the program.

/// FNV-1a, 64 bits (Fowler, Noll, Vo). Distinguishes names; not cryptographic.
pub(super) fn fingerprint(name: &str) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    name.bytes().fold(BASIS, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // The test vectors of draft-eastlake-fnv, appendix C.
    #[test]
    fn known_fingerprints() {
        assert_eq!(fingerprint(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fingerprint("foobar"), 0x8594_4171_f739_67e8);
    }
}
