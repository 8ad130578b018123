//! Reads `[[route]]`: which requests belong together, and their settings.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderName};

use super::origins::OriginTable;
use super::store_private::read_store_private;
use super::{
    access, cookies, error_pages, forwarded_headers, header_rules, rate_limits, read_tables,
};
use crate::config::order::PlacedRoute;
use crate::config::problem::{Problem, SourceSpan};
use crate::config::spelling::nearest;
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue};
use crate::config::{ValueError, address, read};
use seawall_policy::route::{Cors, Lifetimes, Live, QueryPolicies, QueryPolicy, Redirect};
use seawall_policy::{ClientClasses, Route};

const HOSTS: &str = "a list of hosts such as [\"live.example.com\"]";
const QUERY: &str = "\"all\", \"none\", { only = […] } or { except = […] }";
const QUERIES: &str = "\"all\", \"none\", \"mediapackage\", { only = […] }, { except = […] } or \
                       { manifest = …, segment = …, other = … }";
const CORS: &str = "\"any\", \"off\" or { only = [\"https://player.example\"] }";
const REDIRECT_STATUS: &str = "301, 302, 303, 307 or 308";
const NAMES: &str = "a list of names";

/// Headers of nearly every request, also behind a CDN.
const SENT_BY_ALL: [HeaderName; 14] = [
    header::HOST,
    header::USER_AGENT,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CONNECTION,
    header::RANGE,
    header::COOKIE,
    header::ORIGIN,
    header::REFERER,
    header::VIA,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// Reads every `[[route]]`, in the order of the file.
pub(super) fn read_routes(
    root: &mut TomlTable<'_>,
    groups: &mut [OriginTable],
    classes: &ClientClasses,
) -> Vec<PlacedRoute> {
    let routes = read_tables(root, "route", "[[route]]", |table| {
        read_route(table, groups, classes)
    });
    for (index, (later, has_name)) in routes.iter().enumerate() {
        let name = &later.route.name;
        let same = |(earlier, _): &&(PlacedRoute, bool)| earlier.route.name == *name;
        if let Some((earlier, _)) = routes[..index].iter().find(same).filter(|_| *has_name) {
            let problem = Problem::new(format!("two routes are called `{name}`"))
                .at(later.span.clone(), "the name again")
                .other(earlier.span.clone(), "the name first");
            root.reader()
                .add_problem(problem.help("metrics and logs tell routes apart by `name`"));
        }
    }
    access::report_forwarded_secrets(root, &routes);
    access::report_forwarded_class_secrets(root, &routes, classes);
    routes
        .into_iter()
        .map(|(placed_route, _)| placed_route)
        .collect()
}

/// Reads one route, and whether it has a name of its own.
fn read_route(
    table: &mut TomlTable<'_>,
    groups: &mut [OriginTable],
    classes: &ClientClasses,
) -> (PlacedRoute, bool) {
    let span = table.span();
    let is_redirect = table.value("redirect").is_some();
    let (origin, origin_index) = read_origin(table, groups, is_redirect);
    let mut route = Route {
        origin_index,
        ..Route::everything(origin)
    };
    let host = read::parsed(address::host, "a host");
    let host_count = table.value("hosts").map_or(0, |value| {
        let items = value.toml().as_array();
        items.map_or(usize::MAX, |items| items.len())
    });
    table.read_into("hosts", &mut route.hosts, read::nonempty_list(host, HOSTS));
    let are_hosts_known = route.hosts.len() == host_count;
    route.hosts.dedup();
    let path = read::parsed(address::path_prefix, "a path such as \"/live\"");
    let has_path = table.value("path").is_some();
    let path = table.get("path", path);
    let is_location_known = are_hosts_known && path.is_some() == has_path;
    route.path_prefix = path.unwrap_or(route.path_prefix);
    let name = table.get("name", read::parsed(address::name, "a name"));
    let has_name = name.is_some();
    route.name = name.unwrap_or_else(|| default_name(&route)).into();
    read_redirect(table, &mut route);
    table.read_into("forward_host", &mut route.forward_host, read::flag);
    access::read_access(table, &mut route.access, classes);
    let limits = &mut route.rate_limits;
    table.read_into("rate_limit", limits, rate_limits::read_rate_limits);
    match groups.get_mut(route.origin_index) {
        Some(group) if table.value("query").is_none() => group.set_query(&mut route),
        _ => table.read_into("query", &mut route.query, queries),
    }
    forwarded_headers::read_forwarded_headers(table, &mut route);
    cookies::read_cookies(table, &mut route);
    let kinds = &mut route.store_private;
    table.read_into("store_private", kinds, read_store_private);
    let rules = &mut route.header_rules;
    table.read_into("headers", rules, header_rules::read_header_rules);
    let pages = error_pages::read_error_pages(table, "[[route.error_page]]");
    route.error_pages.own = pages.into();
    table.read_into("pass_methods", &mut route.pass_methods, read::flag);
    table.read_into(
        "honour_request_directives",
        &mut route.honour_request_directives,
        read::flag,
    );
    table.read_into(
        "heuristic_freshness",
        &mut route.heuristic_freshness,
        read::flag,
    );
    table.read_into("store_keys", &mut route.store_keys, read::flag);
    table.read_into("store_errors", &mut route.store_errors, read::flag);
    table.read_into("cors", &mut route.cors, cors);
    table.read_into("x_cache", &mut route.x_cache, read::flag);
    table.read_into("cmsd", &mut route.cmsd, read::flag);
    table.read_into("show_key", &mut route.show_key, read::flag);
    table.read_into("show_tags", &mut route.show_tags, read::flag);
    table.read_some_into(
        "server_timing",
        &mut route.server_timing,
        read_server_timing,
    );
    read_live(table, &mut route.live);
    let lifetimes = &mut route.lifetimes;
    table.get("lifetimes", |value| {
        value.table("lifetimes", |table| read_lifetimes(table, lifetimes))
    });
    warn_of_all_queries(table, &route, groups);
    let placed_route = PlacedRoute {
        route,
        span,
        is_location_known,
    };
    (placed_route, has_name)
}

fn read_redirect(table: &mut TomlTable<'_>, route: &mut Route) {
    let value = table.value("redirect");
    let statuses = [301, 302, 303, 307, 308];
    let status = |value: TomlValue<'_>| {
        let number = read::count::<u16>(value)?;
        let status = StatusCode::from_u16(number).ok();
        let status = status.filter(|_| statuses.contains(&number));
        status.ok_or_else(|| value.problem(ValueError::new(REDIRECT_STATUS, "another one")))
    };
    let redirect = table.get("redirect", |value| {
        value.table("redirect", |table| {
            if table.value("to").is_none() {
                table.report_missing("to", "to = \"https://new.example/live\"");
            }
            let to = table.get("to", read::parsed(address::redirect_target, "a URL"));
            let status = table.get("status", status).unwrap_or(StatusCode::FOUND);
            to.map(|to| Redirect { to, status })
        })
    });
    route.redirect = redirect.flatten();
    let leads_here = route
        .redirect
        .as_ref()
        .is_some_and(|to| route.takes_path(&to.to));
    if let Some(value) = value.filter(|_| leads_here) {
        let problem = Problem::new("`redirect` leads back to the same route");
        table
            .reader()
            .add_problem(problem.at(value.span(), "without end"));
    }
}

/// Reads the settings for live streams.
fn read_live(table: &mut TomlTable<'_>, live: &mut Live) {
    table.get("live", |value| {
        value.table("live", |table| {
            table.read_into("cadence", &mut live.cadence, read::flag);
            table.read_into("prefetch", &mut live.prefetch, read::flag);
            table.read_into("delta_updates", &mut live.delta_updates, read::flag);
            table.read_into("hold_early", &mut live.hold_early, hold_early);
            table.read_into("idle", &mut live.idle, read::duration);
        })
    });
}

/// The header of those who get `Server-Timing`.
fn read_server_timing(value: TomlValue<'_>) -> ReadResult<HeaderName> {
    let name = read::header_name(value)?;
    if SENT_BY_ALL.contains(&name) {
        let what = format!("`server_timing` names `{name}`, which viewers send by themselves");
        let problem = Problem::warning(what).at(value.span(), "everyone gets `Server-Timing`");
        let help = "name a header that only your own tools send, such as \"X-Debug-Timing\"";
        value.reader().add_problem(problem.help(help));
    }
    Ok(name)
}

/// With MediaPackage, a query policy that keeps everything makes a key of each viewer's session.
fn warn_of_all_queries(table: &mut TomlTable<'_>, route: &Route, groups: &[OriginTable]) {
    let kinds = [&route.query.manifest, &route.query.segment];
    let keeps_all = kinds.contains(&&QueryPolicy::All);
    let Some(group) = groups.get(route.origin_index).filter(|_| keeps_all) else {
        return;
    };
    if group.is_mediapackage() {
        let span = table
            .value("query")
            .map_or(table.span(), |value| value.span());
        table.reader().add_problem(all_queries_warning(span));
    }
}

/// The warning for a route to MediaPackage that keeps every query parameter.
pub(super) fn all_queries_warning(span: SourceSpan) -> Problem {
    Problem::warning("every query parameter makes objects of its own before MediaPackage")
        .at(span, "keeps what viewers and players add")
        .help("write query = \"mediapackage\" to keep what MediaPackage reads, and nothing else")
}

/// The default name of a route: its host and path.
fn default_name(route: &Route) -> String {
    match (route.hosts.first(), route.path_prefix.as_str()) {
        (None, "/") => "default".to_owned(),
        (None, path) => path.to_owned(),
        (Some(host), "/") => host.clone(),
        (Some(host), path) => format!("{host}{path}"),
    }
}

/// The origin that a route names, or the only one.
fn read_origin(
    table: &mut TomlTable<'_>,
    groups: &[OriginTable],
    is_redirect: bool,
) -> (Arc<str>, usize) {
    let names = groups.iter().map(|group| &*group.settings.name);
    let Some(value) = table.value("origin") else {
        match groups {
            [only] => return (Arc::clone(&only.settings.name), 0),
            // It fetches from none.
            [first, ..] if is_redirect => return (Arc::clone(&first.settings.name), 0),
            _ => {}
        }
        let example = names.clone().next().unwrap_or("main");
        table.report_missing("origin", &format!("origin = \"{example}\""));
        return ("".into(), 0);
    };
    let written = table
        .reader()
        .value_or_report(value.text("the name of an origin"))
        .unwrap_or_default();
    if let Some(index) = names.clone().position(|name| name == written) {
        return (Arc::clone(&groups[index].settings.name), index);
    }
    if !written.is_empty() {
        let problem = Problem::new("this route names an origin that is not there");
        table
            .reader()
            .add_problem(match (nearest(&written, names.clone()), groups) {
                (Some(name), _) => problem.at(value.span(), format!("did you mean \"{name}\"?")),
                (None, []) => problem.at(value.span(), "there is no [[origin]]"),
                (None, _) => {
                    let all: Vec<_> = names.collect();
                    let help = format!("the origins are {}", all.join(", "));
                    problem
                        .at(value.span(), "no [[origin]] has this name")
                        .help(help)
                }
            });
    }
    ("".into(), 0)
}

/// One policy for all kinds, a named profile, or a table by kind.
fn queries(value: TomlValue<'_>) -> ReadResult<QueryPolicies> {
    let Some(table) = value.toml().as_table() else {
        let words = [
            ("all", QueryPolicy::All.into()),
            ("none", QueryPolicy::None.into()),
            ("mediapackage", QueryPolicies::mediapackage()),
        ];
        return read::one_of(&words, QUERIES)(value);
    };
    let is_list = |key: &&str| table.contains_key(*key);
    if table.is_empty() || ["only", "except"].iter().any(is_list) {
        return query(value).map(QueryPolicies::from);
    }
    let mut queries = QueryPolicies::from(QueryPolicy::All);
    value.table("query", |table| {
        table.read_into("manifest", &mut queries.manifest, query);
        table.read_into("segment", &mut queries.segment, query);
        table.read_into("other", &mut queries.other, query);
    })?;
    Ok(queries)
}

fn query(value: TomlValue<'_>) -> ReadResult<QueryPolicy> {
    if !value.toml().is_table() {
        let words = [("all", QueryPolicy::All), ("none", QueryPolicy::None)];
        return read::one_of(&words, QUERY)(value);
    }
    let name = |value: TomlValue<'_>| value.text("the name of a query parameter");
    let (only, except) = value.table("query", |table| {
        let only = table.get("only", read::list(name, NAMES));
        (only, table.get("except", read::list(name, NAMES)))
    })?;
    match (only, except) {
        (Some(only), None) => Ok(QueryPolicy::Only(only)),
        (None, Some(except)) => Ok(QueryPolicy::Except(except)),
        _ => Err(value.problem(ValueError::new(QUERY, "one of `only` and `except`"))),
    }
}

/// The name of a cookie, or the beginning of names. `*` alone would be every session too.
/// The request of a viewer waits this long, and viewers give up after a while.
fn hold_early(value: TomlValue<'_>) -> ReadResult<Duration> {
    const MOST: Duration = Duration::from_secs(5);
    let duration = read::duration(value)?;
    if duration > MOST {
        return Err(value.problem(ValueError::new("at most 5s", "longer than that")));
    }
    Ok(duration)
}

fn cors(value: TomlValue<'_>) -> ReadResult<Cors> {
    if !value.toml().is_table() {
        return read::one_of(&[("any", Cors::Any), ("off", Cors::Off)], CORS)(value);
    }
    let origin = read::parsed(address::web_origin, "a web origin");
    let (origins, credentials) = value.table("cors", |table| {
        let mut credentials = false;
        table.read_into("credentials", &mut credentials, read::flag);
        (
            table.get("only", read::nonempty_list(origin, CORS)),
            credentials,
        )
    })?;
    let origins =
        origins.ok_or_else(|| value.problem(ValueError::new(CORS, "`only` is missing")))?;
    Ok(Cors::Only {
        origins,
        credentials,
    })
}

fn read_lifetimes(table: &mut TomlTable<'_>, lifetimes: &mut Lifetimes) {
    /// How long a live manifest is served when the origin fails, by default.
    const STALE_IF_ERROR_DEFAULT: Duration = Duration::from_mins(1);
    table.read_into("manifest_max", &mut lifetimes.manifest_max, read::duration);
    table.read_into(
        "manifest_default",
        &mut lifetimes.manifest_default,
        read::duration,
    );
    table.read_into(
        "ended_default",
        &mut lifetimes.ended_default,
        read::duration,
    );
    table.read_into(
        "segment_default",
        &mut lifetimes.segment_default,
        read::duration,
    );
    let (least, most) = (table.value("segment_min"), table.value("segment_max"));
    table.read_into("segment_min", &mut lifetimes.segment_min, read::duration);
    table.read_into("segment_max", &mut lifetimes.segment_max, read::duration);
    table.read_into("negative_max", &mut lifetimes.negative_max, read::duration);
    table.read_into(
        "manifest_stale_share",
        &mut lifetimes.manifest_stale_share,
        read::ratio,
    );
    let manifest_error = &mut lifetimes.manifest_stale_if_error;
    table.read_some_into("manifest_stale_if_error", manifest_error, read::duration);
    let if_missing = table.value("manifest_stale_if_missing");
    let missing: &mut Duration = &mut lifetimes.manifest_stale_if_missing;
    table.read_into("manifest_stale_if_missing", missing, read::duration);
    let bound = lifetimes
        .manifest_stale_if_error
        .unwrap_or(STALE_IF_ERROR_DEFAULT);
    let too_long = lifetimes.manifest_stale_if_missing > bound;
    if let Some(value) = if_missing.filter(|_| too_long) {
        let expected = "at most `manifest_stale_if_error`, beyond which nothing stale is served";
        let error = ValueError::new(expected, "longer than that");
        table.reader().add_problem(value.problem(error));
    }
    let segment_error: &mut Duration = &mut lifetimes.segment_stale_if_error;
    table.read_into("segment_stale_if_error", segment_error, read::duration);
    table.read_some_into("override_ttl", &mut lifetimes.override_ttl, read::duration);
    if let Some(value) = least
        .or(most)
        .filter(|_| lifetimes.segment_min > lifetimes.segment_max)
    {
        let error = ValueError::new(
            "in step: `segment_min` at most `segment_max`",
            "out of step",
        );
        table.reader().add_problem(value.problem(error));
    }
}
