//! Decides which endpoints, requested for a body without success, may be requested again. Pure: the
//! clock is an argument.

use std::time::{Duration, Instant};

use super::AVOIDED;
use seawall_policy::EndpointSet;

/// An endpoint that did not help is requested again after this time: it may get the object
/// meanwhile. The time doubles with each further failure, up to [`AVOIDED`].
const USELESS_FOR: Duration = Duration::from_secs(2);

/// Why an endpoint did not take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnfitReason {
    /// It had no usable response, or was no further than an endpoint that had stopped.
    Useless,
    /// It has the same body, and was no further than an endpoint that still delivers.
    Slower,
    /// It has a different object under this URL.
    Different,
}

/// The state of the endpoint that delivers the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyMovement {
    /// Bytes arrive, even if slowly.
    Moves,
    /// No bytes arrive, or too few to be of use.
    Stalled,
    /// No more bytes will arrive.
    Broken,
}

#[derive(Debug)]
struct TriedEndpoint {
    endpoint: usize,
    reason: UnfitReason,
    tried_at: Instant,
    excluded_for: Duration,
}

/// The endpoints that were requested for tried body and did not take over.
#[derive(Debug, Default)]
pub(super) struct TriedEndpoints(Vec<TriedEndpoint>);

impl TriedEndpoints {
    /// Replaces what was recorded of the endpoint before.
    pub(super) fn add(&mut self, endpoint: usize, reason: UnfitReason, now: Instant) {
        let mut excluded_for = match reason {
            UnfitReason::Useless => USELESS_FOR,
            UnfitReason::Slower | UnfitReason::Different => AVOIDED,
        };
        let is_known = |tried: &mut TriedEndpoint| tried.endpoint == endpoint;
        for before in self.0.extract_if(.., is_known) {
            if reason == UnfitReason::Useless && before.reason == reason {
                excluded_for = (before.excluded_for * 2).min(AVOIDED);
            }
        }
        self.0.push(TriedEndpoint {
            endpoint,
            reason,
            tried_at: now,
            excluded_for,
        });
    }

    /// Removes endpoints whose time is over.
    pub(super) fn forget_overdue(&mut self, now: Instant) {
        self.0
            .retain(|tried| now < tried.tried_at + tried.excluded_for);
    }

    /// Endpoints not to request now. Endpoints with a different object are included only if
    /// `with_different`. A slower endpoint is requested again only when no bytes arrive. For a
    /// broken body, each endpoint is asked for the rest once.
    pub(super) fn excluded(
        &self,
        movement: BodyMovement,
        with_different: bool,
        now: Instant,
    ) -> EndpointSet {
        self.matching(|tried| match tried.reason {
            UnfitReason::Slower => movement == BodyMovement::Moves,
            UnfitReason::Different if !with_different => false,
            UnfitReason::Useless | UnfitReason::Different => {
                movement == BodyMovement::Broken || now < tried.tried_at + tried.excluded_for
            }
        })
    }

    /// Endpoints at which a new request is no better, until the body ends. A different object is
    /// better than a body that does not arrive, but no better than a slow tried: it may be just as
    /// slow.
    pub(super) fn no_better(&self, movement: BodyMovement) -> EndpointSet {
        self.matching(|tried| {
            tried.reason != UnfitReason::Different || movement == BodyMovement::Moves
        })
    }

    fn matching(&self, matches: impl Fn(&TriedEndpoint) -> bool) -> EndpointSet {
        let matching = self.0.iter().filter(|tried| matches(tried));
        matching.fold(EndpointSet::default(), |set, tried| {
            set.with(tried.endpoint)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn useless_endpoint_is_retried_with_growing_waits() {
        let (mut tried_endpoints, mut now) = (TriedEndpoints::default(), Instant::now());
        for waits in [2, 4, 8, 10, 10] {
            tried_endpoints.add(1, UnfitReason::Useless, now);
            let excluded = |now| tried_endpoints.excluded(BodyMovement::Stalled, false, now);
            assert_eq!(excluded(now + second(waits) / 2), EndpointSet::of(1));
            now += second(waits);
            assert_eq!(excluded(now), EndpointSet::default(), "{waits}");
        }
    }

    #[test]
    fn slower_endpoint_is_not_retried_while_the_body_moves() {
        let (mut tried_endpoints, start) = (TriedEndpoints::default(), Instant::now());
        tried_endpoints.add(1, UnfitReason::Slower, start);
        let excluded = |movement| tried_endpoints.excluded(movement, true, start + second(3_600));
        assert_eq!(excluded(BodyMovement::Moves), EndpointSet::of(1));
        assert_eq!(excluded(BodyMovement::Stalled), EndpointSet::default());
        assert_eq!(excluded(BodyMovement::Broken), EndpointSet::default());
    }

    #[test]
    fn each_endpoint_is_retried_once_for_a_broken_body() {
        let (mut tried_endpoints, start) = (TriedEndpoints::default(), Instant::now());
        for (endpoint, reason) in [
            (1, UnfitReason::Slower),
            (2, UnfitReason::Useless),
            (3, UnfitReason::Different),
        ] {
            tried_endpoints.add(endpoint, reason, start);
        }
        let now = start + second(60);
        tried_endpoints.forget_overdue(now);
        let excluded = |tried_endpoints: &TriedEndpoints, now| {
            tried_endpoints.excluded(BodyMovement::Broken, true, now)
        };
        assert_eq!(excluded(&tried_endpoints, now), EndpointSet::default());
        tried_endpoints.add(1, UnfitReason::Useless, now);
        tried_endpoints.add(2, UnfitReason::Useless, now);
        tried_endpoints.add(3, UnfitReason::Different, now);
        let all = EndpointSet::of(1).with(2).with(3);
        assert_eq!(excluded(&tried_endpoints, now + second(3_600)), all);
    }

    #[test]
    fn different_object_is_better_only_than_a_stalled_body() {
        let (mut tried_endpoints, now) = (TriedEndpoints::default(), Instant::now());
        tried_endpoints.add(1, UnfitReason::Useless, now);
        tried_endpoints.add(2, UnfitReason::Different, now);
        let both = EndpointSet::of(1).with(2);
        assert_eq!(tried_endpoints.no_better(BodyMovement::Moves), both);
        assert_eq!(
            tried_endpoints.no_better(BodyMovement::Stalled),
            EndpointSet::of(1)
        );
        tried_endpoints.add(1, UnfitReason::Different, now);
        assert_eq!(
            tried_endpoints.no_better(BodyMovement::Stalled),
            EndpointSet::default()
        );
    }
}
