//! May this answer be stored, and for how long is it good?
//!
//! The order of authority: what forbids storing; then the route's override; then the origin's own
//! words; then the table of kinds ([`Rule`] names each step of it). Live manifests are never kept
//! longer than their text allows.

mod rule;
mod table;

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode, header};

use super::directives::{ResponseDirectives, Targeted, seconds};
use super::vary::Vary;
use super::{Now, Route, fields};
use crate::manifest::{Kind, ManifestInfo};

pub use rule::Rule;
use rule::RuledDuration;

/// A low-latency playlist that is looked after may be so many parts old: parts may be late.
const PARTS_TENDED: u32 = 3;

/// For how long an object is good: its freshness counts from the moment the origin made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// When it arrived.
    pub received: Instant,
    /// How old it was then (RFC 9111 §4.2.3 `corrected_initial_age`).
    pub age_received: Duration,
    /// Fresh until its age is so much.
    pub fresh_for: Duration,
    /// May be served stale for so long after that, while it is refreshed.
    pub stale_while_revalidate: Duration,
    /// May be served stale for so long after that, when the origin fails.
    pub stale_if_error: Duration,
    /// What decided how long it is fresh.
    pub rule: Rule,
}

impl Lifetime {
    /// Good for nothing: for answers that are passed on and never held.
    pub fn none(now: Instant) -> Lifetime {
        Lifetime {
            received: now,
            age_received: Duration::ZERO,
            fresh_for: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            rule: Rule::Nothing,
        }
    }

    /// RFC 9111 §4.2.3 `current_age`.
    pub fn age(&self, now: Instant) -> Duration {
        let resident = now.saturating_duration_since(self.received);
        self.age_received.saturating_add(resident)
    }

    /// Freshness that is left.
    pub fn fresh_left(&self, now: Instant) -> Duration {
        self.fresh_for.saturating_sub(self.age(now))
    }

    /// How old it may be served while it is looked after: looks come when the next version is due, which
    /// may be late. Where the origin wants it shorter than half a segment (in whole seconds, as it has
    /// to say it), that stands. Where it forbids stale use (`s-maxage`, `must-revalidate`,
    /// `proxy-revalidate`), it is looked at while it is fresh.
    pub fn tended_for(&self, facts: Option<&ManifestInfo>) -> Duration {
        const SECOND: Duration = Duration::from_secs(1);
        let windows = self.fresh_for.saturating_add(self.stale_while_revalidate);
        let target = facts.and_then(ManifestInfo::segment_max);
        let part = facts.and_then(|facts| facts.part_target);
        match (target, part) {
            _ if self.stale_while_revalidate.is_zero() => self.fresh_for,
            (_, Some(part)) if self.fresh_for >= part / 2 => windows.max(PARTS_TENDED * part),
            (Some(target), None) if self.fresh_for + SECOND > target / 2 => {
                windows.max(target * 3 / 2)
            }
            _ => windows,
        }
    }

    /// From birth to the end of the last window in which it may be served.
    pub fn usable_for(&self) -> Duration {
        self.fresh_for
            .saturating_add(self.stale_while_revalidate.max(self.stale_if_error))
    }
}

/// What is to be done with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Store it.
    Store(Lifetime),
    /// The origin failed: everyone who waits is told so, what is held stays, nothing is stored.
    Failure {
        /// How long the origin wants to be left alone, where it says so.
        wait: Option<Duration>,
        /// Its own words may be shown to all; else only its status.
        open: bool,
    },
    /// The same, in its own words, for as long as they are good: the route wants it so.
    LastingFailure(Lifetime),
    /// The object is gone (404, 410), by an answer that may not be stored but is everybody's.
    Gone,
    /// The origin refused this very request: only requests that are the same to it share that.
    Refused,
    /// Neither store nor share it.
    Pass(UncacheableReason),
}

/// Why an answer is neither stored nor shared. A word in `Cache-Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UncacheableReason {
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// `Set-Cookie`.
    SetCookie,
    /// The request carried `Authorization` and the answer does not say that it may be shared.
    Authorized,
    /// `Vary: *`.
    VaryAll,
    /// A key or licence, or a clock.
    Kind,
    /// The end of the body is the end of the connection: it cannot be proven whole.
    EndUnproven,
    /// A part that nobody asked for.
    Partial,
    /// Nothing says for how long it is good.
    NoLifetime,
    /// A manifest in a content coding that cannot be read here: nothing watches over it.
    Coding,
    /// It fits neither the store nor what fills may hold.
    TooLarge,
}

impl UncacheableReason {
    /// The word used in `Cache-Status` and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            UncacheableReason::NoStore => "no-store",
            UncacheableReason::Private => "private",
            UncacheableReason::SetCookie => "set-cookie",
            UncacheableReason::Authorized => "authorized",
            UncacheableReason::VaryAll => "vary-all",
            UncacheableReason::Kind => "kind",
            UncacheableReason::EndUnproven => "end-unproven",
            UncacheableReason::Partial => "partial",
            UncacheableReason::NoLifetime => "no-lifetime",
            UncacheableReason::Coding => "coding",
            UncacheableReason::TooLarge => "too-large",
        }
    }
}

/// An answer to a plain GET, as far as storing is concerned.
pub struct ResponseFacts<'a> {
    /// Status.
    pub status: StatusCode,
    /// As the origin sent them.
    pub headers: &'a HeaderMap,
    /// What it really carries.
    pub kind: Kind,
    /// What a manifest says about itself.
    pub facts: Option<&'a ManifestInfo>,
    /// The end of the body can be told from a failure.
    pub end_is_proven: bool,
    /// The request carried `Authorization` to the origin.
    pub authorized: bool,
    /// How long the origin took to answer; nothing where it held the answer back until there was
    /// something to answer with: that is as old as its arrival.
    pub delay: Duration,
    /// What it is besides the manifest as it is now.
    pub standing: ManifestContext,
    /// The target duration of what a multivariant playlist lists, where any is known.
    pub children: Option<Duration>,
    /// What is not there now is computed to be there in so long.
    pub due_in: Option<Duration>,
}

/// What an answer is besides what there is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestContext {
    /// Nothing.
    Plain,
    /// The state of a playlist that was asked for (LL-HLS); it will be that for ever.
    State,
    /// A manifest that says it has ended, and was live a moment ago: an encoder that stops may start
    /// again.
    JustEnded,
}

/// Decides.
pub fn storage(answer: &ResponseFacts<'_>, route: &Route, now: Now) -> Storage {
    let (directives, targeted) = ResponseDirectives::of(answer.headers);
    let secret = secret(answer, &directives);
    let shareable = matches!(secret, None | Some(UncacheableReason::NoStore));
    if is_failure(answer.status) {
        let chosen = answer.headers.contains_key(header::CONTENT_ENCODING)
            || Vary::of(answer.headers) != Vary::Nothing;
        // What may not be stored is not kept for those who come within the back-off either.
        let open = secret.is_none() && !chosen;
        let lasting = failure_freshness(answer, (&directives, targeted), route, now);
        if let Some(lifetime) = lasting.filter(|_| open) {
            return Storage::LastingFailure(lifetime);
        }
        let wait = retry_after(answer.headers, now);
        return Storage::Failure { wait, open };
    }
    if is_negative(answer.status) && secret == Some(UncacheableReason::NoStore) {
        return Storage::Gone;
    }
    if !answer.status.is_success()
        && shareable
        && !may_be_stored(answer, (&directives, targeted), now)
    {
        return Storage::Refused;
    }
    if let Some(reason) = secret.or_else(|| unfit(answer, route)) {
        return Storage::Pass(reason);
    }
    let explicit = explicit_freshness(answer.headers, &directives, targeted, now);
    let has_validator = [header::ETAG, header::LAST_MODIFIED]
        .iter()
        .any(|name| answer.headers.contains_key(name));
    let RuledDuration(fresh_for, rule) = match table::fresh_for(answer, route, explicit, now) {
        // Good for nothing by itself: what can be confirmed is kept for that, and asked for once.
        Some(_) if directives.no_cache => RuledDuration(Duration::ZERO, Rule::NoCache),
        None if directives.no_cache && has_validator => {
            RuledDuration(Duration::ZERO, Rule::NoCache)
        }
        Some(term) => term,
        None => return Storage::Pass(UncacheableReason::NoLifetime),
    };
    let (stale_while_revalidate, stale_if_error) =
        table::stale_windows(answer, &directives, &route.lifetimes, fresh_for);
    Storage::Store(Lifetime {
        received: now.mono,
        age_received: age_received(answer, now),
        fresh_for,
        stale_while_revalidate,
        stale_if_error,
        rule,
    })
}

/// What forbids that two viewers see the same answer.
fn secret(
    answer: &ResponseFacts<'_>,
    directives: &ResponseDirectives,
) -> Option<UncacheableReason> {
    // RFC 9111 §3.5: an answer to an authorized request is shared only where it says so.
    let may_share =
        directives.public || directives.s_maxage.is_some() || directives.must_revalidate;
    if directives.private {
        Some(UncacheableReason::Private)
    } else if answer.headers.contains_key(header::SET_COOKIE) {
        Some(UncacheableReason::SetCookie)
    } else if answer.authorized && !may_share {
        Some(UncacheableReason::Authorized)
    } else if Vary::of(answer.headers) == Vary::Everything {
        Some(UncacheableReason::VaryAll)
    } else if directives.no_store {
        Some(UncacheableReason::NoStore)
    } else {
        None
    }
}

fn unfit(answer: &ResponseFacts<'_>, route: &Route) -> Option<UncacheableReason> {
    if answer.status == StatusCode::PARTIAL_CONTENT {
        Some(UncacheableReason::Partial)
    } else if answer.kind == Kind::Clock || (answer.kind == Kind::Key && !route.store_keys) {
        Some(UncacheableReason::Kind)
    } else if !answer.end_is_proven {
        Some(UncacheableReason::EndUnproven)
    } else {
        None
    }
}

/// For how long a failure is good by its own words, where the route keeps such.
fn failure_freshness(
    answer: &ResponseFacts<'_>,
    (directives, targeted): (&ResponseDirectives, Targeted),
    route: &Route,
    now: Now,
) -> Option<Lifetime> {
    if !route.store_errors || directives.no_cache || !answer.end_is_proven {
        return None;
    }
    let lifetime = Lifetime {
        age_received: age_received(answer, now),
        fresh_for: explicit_freshness(answer.headers, directives, targeted, now)?,
        rule: Rule::Origin,
        ..Lifetime::none(now.mono)
    };
    Some(lifetime).filter(|lifetime| !lifetime.fresh_left(now.mono).is_zero())
}

/// Answers that say something about the origin and nothing about the object.
pub fn is_failure(status: StatusCode) -> bool {
    let of_the_request = matches!(
        status,
        StatusCode::NOT_IMPLEMENTED | StatusCode::LOOP_DETECTED
    );
    (status.is_server_error() && !of_the_request)
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}

/// Answers that say that the object is not there (yet). 425 is what DASH servers say of a patch
/// to come (ISO/IEC 23009-1 §5.15.4); that it is about early data is out of the question: none is
/// sent.
fn is_negative(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::TOO_EARLY
    )
}

/// RFC 9111 §4.2.1, in its order: `s-maxage`, `max-age`, `Expires` less `Date`.
fn explicit_freshness(
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    targeted: Targeted,
    now: Now,
) -> Option<Duration> {
    let told = directives.s_maxage.or(directives.max_age);
    if told.is_some() || targeted == Targeted::Yes {
        return told;
    }
    let expires = headers.get(header::EXPIRES)?;
    // RFC 9111 §5.3: an invalid date, "0" above all, means already expired.
    let Some(expires) = expires.to_str().ok().and_then(date) else {
        return Some(Duration::ZERO);
    };
    let made = dated(headers, header::DATE).unwrap_or(now.wall);
    Some(expires.duration_since(made).unwrap_or(Duration::ZERO))
}

fn date(text: &str) -> Option<std::time::SystemTime> {
    fields::http_date(text)
}

fn dated(headers: &HeaderMap, name: header::HeaderName) -> Option<std::time::SystemTime> {
    headers.get(name)?.to_str().ok().and_then(date)
}

/// Is it an answer other than 200 that RFC 9110 §15.1 lets a cache store, and that says for how
/// long?
fn may_be_stored(
    answer: &ResponseFacts<'_>,
    (directives, targeted): (&ResponseDirectives, Targeted),
    now: Now,
) -> bool {
    let known = matches!(
        answer.status.as_u16(),
        300 | 301 | 302 | 307 | 308 | 405 | 414 | 501
    );
    let told = || explicit_freshness(answer.headers, directives, targeted, now).is_some();
    is_negative(answer.status) || (known && told())
}

/// RFC 9111 §4.2.3, with one difference: the apparent age (our clock less `Date`) counts only
/// where another cache stood between. Straight from the origin it measures nothing but the
/// difference of two clocks, and would make a playlist of two seconds stale on arrival.
fn age_received(answer: &ResponseFacts<'_>, now: Now) -> Duration {
    let told = answer.headers.get(header::AGE);
    let relayed = told.is_some() || answer.headers.contains_key(header::VIA);
    let apparent = dated(answer.headers, header::DATE)
        .filter(|_| relayed)
        .and_then(|made| now.wall.duration_since(made).ok())
        .unwrap_or(Duration::ZERO);
    // RFC 9111 §5.1: of a list, the first member counts.
    let told = told.and_then(|age| fields::split(age.as_bytes(), b',').next());
    let told = told.and_then(seconds);
    let corrected = told.unwrap_or(Duration::ZERO).saturating_add(answer.delay);
    corrected.max(apparent)
}

/// How long a failing origin asks to be left alone; bounded, since one wrong header must not take
/// a key off the air.
fn retry_after(headers: &HeaderMap, now: Now) -> Option<Duration> {
    const WAIT_MAX: Duration = Duration::from_secs(10);
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => date(value)?.duration_since(now.wall).ok()?,
    };
    Some(wait.min(WAIT_MAX))
}

#[cfg(test)]
mod tests;
