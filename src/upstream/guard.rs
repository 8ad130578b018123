//! May this endpoint be asked, and is it worth asking again? State machines that judge an origin by
//! what came of asking it.
//!
//! They are told the time and given their chance as arguments: no clock, no randomness, no lock, no
//! I/O. Whoever owns one puts it under a lock and says what counts as an error.

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod ejection;
pub mod health;
pub mod pace;
pub(super) mod sparing;
mod window;

use std::time::Duration;

/// What a request is for, as far as that says whose failure a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct FailureSubject {
    /// A hash of its host and path. Its query may be a viewer's token.
    pub(in crate::upstream) url: u64,
    /// The same of the path up to its last slash: a channel or a rendition, mostly.
    pub(in crate::upstream) directory: u64,
}

impl FailureSubject {
    pub(in crate::upstream) fn of(path: &str, host: Option<&[u8]>) -> FailureSubject {
        let hasher = ahash::RandomState::with_seeds(5, 6, 7, 8);
        let end = path.rfind('/').map_or(0, |slash| slash + 1);
        FailureSubject {
            url: hasher.hash_one((path, host)),
            directory: hasher.hash_one((&path[..end], host)),
        }
    }
}

/// How a request failed, by how much that says of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum EndpointFault {
    /// No connection: whatever was asked for, it would have failed.
    Unreachable,
    /// No answer in time.
    Silent,
    /// A gateway's error (502, 503, 504), or a connection that was reset.
    Gateway,
    /// An error of what was asked for, more likely: another 5xx, 429, a broken answer.
    Url,
}

impl EndpointFault {
    /// Nothing was heard of the endpoint.
    pub(in crate::upstream) fn is_silence(self) -> bool {
        matches!(self, EndpointFault::Unreachable | EndpointFault::Silent)
    }

    pub(in crate::upstream) fn is_of_url(self) -> bool {
        self == EndpointFault::Url
    }
}

/// A part of a duration; `random` is from 0 to 1, and anything else counts as 1.
fn portion(whole: Duration, random: f64) -> Duration {
    let part = Duration::try_from_secs_f64(whole.as_secs_f64() * random);
    part.map_or(whole, |part| part.min(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_is_never_more_than_the_whole() {
        let whole = Duration::from_secs(2);
        assert_eq!(portion(whole, 0.0), Duration::ZERO);
        assert_eq!(portion(whole, 0.25), Duration::from_millis(500));
        for random in [1.0, 1.5, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(portion(whole, random), whole);
        }
    }
}
