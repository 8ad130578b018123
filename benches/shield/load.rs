//! The load generators: `wrk` and `h2load` where installed, because their own cost is known and
//! small; otherwise, for plain HTTP/1.1, a generator in this bench.

mod h2load;
mod own;
mod wrk;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machine;

/// One load on one server.
pub struct Load {
    /// The target address.
    pub address: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The requested objects.
    pub paths: Paths,
    /// Persistent connections.
    pub connections: usize,
}

/// The protocol of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, one request at a time per connection.
    Http1,
    /// The same over TLS.
    Http1Tls,
    /// HTTP/2 over TLS.
    Http2Tls {
        /// Concurrent requests on each connection.
        streams: usize,
    },
}

/// The requested objects.
#[derive(Clone)]
pub enum Paths {
    /// Always the same object.
    Same(String),
    /// Each time another object: a number stands between the two.
    Each {
        /// The text before the number.
        prefix: String,
        /// The text after it.
        suffix: &'static str,
    },
}

/// The result of a load.
#[derive(Clone, Copy, Debug)]
pub struct Yield {
    /// Complete responses.
    pub requests: u64,
    /// Error responses, and missing ones.
    pub failed: u64,
    /// Responses per second.
    pub rate: f64,
}

/// The installed generators.
pub struct Generators {
    wrk: Option<PathBuf>,
    h2load: Option<PathBuf>,
}

impl Generators {
    /// Looks for them.
    pub fn find() -> Generators {
        Generators {
            wrk: machine::program("wrk"),
            h2load: machine::program("h2load"),
        }
    }

    /// Notes for the user about them.
    pub fn notes(&self) -> &'static str {
        match (&self.wrk, &self.h2load) {
            (Some(_), Some(_)) => "load by wrk and h2load",
            (Some(_), None) => "load by wrk; no HTTP/2: h2load (nghttp2-client) is not installed",
            (None, Some(_)) => "load by this bench and h2load; no HTTP/1.1 over TLS without wrk",
            (None, None) => "load by this bench; nothing over TLS: no wrk, no h2load",
        }
    }

    /// Runs a load; `None` if its generator is not installed.
    pub async fn run(
        &self,
        load: &Load,
        lasting: Duration,
        folder: &Path,
    ) -> anyhow::Result<Option<Yield>> {
        let told = match (load.protocol, &self.wrk, &self.h2load) {
            (Protocol::Http1 | Protocol::Http1Tls, Some(wrk), _) => {
                wrk::run(wrk, load, lasting, folder).await?
            }
            (Protocol::Http2Tls { streams }, _, Some(h2load)) => {
                h2load::run(h2load, load, streams, lasting, folder).await?
            }
            (Protocol::Http1, None, _) => own::run(load, lasting).await,
            _ => return Ok(None),
        };
        Ok(Some(told))
    }
}

impl Load {
    /// The one URL, or the first of many.
    fn url(&self) -> String {
        let scheme = match self.protocol {
            Protocol::Http1 => "http",
            Protocol::Http1Tls | Protocol::Http2Tls { .. } => "https",
        };
        format!("{scheme}://{}{}", self.address, self.paths.path(0))
    }
}

impl Paths {
    /// The path of a request by its number.
    fn path(&self, number: u64) -> String {
        match self {
            Paths::Same(path) => path.clone(),
            Paths::Each { prefix, suffix } => format!("{prefix}{number}{suffix}"),
        }
    }
}

/// The number before `mark` in a report.
fn number_before(report: &str, mark: &str) -> Option<f64> {
    let before = &report[..report.find(mark)?];
    let number = before
        .rsplit(|c: char| !c.is_ascii_digit() && c != '.')
        .next()?;
    number.parse().ok()
}
