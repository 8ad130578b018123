//! Where one server of an origin group is, and what it allows.

use super::Quota;

/// One server of an origin group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Use TLS.
    pub tls: bool,
    /// Host name or address (IPv6 without brackets).
    pub host: String,
    /// Port.
    pub port: u16,
    /// Lower values are tried first; higher ones only if no lower one can answer.
    pub priority: u8,
    /// Share of the requests among endpoints of the same priority.
    pub weight: u32,
    /// Maximum requests in progress at this endpoint, besides the group's limit; beyond that it is
    /// skipped.
    pub concurrency_max: Option<usize>,
    /// Maximum requests per second at this endpoint, besides the group's limit; beyond that it is
    /// skipped.
    pub requests_per_second_max: Option<Quota>,
    /// AWS region for signing, if it differs from the group's.
    pub region: Option<String>,
}

impl Endpoint {
    /// An endpoint with default settings.
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

    /// The region in an AWS host name: `….mediapackagev2.eu-west-1.amazonaws.com`.
    pub fn region_in_host(&self) -> Option<&str> {
        let domain = self.host.strip_suffix(".amazonaws.com");
        let domain = domain.or_else(|| self.host.strip_suffix(".amazonaws.com.cn"))?;
        let (before, region) = domain.rsplit_once('.')?;
        let service = before.rsplit('.').next().unwrap_or_default();
        let is_regional = ["mediapackagev2", "s3"].contains(&service);
        is_regional.then_some(region)
    }

    /// The URL, without a path.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    /// The `Host` value: with the port only if it is not the scheme's default.
    pub(super) fn authority(&self) -> String {
        let is_ipv6 = self.host.contains(':');
        let (open, close) = if is_ipv6 { ("[", "]") } else { ("", "") };
        let default_port = if self.tls { 443 } else { 80 };
        if self.port == default_port {
            format!("{open}{}{close}", self.host)
        } else {
            format!("{open}{}{close}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(tls: bool, host: &str, port: u16) -> Endpoint {
        Endpoint::new(tls, host, port)
    }

    #[test]
    fn authority_omits_the_default_port() {
        assert_eq!(endpoint(true, "o.example", 443).authority(), "o.example");
        assert_eq!(endpoint(false, "o.example", 80).authority(), "o.example");
        assert_eq!(
            endpoint(false, "o.example", 443).authority(),
            "o.example:443"
        );
        assert_eq!(endpoint(true, "::1", 8443).authority(), "[::1]:8443");
    }
}
