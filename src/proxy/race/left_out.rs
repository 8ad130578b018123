//! Records which endpoints were left out, and when. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use seawall_policy::EndpointSet;

/// Endpoints, each with the time at which it was last left out.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct LeftOut(Vec<(usize, Instant)>);

impl LeftOut {
    pub(in crate::proxy) fn add(&mut self, endpoint: usize, now: Instant) {
        self.0.retain(|(known, _)| *known != endpoint);
        self.0.push((endpoint, now));
    }

    /// Endpoints that were left out within `span`.
    pub(in crate::proxy) fn within(&self, span: Duration, now: Instant) -> EndpointSet {
        self.those(|at| now < at + span)
    }

    /// Endpoints that were ever left out.
    pub(in crate::proxy) fn all(&self) -> EndpointSet {
        self.those(|_| true)
    }

    fn those(&self, are_meant: impl Fn(Instant) -> bool) -> EndpointSet {
        let meant = self.0.iter().filter(|(_, at)| are_meant(*at));
        meant.fold(EndpointSet::default(), |set, (endpoint, _)| {
            set.with(*endpoint)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_an_endpoint_when_its_time_is_over() {
        let (start, span) = (Instant::now(), Duration::from_secs(2));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut left = LeftOut::default();
        left.add(0, at(0));
        left.add(1, at(1));
        assert_eq!(left.within(span, at(1)), EndpointSet::of(0).with(1));
        assert_eq!(left.within(span, at(2)), EndpointSet::of(1));
        assert_eq!(left.all(), EndpointSet::of(0).with(1));
        left.add(0, at(2));
        assert_eq!(left.within(span, at(3)), EndpointSet::of(0));
        assert_eq!(left.within(span, at(4)), EndpointSet::default());
    }
}
