//! A set of endpoints of one group, by their places.

/// Those that are asked last, for instance. Of a group with more than 64 endpoints only the first 64 can be in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointSet(u64);

impl EndpointSet {
    /// One endpoint alone.
    pub fn of(place: usize) -> EndpointSet {
        EndpointSet::default().with(place)
    }

    /// These and one more.
    #[must_use]
    pub fn with(self, place: usize) -> EndpointSet {
        EndpointSet(self.0 | bit(place))
    }

    /// Those of both.
    #[must_use]
    pub fn and(self, other: EndpointSet) -> EndpointSet {
        EndpointSet(self.0 | other.0)
    }

    /// Is the endpoint at this place in it?
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
    fn contains_what_was_added_and_nothing_else() {
        let set = EndpointSet::of(0).and(EndpointSet::of(63)).with(64);
        let places = [0, 1, 63, 64].map(|place| set.contains(place));
        assert_eq!(places, [true, false, true, false]);
    }
}
