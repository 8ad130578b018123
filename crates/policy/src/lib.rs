//! HTTP caching and route rules as pure functions. The time is an argument; nothing here waits,
//! sends or stores.

pub mod access;
pub mod cadence;
pub mod conditional;
mod delivery_directives;
pub mod directives;
pub mod encoding;
mod endpoint_set;
pub mod fields;
pub mod freshness;
pub mod headers;
pub mod key;
pub mod lifetime;
mod manifest_url;
pub mod missing_manifest;
pub mod now;
pub mod progress;
mod query;
pub mod range;
pub mod route;
pub mod vary;

pub use access::{AccessDenial, Admission, CacheRequest};
pub use delivery_directives::DeliveryDirectives;
pub use endpoint_set::EndpointSet;
pub use freshness::{Freshness, freshness};
pub use key::Key;
pub use lifetime::{Lifetime, Storage};
pub use now::Now;
pub use route::{Route, Rules};
