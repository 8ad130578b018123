//! What should be done with a request or an answer? Pure rules of HTTP and of the routes.
//! The clock is an argument; nothing here waits, sends or stores.

pub mod absence;
pub mod access;
pub mod cadence;
pub mod conditional;
mod delivery;
pub mod directives;
pub mod encoding;
mod endpoint_set;
pub mod fields;
pub mod freshness;
pub mod headers;
pub mod key;
pub mod lifetime;
pub mod moment;
pub mod progress;
mod query;
pub mod range;
pub mod route;
mod sibling;
pub mod vary;

pub use access::{Access, Entry, Refusal};
pub use delivery::Delivery;
pub use endpoint_set::EndpointSet;
pub use freshness::{Freshness, freshness};
pub use key::Key;
pub use lifetime::{Lifetime, Storage};
pub use moment::Moment;
pub use route::{Route, Rules};
