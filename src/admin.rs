//! The admin server: everything that [`ADMIN_ENDPOINTS`] declares.
//!
//! It depends on no state of other modules: the caller passes handlers as closures.

pub mod access_metrics;
pub mod answers;
pub mod audit;
pub mod cache_metrics;
pub mod class_metrics;
pub mod declaration;
pub mod endpoint_metrics;
mod endpoints;
pub mod explain;
mod guard;
mod handlers;
mod openapi;
pub mod origin_metrics;
pub mod origins;
pub mod overview;
mod page;
mod purge;
pub mod purge_metrics;
pub mod query;
pub mod response;
mod server;
pub mod stream_metrics;
mod tokens;
mod warm;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::Value;

pub use audit::{AuditDestination, AuditLog};
pub use endpoints::ADMIN_ENDPOINTS;
pub use server::{AdminConnections, AdminSocket, serve};
pub use tokens::{AdminTokens, TokenSettings};

use crate::proxy::{PurgeOrder, Purged, UnknownTarget, WarmBatch, WarmedObject};
use crate::telemetry::MetricRegistry;

/// Settings of the admin server.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The address, never one of the viewers' listeners. `None`: no admin server.
    pub listen: Option<AdminAddress>,
    /// Domain names by which operators reach it, in lower case. IP addresses, and names without a
    /// dot, need not be listed.
    pub hosts: Vec<String>,
    /// Without any, everyone who can connect may do everything.
    pub tokens: Vec<TokenSettings>,
    /// The file of the audit log. `None`: the program log.
    pub audit_log: Option<PathBuf>,
}

/// The address of the admin server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket. Its file mode is 0660.
    Unix(PathBuf),
}

impl From<SocketAddr> for AdminAddress {
    fn from(address: SocketAddr) -> AdminAddress {
        AdminAddress::Tcp(address)
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminAddress::Tcp(address) => address.fmt(f),
            AdminAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The admin server would be open to other machines.
#[derive(Debug, thiserror::Error)]
#[error(
    "the admin server on {0} can be reached from other machines, and everyone could purge and \
     drain: set `tokens` of [admin], or listen on 127.0.0.1 or unix:/run/seawall/admin.sock"
)]
pub struct UnprotectedAddress(SocketAddr);

impl Settings {
    /// Fails if other machines could use the admin server without a token.
    pub fn check_protection(&self) -> Result<(), UnprotectedAddress> {
        match &self.listen {
            Some(AdminAddress::Tcp(address))
                if self.tokens.is_empty() && !address.ip().to_canonical().is_loopback() =>
            {
                Err(UnprotectedAddress(*address))
            }
            _ => Ok(()),
        }
    }
}

/// The manifests of a stream, by its name.
pub type StreamHandler = Box<dyn Fn(&str) -> Option<Value> + Send + Sync>;

/// What the page shows now.
pub type OverviewHandler = Arc<dyn Fn() -> Overview + Send + Sync>;

/// What the page shows.
#[derive(Clone)]
pub struct Overview {
    /// A JSON object, in one line.
    pub json: Bytes,
    /// The server is about to stop: there is no next one.
    pub is_last: bool,
}

/// Explains an absolute URL.
pub type ExplainHandler =
    Box<dyn Fn(&http::Uri) -> Result<serde_json::Value, &'static str> + Send + Sync>;

/// Purges stored objects. The error: no route serves the URL, or the stream is unknown.
pub type PurgeHandler = Box<
    dyn Fn(PurgeOrder) -> Pin<Box<dyn Future<Output = Result<Purged, UnknownTarget>> + Send>>
        + Send
        + Sync,
>;

/// Sees to it that the object of a URL is stored, as far as the batch has time; or why no
/// route serves it.
pub type WarmHandler = Box<dyn Fn(http::Uri, Arc<WarmBatch>) -> FutureWarmedObject + Send + Sync>;

/// What became of an object.
pub type FutureWarmedObject =
    Pin<Box<dyn Future<Output = Result<WarmedObject, &'static str>> + Send>>;

/// Begins a drain of the server. With `true`, waits for the listeners to close. `None`: too many
/// requests of operators wait.
pub type DrainHandler =
    Box<dyn Fn(bool) -> Pin<Box<dyn Future<Output = Option<DrainProgress>> + Send>> + Send + Sync>;

/// Reads the configuration again and uses it. What it did; `Err`: why it did nothing.
pub type ReloadHandler =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Value, Value>> + Send>> + Send + Sync>;

/// Has another process of the program serve in place of this one. What it did; `Err`: why it did
/// nothing. `None`: it is in progress.
pub type UpgradeHandler = Box<
    dyn Fn() -> Pin<Box<dyn Future<Output = Option<Result<Value, Value>>> + Send>> + Send + Sync,
>;

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainProgress {
    /// It has begun.
    Begun,
    /// No connection is accepted any more.
    ListenersClosed,
}

/// Checks whether every worker thread still answers.
pub type HealthHandler =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = WorkerHealth> + Send>> + Send + Sync>;

/// The result of a check of all worker threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerHealth {
    /// Number of workers.
    pub all: usize,
    /// Number of workers that did not answer in time.
    pub silent: usize,
}

/// The handlers behind the admin server's paths.
pub struct AdminHandlers {
    /// Accepted host names, see [`Settings::hosts`]. A reload replaces them.
    pub hosts: Arc<ArcSwap<Vec<String>>>,
    /// Who may do what.
    pub tokens: Arc<ArcSwap<AdminTokens>>,
    /// Who did what.
    pub audit: Arc<AuditLog>,
    /// The content of `/metrics`.
    pub metrics: MetricRegistry,
    /// The content of `/status`.
    pub status: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// The content of `/overview`.
    pub overview: OverviewHandler,
    /// The content of `/overview/stream`. `None`: there is no such stream.
    pub stream: StreamHandler,
    /// The check behind `/healthz`.
    pub health: HealthHandler,
    /// Whether new connections are accepted.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// Drains the server.
    pub drain: DrainHandler,
    /// Reloads the configuration.
    pub reload: ReloadHandler,
    /// Upgrades the program.
    pub upgrade: UpgradeHandler,
    /// What the shield would do with an absolute URL, or why it would reject the request.
    pub explain: ExplainHandler,
    /// Purges stored objects and returns how many.
    pub purge: PurgeHandler,
    /// Fetches an object that is to be stored.
    pub warm: WarmHandler,
}
