//! Endpoints to avoid, each until a time.

use std::time::Instant;

use crate::EndpointSet;

/// Endpoints of one group that are tried last, each until a time.
#[derive(Clone, Debug, Default)]
pub struct EndpointAvoidance(Vec<(usize, Instant)>);

impl EndpointAvoidance {
    /// These endpoints, all until the same time.
    pub fn of(endpoints: EndpointSet, until: Instant) -> EndpointAvoidance {
        let numbers = endpoints.numbers();
        EndpointAvoidance(numbers.map(|endpoint| (endpoint, until)).collect())
    }

    /// Avoids an endpoint until this time, whatever was recorded for it before.
    pub fn avoid(&mut self, endpoint: usize, until: Instant) {
        self.0.retain(|(known, _)| *known != endpoint);
        self.0.push((endpoint, until));
    }

    /// The endpoints to avoid now.
    pub fn at(&self, now: Instant) -> EndpointSet {
        self.those(|until| now < until)
    }

    /// All endpoints that were recorded, also those whose time is over.
    pub fn ever(&self) -> EndpointSet {
        self.those(|_| true)
    }

    /// Bytes of memory behind this value.
    pub fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<(usize, Instant)>()
    }

    fn those(&self, are_meant: impl Fn(Instant) -> bool) -> EndpointSet {
        let meant = self.0.iter().filter(|(_, until)| are_meant(*until));
        meant.fold(EndpointSet::default(), |set, (endpoint, _)| {
            set.with(*endpoint)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_endpoint_is_avoided_until_its_time_is_over() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut avoided = EndpointAvoidance::default();
        avoided.avoid(0, at(2));
        avoided.avoid(1, at(3));
        assert_eq!(avoided.at(at(1)), EndpointSet::of(0).with(1));
        assert_eq!(avoided.at(at(2)), EndpointSet::of(1));
        assert_eq!(avoided.ever(), EndpointSet::of(0).with(1));
        avoided.avoid(0, at(4));
        assert_eq!(avoided.at(at(3)), EndpointSet::of(0));
        assert_eq!(avoided.at(at(4)), EndpointSet::default());
    }

    #[test]
    fn a_set_is_avoided_until_one_time() {
        let start = Instant::now();
        let set = EndpointSet::of(0).with(63);
        let avoided = EndpointAvoidance::of(set, start + Duration::from_secs(2));
        assert_eq!(avoided.at(start), set);
        assert_eq!(
            avoided.at(start + Duration::from_secs(2)),
            EndpointSet::default()
        );
    }
}
