//! A set of endpoints of one group, by number: it names an endpoint also after its group got other
//! settings, when its place in the list may be another.

/// For example the endpoints that are tried last. Only endpoints with numbers below 64 can be in
/// a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointSet(u64);

impl EndpointSet {
    /// A set with one endpoint.
    pub fn of(number: usize) -> EndpointSet {
        EndpointSet::default().with(number)
    }

    /// The set with one more endpoint.
    #[must_use]
    pub fn with(self, number: usize) -> EndpointSet {
        EndpointSet(self.0 | bit(number))
    }

    /// The union of both sets.
    #[must_use]
    pub fn union(self, other: EndpointSet) -> EndpointSet {
        EndpointSet(self.0 | other.0)
    }

    /// The numbers of its endpoints, in order.
    pub fn numbers(self) -> impl Iterator<Item = usize> {
        (0..u64::BITS as usize).filter(move |number| self.contains(*number))
    }

    /// Whether the endpoint with this number is in the set.
    pub fn contains(self, number: usize) -> bool {
        self.0 & bit(number) != 0
    }
}

fn bit(number: usize) -> u64 {
    u32::try_from(number)
        .ok()
        .and_then(|number| 1_u64.checked_shl(number))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_only_added_endpoints_below_64() {
        let set = EndpointSet::of(0).union(EndpointSet::of(63)).with(64);
        let contained = [0, 1, 63, 64].map(|number| set.contains(number));
        assert_eq!(contained, [true, false, true, false]);
        assert!(set.numbers().eq([0, 63]));
    }
}
