//! Settings of an origin group: plain values, validated by `config`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode};

use super::guard::{backoff, breaker, budget, ejection, health, latency_window};
use super::sign::{ClientCertificate, Sigv4};
use super::{Balance, Endpoint};

/// Settings of one origin group.
#[derive(Clone, PartialEq)]
pub struct Settings {
    /// Name in logs, metrics and routes.
    pub name: Arc<str>,
    /// One endpoint, or several with the same content.
    pub endpoints: Vec<Endpoint>,
    /// How requests are spread over endpoints of one priority.
    pub balance: Balance,
    /// When a request is sent again.
    pub retry: Retry,
    /// When an endpoint is avoided.
    pub guards: Guards,
    /// Health checks; default: none.
    pub health: Option<Check>,
    /// `Host` if the route does not forward the viewer's; default: the endpoint's.
    pub host: Option<String>,
    /// TLS server name, also checked in the certificate; default: the endpoint's host.
    pub sni: Option<String>,
    /// PEM file of certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Verify certificates (default). Disable only in tests.
    pub verify: bool,
    /// HTTP version.
    pub protocol: Protocol,
    /// Headers set on every request, after everything else.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The same, from files with one value each, read again when they change.
    pub header_files: Vec<(HeaderName, PathBuf)>,
    /// Sign requests with AWS Signature Version 4.
    pub sigv4: Option<Sigv4>,
    /// Client certificate for mutual TLS.
    pub client_certificate: Option<ClientCertificate>,
    /// Deadlines.
    pub deadlines: Deadlines,
    /// Maximum number of requests in progress; more wait.
    pub concurrency_max: usize,
    /// Maximum number of blocking requests (LL-HLS), in addition; more wait.
    pub blocking_max: usize,
    /// Maximum number of requests whose viewer is slower than the origin, while it reads an
    /// unstored response or sends a body; in addition to both. Beyond that, the longest-waiting one
    /// is cut.
    pub slow_viewers_max: usize,
    /// Maximum queue length. Beyond that, requests of the lowest priority fail as
    /// [`super::Failure::Busy`].
    pub queue_max: usize,
    /// Maximum requests per second, after a burst of a tenth of that; more wait, as for a permit.
    pub requests_per_second_max: Option<u32>,
    /// Interval of DNS lookups.
    pub resolve_every: Duration,
}

/// HTTP version for an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 (without TLS: by prior knowledge).
    H2,
    /// HTTP/2 if ALPN over TLS selects it, else HTTP/1.1.
    Auto,
}

/// Deadlines of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Wait for a permit, and for a token of the rate limit.
    pub queue: Duration,
    /// TCP connect and TLS handshake.
    pub connect: Duration,
    /// From the request's last byte to the end of the response's head: manifests.
    pub manifest: Duration,
    /// The same for everything else.
    pub first_byte: Duration,
    /// The same for blocking requests (LL-HLS).
    pub blocking: Duration,
    /// Between two reads of the body.
    pub between_bytes: Duration,
    /// Everything up to the end of the head. The body may take as long again, plus the time that
    /// its bytes take at 512 bytes per second, without the time that its reader takes.
    pub total: Duration,
}

/// When a request is sent again: before the first byte of the response body, if it is idempotent,
/// and within the group's budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Maximum number of retries. Endpoints not tried yet come first.
    pub attempts_max: u32,
    /// Response statuses that are retried.
    pub statuses: Vec<StatusCode>,
    /// Wait between attempts at the same endpoint.
    pub backoff: backoff::Settings,
    /// Budget of a group for retries and hedges.
    pub budget: budget::Settings,
    /// Also request another endpoint when a response is late.
    pub hedge: bool,
    /// Longest wait before a hedge, unless the endpoint is always slower.
    pub hedge_after_max: Duration,
}

/// Guards that keep requests from an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Guards {
    /// Too many failures.
    pub breaker: breaker::Settings,
    /// Consecutive failures, or responses much slower than those of other endpoints.
    pub ejection: ejection::Settings,
    /// How latency is estimated.
    pub latency: latency_window::Settings,
}

/// An active health check of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What the check does.
    pub kind: CheckKind,
    /// Deadline of a whole check.
    pub timeout: Duration,
    /// Interval, and how many results change the state.
    pub schedule: health::Settings,
}

/// What a health check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A GET.
    Http {
        /// The target.
        path: PathAndQuery,
        /// Accepted statuses; if empty: any 2xx and 3xx.
        expect: Vec<StatusCode>,
    },
    /// A connection only (with TLS if configured).
    Tcp,
}

impl Default for Check {
    fn default() -> Self {
        Check {
            kind: CheckKind::Http {
                path: PathAndQuery::from_static("/"),
                expect: Vec::new(),
            },
            timeout: Duration::from_secs(5),
            schedule: health::Settings::default(),
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts_max: 1,
            statuses: vec![
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ],
            backoff: backoff::Settings::default(),
            budget: budget::Settings::default(),
            hedge: true,
            hedge_after_max: Duration::from_millis(500),
        }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            queue: Duration::from_secs(5),
            connect: Duration::from_secs(2),
            manifest: Duration::from_secs(5),
            first_byte: Duration::from_secs(10),
            blocking: Duration::from_secs(20),
            between_bytes: Duration::from_secs(10),
            total: Duration::from_mins(1),
        }
    }
}

impl Settings {
    /// A group with one endpoint and default limits.
    pub fn single(name: &str, endpoint: Endpoint) -> Settings {
        Settings {
            name: name.into(),
            endpoints: vec![endpoint],
            balance: Balance::Failover,
            retry: Retry::default(),
            guards: Guards::default(),
            health: None,
            host: None,
            sni: None,
            ca_file: None,
            verify: true,
            protocol: Protocol::Auto,
            headers: Vec::new(),
            header_files: Vec::new(),
            sigv4: None,
            client_certificate: None,
            deadlines: Deadlines::default(),
            concurrency_max: 256,
            blocking_max: 1024,
            slow_viewers_max: 512,
            queue_max: 4096,
            requests_per_second_max: None,
            resolve_every: Duration::from_secs(10),
        }
    }
}

/// Header values may be secrets: only their names are shown.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header_names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Settings")
            .field("name", &self.name)
            .field("endpoints", &self.endpoints)
            .field("balance", &self.balance)
            .field("retry", &self.retry)
            .field("guards", &self.guards)
            .field("health", &self.health)
            .field("host", &self.host)
            .field("sni", &self.sni)
            .field("ca_file", &self.ca_file)
            .field("verify", &self.verify)
            .field("protocol", &self.protocol)
            .field("header_names", &header_names)
            .field("header_files", &self.header_files)
            .field("sigv4", &self.sigv4)
            .field("client_certificate", &self.client_certificate)
            .field("deadlines", &self.deadlines)
            .field("concurrency_max", &self.concurrency_max)
            .field("blocking_max", &self.blocking_max)
            .field("slow_viewers_max", &self.slow_viewers_max)
            .field("queue_max", &self.queue_max)
            .field("requests_per_second_max", &self.requests_per_second_max)
            .field("resolve_every", &self.resolve_every)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(tls: bool, host: &str, port: u16) -> Endpoint {
        Endpoint::new(tls, host, port)
    }

    #[test]
    fn debug_output_hides_header_values() {
        let mut settings = Settings::single("main", endpoint(true, "o.example", 443));
        let value = HeaderValue::from_static("hunter2");
        settings.headers = vec![(http::header::AUTHORIZATION, value)];
        let shown = format!("{settings:?}");
        assert!(shown.contains("authorization"));
        assert!(!shown.contains("hunter2"));
    }
}
