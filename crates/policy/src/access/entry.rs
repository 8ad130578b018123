//! Decides whether a request may enter the route that was found for it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use percent_encoding::percent_decode_str;

use crate::access_rejection::AccessRejection;
use crate::route::is_below;
use crate::{CertificateNames, FileSecrets, Route, Rules};

/// Who sends a request.
#[derive(Clone, Copy, Debug)]
pub enum Requester<'r> {
    /// A viewer: the access rules of the route apply.
    Viewer {
        /// `None` on a Unix socket.
        address: Option<IpAddr>,
        /// The class of its client, if there are classes.
        class: Option<&'r str>,
        /// Whom its certificate names, if it has one.
        certificate: Option<&'r CertificateNames>,
        /// The secrets that the routes' files contain now.
        secrets: &'r FileSecrets,
    },
    /// No access rule applies: to the operator, who purges an object or has it explained; to
    /// anyone, where no route has one.
    Unrestricted,
}

/// Where a request `'q` leads by the rules `'r`, and as whose it counts.
#[derive(Clone, Debug)]
pub struct Destination<'r, 'q> {
    /// The canonical host.
    pub host: Cow<'q, str>,
    /// The port that the viewer named.
    pub port: Option<u16>,
    /// The route for this host and path.
    pub route: &'r Arc<Route>,
    /// Other routes that an origin may take the path for.
    others: Vec<&'r Arc<Route>>,
}

impl<'r, 'q> Destination<'r, 'q> {
    /// Finds where a request leads, and applies the access rules there, but for tokens. Builds no
    /// key: a refusal is cheap.
    pub(super) fn enter(
        rules: &'r Rules,
        (host, port): (Cow<'q, str>, Option<u16>),
        path: &str,
        headers: &HeaderMap,
        requester: Requester<'_>,
    ) -> Result<Destination<'r, 'q>, AccessRejection> {
        let route = rules.route(&host, path);
        let route = route.ok_or(AccessRejection::not_served())?;
        let mut destination = Destination {
            host,
            port,
            route,
            others: Vec::new(),
        };
        let Requester::Viewer {
            address,
            class,
            certificate,
            secrets,
        } = requester
        else {
            return Ok(destination);
        };
        if has_several_readings(path) {
            destination.others = destination.other_readings(rules, path);
        }
        let mut guarding = destination.guarding_routes();
        let refused_by = |route: &Arc<Route>| {
            let access = &route.access;
            access.refused_by(address, (class, certificate), headers, secrets)
        };
        let rule = guarding.find_map(refused_by);
        drop(guarding);
        match rule {
            None => Ok(destination),
            Some(rule) => Err(AccessRejection::denied(rule).of_route(route)),
        }
    }

    /// The same, whatever becomes of the request: of its query and its headers, not of its path.
    pub fn detached(self) -> Destination<'r, 'static> {
        Destination {
            host: Cow::Owned(self.host.into_owned()),
            port: self.port,
            route: self.route,
            others: self.others,
        }
    }

    /// The routes whose access rules a viewer's request must keep: its own, and each that an origin
    /// may take the path for. It decodes the path and resolves dot segments, while the route was
    /// found by the path as sent.
    pub fn guarding_routes(&self) -> impl Iterator<Item = &'r Arc<Route>> {
        std::iter::once(self.route).chain(self.others.iter().copied())
    }

    /// Whether one of these routes demands a token.
    pub fn demands_token(&self) -> bool {
        self.guarding_routes()
            .any(|route| route.access.token.is_some())
    }

    fn other_readings(&self, rules: &'r Rules, path: &str) -> Vec<&'r Arc<Route>> {
        let takes_host = |route: &&Arc<Route>| route.takes_host(&self.host);
        let mut of_host = rules.routes.iter().filter(takes_host);
        let Some(path) = resolved_path(path) else {
            return of_host.collect();
        };
        let takes_it = |route: &&Arc<Route>| {
            let prefix = resolved_path(&route.path_prefix);
            prefix.is_none_or(|prefix| is_below(&path, &prefix))
        };
        of_host.find(takes_it).into_iter().collect()
    }
}

/// Whether an origin may read the path as another one than its text.
fn has_several_readings(path: &str) -> bool {
    let mut previous = 0;
    path.bytes().any(|byte| {
        let is_after_slash = previous == b'/';
        previous = byte;
        matches!(byte, b'%' | b'\\' | b';') || is_after_slash && matches!(byte, b'/' | b'.')
    })
}

/// The path as an origin may read it: decoded, without parameters, empty segments and dots. `None`
/// if it goes up: where it ends then depends on what the origin takes for a segment.
fn resolved_path(path: &str) -> Option<String> {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut resolved = String::with_capacity(path.len());
    for segment in decoded.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => return None,
            name => {
                resolved.push('/');
                resolved.push_str(name);
            }
        }
    }
    if resolved.is_empty() {
        resolved.push('/');
    }
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method, Uri, Version, header};

    use super::super::{Admission, CacheRequest, access};
    use super::*;
    use crate::access_rules::{AccessRuleKind, AccessRules, AddressListEntry};

    /// `/paid` on all hosts, for 192.0.2.1 only; everything else for everyone, in the same origin.
    fn guarded_rules() -> Rules {
        let allowed = AddressListEntry::Network("192.0.2.1/32".parse().unwrap());
        let paid = Route {
            path_prefix: "/paid".to_owned(),
            access: AccessRules {
                allow: Some([allowed].into_iter().collect()),
                ..AccessRules::default()
            },
            pass_methods: true,
            ..Route::everything("o")
        };
        Rules {
            routes: vec![Arc::new(paid), Arc::new(Route::everything("o"))],
            name: "seawall".into(),
            trusted_proxies: crate::TrustedProxies::default(),
            client_classes: crate::ClientClasses::default(),
        }
    }

    fn ask_as(address: &str, method: &Method, target: &str) -> Admission {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("a"))]);
        let uri: Uri = target.parse().unwrap();
        let viewer = Requester::Viewer {
            address: Some(address.parse().unwrap()),
            class: None,
            certificate: None,
            secrets: &FileSecrets::default(),
        };
        access(
            &guarded_rules(),
            method,
            &uri,
            Version::HTTP_11,
            &headers,
            viewer,
        )
    }

    fn entered(admission: Admission) -> CacheRequest {
        match admission {
            Admission::Cache(request) => request,
            other => panic!("expected to enter, got {other:?}"),
        }
    }

    fn is_denied(admission: &Admission) -> bool {
        matches!(admission, Admission::Reject(rejection) if rejection.status == 403)
    }

    #[test]
    fn access_rules_concern_every_method_and_no_operator() {
        let methods = [
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::POST,
            Method::TRACE,
        ];
        for method in &methods {
            let Admission::Reject(rejection) = ask_as("192.0.2.2", method, "/paid/a.ts") else {
                panic!("{method} is admitted")
            };
            assert_eq!(rejection.status, 403, "{method}");
            assert_eq!(rejection.rule, Some(AccessRuleKind::Address));
            assert!(
                !is_denied(&ask_as("192.0.2.2", method, "/a.ts")),
                "{method}"
            );
            assert!(
                !is_denied(&ask_as("192.0.2.1", method, "/paid/a.ts")),
                "{method}"
            );
        }
        CacheRequest::asked(&guarded_rules(), "a", "/paid/a.ts");
    }

    /// The origin would resolve each of them to a path of the guarded route.
    #[test]
    fn other_spelling_of_a_guarded_path_is_guarded() {
        for path in [
            "/%70aid/a.ts",
            "//paid/a.ts",
            "/./paid/a.ts",
            "/%2e/paid/a.ts",
            "/x/../paid/a.ts",
            "/x/%2e%2e/paid/a.ts",
            "/x/..%2fpaid/a.ts",
            "/x%2fy/../paid/a.ts",
            "/paid%2fa.ts",
            "/%2fpaid/a.ts",
            "/paid;v=1/a.ts",
            "/;v=1/paid/a.ts",
            "/paid%5ca.ts",
        ] {
            assert!(
                is_denied(&ask_as("192.0.2.2", &Method::GET, path)),
                "{path}"
            );
            entered(ask_as("192.0.2.1", &Method::GET, path));
        }
    }

    #[test]
    fn encoded_path_beside_a_guarded_one_is_open() {
        for path in [
            "/My%20Video.ts",
            "/free/paid%20a.ts",
            "/paid%20/a.ts",
            "/a;b/.c",
            "/free//paid/a",
        ] {
            entered(ask_as("192.0.2.2", &Method::GET, path));
        }
    }
}
