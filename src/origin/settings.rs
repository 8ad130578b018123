//! What is an origin group set to?
//!
//! Plain values, validated where they were typed; nothing happens here.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

/// Settings of one origin group.
#[derive(Clone)]
pub struct Settings {
    /// Named in logs, metrics and routes.
    pub name: Arc<str>,
    /// Where it is. The first that can be reached answers; the others are tried in turn.
    pub endpoints: Vec<Endpoint>,
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
    pub headers: Vec<(http::HeaderName, HeaderValue)>,
    /// Deadlines.
    pub deadlines: Deadlines,
    /// Requests in flight at most; more wait.
    pub concurrency_max: usize,
    /// Requests waiting for a permit at most; more fail as [`super::Failure::Busy`].
    pub queue_max: usize,
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
    /// For a permit.
    pub queue: Duration,
    /// TCP, and TLS where it is spoken.
    pub connect: Duration,
    /// From the request's last byte to the end of the response's head.
    pub first_byte: Duration,
    /// Between two reads of the body.
    pub between_bytes: Duration,
    /// For everything.
    pub total: Duration,
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
            first_byte: Duration::from_secs(10),
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
            host: None,
            sni: None,
            ca_file: None,
            verify: true,
            protocol: Protocol::Auto,
            headers: Vec::new(),
            deadlines: Deadlines::default(),
            concurrency_max: 256,
            queue_max: 4096,
            resolve_every: Duration::from_secs(10),
        }
    }
}

impl Endpoint {
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
            .field("host", &self.host)
            .field("sni", &self.sni)
            .field("ca_file", &self.ca_file)
            .field("verify", &self.verify)
            .field("protocol", &self.protocol)
            .field("header_names", &header_names)
            .field("deadlines", &self.deadlines)
            .field("concurrency_max", &self.concurrency_max)
            .field("queue_max", &self.queue_max)
            .field("resolve_every", &self.resolve_every)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(tls: bool, host: &str, port: u16) -> Endpoint {
        let host = host.to_owned();
        Endpoint { tls, host, port }
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
