//! Writes `[[route]]`.

use std::sync::Arc;

use http::{HeaderName, StatusCode};
use serde_json::{Value, json};

use super::{WrittenTable, addresses, error_pages, origins, path_text};
use crate::config::file::TOKEN_KINDS;
use crate::config::quantity::{duration_text, size_text};
use seawall_manifest::Kind;
use seawall_policy::access_rules::RequiredHeader;
use seawall_policy::rate_limit::RateLimit;
use seawall_policy::route::{
    Cors, HeaderRule, Lifetimes, Live, QueryPolicies, QueryPolicy, Redirect,
};
use seawall_policy::{RateLimits, RequiredCertificate, RequiredToken, Route};

/// Every route once. One whose hosts differ in rank occurs several times in `routes`, with a part
/// of its hosts each time (see `order.rs`).
pub(super) fn tables(routes: &[Arc<Route>]) -> Vec<WrittenTable> {
    let mut written: Vec<(WrittenTable, Vec<String>)> = Vec::new();
    for route in routes {
        let table = table_without_hosts(route);
        let same = |(earlier, _): &&mut (WrittenTable, Vec<String>)| {
            earlier.name == table.name && earlier.keys == table.keys
        };
        match written.iter_mut().find(same) {
            Some((_, hosts)) => hosts.extend_from_slice(&route.hosts),
            None => written.push((table, route.hosts.clone())),
        }
    }
    let with_hosts = |(table, mut hosts): (WrittenTable, Vec<String>)| {
        // Their order has no meaning.
        hosts.sort();
        let mut table = table.key("hosts", Some(hosts).filter(|hosts| !hosts.is_empty()));
        table.keys.rotate_right(1);
        table
    };
    written.into_iter().map(with_hosts).collect()
}

fn table_without_hosts(route: &Route) -> WrittenTable {
    let default = keys(&Route::everything(""));
    keys(route).mark_defaults(&default).name(&*route.name)
}

fn keys(route: &Route) -> WrittenTable {
    let required = route.access.require_header.as_ref().map(required_header);
    let redirect = route.redirect.as_ref();
    let redirect =
        redirect.map(|Redirect { to, status }| json!({ "to": to, "status": status.as_u16() }));
    let table = WrittenTable::new("[[route]]")
        .key("path", &*route.path_prefix)
        .key("origin", &*route.origin)
        .key("redirect", redirect)
        .key("forward_host", route.forward_host)
        .key("allow", route.access.allow.as_ref().map(addresses))
        .key("deny", route.access.deny.as_ref().map(addresses))
        .key("require_header", required)
        .key(
            "client_classes",
            route.access.client_classes.as_deref().map(class_names),
        )
        .key(
            "require_certificate",
            route.access.require_certificate.as_ref().map(certificate),
        )
        .key("token", route.access.token.as_deref().map(token))
        .key("rate_limit", rate_limits(&route.rate_limits))
        .key("query", queries(&route.query))
        .key("forward_headers", names(&route.forward_headers))
        .key("unkeyed_headers", names(&route.unkeyed_headers))
        .key("ignore_cookies", route.ignore_cookies.clone())
        .key("strip_set_cookie", route.strip_set_cookie.clone())
        .key("store_private", kinds(&route.store_private))
        .tables(header_rules("viewer", &route.header_rules.to_viewer))
        .tables(header_rules("origin", &route.header_rules.to_origin))
        .tables(error_pages("error_page", &route.error_pages.own))
        .key("pass_methods", route.pass_methods)
        .key("honour_request_directives", route.honour_request_directives)
        .key("heuristic_freshness", route.heuristic_freshness)
        .key("store_keys", route.store_keys)
        .key("store_errors", route.store_errors)
        .key("cors", cors(&route.cors))
        .key("x_cache", route.x_cache)
        .key("cmsd", route.cmsd)
        .key("show_key", route.show_key)
        .key("show_tags", route.show_tags)
        .key(
            "server_timing",
            route.server_timing.as_ref().map(HeaderName::as_str),
        );
    lifetimes(live(table, &route.live), &route.lifetimes)
}

fn live(table: WrittenTable, live: &Live) -> WrittenTable {
    table
        .key("live.cadence", live.cadence)
        .key("live.prefetch", live.prefetch)
        .key("live.delta_updates", live.delta_updates)
        .key("live.hold_early", duration_text(live.hold_early))
        .key("live.idle", duration_text(live.idle))
}

fn lifetimes(table: WrittenTable, lifetimes: &Lifetimes) -> WrittenTable {
    let bounds = [
        ("manifest_max", lifetimes.manifest_max),
        ("manifest_default", lifetimes.manifest_default),
        ("ended_default", lifetimes.ended_default),
        ("segment_default", lifetimes.segment_default),
        ("segment_min", lifetimes.segment_min),
        ("segment_max", lifetimes.segment_max),
        ("negative_max", lifetimes.negative_max),
        (
            "manifest_stale_if_missing",
            lifetimes.manifest_stale_if_missing,
        ),
        ("segment_stale_if_error", lifetimes.segment_stale_if_error),
    ];
    let table = bounds.into_iter().fold(table, |table, (key, bound)| {
        table.key(format!("lifetimes.{key}"), duration_text(bound))
    });
    let if_error = lifetimes.manifest_stale_if_error.map(duration_text);
    let override_ttl = lifetimes.override_ttl.map(duration_text);
    table
        .key(
            "lifetimes.manifest_stale_share",
            lifetimes.manifest_stale_share,
        )
        .key("lifetimes.manifest_stale_if_error", if_error)
        .key("lifetimes.override_ttl", override_ttl)
}

/// The names of the files, not the secrets.
pub(super) fn required_header(header: &RequiredHeader) -> Value {
    let files = header.secret_files.iter().map(|file| path_text(file));
    json!({ "name": header.name.as_str(), "secret_files": files.collect::<Vec<_>>() })
}

pub(super) fn certificate(required: &RequiredCertificate) -> Value {
    match required {
        RequiredCertificate::Any => "any".into(),
        RequiredCertificate::Named(names) => json!({ "names": **names }),
    }
}

fn kinds(kinds: &[Kind]) -> Vec<&'static str> {
    kinds.iter().map(|kind| kind.as_str()).collect()
}

/// The names of the files, not the keys.
fn token(token: &RequiredToken) -> Value {
    let keys = token.keys.iter();
    let keys = keys.map(|(id, file)| (id.clone(), Value::from(path_text(file))));
    let mut written = json!({
        "kind": origins::word(&TOKEN_KINDS, token.kind),
        "keys": keys.collect::<serde_json::Map<_, _>>(),
    });
    let places = [
        ("header", token.header.as_ref().map(HeaderName::as_str)),
        ("cookie", token.cookie.as_deref()),
        ("query", token.query.as_deref()),
        ("path", token.path.as_deref()),
    ];
    for (key, name) in places {
        if let Some(name) = name {
            written[key] = name.into();
        }
    }
    for (key, names) in [("issuers", &token.issuers), ("audiences", &token.audiences)] {
        if !names.is_empty() {
            written[key] = json!(names);
        }
    }
    if token.accepts_no_expiry {
        written["accept_no_expiry"] = true.into();
    }
    written
}

fn class_names(classes: &[Arc<str>]) -> Vec<&str> {
    classes.iter().map(|class| &**class).collect()
}

fn rate_limits(limits: &RateLimits) -> Option<Vec<Value>> {
    let of = |per: &str, limit: &RateLimit| {
        let mut written = rate_limit(limit);
        written["per"] = per.into();
        written
    };
    let per_client = limits.per_client.iter().map(|limit| of("client", limit));
    let per_route = limits.per_route.iter().map(|limit| of("route", limit));
    let written: Vec<_> = per_client.chain(per_route).collect();
    Some(written).filter(|written| !written.is_empty())
}

/// Without the keys that are not set.
pub(super) fn rate_limit(limit: &RateLimit) -> Value {
    let requests = limit.requests.as_ref();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it was read as a size"
    )]
    let size = |bytes: f64| size_text(bytes as u64);
    let mut written = json!({});
    if let Some(requests) = requests {
        written["requests_per_second"] = number(requests.per_second);
        written["burst"] = number(requests.burst);
    }
    if let Some(bytes) = limit.bytes {
        written["bytes_per_second"] = size(bytes.per_second).into();
        written["bytes_burst"] = size(bytes.burst).into();
    }
    written
}

/// A whole number without a point, as in the file.
fn number(number: f64) -> Value {
    let text = number.to_string();
    text.parse::<u64>()
        .map_or_else(|_| number.into(), Value::from)
}

/// Rules have no names: they are told apart by whom they reach, and by their places.
fn header_rules<'r>(
    to: &'static str,
    rules: &'r [HeaderRule],
) -> impl Iterator<Item = WrittenTable> + use<'r> {
    rules.iter().enumerate().map(move |(place, rule)| {
        let kinds = kinds(&rule.kinds);
        let statuses: Vec<_> = rule.statuses.iter().map(StatusCode::as_u16).collect();
        let mut table = WrittenTable::new("headers")
            .name(format!("{to} {}", place + 1))
            .key("kinds", Some(kinds).filter(|kinds| !kinds.is_empty()))
            .key("statuses", Some(statuses).filter(|all| !all.is_empty()))
            .key("remove", names(&rule.remove));
        for (name, value) in &rule.set {
            // What the origin gets may be a secret.
            table = table.secret(format!("set.{name}"), value.as_bytes());
        }
        table
    })
}

fn names(headers: &[HeaderName]) -> Vec<&str> {
    headers.iter().map(HeaderName::as_str).collect()
}

/// As a route has it under `query`.
pub(super) fn queries(queries: &QueryPolicies) -> Value {
    if *queries == QueryPolicies::mediapackage() {
        return "mediapackage".into();
    }
    if *queries == QueryPolicies::from(queries.manifest.clone()) {
        return query(&queries.manifest);
    }
    json!({
        "manifest": query(&queries.manifest),
        "segment": query(&queries.segment),
        "other": query(&queries.other),
    })
}

fn query(policy: &QueryPolicy) -> Value {
    match policy {
        QueryPolicy::All => "all".into(),
        QueryPolicy::None => "none".into(),
        QueryPolicy::Only(names) => json!({ "only": names }),
        QueryPolicy::Except(names) => json!({ "except": names }),
    }
}

fn cors(cors: &Cors) -> Value {
    match cors {
        Cors::Any => "any".into(),
        Cors::Off => "off".into(),
        Cors::Only {
            origins,
            credentials,
        } => json!({ "only": origins, "credentials": credentials }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::WrittenValue;
    use super::*;
    use seawall_policy::rate_limit::Allowance;

    #[test]
    fn rate_limit_has_the_keys_that_are_set_as_the_file_writes_them() {
        let written = |limit: &RateLimit| WrittenValue::Plain(rate_limit(limit)).to_string();
        let of = |per_second, burst| Some(Allowance { per_second, burst });
        let requests = RateLimit {
            requests: of(0.5, 5.0),
            bytes: None,
        };
        assert_eq!(
            written(&requests),
            "{ burst = 5, requests_per_second = 0.5 }"
        );
        let bytes = RateLimit {
            requests: None,
            bytes: of(1_048_576.0, 10_485_760.0),
        };
        let expected = "{ bytes_burst = \"10MiB\", bytes_per_second = \"1MiB\" }";
        assert_eq!(written(&bytes), expected);
    }
}
