//! What does a manifest mean by a name that it lists? A reference resolved against the manifest's own place
//! (RFC 3986 §5.2), as a request that a viewer might make next.
//!
//! Only paths on the same host are followed: a shield fetches nothing ahead from anywhere else.

use std::sync::Arc;

use http::uri::Uri;

use super::access::{self, Entry};
use super::{Key, Route, Rules};

/// A path longer than this is not followed.
const PATH_BYTES_MAX: usize = 4096;

impl Entry {
    /// The request for what a manifest calls `reference`; `None` where that is elsewhere, or unclear.
    pub fn sibling(&self, rules: &Rules, reference: &str) -> Option<Entry> {
        let path = resolve(self.target.path(), reference)?;
        let uri: Uri = path.parse().ok()?;
        let route = self.route_of(rules, uri.path())?;
        let host = self.host.as_ref().map(|host| host.to_str());
        let host = host.transpose().ok()?.unwrap_or_default();
        if route.forward_host != self.route.forward_host {
            return None;
        }
        let below = &uri.path()[route.path_prefix.trim_end_matches('/').len()..];
        access::stays_inside(below).ok()?;
        access::entry(route, host, &uri).ok()
    }

    /// Its directory, among the places that an origin may begin anew.
    pub fn place(&self) -> Key {
        let path = self.target.path();
        let directory = path.rfind('/').map_or("", |end| &path[..=end]);
        let host = self.host.as_ref().map(http::HeaderValue::as_bytes);
        Key::of(&[
            self.route.origin.as_bytes(),
            host.unwrap_or_default(),
            directory.as_bytes(),
        ])
    }

    /// What it names, whatever query follows.
    pub fn spot(&self) -> Key {
        let host = self.host.as_ref().map(http::HeaderValue::as_bytes);
        Key::of(&[
            self.route.origin.as_bytes(),
            host.unwrap_or_default(),
            self.target.path().as_bytes(),
        ])
    }

    /// The route that takes another path on the same host. Which host the viewer named is not known any
    /// more; where that matters, there is none.
    fn route_of<'r>(&self, rules: &'r Rules, path: &str) -> Option<&'r Arc<Route>> {
        let ours = &self.route;
        for route in rules.routes.iter().filter(|route| route.takes_path(path)) {
            if route.hosts == ours.hosts {
                return Some(route);
            }
            // One that comes first and takes this path too would have had the request itself.
            let elsewhere = route.takes_path(self.target.path()) || !route.may_share_host(ours);
            if !elsewhere {
                return None;
            }
        }
        None
    }
}

/// The path (and query) that a reference on the same host stands for.
fn resolve(base: &str, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let (name, query) = match reference.split_once('?') {
        Some((name, query)) => (name, Some(query)),
        None => (reference, None),
    };
    let scheme = name.split('/').next().unwrap_or_default().contains(':');
    if scheme || name.starts_with("//") || name.contains('\\') {
        return None;
    }
    let mut path = if name.starts_with('/') {
        without_dots(name)
    } else if name.is_empty() {
        base.to_owned()
    } else {
        let directory = base.rfind('/').map_or("/", |end| &base[..=end]);
        without_dots(&format!("{directory}{name}"))
    };
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    let clean = path.bytes().all(|byte| byte.is_ascii_graphic());
    (clean && path.len() <= PATH_BYTES_MAX).then_some(path)
}

/// RFC 3986 §5.2.4, for paths that begin with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, Version, header};

    use super::*;
    use crate::policy::access::{Access, access};

    fn route(index: usize, hosts: &[&str], prefix: &str) -> Arc<Route> {
        Arc::new(Route {
            index,
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            path_prefix: prefix.to_owned(),
            ..Route::everything("main")
        })
    }

    /// Which route a name in `/live/index.m3u8` leads to, asked for at a host.
    fn leads_to(routes: Vec<Arc<Route>>, host: &'static str, reference: &str) -> Option<usize> {
        let name = "seawall".into();
        let rules = Rules { routes, name };
        let headers = HeaderMap::from_iter([(header::HOST, http::HeaderValue::from_static(host))]);
        let uri = Uri::from_static("/live/index.m3u8");
        let Access::Enter(entry) = access(&rules, &Method::GET, &uri, Version::HTTP_11, &headers)
        else {
            panic!("not served");
        };
        Some(entry.sibling(&rules, reference)?.route.index)
    }

    #[test]
    fn a_sibling_goes_by_the_route_that_a_viewers_request_would() {
        let routes = || vec![route(0, &[], "/live/hd"), route(1, &[], "/live")];
        assert_eq!(leads_to(routes(), "a", "hd/1.ts"), Some(0));
        assert_eq!(leads_to(routes(), "a", "sd/1.ts"), Some(1));
        assert_eq!(leads_to(routes(), "a", "/vod/1.ts"), None, "no route");
        assert_eq!(leads_to(routes(), "a", "..%2f..%2f1.ts"), None);
    }

    #[test]
    fn routes_of_other_hosts_are_out_of_the_way_where_that_is_certain() {
        let apart = || vec![route(0, &["b"], "/"), route(1, &["a"], "/")];
        assert_eq!(leads_to(apart(), "a", "1.ts"), Some(1));
        let rest = || vec![route(0, &["b"], "/"), route(1, &[], "/")];
        assert_eq!(
            leads_to(rest(), "a", "1.ts"),
            Some(1),
            "b would have taken it"
        );
        let unclear = || vec![route(0, &["b"], "/hd"), route(1, &[], "/")];
        assert_eq!(leads_to(unclear(), "a", "/hd/1.ts"), None);
    }

    #[test]
    fn references_are_resolved_as_players_resolve_them() {
        let base = "/live/ch1/index.m3u8";
        for (reference, path) in [
            ("seg1.ts", "/live/ch1/seg1.ts"),
            ("./seg1.ts", "/live/ch1/seg1.ts"),
            ("../ch2/a.ts", "/live/ch2/a.ts"),
            ("../../../a.ts", "/a.ts"),
            ("/x/./y/../a.ts", "/x/a.ts"),
            ("v/a.m4s?sig=1:2", "/live/ch1/v/a.m4s?sig=1:2"),
            ("a//b.ts", "/live/ch1/a//b.ts"),
            ("a.ts#t=3", "/live/ch1/a.ts"),
            ("..", "/live/"),
            ("?x=1", "/live/ch1/index.m3u8?x=1"),
        ] {
            assert_eq!(
                resolve(base, reference).as_deref(),
                Some(path),
                "{reference}"
            );
        }
    }

    #[test]
    fn what_is_elsewhere_is_not_followed() {
        for reference in [
            "https://cdn.example/a.ts",
            "//cdn.example/a.ts",
            "data:text/plain,x",
            "a b.ts",
            "a\\b.ts",
            "caf\u{e9}.ts",
        ] {
            assert_eq!(resolve("/a.m3u8", reference), None, "{reference}");
        }
        let long = "x".repeat(PATH_BYTES_MAX);
        assert_eq!(resolve("/a.m3u8", &long), None);
    }
}
