//! Selects the endpoint that a request goes to next, and grants its extra requests.
//!
//! `selector` decides for all requests of a group; `endpoint_selection` is the progress of one of
//! them. `order` applies the group's balance, `outliers` finds endpoints that are slower than their
//! peers, `extra_requests` grants retries, hedges and takeovers.

mod endpoint_selection;
mod extra_requests;
mod order;
mod outliers;
mod selector;
mod takeover;

pub(crate) use endpoint_selection::{CandidateSet, EndpointSelection, RequestProfile};
pub(crate) use extra_requests::ExtraRequests;
pub use order::Balance;
pub(crate) use selector::EndpointSelector;
pub use takeover::Takeover;
