//! A response from an origin group: the head that has arrived, and the body that follows.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::{Framing, UpstreamBody};

/// A response whose head has arrived; the body follows.
pub struct UpstreamResponse {
    /// Status.
    pub status: StatusCode,
    /// As received, with hop-by-hop headers; `policy` strips them.
    pub headers: HeaderMap,
    /// How the body ends. Responses to HEAD, 204 and 304 have no body: a length of 0.
    pub framing: Framing,
    /// The body.
    pub body: UpstreamBody,
    /// From the permit request to the last byte of the head.
    pub waited: Duration,
    /// The endpoint's index in its group.
    pub endpoint: usize,
    /// The index of an endpoint that lacked this object: it answered so, or was so late that this
    /// endpoint was asked too.
    pub lacking_endpoint: Option<usize>,
}
