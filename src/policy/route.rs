//! Which requests belong together, and what is decided for them? Hosts and path prefixes to an origin group.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

pub use super::query::{QueryPolicies, QueryPolicy};

/// One route: what it matches and what holds for everything on it. Built by `config`.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, each a key of its own in the file"
)]
pub struct Route {
    /// Named in logs and metrics.
    pub name: Arc<str>,
    /// Index into the metric tables: the route's place in [`Rules::routes`].
    pub index: usize,
    /// Canonical host names (lower case, no port, no trailing dot) this route serves;
    /// `*.example.com` matches one or more labels. Empty: every host.
    pub hosts: Vec<String>,
    /// Path prefix, ends at a segment boundary: `/live` matches `/live` and `/live/x`, not `/lively`.
    pub path_prefix: String,
    /// Name of the origin group that answers.
    pub origin: Arc<str>,
    /// The origin group's place among the groups.
    pub origin_index: usize,
    /// Send the viewer's (canonical) host to the origin; it is then part of the key.
    pub forward_host: bool,
    /// Query parameters that matter.
    pub query: QueryPolicies,
    /// Viewer headers that the origin needs, beyond those the shield sets itself. They are part of
    /// the key: who sends other values gets other answers.
    pub forward_headers: Vec<HeaderName>,
    /// Viewer headers that are forwarded although they are not part of the key: one viewer's values
    /// fetch what all viewers get.
    pub unkeyed_headers: Vec<HeaderName>,
    /// Pass other methods than GET, HEAD and OPTIONS to the origin, uncached.
    pub pass_methods: bool,
    /// Honour viewers' `no-cache`, `max-age`, ... A shield ignores them by default.
    pub honour_request_directives: bool,
    /// Use heuristic freshness from `Last-Modified` where the origin gives no lifetime.
    pub heuristic_freshness: bool,
    /// Store keys and licences (default: never).
    pub store_keys: bool,
    /// Failures of the origin (5xx, 429, 408) are told for as long as they say that they are good.
    pub store_errors: bool,
    /// Lifetimes by kind.
    pub lifetimes: Lifetimes,
    /// What is done for live manifests ahead of viewers.
    pub live: Live,
    /// CORS answered by the shield.
    pub cors: Cors,
    /// Add `X-Cache: HIT|MISS|…` besides `Cache-Status`.
    pub x_cache: bool,
    /// Tell players with each answer how the shield fares (`CMSD-Dynamic`).
    pub cmsd: bool,
    /// Name the key in `Cache-Status`.
    pub show_key: bool,
}

/// Lifetimes that a route sets by kind.
#[derive(Clone, Debug)]
pub struct Lifetimes {
    /// Longest freshness of a live manifest, whatever the origin says.
    pub manifest_max: Duration,
    /// Freshness of a live manifest when neither origin nor text says more.
    pub manifest_default: Duration,
    /// Freshness of an ended or VOD manifest where the origin sends none.
    pub ended_default: Duration,
    /// Freshness of segments and init segments where the origin sends none.
    pub segment_default: Duration,
    /// Longest and shortest freshness of segments, whatever the origin says.
    pub segment_max: Duration,
    /// See `segment_max`.
    pub segment_min: Duration,
    /// Longest freshness of a 404, 410 and other negative answers.
    pub negative_max: Duration,
    /// Serve stale while refreshing, for this share of a manifest's freshness (1.0: as long again).
    pub manifest_stale_share: f64,
    /// Serve stale when the origin fails: live manifests. `None`: those that list segments for
    /// three of their periods and a minute at least, others for a minute.
    pub manifest_stale_if_error: Option<Duration>,
    /// Serve stale when the origin says that a manifest is not there (403, 404, 410): for so long
    /// past its freshness; nothing: the origin is believed at once.
    pub manifest_stale_if_missing: Duration,
    /// Serve stale when the origin fails: segments.
    pub segment_stale_if_error: Duration,
    /// Replace the origin's lifetime for this route altogether (never its `no-store` or `private`).
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

/// What is done for a live stream that is watched, ahead of its viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Manifests are refreshed when they are due to change.
    pub cadence: bool,
    /// What a new version lists is fetched before anybody asks for it.
    pub prefetch: bool,
    /// LL-HLS delta updates (`_HLS_skip=YES`) are made here of whole playlists that offer them.
    pub delta_updates: bool,
    /// A segment that is computed to be there in so long at most is waited for, and asked for then.
    pub hold_early: Duration,
    /// When nobody has asked for a manifest for so long, and for three segments, nobody watches.
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

/// How the shield answers browsers that ask across origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cors {
    /// `Access-Control-Allow-Origin: *`, preflights answered, `Age` and friends exposed.
    Any,
    /// Only these origins, with their cookies and the like or without.
    Only {
        /// As browsers write them.
        origins: Vec<String>,
        /// Pages may send credentials.
        credentials: bool,
    },
    /// The origin server's own headers pass through; preflights get 204 with `Allow`.
    Off,
}

/// All routes, in order of specificity, and what holds for every request.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Most specific first: exact host before wildcard before any; then longest prefix.
    pub routes: Vec<Arc<Route>>,
    /// The name this shield uses in `Via`, `CDN-Loop` and `Cache-Status`.
    pub name: Arc<str>,
}

impl Rules {
    /// Finds the route for a canonical host and a path.
    pub fn route(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.routes
            .iter()
            .find(|route| route.takes_host(host) && route.takes_path(path))
    }

    /// The routes that may take something of a canonical host whose path begins so.
    pub fn routes_below(&self, host: &str, beginning: &str) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().filter(move |route| {
            let below = route.path_prefix.starts_with(beginning);
            route.takes_host(host) && (below || route.takes_path(beginning))
        })
    }
}

impl Route {
    /// A route for everything to this origin (the first group), with every setting at its default:
    /// what is safe with any origin (the whole query counts) and what browsers' players need (CORS).
    pub fn everything(origin: impl Into<Arc<str>>) -> Route {
        Route {
            name: "default".into(),
            index: 0,
            hosts: Vec::new(),
            path_prefix: "/".to_owned(),
            origin: origin.into(),
            origin_index: 0,
            forward_host: false,
            query: QueryPolicy::All.into(),
            forward_headers: Vec::new(),
            unkeyed_headers: Vec::new(),
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
        }
    }

    pub(super) fn takes_host(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| host_matches(pattern, host))
    }

    pub(super) fn takes_path(&self, path: &str) -> bool {
        let prefix = self.path_prefix.trim_end_matches('/');
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
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
    fn a_wildcard_takes_labels_but_not_the_parent() {
        assert!(host_matches("*.example.com", "a.example.com"));
        assert!(host_matches("*.example.com", "a.b.example.com"));
        assert!(!host_matches("*.example.com", "example.com"));
        assert!(!host_matches("*.example.com", ".example.com"));
        assert!(!host_matches("*.example.com", "badexample.com"));
        assert!(host_matches("example.com", "example.com"));
    }
}
