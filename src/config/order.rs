//! Sorts routes, the most specific one first, and reports duplicates.
//!
//! The first route in the list that matches is taken, so the order is the whole rule: an exact host
//! before a wildcard before any host; of two wildcards the longer; then the longer path.

use std::cmp::Reverse;
use std::sync::Arc;

use super::problem::{Problem, SourceSpan};
use seawall_policy::Route;

/// How specific a host is; smaller is more specific.
type HostSpecificity = Reverse<usize>;

const ANY: HostSpecificity = Reverse(0);
const EXACT: HostSpecificity = Reverse(usize::MAX);

fn rank(host: &str) -> HostSpecificity {
    match host.strip_prefix("*.") {
        Some(domain) => Reverse(domain.split('.').count()),
        None => EXACT,
    }
}

/// Sorts and numbers routes. A route whose hosts differ in rank (`example.com` and `*.example.com`)
/// occurs several times, under one name.
pub(super) fn sort_routes(routes: Vec<Route>) -> Vec<Arc<Route>> {
    let mut ranked: Vec<(HostSpecificity, Route)> = routes.into_iter().flat_map(by_rank).collect();
    ranked.sort_by_key(|(rank, route)| (*rank, Reverse(route.path_prefix.len())));
    let numbered = ranked.into_iter().enumerate();
    numbered
        .map(|(index, (_, route))| Arc::new(Route { index, ..route }))
        .collect()
}

fn by_rank(mut route: Route) -> Vec<(HostSpecificity, Route)> {
    let mut hosts = std::mem::take(&mut route.hosts);
    if hosts.is_empty() {
        return vec![(ANY, route)];
    }
    hosts.sort_by_key(|host| rank(host));
    let same_rank = hosts.chunk_by(|one, other| rank(one) == rank(other));
    same_rank
        .map(|hosts| {
            (
                rank(&hosts[0]),
                Route {
                    hosts: hosts.to_vec(),
                    ..route.clone()
                },
            )
        })
        .collect()
}

/// A route and the position of its table in the file.
pub(super) struct PlacedRoute {
    /// The route.
    pub(super) route: Route,
    /// Its table's header.
    pub(super) span: SourceSpan,
    /// Whether its hosts and its path were valid. If not, duplicates of it cannot be found.
    pub(super) is_location_known: bool,
}

/// Reports routes that are never taken, because an earlier one matches the same requests.
pub(super) fn duplicates(routes: &[PlacedRoute]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, later) in routes.iter().enumerate() {
        for earlier in &routes[..index] {
            if !(earlier.is_location_known && later.is_location_known) {
                continue;
            }
            if let Some(host) = shared_host(&earlier.route, &later.route) {
                problems.push(unreachable(earlier, later, &host));
                break;
            }
        }
    }
    problems
}

fn shared_host(earlier: &Route, later: &Route) -> Option<String> {
    if earlier.path_prefix != later.path_prefix {
        return None;
    }
    if earlier.hosts.is_empty() && later.hosts.is_empty() {
        return Some("every host".to_owned());
    }
    let shared = later
        .hosts
        .iter()
        .find(|host| earlier.hosts.contains(host))?;
    Some(format!("host `{shared}`"))
}

fn unreachable(earlier: &PlacedRoute, later: &PlacedRoute, host: &str) -> Problem {
    let path = &later.route.path_prefix;
    Problem::new(format!(
        "this route is never taken for {host} and path `{path}`"
    ))
    .at(later.span.clone(), "the same host and path again")
    .other(earlier.span.clone(), "taken by this route")
    .help("change `hosts` or `path` of one of them, or remove one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str, hosts: &[&str], path: &str) -> Route {
        Route {
            name: name.into(),
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            path_prefix: path.to_owned(),
            ..Route::everything("origin")
        }
    }

    fn names(routes: Vec<Route>) -> Vec<String> {
        sort_routes(routes)
            .iter()
            .map(|route| route.name.to_string())
            .collect()
    }

    #[test]
    fn sorts_the_most_specific_route_first() {
        let order = names(vec![
            route("any", &[], "/"),
            route("any-live", &[], "/live"),
            route("wide", &["*.example"], "/very/long/path"),
            route("wild", &["*.a.example"], "/"),
            route("exact", &["a.example"], "/"),
            route("exact-live", &["a.example"], "/live"),
        ]);
        assert_eq!(
            order,
            ["exact-live", "exact", "wild", "wide", "any-live", "any"]
        );
    }

    #[test]
    fn sorts_a_route_with_several_hosts_into_several_positions() {
        let routes = sort_routes(vec![
            route("mixed", &["*.example", "b.example"], "/"),
            route("exact", &["a.example"], "/live"),
        ]);
        let hosts: Vec<_> = routes.iter().map(|route| route.hosts.join(",")).collect();
        assert_eq!(hosts, ["a.example", "b.example", "*.example"]);
        let indices: Vec<_> = routes.iter().map(|route| route.index).collect();
        assert_eq!(indices, [0, 1, 2]);
    }

    #[test]
    fn rejects_only_the_same_host_and_path() {
        let placed_route = |route, index| PlacedRoute {
            route,
            span: index..index + 1,
            is_location_known: true,
        };
        let problems = duplicates(&[
            placed_route(route("one", &["a.example", "b.example"], "/live"), 0),
            placed_route(route("two", &["b.example"], "/live"), 1),
            placed_route(route("three", &["b.example"], "/"), 2),
            placed_route(route("four", &["*.example"], "/live"), 3),
            placed_route(route("five", &[], "/live"), 4),
            placed_route(route("six", &[], "/live"), 5),
        ]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(format!("{problems:?}").contains("b.example"));
    }
}
