//! What do `Cache-Control` and its targeted relatives say? Parsing only; decisions are made
//! elsewhere.

mod structured;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::header::{CACHE_CONTROL, CDN_CACHE_CONTROL, PRAGMA};
use http::{HeaderMap, HeaderName};

use super::fields;

static SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// Larger lifetimes are taken for this one (RFC 9111 §1.2.2).
const SECONDS_MAX: u64 = 1 << 31;

/// Response directives that matter to a shared cache. Unknown ones are ignored; a malformed or
/// repeated lifetime counts as the stricter reading (RFC 9111 §4.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a directive that is there or not; the RFC allows every combination"
)]
pub struct ResponseDirectives {
    /// A directive field was present at all.
    pub present: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `private` (the qualified form counts as unqualified).
    pub private: bool,
    /// `no-cache` (the qualified form counts as unqualified).
    pub no_cache: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`, said in so many words. What `s-maxage` implies
    /// is not in here: see [`ResponseDirectives::stale_while_revalidate_or`].
    pub must_revalidate: bool,
    /// `proxy-revalidate`: the same for shared caches, but no permission to share what an authorized
    /// request brought (RFC 9111 §3.5 names `must-revalidate` alone).
    pub proxy_revalidate: bool,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `s-maxage`.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate`.
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error`.
    pub stale_if_error: Option<Duration>,
}

impl ResponseDirectives {
    /// Reads the most targeted field present and well-formed: `CDN-Cache-Control` (RFC 9213), then
    /// `Surrogate-Control`, then `Cache-Control`; a targeted one replaces `Cache-Control` and
    /// `Expires`. `targeted` in the result tells whether it was one.
    pub fn of(headers: &HeaderMap) -> (ResponseDirectives, Targeted) {
        if let Some(directives) = Self::from_cdn(headers) {
            return (directives, Targeted::Yes);
        }
        if let Some(directives) = Self::from_surrogate(headers) {
            return (directives, Targeted::Yes);
        }
        let mut directives = ResponseDirectives {
            present: headers.contains_key(CACHE_CONTROL),
            ..ResponseDirectives::default()
        };
        for element in fields::elements(headers, CACHE_CONTROL) {
            let (name, value) = fields::name_and_value(element);
            directives.set(name, Argument::of(value), DuplicateRule::Strictest);
        }
        (directives, Targeted::No)
    }

    /// How long it may be used stale while it is refreshed: the origin's word, else `default`.
    ///
    /// `must-revalidate`, `proxy-revalidate` and `no-cache` forbid any stale use (RFC 9111
    /// §4.2.4). `s-maxage` alone forbids it too (§5.2.2.10: it has the meaning of
    /// `proxy-revalidate`), but where the origin sends a stale window next to it, the window
    /// stands: RFC 5861 is an explicit permission, and an origin that writes both for a shared
    /// cache means both.
    pub fn stale_while_revalidate_or(&self, default: Duration) -> Duration {
        self.stale_window(self.stale_while_revalidate, default)
    }

    /// How long it may be used stale when the origin fails; by the same rules as
    /// [`ResponseDirectives::stale_while_revalidate_or`].
    pub fn stale_if_error_or(&self, default: Duration) -> Duration {
        self.stale_window(self.stale_if_error, default)
    }

    /// Is every stale use forbidden, whatever the route's defaults?
    pub fn stale_forbidden(&self) -> bool {
        let implied = self.s_maxage.is_some()
            && self.stale_while_revalidate.is_none()
            && self.stale_if_error.is_none();
        self.must_revalidate || self.proxy_revalidate || self.no_cache || implied
    }

    fn stale_window(&self, said: Option<Duration>, default: Duration) -> Duration {
        if self.must_revalidate || self.proxy_revalidate || self.no_cache {
            return Duration::ZERO;
        }
        match said {
            Some(window) => window,
            None if self.s_maxage.is_some() => Duration::ZERO,
            None => default,
        }
    }

    /// `CDN-Cache-Control`, unless it is absent, empty or not a structured dictionary
    /// (RFC 9213 §2.1: then it counts as absent).
    fn from_cdn(headers: &HeaderMap) -> Option<ResponseDirectives> {
        let mut directives = ResponseDirectives {
            present: true,
            ..ResponseDirectives::default()
        };
        let mut members = 0_usize;
        for line in headers.get_all(CDN_CACHE_CONTROL) {
            members += structured::dictionary(line.as_bytes(), |name, argument| {
                directives.set(name, argument, DuplicateRule::Last);
            })?;
        }
        (members > 0).then_some(directives)
    }

    /// `Surrogate-Control`, unless it says nothing about caching (it may only announce ESI).
    fn from_surrogate(headers: &HeaderMap) -> Option<ResponseDirectives> {
        let mut directives = ResponseDirectives {
            present: true,
            ..ResponseDirectives::default()
        };
        let mut said = false;
        for element in fields::elements(headers, &SURROGATE_CONTROL) {
            // `max-age=60;abc` is meant for the surrogate called abc, which we are not.
            if fields::split(element, b';').nth(1).is_some() {
                continue;
            }
            let (name, value) = fields::name_and_value(element);
            // `max-age=60+30`: fresh for 60, and 30 more that we do not use.
            let value = value.and_then(|value| value.split(|&byte| byte == b'+').next());
            said |= directives.set(name, Argument::of(value), DuplicateRule::Strictest);
        }
        said.then_some(directives)
    }

    /// Takes note of one directive; false when it is none that matters here.
    fn set(&mut self, name: &[u8], argument: Argument, repeated: DuplicateRule) -> bool {
        let mut buffer = [0; NAME_MAX];
        match lowered(name, &mut buffer) {
            b"no-store" => repeated.flag(&mut self.no_store, argument.restricts()),
            b"private" => repeated.flag(&mut self.private, argument.restricts()),
            b"no-cache" => repeated.flag(&mut self.no_cache, argument.restricts()),
            b"public" => repeated.flag(&mut self.public, argument == Argument::Flag(true)),
            b"must-revalidate" => {
                repeated.flag(&mut self.must_revalidate, argument.restricts());
            }
            b"proxy-revalidate" => {
                repeated.flag(&mut self.proxy_revalidate, argument.restricts());
            }
            b"max-age" => repeated.lifetime(&mut self.max_age, argument),
            b"s-maxage" => repeated.lifetime(&mut self.s_maxage, argument),
            b"stale-while-revalidate" => {
                repeated.lifetime(&mut self.stale_while_revalidate, argument);
            }
            b"stale-if-error" => repeated.lifetime(&mut self.stale_if_error, argument),
            _ => return false,
        }
        true
    }
}

/// Which field the directives came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targeted {
    /// A targeted field: `Expires` is ignored.
    Yes,
    /// `Cache-Control` or nothing.
    No,
}

/// Request directives; only honoured on routes that ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, or `Pragma: no-cache` without `Cache-Control`.
    pub no_cache: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `min-fresh`.
    pub min_fresh: Option<Duration>,
    /// `max-stale`: `Some(None)` is any staleness.
    pub max_stale: Option<Option<Duration>>,
}

impl RequestDirectives {
    /// Reads a request's headers.
    pub fn of(headers: &HeaderMap) -> RequestDirectives {
        let mut directives = RequestDirectives::default();
        if headers.contains_key(CACHE_CONTROL) {
            for element in fields::elements(headers, CACHE_CONTROL) {
                directives.set(element);
            }
        } else {
            // RFC 9111 §5.4: `Pragma` speaks for clients that know no `Cache-Control`.
            directives.no_cache = fields::elements(headers, PRAGMA)
                .any(|element| element.eq_ignore_ascii_case(b"no-cache"));
        }
        directives
    }

    fn set(&mut self, element: &[u8]) {
        let (name, value) = fields::name_and_value(element);
        let argument = Argument::of(value);
        let mut buffer = [0; NAME_MAX];
        match lowered(name, &mut buffer) {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => DuplicateRule::Strictest.lifetime(&mut self.max_age, argument),
            b"min-fresh" => {
                // The longer demand is the stricter one here.
                self.min_fresh = self.min_fresh.max(Some(argument.lifetime()));
            }
            b"max-stale" => self.allow_stale(argument),
            _ => {}
        }
    }

    /// Of several `max-stale` the one that allows least counts.
    fn allow_stale(&mut self, argument: Argument) {
        let allowed = (argument != Argument::Flag(true)).then(|| argument.lifetime());
        self.max_stale = Some(match (self.max_stale.flatten(), allowed) {
            (Some(earlier), Some(later)) => Some(earlier.min(later)),
            (earlier, later) => earlier.or(later),
        });
    }
}

/// What stands behind a directive's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Argument {
    /// Nothing, or a boolean of a structured field.
    Flag(bool),
    /// A count of seconds.
    Seconds(Duration),
    /// Anything else: a list of field names, or something malformed.
    Text,
}

impl Argument {
    /// Reads a token or a quoted string; RFC 9111 §5.2 has recipients accept either form.
    fn of(value: Option<&[u8]>) -> Argument {
        let Some(value) = value else {
            return Argument::Flag(true);
        };
        let bare = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""))
            .unwrap_or(value);
        seconds(bare).map_or(Argument::Text, Argument::Seconds)
    }

    /// As the argument of a directive that forbids something: said, unless it is a plain "false".
    fn restricts(self) -> bool {
        self != Argument::Flag(false)
    }

    /// As the argument of a lifetime: what is not a count of seconds is none at all, because
    /// invalid freshness information counts as stale (RFC 9111 §4.2.1).
    fn lifetime(self) -> Duration {
        match self {
            Argument::Seconds(lifetime) => lifetime,
            Argument::Flag(_) | Argument::Text => Duration::ZERO,
        }
    }
}

/// Which of several mentions of one directive counts?
#[derive(Clone, Copy)]
enum DuplicateRule {
    /// `Cache-Control`: the most restrictive (RFC 9111 §4.2.1).
    Strictest,
    /// Structured dictionaries: the last (RFC 8941 §4.2.2).
    Last,
}

impl DuplicateRule {
    fn flag(self, field: &mut bool, said: bool) {
        *field = match self {
            DuplicateRule::Strictest => *field || said,
            DuplicateRule::Last => said,
        };
    }

    fn lifetime(self, field: &mut Option<Duration>, argument: Argument) {
        let said = argument.lifetime();
        *field = Some(match (self, *field) {
            (DuplicateRule::Strictest, Some(earlier)) => earlier.min(said),
            _ => said,
        });
    }
}

/// `delta-seconds`: digits only, saturating (RFC 9111 §1.2.2).
pub(super) fn seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0_u64, |count, digit| {
        count
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    Some(Duration::from_secs(count.min(SECONDS_MAX)))
}

/// Room for the longest directive name that is known.
const NAME_MAX: usize = 24;

/// A directive's name in lower case; empty when it is longer than any known.
fn lowered<'a>(name: &[u8], buffer: &'a mut [u8; NAME_MAX]) -> &'a [u8] {
    let Some(target) = buffer.get_mut(..name.len()) else {
        return &[];
    };
    target.copy_from_slice(name);
    target.make_ascii_lowercase();
    target
}
