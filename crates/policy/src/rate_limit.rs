//! Rate limits of routes, and the token buckets that hold viewers to them. Times are arguments: in
//! nanoseconds since any moment, the same for all calls.

/// The rate limits of a route. By default there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RateLimits {
    /// For each client by itself.
    pub per_client: Option<RateLimit>,
    /// For all requests to the route together.
    pub per_route: Option<RateLimit>,
}

impl RateLimits {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.per_client.is_none() && self.per_route.is_none()
    }
}

/// How much may be requested.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RateLimit {
    /// How many requests.
    pub requests: Option<Allowance>,
    /// How many bytes of bodies.
    pub bytes: Option<Allowance>,
}

/// A rate, and how much may come at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowance {
    /// What is added per second. More than 0.
    pub per_second: f64,
    /// What there is after a pause. At least 1.
    pub burst: f64,
}

/// Longest time for which bytes that were sent keep a client out, beyond the time in which its
/// burst comes back.
const DEBT_NS_MAX: u64 = 60 * NS_PER_SECOND;
const NS_PER_SECOND: u64 = 1_000_000_000;

impl Allowance {
    /// The time in which so much is added.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a millionth more or less does not matter; a cast of a float saturates"
    )]
    fn nanoseconds_of(self, amount: f64) -> u64 {
        (amount * NS_PER_SECOND as f64 / self.per_second) as u64
    }

    /// What is added in this time.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a millionth more or less does not matter"
    )]
    fn amount_in(self, nanoseconds: u64) -> f64 {
        nanoseconds as f64 / NS_PER_SECOND as f64 * self.per_second
    }

    fn burst_ns(self) -> u64 {
        self.nanoseconds_of(self.burst)
    }

    /// The time in which the largest debt and the burst come back.
    fn debt_ns_max(self) -> u64 {
        self.burst_ns().saturating_add(DEBT_NS_MAX)
    }
}

/// Why a request is over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedQuantity {
    /// Too many requests.
    Requests,
    /// The responses before it had too many bytes.
    Bytes,
}

impl LimitedQuantity {
    /// All, in the order of [`LimitedQuantity::index`].
    pub const ALL: [LimitedQuantity; 2] = [LimitedQuantity::Requests, LimitedQuantity::Bytes];

    /// A dense index for tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitedQuantity::Requests => "requests",
            LimitedQuantity::Bytes => "bytes",
        }
    }
}

/// A request that is over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitExceeded {
    /// What there was too much of.
    pub quantity: LimitedQuantity,
    /// Nanoseconds until the limit may admit the next request.
    pub wait_ns: u64,
}

/// What a client, or all clients of a route, may still request: two token buckets. Each is its own
/// clock: the time at which it will be full again says how much is missing in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateBuckets {
    requests_full_at: u64,
    bytes_full_at: u64,
}

impl RateBuckets {
    /// When both are full: from then on they say no more than new ones.
    pub fn full_at(&self) -> u64 {
        self.requests_full_at.max(self.bytes_full_at)
    }

    /// Whether the limit admits a request now. Takes nothing.
    pub fn check(&mut self, limit: &RateLimit, now: u64) -> Result<(), LimitExceeded> {
        let exceeded = |quantity, wait_ns| LimitExceeded { quantity, wait_ns };
        if let Some(requests) = limit.requests {
            let empty_at = now.saturating_add(requests.burst_ns());
            if self.requests_full_at > empty_at.saturating_add(NS_PER_SECOND) {
                // Emptier than empty: a reload has changed the limit. The clocks of two requests
                // differ by less than a second.
                self.requests_full_at = empty_at;
            }
            let missing_ns = self.requests_full_at.saturating_sub(now);
            let needed_ns = missing_ns.saturating_add(requests.nanoseconds_of(1.0));
            let wait_ns = needed_ns.saturating_sub(requests.burst_ns());
            if wait_ns > 0 {
                return Err(exceeded(LimitedQuantity::Requests, wait_ns));
            }
        }
        if let Some(bytes) = limit.bytes {
            // A request is admitted while anything is left: how much it will take is not known.
            let missing_ns = self.bytes_full_at.saturating_sub(now);
            if missing_ns >= bytes.burst_ns() {
                let wait_ns = missing_ns - bytes.burst_ns() + 1;
                return Err(exceeded(LimitedQuantity::Bytes, wait_ns));
            }
        }
        Ok(())
    }

    /// Takes one request.
    pub fn take_request(&mut self, limit: &RateLimit, now: u64) {
        if let Some(requests) = limit.requests {
            let full_at = self.requests_full_at.max(now);
            self.requests_full_at = full_at.saturating_add(requests.nanoseconds_of(1.0));
        }
    }

    /// Takes bytes that were sent. The bucket may owe bytes afterwards, for at most 60 s.
    pub fn take_bytes(&mut self, limit: &RateLimit, count: u64, now: u64) {
        if let Some(bytes) = limit.bytes {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let taken_ns = bytes.nanoseconds_of(count as f64);
            let full_at = self.bytes_full_at.max(now).saturating_add(taken_ns);
            self.bytes_full_at = full_at.min(now.saturating_add(bytes.debt_ns_max()));
        }
    }

    /// Goes on with another limit: as many requests and bytes are missing as before.
    pub fn change_limit(&mut self, before: &RateLimit, after: &RateLimit, now: u64) {
        let rescaled = |full_at: u64, before: Option<Allowance>, after: Option<Allowance>| {
            let missing_ns = full_at.saturating_sub(now);
            match (before, after) {
                (Some(before), Some(after)) => {
                    now.saturating_add(after.nanoseconds_of(before.amount_in(missing_ns)))
                }
                _ => full_at,
            }
        };
        self.requests_full_at = rescaled(self.requests_full_at, before.requests, after.requests);
        self.bytes_full_at = rescaled(self.bytes_full_at, before.bytes, after.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = NS_PER_SECOND;

    fn requests(per_second: f64, burst: f64) -> RateLimit {
        RateLimit {
            requests: Some(Allowance { per_second, burst }),
            bytes: None,
        }
    }

    fn bytes(per_second: f64, burst: f64) -> RateLimit {
        RateLimit {
            requests: None,
            bytes: Some(Allowance { per_second, burst }),
        }
    }

    /// How many of `tries` requests at this time are admitted.
    fn admitted(buckets: &mut RateBuckets, limit: &RateLimit, tries: usize, now: u64) -> usize {
        let mut count = 0;
        for _ in 0..tries {
            if buckets.check(limit, now).is_ok() {
                buckets.take_request(limit, now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn admits_burst_then_rate() {
        let (mut buckets, limit) = (RateBuckets::default(), requests(50.0, 100.0));
        let begin = 7 * SECOND;
        assert_eq!(admitted(&mut buckets, &limit, 1000, begin), 100);
        assert_eq!(admitted(&mut buckets, &limit, 1000, begin + SECOND), 50);
        let half = begin + SECOND + SECOND / 2;
        assert_eq!(admitted(&mut buckets, &limit, 1000, half), 25);
        // After a pause of any length there is a burst, and no more.
        let hour = begin + 3600 * SECOND;
        assert_eq!(admitted(&mut buckets, &limit, 1000, hour), 100);
    }

    /// A counter that begins anew each minute would admit twice as much around its beginning.
    #[test]
    fn hundred_minutes_at_the_limit_admit_exactly_the_rate() {
        let (mut buckets, limit) = (RateBuckets::default(), requests(7.0, 7.0));
        let mut total = 0;
        for millisecond in 0..100 * 60 * 1000 {
            total += admitted(&mut buckets, &limit, 1, millisecond * SECOND / 1000);
        }
        assert!((7 * 6000..=7 * 6000 + 7).contains(&total), "{total}");
    }

    #[test]
    fn refused_request_takes_nothing_and_is_told_when_to_return() {
        let (mut buckets, limit) = (RateBuckets::default(), requests(0.5, 1.0));
        assert_eq!(admitted(&mut buckets, &limit, 1, SECOND), 1);
        for _ in 0..1000 {
            let exceeded = buckets.check(&limit, SECOND + 1).unwrap_err();
            assert_eq!(exceeded.quantity, LimitedQuantity::Requests);
            assert_eq!(exceeded.wait_ns, 2 * SECOND - 1);
        }
        assert_eq!(admitted(&mut buckets, &limit, 10, 3 * SECOND), 1);
    }

    #[test]
    fn bytes_beyond_the_burst_keep_requests_out_until_they_are_paid() {
        let (mut buckets, limit) = (RateBuckets::default(), bytes(1000.0, 5000.0));
        buckets.take_bytes(&limit, 4999, SECOND);
        assert_eq!(buckets.check(&limit, SECOND), Ok(()));
        buckets.take_bytes(&limit, 10_001, SECOND);
        let exceeded = buckets.check(&limit, SECOND).unwrap_err();
        assert_eq!(exceeded.quantity, LimitedQuantity::Bytes);
        assert_eq!(exceeded.wait_ns.div_ceil(SECOND), 11);
        assert!(buckets.check(&limit, 11 * SECOND).is_err());
        assert_eq!(buckets.check(&limit, 11 * SECOND + 1), Ok(()));
    }

    #[test]
    fn one_huge_response_keeps_nobody_out_for_hours() {
        let (mut buckets, limit) = (RateBuckets::default(), bytes(1000.0, 10_000.0));
        buckets.take_bytes(&limit, 1 << 50, SECOND);
        assert!(buckets.check(&limit, 60 * SECOND).is_err());
        assert_eq!(buckets.check(&limit, 62 * SECOND), Ok(()));
    }

    /// The clock of a request is read before that of another one.
    #[test]
    fn earlier_time_gains_nothing() {
        let (mut buckets, limit) = (RateBuckets::default(), requests(1.0, 2.0));
        assert_eq!(admitted(&mut buckets, &limit, 9, 10 * SECOND), 2);
        assert_eq!(admitted(&mut buckets, &limit, 9, 9 * SECOND), 0);
        assert_eq!(admitted(&mut buckets, &limit, 9, 11 * SECOND), 1);
    }

    /// An operator raises the limit of a CDN that is over it: it must not wait as before.
    #[test]
    fn raised_limit_admits_at_its_own_rate_at_once() {
        let (mut buckets, low, high) = (
            RateBuckets::default(),
            requests(1.0, 60.0),
            requests(100.0, 200.0),
        );
        assert_eq!(admitted(&mut buckets, &low, 100, SECOND), 60);
        let mut unknowing = buckets;
        assert_eq!(admitted(&mut unknowing, &high, 100, SECOND), 0);
        let soon = SECOND + SECOND / 10;
        assert_eq!(admitted(&mut unknowing, &high, 100, soon), 10);
        // 60 of 200 are used.
        buckets.change_limit(&low, &high, SECOND);
        assert_eq!(admitted(&mut buckets, &high, 1000, SECOND), 140);
    }

    #[test]
    fn debt_in_bytes_stays_the_same_at_another_rate() {
        let (mut buckets, low, high) = (
            RateBuckets::default(),
            bytes(1000.0, 5000.0),
            bytes(100_000.0, 5000.0),
        );
        buckets.take_bytes(&low, 35_000, SECOND);
        assert!(buckets.check(&low, 30 * SECOND).is_err());
        buckets.change_limit(&low, &high, SECOND);
        // 30,000 bytes beyond the burst, at 100,000 per second.
        assert!(buckets.check(&high, SECOND + SECOND / 4).is_err());
        assert_eq!(buckets.check(&high, SECOND + SECOND / 3), Ok(()));
    }

    #[test]
    fn quantity_without_a_limit_is_not_counted() {
        let mut buckets = RateBuckets::default();
        buckets.take_bytes(&requests(1.0, 1.0), 1 << 40, SECOND);
        buckets.take_request(&bytes(1.0, 1.0), SECOND);
        assert_eq!(buckets, RateBuckets::default());
    }
}
