//! State machines that judge the endpoints of an origin group by the results of their requests:
//! retry budget, backoff, breaker, ejection, health checks, latency.
//!
//! They take the time and the random number as arguments and contain no clock, randomness, lock or
//! I/O. The owner of a state machine locks it and decides what counts as an error.

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod ejection;
pub mod health;
pub mod latency_window;
pub(super) mod log_throttle;
mod window;

use std::time::Duration;

/// Identifies what a request was for, to tell a failing URL or directory from a failing endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FailureSubject {
    /// A hash of the host and path. The query is left out because it may be a viewer's token.
    pub(crate) url: u64,
    /// A hash of the host and the path up to its last slash, which is usually a channel or a
    /// rendition.
    pub(crate) directory: u64,
}

impl FailureSubject {
    pub(crate) fn of(path: &str, host: Option<&[u8]>) -> FailureSubject {
        let hasher = ahash::RandomState::with_seeds(5, 6, 7, 8);
        let end = path.rfind('/').map_or(0, |slash| slash + 1);
        FailureSubject {
            url: hasher.hash_one((path, host)),
            directory: hasher.hash_one((&path[..end], host)),
        }
    }
}

/// How a request failed, ordered by how much the failure says about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointFault {
    /// No connection: any request would have failed.
    Unreachable,
    /// No response in time.
    Silent,
    /// A gateway error (502, 503, 504), or a connection reset.
    Gateway,
    /// Probably an error of the requested object: another 5xx, 429, or an invalid response.
    Url,
}

impl EndpointFault {
    /// The endpoint sent nothing.
    pub(crate) fn is_silence(self) -> bool {
        matches!(self, EndpointFault::Unreachable | EndpointFault::Silent)
    }

    pub(crate) fn is_of_url(self) -> bool {
        self == EndpointFault::Url
    }
}

/// `random` times a duration. A `random` outside 0 to 1 counts as 1.
fn portion(whole: Duration, random: f64) -> Duration {
    let part = Duration::try_from_secs_f64(whole.as_secs_f64() * random);
    part.map_or(whole, |part| part.min(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_portion_never_exceeds_the_duration() {
        let whole = Duration::from_secs(2);
        assert_eq!(portion(whole, 0.0), Duration::ZERO);
        assert_eq!(portion(whole, 0.25), Duration::from_millis(500));
        for random in [1.0, 1.5, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(portion(whole, random), whole);
        }
    }
}
