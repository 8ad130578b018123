//! Answers CORS for the origin, so that one stored response serves pages of all origins.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use seawall_policy::access::AccessRejection;
use seawall_policy::route::Cors;
use seawall_policy::{AccessRuleKind, Route, fields};

/// Response headers that players read; low-latency players use `Age`.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Age, Cache-Status, CMSD-Dynamic, CMSD-Static, Content-Length, Content-Range, Date, X-Request-Id",
);
/// The same with `Retry-After`.
const EXPOSED_TO_WAIT: HeaderValue = HeaderValue::from_static(
    "Age, Cache-Status, CMSD-Dynamic, CMSD-Static, Content-Length, Content-Range, Date, \
     Retry-After, X-Request-Id",
);
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const PASSED_METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE");
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("86400");
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

/// Adds the CORS fields for cross-origin pages.
pub(super) fn allow(response: &mut HeaderMap, viewer: &HeaderMap, route: &Route) {
    match &route.cors {
        Cors::Off => {}
        Cors::Any => {
            // Browsers reject a response that has this field beside `*`.
            response.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        Cors::Only {
            origins,
            credentials,
        } => {
            response.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            response.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
            response.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
            if !fields::lists(response, header::VARY, b"origin") {
                response.append(header::VARY, ORIGIN);
            }
            let page = viewer.get(header::ORIGIN);
            let known = page.filter(|page| origins.iter().any(|known| *page == known.as_str()));
            if let Some(page) = known {
                response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, page.clone());
                response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
                if *credentials {
                    response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
                }
            }
        }
    }
}

/// The same for a refusal. What it says tells nobody more than the preflight of the same request
/// would: an access rule other than the token refuses that too.
pub(super) fn allow_refused(
    response: &mut HeaderMap,
    viewer: &HeaderMap,
    rejection: &AccessRejection,
) {
    let is_preflight_refused = rejection
        .rule
        .is_some_and(|rule| rule != AccessRuleKind::Token);
    if let Some(route) = &rejection.route
        && !is_preflight_refused
    {
        allow(response, viewer, route);
        expose_retry_after(response, route);
    }
}

/// Lets the pages that [`allow`] admits read when they may return.
pub(super) fn expose_retry_after(response: &mut HeaderMap, route: &Route) {
    if route.cors != Cors::Off
        && response.contains_key(header::RETRY_AFTER)
        && response.contains_key(header::ACCESS_CONTROL_EXPOSE_HEADERS)
    {
        // Here [`allow`] has written it: in one line.
        response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_TO_WAIT);
    }
}

/// Answers a preflight.
pub(super) fn preflight(viewer: &HeaderMap, route: &Route) -> HeaderMap {
    let mut response = HeaderMap::new();
    let methods = if route.pass_methods {
        PASSED_METHODS
    } else {
        METHODS
    };
    response.insert(header::ALLOW, methods.clone());
    allow(&mut response, viewer, route);
    if response.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        allow_requested_headers(viewer, &mut response);
        response.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        response.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    }
    response
}

/// Any requested header is allowed: the shield drops it before the origin.
fn allow_requested_headers(viewer: &HeaderMap, response: &mut HeaderMap) {
    const REQUESTED: HeaderName = header::ACCESS_CONTROL_REQUEST_HEADERS;
    if let Some(requested) = viewer.get(REQUESTED) {
        response.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, requested.clone());
    }
}
