//! Decides who may use an endpoint: by host name and site, then by socket or token.
//!
//! Two attacks come through an operator's browser. DNS rebinding: a page's own domain resolves to
//! this machine; then `Host` is a domain that no operator uses. Cross-site requests: a page sends a
//! request to the port's address; then the browser sets `Origin` or `Sec-Fetch-Site`. No response
//! has CORS headers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, Request, StatusCode};

use super::declaration::AdminRole;
use super::tokens::AdminTokens;

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdminPeer {
    /// This address.
    Tcp(SocketAddr),
    /// The Unix socket: a process of this user, if the system says which.
    Unix(Option<u32>),
}

impl fmt::Display for AdminPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminPeer::Tcp(address) => address.fmt(f),
            AdminPeer::Unix(_) => f.write_str("unix"),
        }
    }
}

/// Who a request is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AdminActor {
    /// The bearer of the token with this name.
    Token(String),
    /// A user of this machine, by number, who may open the Unix socket.
    User(Option<u32>),
    /// Somebody without a token, where none is needed.
    Anyone,
}

impl fmt::Display for AdminActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminActor::Token(name) => write!(f, "token {name}"),
            AdminActor::User(Some(uid)) => write!(f, "uid {uid}"),
            AdminActor::User(None) => f.write_str("unknown uid"),
            AdminActor::Anyone => f.write_str("anyone"),
        }
    }
}

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

const NO_TOKEN: AdminRejection = AdminRejection {
    status: StatusCode::UNAUTHORIZED,
    text: "a token is needed: send `Authorization: Bearer TOKEN`, one of `tokens` of [admin]",
};

const WRONG_TOKEN: AdminRejection = AdminRejection {
    status: StatusCode::UNAUTHORIZED,
    text: "this is none of the tokens of [admin]",
};

const READ_ONLY: AdminRejection = AdminRejection {
    status: StatusCode::FORBIDDEN,
    text: "this token may only read: its role is `read`",
};

/// Who may use an endpoint that needs `role`, and who this is. Who can open the Unix socket may do
/// everything: its file mode decides. Without tokens everyone on TCP may: the server then listens
/// on loopback only.
pub(super) fn authorize(
    headers: &HeaderMap,
    peer: AdminPeer,
    tokens: &AdminTokens,
    role: Option<AdminRole>,
) -> Result<AdminActor, AdminRejection> {
    if let AdminPeer::Unix(user) = peer {
        return Ok(AdminActor::User(user));
    }
    let Some(role) = role.filter(|_| !tokens.is_empty()) else {
        return Ok(AdminActor::Anyone);
    };
    let token = tokens.find(bearer_token(headers).ok_or(NO_TOKEN)?);
    let token = token.ok_or(WRONG_TOKEN)?;
    if token.role < role {
        return Err(READ_ONLY);
    }
    Ok(AdminActor::Token(token.name.clone()))
}

/// The token of a request with exactly one `Authorization` field, of the scheme `Bearer`.
fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then_some(token.trim_ascii())
}

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
    is_cross_site(headers, host).then_some(CROSS_SITE)
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
            let fields = [("host", "127.0.0.1:9090"), (name, value)];
            let status = rejected_status("POST", "/purge", &fields);
            assert_eq!(
                rejected_status("GET", "/metrics", &fields),
                status,
                "{name}: {value}"
            );
            status
        };
        let forbidden = Some(StatusCode::FORBIDDEN);
        assert_eq!(post("origin", "https://evil.example"), forbidden);
        assert_eq!(post("origin", "null"), forbidden);
        assert_eq!(post("origin", "http://127.0.0.1:8080"), forbidden);
        assert_eq!(post("sec-fetch-site", "cross-site"), forbidden);
        assert_eq!(post("sec-fetch-site", "same-site"), forbidden);
        assert_eq!(post("origin", "http://127.0.0.1:9090"), None);
        assert_eq!(post("sec-fetch-site", "same-origin"), None);
        assert_eq!(post("sec-fetch-site", "none"), None, "the address bar");
        assert_eq!(post("user-agent", "curl"), None);
    }
}
