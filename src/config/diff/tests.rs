//! Tests what is said of realistic pairs of files.

use std::path::Path;

use insta::assert_snapshot;

use super::*;
use crate::config::{Config, file};

fn config(source: &str) -> Config {
    let environment = |_: &str| Some("s3cret-of-the-environment".to_owned());
    file::read(source, Path::new("seawall.toml"), &environment)
        .finish()
        .map_or_else(|problems| panic!("{problems}"), |(config, _)| config)
}

fn changes(before: &str, after: &str) -> Vec<Change> {
    config(before).changes_to(&config(after))
}

fn lines(before: &str, after: &str) -> String {
    let changes = changes(before, after);
    let lines: Vec<_> = changes.iter().map(Change::to_string).collect();
    lines.join("\n")
}

const MATCH_DAY: &str = r#"
[server]
threads = 4
[[listener]]
listen = "0.0.0.0:8080"
[cache]
memory = "8GiB"
[[origin]]
name = "a"
endpoints = ["https://a1.example", "https://a2.example"]
headers = { X-Token = "s3cret", X-Gone = "s3cret" }
[[origin]]
name = "vod"
endpoints = ["https://vod.example"]
[[route]]
name = "live"
hosts = ["live.example", "*.live.example"]
origin = "a"
[[route]]
name = "vod"
path = "/vod"
origin = "vod"
"#;

#[test]
fn names_tables_keys_and_both_values() {
    let after = r#"
[server]
threads = 8
[[listener]]
listen = "0.0.0.0:8080"
[[listener]]
listen = "unix:/run/seawall.sock"
[cache]
memory = "12GiB"
kind_max = { segment = "10GiB" }
[admin]
listen = "127.0.0.1:9090"
[[origin]]
name = "a"
endpoints = ["https://a1.example", "https://a2.example", { url = "https://b.example:8443", priority = 1 }]
headers = { X-Token = "s3cret-too", X-New = "s3cret" }
deadlines = { first_byte = "12500ms", total = "1m30s" }
[origin.health]
every = "10s"
[[route]]
name = "live"
hosts = ["live.example", "*.live.example", "second.example"]
origin = "a"
query = { except = ["session"] }
lifetimes = { manifest_default = "4s", override_ttl = "10s" }
[[route]]
name = "catch-up"
path = "/catch-up"
origin = "a"
cors = { only = ["https://player.example"] }
"#;
    assert_snapshot!(lines(MATCH_DAY, after), @r#"
    [server]: threads 4 → 8
    [[listener]] "unix:/run/seawall.sock" added
    [admin]: listen not set → "127.0.0.1:9090"
    [cache]: memory "8GiB" → "12GiB"
    [cache]: kind_max.segment not set → "10GiB"
    [[origin]] "a": headers.x-gone (secret) → not set
    [[origin]] "a": headers.x-token changed
    [[origin]] "a": deadlines.first_byte "10s" → "12500ms"
    [[origin]] "a": deadlines.total "1m" → "90s"
    [[origin]] "a": headers.x-new not set → (secret)
    [[origin]] "a": endpoints "https://b.example:8443" added
    [[origin]] "a": endpoints "https://b.example:8443": priority = 1
    [[origin]] "a": health added
    [[origin]] "a": health.every = "10s"
    [[origin]] "vod" removed
    [[route]] "live": hosts ["*.live.example", "live.example"] → ["*.live.example", "live.example", "second.example"]
    [[route]] "live": query "all" → { except = ["session"] }
    [[route]] "live": lifetimes.manifest_default "2s" → "4s"
    [[route]] "live": lifetimes.override_ttl not set → "10s"
    [[route]] "vod" removed
    [[route]] "catch-up" added
    [[route]] "catch-up": path = "/catch-up"
    [[route]] "catch-up": origin = "a"
    [[route]] "catch-up": cors = { credentials = false, only = ["https://player.example"] }
    "#);
}

#[test]
fn order_of_tables_in_the_file_is_no_difference() {
    let moved = r#"
[[route]]
origin = "vod"
path = "/vod"
name = "vod"
[[route]]
name = "live"
hosts = ["*.live.example", "live.example"]
origin = "a"
[[origin]]
name = "vod"
endpoints = ["https://vod.example:443"]
[[origin]]
name = "a"
endpoints = ["https://a1.example", "https://a2.example"]
headers = { X-Gone = "s3cret", X-Token = "s3cret" }
[cache]
memory = 8589934592
[server]
threads = 4
"#;
    assert_eq!(changes(MATCH_DAY, moved), []);
}

#[test]
fn order_of_endpoints_is_a_difference() {
    let with = |endpoints: &str| {
        MATCH_DAY.replace("\"https://a1.example\", \"https://a2.example\"", endpoints)
    };
    let swapped = with("\"https://a2.example\", \"https://a1.example\"");
    assert_snapshot!(lines(MATCH_DAY, &swapped), @r#"[[origin]] "a": endpoints in another order: ["https://a2.example", "https://a1.example"]"#);
    let put_first = with("\"https://a0.example\", \"https://a1.example\", \"https://a2.example\"");
    assert_snapshot!(lines(MATCH_DAY, &put_first), @r#"
    [[origin]] "a": endpoints "https://a0.example" added
    [[origin]] "a": endpoints in another order: ["https://a0.example", "https://a1.example", "https://a2.example"]
    "#);
    let without_first = with("\"https://a2.example\"");
    assert_snapshot!(lines(MATCH_DAY, &without_first), @r#"[[origin]] "a": endpoints "https://a1.example" removed"#);
}

#[test]
fn a_route_without_a_table_is_a_route_with_defaults() {
    let origin = "[[origin]]\nname = \"a\"\nendpoints = [\"https://a.example\"]\n";
    let both = [
        origin.to_owned(),
        format!("{origin}[[route]]\npath = \"/\"\n"),
    ];
    assert_eq!(changes(&both[0], &both[1]), []);
}

#[test]
fn secrets_are_compared_and_never_shown() {
    let origin = |lines: &str| {
        format!("[[origin]]\nname = \"a\"\nendpoints = [\"https://a.example\"]\n{lines}\n")
    };
    let path = |token: &str| origin(&format!("health = {{ path = \"/alive?token={token}\" }}"));
    let header = |value: &str| origin(&format!("headers = {{ Authorization = \"{value}\" }}"));
    let pairs = [
        (path("s3cret-1"), path("s3cret-2")),
        (origin("health = {}"), path("s3cret-1")),
        (header("s3cret-1"), header("${TOKEN}")),
        (header("s3cret-1"), origin("")),
        (origin(""), header("s3cret-1")),
    ];
    for (before, after) in pairs {
        assert_eq!(changes(&before, &before), []);
        let changes = changes(&before, &after);
        assert_eq!(changes.len(), 1, "{changes:?}");
        let text = format!("{0} {0:?} {1}", changes[0], changes[0].to_json());
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn json_has_each_word_of_a_change() {
    let after = MATCH_DAY
        .replace("8GiB", "9GiB")
        .replace("s3cret\"", "s3cret-too\"");
    let changes = changes(MATCH_DAY, &after);
    let json: Vec<_> = changes.iter().map(Change::to_json).collect();
    assert_eq!(
        json,
        [
            json!({
                "table": "[cache]", "difference": "changed", "key": "memory",
                "before": "8GiB", "after": "9GiB",
            }),
            json!({
                "table": "[[origin]] \"a\"", "difference": "changed", "key": "headers.x-gone",
                "before": "(secret)", "after": "(secret)",
            }),
            json!({
                "table": "[[origin]] \"a\"", "difference": "changed", "key": "headers.x-token",
                "before": "(secret)", "after": "(secret)",
            }),
        ]
    );
}
