//! Decides whether a stored response is fresh, stale but usable, or unusable (RFC 9111 §4.2).

use std::time::{Duration, Instant};

use http::header::{CACHE_CONTROL, CDN_CACHE_CONTROL, DATE, EXPIRES};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::directives::{RequestDirectives, seconds};
use super::{Lifetime, fields};

/// How a stored response may be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it and refresh it in the background (RFC 5861 §3).
    Stale,
    /// Serve it only if the origin fails (RFC 5861 §4).
    IfError,
    /// Do not serve it without a request to the origin.
    Unusable,
}

/// The freshness at a given time.
pub fn freshness(lifetime: &Lifetime, now: Instant) -> Freshness {
    let Some(staleness) = lifetime.age(now).checked_sub(lifetime.fresh_for) else {
        return Freshness::Fresh;
    };
    // "response_is_fresh = (freshness_lifetime > current_age)": equal is already stale.
    if staleness < lifetime.stale_while_revalidate {
        Freshness::Stale
    } else if staleness < lifetime.stale_if_error {
        Freshness::IfError
    } else {
        Freshness::Unusable
    }
}

/// The same for a viewer whose directives are honoured (RFC 9111 §5.2.1).
pub fn freshness_for(
    lifetime: &Lifetime,
    directives: &RequestDirectives,
    now: Instant,
) -> Freshness {
    let by_response = freshness(lifetime, now);
    let age = lifetime.age(now);
    let too_old = directives.max_age.is_some_and(|max_age| age > max_age);
    let too_brief = directives
        .min_fresh
        .is_some_and(|min_fresh| lifetime.fresh_for < age.saturating_add(min_fresh));
    if by_response == Freshness::Unusable {
        return Freshness::Unusable;
    }
    if directives.no_cache || directives.no_store || too_old || too_brief {
        return Freshness::IfError;
    }
    let staleness = age.saturating_sub(lifetime.fresh_for);
    let accepts_stale = match directives.max_stale {
        None => false,
        Some(accepted) => accepted.is_none_or(|accepted| staleness <= accepted),
    };
    if by_response == Freshness::IfError && accepts_stale {
        return Freshness::Stale;
    }
    by_response
}

/// Remaining freshness in seconds; negative once stale. For `Cache-Status`.
pub fn ttl_seconds(lifetime: &Lifetime, now: Instant) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let age = lifetime.age(now);
    match lifetime.fresh_for.checked_sub(age) {
        Some(remaining) => seconds(remaining),
        None => -seconds(age.saturating_sub(lifetime.fresh_for)),
    }
}

/// How long the age and the remaining freshness stay the same in whole seconds.
pub fn seconds_unchanged_for(lifetime: &Lifetime, now: Instant) -> Duration {
    let age = lifetime.age(now);
    let until_older = until_next_second(age);
    let until_less_fresh = match lifetime.fresh_for.checked_sub(age) {
        Some(remaining) => past_second(remaining),
        None => until_next_second(age.saturating_sub(lifetime.fresh_for)),
    };
    until_older.min(until_less_fresh)
}

/// What is above whole seconds.
pub fn past_second(duration: Duration) -> Duration {
    Duration::from_nanos(duration.subsec_nanos().into())
}

fn until_next_second(duration: Duration) -> Duration {
    Duration::from_secs(1).saturating_sub(past_second(duration))
}

/// The fields that state freshness to downstream caches and players.
pub static FRESHNESS_FIELDS_SENT: [HeaderName; 2] = [CACHE_CONTROL, CDN_CACHE_CONTROL];

/// The fields from which freshness is computed.
pub static FRESHNESS_READ: [HeaderName; 4] = [CACHE_CONTROL, CDN_CACHE_CONTROL, EXPIRES, DATE];

/// Extends the freshness that a manifest with a refresher states. The shield serves such a manifest
/// after the origin's lifetime has passed, until the next version is due. With the origin's fields,
/// a downstream cache would take it for stale and request it again each time. The replaced fields
/// state `remaining` more seconds at the given `age`.
///
/// Only passed lifetimes above zero are replaced, and no field that forbids reuse. Returns all of
/// [`FRESHNESS_FIELDS_SENT`], or `None` if none needs to be replaced.
pub fn restated(stored: &HeaderMap, age: u64, remaining: u64) -> Option<HeaderMap> {
    let until = age.saturating_add(remaining);
    let mut sent = HeaderMap::new();
    for name in &FRESHNESS_FIELDS_SENT {
        if let Some(value) = extended(stored, name, age, until) {
            sent.insert(name, value);
        }
    }
    if let Some(value) = override_expires(stored, age, until) {
        sent.insert(CACHE_CONTROL, value);
    }
    if sent.is_empty() {
        return None;
    }
    for name in &FRESHNESS_FIELDS_SENT {
        if !sent.contains_key(name) {
            for value in stored.get_all(name) {
                sent.append(name, value.clone());
            }
        }
    }
    Some(sent)
}

/// States an object of this age as stale, whatever lifetime the origin gave it: after a soft purge
/// no downstream cache and no player may take it for fresh. Returns all of
/// [`FRESHNESS_FIELDS_SENT`].
pub fn used_up(stored: &HeaderMap, age: u64) -> HeaderMap {
    let mut sent = HeaderMap::new();
    for name in &FRESHNESS_FIELDS_SENT {
        let must_be_there = *name == CACHE_CONTROL;
        if !must_be_there && !stored.contains_key(name) {
            continue;
        }
        let elements = fields::elements(stored, name).filter(|element| !lifetime_name(element));
        let mut text = elements.collect::<Vec<_>>().join(&b", "[..]);
        if !text.is_empty() {
            text.extend_from_slice(b", ");
        }
        // Equal to the age: used up.
        text.extend_from_slice(format!("max-age={age}").as_bytes());
        sent.extend(
            HeaderValue::try_from(text)
                .ok()
                .map(|value| (name.clone(), value)),
        );
    }
    sent
}

/// The field with its expired lifetimes replaced; `None` if it has none.
fn extended(stored: &HeaderMap, name: &HeaderName, age: u64, until: u64) -> Option<HeaderValue> {
    let mut text: Vec<u8> = Vec::new();
    let mut changed = false;
    for element in fields::elements(stored, name) {
        if forbids_reuse(element) {
            return None;
        }
        if !text.is_empty() {
            text.extend_from_slice(b", ");
        }
        match lifetime(element).filter(|lifetime| (1..=age).contains(lifetime)) {
            Some(_) => {
                let (name, _) = fields::name_and_value(element);
                text.extend_from_slice(name);
                text.extend_from_slice(format!("={until}").as_bytes());
                changed = true;
            }
            None => text.extend_from_slice(element),
        }
    }
    HeaderValue::try_from(text).ok().filter(|_| changed)
}

/// `Expires` has passed and no `max-age` overrides it (RFC 9111 §5.3): adds a `max-age`.
fn override_expires(stored: &HeaderMap, age: u64, until: u64) -> Option<HeaderValue> {
    let expires = fields::date(stored, EXPIRES)?;
    let lifetime = expires.duration_since(fields::date(stored, DATE)?).ok()?;
    let is_used_up = (1..=age).contains(&lifetime.as_secs());
    let mut text = Vec::new();
    for element in fields::elements(stored, CACHE_CONTROL) {
        if lifetime_name(element) || forbids_reuse(element) {
            return None;
        }
        text.extend_from_slice(element);
        text.extend_from_slice(b", ");
    }
    text.extend_from_slice(format!("max-age={until}").as_bytes());
    HeaderValue::try_from(text).ok().filter(|_| is_used_up)
}

/// The seconds of a `max-age` or `s-maxage`.
fn lifetime(element: &[u8]) -> Option<u64> {
    let (_, value) = fields::name_and_value(element);
    let stated = seconds(value.filter(|_| lifetime_name(element))?)?;
    Some(stated.as_secs())
}

fn lifetime_name(element: &[u8]) -> bool {
    let (name, _) = fields::name_and_value(element);
    name.eq_ignore_ascii_case(b"max-age") || name.eq_ignore_ascii_case(b"s-maxage")
}

fn forbids_reuse(element: &[u8]) -> bool {
    const WORDS: [&[u8]; 3] = [b"no-store", b"no-cache", b"private"];
    let (name, _) = fields::name_and_value(element);
    WORDS.iter().any(|word| name.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The restated fields at an age of 5 s, with 2 s left.
    fn restated_lines(fields: &[(HeaderName, &'static str)]) -> Vec<String> {
        let fields = fields.iter().cloned();
        let stored = fields.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let sent = restated(&stored.collect(), 5, 2).unwrap_or_default();
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        sent.iter().map(line).collect()
    }

    #[test]
    fn used_up_max_age_is_restated_as_age_plus_time_remaining() {
        for (said, expected) in [
            ("max-age=3", "max-age=7"),
            (
                "public, Max-Age=5, s-maxage=60",
                "public, Max-Age=7, s-maxage=60",
            ),
            ("s-maxage=1,max-age=2", "s-maxage=7, max-age=7"),
            (
                "max-age=3, x=\"a, max-age=1\"",
                "max-age=7, x=\"a, max-age=1\"",
            ),
        ] {
            let expected = format!("cache-control: {expected}");
            assert_eq!(
                restated_lines(&[(CACHE_CONTROL, said)]),
                [expected],
                "{said}"
            );
        }
        let both = [
            (CACHE_CONTROL, "max-age=60"),
            (CDN_CACHE_CONTROL, "max-age=3"),
        ];
        let expected = ["cdn-cache-control: max-age=7", "cache-control: max-age=60"];
        assert_eq!(restated_lines(&both), expected);
    }

    #[test]
    fn fresh_or_no_reuse_cache_control_is_left_unchanged() {
        for said in [
            "max-age=6",
            "max-age=0",
            "max-age=soon",
            "public",
            "no-cache, max-age=3",
            "private, max-age=3",
            "max-age=3, no-store",
        ] {
            assert_eq!(restated_lines(&[(CACHE_CONTROL, said)]), [""; 0], "{said}");
        }
        assert_eq!(restated_lines(&[]), [""; 0]);
    }

    #[test]
    fn used_up_expires_is_overridden_by_max_age() {
        let date = (DATE, "Sun, 06 Nov 1994 08:49:37 GMT");
        let at = |text| (EXPIRES, text);
        let used_up = at("Sun, 06 Nov 1994 08:49:40 GMT");
        let of = |expires: &(HeaderName, &'static str), said| {
            restated_lines(&[date.clone(), expires.clone(), (CACHE_CONTROL, said)])
        };
        assert_eq!(
            restated_lines(&[date.clone(), used_up.clone()]),
            ["cache-control: max-age=7"]
        );
        assert_eq!(of(&used_up, "public"), ["cache-control: public, max-age=7"]);
        for (expires, said) in [
            (&used_up, "max-age=0"),
            (&used_up, "no-cache"),
            (&at("Sun, 06 Nov 1994 08:50:40 GMT"), "public"),
            (&at("Sun, 06 Nov 1994 08:49:37 GMT"), "public"),
            (&at("0"), "public"),
        ] {
            assert_eq!(of(expires, said), [""; 0], "{expires:?} {said}");
        }
    }

    #[test]
    fn used_up_object_is_stale_for_every_cache_downstream() {
        let lines = |fields: &[(HeaderName, &'static str)]| {
            let fields = fields.iter().cloned();
            let stored = fields.map(|(name, value)| (name, HeaderValue::from_static(value)));
            let sent = used_up(&stored.collect(), 5);
            let line = |(name, value): (&HeaderName, &HeaderValue)| {
                format!("{name}: {}", value.to_str().unwrap())
            };
            sent.iter().map(line).collect::<Vec<_>>()
        };
        let expires = (EXPIRES, "Sun, 06 Nov 2094 08:49:40 GMT");
        assert_eq!(lines(&[]), ["cache-control: max-age=5"]);
        assert_eq!(lines(&[expires]), ["cache-control: max-age=5"]);
        let said = (CACHE_CONTROL, "public, s-maxage=90, max-age=60");
        assert_eq!(
            lines(std::slice::from_ref(&said)),
            ["cache-control: public, max-age=5"]
        );
        assert_eq!(
            lines(&[said, (CDN_CACHE_CONTROL, "max-age=600")]),
            [
                "cache-control: public, max-age=5",
                "cdn-cache-control: max-age=5"
            ]
        );
    }

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
    fn freshness_goes_from_fresh_to_stale_to_if_error_to_unusable() {
        assert_eq!(after(1), Freshness::Fresh);
        assert_eq!(after(3), Freshness::Stale);
        assert_eq!(after(4), Freshness::IfError);
        assert_eq!(after(61), Freshness::IfError);
        assert_eq!(after(62), Freshness::Unusable);
    }

    #[test]
    fn object_is_stale_exactly_at_end_of_lifetime() {
        assert_eq!(after(2), Freshness::Stale);
    }

    #[test]
    fn ttl_is_negative_after_expiry() {
        let now = Instant::now();
        let stored_lifetime = lifetime(now);
        assert_eq!(ttl_seconds(&stored_lifetime, now), 2);
        assert_eq!(
            ttl_seconds(&stored_lifetime, now + Duration::from_secs(5)),
            -3
        );
    }

    #[test]
    fn age_and_ttl_are_unchanged_until_the_first_passes_a_second() {
        let now = Instant::now();
        let millis = Duration::from_millis;
        for (fresh_for, after, expected) in [
            (2000, 0, 0),
            (2000, 300, 700),
            (2500, 300, 200),
            (2500, 600, 400),
            // Stale since 1100 and 600 ms.
            (2000, 3100, 900),
            (2500, 3100, 400),
        ] {
            let stored = Lifetime {
                fresh_for: millis(fresh_for),
                ..lifetime(now)
            };
            let at = now + millis(after);
            let unchanged = seconds_unchanged_for(&stored, at);
            assert_eq!(unchanged, millis(expected), "{fresh_for} after {after}");
            let seconds = |at| (stored.age(at).as_secs(), ttl_seconds(&stored, at));
            if let Some(last) = unchanged.checked_sub(Duration::from_nanos(1)) {
                assert_eq!(seconds(at + last), seconds(at));
            }
        }
    }

    #[test]
    fn request_directives_tighten_or_relax_freshness() {
        let now = Instant::now();
        let stored_lifetime = lifetime(now);
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
        assert_eq!(
            freshness_for(&stored_lifetime, &fresh_only, at(1)),
            Freshness::IfError
        );
        assert_eq!(
            freshness_for(&stored_lifetime, &any_age, at(30)),
            Freshness::Stale
        );
        assert_eq!(
            freshness_for(&stored_lifetime, &young, at(1)),
            Freshness::IfError
        );
        assert_eq!(
            freshness_for(&stored_lifetime, &young, at(90)),
            Freshness::Unusable
        );
    }
}
