//! A set of endpoints of one group, by index.

/// For example the endpoints that are tried last. Only the first 64 endpoints of a group can be in
/// a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointSet(u64);

impl EndpointSet {
    /// A set with one endpoint.
    pub fn of(index: usize) -> EndpointSet {
        EndpointSet::default().with(index)
    }

    /// The set with one more endpoint.
    #[must_use]
    pub fn with(self, index: usize) -> EndpointSet {
        EndpointSet(self.0 | bit(index))
    }

    /// The union of both sets.
    #[must_use]
    pub fn union(self, other: EndpointSet) -> EndpointSet {
        EndpointSet(self.0 | other.0)
    }

    /// The indexes of its endpoints, in order.
    pub fn indexes(self) -> impl Iterator<Item = usize> {
        (0..u64::BITS as usize).filter(move |index| self.contains(*index))
    }

    /// Whether the endpoint at this index is in the set.
    pub fn contains(self, index: usize) -> bool {
        self.0 & bit(index) != 0
    }
}

fn bit(index: usize) -> u64 {
    u32::try_from(index)
        .ok()
        .and_then(|index| 1_u64.checked_shl(index))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_only_added_endpoints_below_64() {
        let set = EndpointSet::of(0).union(EndpointSet::of(63)).with(64);
        let contained = [0, 1, 63, 64].map(|index| set.contains(index));
        assert_eq!(contained, [true, false, true, false]);
        assert!(set.indexes().eq([0, 63]));
    }
}
