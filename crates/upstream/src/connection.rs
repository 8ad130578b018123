//! Provides connections to the endpoints of a group, and sends requests on them.
//!
//! `connector` finds the addresses (`resolve`) and takes a connection from the `pool`, or opens
//! one. `session` carries one request on it: `request_head` is what it sends, `response_head` what
//! it reads, and `activity` tells a dead connection from a slow stream. `drain` frees a connection
//! whose body no fill reads. `tls_files` has what connections are made with.

mod activity;
mod connector;
mod drain;
mod pool;
mod request_head;
mod resolve;
mod response_head;
mod session;
mod tls_files;

pub(crate) use connector::EndpointConnector;
pub(crate) use drain::{drain, drain_and_release};
pub(crate) use request_head::{AttemptRequest, GroupHeaders, PayloadSize, balance_hash, subject};
#[cfg(test)]
pub(crate) use resolve::EndpointNames;
pub(crate) use resolve::attempt_deadline;
pub use response_head::Framing;
pub(crate) use response_head::ResponseHead;
pub(crate) use session::UpstreamConnection;
