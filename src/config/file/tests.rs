//! Tests that every section is read, that values arrive with their meaning, and that all problems
//! are reported at once. That each key changes a setting of its own is tested in `examples.rs`.

mod error_pages;
mod health;
mod identity;
mod kinds;
mod mistakes;
mod resilience;
mod secrets;
mod warnings;

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::frontend::ListenAddress;
use seawall_manifest::Kind;
use seawall_policy::route::{Cors, QueryPolicies, QueryPolicy};
use seawall_upstream::{Protocol, Quota};

const ORIGIN: &str = "[[origin]]\nname = \"main\"\nendpoints = [\"https://origin.example\"]\n";

fn environment(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("s3cret-token".to_owned()),
        "BROKEN" => Some("s3cret\nline".to_owned()),
        "SLOW" => Some("s3cret".to_owned()),
        _ => None,
    }
}

fn draft(source: &str) -> ConfigDraft {
    read(source, Path::new("seawall.toml"), &environment)
}

fn config(source: &str) -> Config {
    draft(source)
        .finish()
        .map_or_else(|problems| panic!("{problems}"), |(config, _)| config)
}

/// A text to check, and the lines of it that a snapshot shows.
struct Input {
    lines: String,
    source: String,
}

/// A whole file.
fn file(source: impl Into<String>) -> Input {
    let source = source.into();
    Input {
        lines: source.clone(),
        source,
    }
}

/// The first line, followed by an origin.
fn first_line(line: impl Into<String>) -> Input {
    let lines = line.into();
    let source = format!("{lines}\n{ORIGIN}");
    Input { lines, source }
}

/// An origin with one more line, the fourth.
fn in_origin(line: impl Into<String>) -> Input {
    let lines = line.into();
    let source = format!("{ORIGIN}{lines}\n");
    Input { lines, source }
}

/// A route with this line, the fifth.
fn in_route(line: impl Into<String>) -> Input {
    let lines = line.into();
    let source = format!("{ORIGIN}[[route]]\n{lines}\n");
    Input { lines, source }
}

/// Each input with every error and warning of it, as an operator sees them. Compare it with a
/// snapshot: one of `snapshots/` that changes is a changed diagnostic, to be read before
/// `INSTA_UPDATE=always ./x test config` rewrites it.
fn diagnostics(inputs: &[Input]) -> String {
    let texts = inputs.iter().map(|input| {
        let finished = draft(&input.source).finish();
        let problems = finished.map_or_else(|problems| problems, |(_, warnings)| warnings);
        beside_its_input(&input.lines, &problems.to_string())
    });
    texts.collect::<Vec<_>>().join("\n\n")
}

/// Problems as text, with a temporary folder's path replaced by one that stays the same.
fn text_without_folder(problems: &Problems, folder: &Path) -> String {
    let written = folder.display().to_string();
    problems.to_string().replace(&written, "/etc/seawall")
}

/// Lines of the configuration, marked as such, and what is reported of them.
fn beside_its_input(lines: &str, problems: &str) -> String {
    let mut text = String::new();
    for line in lines.trim_end().split('\n') {
        text.push_str(format!("> {line}").trim_end());
        text.push('\n');
    }
    text.push_str(if problems.is_empty() {
        "no problem"
    } else {
        problems
    });
    text
}

fn full_config() -> Config {
    config(
        "[server]\nthreads = 3\ndrain_max = \"1m\"\nname = \"shield-1\"\n\
         [[listener]]\nlisten = \"unix:/run/seawall.sock\"\n\
         [limits]\nhead_max = \"16KiB\"\nheaders_max = 50\nranges_max = 4\n\
         [admin]\nlisten = \"[::1]:9090\"\n\
         [cache]\nmemory = \"2GiB\"\nkind_max = { segment = \"1GiB\", hls = 1024 }\n\
         [fill]\nmemory = \"512MiB\"\nwait_max = \"5s\"\nslice = \"1MiB\"\n\
         [access_log]\nenabled = true\nsample = 10\n\
         [[origin]]\nname = \"b\"\nendpoints = [\"http://b.example\"]\nprotocol = \"h2\"\n\
         deadlines = { total = \"9s\" }\n\
         [[origin]]\nname = \"a\"\nendpoints = [\"https://a.example\"]\n\
         [[route]]\norigin = \"a\"\n\
         [[route]]\nhosts = [\"Live.Example.\"]\npath = \"/live/\"\norigin = \"b\"\n\
         query = { only = [\"start\"] }\ncors = { only = [\"https://p.example\"] }\n\
         lifetimes = { override_ttl = \"1h\" }\n",
    )
}

#[test]
fn reads_every_section() {
    let config = full_config();
    assert_eq!(
        (config.threads, config.drain_max),
        (3, Duration::from_mins(1))
    );
    assert_eq!(&*config.rules.name, "shield-1");
    assert_eq!(
        config.frontend.listeners[0].address,
        ListenAddress::Unix("/run/seawall.sock".into())
    );
    let limits = &config.frontend.limits;
    assert_eq!((limits.head_bytes_max, limits.headers_max), (16 << 10, 50));
    assert_eq!(config.proxy.ranges_max, 4);
    let admin = address::parse_admin_address("[::1]:9090").unwrap();
    assert_eq!(config.admin.listen, Some(admin));
    assert_eq!(
        config.cache.kind_bytes_max,
        [(Kind::Hls, 1024), (Kind::Segment, 1 << 30)]
    );
    assert_eq!(config.cache.fill_bytes_max, 512 << 20);
    assert_eq!(config.proxy.wait_max, Duration::from_secs(5));
    assert_eq!(
        (
            config.telemetry.access_log.enabled,
            config.telemetry.access_log.sample
        ),
        (true, 10)
    );
    assert_eq!(config.origins[0].protocol, Protocol::H2);
    assert_eq!(config.origins[0].deadlines.total, Duration::from_secs(9));
    let [live, rest] = &config.rules.routes[..] else {
        panic!("two routes")
    };
    assert_eq!(
        (
            &*live.name,
            live.hosts.join(","),
            &*live.path_prefix,
            live.origin_index
        ),
        ("live.example/live", "live.example".to_owned(), "/live", 0)
    );
    assert_eq!(
        live.query,
        QueryPolicy::Only(vec!["start".to_owned()]).into()
    );
    let only = Cors::Only {
        origins: vec!["https://p.example".to_owned()],
        credentials: false,
    };
    assert_eq!(live.cors, only);
    assert_eq!(live.lifetimes.override_ttl, Some(Duration::from_hours(1)));
    assert_eq!(
        (&*rest.name, &*rest.origin, rest.origin_index),
        ("default", "a", 1)
    );
}

#[test]
fn reads_query_rules_by_kind_and_name() {
    let queries = |written: &str| {
        let config = config(&format!("{ORIGIN}[[route]]\nquery = {written}\n"));
        config.rules.routes[0].query.clone()
    };
    assert_eq!(queries("\"none\""), QueryPolicy::None.into());
    assert_eq!(queries("\"mediapackage\""), QueryPolicies::mediapackage());
    let by_kind = queries("{ manifest = { only = [\"start\"] }, segment = \"none\" }");
    assert_eq!(
        by_kind,
        QueryPolicies {
            manifest: QueryPolicy::Only(vec!["start".to_owned()]),
            segment: QueryPolicy::None,
            other: QueryPolicy::All,
        }
    );
}

#[test]
fn reports_problems_in_any_text() {
    let whole = format!(
        "[limits]\nidle_timeout = 5 # ü\n[[listener]]\nlisten = \"[::]:1\"\n{ORIGIN}\
         headers = {{ X-Token = \"a${{TOKEN}}ü\", Y = '''\nb\n''' }}\n[[route]]\r\nquery = {{ }}\n"
    );
    for (position, character) in whole.char_indices() {
        let after = &whole[position + character.len_utf8()..];
        for text in [
            &whole[..position],
            after,
            &format!("{}{after}", &whole[..position]),
        ] {
            let problems = draft(text).problems;
            assert_eq!(problems.to_string().is_empty(), problems.is_empty());
        }
    }
}

#[test]
fn reads_the_concurrency_limit_of_an_endpoint() {
    let config = config(
        "[[origin]]\nname = \"main\"\nendpoints = [\"https://a.example\", \
         { url = \"https://b.example\", priority = 1, weight = 2, concurrency_max = 64 }]\n",
    );
    let [first, second] = &config.origins[0].endpoints[..] else {
        panic!("two endpoints");
    };
    assert_eq!((first.priority, first.weight), (0, 1));
    assert_eq!((second.priority, second.weight), (1, 2));
    let caps = (first.concurrency_max, second.concurrency_max);
    assert_eq!(caps, (None, Some(64)));
}

#[test]
fn reads_endpoint_quotas_in_total_and_by_kind() {
    let config = config(
        "[[origin]]\nname = \"main\"\nendpoints = [\
         { url = \"https://a.example\", requests_per_second_max = 600 }, \
         { url = \"https://b.example\", requests_per_second_max = { segment = 400, manifest = 100 } }]\n",
    );
    let [all, by_class] = &config.origins[0].endpoints[..] else {
        panic!("two endpoints");
    };
    assert_eq!(all.requests_per_second_max, Some(Quota::All(600)));
    let rates = [Some(100), Some(400), None];
    assert_eq!(
        by_class.requests_per_second_max,
        Some(Quota::ByClass(rates))
    );
}
