//! Admits or rejects a request, and determines its route, kind and cache key.
//!
//! The host is normalized. The path is never rewritten: the key is built from what is forwarded.

mod entry;

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::sync::Arc;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use percent_encoding::percent_decode_str;

pub use self::entry::{Destination, Requester};
pub use super::access_rejection::AccessRejection;
use super::access_rejection::bad;
pub use super::cache_request::CacheRequest;
use super::delivery_directives::{DeliveryDirectives, SplitQuery};
use super::{Key, Route, Rules, headers};
use seawall_manifest::Kind;

/// The decision about a request.
#[derive(Debug)]
pub enum Admission {
    /// GET or HEAD, served by the cache.
    Cache(CacheRequest),
    /// OPTIONS: the shield answers it.
    Preflight(Arc<Route>),
    /// Another method, on a route that passes it to the origin.
    Pass(CacheRequest),
    /// The route sends its viewers to this location.
    Redirect(Arc<Route>, StatusCode, HeaderValue),
    /// Rejected.
    Reject(AccessRejection),
}

/// The canonical host of an absolute URL.
pub fn host_of(url: &Uri) -> Option<String> {
    let no_headers = HeaderMap::new();
    let host = canonical_host(url, Version::HTTP_2, &no_headers);
    host.ok().map(|host| host.host.into_owned())
}

/// Decides about a parsed request.
pub fn access(
    rules: &Rules,
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
    requester: Requester<'_>,
) -> Admission {
    match enter(rules, uri, version, headers, requester) {
        Ok(destination) => destination.admit(method, uri, headers),
        Err(rejection) => Admission::Reject(rejection),
    }
}

/// Finds where a request leads, and applies the access rules there, but for tokens.
pub fn enter<'r, 'q>(
    rules: &'r Rules,
    uri: &'q Uri,
    version: Version,
    headers: &'q HeaderMap,
    requester: Requester<'_>,
) -> Result<Destination<'r, 'q>, AccessRejection> {
    let HostAndPort { host, port } = canonical_host(uri, version, headers)?;
    let path = uri.path();
    if !path.starts_with('/') {
        return Err(bad("request target is not a path"));
    }
    Destination::enter(rules, (host, port), path, headers, requester)
}

impl Destination<'_, '_> {
    /// Decides about a request that may enter.
    pub fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Admission {
        let admission = try_admit(self, method, uri, headers);
        admission.unwrap_or_else(|rejection| Admission::Reject(rejection.of_route(self.route)))
    }
}

fn try_admit(
    Destination { host, route, .. }: &Destination<'_, '_>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Admission, AccessRejection> {
    check_path(&uri.path()[route.path_prefix.trim_end_matches('/').len()..])?;
    if *method == Method::OPTIONS {
        return Ok(Admission::Preflight(Arc::clone(route)));
    }
    if let Some(redirect) = &route.redirect {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(not_allowed());
        }
        let location = redirect.location(&route.path_prefix, uri);
        let location = location.ok_or_else(AccessRejection::unreadable)?;
        return Ok(Admission::Redirect(
            Arc::clone(route),
            redirect.status,
            location,
        ));
    }
    let request = cache_request(route, host, uri, headers)?;
    match *method {
        Method::GET | Method::HEAD => Ok(Admission::Cache(request)),
        Method::CONNECT | Method::TRACE => Err(not_allowed()),
        _ if route.pass_methods => Ok(Admission::Pass(request)),
        _ => Err(not_allowed()),
    }
}

fn not_allowed() -> AccessRejection {
    AccessRejection {
        status: StatusCode::METHOD_NOT_ALLOWED,
        why: "method not allowed here",
        rule: None,
        detail: None,
        retry_after: None,
        route: None,
    }
}

pub(super) fn cache_request(
    route: &Arc<Route>,
    host: &str,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<CacheRequest, AccessRejection> {
    let kind = Kind::of_path(uri.path());
    let forwarded = headers::forwarded(headers, route, kind).map(Arc::new);
    let host = HeaderValue::from_str(host).map_err(|_| bad("host is not text"))?;
    let sent_host = route.forward_host.then_some(&host);
    let key =
        |target: &PathAndQuery| Key::of_target(route, sent_host, target, forwarded.as_deref());
    let (target, delivery) = match SplitQuery::of(kind, uri.query().unwrap_or_default()) {
        SplitQuery::WithoutDirectives => (filtered_target(route, kind, uri, &[])?, None),
        SplitQuery::Malformed(..) if route.query.keeps_all(kind, uri) => {
            (unchanged_target(uri)?, None)
        }
        SplitQuery::Malformed(rest, directives) => {
            let uri = with_query(uri, &rest)?;
            (filtered_target(route, kind, &uri, &directives)?, None)
        }
        SplitQuery::WithDirectives(directives, rest) => {
            let base_target = filtered_target(route, kind, &with_query(uri, &rest)?, &[])?;
            let base_key = key(&base_target);
            let delivery = DeliveryDirectives::new(directives, route, base_target, base_key);
            (delivery.target()?, Some(Arc::new(delivery)))
        }
    };
    Ok(CacheRequest {
        kind,
        route: Arc::clone(route),
        key: key(&target),
        target,
        host,
        delivery,
        forwarded,
        class: None,
    })
}

fn unchanged_target(uri: &Uri) -> Result<PathAndQuery, AccessRejection> {
    let target = uri.path_and_query().cloned();
    target.ok_or(bad("request target has no path"))
}

fn with_query(uri: &Uri, query: &str) -> Result<Uri, AccessRejection> {
    let target = if query.is_empty() {
        uri.path().to_owned()
    } else {
        format!("{}?{query}", uri.path())
    };
    target.parse().map_err(|_| AccessRejection::unreadable())
}

/// The request target for the origin: the query as filtered by the route, and the pairs in
/// `extra_pairs`.
fn filtered_target(
    route: &Route,
    kind: Kind,
    uri: &Uri,
    extra_pairs: &[&str],
) -> Result<PathAndQuery, AccessRejection> {
    let query = uri.query().unwrap_or_default();
    if uri.query().is_none() && extra_pairs.is_empty() {
        return unchanged_target(uri);
    }
    let kept = match route.query.keep(kind, query) {
        Some(Cow::Borrowed(kept)) if kept.len() == query.len() && extra_pairs.is_empty() => {
            return unchanged_target(uri);
        }
        kept => kept,
    };
    let pairs: Vec<&str> = kept
        .as_deref()
        .into_iter()
        .chain(extra_pairs.iter().copied())
        .collect();
    let target = if pairs.is_empty() {
        uri.path().to_owned()
    } else {
        format!("{}?{}", uri.path(), pairs.join("&"))
    };
    PathAndQuery::try_from(target).map_err(|_| AccessRejection::unreadable())
}

/// Normalizes the host for matching, key and upstream: lower case, no trailing dot, the port apart.
///
/// A request target with a host must name the same host as `Host`. RFC 9113 §8.3.1 requires that of
/// HTTP/2. In HTTP/1 the target would win (RFC 9112 §3.2.2), but a proxy in front may have decided
/// by `Host`. HTTP/1.1 requires `Host`.
fn canonical_host<'r>(
    uri: &'r Uri,
    version: Version,
    headers: &'r HeaderMap,
) -> Result<HostAndPort<'r>, AccessRejection> {
    let mut fields = headers.get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(bad("more than one Host"));
    }
    let field = match field {
        // HTTP/1.0 clients may omit the host or leave it empty; routes that match every host apply.
        Some(host) if host.is_empty() && version <= Version::HTTP_10 => None,
        Some(host) => {
            let host = host.to_str().map_err(|_| bad("Host is not text"))?;
            Some(HostAndPort::parse(host)?)
        }
        None if version == Version::HTTP_11 => return Err(bad("Host is missing")),
        None => None,
    };
    let target = match uri.authority() {
        Some(authority) => Some(HostAndPort::parse(authority.as_str())?),
        None => None,
    };
    match (target, field) {
        (Some(target), Some(field)) => {
            let is_same = target.host == field.host && target.port(uri) == field.port(uri);
            let differs = bad("Host differs from the request target");
            is_same.then_some(target).ok_or(differs)
        }
        (Some(target), None) => Ok(target),
        (None, Some(field)) => Ok(field),
        (None, None) if version <= Version::HTTP_10 => Ok(HostAndPort {
            host: Cow::Borrowed(""),
            port: None,
        }),
        (None, None) => Err(bad("Host is missing")),
    }
}

/// A normalized host and a port.
pub(super) struct HostAndPort<'r> {
    pub(super) host: Cow<'r, str>,
    port: Option<u16>,
}

impl<'r> HostAndPort<'r> {
    pub(super) fn parse(text: &'r str) -> Result<HostAndPort<'r>, AccessRejection> {
        if text.is_empty() {
            return Err(bad("Host is empty"));
        }
        let end = match text.strip_prefix('[') {
            Some(rest) => 2 + rest.find(']').ok_or(bad("Host is not an address"))?,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, port) = text.split_at(end);
        Ok(HostAndPort {
            host: canonical_name(host)?,
            port: port_number(port)?,
        })
    }

    fn port(&self, uri: &Uri) -> u16 {
        let is_secure = uri.scheme() == Some(&Scheme::HTTPS);
        self.port.unwrap_or(if is_secure { 443 } else { 80 })
    }
}

/// The optional port after a host: a colon and any number of digits (RFC 3986 §3.2.3).
fn port_number(text: &str) -> Result<Option<u16>, AccessRejection> {
    let digits = text.strip_prefix(':').unwrap_or(text);
    if digits.is_empty() {
        return Ok(None);
    }
    let is_port = digits.len() < text.len() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| is_port);
    number.map(Some).ok_or(bad("Host has an invalid port"))
}

fn canonical_name(host: &str) -> Result<Cow<'_, str>, AccessRejection> {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap_or(address);
        let address: Ipv6Addr = address.parse().map_err(|_| bad("Host is not an address"))?;
        return Ok(Cow::Owned(format!("[{address}]")));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    // A name must not have an empty label.
    let (mut previous, mut is_lower) = (b'.', true);
    for byte in name.bytes() {
        let is_allowed = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !is_allowed || (byte == b'.' && previous == b'.') {
            return Err(bad("Host is not a name or an address"));
        }
        is_lower &= !byte.is_ascii_uppercase();
        previous = byte;
    }
    match (previous, is_lower) {
        (b'.', _) => Err(bad("Host is not a name or an address")),
        (_, true) => Ok(Cow::Borrowed(name)),
        (_, false) => Ok(Cow::Owned(name.to_ascii_lowercase())),
    }
}

/// Rejects paths (below a route's prefix) that an origin could resolve to outside the prefix or end
/// early, however the dots and slashes are encoded.
pub(super) fn check_path(path: &str) -> Result<(), AccessRejection> {
    // The common case needs one scan: no percent-encoding, no dot segments, no backslashes.
    let mut previous = b'/';
    let needs_no_decoding = path.bytes().all(|byte| {
        let starts_dot_segment = byte == b'.' && previous == b'/';
        previous = byte;
        !starts_dot_segment && byte != b'%' && byte != b'\\'
    });
    if needs_no_decoding {
        return Ok(());
    }
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    if decoded.contains(&0) {
        return Err(bad("path contains a NUL byte"));
    }
    let mut depth = 0_i32;
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment {
            b"" | b"." => {}
            b".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Err(bad("path leaves the path prefix of its route"));
        }
    }
    Ok(())
}

/// For the tests of this crate and of those that build on it.
#[cfg(any(test, feature = "test-util"))]
impl CacheRequest {
    /// The request of a viewer, for tests.
    pub fn asked(rules: &Rules, host: &'static str, uri: &'static str) -> CacheRequest {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
        let uri = Uri::from_static(uri);
        let unrestricted = Requester::Unrestricted;
        match access(
            rules,
            &Method::GET,
            &uri,
            Version::HTTP_11,
            &headers,
            unrestricted,
        ) {
            Admission::Cache(entry) => entry,
            other => panic!("{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests;
