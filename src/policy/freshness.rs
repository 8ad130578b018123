//! Is a held object fresh, stale but usable, or past use? RFC 9111 §4.2 as pure arithmetic.

use std::time::{Duration, Instant};

use super::Lifetime;
use super::directives::RequestDirectives;

/// What may be done with a held object now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it and refresh behind the viewer (RFC 5861 §3).
    Stale,
    /// Serve it only if the origin fails (RFC 5861 §4).
    IfError,
    /// Do not serve it without asking the origin.
    Dead,
}

/// Judges a lifetime at a moment.
pub fn freshness(lifetime: &Lifetime, now: Instant) -> Freshness {
    let Some(staleness) = lifetime.age(now).checked_sub(lifetime.fresh_for) else {
        return Freshness::Fresh;
    };
    // "response_is_fresh = (freshness_lifetime > current_age)": equal is stale already.
    if staleness < lifetime.stale_while_revalidate {
        Freshness::Stale
    } else if staleness < lifetime.stale_if_error {
        Freshness::IfError
    } else {
        Freshness::Dead
    }
}

/// The same, for a viewer whose directives are honoured (RFC 9111 §5.2.1).
pub fn freshness_for(
    lifetime: &Lifetime,
    directives: &RequestDirectives,
    now: Instant,
) -> Freshness {
    let plain = freshness(lifetime, now);
    let age = lifetime.age(now);
    let too_old = directives.max_age.is_some_and(|max_age| age > max_age);
    let too_brief = directives
        .min_fresh
        .is_some_and(|wanted| lifetime.fresh_for < age.saturating_add(wanted));
    match plain {
        _ if directives.no_cache || directives.no_store || too_old || too_brief => {
            if plain == Freshness::Dead {
                Freshness::Dead
            } else {
                Freshness::IfError
            }
        }
        Freshness::Stale | Freshness::IfError => {
            let staleness = age.saturating_sub(lifetime.fresh_for);
            match directives.max_stale {
                Some(None) => Freshness::Stale,
                Some(Some(accepted)) if staleness <= accepted => Freshness::Stale,
                _ => plain,
            }
        }
        Freshness::Fresh | Freshness::Dead => plain,
    }
}

/// Seconds of freshness left; negative once stale. For `Cache-Status`.
pub fn ttl_seconds(lifetime: &Lifetime, now: Instant) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let age = lifetime.age(now);
    match lifetime.fresh_for.checked_sub(age) {
        Some(left) => seconds(left),
        None => -seconds(age.saturating_sub(lifetime.fresh_for)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifetime(now: Instant) -> Lifetime {
        Lifetime {
            fresh_for: Duration::from_secs(2),
            stale_while_revalidate: Duration::from_secs(2),
            stale_if_error: Duration::from_mins(1),
            ..Lifetime::none(now)
        }
    }

    fn after(seconds: u64) -> Freshness {
        let now = Instant::now();
        freshness(&lifetime(now), now + Duration::from_secs(seconds))
    }

    #[test]
    fn fresh_then_stale_then_only_on_error_then_dead() {
        assert_eq!(after(1), Freshness::Fresh);
        assert_eq!(after(3), Freshness::Stale);
        assert_eq!(after(4), Freshness::IfError);
        assert_eq!(after(61), Freshness::IfError);
        assert_eq!(after(62), Freshness::Dead);
    }

    #[test]
    fn a_lifetime_that_is_used_up_is_stale() {
        assert_eq!(after(2), Freshness::Stale);
    }

    #[test]
    fn ttl_turns_negative() {
        let now = Instant::now();
        let held = lifetime(now);
        assert_eq!(ttl_seconds(&held, now), 2);
        assert_eq!(ttl_seconds(&held, now + Duration::from_secs(5)), -3);
    }

    #[test]
    fn a_viewer_may_ask_for_newer_and_settle_for_older() {
        let now = Instant::now();
        let held = lifetime(now);
        let at = |seconds| now + Duration::from_secs(seconds);
        let fresh_only = RequestDirectives {
            no_cache: true,
            ..RequestDirectives::default()
        };
        let any_age = RequestDirectives {
            max_stale: Some(None),
            ..RequestDirectives::default()
        };
        let young = RequestDirectives {
            max_age: Some(Duration::ZERO),
            ..RequestDirectives::default()
        };
        assert_eq!(freshness_for(&held, &fresh_only, at(1)), Freshness::IfError);
        assert_eq!(freshness_for(&held, &any_age, at(30)), Freshness::Stale);
        assert_eq!(freshness_for(&held, &young, at(1)), Freshness::IfError);
        assert_eq!(freshness_for(&held, &young, at(90)), Freshness::Dead);
    }
}
