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
mod window;

use std::time::Duration;

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
