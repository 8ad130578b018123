//! Sends requests to origin groups: one request in; one response head out, and a body that arrives
//! complete or fails.
//!
//! An [`Origin`] is a group of endpoints with the same content. It limits what is sent to them at
//! once, signs the requests, chooses an endpoint for each, and requests another one when an
//! endpoint fails, refuses or is late. It knows nothing of cache keys, viewers or storage, and no
//! type of pingora appears in its public interface.
//!
//! ```
//! use std::net::ToSocketAddrs;
//! use std::sync::Arc;
//!
//! use http::HeaderMap;
//! use seawall_upstream::{Endpoint, Origin, Priority, Settings, UpstreamRequest};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A server that answers one request.
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! tokio::spawn(async move {
//!     let (mut stream, _) = listener.accept().await?;
//!     stream.read(&mut [0; 1024]).await?;
//!     stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n#EXTM3U").await
//! });
//!
//! // A group with this server as its only endpoint.
//! let endpoint = Endpoint::new(false, address.ip().to_string(), address.port());
//! let resolve = Arc::new(|host: &str, port| Ok((host, port).to_socket_addrs()?.collect()));
//! let origin = Origin::new(Settings::single("main", endpoint), resolve)?;
//!
//! let target = "/live/index.m3u8".parse()?;
//! let request = UpstreamRequest::get(target, None, HeaderMap::new(), Priority::Manifest);
//! let mut response = origin.fetch(request).await?;
//! assert_eq!(response.status, 200);
//!
//! let mut playlist = Vec::new();
//! while let Some(chunk) = response.body.next().await {
//!     playlist.extend_from_slice(&chunk?);
//! }
//! assert_eq!(playlist, b"#EXTM3U");
//! # Ok(())
//! # }
//! ```
//!
//! # How a request is sent
//!
//! `group` takes it through these parts, each with its own state:
//!
//! 1. `group_limits` grants a permit: requests wait in one queue, by [`Priority`].
//! 2. `selection` chooses the next endpoint: by the group's [`Balance`], by what the breaker, the
//!    ejection and the health checks of each endpoint say, and by its free slots. It also
//!    holds the budget for retries and hedges.
//! 3. `attempt` sends the request to one endpoint, each step with a deadline, and records how it
//!    ended.
//! 4. `connection` provides a connection for it, pooled or new, and speaks HTTP/1.1 or HTTP/2 on
//!    it.
//!
//! `group` judges the outcome, and returns it or goes back to 2. While an attempt is late, it runs
//! 2 to 4 for a further endpoint too. `body` then delivers the response: it holds the permits until
//! its end is proven, and returns the connection to the pool.
//!
//! `endpoint` is the state of one endpoint that selection reads and attempts write; the state
//! machines in `guard` judge it. Imports go downwards only: from `group` to `selection`, `attempt`,
//! `connection`, and to `endpoint`, `limit` and `guard` below them.

mod attempt;
mod body;
mod check;
mod connection;
mod endpoint;
mod endpoint_address;
mod failure;
mod group;
mod group_limits;
pub mod guard;
mod latency;
mod limit;
mod priority;
mod quota;
mod request;
mod response_value;
mod selection;
mod settings;
mod setup_error;
pub mod sign;
mod slow_viewers;
mod stats;
#[cfg(test)]
mod tests;
mod viewer_relay;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::uri::PathAndQuery;
use seawall_policy::EndpointSet;

pub use body::{UpstreamBody, UpstreamResponse};
pub use connection::Framing;
pub use endpoint_address::Endpoint;
pub use failure::{Failure, UploadFault};
pub use latency::LatencyHistogram;
pub use limit::Rejection;
pub use priority::Priority;
pub use quota::{Quota, QuotaStats, RequestClass};
pub use request::{
    BudgetUse, CauseCounters, ExpectedContent, PriorityRaise, RequestBody, UpstreamRequest,
};
pub use selection::{Balance, Takeover};
pub use settings::{Check, CheckKind, Deadlines, Guards, Protocol, Retry, Settings};
pub use setup_error::SetupError;
pub use stats::{
    AttemptCounts, EndpointCondition, EndpointOutage, EndpointStats, HealthCheckStats, Stats,
};
pub use viewer_relay::ViewerRelay;

use group::OriginGroup;

/// An origin group that accepts requests.
pub struct Origin {
    name: Arc<str>,
    group: Arc<OriginGroup>,
}

/// Resolves a host and port to addresses; may block (it runs on the blocking pool).
pub type Resolver = Arc<dyn Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>> + Send + Sync>;

impl Origin {
    /// Creates a group. DNS lookups run in the background: this never blocks. `lookup` is the
    /// system resolver in production and a script in tests.
    pub fn new(settings: Settings, lookup: Resolver) -> Result<Origin, SetupError> {
        let name = Arc::clone(&settings.name);
        let group = Arc::new(OriginGroup::new(settings, lookup)?);
        Ok(Origin { name, group })
    }

    /// A group with other settings in place of this one, which goes on with the requests it has.
    /// The same group, if nothing of it changed: neither the settings nor the content of its TLS
    /// files. Fails as [`Origin::new`] does, and then nothing has changed.
    ///
    /// Both share what is known of the endpoints that stay (by scheme, host and port): breakers,
    /// ejections, health and counters; limits and quotas, which they never exceed together;
    /// connections, as long as they are made in the same way; addresses, header files and
    /// credentials. Endpoints have numbers outside the group, in [`EndpointSet`]s and in
    /// [`UpstreamResponse::endpoint`]: one that stays has the same number in both.
    ///
    /// The new limits and thresholds hold from [`Origin::take_effect`] on. A group that is dropped
    /// before has changed nothing.
    pub fn succeed(
        self: &Arc<Self>,
        settings: Settings,
        lookup: &Resolver,
    ) -> Result<Arc<Origin>, SetupError> {
        let name = Arc::clone(&settings.name);
        Ok(match self.group.succeed(settings, lookup)? {
            None => Arc::clone(self),
            Some(group) => Arc::new(Origin {
                name,
                group: Arc::new(group),
            }),
        })
    }

    /// Ends the reign of the group that this one succeeds: its limits and thresholds are replaced,
    /// also for its requests in progress, and it makes no health check any more. Does nothing for a
    /// group that succeeds no other, or the second time. The caller then starts the health checks
    /// of this one.
    pub fn take_effect(&self) {
        self.group.take_effect();
    }

    /// Ends the health checks and the DNS lookups of a group that gets no new requests.
    pub fn retire(&self) {
        self.group.retire();
    }

    /// The group's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Sends a request within the group's limits and deadlines. Other endpoints are requested if
    /// one is unreachable or, as far as [`Retry`] allows, fails. Dropping the future releases the
    /// permit and closes the connection.
    pub async fn fetch(&self, request: UpstreamRequest) -> Result<UpstreamResponse, Failure> {
        self.group.start_health_checks();
        self.group.fetch(request).await
    }

    /// The queue is empty, more than half of the permits are free and an endpoint is in good
    /// standing: prefetches may be sent.
    pub fn has_room_for_prefetch(&self) -> bool {
        self.group.limits.has_spare_permits() && self.group.has_endpoint_in_good_standing()
    }

    /// What keeps each endpoint from getting prefetches, with its URL; `None` if one may get them.
    pub fn outage(&self) -> Option<Vec<EndpointOutage>> {
        self.group.outage()
    }

    /// Finds out in the background whether an endpoint in doubt is back, as any request does: tries
    /// unreachable addresses again, and sends each endpoint that is due for a probe a HEAD of this
    /// request. For callers that send nothing before one is back.
    pub fn probe_in_background(&self, request: UpstreamRequest) {
        self.group.probe_in_background(request);
    }

    /// The same as [`Origin::has_room_for_prefetch`], for blocking requests.
    pub fn has_room_for_blocking(&self) -> bool {
        self.group.limits.has_spare_permits_for_blocking()
            && self.group.has_endpoint_in_good_standing()
    }

    /// An endpoint outside `excluded` is in good standing.
    pub fn has_another_in_good_standing(&self, excluded: EndpointSet) -> bool {
        self.group.selector.has_another_in_good_standing(excluded)
    }

    /// Permits and counts a takeover: the rest of a body that the endpoint with the number `from`
    /// has begun is requested from another endpoint. `failed`: `from` sends no more; otherwise it
    /// is slow. `None`: a takeover would only add load.
    pub fn take_over(&self, from: usize, failed: bool) -> Option<Takeover> {
        let selector = &self.group.selector;
        let mut endpoints = selector.endpoints.iter();
        let from = endpoints.find(|endpoint| endpoint.number == from)?;
        selector.extra_requests.take_over(from, failed)
    }

    /// Records whether a takeover delivered more of the body than the first endpoint.
    pub fn record_takeover(&self, helped: bool) {
        self.group.selector.extra_requests.record_takeover(helped);
    }

    /// An address that could not be reached became reachable again after this time.
    pub fn has_recovered_since(&self, then: Instant) -> bool {
        self.group.connector.has_recovered_since(then.into())
    }

    /// The group has more than one endpoint.
    pub fn has_several_endpoints(&self) -> bool {
        self.group.selector.endpoints.len() > 1
    }

    /// The URL of the endpoint that this request would go to first; `None`: no endpoint accepts it
    /// now.
    pub fn first_choice(
        &self,
        target: &PathAndQuery,
        host: Option<&HeaderValue>,
        avoided: EndpointSet,
    ) -> Option<Arc<str>> {
        let balance_hash = connection::balance_hash(target, host);
        let subject = connection::subject(target, host);
        let endpoint = self
            .group
            .selector
            .first_choice(balance_hash, subject, avoided)?;
        Some(endpoint.url())
    }

    /// Longest wait for the head of a blocking response (LL-HLS), including queue and connect time.
    pub fn blocking_wait_max(&self) -> Duration {
        let deadlines = &self.group.deadlines;
        let longest = deadlines.queue + deadlines.connect + deadlines.blocking;
        longest.min(deadlines.total)
    }

    /// Starts the health checks, if configured. Must be called inside a tokio runtime; if that
    /// runtime ends, the next fetch starts them again.
    pub fn start_health_checks(&self) {
        self.group.start_health_checks();
    }

    /// Reads the counters.
    pub fn stats(&self) -> Stats {
        self.group.stats(&self.name)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Origin").field(&self.name).finish()
    }
}
