//! How are viewers spoken to? Accepts connections, keeps them within limits, speaks HTTP/1.1 and 2.
//!
//! hyper stays in here (and in `admin`). Knows nothing of keys, lifetimes or origins.
//!
//! The accept loop is our own rather than pingora's `Listeners`, although pingora hosts the
//! process: pingora fixes the TLS handshake deadline at 60 s, counts nothing before a handshake is
//! over, binds with silent retries and then panics, and registers every socket with the thread that
//! accepts. Here sockets are bound before anything starts, with an error that names the listener;
//! a connection is counted and limited before its first byte is read; and every worker has its own
//! registration of every listener, so that a connection lives wholly on the thread that took it.
//!
//! The way of a connection: `listen` binds, `accept` takes it in and gives it a seat in the `roll`,
//! `tls` shakes hands, `connection` lets hyper speak HTTP/1.1 or, where `line` found its preface,
//! HTTP/2 (`frames` reads its frame headers, `flood` says when they are too many); `express`
//! answers what is at hand before hyper sees it, `exchange` turns every other request into an
//! answer, `told` sends the body and tells the tale. Beside it sits the `watch`, the one timer of a
//! connection, which reads what `line` and `told` noted in the `gauge`; `streams` does the same for
//! the streams of HTTP/2.

mod accept;
mod bad_request;
mod certificates;
mod connection;
mod connection_state;
mod connection_table;
mod connection_timer;
mod date;
mod exchange;
mod fast_path;
mod flood;
mod frames;
mod framing_check;
mod http2_reads;
mod lingering_close;
mod listen;
mod pace;
mod recording_body;
mod request_body;
mod shedding;
mod slice;
mod sniffing_stream;
mod stats;
mod stored_reads;
mod streams;
mod tls;
mod unix;
mod unsent;
mod write_coalescer;

#[cfg(test)]
mod socket_tests;
#[cfg(test)]
mod test_support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::proxy::{Shield, ViewerRequest, ViewerResponse};

pub use accept::Frontend;
pub use certificates::{CertificateError, Certificates};
pub use listen::{BindError, BoundListener};
pub use stats::{ConnectionEvent, Stats};

/// Where finished tales go.
pub type RequestRecorder = Arc<dyn Fn(&crate::telemetry::RequestRecord) + Send + Sync>;

/// Who answers what viewers ask.
pub trait Handler: Send + Sync + 'static {
    /// Answers from what is at hand, in no time, or not at all: then the same request may be asked
    /// again. The body's length is known.
    fn at_once(&self, arrival: ViewerRequest) -> Option<ViewerResponse>;

    /// Answers whatever is asked.
    fn answer(&self, arrival: ViewerRequest) -> impl Future<Output = ViewerResponse> + Send;
}

impl Handler for Arc<Shield> {
    fn at_once(&self, arrival: ViewerRequest) -> Option<ViewerResponse> {
        Shield::at_once(self, arrival)
    }

    async fn answer(&self, arrival: ViewerRequest) -> ViewerResponse {
        Shield::answer(self, arrival).await
    }
}

/// What the edge listens on and what it allows.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where viewers come in.
    pub listeners: Vec<Listener>,
    /// What they may do.
    pub limits: Limits,
}

/// One place where viewers come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The socket.
    pub address: ListenAddress,
    /// TLS, with several certificates chosen by SNI (the first is the default).
    pub tls: Option<Tls>,
}

/// A socket's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// TCP, IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// TLS on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates; the first answers viewers that name no host or an unknown one.
    pub certificates: Vec<CertificateFiles>,
    /// Allow TLS 1.2 besides 1.3.
    pub tls12: bool,
}

/// A certificate chain and its key, in PEM files that are re-read when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Chain, leaf first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// Limits towards viewers. Each has a metric.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address.
    pub connections_per_client_max: usize,
    /// HTTP/2 streams at once on one connection.
    pub streams_max: u32,
    /// Request head, bytes (431 beyond).
    pub head_bytes_max: usize,
    /// One header field, bytes (431 beyond).
    pub field_bytes_max: usize,
    /// Header fields (431 beyond).
    pub fields_max: usize,
    /// Target, bytes (414 beyond).
    pub uri_bytes_max: usize,
    /// TLS handshake.
    pub handshake_timeout: Duration,
    /// From a connection's (or request's) first byte to the end of its head.
    pub head_timeout: Duration,
    /// Idle keep-alive.
    pub idle_timeout: Duration,
    /// A body that moves slower than this, measured over `send_rate_window`, is cut.
    pub send_rate_min_bytes_per_second: u64,
    /// See above; also how long a viewer may take nothing at all.
    pub send_rate_window: Duration,
    /// Bytes of an unwanted request body that are read and dropped before the connection is closed.
    pub drain_bytes_max: u64,
    /// Largest request body passed on to an origin (413 beyond).
    pub request_body_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 50_000,
            connections_per_client_max: 10_000,
            streams_max: 128,
            head_bytes_max: 32 << 10,
            field_bytes_max: 8 << 10,
            fields_max: 100,
            uri_bytes_max: 8 << 10,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            send_rate_min_bytes_per_second: 500,
            send_rate_window: Duration::from_secs(20),
            drain_bytes_max: 64 << 10,
            request_body_bytes_max: 1 << 20,
        }
    }
}
