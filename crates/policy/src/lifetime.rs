//! Decides whether a response may be stored, and for how long it is fresh.
//!
//! Precedence: what forbids storing; the route's override; the origin's directives; the table of
//! kinds ([`Rule`] names each step). Live manifests are never fresh for longer than their content
//! allows.

mod rule;
mod table;

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode, header};

use super::directives::{ResponseDirectives, Targeted, seconds};
use super::vary::Vary;
use super::{Now, Route, fields};
use seawall_manifest::{Kind, ManifestInfo};

use rule::FreshnessLifetime;
pub use rule::Rule;

/// A low-latency playlist with a refresher may be this many parts old, because parts may be late.
const REFRESHED_PARTS_MAX: u32 = 3;

/// How long an object may be used. Its age counts from when the origin generated it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// When the response arrived.
    pub received: Instant,
    /// Its age then (RFC 9111 §4.2.3 `corrected_initial_age`).
    pub age_received: Duration,
    /// Freshness lifetime: the response is fresh while its age is less.
    pub fresh_for: Duration,
    /// For how long after that it may be served stale while it is refreshed.
    pub stale_while_revalidate: Duration,
    /// For how long after `fresh_for` it may be served stale when the origin fails.
    pub stale_if_error: Duration,
    /// The rule that set `fresh_for`.
    pub rule: Rule,
}

impl Lifetime {
    /// A lifetime of zero, for responses that are passed on and not stored.
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

    /// Remaining freshness.
    pub fn fresh_remaining(&self, now: Instant) -> Duration {
        self.fresh_for.saturating_sub(self.age(now))
    }

    /// Maximum age at which a manifest with a refresher may be served. The refresher polls when the
    /// next version is due, which may be late. A lifetime from the origin that is shorter than half
    /// a segment stays (one second is allowed for rounding to whole seconds). If the origin forbids
    /// stale use (`s-maxage`, `must-revalidate`, `proxy-revalidate`), the object must be fresh. A
    /// soft purge ends it at once.
    pub fn refreshed_max_age(&self, info: Option<&ManifestInfo>) -> Duration {
        const SECOND: Duration = Duration::from_secs(1);
        if self.stale_while_revalidate.is_zero() || self.rule == Rule::SoftPurge {
            return self.fresh_for;
        }
        let windows = self.fresh_for.saturating_add(self.stale_while_revalidate);
        let segment_duration = info.and_then(ManifestInfo::segment_duration_max);
        let part_duration = info.and_then(ManifestInfo::part_target);
        match (segment_duration, part_duration) {
            (_, Some(part)) if self.fresh_for >= part / 2 => {
                windows.max(REFRESHED_PARTS_MAX * part)
            }
            (Some(segment), None) if self.fresh_for + SECOND > segment / 2 => {
                windows.max(segment * 3 / 2)
            }
            _ => windows,
        }
    }

    /// How long a manifest with a refresher may still be served.
    pub fn refreshed_remaining(&self, info: Option<&ManifestInfo>, now: Instant) -> Duration {
        self.refreshed_max_age(info).saturating_sub(self.age(now))
    }

    /// What a soft purge at this time leaves of it: it is stale from now on. `None`: it may never
    /// be served stale.
    #[must_use]
    pub fn soft_purged(&self, now: Instant) -> Option<Lifetime> {
        let may_be_stale = !self
            .stale_while_revalidate
            .max(self.stale_if_error)
            .is_zero();
        may_be_stale.then(|| Lifetime {
            fresh_for: self.fresh_for.min(self.age(now)),
            rule: Rule::SoftPurge,
            ..self.clone()
        })
    }

    /// Maximum age at which it may be served, fresh or stale.
    pub fn usable_for(&self) -> Duration {
        self.fresh_for
            .saturating_add(self.stale_while_revalidate.max(self.stale_if_error))
    }
}

/// What to do with a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageDecision {
    /// Store it.
    Store(Lifetime),
    /// The origin failed. Waiting viewers get the failure; the stored object stays; nothing is
    /// stored.
    Failure {
        /// The origin's `Retry-After`, if any.
        retry_after: Option<Duration>,
        /// Whether all viewers may see the origin's headers and body, and not only its status.
        is_shareable: bool,
    },
    /// A failure that is served as received for its own lifetime, because the route has
    /// `store_errors`.
    CacheableFailure(Lifetime),
    /// The object does not exist (404, 410, 425), by a response that may be shared but not stored.
    Gone,
    /// The origin refused this request. Only identical requests share the response.
    Refused,
    /// Neither stored nor shared.
    Pass(UncacheableReason),
}

/// Why a response is neither stored nor shared. A token in `Cache-Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UncacheableReason {
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// `Set-Cookie`.
    SetCookie,
    /// The request had `Authorization`, and the response does not allow sharing.
    Authorized,
    /// `Vary: *`.
    VaryAll,
    /// A decryption key or licence, or the answer of a time server.
    Kind,
    /// The body ends with the connection, so it cannot be shown to be complete.
    EndUnproven,
    /// A 206 that was not requested.
    Partial,
    /// Neither the origin nor the rules give a lifetime.
    NoLifetime,
    /// A manifest in a content coding that the shield cannot decode, so it cannot check the
    /// versions.
    Coding,
    /// Too large for the store or for the memory of fills.
    TooLarge,
}

impl UncacheableReason {
    /// The token in `Cache-Status` and logs.
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

/// The parts of a GET response that decide whether it is stored.
pub struct ResponseFacts<'a> {
    /// The status code of the response.
    pub status: StatusCode,
    /// The headers as the origin sent them.
    pub headers: &'a HeaderMap,
    /// The kind by its content.
    pub kind: Kind,
    /// What the manifest states, if it is one.
    pub info: Option<&'a ManifestInfo>,
    /// Whether the framing distinguishes a complete body from a broken one.
    pub end_is_proven: bool,
    /// Whether the request to the origin had `Authorization`.
    pub authorized: bool,
    /// Time from the request to the response. Zero if the origin blocked the request until the
    /// content existed, because then it is new on arrival.
    pub delay: Duration,
    /// How the response relates to the current version of the manifest.
    pub context: ManifestContext,
    /// The target duration of the media playlists that a multivariant playlist lists, if known.
    pub child_target_duration: Option<Duration>,
    /// The computed time until the missing object exists.
    pub due_in: Option<Duration>,
}

/// How a response relates to the current version of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestContext {
    /// It is the current version, or no manifest.
    CurrentVersion,
    /// A requested version of a playlist (LL-HLS). It never changes.
    RequestedVersion,
    /// A manifest that ended and was live a moment ago. An encoder that stops may start again.
    JustEnded,
}

/// Decides what to do with a response.
pub fn storage(response: &ResponseFacts<'_>, route: &Route, now: Now) -> StorageDecision {
    let (directives, targeted) = ResponseDirectives::of(response.headers);
    let explicit = explicit_freshness(response.headers, &directives, targeted, now);
    let unshareable = unshareable_reason(response, &directives);
    if is_origin_failure(response.status) {
        // A failure that may not be stored is not shared during the back-off either.
        let is_shareable = unshareable.is_none() && !is_negotiated(response.headers);
        let may_store = is_shareable && route.store_errors && !directives.no_cache;
        let explicit = explicit.filter(|_| may_store);
        return failure_storage(response, explicit, is_shareable, now);
    }
    if let Some(decision) = absence_or_refusal(response.status, unshareable, explicit) {
        return decision;
    }
    if let Some(reason) = unshareable.or_else(|| unstorable_reason(response, route)) {
        return StorageDecision::Pass(reason);
    }
    match freshness_lifetime(response, &directives, route, explicit, now) {
        Some(freshness) => {
            StorageDecision::Store(lifetime(response, &directives, route, freshness, now))
        }
        None => StorageDecision::Pass(UncacheableReason::NoLifetime),
    }
}

/// What to do with an origin failure. `explicit`: the origin's own lifetime, if the failure may be
/// stored.
fn failure_storage(
    response: &ResponseFacts<'_>,
    explicit: Option<Duration>,
    is_shareable: bool,
    now: Now,
) -> StorageDecision {
    let lifetime = explicit.and_then(|fresh_for| failure_lifetime(response, fresh_for, now));
    match lifetime {
        Some(lifetime) => StorageDecision::CacheableFailure(lifetime),
        None => StorageDecision::Failure {
            retry_after: retry_after(response.headers, now),
            is_shareable,
        },
    }
}

/// Decides about absences that must not be stored (`no-store`) and about refusals. `None`: it is
/// neither.
fn absence_or_refusal(
    status: StatusCode,
    unshareable: Option<UncacheableReason>,
    explicit: Option<Duration>,
) -> Option<StorageDecision> {
    let has_no_store = unshareable == Some(UncacheableReason::NoStore);
    if is_negative(status) && has_no_store {
        return Some(StorageDecision::Gone);
    }
    let is_refusal = !status.is_success() && !may_be_stored(status, explicit);
    let may_wait_for_it = unshareable.is_none() || has_no_store;
    (is_refusal && may_wait_for_it).then_some(StorageDecision::Refused)
}

/// How long a response that may be stored is fresh. With `no-cache` it is stored only to be
/// revalidated.
fn freshness_lifetime(
    response: &ResponseFacts<'_>,
    directives: &ResponseDirectives,
    route: &Route,
    explicit: Option<Duration>,
    now: Now,
) -> Option<FreshnessLifetime> {
    let freshness = table::freshness_lifetime(response, route, explicit, now);
    if !directives.no_cache {
        return freshness;
    }
    let has_validator = [header::ETAG, header::LAST_MODIFIED]
        .iter()
        .any(|name| response.headers.contains_key(name));
    let revalidated = FreshnessLifetime::new(Duration::ZERO, Rule::NoCache);
    (freshness.is_some() || has_validator).then_some(revalidated)
}

fn lifetime(
    response: &ResponseFacts<'_>,
    directives: &ResponseDirectives,
    route: &Route,
    freshness: FreshnessLifetime,
    now: Now,
) -> Lifetime {
    let FreshnessLifetime { duration, rule } = freshness;
    let (stale_while_revalidate, stale_if_error) =
        table::stale_windows(response, directives, &route.lifetimes, duration);
    Lifetime {
        received: now.mono,
        age_received: age_received(response, now),
        fresh_for: duration,
        stale_while_revalidate,
        stale_if_error,
        rule,
    }
}

/// Whether request headers may have selected the response.
fn is_negotiated(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_ENCODING) || Vary::of(headers) != Vary::Nothing
}

/// Why the response must not be stored for other viewers, if so. [`UncacheableReason::NoStore`]
/// comes last: that response may still be shared with viewers that wait for it.
fn unshareable_reason(
    response: &ResponseFacts<'_>,
    directives: &ResponseDirectives,
) -> Option<UncacheableReason> {
    // RFC 9111 §3.5: a response to an authorized request is shared only if it says so.
    let may_share =
        directives.public || directives.s_maxage.is_some() || directives.must_revalidate;
    if directives.private {
        Some(UncacheableReason::Private)
    } else if response.headers.contains_key(header::SET_COOKIE) {
        Some(UncacheableReason::SetCookie)
    } else if response.authorized && !may_share {
        Some(UncacheableReason::Authorized)
    } else if Vary::of(response.headers) == Vary::Everything {
        Some(UncacheableReason::VaryAll)
    } else if directives.no_store {
        Some(UncacheableReason::NoStore)
    } else {
        None
    }
}

/// Why the response cannot be stored for any viewer.
fn unstorable_reason(response: &ResponseFacts<'_>, route: &Route) -> Option<UncacheableReason> {
    if response.status == StatusCode::PARTIAL_CONTENT {
        Some(UncacheableReason::Partial)
    } else if response.kind == Kind::TimeServer
        || (response.kind == Kind::DecryptionKey && !route.store_keys)
    {
        Some(UncacheableReason::Kind)
    } else if !response.end_is_proven {
        Some(UncacheableReason::EndUnproven)
    } else {
        None
    }
}

/// The lifetime of a failure that is stored; `None` if none is left on arrival, or if the body may
/// be incomplete.
fn failure_lifetime(
    response: &ResponseFacts<'_>,
    fresh_for: Duration,
    now: Now,
) -> Option<Lifetime> {
    let lifetime = Lifetime {
        age_received: age_received(response, now),
        fresh_for,
        rule: Rule::Origin,
        ..Lifetime::none(now.mono)
    };
    let is_fresh = !lifetime.fresh_remaining(now.mono).is_zero();
    (response.end_is_proven && is_fresh).then_some(lifetime)
}

/// Statuses that say something about the origin and nothing about the object.
pub fn is_origin_failure(status: StatusCode) -> bool {
    let is_about_request = matches!(
        status,
        StatusCode::NOT_IMPLEMENTED | StatusCode::LOOP_DETECTED
    );
    (status.is_server_error() && !is_about_request)
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}

/// Statuses that say that the object does not exist (yet). DASH servers send 425 for a patch that
/// is not available yet (ISO/IEC 23009-1 §5.15.4). It cannot refer to TLS early data here, because
/// the shield sends none.
fn is_negative(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::TOO_EARLY
    )
}

/// RFC 9111 §4.2.1, in this order: `s-maxage`, `max-age`, `Expires` minus `Date`.
fn explicit_freshness(
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    targeted: Targeted,
    now: Now,
) -> Option<Duration> {
    let max_age = directives.s_maxage.or(directives.max_age);
    if max_age.is_some() || targeted == Targeted::Yes {
        return max_age;
    }
    let expires = headers.get(header::EXPIRES)?;
    // RFC 9111 §5.3: an invalid date, especially "0", means already expired.
    let Some(expires) = expires.to_str().ok().and_then(date) else {
        return Some(Duration::ZERO);
    };
    let generated = dated(headers, header::DATE).unwrap_or(now.wall);
    Some(expires.duration_since(generated).unwrap_or(Duration::ZERO))
}

fn date(text: &str) -> Option<std::time::SystemTime> {
    fields::http_date(text)
}

fn dated(headers: &HeaderMap, name: header::HeaderName) -> Option<std::time::SystemTime> {
    headers.get(name)?.to_str().ok().and_then(date)
}

/// Whether a response other than 200 may be stored: RFC 9110 §15.1 allows it for the status, and
/// the response states a lifetime or is negative.
fn may_be_stored(status: StatusCode, explicit: Option<Duration>) -> bool {
    let allows_storing = matches!(
        status.as_u16(),
        300 | 301 | 302 | 307 | 308 | 405 | 414 | 501
    );
    is_negative(status) || (allows_storing && explicit.is_some())
}

/// RFC 9111 §4.2.3, with one difference: the apparent age (our clock minus `Date`) counts only if
/// another cache is between. Directly from the origin it measures only the difference of two
/// clocks, and could make a two-second playlist stale on arrival.
fn age_received(response: &ResponseFacts<'_>, now: Now) -> Duration {
    let age = response.headers.get(header::AGE);
    let is_relayed = age.is_some() || response.headers.contains_key(header::VIA);
    let apparent = dated(response.headers, header::DATE)
        .filter(|_| is_relayed)
        .and_then(|generated| now.wall.duration_since(generated).ok())
        .unwrap_or(Duration::ZERO);
    // RFC 9111 §5.1: the first member of a list counts.
    let age = age.and_then(|age| fields::split(age.as_bytes(), b',').next());
    let age = age.and_then(seconds);
    let corrected = age.unwrap_or(Duration::ZERO).saturating_add(response.delay);
    corrected.max(apparent)
}

/// The origin's `Retry-After`, bounded, so that one wrong header cannot block a key for long.
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
