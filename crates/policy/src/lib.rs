//! What an HTTP cache for live and on-demand video decides, as pure functions: who may be served,
//! under which key, for how long, and whether a version of a manifest may replace another one.
//!
//! Nothing here waits, sends or stores, and the time is an argument ([`Now`]). A decision can thus
//! be tested by a table of inputs and outputs.
//!
//! | question | answered by |
//! |---|---|
//! | is this request served from the cache, and from which origin? | [`access::access`] → [`Admission`] |
//! | may this viewer enter the route? | [`AccessRules::refused_by`] |
//! | which CDN does it come through? | [`ClientClasses::class_of`] |
//! | does it request too much? | [`rate_limit`] |
//! | which requests share a response? | [`Key`], [`vary`] |
//! | may a response be stored, and how long is it fresh? | [`lifetime::storage`] → [`StorageDecision`] |
//! | may a stored response be used now? | [`freshness()`] → [`Freshness`] |
//! | is a 304 or a 206 possible? | [`conditional`], [`range`] |
//! | does a manifest continue the stream, lag or restart? | [`progress`] |
//! | when will a manifest change next? | [`cadence`] |
//! | how long may an old manifest stand in for a missing one? | [`missing_manifest`] |
//!
//! # Example
//!
//! A request is admitted and gets a key; the response to it is stored, and is stale later.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
//! use seawall_policy::access::{Requester, access};
//! use seawall_policy::lifetime::{ManifestContext, ResponseFacts, storage};
//! use seawall_policy::{Admission, ClientClasses, FileSecrets, Freshness, Now, Route, Rules};
//! use seawall_policy::{StorageDecision, TrustedProxies, freshness};
//!
//! let rules = Rules {
//!     routes: vec![Arc::new(Route::everything("origin"))],
//!     name: "shield".into(),
//!     trusted_proxies: TrustedProxies::default(),
//!     client_classes: ClientClasses::default(),
//! };
//! let uri = Uri::from_static("/live/seg100.ts?cdn=1");
//! let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("media.example"))]);
//! let secrets = FileSecrets::default();
//! let viewer = Requester::Viewer {
//!     address: Some([192, 0, 2, 1].into()),
//!     class: None,
//!     certificate: None,
//!     secrets: &secrets,
//! };
//! let admission = access(&rules, &Method::GET, &uri, Version::HTTP_11, &headers, viewer);
//! let Admission::Cache(request) = admission else {
//!     panic!("a GET is served from the cache");
//! };
//! assert_eq!(&*request.route.origin, "origin");
//!
//! let headers = HeaderMap::from_iter([(
//!     header::CACHE_CONTROL,
//!     HeaderValue::from_static("max-age=60"),
//! )]);
//! let response = ResponseFacts {
//!     status: StatusCode::OK,
//!     headers: &headers,
//!     kind: request.kind,
//!     info: None,
//!     end_is_proven: true,
//!     authorized: false,
//!     delay: Duration::ZERO,
//!     context: ManifestContext::CurrentVersion,
//!     child_target_duration: None,
//!     due_in: None,
//! };
//! let now = Now::read();
//! let StorageDecision::Store(lifetime) = storage(&response, &request.route, now) else {
//!     panic!("it has a lifetime");
//! };
//! assert_eq!(lifetime.fresh_for, Duration::from_secs(60));
//! let later = now.mono + Duration::from_secs(61);
//! assert!(freshness(&lifetime, now.mono) == Freshness::Fresh);
//! assert!(freshness(&lifetime, later) != Freshness::Fresh);
//! ```

#![deny(missing_docs)]

pub mod access;
mod access_rejection;
pub mod access_rules;
mod address_classes;
mod cache_request;
pub mod cadence;
mod client_classes;
pub mod conditional;
mod cookies;
mod delivery_directives;
pub mod directives;
pub mod encoding;
mod endpoint_avoidance;
mod endpoint_set;
mod error_pages;
pub mod fields;
pub mod freshness;
mod header_rules;
pub mod headers;
mod ignored_fields;
pub mod key;
pub mod lifetime;
mod manifest_url;
pub mod missing_manifest;
pub mod now;
mod private_override;
pub mod progress;
pub mod proxy_header;
mod query;
pub mod range;
pub mod rate_limit;
mod redirect;
mod required_certificate;
mod required_token;
pub mod route;
mod stream_number;
pub mod tags;
mod trusted_proxies;
pub mod vary;

pub use access::Admission;
pub use access_rejection::AccessRejection;
pub use access_rules::{AccessRuleKind, AccessRules, FileSecrets};
pub use address_classes::AddressClasses;
pub use cache_request::CacheRequest;
pub use client_classes::{
    ClientClass, ClientClasses, ClientTraits, OTHER_CLASS, OTHER_CLASS_INDEX,
};
pub use cookies::strip_set_cookie;
pub use delivery_directives::DeliveryDirectives;
pub use endpoint_avoidance::EndpointAvoidance;
pub use endpoint_set::EndpointSet;
pub use error_pages::{ErrorPage, ErrorPages, ErrorStatus};
pub use freshness::{Freshness, freshness};
pub use ignored_fields::{IGNORED_UNLESS_FORWARDED, IgnoredFields};
pub use key::Key;
pub use lifetime::{Lifetime, StorageDecision};
pub use now::Now;
pub use private_override::make_shareable;
pub use rate_limit::RateLimits;
pub use required_certificate::{CertificateNames, RequiredCertificate};
pub use required_token::{RequiredToken, TokenKind};
pub use route::{Route, Rules};
pub use stream_number::{STREAMS_MAX, StreamNumber};
pub use trusted_proxies::{ClientField, TrustedProxies, ViewerAddress};
