//! Orders the endpoints of a group for a request.
//!
//! Endpoints in good standing come first, by priority, then by the group's balance. The others come
//! last: no request waits for them while another endpoint can answer, and they are still tried when
//! no other is left.

/// How requests are spread over endpoints of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// All to the first in the list; the next only if it fails.
    #[default]
    Failover,
    /// Weighted round robin.
    RoundRobin,
    /// Fewest requests in progress, relative to weight.
    LeastInFlight,
    /// By URL: the same URL goes to the same endpoint while that is in good standing.
    Hash,
}

/// What decides the place of one endpoint in the order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndpointRank {
    /// The endpoint's number: an endpoint keeps its URLs when others join or leave its group.
    pub(crate) number: usize,
    /// Lower values are tried first.
    pub(crate) priority: u8,
    pub(crate) weight: u32,
    pub(crate) in_flight: usize,
    /// In good standing, and not avoided by this request.
    pub(crate) is_preferred: bool,
}

/// Endpoint indices in the order to try them. `balance_hash` is a hash of the request, `rotation`
/// the rotation state.
pub(crate) fn order(
    ranks: &[EndpointRank],
    balance: Balance,
    balance_hash: u64,
    rotation: &mut WeightedRotation,
) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..ranks.len()).collect();
    if balance == Balance::RoundRobin {
        rotation.turn(ranks);
    }
    let balance_key = |index: usize| {
        let rank = &ranks[index];
        let weight = f64::from(rank.weight.max(1));
        match balance {
            Balance::Failover => 0.0,
            Balance::RoundRobin => -rotation.credit(index),
            #[expect(clippy::cast_precision_loss, reason = "counts of requests under way")]
            Balance::LeastInFlight => (rank.in_flight + 1) as f64 / weight,
            Balance::Hash => distance(balance_hash, rank.number, weight),
        }
    };
    let preference_key = |index: &usize| (!ranks[*index].is_preferred, ranks[*index].priority);
    indices.sort_by(|one, other| {
        preference_key(one)
            .cmp(&preference_key(other))
            .then_with(|| balance_key(*one).total_cmp(&balance_key(*other)))
    });
    if balance == Balance::RoundRobin
        && let Some(&first) = indices.first()
    {
        rotation.spend(first, ranks);
    }
    indices
}

/// Weighted rendezvous hashing: each endpoint draws a number per URL, and the lowest wins. An
/// endpoint that leaves moves only its own URLs.
fn distance(balance_hash: u64, number: usize, weight: f64) -> f64 {
    let hasher = ahash::RandomState::with_seeds(balance_hash, 1, 2, 3);
    // 53 bits make a fraction that is neither 0 nor 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let drawn = ((hasher.hash_one(number) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -drawn.ln() / weight
}

/// Smooth weighted round robin: each endpoint gains its weight with every request, and the chosen
/// one pays the sum. Heavy endpoints are interleaved with light ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct WeightedRotation {
    credits: Vec<i64>,
}

impl WeightedRotation {
    fn turn(&mut self, ranks: &[EndpointRank]) {
        self.credits.resize(ranks.len(), 0);
        let is_competing = is_competing(ranks);
        for (index, rank) in ranks.iter().enumerate() {
            if is_competing(rank) {
                self.credits[index] += i64::from(rank.weight.max(1));
            } else {
                // An endpoint that returns gets no credit for the time it was away.
                self.credits[index] = 0;
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "sums of weights")]
    fn credit(&self, index: usize) -> f64 {
        self.credits[index] as f64
    }

    fn spend(&mut self, index: usize, ranks: &[EndpointRank]) {
        let is_competing = is_competing(ranks);
        let weights = ranks.iter().filter(|rank| is_competing(rank));
        self.credits[index] -= weights
            .map(|rank| i64::from(rank.weight.max(1)))
            .sum::<i64>();
    }
}

/// The endpoints that compete for the first attempt: the preferred ones, then those with the lowest
/// priority value.
fn is_competing(ranks: &[EndpointRank]) -> impl Fn(&EndpointRank) -> bool {
    let key = |rank: &EndpointRank| (!rank.is_preferred, rank.priority);
    let best = ranks.iter().map(key).min();
    move |rank| Some(key(rank)) == best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(priority: u8, weight: u32) -> EndpointRank {
        EndpointRank {
            number: 0,
            priority,
            weight,
            in_flight: 0,
            is_preferred: true,
        }
    }

    fn first(
        ranks: &[EndpointRank],
        balance: Balance,
        balance_hash: u64,
        rotation: &mut WeightedRotation,
    ) -> usize {
        order(ranks, balance, balance_hash, rotation)[0]
    }

    #[test]
    fn failover_keeps_configured_order_within_a_priority() {
        let all = [rank(1, 1), rank(0, 1), rank(0, 1)];
        let order = order(&all, Balance::Failover, 0, &mut WeightedRotation::default());
        assert_eq!(order, [1, 2, 0]);
    }

    #[test]
    fn doubtful_endpoint_comes_last_despite_its_priority() {
        let mut all = [rank(0, 1), rank(1, 1), rank(2, 1)];
        all[0].is_preferred = false;
        for balance in [
            Balance::Failover,
            Balance::RoundRobin,
            Balance::LeastInFlight,
            Balance::Hash,
        ] {
            let order = order(&all, balance, 7, &mut WeightedRotation::default());
            assert_eq!(order, [1, 2, 0], "{balance:?}");
        }
    }

    #[test]
    fn round_robin_follows_weights_and_interleaves() {
        let all = [rank(0, 3), rank(0, 1), rank(9, 5)];
        let mut rotation = WeightedRotation::default();
        let mut turn = || first(&all, Balance::RoundRobin, 0, &mut rotation);
        let turns: Vec<usize> = (0..8).map(|_| turn()).collect();
        assert_eq!(turns, [0, 0, 1, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn returning_endpoint_gets_no_extra_round_robin_turns() {
        let mut all = [rank(0, 1), rank(0, 1)];
        let mut rotation = WeightedRotation::default();
        all[1].is_preferred = false;
        for _ in 0..100 {
            assert_eq!(first(&all, Balance::RoundRobin, 0, &mut rotation), 0);
        }
        all[1].is_preferred = true;
        let turns = (0..10).map(|_| first(&all, Balance::RoundRobin, 0, &mut rotation));
        let second = turns.filter(|&index| index == 1).count();
        assert!((4..=6).contains(&second), "{second}");
    }

    #[test]
    fn least_in_flight_respects_weights() {
        let mut all = [rank(0, 1), rank(0, 4)];
        all[0].in_flight = 2;
        all[1].in_flight = 7;
        let mut rotation = WeightedRotation::default();
        assert_eq!(first(&all, Balance::LeastInFlight, 0, &mut rotation), 1);
        all[1].in_flight = 20;
        assert_eq!(first(&all, Balance::LeastInFlight, 0, &mut rotation), 0);
    }

    #[test]
    fn hash_keeps_url_on_its_endpoint_when_another_leaves() {
        let mut all = [rank(0, 1), rank(0, 1), rank(0, 2)];
        for (number, rank) in all.iter_mut().enumerate() {
            rank.number = number;
        }
        let mut without = all;
        without[1].is_preferred = false;
        let remaining = [all[0], all[2]];
        let mut rotation = WeightedRotation::default();
        let mut shares = [0_u32; 3];
        for balance_hash in 0..4000 {
            let index = first(&all, Balance::Hash, balance_hash, &mut rotation);
            shares[index] += 1;
            if index != 1 {
                assert_eq!(
                    first(&without, Balance::Hash, balance_hash, &mut rotation),
                    index
                );
                let place = first(&remaining, Balance::Hash, balance_hash, &mut rotation);
                assert_eq!(remaining[place].number, index);
            }
        }
        assert!(
            (850..1150).contains(&shares[0]) && (1850..2150).contains(&shares[2]),
            "{shares:?}"
        );
    }
}
