//! The Grafana dashboard in `deploy/` is complete: each panel says what it shows and in which unit,
//! names its series, and asks the data source and the servers that are chosen. Whether the metrics
//! exist is checked by `tests/architecture/metric_names.rs`. It needs no server.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read the dashboard has failed"
)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::Command;

use serde_json::Value;

const DASHBOARD: &str = include_str!("../deploy/grafana/seawall.json");

const ROWS: [&str; 6] = [
    "Audience",
    "Cache",
    "Origin",
    "Live",
    "Experience",
    "Process",
];

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    let found = value.pointer(pointer).and_then(Value::as_array);
    found.map_or(&[], Vec::as_slice)
}

/// What a panel lacks.
fn missing(panel: &Value) -> Vec<&'static str> {
    let queries = list(panel, "/targets");
    let all = |holds: fn(&Value) -> bool| !queries.is_empty() && queries.iter().all(holds);
    let is_chosen = |value: &Value| text(value, "/datasource/uid") == "${datasource}";
    let chooses = |query: &Value| text(query, "/expr").contains("instance=~\"$instance\"");
    let checks = [
        ("a title", !text(panel, "/title").is_empty()),
        ("a description", text(panel, "/description").ends_with('.')),
        (
            "a unit",
            !text(panel, "/fieldConfig/defaults/unit").is_empty(),
        ),
        (
            "names of series",
            all(|query| !text(query, "/legendFormat").is_empty()),
        ),
        ("the chosen data source", is_chosen(panel) && all(is_chosen)),
        ("the chosen servers", all(chooses)),
    ];
    let missing = checks.into_iter().filter(|(_, holds)| !holds);
    missing.map(|(what, _)| what).collect()
}

#[test]
fn panels_say_what_they_show() {
    let dashboard = dashboard();
    let panels = list(&dashboard, "/panels");
    let (rows, panels): (Vec<_>, Vec<_>) = panels
        .iter()
        .partition(|panel| text(panel, "/type") == "row");
    let rows: Vec<_> = rows.into_iter().map(|row| text(row, "/title")).collect();
    assert_eq!(rows, ROWS);
    let faults = panels.iter().filter_map(|panel| {
        let missing = missing(panel);
        (!missing.is_empty()).then(|| (text(panel, "/title"), missing))
    });
    let faults: Vec<_> = faults.collect();
    assert!(
        faults.is_empty(),
        "give these panels what they lack: {faults:#?}"
    );
}

/// Grafana loads a file with two panels of one number, and shows one of them.
#[test]
fn panels_have_numbers_and_places_of_their_own() {
    let dashboard = dashboard();
    let panels = list(&dashboard, "/panels");
    let numbers: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(numbers.len(), panels.len());
    let mut cells = BTreeSet::new();
    for panel in panels {
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", text(panel, "/title"));
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(
                    cells.insert((x, y)),
                    "{} covers another",
                    text(panel, "/title")
                );
            }
        }
    }
}

/// It is imported as it is: no question for a data source, and no number of another Grafana.
#[test]
fn nothing_is_asked_at_the_import() {
    let dashboard = dashboard();
    assert!(dashboard.get("__inputs").is_none());
    assert!(dashboard["id"].is_null());
    let variables = list(&dashboard, "/templating/list");
    let names: Vec<_> = variables.iter().map(|one| text(one, "/name")).collect();
    assert_eq!(names, ["datasource", "instance"]);
}

/// Every query of a panel or an annotation.
fn queries(dashboard: &Value) -> Vec<&str> {
    let panels = list(dashboard, "/panels").iter();
    let targets = panels.flat_map(|panel| list(panel, "/targets"));
    let annotations = list(dashboard, "/annotations/list").iter();
    let queries = targets.chain(annotations).map(|query| text(query, "/expr"));
    queries.filter(|query| !query.is_empty()).collect()
}

/// `promtool` comes with Prometheus and is not on every machine: run `cargo test -- --ignored`
/// where it is.
#[test]
#[ignore = "needs promtool in the path; .ci/run installs it"]
fn promtool_accepts_every_query() {
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    let dashboard = dashboard();
    let queries = queries(&dashboard);
    assert!(queries.len() > 50, "{queries:#?}");
    for (number, query) in queries.iter().enumerate() {
        let query = query.replace("$__rate_interval", "5m");
        // A JSON string is a YAML string.
        let query = Value::from(query.replace("$instance", ".*"));
        writeln!(
            rules,
            "      - record: panel:{number}\n        expr: {query}"
        )
        .unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dashboard.yml");
    std::fs::write(&file, rules).unwrap();
    let output = Command::new("promtool")
        .args(["check", "rules"])
        .arg(file)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
}
