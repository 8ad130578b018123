//! What is an origin group set to?
//!
//! Plain values, validated where they were typed; nothing happens here.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode};

use super::guard::{backoff, breaker, budget, ejection, health, pace};
use super::sign::{ClientCertificate, Sigv4};
use super::{Balance, Quota};

/// Settings of one origin group.
#[derive(Clone)]
pub struct Settings {
    /// Named in logs, metrics and routes.
    pub name: Arc<str>,
    /// Where it is: one place or several with the same content.
    pub endpoints: Vec<Endpoint>,
    /// How requests are spread over endpoints of one priority.
    pub balance: Balance,
    /// When a request is sent again.
    pub retry: Retry,
    /// When an endpoint is not asked.
    pub guards: Guards,
    /// How endpoints are checked while nobody asks for anything; default: not at all.
    pub health: Option<Check>,
    /// `Host` sent upstream when a route does not forward the viewer's; default: the endpoint's.
    pub host: Option<String>,
    /// Name asked for in TLS and checked in the certificate; default: the endpoint's own.
    pub sni: Option<String>,
    /// PEM file of certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Check certificates (default). Off only for tests and laboratories.
    pub verify: bool,
    /// Which protocol to speak.
    pub protocol: Protocol,
    /// Headers set on every request, after everything else.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The same, from files that hold a value each and are read again when they change.
    pub header_files: Vec<(HeaderName, PathBuf)>,
    /// Sign requests for AWS.
    pub sigv4: Option<Sigv4>,
    /// Shown to origins that ask who is there.
    pub client_certificate: Option<ClientCertificate>,
    /// Deadlines.
    pub deadlines: Deadlines,
    /// Requests in flight at most; more wait.
    pub concurrency_max: usize,
    /// Requests whose answers the origin holds back (LL-HLS) at most, beside those; more wait.
    pub blocking_max: usize,
    /// Requests whose viewers are slower than the origin, to read an answer that is not stored or to send
    /// a body, at most; beside both. Beyond that, the one that has waited longest is cut.
    pub slow_viewers_max: usize,
    /// Requests waiting for a permit at most. Beyond that the last rank's fail as
    /// [`super::Failure::Busy`].
    pub queue_max: usize,
    /// Requests a second at most, after a burst of a tenth of that; more wait, as for a permit.
    pub requests_per_second_max: Option<u32>,
    /// How often names are resolved again.
    pub resolve_every: Duration,
}

/// Where an origin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Speak TLS.
    pub tls: bool,
    /// Name or address (an IPv6 address without brackets).
    pub host: String,
    /// Port.
    pub port: u16,
    /// Lower is asked first; the others only when none of those can answer.
    pub priority: u8,
    /// Its share of the requests among endpoints of its priority.
    pub weight: u32,
    /// Requests under way with it at most, beside the group's bound; beyond that it is passed over.
    pub concurrency_max: Option<usize>,
    /// Requests per second that it allows, beside the group's; beyond that it is passed over too.
    pub requests_per_second_max: Option<Quota>,
    /// The AWS region that its requests are signed for, where the group's is not its own.
    pub region: Option<String>,
}

/// What to speak to an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 (by prior knowledge without TLS).
    H2,
    /// HTTP/2 where ALPN offers it over TLS, else HTTP/1.1.
    Auto,
}

/// Every wait has one.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For a permit, and for a turn where there is a rate cap.
    pub queue: Duration,
    /// TCP, and TLS where it is spoken.
    pub connect: Duration,
    /// From the request's last byte to the end of the response's head: manifests.
    pub manifest: Duration,
    /// The same for everything else.
    pub first_byte: Duration,
    /// The same for what the origin holds back by intent, until there is something new to say
    /// (LL-HLS).
    pub blocking: Duration,
    /// Between two reads of the body.
    pub between_bytes: Duration,
    /// For everything up to the end of the head; and as much again for the body, beyond what its bytes take
    /// at 512 a second and without what its reader takes.
    pub total: Duration,
}

/// When a request is sent again: before the first byte of its answer's body, where sending it twice does no
/// harm, and as long as the group's budget for it lasts.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Further attempts at most. Endpoints not tried yet come first.
    pub attempts_max: u32,
    /// Statuses that are as good as no answer.
    pub statuses: Vec<StatusCode>,
    /// How long tries at the same endpoint are apart.
    pub backoff: backoff::Settings,
    /// How many retries and hedges a group may make.
    pub budget: budget::Settings,
    /// Whether another endpoint is asked too for what is late.
    pub hedge: bool,
    /// What somebody waits for is late after so long at the most, unless the endpoint is always so
    /// slow.
    pub hedge_after_max: Duration,
}

/// What keeps an endpoint from being asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guards {
    /// Too large a share of failures.
    pub breaker: breaker::Settings,
    /// Failures in a row, or answers much slower than the others'.
    pub ejection: ejection::Settings,
    /// How response times are estimated.
    pub pace: pace::Settings,
}

/// How an endpoint is checked while nobody asks for anything.
#[derive(Clone, Debug)]
pub struct Check {
    /// What is tried.
    pub kind: CheckKind,
    /// For all of a check.
    pub timeout: Duration,
    /// How often, and how many checks it takes to believe them.
    pub pace: health::Settings,
}

/// What a check tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A GET.
    Http {
        /// Of this.
        path: PathAndQuery,
        /// The statuses that are good; none listed: any 2xx and 3xx.
        expect: Vec<StatusCode>,
    },
    /// Connecting (with TLS where it is spoken) is enough.
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
            pace: health::Settings::default(),
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

/// Why a group could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A certificate file is unreadable.
    #[error("cannot read {path}: {source}")]
    CaFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system's certificate authorities, or some of the file's, cannot be used.
    #[error("cannot load the certificate authorities to trust")]
    Authorities,
    /// A header's file holds no value.
    #[error("cannot use {path} for a header: {why}")]
    HeaderFile {
        /// Which.
        path: PathBuf,
        /// Why; quotes nothing of it.
        why: String,
    },
    /// The certificate to show, or its key, cannot be used.
    #[error("cannot use the client certificate {path}: {why}")]
    ClientCertificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A signature needs a region, and nothing says which.
    #[error("no region is known to sign requests to {host} for")]
    Region {
        /// The endpoint.
        host: String,
    },
    /// This cannot be sent as `Host`.
    #[error("{host:?} cannot be sent as Host")]
    Host {
        /// What cannot.
        host: String,
    },
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
    /// A group with one endpoint and the default bounds.
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

impl Endpoint {
    /// An endpoint like any other.
    pub fn new(tls: bool, host: impl Into<String>, port: u16) -> Endpoint {
        Endpoint {
            tls,
            host: host.into(),
            port,
            priority: 0,
            weight: 1,
            concurrency_max: None,
            requests_per_second_max: None,
            region: None,
        }
    }

    /// The region that the names of AWS endpoints end with: `….mediapackagev2.eu-west-1.amazonaws.com`.
    pub fn region_in_host(&self) -> Option<&str> {
        let domain = self.host.strip_suffix(".amazonaws.com");
        let domain = domain.or_else(|| self.host.strip_suffix(".amazonaws.com.cn"))?;
        let (before, region) = domain.rsplit_once('.')?;
        let service = before.rsplit('.').next().unwrap_or_default();
        let is_regional = ["mediapackagev2", "s3"].contains(&service);
        is_regional.then_some(region)
    }

    /// As it is typed.
    pub(super) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    /// What `Host` says of it: the port only where it is not the scheme's own.
    pub(super) fn authority(&self) -> String {
        let bracketed = self.host.contains(':');
        let (open, close) = if bracketed { ("[", "]") } else { ("", "") };
        let usual_port = if self.tls { 443 } else { 80 };
        if self.port == usual_port {
            format!("{open}{}{close}", self.host)
        } else {
            format!("{open}{}{close}:{}", self.host, self.port)
        }
    }
}

/// Header values may be secrets (a token the origin wants to see): only their names are shown.
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
    fn a_secret_header_is_not_shown() {
        let mut settings = Settings::single("main", endpoint(true, "o.example", 443));
        let value = HeaderValue::from_static("hunter2");
        settings.headers = vec![(http::header::AUTHORIZATION, value)];
        let shown = format!("{settings:?}");
        assert!(shown.contains("authorization"));
        assert!(!shown.contains("hunter2"));
    }

    #[test]
    fn an_authority_names_the_port_only_where_it_matters() {
        assert_eq!(endpoint(true, "o.example", 443).authority(), "o.example");
        assert_eq!(endpoint(false, "o.example", 80).authority(), "o.example");
        assert_eq!(
            endpoint(false, "o.example", 443).authority(),
            "o.example:443"
        );
        assert_eq!(endpoint(true, "::1", 8443).authority(), "[::1]:8443");
    }
}
