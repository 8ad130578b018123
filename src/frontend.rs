//! Serves viewers: accepts connections, enforces limits and deadlines, speaks HTTP/1.1, HTTP/2 and
//! TLS.
//!
//! hyper is used only here, in `admin` and in `simulator`. This module knows nothing of keys,
//! lifetimes or origins.
//!
//! pingora hosts the process, but the accept loop is not pingora's `Listeners`. That fixes the TLS
//! handshake timeout at 60 s, counts a connection only after its handshake, retries a failed bind
//! silently and then panics, and registers every socket with the accepting thread. Here all sockets
//! are bound before anything starts, and an error names the listener. A connection is counted and
//! limited before its first byte is read. Each worker registers each listener with its own runtime,
//! so a connection stays on the thread that accepted it.
//!
//! `lifecycle` opens and closes listeners while the server runs. `listener_table` has those that
//! are open.
//!
//! The path of a connection: `listen` binds the socket. `accept` accepts the connection and
//! registers it in the `connection_table`. `connection` does the TLS handshake, which `tls`
//! configures, and runs hyper: for HTTP/2 if ALPN has selected it or if `sniffing_stream` finds its
//! preface, otherwise for HTTP/1.1. `frames` parses HTTP/2 frame headers, and `flood` limits their
//! number.
//!
//! The path of a request: `fast_path` answers cache hits over HTTP/1.1 before hyper reads the
//! request, and lets equal requests wait together for a fetch (`awaited_responses`). `exchange`
//! answers all other requests. `recording_body` sends the body and records the request at its end.
//!
//! `connection_timer` is the one timer of a connection. It enforces the deadlines, from what the
//! other parts write to the `connection_state`. `streams` enforces the minimum send rate of each
//! HTTP/2 stream, from its `stream_send_rate`.

mod accept;
mod accepted;
mod awaited_responses;
mod bad_request;
mod certificate_error;
mod certificates;
mod client_address;
mod client_certificates;
mod connection;
mod connection_state;
mod connection_table;
mod connection_timer;
mod counted_bytes;
mod date;
mod exchange;
mod fast_path;
mod flood;
mod frames;
mod framing_check;
mod http2_reads;
mod http2_repeats;
mod inherited_sockets;
mod lifecycle;
mod lingering_close;
mod listen;
mod listener_connections;
mod listener_settings;
mod listener_table;
mod open_listener;
mod proxy_header;
mod recording_body;
mod repeated_responses;
mod request_body;
mod request_key;
mod server_context;
mod shedding;
mod sniffing_stream;
mod stats;
mod stored_reads;
mod stream_send_rate;
mod stream_server;
mod streams;
mod tls;
mod unix;
mod unsent;
mod worker_share;
mod write_coalescer;

#[cfg(test)]
mod socket_tests;
#[cfg(test)]
mod test_support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::proxy::{
    ActiveShield, MemoryAnswer, RepeatRules, Shield, ViewerRequest, ViewerResponse,
};
use seawall_policy::TrustedProxies;
use seawall_policy::access_rules::AddressList;

pub use certificate_error::CertificateError;
pub use certificates::Certificates;
pub(crate) use client_certificates::read_authorities;
pub use inherited_sockets::{HandedSocket, InheritedSockets};
pub use lifecycle::{Frontend, RemovedListeners};
pub(crate) use listen::bind_unix;
pub use listen::{BindError, BoundListener};
pub use listener_table::PreparedListeners;
pub use stats::{CONNECTION_METRICS, ConnectionEvent, Stats};
pub use stream_server::StreamServer;

/// Receives the record of each finished request.
pub type RequestRecorder = Arc<dyn Fn(&crate::telemetry::RequestRecord) + Send + Sync>;

/// Answers the requests of viewers.
pub trait Handler: Send + Sync + 'static {
    /// Answers from memory without waiting. With [`MemoryAnswer::Unknown`], the caller may pass the
    /// same request to `answer`.
    fn try_answer(&self, request: ViewerRequest) -> MemoryAnswer;

    /// The generation of the settings that decide about requests. When it has changed, no response
    /// of before is repeated.
    fn generation(&self) -> u64 {
        0
    }

    /// Which requests get the same response now; by default only those in the same words.
    fn repeat_rules(&self) -> RepeatRules {
        RepeatRules::default()
    }

    /// The proxies that say where a request comes from; by default none.
    fn trusted_proxies(&self) -> Arc<TrustedProxies> {
        Arc::default()
    }

    /// What of a path may be logged, by default all of it.
    fn without_token<'p>(&self, path: &'p str) -> &'p str {
        path
    }

    /// Answers any request.
    fn answer(&self, request: ViewerRequest) -> impl Future<Output = ViewerResponse> + Send;
}

impl Handler for Arc<ActiveShield> {
    fn try_answer(&self, request: ViewerRequest) -> MemoryAnswer {
        Shield::answer_from_memory(&self.load(), request)
    }

    fn generation(&self) -> u64 {
        ActiveShield::generation(self)
    }

    fn repeat_rules(&self) -> RepeatRules {
        self.load().repeat_rules().clone()
    }

    fn trusted_proxies(&self) -> Arc<TrustedProxies> {
        Arc::new(self.load().trusted_proxies().clone())
    }

    fn without_token<'p>(&self, path: &'p str) -> &'p str {
        self.load().path_without_token(path)
    }

    async fn answer(&self, request: ViewerRequest) -> ViewerResponse {
        let shield = self.current();
        Shield::answer(&shield, request).await
    }
}

/// Listeners and limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses to listen on.
    pub listeners: Vec<Listener>,
    /// Limits of connections and requests.
    pub limits: Limits,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// TCP or Unix socket.
    pub address: ListenAddress,
    /// TLS, with several certificates chosen by SNI (the first is the default).
    pub tls: Option<Tls>,
    /// The proxies that may connect, each connection with a header of the PROXY protocol. `None`:
    /// viewers connect, without such a header.
    pub proxy_protocol: Option<AddressList>,
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
    /// Whose certificates viewers may have. `None`: they are not asked for one.
    pub client: Option<ClientAuthority>,
}

/// The authorities that issue certificates to viewers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthority {
    /// Their own certificates, in a PEM file that is re-read when it changes.
    pub ca: PathBuf,
    /// A viewer without a certificate cannot connect.
    pub is_required: bool,
}

/// A certificate chain and its key, in PEM files that are re-read when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Chain, leaf first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// Limits for viewers. A connection keeps those with which it began. What reaches one is counted by
/// a [`ConnectionEvent`] or by the status of its response; reaching `streams_max` or
/// `unwanted_body_bytes_max` is not counted.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Concurrent connections.
    pub connections_max: usize,
    /// Concurrent connections from one client address.
    pub connections_per_client_max: usize,
    /// Concurrent HTTP/2 streams on one connection.
    pub streams_max: u32,
    /// Size of a request head in bytes; beyond it: 431.
    pub head_bytes_max: usize,
    /// Size of one header field in bytes; beyond it: 431.
    pub header_bytes_max: usize,
    /// Number of header fields; beyond it: 431.
    pub headers_max: usize,
    /// Size of the request target in bytes; beyond it: 414.
    pub uri_bytes_max: usize,
    /// Duration of the TLS handshake.
    pub handshake_timeout: Duration,
    /// Time from the first byte of a connection or request to the end of the request head.
    pub head_timeout: Duration,
    /// Idle time of a kept-alive connection.
    pub idle_timeout: Duration,
    /// Minimum rate of a body, measured over `send_rate_window`; a slower transfer is cut.
    pub send_rate_min_bytes_per_second: u64,
    /// Window of `send_rate_min_bytes_per_second`; also the longest time without any progress.
    pub send_rate_window: Duration,
    /// Bytes of an unwanted request body that are read and discarded before the connection is
    /// closed.
    pub unwanted_body_bytes_max: u64,
    /// Size of a request body that is forwarded to an origin; beyond it: 413.
    pub request_body_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 50_000,
            connections_per_client_max: 10_000,
            streams_max: 128,
            head_bytes_max: 32 << 10,
            header_bytes_max: 8 << 10,
            headers_max: 100,
            uri_bytes_max: 8 << 10,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            send_rate_min_bytes_per_second: 500,
            send_rate_window: Duration::from_secs(20),
            unwanted_body_bytes_max: 64 << 10,
            request_body_bytes_max: 1 << 20,
        }
    }
}
