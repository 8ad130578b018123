//! A request to the cache in canonical form, and the same request with other delivery directives.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use seawall_manifest::Kind;
use seawall_manifest::low_latency::ReloadDirectives;

use super::delivery_directives::{DeliveryDirectives, target_with_directives};
use super::{ClientClass, Key, Route};

/// A request to the cache, in canonical form.
#[derive(Clone, Debug)]
pub struct CacheRequest {
    /// The matching route.
    pub route: Arc<Route>,
    /// The kind that the path suggests.
    pub kind: Kind,
    /// The request target sent to the origin.
    pub target: PathAndQuery,
    /// The canonical host of the viewer's request. See [`CacheRequest::sent_host`].
    pub host: HeaderValue,
    /// The viewer's header fields that the route forwards, as they are sent. `None`: there are
    /// none.
    pub forwarded: Option<Arc<HeaderMap>>,
    /// The cache key, built from exactly what is sent.
    pub key: Key,
    /// The LL-HLS delivery directives, if the request has any.
    pub delivery: Option<Arc<DeliveryDirectives>>,
    /// The class of the client on whose behalf it is sent. `None`: there are no classes, or no
    /// client waits for it. Not part of the key.
    pub class: Option<Arc<ClientClass>>,
}

impl CacheRequest {
    /// The host sent to the origin, if the route forwards it. Only then it is part of the key.
    pub fn sent_host(&self) -> Option<&HeaderValue> {
        self.route.forward_host.then_some(&self.host)
    }

    /// A key shared by all requests for this URL, whatever their forwarded header fields. `None` if
    /// the route forwards no fields, because then there is only one request per URL.
    pub fn url(&self) -> Option<Key> {
        let is_in_key = !self.route.forward_headers.is_empty();
        is_in_key.then(|| {
            let request = self.without_directives();
            let key = Key::of_target(&self.route, self.sent_host(), &request.target, None);
            Key::of(&[b"url", key.bytes()])
        })
    }

    /// The key without directives, shared by all requests for versions of the same playlist.
    pub fn base_key(&self) -> &Key {
        self.delivery
            .as_ref()
            .map_or(&self.key, |delivery| &delivery.base_key)
    }

    /// Whether directives are sent to the origin.
    pub fn has_delivery_directives(&self) -> bool {
        !self.directives().is_empty()
    }

    /// The directives sent to the origin.
    pub fn directives(&self) -> ReloadDirectives {
        let delivery = self.delivery.as_ref();
        delivery.map_or_else(ReloadDirectives::default, |delivery| {
            delivery.sent_directives
        })
    }

    /// Whether the viewer accepts a delta update that the shield makes.
    pub fn takes_delta(&self) -> bool {
        self.delivery
            .as_ref()
            .is_some_and(|delivery| delivery.takes_delta)
    }

    /// The request for the current version of the playlist. It still accepts a delta update.
    #[must_use]
    pub fn without_directives(&self) -> CacheRequest {
        let Some(delivery) = &self.delivery else {
            return self.clone();
        };
        CacheRequest {
            target: delivery.base_target.clone(),
            key: delivery.base_key.clone(),
            delivery: Some(Arc::new(DeliveryDirectives {
                sent_directives: ReloadDirectives::default(),
                ..DeliveryDirectives::clone(delivery)
            })),
            ..self.clone()
        }
    }

    /// The request for the same playlist with other directives. It still accepts a delta update.
    /// `None` if the target becomes too long.
    pub fn with_directives(&self, directives: ReloadDirectives) -> Option<CacheRequest> {
        let (base_target, base_key) = match &self.delivery {
            Some(delivery) => (&delivery.base_target, &delivery.base_key),
            None => (&self.target, &self.key),
        };
        let target = target_with_directives(base_target, directives).ok()?;
        Some(CacheRequest {
            key: Key::of_target(
                &self.route,
                self.sent_host(),
                &target,
                self.forwarded.as_deref(),
            ),
            target,
            delivery: Some(Arc::new(DeliveryDirectives {
                sent_directives: directives,
                takes_delta: self.takes_delta(),
                base_target: base_target.clone(),
                base_key: base_key.clone(),
            })),
            ..self.clone()
        })
    }

    /// The key of the epoch of the playlist with all its versions.
    pub fn playlist_epoch_key(&self) -> Key {
        Key::of(&[b"states", self.base_key().bytes()])
    }
}
