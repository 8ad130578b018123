//! LL-HLS delivery directives: separates them from the rest of the query and gives them one
//! canonical form in the key and upstream. The route filters the rest of the query.

use http::uri::PathAndQuery;

use super::access_rejection::AccessRejection;
use super::{Key, Route};
use seawall_manifest::Kind;
use seawall_manifest::low_latency::{ReloadDirectives, Skip, is_directive};

/// The delivery directives of a request, and the same request without them.
#[derive(Clone, Debug)]
pub struct DeliveryDirectives {
    /// The directives sent to the origin, without a delta update that the shield makes itself.
    pub(super) sent_directives: ReloadDirectives,
    /// Whether the viewer accepts a delta update that the shield makes.
    pub(super) takes_delta: bool,
    /// The request target without directives.
    pub(super) base_target: PathAndQuery,
    /// The key without directives.
    pub(super) base_key: Key,
}

/// A query, split into directives and the rest.
pub(super) enum SplitQuery<'q> {
    /// No directives.
    WithoutDirectives,
    /// Directives, and the rest of the query.
    WithDirectives(ReloadDirectives, String),
    /// Malformed directives, which the origin is to reject: the rest of the query, and the
    /// directives as received.
    Malformed(String, Vec<&'q str>),
}

impl<'q> SplitQuery<'q> {
    /// Splits a query, if the kind can have directives.
    pub(super) fn of(kind: Kind, query: &'q str) -> SplitQuery<'q> {
        let may_be_playlist = matches!(kind, Kind::Hls | Kind::Other);
        if !may_be_playlist || !(query.contains("_HLS_") || query.contains('%')) {
            return SplitQuery::WithoutDirectives;
        }
        let name = |pair: &'q str| pair.split('=').next().unwrap_or(pair);
        let (directives, rest): (Vec<&str>, Vec<&str>) =
            query.split('&').partition(|pair| is_directive(name(pair)));
        // Some origins decode escapes in the name and some do not.
        let has_unescaped_names = directives.iter().all(|pair| !name(pair).contains('%'));
        match ReloadDirectives::of(query) {
            Ok(_) if directives.is_empty() => SplitQuery::WithoutDirectives,
            Ok(parsed) if has_unescaped_names => SplitQuery::WithDirectives(parsed, rest.join("&")),
            _ => SplitQuery::Malformed(rest.join("&"), directives),
        }
    }
}

impl DeliveryDirectives {
    pub(super) fn new(
        directives: ReloadDirectives,
        route: &Route,
        base_target: PathAndQuery,
        base_key: Key,
    ) -> DeliveryDirectives {
        let takes_delta = route.live.delta_updates && directives.skip == Some(Skip::Segments);
        let sent_directives = ReloadDirectives {
            skip: directives.skip.filter(|_| !takes_delta),
            ..directives
        };
        DeliveryDirectives {
            sent_directives,
            takes_delta,
            base_target,
            base_key,
        }
    }

    /// The request target for the origin.
    pub(super) fn target(&self) -> Result<PathAndQuery, AccessRejection> {
        target_with_directives(&self.base_target, self.sent_directives)
    }
}

/// The target with directives, in canonical form and always last.
pub(super) fn target_with_directives(
    base_target: &PathAndQuery,
    directives: ReloadDirectives,
) -> Result<PathAndQuery, AccessRejection> {
    if directives.is_empty() {
        return Ok(base_target.clone());
    }
    let separator = if base_target.query().is_some() {
        '&'
    } else {
        '?'
    };
    let target = format!("{base_target}{separator}{}", directives.canonical());
    PathAndQuery::try_from(target).map_err(|_| AccessRejection::unreadable())
}
