//! Deprioritizes endpoints that have sent a rejected version of a manifest.

use std::time::{Duration, Instant};

use seawall_policy::EndpointSet;

/// The first time, an endpoint is avoided for this many reload intervals. When it fails again soon
/// after (within as long as it was avoided), it is avoided for twice as long as the last time …
const AVOIDED_INTERVALS: u32 = 5;
/// … but no longer than this.
const AVOIDED_MAX: Duration = Duration::from_mins(10);

/// An avoided endpoint: until when, and how long it is avoided in all (`span`). When it fails while
/// it is avoided, the same span begins anew.
pub(super) struct AvoidedEndpoint {
    endpoint: usize,
    until: Instant,
    span: Duration,
}

impl AvoidedEndpoint {
    /// Records a rejected version from an endpoint. True if the endpoint was not avoided before.
    pub(super) fn record_rejection(
        avoided: &mut Vec<AvoidedEndpoint>,
        endpoint: usize,
        (reload_interval_max, now): (Duration, Instant),
    ) -> bool {
        let least = reload_interval_max * AVOIDED_INTERVALS;
        let is_it = |before: &AvoidedEndpoint| before.endpoint == endpoint;
        let before = avoided.iter().position(is_it);
        let before = before.map(|at| avoided.swap_remove(at));
        let is_new = before.as_ref().is_none_or(|before| now >= before.until);
        let span = before.map_or(least, |before| before.next_span(least, now));
        avoided.push(AvoidedEndpoint {
            endpoint,
            until: now + span,
            span,
        });
        is_new
    }

    pub(super) fn still_avoided(avoided: &[AvoidedEndpoint], now: Instant) -> EndpointSet {
        let until_later = avoided.iter().filter(|avoided| avoided.until > now);
        let none = EndpointSet::default();
        until_later.fold(none, |set, avoided| set.with(avoided.endpoint))
    }

    /// The duration for which it is avoided now; `least` is the shortest.
    fn next_span(&self, least: Duration, now: Instant) -> Duration {
        if now < self.until {
            self.span
        } else if now < self.until + self.span {
            (self.span * 2).min(AVOIDED_MAX)
        } else {
            least
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_rejection_doubles_the_avoidance_time() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let avoided = |span| AvoidedEndpoint {
            endpoint: 0,
            until: now,
            span,
        };
        let again = |span, later| avoided(span).next_span(20 * second, now + later);
        assert_eq!(again(20 * second, second), 40 * second);
        assert_eq!(again(20 * second, 21 * second), 20 * second);
        assert_eq!(again(400 * second, second), AVOIDED_MAX);
        let meanwhile = AvoidedEndpoint {
            until: now + second,
            ..avoided(40 * second)
        };
        assert_eq!(meanwhile.next_span(20 * second, now), 40 * second);
    }

    #[test]
    fn avoidance_is_tracked_per_endpoint() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut avoided = Vec::new();
        assert!(AvoidedEndpoint::record_rejection(
            &mut avoided,
            0,
            (second, now)
        ));
        assert!(AvoidedEndpoint::record_rejection(
            &mut avoided,
            1,
            (second, now + second)
        ));
        assert!(!AvoidedEndpoint::record_rejection(
            &mut avoided,
            0,
            (second, now + second)
        ));
        let both = EndpointSet::of(0).with(1);
        assert_eq!(AvoidedEndpoint::still_avoided(&avoided, now + second), both);
        assert_eq!(avoided.len(), 2);
        let later = AvoidedEndpoint::still_avoided(&avoided, now + 6 * second);
        assert_eq!(later, EndpointSet::default());
    }
}
