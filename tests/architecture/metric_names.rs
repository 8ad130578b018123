//! Documents and files in `deploy/` name metrics that exist, with labels and values that exist: a
//! query for a misspelt one finds nothing, and its alert never fires. What exists is read from
//! `docs/metrics.md`, which is written from the declarations. It knows queries only as far as
//! `name{label="value"}`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::documents::root;

/// Labels that Prometheus adds.
const ADDED_LABELS: [&str; 3] = ["instance", "job", "le"];

/// A declared metric: whether it is a histogram, and its labels with their values. `None`: values
/// that are known only at run time.
#[derive(Debug, Default, PartialEq)]
struct Declared {
    is_histogram: bool,
    labels: BTreeMap<String, Option<Vec<String>>>,
}

/// A metric that a text names, with the labels and values that it selects.
#[derive(Debug, PartialEq)]
struct MetricUse {
    line: usize,
    name: String,
    selectors: Vec<(String, Option<String>)>,
}

impl MetricUse {
    /// It is part of a query, not of a sentence.
    fn selects(&self) -> bool {
        self.selectors.iter().any(|(_, value)| value.is_some())
    }
}

/// Reads `docs/metrics.md`.
fn declared(reference: &str) -> BTreeMap<String, Declared> {
    let mut metrics = BTreeMap::new();
    for section in reference.split("\n### `").skip(1) {
        let (name, rest) = section.split_once('`').unwrap();
        let is_histogram = rest.trim_start().starts_with("Histogram");
        // Labels are a list between two blank lines; long values go on in indented lines.
        let list = rest.trim_start().split("\n\n").next().unwrap();
        let items = list.replace("\n  ", " ");
        let items = items.lines().filter_map(|line| line.strip_prefix("- `"));
        let labels = items.map(|item| {
            let (label, values) = item.split_once("`: ").unwrap();
            let is_fixed = values.split(", ").all(|value| value.starts_with('`'));
            let values = values
                .split(", ")
                .map(|value| value.trim_matches('`').to_owned());
            (label.to_owned(), is_fixed.then(|| values.collect()))
        });
        let labels = labels.collect();
        metrics.insert(
            name.to_owned(),
            Declared {
                is_histogram,
                labels,
            },
        );
    }
    metrics
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The metrics and recorded rules in a text. Crates (`seawall_cache`, `seawall_cache::Stats`) and
/// names with a gap (`seawall_class_…_total`) are none.
fn metric_uses(text: &str, crates: &[String]) -> Vec<MetricUse> {
    let mut uses = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_name) {
        let end = rest[start..].find(|c| !is_name(c));
        let end = end.map_or(rest.len(), |length| start + length);
        let name = rest[start..end].trim_matches(':');
        let line = 1 + text[..text.len() - rest.len() + start]
            .matches('\n')
            .count();
        rest = &rest[end..];
        let first = name.split("::").next().unwrap_or(name);
        let is_metric = name.starts_with("seawall_") || name.contains(":seawall_");
        if !is_metric || name.ends_with('_') || crates.iter().any(|known| known == first) {
            continue;
        }
        let name = name.to_owned();
        let selectors = selectors(rest);
        uses.push(MetricUse {
            line,
            name,
            selectors,
        });
    }
    uses
}

/// What stands in the braces at the beginning of a text: `{label="value", other}`.
fn selectors(text: &str) -> Vec<(String, Option<String>)> {
    let Some(inside) = text
        .strip_prefix('{')
        .and_then(|text| text.split('}').next())
    else {
        return Vec::new();
    };
    // Every second part is a value between quotes; the part before it ends with label and operator.
    let parts: Vec<&str> = inside.split('"').collect();
    let mut found = Vec::new();
    for (at, part) in parts.iter().enumerate().step_by(2) {
        let names = part.split(',').map(|name| {
            let operator = |c: char| "=!~".contains(c);
            name.trim_matches(|c: char| operator(c) || c.is_whitespace())
        });
        let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        let value = parts.get(at + 1).map(|value| (*value).to_owned());
        let last = names.len().saturating_sub(1);
        let with_value = |(index, name): (usize, &&str)| {
            let value = value.clone().filter(|_| index == last);
            ((*name).to_owned(), value)
        };
        found.extend(names.iter().enumerate().map(with_value));
    }
    found
}

/// What is wrong with a use of a metric.
fn fault(
    used: &MetricUse,
    declared: &BTreeMap<String, Declared>,
    recorded: &[String],
) -> Option<String> {
    let name = &used.name;
    if name.contains(':') {
        let exists = recorded.contains(name);
        return (!exists).then(|| format!("no rule records `{name}`"));
    }
    let parts = ["_bucket", "_sum", "_count"];
    let mut histograms = parts.iter().filter_map(|part| {
        let metric = declared.get(name.strip_suffix(part)?)?;
        metric.is_histogram.then_some(metric)
    });
    let Some(metric) = declared.get(name).or_else(|| histograms.next()) else {
        return Some(format!("no metric `{name}`"));
    };
    if metric.is_histogram && declared.contains_key(name) && used.selects() {
        return Some(format!("`{name}` has no samples, but `{name}_bucket` has"));
    }
    used.selectors.iter().find_map(|(label, value)| {
        if ADDED_LABELS.contains(&label.as_str()) {
            return None;
        }
        let Some(values) = metric.labels.get(label) else {
            return Some(format!("`{name}` has no label `{label}`"));
        };
        let mut words = value.as_deref()?.split('|');
        let unknown = |word: &&str| !word.contains('$') && !word.is_empty();
        let values = values.as_ref()?;
        let word = words.find(|word| unknown(word) && !values.iter().any(|known| known == word))?;
        Some(format!("`{label}` of `{name}` is never `{word}`"))
    })
}

/// All files of a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| {
        if path.is_dir() {
            files_below(&path)
        } else {
            vec![path]
        }
    });
    files.collect()
}

/// The files that name metrics: documents and what is deployed. Decisions and the changelog say
/// what was.
fn files_that_name_metrics() -> Vec<PathBuf> {
    let mut files = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    for directory in ["deploy", "docs", "examples", "config"] {
        files.extend(files_below(&root().join(directory)));
    }
    files.retain(|path| !path.starts_with(root().join("docs/decisions")));
    files
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The words after a YAML key, of all lists: `- alert: NAME`.
fn named(key: &str, text: &str) -> Vec<String> {
    let prefix = format!("- {key}: ");
    let names = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(&prefix));
    names.map(str::to_owned).collect()
}

#[test]
fn metrics_in_documents_and_deploy_exist() {
    let declared = declared(&read("docs/metrics.md"));
    assert!(declared.len() > 100, "docs/metrics.md has another form now");
    let recorded = named("record", &read("deploy/prometheus/alerts.yml"));
    let crates = fs::read_dir(root().join("crates")).unwrap();
    let crates = crates.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let crates: Vec<_> = crates.map(|name| format!("seawall_{name}")).collect();
    let (mut faults, mut count) = (Vec::new(), 0);
    for path in files_that_name_metrics() {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let text = text.replace("\\\"", "\"").replace("\\n", " ");
        for used in metric_uses(&text, &crates) {
            count += 1;
            let fault = fault(&used, &declared, &recorded);
            faults.extend(fault.map(|fault| format!("{}:{}: {fault}", path.display(), used.line)));
        }
    }
    assert!(
        faults.is_empty(),
        "name what docs/metrics.md lists: {faults:#?}"
    );
    assert!(count > 300, "only {count} uses found");
}

#[test]
fn alerts_are_tested_and_explained() {
    let alerts = named("alert", &read("deploy/prometheus/alerts.yml"));
    let tests = read("deploy/prometheus/alerts_test.yml");
    let page = read("docs/observe.md");
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        let tests: Vec<_> = tests.split("- eval_time:").collect();
        let of_alert = |test: &&&str| test.contains(&format!("alertname: {alert}\n"));
        let of_alert: Vec<_> = tests.iter().filter(of_alert).collect();
        let fires = of_alert.iter().any(|test| test.contains("exp_labels"));
        assert!(fires, "{alert} fires in no test of alerts_test.yml");
        assert!(
            page.contains(&format!("| `{alert}` |")),
            "{alert} is not in docs/observe.md"
        );
    }
}

#[test]
fn finds_names_selectors_and_values() {
    let reference = "## Requests\n\n### `seawall_x_total`\n\nCounter, requests.\n\
                     - `kind`: `hls`,\n  `dash`\n- `route`: the name of a `[[route]]`\n\nHelp.\n\n\
                     ### `seawall_t_seconds`\n\nHistogram, seconds.\n\nHelp.\n";
    let declared = declared(reference);
    let recorded = ["instance:seawall_x:rate5m".to_owned()];
    let crates = ["seawall_cache".to_owned()];
    let faults = |text: &str| -> Vec<String> {
        let uses = metric_uses(text, &crates);
        let faults = uses.iter().map(|used| fault(used, &declared, &recorded));
        faults.flatten().collect()
    };
    let right = "sum(rate(seawall_x_total{kind=~\"hls|dash\", route!=\"a\", job=\"b\"}[5m])) / \
                 instance:seawall_x:rate5m and seawall_t_seconds_bucket{le=\"1\"}: \
                 `seawall_x_total{kind,route}`, seawall_x_… seawall_cache::Stats, \
                 seawall_x_total{kind=\"$kind\"}, sum by (le) (x) * seawall_t_seconds_count";
    assert_eq!(faults(right), [""; 0]);
    let wrong = [
        ("seawall_y_total", "no metric `seawall_y_total`"),
        (
            "seawall_t_seconds{job=\"b\"}",
            "`seawall_t_seconds` has no samples, but `seawall_t_seconds_bucket` has",
        ),
        ("seawall_x_total_count", "no metric `seawall_x_total_count`"),
        (
            "a instance:seawall_y:rate5m",
            "no rule records `instance:seawall_y:rate5m`",
        ),
        (
            "seawall_x_total{knd=\"hls\"}",
            "`seawall_x_total` has no label `knd`",
        ),
        (
            "seawall_x_total{kind,rute}",
            "`seawall_x_total` has no label `rute`",
        ),
        (
            "seawall_x_total{route=\"a\",kind=~\"hls|dsh\"}",
            "`kind` of `seawall_x_total` is never `dsh`",
        ),
    ];
    for (text, expected) in wrong {
        assert_eq!(faults(text), [expected]);
    }
}
