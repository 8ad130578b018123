//! Decides which endpoints, requested for a body without success, may be requested again. Pure: the
//! clock is an argument.

use std::time::{Duration, Instant};

use super::AVOIDED;
use seawall_policy::EndpointSet;

/// An endpoint that did not help is requested again after this time: it may get the object
/// meanwhile. The time doubles with each further failure, up to [`AVOIDED`].
const USELESS_FOR: Duration = Duration::from_secs(2);

/// Why an endpoint lost a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
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
struct Loser {
    endpoint: usize,
    loss: Loss,
    at: Instant,
    left_out: Duration,
}

/// The endpoints that lost the race for one body.
#[derive(Debug, Default)]
pub(super) struct Losers(Vec<Loser>);

impl Losers {
    /// Replaces what was recorded of the endpoint before.
    pub(super) fn add(&mut self, endpoint: usize, loss: Loss, now: Instant) {
        let mut left_out = match loss {
            Loss::Useless => USELESS_FOR,
            Loss::Slower | Loss::Different => AVOIDED,
        };
        let is_known = |one: &mut Loser| one.endpoint == endpoint;
        for before in self.0.extract_if(.., is_known) {
            if loss == Loss::Useless && before.loss == loss {
                left_out = (before.left_out * 2).min(AVOIDED);
            }
        }
        self.0.push(Loser {
            endpoint,
            loss,
            at: now,
            left_out,
        });
    }

    /// Removes endpoints whose time is over.
    pub(super) fn forget_overdue(&mut self, now: Instant) {
        self.0.retain(|one| now < one.at + one.left_out);
    }

    /// Endpoints not to request now. Endpoints with a different object are included only if
    /// `with_different`. A slower endpoint is requested again only when no bytes arrive. For a
    /// broken body, each endpoint is asked for the rest once.
    pub(super) fn left_out(
        &self,
        progress: BodyMovement,
        with_different: bool,
        now: Instant,
    ) -> EndpointSet {
        self.those(|one| match one.loss {
            Loss::Slower => progress == BodyMovement::Moves,
            Loss::Different if !with_different => false,
            Loss::Useless | Loss::Different => {
                progress == BodyMovement::Broken || now < one.at + one.left_out
            }
        })
    }

    /// Endpoints at which a new request is no better, until the body ends. A different object is
    /// better than a body that does not arrive, but no better than a slow one: it may be just as
    /// slow.
    pub(super) fn no_better(&self, progress: BodyMovement) -> EndpointSet {
        self.those(|one| one.loss != Loss::Different || progress == BodyMovement::Moves)
    }

    fn those(&self, are_meant: impl Fn(&Loser) -> bool) -> EndpointSet {
        let meant = self.0.iter().filter(|one| are_meant(one));
        meant.fold(EndpointSet::default(), |set, one| set.with(one.endpoint))
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
        let (mut losers, mut now) = (Losers::default(), Instant::now());
        for waits in [2, 4, 8, 10, 10] {
            losers.add(1, Loss::Useless, now);
            let left_out = |now| losers.left_out(BodyMovement::Stalled, false, now);
            assert_eq!(left_out(now + second(waits) / 2), EndpointSet::of(1));
            now += second(waits);
            assert_eq!(left_out(now), EndpointSet::default(), "{waits}");
        }
    }

    #[test]
    fn slower_endpoint_is_not_retried_while_the_body_moves() {
        let (mut losers, start) = (Losers::default(), Instant::now());
        losers.add(1, Loss::Slower, start);
        let left_out = |progress| losers.left_out(progress, true, start + second(3_600));
        assert_eq!(left_out(BodyMovement::Moves), EndpointSet::of(1));
        assert_eq!(left_out(BodyMovement::Stalled), EndpointSet::default());
        assert_eq!(left_out(BodyMovement::Broken), EndpointSet::default());
    }

    #[test]
    fn each_endpoint_is_retried_once_for_a_broken_body() {
        let (mut losers, start) = (Losers::default(), Instant::now());
        for (endpoint, loss) in [(1, Loss::Slower), (2, Loss::Useless), (3, Loss::Different)] {
            losers.add(endpoint, loss, start);
        }
        let now = start + second(60);
        losers.forget_overdue(now);
        let left_out = |losers: &Losers, now| losers.left_out(BodyMovement::Broken, true, now);
        assert_eq!(left_out(&losers, now), EndpointSet::default());
        losers.add(1, Loss::Useless, now);
        losers.add(2, Loss::Useless, now);
        losers.add(3, Loss::Different, now);
        let all = EndpointSet::of(1).with(2).with(3);
        assert_eq!(left_out(&losers, now + second(3_600)), all);
    }

    #[test]
    fn different_object_is_better_only_than_a_stalled_body() {
        let (mut losers, now) = (Losers::default(), Instant::now());
        losers.add(1, Loss::Useless, now);
        losers.add(2, Loss::Different, now);
        let both = EndpointSet::of(1).with(2);
        assert_eq!(losers.no_better(BodyMovement::Moves), both);
        assert_eq!(losers.no_better(BodyMovement::Stalled), EndpointSet::of(1));
        losers.add(1, Loss::Different, now);
        assert_eq!(
            losers.no_better(BodyMovement::Stalled),
            EndpointSet::default()
        );
    }
}
