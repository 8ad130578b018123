//! Routes: map host and path prefix to an origin group and the rules for its requests.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use seawall_manifest::Kind;

use super::access_rules::AccessRules;
use super::client_classes::ClientClasses;
use super::error_pages::ErrorPages;
pub use super::header_rules::{HeaderRule, HeaderRules};
pub use super::query::{QueryPolicies, QueryPolicy};
use super::rate_limit::RateLimits;
pub use super::redirect::Redirect;
use super::trusted_proxies::TrustedProxies;

/// One route: what it matches, and the settings for it. Built by `config`.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, each a key of its own in the file"
)]
pub struct Route {
    /// The name in logs and metrics.
    pub name: Arc<str>,
    /// Index into the metric tables. A route keeps it when a reload moves it to another position.
    pub index: usize,
    /// Canonical host names (lower case, no port, no trailing dot) this route serves;
    /// `*.example.com` matches one or more labels. Empty: every host.
    pub hosts: Vec<String>,
    /// Path prefix, ends at a segment boundary: `/live` matches `/live` and `/live/x`, not
    /// `/lively`.
    pub path_prefix: String,
    /// Name of the origin group.
    pub origin: Arc<str>,
    /// Index of the origin group.
    pub origin_index: usize,
    /// Viewers are sent elsewhere, and nothing is fetched.
    pub redirect: Option<Redirect>,
    /// Send the viewer's (canonical) host to the origin; it is then part of the key.
    pub forward_host: bool,
    /// Which viewers may enter.
    pub access: AccessRules,
    /// How much those who may enter may request.
    pub rate_limits: RateLimits,
    /// Query parameters that are kept.
    pub query: QueryPolicies,
    /// Viewer headers that are forwarded to the origin, besides those the shield sets. They are
    /// part of the key: other values get other responses.
    pub forward_headers: Vec<HeaderName>,
    /// Viewer headers that are forwarded but not part of the key: all viewers get the response to
    /// one viewer's values.
    pub unkeyed_headers: Vec<HeaderName>,
    /// Names of cookies that the origin does not read: they are neither forwarded nor in the key.
    /// One that ends in `*` is the beginning of names.
    pub ignore_cookies: Vec<String>,
    /// Names of cookies that are removed from responses, because they say nothing of the viewer.
    /// One that ends in `*` is the beginning of names.
    pub strip_set_cookie: Vec<String>,
    /// Kinds of which responses are stored although the origin declares them one viewer's own.
    pub store_private: Vec<Kind>,
    /// Header fields that are set or removed.
    pub header_rules: HeaderRules,
    /// Bodies of the shield's own errors.
    pub error_pages: ErrorPages,
    /// Pass methods other than GET, HEAD and OPTIONS to the origin, uncached.
    pub pass_methods: bool,
    /// Honour viewers' `no-cache`, `max-age`, ... By default they are ignored.
    pub honour_request_directives: bool,
    /// Use heuristic freshness from `Last-Modified` if the origin gives no lifetime.
    pub heuristic_freshness: bool,
    /// Store keys and licences (default: never).
    pub store_keys: bool,
    /// Share origin failures (5xx, 429, 408) for the lifetime that they state.
    pub store_errors: bool,
    /// Lifetimes by kind.
    pub lifetimes: Lifetimes,
    /// What the shield does for live manifests before viewers request it.
    pub live: Live,
    /// CORS headers set by the shield.
    pub cors: Cors,
    /// Add `X-Cache: HIT|MISS|…` besides `Cache-Status`.
    pub x_cache: bool,
    /// Send `CMSD-Dynamic` to players with each response.
    pub cmsd: bool,
    /// Show the key in `Cache-Status`.
    pub show_key: bool,
    /// Send the fields with tags (`Surrogate-Key`, `Cache-Tag`, `Cache-Groups`) to viewers.
    pub show_tags: bool,
    /// Requests with this field get `Server-Timing`.
    pub server_timing: Option<HeaderName>,
}

/// Lifetimes by kind of object.
#[derive(Clone, Debug)]
pub struct Lifetimes {
    /// Maximum freshness of a live manifest, whatever the origin states.
    pub manifest_max: Duration,
    /// Freshness of a live manifest if neither the origin nor the content gives one.
    pub manifest_default: Duration,
    /// Freshness of an ended or VOD manifest if the origin gives none.
    pub ended_default: Duration,
    /// Freshness of segments and init segments if the origin gives none.
    pub segment_default: Duration,
    /// Maximum freshness of segments, whatever the origin states.
    pub segment_max: Duration,
    /// Minimum freshness of segments, whatever the origin states, except zero.
    pub segment_min: Duration,
    /// Maximum freshness of a 404, 410 and other negative responses.
    pub negative_max: Duration,
    /// Stale-while-revalidate of a manifest, as a share of its freshness (1.0: as long again).
    pub manifest_stale_share: f64,
    /// Stale-if-error of live manifests. `None`: three segment durations and at least a minute for
    /// those that list segments, a minute for others.
    pub manifest_stale_if_error: Option<Duration>,
    /// How long a manifest is served stale when the origin says that it does not exist (403, 404,
    /// 410). Zero: the origin is believed at once.
    pub manifest_stale_if_missing: Duration,
    /// Stale-if-error of segments.
    pub segment_stale_if_error: Duration,
    /// Replaces the origin's lifetime on this route (never its `no-store` or `private`).
    pub override_ttl: Option<Duration>,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_hours(1);
        const DAY: Duration = Duration::from_hours(24);
        Lifetimes {
            manifest_max: HOUR,
            manifest_default: Duration::from_secs(2),
            ended_default: HOUR,
            segment_default: DAY,
            segment_max: 14 * DAY,
            segment_min: Duration::ZERO,
            negative_max: Duration::from_secs(1),
            manifest_stale_share: 1.0,
            manifest_stale_if_error: None,
            manifest_stale_if_missing: Duration::ZERO,
            segment_stale_if_error: DAY,
            override_ttl: None,
        }
    }
}

/// What the shield does for a live stream that viewers watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Refresh manifests when the next version is due.
    pub cadence: bool,
    /// Fetch the segments of a new version before viewers request them.
    pub prefetch: bool,
    /// Make LL-HLS delta updates (`_HLS_skip=YES`) from whole playlists that offer them.
    pub delta_updates: bool,
    /// A request for a segment that is computed to exist within this time waits and is sent then.
    pub hold_early: Duration,
    /// A stream is idle after this time, and after three segments, without a manifest request.
    pub idle: Duration,
}

impl Default for Live {
    fn default() -> Self {
        Live {
            cadence: true,
            prefetch: true,
            delta_updates: true,
            hold_early: Duration::from_millis(500),
            idle: Duration::from_secs(6),
        }
    }
}

/// How the shield answers cross-origin requests of browsers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cors {
    /// `Access-Control-Allow-Origin: *`; preflights are answered; `Age` and others are exposed.
    Any,
    /// Only these origins, with or without credentials.
    Only {
        /// In the form that browsers send.
        origins: Vec<String>,
        /// Pages may send credentials.
        credentials: bool,
    },
    /// The origin's own headers pass through; preflights get 204 with `Allow`.
    Off,
}

/// All routes and the settings for every request.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Most specific first: exact host before wildcard before any; then the longest prefix.
    pub routes: Vec<Arc<Route>>,
    /// The shield's name in `Via`, `CDN-Loop` and `Cache-Status`.
    pub name: Arc<str>,
    /// The proxies that say where a request comes from.
    pub trusted_proxies: TrustedProxies,
    /// The classes of clients.
    pub client_classes: ClientClasses,
}

impl Rules {
    /// The route for a canonical host and a path.
    pub fn route(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.routes
            .iter()
            .find(|route| route.takes_host(host) && route.takes_path(path))
    }

    /// Whether it matters who sends a request: a route has access rules, or there are classes.
    pub fn concerns_viewers(&self) -> bool {
        let has_access_rules = |route: &Arc<Route>| !route.access.is_open();
        !self.client_classes.is_empty() || self.routes.iter().any(has_access_rules)
    }

    /// The routes that may match a path with this beginning on a canonical host.
    pub fn routes_below(&self, host: &str, beginning: &str) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().filter(move |route| {
            let below = route.path_prefix.starts_with(beginning);
            route.takes_host(host) && (below || route.takes_path(beginning))
        })
    }
}

impl Route {
    /// A route for all requests to this origin (the first group), with default settings: safe with
    /// any origin (the whole query is kept), and CORS for players in browsers.
    pub fn everything(origin: impl Into<Arc<str>>) -> Route {
        Route {
            name: "default".into(),
            index: 0,
            hosts: Vec::new(),
            path_prefix: "/".to_owned(),
            origin: origin.into(),
            origin_index: 0,
            redirect: None,
            forward_host: false,
            access: AccessRules::default(),
            rate_limits: RateLimits::default(),
            query: QueryPolicy::All.into(),
            forward_headers: Vec::new(),
            unkeyed_headers: Vec::new(),
            ignore_cookies: Vec::new(),
            strip_set_cookie: Vec::new(),
            store_private: Vec::new(),
            header_rules: HeaderRules::default(),
            error_pages: ErrorPages::default(),
            pass_methods: false,
            honour_request_directives: false,
            heuristic_freshness: false,
            store_keys: false,
            store_errors: false,
            lifetimes: Lifetimes::default(),
            live: Live::default(),
            cors: Cors::Any,
            x_cache: false,
            cmsd: false,
            show_key: false,
            show_tags: false,
            server_timing: None,
        }
    }

    pub(super) fn takes_host(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| host_matches(pattern, host))
    }

    /// Whether a path lies below the route's.
    pub fn takes_path(&self, path: &str) -> bool {
        is_below(path, &self.path_prefix)
    }
}

/// Whether a path has this prefix, which ends at a segment boundary.
pub(super) fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern == host,
        Some(parent) => host
            .strip_suffix(parent)
            .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_host_matches_subdomains_but_not_the_parent() {
        assert!(host_matches("*.example.com", "a.example.com"));
        assert!(host_matches("*.example.com", "a.b.example.com"));
        assert!(!host_matches("*.example.com", "example.com"));
        assert!(!host_matches("*.example.com", ".example.com"));
        assert!(!host_matches("*.example.com", "badexample.com"));
        assert!(host_matches("example.com", "example.com"));
    }
}
