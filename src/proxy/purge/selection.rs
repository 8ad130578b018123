//! Which keys a purge by path, prefix or host selects.

use http::Uri;

use seawall_policy::access::{CacheRequest, host_of};
use seawall_policy::key::KeyParts;
use seawall_policy::{Key, Route, Rules};

/// What the keys that a purge selects have in common.
pub(super) enum KeySelection {
    Everything,
    /// An absolute URL's beginning.
    Prefix(UrlPrefix),
    /// One path, with any query.
    Path(StoredPath),
    Host(ServedHost),
}

/// The parts that the keys of all URLs with a prefix share.
pub(super) struct UrlPrefix {
    origins: Vec<OriginAndHost>,
    target: Box<[u8]>,
}

pub(super) struct StoredPath {
    origin: OriginAndHost,
    path: Box<[u8]>,
}

/// What a viewer can reach by this host name, under these routes.
pub(super) struct ServedHost {
    rules: Rules,
    host: String,
}

/// An origin group, and the host if it is sent to that group.
#[derive(PartialEq, Eq)]
struct OriginAndHost {
    origin: Box<[u8]>,
    host: Box<[u8]>,
}

impl OriginAndHost {
    fn of(route: &Route, host: &str) -> OriginAndHost {
        let sent = if route.forward_host { host } else { "" };
        OriginAndHost {
            origin: route.origin.as_bytes().into(),
            host: sent.as_bytes().into(),
        }
    }

    fn has(&self, key: &KeyParts<'_>) -> bool {
        *self.origin == *key.origin && *self.host == *key.host
    }
}

impl KeySelection {
    /// `None`: no route serves a URL with this prefix.
    pub(super) fn prefix(rules: &Rules, url: &Uri) -> Option<KeySelection> {
        let target = url.path_and_query()?.as_str();
        let host = host_of(url)?;
        let origins = rules
            .routes_below(&host, url.path())
            .map(|route| OriginAndHost::of(route, &host));
        let origins: Vec<_> = origins.collect();
        (!origins.is_empty()).then(|| {
            KeySelection::Prefix(UrlPrefix {
                origins,
                target: target.as_bytes().into(),
            })
        })
    }

    /// The path of a request.
    pub(super) fn path(request: &CacheRequest) -> KeySelection {
        let host = request.host.to_str().unwrap_or_default();
        KeySelection::Path(StoredPath {
            origin: OriginAndHost::of(&request.route, host),
            path: request.target.path().as_bytes().into(),
        })
    }

    /// `None`: no route serves the host of this URL.
    pub(super) fn host(rules: &Rules, url: &Uri) -> Option<KeySelection> {
        let host = host_of(url)?;
        rules.routes_below(&host, "/").next()?;
        Some(KeySelection::Host(ServedHost {
            rules: rules.clone(),
            host,
        }))
    }

    /// Whether viewers may get what it selects by other host names too, because a route does not
    /// forward the host.
    pub(super) fn is_shared_among_hosts(&self) -> bool {
        match self {
            KeySelection::Host(served) => served.is_shared(),
            KeySelection::Everything | KeySelection::Prefix(_) | KeySelection::Path(_) => false,
        }
    }

    /// Whether a key, or the key that it is derived from, is selected.
    pub(super) fn has(&self, key: &Key) -> bool {
        if matches!(self, KeySelection::Everything) {
            return true;
        }
        key.request_parts().is_some_and(|key| match self {
            KeySelection::Everything => true,
            KeySelection::Prefix(prefix) => prefix.has(&key),
            KeySelection::Path(path) => path.has(&key),
            KeySelection::Host(served) => served.has(&key),
        })
    }

    /// Whether everything in a directory is selected. May be `false` where it is: then each key
    /// decides.
    pub(super) fn has_directory(&self, directory: &Key) -> bool {
        match self {
            KeySelection::Everything | KeySelection::Prefix(_) => self.has(directory),
            // The key of a directory is that of the URL which ends with its slash.
            KeySelection::Path(path) => !path.path.ends_with(b"/") && self.has(directory),
            KeySelection::Host(served) => {
                let parts = directory.request_parts();
                parts.is_some_and(|parts| served.has_all_below(&parts))
            }
        }
    }
}

impl UrlPrefix {
    fn has(&self, key: &KeyParts<'_>) -> bool {
        key.target.starts_with(&self.target) && self.origins.iter().any(|origin| origin.has(key))
    }
}

impl StoredPath {
    fn has(&self, key: &KeyParts<'_>) -> bool {
        self.origin.has(key) && path_of(key) == &*self.path
    }
}

impl ServedHost {
    fn has(&self, key: &KeyParts<'_>) -> bool {
        let route = str::from_utf8(path_of(key))
            .ok()
            .and_then(|path| self.rules.route(&self.host, path));
        route.is_some_and(|route| OriginAndHost::of(route, &self.host).has(key))
    }

    fn has_all_below(&self, directory: &KeyParts<'_>) -> bool {
        let Ok(path) = str::from_utf8(path_of(directory)) else {
            return false;
        };
        let mut routes = self.rules.routes_below(&self.host, path);
        self.has(directory)
            && routes.all(|route| OriginAndHost::of(route, &self.host).has(directory))
    }

    fn is_shared(&self) -> bool {
        let own = |route: &Route| route.hosts.iter().all(|host| *host == self.host);
        let is_only_here = |route: &Route| !route.hosts.is_empty() && own(route);
        let of_host = self.rules.routes_below(&self.host, "/");
        of_host.filter(|route| !route.forward_host).any(|route| {
            let mut others = self.rules.routes.iter();
            others.any(|other| {
                other.origin == route.origin && !other.forward_host && !is_only_here(other)
            })
        })
    }
}

fn path_of<'k>(key: &KeyParts<'k>) -> &'k [u8] {
    let end = key.target.iter().position(|byte| *byte == b'?');
    &key.target[..end.unwrap_or(key.target.len())]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn route(hosts: &[&str], prefix: &str, origin: &str, forward_host: bool) -> Arc<Route> {
        Arc::new(Route {
            hosts: hosts.iter().map(ToString::to_string).collect(),
            path_prefix: prefix.to_owned(),
            forward_host,
            ..Route::everything(origin)
        })
    }

    fn rules(routes: Vec<Arc<Route>>) -> Rules {
        Rules {
            routes,
            trusted_proxies: seawall_policy::TrustedProxies::default(),
            client_classes: seawall_policy::ClientClasses::default(),
            name: "shield".into(),
        }
    }

    fn host(rules: &Rules, name: &str) -> Option<KeySelection> {
        KeySelection::host(rules, &format!("http://{name}/").parse().unwrap())
    }

    fn key(origin: &str, host: &str, target: &str) -> Key {
        Key::of(&[origin.as_bytes(), host.as_bytes(), target.as_bytes()])
    }

    #[test]
    fn host_selects_what_its_routes_serve_and_nothing_of_other_routes() {
        let rules = rules(vec![
            route(&["a.test"], "/live", "live", true),
            route(&["a.test", "b.test"], "/", "films", false),
        ]);
        let selection = host(&rules, "a.test").unwrap();
        assert!(selection.has(&key("live", "a.test", "/live/1.ts?x=1")));
        assert!(!selection.has(&key("live", "b.test", "/live/1.ts")));
        assert!(selection.has(&key("films", "", "/vod/1.ts")));
        assert!(
            !selection.has(&key("films", "", "/live/1.ts")),
            "only viewers of b.test reach it"
        );
        assert!(selection.has_directory(&key("films", "", "/vod/")));
        assert!(!selection.has_directory(&key("films", "", "/")));
        assert!(host(&rules, "c.test").is_none());
    }

    #[test]
    fn host_is_shared_when_another_reaches_the_same_objects() {
        let shared = |routes, name| {
            let rules = rules(routes);
            host(&rules, name).unwrap().is_shared_among_hosts()
        };
        let two = || route(&["a.test", "b.test"], "/", "o", false);
        let one = |name| route(&[name], "/", "o", false);
        assert!(shared(vec![two()], "a.test"));
        assert!(shared(vec![route(&[], "/", "o", false)], "a.test"));
        assert!(shared(vec![one("a.test"), one("b.test")], "a.test"));
        assert!(!shared(vec![one("a.test")], "a.test"));
        let forwarded = route(&["a.test", "b.test"], "/", "o", true);
        assert!(!shared(vec![forwarded], "a.test"));
    }

    #[test]
    fn path_of_a_directory_does_not_select_what_lies_in_it() {
        let path = |path: &str| {
            KeySelection::Path(StoredPath {
                origin: OriginAndHost::of(&Route::everything("o"), ""),
                path: path.as_bytes().into(),
            })
        };
        let directory = key("o", "", "/a/");
        assert!(path("/a/").has(&directory) && !path("/a/").has_directory(&directory));
        assert!(path("/a/").has(&key("o", "", "/a/?x=1")));
        assert!(!path("/a/").has(&key("o", "", "/a/b")));
        assert!(!path("/a").has(&key("o", "", "/ab")));
        let slices = Key::of(&[b"slices", key("o", "", "/a/b?x=1").bytes()]);
        assert!(path("/a/b").has_directory(&slices));
    }
}
