//! Parses `Cache-Control`, `CDN-Cache-Control`, `Surrogate-Control` and `Pragma`.

#[cfg(test)]
mod tests;

use std::time::Duration;

use http::header::{CACHE_CONTROL, CDN_CACHE_CONTROL, PRAGMA};
use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::fields;

static SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// Larger lifetimes are reduced to this one (RFC 9111 §1.2.2).
const SECONDS_MAX: u64 = 1 << 31;

/// Response directives for a shared cache. Unknown directives are ignored. If a lifetime is
/// malformed or repeated, the stricter reading applies (RFC 9111 §4.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a directive that is there or not; the RFC allows every combination"
)]
pub struct ResponseDirectives {
    /// Whether the field was present.
    pub present: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `private` (the qualified form counts as unqualified).
    pub private: bool,
    /// `no-cache` (the qualified form counts as unqualified).
    pub no_cache: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate` itself. The implication of `s-maxage` is not included: see
    /// [`ResponseDirectives::stale_while_revalidate_or`].
    pub must_revalidate: bool,
    /// `proxy-revalidate`: the same for shared caches, but no permission to share a response to an
    /// authorized request (RFC 9111 §3.5 names only `must-revalidate`).
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
    /// Reads the most specific field that is present and well-formed: `CDN-Cache-Control` (RFC
    /// 9213), then `Surrogate-Control`, then `Cache-Control`. A targeted field replaces
    /// `Cache-Control` and `Expires`; the second result says whether it was one.
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

    /// How long the response may be used stale while it is refreshed: the origin's value, or
    /// `default`.
    ///
    /// `must-revalidate`, `proxy-revalidate` and `no-cache` forbid any stale use (RFC 9111 §4.2.4).
    /// `s-maxage` alone forbids it too, because it implies `proxy-revalidate` (§5.2.2.10). But a
    /// stale window next to `s-maxage` applies: RFC 5861 is an explicit permission.
    pub fn stale_while_revalidate_or(&self, default: Duration) -> Duration {
        self.stale_window(self.stale_while_revalidate, default)
    }

    /// How long the response may be used stale when the origin fails, by the same rules as
    /// [`ResponseDirectives::stale_while_revalidate_or`].
    pub fn stale_if_error_or(&self, default: Duration) -> Duration {
        self.stale_window(self.stale_if_error, default)
    }

    /// Whether all stale use is forbidden, whatever the route's defaults.
    pub fn stale_forbidden(&self) -> bool {
        let implied = self.s_maxage.is_some()
            && self.stale_while_revalidate.is_none()
            && self.stale_if_error.is_none();
        self.must_revalidate || self.proxy_revalidate || self.no_cache || implied
    }

    fn stale_window(&self, stated: Option<Duration>, default: Duration) -> Duration {
        if self.must_revalidate || self.proxy_revalidate || self.no_cache {
            return Duration::ZERO;
        }
        match stated {
            Some(window) => window,
            None if self.s_maxage.is_some() => Duration::ZERO,
            None => default,
        }
    }

    /// `CDN-Cache-Control`, unless it is absent, empty or not a structured dictionary (RFC 9213
    /// §2.1: then it is ignored).
    fn from_cdn(headers: &HeaderMap) -> Option<ResponseDirectives> {
        let mut directives = ResponseDirectives {
            present: true,
            ..ResponseDirectives::default()
        };
        let mut is_empty = true;
        for line in headers.get_all(CDN_CACHE_CONTROL) {
            for (name, value) in members(line.as_bytes())? {
                directives.set(
                    name.as_bytes(),
                    Argument::of_member(&value),
                    DuplicateRule::Last,
                );
                is_empty = false;
            }
        }
        (!is_empty).then_some(directives)
    }

    /// `Surrogate-Control`, unless it has no caching directive (it may only announce ESI).
    fn from_surrogate(headers: &HeaderMap) -> Option<ResponseDirectives> {
        let mut directives = ResponseDirectives {
            present: true,
            ..ResponseDirectives::default()
        };
        let mut stated = false;
        for element in fields::elements(headers, &SURROGATE_CONTROL) {
            // `max-age=60;abc` is meant for a surrogate called abc.
            if fields::split(element, b';').nth(1).is_some() {
                continue;
            }
            let (name, value) = fields::name_and_value(element);
            // `max-age=60+30`: 60 s fresh, and 30 s more that are not used here.
            let value = value.and_then(|value| value.split(|&byte| byte == b'+').next());
            stated |= directives.set(name, Argument::of(value), DuplicateRule::Strictest);
        }
        stated.then_some(directives)
    }

    /// Records one directive. Returns false if it is unknown.
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

/// Whether a targeted field was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targeted {
    /// A targeted field: `Expires` is ignored.
    Yes,
    /// `Cache-Control`, or none.
    No,
}

/// Request directives. Used only on routes with `honour_request_directives`.
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
    /// Parses a request's headers.
    pub fn of(headers: &HeaderMap) -> RequestDirectives {
        let mut directives = RequestDirectives::default();
        if headers.contains_key(CACHE_CONTROL) {
            for element in fields::elements(headers, CACHE_CONTROL) {
                directives.set(element);
            }
        } else {
            // RFC 9111 §5.4: `Pragma` is for clients without `Cache-Control`.
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
                // For `min-fresh` the longer value is the stricter one.
                self.min_fresh = self.min_fresh.max(Some(argument.lifetime()));
            }
            b"max-stale" => self.allow_stale(argument),
            _ => {}
        }
    }

    /// Of several `max-stale`, the smallest counts.
    fn allow_stale(&mut self, argument: Argument) {
        let allowed = (argument != Argument::Flag(true)).then(|| argument.lifetime());
        self.max_stale = Some(match (self.max_stale.flatten(), allowed) {
            (Some(earlier), Some(later)) => Some(earlier.min(later)),
            (earlier, later) => earlier.or(later),
        });
    }
}

/// The argument of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Argument {
    /// None, or a boolean of a structured field.
    Flag(bool),
    /// A count of seconds.
    Seconds(Duration),
    /// Anything else: a list of field names, or something malformed.
    Text,
}

impl Argument {
    /// Parses a token or a quoted string; RFC 9111 §5.2 requires recipients to accept both.
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

    /// The value of a member of a structured dictionary. A decimal is not a number of seconds: RFC
    /// 9213 §2.1 forbids the conversion.
    fn of_member(member: &ListEntry) -> Argument {
        let ListEntry::Item(item) = member else {
            return Argument::Text;
        };
        match item.bare_item {
            BareItem::Boolean(flag) => Argument::Flag(flag),
            BareItem::Integer(count) => u64::try_from(count).map_or(Argument::Text, |count| {
                Argument::Seconds(Duration::from_secs(count.min(SECONDS_MAX)))
            }),
            _ => Argument::Text,
        }
    }

    /// Whether a restricting directive applies: always, unless it is a plain "false".
    fn restricts(self) -> bool {
        self != Argument::Flag(false)
    }

    /// The argument as a lifetime. Anything but a number of seconds is zero, because invalid
    /// freshness information counts as stale (RFC 9111 §4.2.1).
    fn lifetime(self) -> Duration {
        match self {
            Argument::Seconds(lifetime) => lifetime,
            Argument::Flag(_) | Argument::Text => Duration::ZERO,
        }
    }
}

/// Which of several occurrences of a directive counts.
#[derive(Clone, Copy)]
enum DuplicateRule {
    /// `Cache-Control`: the most restrictive (RFC 9111 §4.2.1).
    Strictest,
    /// Structured dictionaries: the last (RFC 8941 §4.2.2).
    Last,
}

impl DuplicateRule {
    fn flag(self, field: &mut bool, stated: bool) {
        *field = match self {
            DuplicateRule::Strictest => *field || stated,
            DuplicateRule::Last => stated,
        };
    }

    fn lifetime(self, field: &mut Option<Duration>, argument: Argument) {
        let stated = argument.lifetime();
        *field = Some(match (self, *field) {
            (DuplicateRule::Strictest, Some(earlier)) => earlier.min(stated),
            _ => stated,
        });
    }
}

/// The members of a line that is a structured dictionary (RFC 8941 §4.2.2).
fn members(line: &[u8]) -> Option<Dictionary> {
    Parser::parse_dictionary(line).ok()
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

/// Length of the longest known directive name.
const NAME_MAX: usize = 24;

/// A directive's name in lower case; empty if it is longer than any known name.
fn lowered<'a>(name: &[u8], buffer: &'a mut [u8; NAME_MAX]) -> &'a [u8] {
    let Some(target) = buffer.get_mut(..name.len()) else {
        return &[];
    };
    target.copy_from_slice(name);
    target.make_ascii_lowercase();
    target
}
