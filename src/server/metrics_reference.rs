//! Keeps `docs/metrics.md` true: it is written from the declarations of all registered metrics.
//! `UPDATE_DOCS=1 ./x test metrics_reference` rewrites it.

use std::fmt::Write;
use std::sync::Arc;

use super::ServerStart;
use super::assembly::{ServerParts, system_lookup};
use crate::config::Config;
use crate::telemetry::{LabelValues, Metric, MetricGroup, MetricKind, ProgramLog};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

const COLUMNS_MAX: usize = 100;

const HEAD: &str = "# Metrics

<!-- Written from the declarations in src/: change these, then run
     `UPDATE_DOCS=1 ./x test metrics_reference`. -->

`GET /metrics` on the admin address lists all metrics in the Prometheus text format. Counters and
histograms count from the start of the process. A metric without samples is left
out.

Each metric below has its type, its unit, its labels with their values, what it counts, and what to
do when it is wrong.
";

/// Gives `check` the metrics of a complete server.
fn with_metrics(check: impl FnOnce(&[MetricGroup])) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut config = Config::single("http://127.0.0.1:9", Vec::new()).unwrap();
        config.admin.listen = Some(crate::config::parse_admin_address("127.0.0.1:0").unwrap());
        let bound = ServerParts::bind(config, ServerStart::default()).unwrap();
        let parts = bound
            .build(&system_lookup(), 1, &ProgramLog::default(), &Arc::default())
            .unwrap();
        check(parts.admin_service.unwrap().handlers.metrics.groups());
    });
}

fn page(groups: &[MetricGroup]) -> String {
    let mut page = HEAD.to_owned();
    for group in groups {
        write!(page, "\n## {}\n", group.title).unwrap();
        for metric in &group.metrics {
            page.push_str(&section(metric));
        }
    }
    page
}

fn section(metric: &Metric) -> String {
    let Metric { name, unit, .. } = metric;
    let mut section = format!("\n### `{name}`\n\n{}, {unit}.\n", title(metric.kind));
    for label in metric.labels {
        let values = match label.values {
            LabelValues::Dynamic(values) => values.to_owned(),
            LabelValues::Fixed(values) => {
                let quoted = values().into_iter().map(|value| format!("`{value}`"));
                quoted.collect::<Vec<_>>().join(", ")
            }
        };
        let line = format!("- `{}`: {values}", label.name);
        section.push_str(&wrapped(&line, "  "));
    }
    write!(section, "\n{}\n", wrapped(&plain(metric.help), "")).unwrap();
    let remedy = format!("**What to do:** {}", plain(metric.remedy));
    section.push_str(&wrapped(&remedy, ""));
    section
}

fn title(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "Counter",
        MetricKind::Gauge => "Gauge",
        MetricKind::Histogram => "Histogram",
    }
}

/// Writes names of metrics and of keys as code, and links the pages.
fn plain(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let start = word.len() - word.trim_start_matches('(').len();
        let end = word.trim_end_matches([',', '.', ':', ';', ')']).len();
        let (open, name, close) = (&word[..start], &word[start..end], &word[end..]);
        if let Some(page) = name.strip_prefix("docs/") {
            format!("{open}[{page}]({page}){close}")
        } else if name.contains(['_', '[', '{', '=']) && !name.starts_with('`') {
            format!("{open}`{name}`{close}")
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Breaks a line at spaces. Further lines begin with `indent`.
pub(super) fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() > COLUMNS_MAX {
            lines.push(format!("{indent}{word}"));
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn metrics_reference_page_matches_the_registry() {
    with_metrics(|groups| {
        let written = page(groups);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(PAGE, &written).unwrap();
        }
        let page = std::fs::read_to_string(PAGE).unwrap_or_default();
        let differs = written
            .lines()
            .zip(page.lines())
            .find(|(new, old)| new != old);
        assert!(
            page == written,
            "docs/metrics.md is not up to date ({differs:?}): run `UPDATE_DOCS=1 ./x test \
             metrics_reference`"
        );
    });
}

#[test]
fn metric_names_follow_prometheus_conventions() {
    with_metrics(|groups| {
        for metric in groups.iter().flat_map(|group| &group.metrics) {
            let Metric {
                name,
                unit,
                help,
                remedy,
                ..
            } = metric;
            let is_allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            assert!(
                name.starts_with("seawall_") && name.bytes().all(is_allowed),
                "{name}"
            );
            let is_counter = metric.kind == MetricKind::Counter;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            let has_word = |word| name.split('_').any(|one| one == word);
            assert_eq!(*unit == "bytes", has_word("bytes"), "{name}: unit {unit}");
            assert_eq!(
                *unit == "seconds",
                has_word("seconds"),
                "{name}: unit {unit}"
            );
            for text in [help, remedy] {
                assert!(text.ends_with('.'), "{name}: {text}");
            }
            let says_when = match metric.kind {
                MetricKind::Counter => help.contains("Increments "),
                MetricKind::Histogram => help.contains("Observed "),
                MetricKind::Gauge => true,
            };
            assert!(says_when, "{name}: when does it increment? {help}");
        }
    });
}
