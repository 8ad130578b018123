//! Does a request ask for a playlist, or for a state of it (LL-HLS delivery directives)? Directives have one
//! form in the key and upstream; what is asked of a playlist besides them is the route's business.

use std::sync::Arc;

use http::uri::PathAndQuery;

use super::access::{AccessDenial, CacheRequest};
use super::{Key, Route};
use crate::manifest::Kind;
use crate::manifest::low_latency::{ReloadDirectives, Skip, is_directive};

/// What a request asks for beyond the playlist itself.
#[derive(Clone, Debug)]
pub struct DeliveryDirectives {
    /// As the origin is asked: without a delta update that is made here.
    upstream: ReloadDirectives,
    /// The viewer takes a delta update, and it is made here.
    takes_delta: bool,
    plain: PathAndQuery,
    key: Key,
}

/// A query, taken apart.
pub(super) enum SplitQuery<'q> {
    /// Without directives.
    Plain,
    /// With them, and what there is besides.
    Directed(ReloadDirectives, String),
    /// With some that cannot be understood: the origin is to say so. What there is besides them, and
    /// they themselves as they came.
    Malformed(String, Vec<&'q str>),
}

impl<'q> SplitQuery<'q> {
    /// Looks for directives, where there may be any.
    pub(super) fn of(kind: Kind, query: &'q str) -> SplitQuery<'q> {
        let may_be_playlist = matches!(kind, Kind::Hls | Kind::Other);
        if !may_be_playlist || !(query.contains("_HLS_") || query.contains('%')) {
            return SplitQuery::Plain;
        }
        let name = |pair: &'q str| pair.split('=').next().unwrap_or(pair);
        let (directives, rest): (Vec<&str>, Vec<&str>) =
            query.split('&').partition(|pair| is_directive(name(pair)));
        // One with escapes in its name is read by some origins and not by others.
        let plain = directives.iter().all(|pair| !name(pair).contains('%'));
        match ReloadDirectives::of(query) {
            Ok(_) if directives.is_empty() => SplitQuery::Plain,
            Ok(read) if plain => SplitQuery::Directed(read, rest.join("&")),
            _ => SplitQuery::Malformed(rest.join("&"), directives),
        }
    }
}

impl DeliveryDirectives {
    /// What is asked on a route, of a playlist that is asked for and filed like this without directives.
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

    /// What the origin is asked for.
    pub(super) fn target(&self) -> Result<PathAndQuery, AccessDenial> {
        directed(&self.plain, self.upstream)
    }
}

/// The same target with directives, in their canonical form and always last.
fn directed(
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

impl CacheRequest {
    /// What all requests for a playlist have in common, whatever state of it they ask for: its key
    /// without directives.
    pub fn identity(&self) -> &Key {
        self.delivery
            .as_ref()
            .map_or(&self.key, |delivery| &delivery.key)
    }

    /// The origin is asked for a certain state of a playlist.
    pub fn is_directed(&self) -> bool {
        !self.directives().is_empty()
    }

    /// What the origin is asked for besides the playlist itself: nothing, mostly.
    pub fn directives(&self) -> ReloadDirectives {
        let delivery = self.delivery.as_ref();
        delivery.map_or_else(ReloadDirectives::default, |delivery| delivery.upstream)
    }

    /// The viewer takes a delta update, and it is made here.
    pub fn takes_delta(&self) -> bool {
        self.delivery
            .as_ref()
            .is_some_and(|delivery| delivery.takes_delta)
    }

    /// The request for the playlist as it is now. A viewer who takes a delta update still does.
    #[must_use]
    pub fn plain(&self) -> CacheRequest {
        let Some(delivery) = &self.delivery else {
            return self.clone();
        };
        CacheRequest {
            target: delivery.plain.clone(),
            key: delivery.key.clone(),
            delivery: Some(Arc::new(DeliveryDirectives {
                upstream: ReloadDirectives::default(),
                ..DeliveryDirectives::clone(delivery)
            })),
            ..self.clone()
        }
    }

    /// The request for the same playlist with these directives; `None` where they make it too long. A viewer
    /// who takes a delta update still does.
    pub fn asking(&self, directives: ReloadDirectives) -> Option<CacheRequest> {
        let (plain, identity) = match &self.delivery {
            Some(delivery) => (&delivery.plain, &delivery.key),
            None => (&self.target, &self.key),
        };
        let target = directed(plain, directives).ok()?;
        Some(CacheRequest {
            key: Key::of_target(
                &self.route,
                self.sent_host(),
                &target,
                self.forwarded.as_deref(),
            ),
            target,
            delivery: Some(Arc::new(DeliveryDirectives {
                upstream: directives,
                takes_delta: self.takes_delta(),
                plain: plain.clone(),
                key: identity.clone(),
            })),
            ..self.clone()
        })
    }

    /// Among the places whose epochs end: the playlist with all its states.
    pub fn states(&self) -> Key {
        Key::of(&[b"states", self.identity().bytes()])
    }
}
