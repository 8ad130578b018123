//! LL-HLS delivery directives: separates them from the rest of the query and gives them one
//! canonical form in the key and upstream. The route filters the rest of the query.

use std::sync::Arc;

use http::uri::PathAndQuery;

use super::access::{AccessDenial, CacheRequest};
use super::{Key, Route};
use seawall_manifest::Kind;
use seawall_manifest::low_latency::{ReloadDirectives, Skip, is_directive};

/// The delivery directives of a request, and the same request without them.
#[derive(Clone, Debug)]
pub struct DeliveryDirectives {
    /// The directives sent to the origin, without a delta update that the shield makes itself.
    upstream: ReloadDirectives,
    /// Whether the viewer accepts a delta update that the shield makes.
    takes_delta: bool,
    plain: PathAndQuery,
    key: Key,
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
    /// The key without directives, shared by all requests for versions of the same playlist.
    pub fn identity(&self) -> &Key {
        self.delivery
            .as_ref()
            .map_or(&self.key, |delivery| &delivery.key)
    }

    /// Whether directives are sent to the origin.
    pub fn is_directed(&self) -> bool {
        !self.directives().is_empty()
    }

    /// The directives sent to the origin.
    pub fn directives(&self) -> ReloadDirectives {
        let delivery = self.delivery.as_ref();
        delivery.map_or_else(ReloadDirectives::default, |delivery| delivery.upstream)
    }

    /// Whether the viewer accepts a delta update that the shield makes.
    pub fn takes_delta(&self) -> bool {
        self.delivery
            .as_ref()
            .is_some_and(|delivery| delivery.takes_delta)
    }

    /// The request for the current version of the playlist. It still accepts a delta update.
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

    /// The request for the same playlist with other directives. It still accepts a delta update.
    /// `None` if the target becomes too long.
    pub fn with_directives(&self, directives: ReloadDirectives) -> Option<CacheRequest> {
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

    /// The key of the epoch of the playlist with all its versions.
    pub fn playlist_epoch_key(&self) -> Key {
        Key::of(&[b"states", self.identity().bytes()])
    }
}
