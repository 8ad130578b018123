//! LL-HLS delivery directives: separates them from the rest of the query and gives them one
//! canonical form in the key and upstream. The route filters the rest of the query.

use http::uri::PathAndQuery;

use super::access_denial::AccessDenial;
use super::{Key, Route};
use seawall_manifest::Kind;
use seawall_manifest::low_latency::{ReloadDirectives, Skip, is_directive};

/// The delivery directives of a request, and the same request without them.
#[derive(Clone, Debug)]
pub struct DeliveryDirectives {
    /// The directives sent to the origin, without a delta update that the shield makes itself.
    pub(super) upstream: ReloadDirectives,
    /// Whether the viewer accepts a delta update that the shield makes.
    pub(super) takes_delta: bool,
    pub(super) plain: PathAndQuery,
    pub(super) key: Key,
}

/// A query, split into directives and the rest.
pub(super) enum SplitQuery<'q> {
    /// No directives.
    Plain,
    /// Directives, and the rest of the query.
    Directed(ReloadDirectives, String),
    /// Malformed directives, which the origin is to reject: the rest of the query, and the
    /// directives as received.
    Malformed(String, Vec<&'q str>),
}

impl<'q> SplitQuery<'q> {
    /// Splits a query, if the kind can have directives.
    pub(super) fn of(kind: Kind, query: &'q str) -> SplitQuery<'q> {
        let may_be_playlist = matches!(kind, Kind::Hls | Kind::Other);
        if !may_be_playlist || !(query.contains("_HLS_") || query.contains('%')) {
            return SplitQuery::Plain;
        }
        let name = |pair: &'q str| pair.split('=').next().unwrap_or(pair);
        let (directives, rest): (Vec<&str>, Vec<&str>) =
            query.split('&').partition(|pair| is_directive(name(pair)));
        // Some origins decode escapes in the name and some do not.
        let plain = directives.iter().all(|pair| !name(pair).contains('%'));
        match ReloadDirectives::of(query) {
            Ok(_) if directives.is_empty() => SplitQuery::Plain,
            Ok(read) if plain => SplitQuery::Directed(read, rest.join("&")),
            _ => SplitQuery::Malformed(rest.join("&"), directives),
        }
    }
}

impl DeliveryDirectives {
    /// `plain` and `key` are the target and the key of the request without directives.
    pub(super) fn new(
        directives: ReloadDirectives,
        route: &Route,
        plain: PathAndQuery,
        key: Key,
    ) -> DeliveryDirectives {
        let takes_delta = route.live.delta_updates && directives.skip == Some(Skip::Segments);
        let upstream = ReloadDirectives {
            skip: directives.skip.filter(|_| !takes_delta),
            ..directives
        };
        DeliveryDirectives {
            upstream,
            takes_delta,
            plain,
            key,
        }
    }

    /// The request target for the origin.
    pub(super) fn target(&self) -> Result<PathAndQuery, AccessDenial> {
        directed(&self.plain, self.upstream)
    }
}

/// The target with directives, in canonical form and always last.
pub(super) fn directed(
    plain: &PathAndQuery,
    directives: ReloadDirectives,
) -> Result<PathAndQuery, AccessDenial> {
    if directives.is_empty() {
        return Ok(plain.clone());
    }
    let separator = if plain.query().is_some() { '&' } else { '?' };
    let target = format!("{plain}{separator}{}", directives.canonical());
    PathAndQuery::try_from(target).map_err(|_| AccessDenial::unreadable())
}
