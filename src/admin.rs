//! What may operators ask? `/metrics`, `/status`, `/explain?url=…`, `/healthz`, `/readyz`,
//! `POST /purge?url=…` and its like.
//!
//! Knows no room of the server: it shows the pages it was given and passes purges on.

pub mod cache_metrics;
pub mod explain;
mod guard;
pub mod origins;
mod server;
pub mod streams;

use std::net::SocketAddr;
use std::pin::Pin;

pub use server::serve;

use crate::proxy::{PurgeScope, Purged};

/// Where operators come in.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Its own address, never a viewer's listener. `None`: no admin server.
    pub listen: Option<SocketAddr>,
    /// Domain names by which operators reach it, in lower case. Addresses, and names without a dot,
    /// need not be listed.
    pub hosts: Vec<String>,
}

/// Something that appends its metrics to a page in the Prometheus text format.
pub type MetricsPage = Box<dyn Fn(&mut String) + Send + Sync>;

/// Explains an absolute URL.
pub type ExplainHandler =
    Box<dyn Fn(&http::Uri) -> Result<serde_json::Value, &'static str> + Send + Sync>;

/// Drops what is stored. Gives what came of it; `None`: no route serves it, or no such stream is known.
pub type PurgeHandler =
    Box<dyn Fn(PurgeScope) -> Pin<Box<dyn Future<Output = Option<Purged>> + Send>> + Send + Sync>;

/// Asks every worker thread whether it still works.
pub type HealthProbe =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = WorkerHealth> + Send>> + Send + Sync>;

/// What came of asking every worker thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerHealth {
    /// How many there are.
    pub all: usize,
    /// How many did not answer in time.
    pub silent: usize,
}

/// What is behind the counter.
pub struct AdminHandlers {
    /// Names that it answers to, see [`Settings::hosts`].
    pub hosts: Vec<String>,
    /// What `/metrics` shows, in this order.
    pub pages: Vec<MetricsPage>,
    /// What `/status` shows.
    pub status: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// What `/healthz` asks.
    pub healthy: HealthProbe,
    /// Whether viewers are being let in.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// What would be done with an absolute URL, and why; or why nothing would.
    pub explain: ExplainHandler,
    /// Drops what is stored, and says how much that was.
    pub purge: PurgeHandler,
}
