//! Parses sockets, origins, hosts, paths and names. Pure: text in, values out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::Uri;
use http::uri::{Authority, Scheme};

use super::value_error::ValueError;
use crate::admin::AdminAddress;
use crate::frontend::ListenAddress;
use seawall_policy::access_rules::{AddressListEntry, IpNet};
use seawall_upstream::Endpoint;

const SOCKET: &str = "an address and port such as \"127.0.0.1:9090\" or \"[::]:8080\"";
const ADMIN_SOCKET: &str = "an address such as \"unix:/run/seawall/admin.sock\"";
const LISTEN: &str = "an address and port such as \"0.0.0.0:8080\" or \"[::]:8080\", \
                      or \"unix:/run/seawall.sock\"";
const ENDPOINT: &str = "an origin such as \"https://origin.example\" or \"http://10.0.0.5:8080\"";
const HOST: &str = "a host name such as \"live.example.com\" or \"*.example.com\"";
const PATH: &str = "a path such as \"/live\"";
const WEB_ORIGIN: &str = "a web origin such as \"https://player.example\"";
const ADDRESS_LIST_ENTRY: &str = "an address or a network such as \"192.0.2.7\", \"192.0.2.0/24\" or \
                                  \"2001:db8::/32\", or \"unix\"";
const NAME: &str = "a name such as \"live-1\" (letters, digits and -_.:/*)";

/// Longest name of an origin or a route: it is in every metric and log line.
const NAME_CHARS_MAX: usize = 128;

/// Reads a socket address that is reachable only from this machine by default: a missing address is
/// suggested as 127.0.0.1.
pub(crate) fn parse_socket_address(text: &str) -> Result<SocketAddr, ValueError> {
    parse_socket_address_or(text, Ipv4Addr::LOCALHOST)
}

/// Reads a socket address. If only the address is missing, `default_ip` is suggested.
fn parse_socket_address_or(text: &str, default_ip: Ipv4Addr) -> Result<SocketAddr, ValueError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let error = |why| ValueError::new(SOCKET, why);
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Err(error("the port is missing").suggestion(SocketAddr::new(ip, 8080).to_string()));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    match (host, port.parse::<u16>()) {
        ("", Err(_)) if text.is_empty() => Err(error("this is empty")),
        ("" | "*", Ok(port)) => {
            Err(error("the address is missing").suggestion(format!("{default_ip}:{port}")))
        }
        ("localhost", Ok(port)) => {
            Err(error("a name is not an address").suggestion(format!("127.0.0.1:{port}")))
        }
        _ => Err(error("not an address")),
    }
}

/// Reads the address of a listener: TCP or Unix.
pub(crate) fn parse_listen_address(text: &str) -> Result<ListenAddress, ValueError> {
    match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') => Ok(ListenAddress::Unix(path.into())),
        Some(_) => Err(ValueError::new(
            LISTEN,
            "the path of a Unix socket starts with /",
        )),
        None if text.starts_with('/') => {
            Err(ValueError::new(LISTEN, "a path needs unix: before it")
                .suggestion(format!("unix:{text}")))
        }
        None => match parse_socket_address_or(text, Ipv4Addr::UNSPECIFIED) {
            Ok(address) => Ok(ListenAddress::Tcp(address)),
            Err(error) => Err(ValueError {
                expected: LISTEN,
                ..error
            }),
        },
    }
}

/// Reads the address of the admin server: TCP or Unix.
pub(crate) fn parse_admin_address(text: &str) -> Result<AdminAddress, ValueError> {
    let Some(path) = text.strip_prefix("unix:") else {
        return match parse_socket_address(text) {
            Ok(address) => Ok(AdminAddress::Tcp(address)),
            Err(error) if text.starts_with('/') => Err(ValueError {
                suggestion: Some(format!("unix:{text}")),
                ..error
            }),
            Err(error) => Err(error),
        };
    };
    if path.starts_with('/') {
        return Ok(AdminAddress::Unix(path.into()));
    }
    let why = "the path of a Unix socket starts with /";
    Err(ValueError::new(ADMIN_SOCKET, why))
}

/// Reads the URL of an origin: scheme, host and optional port; nothing after that.
pub(crate) fn parse_endpoint(text: &str) -> Result<Endpoint, ValueError> {
    let error = |why| ValueError::new(ENDPOINT, why);
    if text.is_empty() {
        return Err(error("this is empty"));
    }
    if !text.contains("://") {
        return Err(without_scheme(text));
    }
    let uri: Uri = text.parse().map_err(|_| error("not a URL"))?;
    let tls = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        _ => return Err(error("the scheme must be http or https")),
    };
    let authority = uri.authority().ok_or(error("the host is missing"))?;
    if authority.as_str().contains('@') {
        return Err(error("no user or password here: set a header instead"));
    }
    if uri.query().is_some() || uri.path() != "/" {
        let plain = format!("{}://{authority}", if tls { "https" } else { "http" });
        return Err(error("a path or query has no place here").suggestion(plain));
    }
    let host = upstream_host(authority.host()).ok_or(error("not a host name or address"))?;
    let port = port(authority, tls).ok_or(error("not a port"))?;
    Ok(Endpoint::new(tls, host, port))
}

/// Explains an origin without `://`: a misspelt scheme, or no scheme at all.
fn without_scheme(text: &str) -> ValueError {
    let rest_of = |scheme: &str| {
        let rest = text.strip_prefix(scheme)?;
        let bare = rest.trim_start_matches([':', '/', '\\']);
        (bare.len() < rest.len()).then_some((scheme.len(), bare))
    };
    let misspelled = rest_of("https").or_else(|| rest_of("http"));
    let (why, scheme, rest) = match misspelled {
        Some((5, rest)) => ("`://` belongs after the scheme", "https", rest),
        Some((_, rest)) => ("`://` belongs after the scheme", "http", rest),
        None => ("the scheme is missing", "https", text),
    };
    let error = ValueError::new(ENDPOINT, why);
    let suggestion = format!("{scheme}://{rest}");
    if parse_endpoint(&suggestion).is_ok() {
        error.suggestion(suggestion)
    } else {
        error
    }
}

fn port(authority: &Authority, tls: bool) -> Option<u16> {
    let explicit = authority
        .as_str()
        .strip_prefix(authority.host())
        .unwrap_or_default();
    match explicit.strip_prefix(':') {
        Some(digits) => digits.parse().ok().filter(|port| *port != 0),
        None => Some(if tls { 443 } else { 80 }),
    }
}

/// A host name or an IP address without brackets, in canonical form.
fn upstream_host(host: &str) -> Option<String> {
    if let Some(inside) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        return inside.parse::<IpAddr>().ok().map(|ip| ip.to_string());
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    is_name(&name).then_some(name)
}

/// Reads a server name for TLS (SNI).
pub(crate) fn server_name(text: &str) -> Result<String, ValueError> {
    let expected = "a host name such as \"origin.example\"";
    upstream_host(text).ok_or(ValueError::new(expected, "not a host name"))
}

/// Reads a `Host` value: a name or address, with an optional port.
pub(crate) fn authority(text: &str) -> Result<String, ValueError> {
    let error = ValueError::new(
        "a host such as \"origin.example\" or \"origin.example:8080\"",
        "not a host",
    );
    match text.parse::<Authority>() {
        Ok(authority) if !text.contains('@') => Ok(authority.as_str().to_ascii_lowercase()),
        _ => Err(error),
    }
}

/// Reads a route's host and makes it canonical: lower case, no trailing dot.
pub(crate) fn host(text: &str) -> Result<String, ValueError> {
    let error = |why| ValueError::new(HOST, why);
    let canonical = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if let Some(bare) = canonical
        .split_once("://")
        .map(|(_, rest)| rest.trim_end_matches('/'))
    {
        return Err(error("a host, not a URL").suggestion(bare));
    }
    if canonical == "*" {
        return Err(error("leave `hosts` out to serve every host"));
    }
    if canonical.starts_with('[') && canonical.ends_with(']') {
        let ip = upstream_host(&canonical).ok_or(error("not an address"))?;
        return Ok(format!("[{ip}]"));
    }
    if let Some((name, _)) = canonical.rsplit_once(':') {
        return Err(error("hosts are named without a port").suggestion(name));
    }
    let name = canonical.strip_prefix("*.").unwrap_or(&canonical);
    if name.contains('*') {
        return Err(error(
            "a wildcard stands for the first labels only, as in \"*.example.com\"",
        ));
    }
    if !name.is_ascii() {
        return Err(error("write international names in their xn-- form"));
    }
    if is_name(name) {
        Ok(canonical)
    } else {
        Err(error("not a host name"))
    }
}

/// Reads a path prefix. A slash at its end is dropped, because prefixes end at segments.
pub(crate) fn path_prefix(text: &str) -> Result<String, ValueError> {
    let error = |why| ValueError::new(PATH, why);
    if !text.starts_with('/') {
        return Err(error("a path starts with /").suggestion(format!("/{text}")));
    }
    if let Some(bare) = text.trim_end_matches('/').strip_suffix("/*") {
        let suggestion = if bare.is_empty() { "/" } else { bare };
        return Err(error("everything below a path belongs to it anyway").suggestion(suggestion));
    }
    if text.contains(['?', '#', '*']) {
        return Err(error("a prefix has no query, fragment or wildcard"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(error(
            "write special characters as %XX, as players send them",
        ));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) || text.contains("//") {
        return Err(error("no empty, . or .. segments"));
    }
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

/// Reads where a route sends its viewers: a path, or an absolute URL.
pub(crate) fn redirect_target(text: &str) -> Result<String, ValueError> {
    const EXPECTED: &str = "a path, or a URL such as \"https://new.example/live\"";
    let error = |why| ValueError::new(EXPECTED, why);
    if text.contains(['?', '#']) {
        return Err(error("the viewer's own query follows it"));
    }
    let is_path = text.starts_with('/') && !text.starts_with("//") && !text.contains('\\');
    let is_url = text.parse::<Uri>().is_ok_and(|url| {
        let scheme = url
            .scheme_str()
            .is_some_and(|scheme| ["http", "https"].contains(&scheme));
        scheme
            && url
                .authority()
                .is_some_and(|host| !host.as_str().contains('@'))
    });
    if is_url || is_path && text.parse::<Uri>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(error("neither of them"))
}

/// Reads a web origin as browsers send it in `Origin`.
pub(crate) fn web_origin(text: &str) -> Result<String, ValueError> {
    let error = |why| ValueError::new(WEB_ORIGIN, why);
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(error("the scheme is missing").suggestion(format!("https://{text}")));
    };
    let host = rest.split('/').next().unwrap_or_default();
    if host.len() < rest.len() {
        let suggestion = format!("{scheme}://{host}");
        return Err(error("a web origin has no path").suggestion(suggestion));
    }
    match rest.parse::<Authority>() {
        Ok(_) if !rest.contains('@') => Ok(text.to_ascii_lowercase()),
        _ => Err(error("not a host")),
    }
}

/// Reads an entry of `allow` or `deny`: an address, a network, or `unix`.
pub(crate) fn address_list_entry(text: &str) -> Result<AddressListEntry, ValueError> {
    let error = |why| ValueError::new(ADDRESS_LIST_ENTRY, why);
    if text == "unix" {
        return Ok(AddressListEntry::UnixSocket);
    }
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) if text.parse::<SocketAddr>().is_ok() => {
            return Err(error("an address here has no port"));
        }
        Err(_) if text.is_empty() => return Err(error("this is empty")),
        Err(_) => {
            let not_a_network = "neither an address nor a network; names are not looked up";
            text.parse().map_err(|_| error(not_a_network))?
        }
    };
    if let Some(ipv4) = in_ipv4_form(network) {
        let why = "an IPv4 viewer is known by its IPv4 address";
        let ipv4 = AddressListEntry::Network(ipv4);
        return Err(error(why).suggestion(ipv4.to_string()));
    }
    if network.trunc() != network {
        let why = "the address has bits behind the length of the network";
        return Err(error(why).suggestion(network.trunc().to_string()));
    }
    Ok(AddressListEntry::Network(network))
}

/// The same network in IPv4 form, if it is one of IPv4 addresses in IPv6 form.
fn in_ipv4_form(network: IpNet) -> Option<IpNet> {
    const IPV4_BITS_START: u8 = 96;
    let IpNet::V6(network) = network else {
        return None;
    };
    let address = network.addr().to_ipv4_mapped()?;
    let length = network.prefix_len().checked_sub(IPV4_BITS_START)?;
    let ipv4 = IpNet::new(address.into(), length).ok()?;
    Some(ipv4.trunc())
}

/// Reads a name for metric labels and log fields.
pub(crate) fn name(text: &str) -> Result<String, ValueError> {
    let error = |why| ValueError::new(NAME, why);
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:/*[]%".contains(c);
    match text {
        "" => Err(error("this is empty")),
        _ if text.len() > NAME_CHARS_MAX => Err(error("must have at most 128 characters")),
        _ if !text.chars().all(is_allowed) => {
            Err(error("a character that does not belong in a name"))
        }
        _ => Ok(text.to_owned()),
    }
}

/// Reads the name of an AWS region as signatures spell it.
pub(crate) fn region(text: &str) -> Result<String, ValueError> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) {
        return Ok(text.to_owned());
    }
    Err(ValueError::new(
        "a region such as \"eu-west-1\"",
        "not a region's name",
    ))
}

/// Reads this shield's name in `Via` and `CDN-Loop`: one token.
pub(crate) fn pseudonym(text: &str) -> Result<String, ValueError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) {
        return Ok(text.to_owned());
    }
    Err(ValueError::new(
        "a name such as \"seawall\"",
        "1 to 64 letters, digits, dots and dashes",
    ))
}

/// Letters, digits, dashes and underscores in labels separated by dots.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests;
