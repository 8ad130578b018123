//! Which endpoints were requested for a body in vain, and when may they be requested again? Pure: the clock is an
//! argument.

use std::time::{Duration, Instant};

use super::AVOIDED;
use crate::policy::EndpointSet;

/// An endpoint that was of no use is requested again after so long: what it does not have it may be about to get. Each
/// further time it takes twice as long, up to [`AVOIDED`].
const USELESS_FOR: Duration = Duration::from_secs(2);

/// What came of requesting an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It had nothing, or no more than one that has stopped.
    Useless,
    /// It has the same, and was no further than one that goes on.
    Slower,
    /// It has another object under this name.
    Different,
}

/// How the endpoint stands that delivers the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Bytes come, be it slowly.
    Moves,
    /// None come, or so few that it is as good as that.
    Stands,
    /// None will come.
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
    /// What was known of it before no longer counts.
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

    /// What was long ago no longer counts.
    pub(super) fn forget_overdue(&mut self, now: Instant) {
        self.0.retain(|one| now < one.at + one.left_out);
    }

    /// Who is not to be requested now, and of those with another object only if that counts. Bytes from one that was no
    /// faster are only needed when none come. Of one that is broken each is asked for the rest once.
    pub(super) fn left_out(
        &self,
        progress: Progress,
        with_different: bool,
        now: Instant,
    ) -> EndpointSet {
        self.those(|one| match one.loss {
            Loss::Slower => progress == Progress::Moves,
            Loss::Different if !with_different => false,
            Loss::Useless | Loss::Different => {
                progress == Progress::Broken || now < one.at + one.left_out
            }
        })
    }

    /// Whoever asks anew is not better off with these, as long as the body lasts. Another object is better than one that
    /// does not come, and no better than one that comes slowly: it may well come as slowly.
    pub(super) fn no_better(&self, progress: Progress) -> EndpointSet {
        self.those(|one| one.loss != Loss::Different || progress == Progress::Moves)
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
    fn requests_one_that_had_nothing_less_and_less_often() {
        let (mut losers, mut now) = (Losers::default(), Instant::now());
        for waits in [2, 4, 8, 10, 10] {
            losers.add(1, Loss::Useless, now);
            let left_out = |now| losers.left_out(Progress::Stands, false, now);
            assert_eq!(left_out(now + second(waits) / 2), EndpointSet::of(1));
            now += second(waits);
            assert_eq!(left_out(now), EndpointSet::default(), "{waits}");
        }
    }

    #[test]
    fn never_requests_one_again_that_was_no_faster_as_long_as_bytes_come() {
        let (mut losers, start) = (Losers::default(), Instant::now());
        losers.add(1, Loss::Slower, start);
        let left_out = |progress| losers.left_out(progress, true, start + second(3_600));
        assert_eq!(left_out(Progress::Moves), EndpointSet::of(1));
        assert_eq!(left_out(Progress::Stands), EndpointSet::default());
        assert_eq!(left_out(Progress::Broken), EndpointSet::default());
    }

    #[test]
    fn requests_each_once_for_what_is_broken() {
        let (mut losers, start) = (Losers::default(), Instant::now());
        for (endpoint, loss) in [(1, Loss::Slower), (2, Loss::Useless), (3, Loss::Different)] {
            losers.add(endpoint, loss, start);
        }
        let now = start + second(60);
        losers.forget_overdue(now);
        let left_out = |losers: &Losers, now| losers.left_out(Progress::Broken, true, now);
        assert_eq!(left_out(&losers, now), EndpointSet::default());
        losers.add(1, Loss::Useless, now);
        losers.add(2, Loss::Useless, now);
        losers.add(3, Loss::Different, now);
        let all = EndpointSet::of(1).with(2).with(3);
        assert_eq!(left_out(&losers, now + second(3_600)), all);
    }

    #[test]
    fn another_object_is_better_only_than_what_does_not_come() {
        let (mut losers, now) = (Losers::default(), Instant::now());
        losers.add(1, Loss::Useless, now);
        losers.add(2, Loss::Different, now);
        let both = EndpointSet::of(1).with(2);
        assert_eq!(losers.no_better(Progress::Moves), both);
        assert_eq!(losers.no_better(Progress::Stands), EndpointSet::of(1));
        losers.add(1, Loss::Different, now);
        assert_eq!(losers.no_better(Progress::Stands), EndpointSet::default());
    }
}
