//! Tests that every section is read, that values arrive with their meaning, and that all problems
//! are reported at once. That each key changes a setting of its own is tested in `examples.rs`.

mod health;
mod identity;
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

/// The rendered problems of a text, after a check that there are `count`.
fn problems_text(count: usize, source: &str) -> String {
    let problems = draft(source).finish().expect_err("something wrong");
    assert_eq!(problems.errors(), count, "{problems}");
    problems.to_string()
}

/// One problem at `line:column`, underlining `text`, with each of `words`.
fn assert_problem(source: &str, position: &str, text: &str, words: &[&str]) {
    let report = problems_text(1, source);
    assert!(
        report.contains(&format!("seawall.toml:{position}\n")),
        "{position} in:\n{report}"
    );
    let underlined = report.lines().any(|line| {
        let marks = line.chars().filter(|c| *c == '^').count();
        marks == text.chars().count()
    });
    assert!(
        underlined && report.contains(text),
        "{text} underlined in:\n{report}"
    );
    for word in words {
        assert!(report.contains(word), "{word} in:\n{report}");
    }
}

/// A text whose first line is wrong, followed by an origin.
fn assert_first_line_problem(line: &str, column: usize, text: &str, words: &[&str]) {
    assert_problem(
        &format!("{line}\n{ORIGIN}"),
        &format!("1:{column}"),
        text,
        words,
    );
}

/// An origin with one more line, the fourth, which is wrong.
fn assert_origin_problem(line: &str, column: usize, text: &str, words: &[&str]) {
    assert_problem(
        &format!("{ORIGIN}{line}\n"),
        &format!("4:{column}"),
        text,
        words,
    );
}

/// A route with one line, the fifth, which is wrong.
fn assert_route_problem(line: &str, column: usize, text: &str, words: &[&str]) {
    assert_problem(
        &format!("{ORIGIN}[[route]]\n{line}\n"),
        &format!("5:{column}"),
        text,
        words,
    );
}

#[test]
fn reports_all_problems_at_once() {
    let text = problems_text(
        6,
        "[limits]\nidle_timeout = 5\nconections_max = 1\n[cache]\nmemory = \"64M\"\n\
         [[origin]]\nendpoints = [\"a.example\", 7]\n[[route]]\nquery = 1\n",
    );
    for position in ["2:16", "3:1", "5:10", "7:14", "7:27", "9:9"] {
        assert!(
            text.contains(&format!("seawall.toml:{position}\n")),
            "{position} in:\n{text}"
        );
    }
}

#[test]
fn shows_where_toml_is_broken() {
    let text = problems_text(2, "[limits\nidle_timeout = \"5s\"\n[cache]\nmemory = = 5\n");
    assert!(
        text.contains("this is not TOML") && text.contains("seawall.toml:4:10"),
        "{text}"
    );
    let twice = problems_text(1, "[cache]\nmemory = 5\nmemory = 6\n");
    assert!(
        twice.contains("duplicate key") && twice.contains("seawall.toml:3:1"),
        "{twice}"
    );
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
    assert_eq!(config.admin.listen, Some("[::1]:9090".parse().unwrap()));
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
    let none = "[[origin]]\nendpoints = [{ url = \"https://a.example\", concurrency_max = 0 }]\n";
    assert_problem(none, "2:61", "0", &["at least 1"]);
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
    for (wrong, position, source, expected) in [
        ("\"600\"", "2:69", "\"600\"", "by kind"),
        ("0", "2:69", "0", "at least 1"),
        ("{}", "2:69", "{}", "names no kind"),
        ("{ segment = 0 }", "2:81", "0", "at least 1"),
        ("{ segments = 9 }", "2:71", "segments", "`segment`"),
    ] {
        let text = format!(
            "[[origin]]\nendpoints = [{{ url = \"https://a.example\", requests_per_second_max = {wrong} }}]\n"
        );
        assert_problem(&text, position, source, &[expected]);
    }
}
