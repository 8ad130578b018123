//! Selects the endpoint that a request goes to next, and grants its repeats.
//!
//! `selector` decides for all requests of a group; `endpoint_selection` is the progress of one of
//! them. `order` applies the group's balance, `outliers` finds endpoints that are slower than their
//! peers, `repeats` grants retries, hedges and takeovers.

mod endpoint_selection;
mod order;
mod outliers;
mod repeats;
mod selector;
mod takeover;

pub(crate) use endpoint_selection::{CandidateSet, EndpointSelection, RequestProfile};
pub use order::Balance;
pub(crate) use selector::EndpointSelector;
pub use takeover::Takeover;
