//! Decides which header fields are forwarded: from viewer to origin an allow-list, from origin to
//! viewer all but the hop-by-hop fields.

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT_ENCODING, AGE, AUTHORIZATION, CDN_CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE,
    EXPECT, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    ORIGIN, RANGE, VIA, WARNING,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::cookies::ignore_cookies;
use super::vary::Vary;
use super::{Route, encoding, fields};
use seawall_manifest::Kind;

/// Each server's statement about one response (CTA-5006); it is not true for a stored response.
pub static CMSD_DYNAMIC: HeaderName = HeaderName::from_static("cmsd-dynamic");
static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
static SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// Maximum length of a forwarded `Via` or `CDN-Loop`.
const CHAIN_BYTES_MAX: usize = 1024;

/// Removes hop-by-hop fields and the fields that `Connection` names. It never removes `Host`,
/// `Authorization`, `Cache-Control`, `Content-*`, `Set-Cookie`, `Vary`, `ETag` and others whose
/// loss would change the meaning.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in nominated(headers) {
        headers.remove(name);
    }
    let connection: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_hop_by_hop(name))
        .cloned()
        .collect();
    for name in connection {
        headers.remove(name);
    }
}

/// The viewer's fields that the route forwards (`forward_headers`), each as one line and without
/// the cookies that it ignores (`ignore_cookies`), and those that its rules set for objects of this
/// kind, as they are sent and as they are in the key. `None`: there are none.
///
/// Cookies, `Authorization` and forwarding headers are sent only if the route names them. Some
/// fields are never sent: hop-by-hop fields; `Range` and preconditions, because an upstream request
/// serves all viewers and requests the whole object; `Host`, which the route decides; `Origin`,
/// because [`super::vary::Vary::of`] relies on its absence; and CMCD headers (`CMCD-…`).
pub fn forwarded(viewer: &HeaderMap, route: &Route, kind: Kind) -> Option<HeaderMap> {
    let rules = &route.header_rules;
    if route.forward_headers.is_empty() && rules.to_origin.is_empty() {
        return None;
    }
    let mut sent = HeaderMap::new();
    copy_listed(viewer, &route.forward_headers, &mut sent);
    ignore_cookies(&mut sent, &route.ignore_cookies);
    rules.apply_to_request(kind, &mut sent);
    (!sent.is_empty()).then_some(sent)
}

/// The headers of an upstream request. `forwarded`, the result of [`forwarded`], is in the key.
/// Only these fields are sent and not in the key:
///
/// - `Accept-Encoding` in its two canonical forms: `Vary` separates the variants it selects;
/// - `CDN-Loop` with the viewer's chain, for loop detection, and the route's `unkeyed_headers`: see
///   [`unkeyed_values`].
///
/// `Via` names only this shield, because the request is made for all viewers.
pub fn upstream(
    viewer: &HeaderMap,
    forwarded: Option<&HeaderMap>,
    route: &Route,
    name: &str,
) -> HeaderMap {
    let mut sent = forwarded.cloned().unwrap_or_default();
    sent.reserve(route.unkeyed_headers.len() + 3);
    copy_listed(viewer, &route.unkeyed_headers, &mut sent);
    if let Some(coding) = encoding::canonical(viewer) {
        sent.insert(ACCEPT_ENCODING, coding);
    }
    // `Via` should state the version of the previous hop. It is always 1.1 here: the rules do not
    // know the connection, and no server acts on it.
    if let Ok(via) = HeaderValue::try_from(format!("1.1 {name}")) {
        sent.insert(VIA, via);
    }
    if let Some(cdn_loop) = chained(viewer, &CDN_LOOP, name) {
        sent.insert(CDN_LOOP.clone(), cdn_loop);
    }
    sent
}

/// Whether the viewer's request has fields that are sent but not in the key. Cheap, for hits.
pub fn has_unkeyed_values(viewer: &HeaderMap, route: &Route) -> bool {
    let listed = &route.unkeyed_headers;
    viewer.contains_key(&CDN_LOOP) || listed.iter().any(|field| viewer.contains_key(field))
}

/// The fields of an upstream request that come from one viewer and are not in the key,
/// length-framed. `None`: there are none. These fields may have caused an error response, so it is
/// shared only with requests that send the same values.
pub fn unkeyed_values(sent: &HeaderMap, route: &Route, name: &str) -> Option<Vec<u8>> {
    let chain = sent.get(&CDN_LOOP).filter(|chain| *chain != name);
    let mut names: Vec<HeaderName> = chain.map(|_| CDN_LOOP.clone()).into_iter().collect();
    let listed = route.unkeyed_headers.iter();
    names.extend(listed.filter(|field| sent.contains_key(*field)).cloned());
    let listed: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    let listed = listed.join(",");
    let values = Vary::values(&names, sent);
    (!names.is_empty()).then(|| [listed.as_bytes(), b":", &values].concat())
}

/// The request without the fields of [`unkeyed_values`], as the shield would make it itself.
pub fn without_unkeyed_values(sent: &HeaderMap, route: &Route, name: &str) -> HeaderMap {
    let mut headers = sent.clone();
    for field in &route.unkeyed_headers {
        headers.remove(field);
    }
    if let Ok(cdn_loop) = HeaderValue::try_from(name) {
        headers.insert(CDN_LOOP.clone(), cdn_loop);
    }
    headers
}

/// The headers of a request that is passed on for one viewer (a `POST`, a `PUT`): those of
/// [`upstream`], the fields that describe the body, and preconditions. The connection sets the body
/// length.
pub fn passed(
    viewer: &HeaderMap,
    forwarded: Option<&HeaderMap>,
    route: &Route,
    name: &str,
) -> HeaderMap {
    let mut sent = upstream(viewer, forwarded, route, name);
    for field in viewer.keys() {
        let describes_body = field.as_str().starts_with("content-") && field != CONTENT_LENGTH;
        if (describes_body || is_precondition(field)) && !sent.contains_key(field) {
            copy(viewer, field, &mut sent);
        }
    }
    sent
}

/// The viewer's fields of an upstream request, for repeating it on behalf of all viewers. `None`:
/// the request carried a viewer's credentials.
pub fn shareable_headers(sent: &HeaderMap, route: &Route) -> Option<HeaderMap> {
    if sent.contains_key(AUTHORIZATION) || sent.contains_key(COOKIE) {
        return None;
    }
    let mut others = HeaderMap::new();
    for field in route.forward_headers.iter().chain(&route.unkeyed_headers) {
        copy(sent, field, &mut others);
    }
    Some(others)
}

/// Whether the request has already passed through this shield (`CDN-Loop`, RFC 8586). A chain that
/// is too long to be forwarded counts as a loop, because dropping it would hide one.
pub fn loops(viewer: &HeaderMap, name: &str) -> bool {
    let lines = viewer.get_all(&CDN_LOOP);
    if lines.iter().map(HeaderValue::len).sum::<usize>() > CHAIN_BYTES_MAX {
        return true;
    }
    fields::elements_of(lines).any(|element| {
        // `cdn-info = cdn-id *( OWS ";" OWS parameter )`
        fields::split(element, b';')
            .next()
            .is_some_and(|id| id.eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// An origin's response headers as they are stored and sent. Hop-by-hop fields are removed and
/// `Via` is added. Also removed: `Surrogate-Control`, which is for the next surrogate only
/// (`CDN-Cache-Control` is for all caches and stays: RFC 9213 §3.1); `Age`, which is computed
/// again; `CMSD-Dynamic`, which is about one response; `Content-Length`, which the body knows;
/// `Warning`, which is obsolete (RFC 9111 §5.5).
pub fn downstream(mut origin: HeaderMap, name: &str) -> HeaderMap {
    strip_hop_by_hop(&mut origin);
    for field in [AGE, CONTENT_LENGTH, WARNING] {
        origin.remove(field);
    }
    origin.remove(&SURROGATE_CONTROL);
    origin.remove(&CMSD_DYNAMIC);
    if let Some(via) = chained(&origin, &VIA, &format!("1.1 {name}")) {
        origin.insert(VIA, via);
    }
    origin
}

/// Stored headers as an origin sent them, as far as is known: without this shield in `Via`, and
/// with the fields that only it has read.
pub fn as_received(mut stored: HeaderMap, targeted: Option<&HeaderMap>, name: &str) -> HeaderMap {
    if let Some(via) = stored.remove(VIA) {
        let own = format!("1.1 {name}");
        let earlier = via.as_bytes().strip_suffix(own.as_bytes());
        let earlier = earlier.and_then(|earlier| earlier.strip_suffix(b", "));
        let earlier = earlier.and_then(|earlier| HeaderValue::from_bytes(earlier).ok());
        stored.extend(earlier.map(|earlier| (VIA, earlier)));
    }
    for field in targeted.into_iter().flat_map(HeaderMap::keys) {
        stored.remove(field);
    }
    for (field, value) in targeted.into_iter().flatten() {
        stored.append(field, value.clone());
    }
    stored
}

/// The targeted cache-control fields of an origin's response.
pub fn targeted(origin: &HeaderMap) -> Option<Box<HeaderMap>> {
    let fields = [&CDN_CACHE_CONTROL, &SURROGATE_CONTROL];
    let lines = fields.into_iter().flat_map(|field| {
        let values = origin.get_all(field).iter();
        values.map(move |value| (field.clone(), value.clone()))
    });
    let targeted: HeaderMap = lines.collect();
    (!targeted.is_empty()).then(|| Box::new(targeted))
}

/// The time of the last change of a manifest, from MediaPackage's own header, in milliseconds.
pub fn last_updated(origin: &HeaderMap) -> Option<SystemTime> {
    const NAME: &str = "x-mediapackage-manifest-last-updated";
    let millis = fields::single(origin, NAME)?.to_str().ok()?.trim().parse();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis.ok()?))
}

/// The origin's `Age` field.
pub fn age(origin: &HeaderMap) -> Option<(HeaderName, HeaderValue)> {
    origin.get(AGE).map(|age| (AGE, age.clone()))
}

/// The fields that are hop-by-hop even if `Connection` does not name them (RFC 9110 §7.6.1).
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// The fields that `Connection` names and that may be removed. Empty, without allocation, for the
/// usual `close` and `keep-alive`.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    fields::elements(headers, CONNECTION)
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| headers.contains_key(name) && !is_end_to_end(name))
        .collect()
}

/// Fields for all recipients. `Connection` must not name them (RFC 9110 §7.6.1); a client that does
/// may be attacking a cache or an origin.
fn is_end_to_end(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "accept-encoding"
            | "age"
            | "authorization"
            | "cache-control"
            | "cdn-cache-control"
            | "cdn-loop"
            | "cookie"
            | "date"
            | "etag"
            | "expires"
            | "host"
            | "last-modified"
            | "location"
            | "origin"
            | "pragma"
            | "range"
            | "set-cookie"
            | "surrogate-control"
            | "vary"
            | "via"
            | "www-authenticate"
    ) || name.starts_with("content-")
        || name.starts_with("if-")
        || name.starts_with("access-control-")
}

/// Fields of an upstream request that only the shield sets. No allow-list can forward a viewer's
/// value.
pub fn is_set_by_shield(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 8] = [
        ACCEPT_ENCODING,
        CONTENT_LENGTH,
        EXPECT,
        HOST,
        IF_RANGE,
        ORIGIN,
        RANGE,
        VIA,
    ];
    OURS.contains(name) || *name == CDN_LOOP || is_precondition(name) || is_cmcd(name)
}

/// CMCD fields (CTA-5004). They differ with every request.
pub fn is_cmcd(name: &HeaderName) -> bool {
    name.as_str().starts_with("cmcd-")
}

fn is_precondition(name: &HeaderName) -> bool {
    const PRECONDITIONS: [HeaderName; 4] = [
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_UNMODIFIED_SINCE,
    ];
    PRECONDITIONS.contains(name)
}

/// Copies the listed fields that may be forwarded.
fn copy_listed(viewer: &HeaderMap, listed: &[HeaderName], sent: &mut HeaderMap) {
    let nominated = nominated(viewer);
    for field in listed {
        if !is_set_by_shield(field) && !is_hop_by_hop(field) && !nominated.contains(field) {
            copy(viewer, field, sent);
        }
    }
}

/// Copies a field as one line, so that equal values have equal bytes. HTTP/2 splits `Cookie` into
/// several lines, which HTTP/1.1 requires to be joined by semicolons (RFC 9113 §8.2.3).
fn copy(from: &HeaderMap, field: &HeaderName, to: &mut HeaderMap) {
    let separator: &[u8] = if field == COOKIE { b"; " } else { b", " };
    if let Some(whole) = joined(from, field, separator) {
        to.insert(field, whole);
    }
}

/// A list field with one element appended. `None` only if the element is not a valid field value.
fn chained(headers: &HeaderMap, field: &HeaderName, entry: &str) -> Option<HeaderValue> {
    let earlier = joined(headers, field, b", ").filter(|earlier| {
        !earlier.is_empty() && earlier.len() + 2 + entry.len() <= CHAIN_BYTES_MAX
    });
    let Some(earlier) = earlier else {
        return HeaderValue::from_str(entry).ok();
    };
    let chain = [earlier.as_bytes(), b", ", entry.as_bytes()].concat();
    HeaderValue::try_from(chain).ok()
}

/// All lines of a field as one value; `None` if there are none.
fn joined(headers: &HeaderMap, field: &HeaderName, separator: &[u8]) -> Option<HeaderValue> {
    let mut lines = headers.get_all(field).into_iter();
    let first = lines.next()?;
    let mut whole = first.as_bytes().to_vec();
    let mut more = false;
    for line in lines {
        more = true;
        whole.extend_from_slice(separator);
        whole.extend_from_slice(line.as_bytes());
    }
    if more {
        HeaderValue::try_from(whole).ok()
    } else {
        Some(first.clone())
    }
}
