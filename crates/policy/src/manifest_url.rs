//! Resolves a URL reference in a manifest against the manifest's URL (RFC 3986 §5.2) into the
//! request that a viewer would make for it.
//!
//! Only references to the same host are resolved: the shield prefetches from no other host.

use http::HeaderMap;
use http::uri::Uri;

use super::access::{self, CacheRequest, HostAndPort};
use super::{Key, Rules};

/// Maximum length in bytes of a resolved path.
const PATH_BYTES_MAX: usize = 4096;

impl CacheRequest {
    /// The request for `reference`. `None` if it is on another host or cannot be resolved.
    pub fn resolve_same_host(&self, rules: &Rules, reference: &str) -> Option<CacheRequest> {
        let (host, path) = host_and_path(reference)?;
        let is_here = |host: &str| {
            HostAndPort::parse(host)
                .is_ok_and(|there| self.host.as_bytes() == there.host.as_bytes())
        };
        host.is_none_or(is_here)
            .then(|| self.resolve_on_host(rules, path))?
    }

    /// The same, as if every host were the viewer's. Used only to find related objects to drop or
    /// to exclude from storage, because the other host may be another name for this one.
    pub fn resolve_any_host(&self, rules: &Rules, reference: &str) -> Option<CacheRequest> {
        let (_, path) = host_and_path(reference)?;
        self.resolve_on_host(rules, path)
    }

    /// The same request under other rules. `None`: they give it another key, or no route takes it.
    pub fn under(&self, rules: &Rules) -> Option<CacheRequest> {
        let plain = self.without_directives();
        let admitted = self.resolve_on_host(rules, plain.target.as_str())?;
        (admitted.key == plain.key).then(|| CacheRequest {
            route: admitted.route,
            kind: admitted.kind,
            ..self.clone()
        })
    }

    fn resolve_on_host(&self, rules: &Rules, reference: &str) -> Option<CacheRequest> {
        let path = resolve(self.target.path(), reference)?;
        let uri: Uri = path.parse().ok()?;
        let host = self.host.to_str().ok()?;
        let route = rules.route(host, uri.path())?;
        if route.redirect.is_some() {
            return None;
        }
        let below = &uri.path()[route.path_prefix.trim_end_matches('/').len()..];
        access::check_path(below).ok()?;
        let nothing = HeaderMap::new();
        let forwarded = self.forwarded.as_deref().unwrap_or(&nothing);
        access::cache_request(route, host, &uri, forwarded).ok()
    }

    /// The key of the request's directory, for epochs. An origin may restart one directory.
    pub fn directory(&self) -> Key {
        let path = self.target.path();
        let directory = path.rfind('/').map_or("", |end| &path[..=end]);
        let host = self.sent_host().map(http::HeaderValue::as_bytes);
        Key::of(&[
            self.route.origin.as_bytes(),
            host.unwrap_or_default(),
            directory.as_bytes(),
        ])
    }

    /// Packagers may use a numbered directory per segment. Each key stands for all directories that
    /// differ from this one only in the numbers of one path segment, the last path segment first.
    pub fn numbered_directories(&self) -> impl Iterator<Item = Key> {
        /// More numbered path segments than any packager uses.
        const PARTS_MAX: usize = 4;
        let path = self.target.path();
        let directory = path.rfind('/').map_or("", |end| &path[..=end]);
        let host = self.sent_host().map(http::HeaderValue::as_bytes);
        let parts = directory
            .rmatch_indices('/')
            .zip(directory[..directory.len().saturating_sub(1)].rmatch_indices('/'));
        let numbered = parts.filter_map(move |((end, _), (start, _))| {
            let part = &directory[start..end];
            if !part.contains(|digit: char| digit.is_ascii_digit()) {
                return None;
            }
            let mut framed = vec![self.route.origin.as_bytes(), host.unwrap_or_default()];
            framed.extend([b"numbered", &directory.as_bytes()[..start]]);
            let between = part.split(|digit: char| digit.is_ascii_digit());
            // The number of digits does not matter.
            let between = between.filter(|text| !text.is_empty()).map(str::as_bytes);
            framed.extend(between.chain([&directory.as_bytes()[end..]]));
            Some(Key::of(&framed))
        });
        numbered.take(PARTS_MAX)
    }

    /// The key of the path, whatever the query.
    pub fn path_key(&self) -> Key {
        let host = self.sent_host().map(http::HeaderValue::as_bytes);
        Key::of(&[
            self.route.origin.as_bytes(),
            host.unwrap_or_default(),
            self.target.path().as_bytes(),
        ])
    }
}

/// The host of a reference, if it has one, and its path. Only a reference without host may have a
/// relative path.
fn host_and_path(reference: &str) -> Option<(Option<&str>, &str)> {
    let end_of_part = |text: &str| text.find(['/', '?', '#']).unwrap_or(text.len());
    let (scheme, after) = reference.split_at(end_of_part(reference));
    let has_scheme = ["http:", "https:"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known));
    if scheme.contains(':') && !has_scheme {
        return None;
    }
    let relative = if has_scheme { after } else { reference };
    let Some(named) = relative.strip_prefix("//") else {
        return (!has_scheme).then_some((None, reference));
    };
    let (host, path) = named.split_at(end_of_part(named));
    path.starts_with('/').then_some((Some(host), path))
}

/// Resolves a reference on the same host to a path and query.
fn resolve(base: &str, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let (name, query) = match reference.split_once('?') {
        Some((name, query)) => (name, Some(query)),
        None => (reference, None),
    };
    if name.contains('\\') {
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
    use std::sync::Arc;

    use super::*;
    use crate::Route;

    fn route(index: usize, hosts: &[&str], prefix: &str) -> Arc<Route> {
        Arc::new(Route {
            index,
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            path_prefix: prefix.to_owned(),
            ..Route::everything("main")
        })
    }

    /// The index of the route of a reference in `/live/index.m3u8` at a host.
    fn leads_to(routes: Vec<Arc<Route>>, host: &'static str, reference: &str) -> Option<usize> {
        let name = "seawall".into();
        let rules = Rules {
            routes,
            name,
            trusted_proxies: crate::TrustedProxies::default(),
            client_classes: crate::ClientClasses::default(),
        };
        let entry = CacheRequest::asked(&rules, host, "/live/index.m3u8");
        Some(entry.resolve_same_host(&rules, reference)?.route.index)
    }

    #[test]
    fn reference_uses_the_route_of_a_viewer_request() {
        let routes = || vec![route(0, &[], "/live/hd"), route(1, &[], "/live")];
        assert_eq!(leads_to(routes(), "a", "hd/1.ts"), Some(0));
        assert_eq!(leads_to(routes(), "a", "sd/1.ts"), Some(1));
        assert_eq!(leads_to(routes(), "a", "/vod/1.ts"), None, "no route");
        assert_eq!(leads_to(routes(), "a", "..%2f..%2f1.ts"), None);
    }

    #[test]
    fn reference_ignores_routes_of_other_hosts() {
        let apart = || vec![route(0, &["b"], "/"), route(1, &["a"], "/")];
        assert_eq!(leads_to(apart(), "a", "1.ts"), Some(1));
        let rest = || vec![route(0, &["b"], "/"), route(1, &[], "/")];
        assert_eq!(
            leads_to(rest(), "a", "1.ts"),
            Some(1),
            "b would have taken it"
        );
        let within = || vec![route(0, &["b"], "/hd"), route(1, &[], "/")];
        assert_eq!(leads_to(within(), "a", "/hd/1.ts"), Some(1));
        assert_eq!(leads_to(within(), "b", "/hd/1.ts"), Some(0));
    }

    #[test]
    fn resolves_absolute_references_to_the_same_host_only() {
        let name = "seawall".into();
        let routes = vec![route(0, &[], "/")];
        let rules = Rules {
            routes,
            name,
            trusted_proxies: crate::TrustedProxies::default(),
            client_classes: crate::ClientClasses::default(),
        };
        let entry = CacheRequest::asked(&rules, "Media.Test:8080", "/live/index.m3u8");
        let of = |found: Option<CacheRequest>| found.map(|found| found.target.to_string());
        for reference in [
            "https://media.test/hd/1.ts?a=b",
            "HTTP://MEDIA.test:8080/hd/1.ts?a=b",
            "//media.test./hd/../hd/1.ts?a=b#c",
        ] {
            let found = of(entry.resolve_same_host(&rules, reference));
            assert_eq!(found.as_deref(), Some("/hd/1.ts?a=b"), "{reference}");
        }
        let twice = of(entry.resolve_same_host(&rules, "https://media.test//hd/1.ts"));
        assert_eq!(twice.as_deref(), Some("//hd/1.ts"));
        for reference in [
            "https://cdn.example/a.ts",
            "//cdn.example/a.ts",
            "//user@media.test/a.ts",
            "https://media.test@cdn.example/a.ts",
            "https://media.test.cdn.example/a.ts",
        ] {
            assert!(
                entry.resolve_same_host(&rules, reference).is_none(),
                "{reference}"
            );
            let found = of(entry.resolve_any_host(&rules, reference));
            assert_eq!(found.as_deref(), Some("/a.ts"), "{reference}");
        }
        for reference in [
            "https://media.test",
            "https:a.ts",
            "https:/a.ts",
            "ftp://media.test/a.ts",
        ] {
            assert!(
                entry.resolve_any_host(&rules, reference).is_none(),
                "{reference}"
            );
        }
    }

    #[test]
    fn directories_differing_in_one_number_share_a_place() {
        let rules = Rules {
            routes: vec![route(0, &[], "/")],
            name: "seawall".into(),
            trusted_proxies: crate::TrustedProxies::default(),
            client_classes: crate::ClientClasses::default(),
        };
        let base = CacheRequest::asked(&rules, "a", "/a.m3u8");
        let places = |path: &str| -> Vec<Key> {
            let entry = base.resolve_same_host(&rules, path).unwrap();
            entry.numbered_directories().collect()
        };
        assert_eq!(places("/seg1.ts"), []);
        assert_eq!(places("/live/seg1.ts"), []);
        assert_eq!(places("/live/7/seg1.ts"), places("/live/104/b.ts"));
        assert_eq!(places("/a1b/s.ts"), places("/a20b/s.ts"));
        let (one, other) = (places("/v1/7/s.ts"), places("/v2/7/s.ts"));
        assert_eq!(one.len(), 2);
        assert!(one[0] != other[0] && one[1] == other[1]);
        assert_eq!(places("/v1/8/s.ts")[0], one[0]);
        for other in ["/a1/s.ts", "/1a/s.ts", "/a1b1c/s.ts", "/x/a1b/s.ts"] {
            assert_ne!(places("/a1b/s.ts"), places(other), "{other}");
        }
        assert_eq!(places("/1/2/3/4/5/6/s.ts").len(), 4);
    }

    #[test]
    fn resolves_references_as_players_do() {
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
    fn rejects_references_without_a_valid_path() {
        assert_eq!(host_and_path("data:text/plain,x"), None);
        for reference in ["a b.ts", "a\\b.ts", "caf\u{e9}.ts"] {
            assert_eq!(resolve("/a.m3u8", reference), None, "{reference}");
        }
        let long = "x".repeat(PATH_BYTES_MAX);
        assert_eq!(resolve("/a.m3u8", &long), None);
    }
}
