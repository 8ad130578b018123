//! How is an origin asked? One request in, one head and a body that either arrives whole or fails.
//!
//! Knows addresses, connections, deadlines and retries. Knows nothing of keys, viewers or storage.
//! pingora stays in here; nothing of it shows in this face.

mod dial;
mod failure;
mod fetch;
mod head;
mod inflow;
mod limit;
mod line;
mod request;
mod resolve;
mod settings;
mod stats;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

pub use failure::Failure;
pub use inflow::Inflow;
pub use settings::{Deadlines, Endpoint, Protocol, Settings, SetupError};
pub use stats::Stats;

use dial::Dial;
use fetch::Desk;
use limit::Gate;
use request::Additions;
use resolve::Names;

/// One request to an origin.
pub struct Errand {
    /// GET for fills; others on routes that pass them.
    pub method: Method,
    /// Exactly what the key was made of.
    pub path_and_query: PathAndQuery,
    /// The viewer's canonical host where the route forwards it.
    pub host: Option<HeaderValue>,
    /// Already filtered by `policy`; hop-by-hop headers are not in it.
    pub headers: HeaderMap,
    /// A body, for methods that have one.
    pub body: Option<RequestBody>,
}

impl Errand {
    /// A GET, which has no body.
    pub fn get(target: PathAndQuery, host: Option<HeaderValue>, headers: HeaderMap) -> Errand {
        Errand {
            method: Method::GET,
            path_and_query: target,
            host,
            headers,
            body: None,
        }
    }
}

/// A request body on its way to an origin; its bounds are the edge's business.
pub type RequestBody = std::pin::Pin<
    Box<dyn http_body::Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Send>,
>;

/// How an answer's end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes were promised.
    Length(u64),
    /// Chunked, or HTTP/2 without a length: the end is told.
    Delimited,
    /// The end is the connection's end: cannot be told from a failure, so never stored.
    UntilClose,
}

/// What an origin answered; the body is still to come.
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// As sent, hop-by-hop headers included; `policy` strips them.
    pub headers: HeaderMap,
    /// How the end is known. Answers to HEAD, 204 and 304 have no body: a length of 0.
    pub framing: Framing,
    /// The body.
    pub body: Inflow,
    /// From asking for a permit to the head's last byte.
    pub waited: Duration,
}

/// An origin group, ready to be asked.
pub struct Origin {
    name: Arc<str>,
    desk: Desk,
}

/// Resolves a host and port to addresses; may block (it runs on the blocking pool).
pub type Lookup = Arc<dyn Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>> + Send + Sync>;

impl Origin {
    /// Prepares a group. Names are resolved in the background: this never blocks.
    /// `lookup` is the system's resolver in production and a script in tests.
    pub fn new(settings: Settings, lookup: Lookup) -> Result<Origin, SetupError> {
        let names = Names::new(&settings.endpoints, lookup, settings.resolve_every);
        let dial = Arc::new(Dial::new(&settings, names)?);
        let hosts = settings.endpoints.iter().map(|endpoint| {
            let own = || endpoint.authority();
            let host = settings.host.clone().unwrap_or_else(own);
            let valid = host.parse::<Authority>().is_ok() && !host.contains('@');
            let value = HeaderValue::try_from(&host).ok().filter(|_| valid);
            value.ok_or(SetupError::Host { host })
        });
        let hosts = hosts.collect::<Result<_, _>>()?;
        Ok(Origin {
            name: settings.name,
            desk: Desk {
                gate: Gate::new(settings.concurrency_max, settings.queue_max),
                dial,
                ledger: Arc::default(),
                additions: Additions {
                    hosts,
                    headers: settings.headers,
                },
                deadlines: settings.deadlines,
            },
        })
    }

    /// The group's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Asks the origin, within the group's cap and deadlines. A reset of a reused connection before
    /// the head is retried once on a fresh one, for idempotent methods without a body. Dropping the
    /// future gives its permit back and closes its connection.
    pub async fn fetch(&self, errand: Errand) -> Result<Reply, Failure> {
        self.desk.fetch(errand).await
    }

    /// What came of asking, so far.
    pub fn stats(&self) -> Stats {
        let Desk { gate, ledger, .. } = &self.desk;
        ledger.read(Arc::clone(&self.name), gate.in_flight(), gate.queued())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Origin").field(&self.name).finish()
    }
}
