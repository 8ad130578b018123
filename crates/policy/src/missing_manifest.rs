//! Decides whether a stored live manifest is still served after the origin says that it does not
//! exist, on routes with `manifest_stale_if_missing`.

use std::time::{Duration, Instant};

use http::StatusCode;

use super::Lifetime;
use super::freshness::{Freshness, freshness};

/// Statuses that say that an object does not exist or is forbidden.
pub fn is_absence(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN
    )
}

/// Whether a response says what happened to a manifest that existed a moment ago: it is here,
/// missing, forbidden or elsewhere. Other statuses, such as 204, 206 or 421, indicate a fault of
/// the origin.
pub fn is_conclusive(status: StatusCode, has_location: bool) -> bool {
    let is_refused = matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::PAYMENT_REQUIRED
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
            | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS
    );
    let is_elsewhere =
        status.is_redirection() && status != StatusCode::NOT_MODIFIED && has_location;
    status == StatusCode::OK || is_absence(status) || is_refused || is_elsewhere
}

/// How long the stored manifest is still served: `window` past its freshness, but no longer than
/// after any other failure. `None`: not at all.
pub fn remaining_stale_window(
    stored: &Lifetime,
    window: Duration,
    now: Instant,
) -> Option<Duration> {
    let end = stored.fresh_for.saturating_add(window);
    let remaining = end.saturating_sub(stored.age(now));
    let is_in_window = !window.is_zero() && !remaining.is_zero();
    (is_in_window && freshness(stored, now) != Freshness::Unusable).then_some(remaining)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_conclusive_statuses_decide_about_a_manifest() {
        let says = |status: u16, has_location: bool| {
            is_conclusive(StatusCode::from_u16(status).unwrap(), has_location)
        };
        for status in [200, 401, 403, 404, 410, 451] {
            assert!(says(status, false), "{status}");
        }
        for status in [301, 302, 303, 307, 308] {
            assert!(says(status, true) && !says(status, false), "{status}");
        }
        for status in [204, 205, 206, 300, 304, 400, 416, 421, 425, 500, 501, 508] {
            assert!(!says(status, false), "{status}");
        }
    }

    /// The remaining time for a manifest with two seconds of freshness at an age, given this
    /// window.
    fn remaining(age: u32, window: u32) -> Option<Duration> {
        let now = Instant::now();
        let stored = Lifetime {
            fresh_for: 2 * SECOND,
            stale_if_error: 60 * SECOND,
            ..Lifetime::none(now)
        };
        remaining_stale_window(&stored, window * SECOND, now + age * SECOND)
    }

    #[test]
    fn without_window_missing_manifest_is_not_served() {
        assert_eq!(remaining(1, 0), None);
        assert_eq!(remaining(3, 0), None);
    }

    #[test]
    fn stale_if_missing_window_starts_at_end_of_freshness() {
        assert_eq!(remaining(3, 10), Some(9 * SECOND));
        assert_eq!(remaining(11, 10), Some(SECOND));
        assert_eq!(remaining(12, 10), None);
    }

    #[test]
    fn missing_manifest_is_not_served_once_unusable() {
        assert_eq!(remaining(61, 100), Some(41 * SECOND));
        assert_eq!(remaining(62, 100), None);
    }
}
