//! Rejects requests to the admin port that a web page in an operator's browser sends. The port has
//! no password.
//!
//! Two attacks matter. DNS rebinding: a page's own domain resolves to this machine; then `Host` is
//! a domain that no operator uses. Cross-site requests: a page sends a POST to the port's address;
//! then the browser sets `Origin` and `Sec-Fetch-Site`.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, Request, StatusCode};

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AdminRejection {
    pub(super) status: StatusCode,
    pub(super) text: &'static str,
}

const UNKNOWN_HOST: AdminRejection = AdminRejection {
    status: StatusCode::MISDIRECTED_REQUEST,
    text: "this host name is not one of the admin port's: use its IP address, or add the name to \
           `hosts` of [admin]",
};

const CROSS_SITE: AdminRejection = AdminRejection {
    status: StatusCode::FORBIDDEN,
    text: "a web page of another site may not do this",
};

/// Why this request is rejected; `None` if it is accepted. `hosts` are the operators' names, in
/// lower case.
pub(super) fn rejection<B>(request: &Request<B>, hosts: &[String]) -> Option<AdminRejection> {
    let headers = request.headers();
    let target_host = request.uri().authority().map(http::uri::Authority::as_str);
    let header_host = headers.get(HOST).map(|host| host.to_str().unwrap_or("?"));
    let host = target_host.or(header_host);
    if host.is_some_and(|host| !is_operator_host(host, hosts)) {
        return Some(UNKNOWN_HOST);
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    (changes && is_cross_site(headers, host)).then_some(CROSS_SITE)
}

/// Whether `host` is an IP address, a name without a dot (no public domain), or a configured name.
fn is_operator_host(host: &str, hosts: &[String]) -> bool {
    let name = host_name(host).to_ascii_lowercase();
    let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
    address.is_ok() || !name.contains('.') || hosts.contains(&name)
}

/// A host without its port and its final dot.
fn host_name(host: &str) -> &str {
    let bracketed = host.starts_with('[').then(|| host.find(']')).flatten();
    let name = match (bracketed, host.rsplit_once(':')) {
        (Some(end), _) => &host[..=end],
        (None, Some((name, _))) => name,
        (None, None) => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether the browser marks this request as sent by another site's page.
fn is_cross_site(headers: &HeaderMap, host: Option<&str>) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let fetch_site = text("sec-fetch-site");
    let is_other_site = fetch_site.is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let origin = text(ORIGIN.as_str());
    let is_other_origin = origin.is_some_and(|origin| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_none() || authority != host
    });
    is_other_site || is_other_origin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected_status(method: &str, target: &str, fields: &[(&str, &str)]) -> Option<StatusCode> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let hosts = ["seawall.internal.example".to_owned()];
        let rejection = rejection(&request.body(()).unwrap(), &hosts);
        rejection.map(|rejection| rejection.status)
    }

    #[test]
    fn accepts_ip_single_label_and_configured_hosts() {
        for host in [
            "127.0.0.1:9090",
            "10.1.2.3",
            "[::1]:9090",
            "localhost:9090",
            "seawall:9090",
            "Seawall.Internal.Example.:9090",
        ] {
            assert_eq!(
                rejected_status("GET", "/metrics", &[("host", host)]),
                None,
                "{host}"
            );
        }
        assert_eq!(rejected_status("GET", "/metrics", &[]), None, "HTTP/1.0");
    }

    #[test]
    fn rejects_a_foreign_domain_that_resolves_to_this_machine() {
        let misdirected = Some(StatusCode::MISDIRECTED_REQUEST);
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:9090",
            "localhost.evil.example",
            "[x.y",
        ] {
            for method in ["GET", "POST"] {
                assert_eq!(
                    rejected_status(method, "/purge", &[("host", host)]),
                    misdirected,
                    "{host}"
                );
            }
        }
        let absolute = "http://evil.example/metrics";
        assert_eq!(
            rejected_status("GET", absolute, &[("host", "127.0.0.1")]),
            misdirected
        );
    }

    #[test]
    fn rejects_cross_site_requests() {
        let post = |name, value| {
            rejected_status(
                "POST",
                "/purge",
                &[("host", "127.0.0.1:9090"), (name, value)],
            )
        };
        let forbidden = Some(StatusCode::FORBIDDEN);
        assert_eq!(post("origin", "https://evil.example"), forbidden);
        assert_eq!(post("origin", "null"), forbidden);
        assert_eq!(post("origin", "http://127.0.0.1:8080"), forbidden);
        assert_eq!(post("sec-fetch-site", "cross-site"), forbidden);
        assert_eq!(post("sec-fetch-site", "same-site"), forbidden);
        assert_eq!(post("origin", "http://127.0.0.1:9090"), None);
        assert_eq!(post("sec-fetch-site", "same-origin"), None);
        assert_eq!(post("user-agent", "curl"), None);
    }
}
