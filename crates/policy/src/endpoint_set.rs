//! A set of endpoints of one group, by index.

/// For example the endpoints that are tried last. Only the first 64 endpoints of a group can be in
/// a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointSet(u64);

impl EndpointSet {
    /// A set with one endpoint.
    pub fn of(place: usize) -> EndpointSet {
        EndpointSet::default().with(place)
    }

    /// The set with one more endpoint.
    #[must_use]
    pub fn with(self, place: usize) -> EndpointSet {
        EndpointSet(self.0 | bit(place))
    }

    /// The union of both sets.
    #[must_use]
    pub fn and(self, other: EndpointSet) -> EndpointSet {
        EndpointSet(self.0 | other.0)
    }

    /// The indexes of its endpoints, in order.
    pub fn indexes(self) -> impl Iterator<Item = usize> {
        (0..u64::BITS as usize).filter(move |place| self.contains(*place))
    }

    /// Whether the endpoint at this index is in the set.
    pub fn contains(self, place: usize) -> bool {
        self.0 & bit(place) != 0
    }
}

fn bit(place: usize) -> u64 {
    u32::try_from(place)
        .ok()
        .and_then(|place| 1_u64.checked_shl(place))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_only_added_endpoints_below_64() {
        let set = EndpointSet::of(0).and(EndpointSet::of(63)).with(64);
        let places = [0, 1, 63, 64].map(|place| set.contains(place));
        assert_eq!(places, [true, false, true, false]);
        assert!(set.indexes().eq([0, 63]));
    }
}
