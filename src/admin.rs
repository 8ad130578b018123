//! What may operators ask? `/metrics`, `/status`, `/explain?url=…`, `/healthz`, `/readyz`,
//! `POST /purge?url=…` and its like.
//!
//! Knows no room of the server: it shows the pages it was given and passes purges on.

pub mod explain;
mod guard;
mod office;
pub mod origins;
pub mod pages;
pub mod streams;

use std::net::SocketAddr;
use std::pin::Pin;

pub use office::serve;

use crate::shield::{PurgeScope, Purged};

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
pub type Page = Box<dyn Fn(&mut String) + Send + Sync>;

/// Explains an absolute URL.
pub type Explain = Box<dyn Fn(&http::Uri) -> Result<serde_json::Value, &'static str> + Send + Sync>;

/// Drops what is stored. Gives what came of it; `None`: no route serves it, or no such stream is known.
pub type Purge =
    Box<dyn Fn(PurgeScope) -> Pin<Box<dyn Future<Output = Option<Purged>> + Send>> + Send + Sync>;

/// Asks every worker thread whether it still works.
pub type Healthy = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Workers> + Send>> + Send + Sync>;

/// What came of asking every worker thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// How many there are.
    pub all: usize,
    /// How many did not answer in time.
    pub silent: usize,
}

/// What is behind the counter.
pub struct Desk {
    /// Names that it answers to, see [`Settings::hosts`].
    pub hosts: Vec<String>,
    /// What `/metrics` shows, in this order.
    pub pages: Vec<Page>,
    /// What `/status` shows.
    pub status: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// What `/healthz` asks.
    pub healthy: Healthy,
    /// Whether viewers are being let in.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// What would be done with an absolute URL, and why; or why nothing would.
    pub explain: Explain,
    /// Drops what is stored, and says how much that was.
    pub purge: Purge,
}
