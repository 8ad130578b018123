//! Tests that the annotated examples and the reference match the code.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Config, file, secret};

mod differences;

thread_local! {
    static KEYS: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Records the keys that a table knows, for the tests below.
pub(super) fn record_known_keys(title: &str, keys: &[&str]) {
    KEYS.with_borrow_mut(|known| known.extend(keys.iter().map(|key| format!("{title} {key}"))));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn examples() -> Vec<PathBuf> {
    let folders = ["config", "examples"].map(|folder| std::fs::read_dir(root().join(folder)));
    let entries = folders.into_iter().flat_map(Result::unwrap);
    let examples: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().unwrap() == "toml")
        .collect();
    assert!(examples.len() >= 6, "{examples:?}");
    examples
}

/// Removes the `#` from lines that show defaults, and `#e.g. ` from lines that show examples.
fn uncommented(text: &str, with_examples: bool) -> String {
    let line = |line: &str| {
        if let Some(example) = line.strip_prefix("#e.g. ") {
            return if with_examples {
                example.to_owned()
            } else {
                String::new()
            };
        }
        let shown = line
            .strip_prefix('#')
            .filter(|shown| shown.starts_with(|c: char| c.is_ascii_lowercase() || c == '['));
        shown.unwrap_or(line).to_owned()
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn read(text: &str, path: &Path) -> Config {
    // AWS variables stay unset: their values are validated, and these placeholders are not valid.
    let environment: &secret::EnvironmentReader<'_> =
        &|name| (!name.starts_with("AWS_")).then(|| format!("value-of-{name}"));
    file::read(text, path, environment)
        .finish()
        .map_or_else(|problems| panic!("{problems}"), |(config, _)| config)
}

/// A folder with every file that the examples name.
fn folder_with_files() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["live.example".to_owned()]).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("live.pem", &pair.cert.pem());
    write("live.key", &pair.signing_key.serialize_pem());
    write("authority.pem", &pair.cert.pem());
    write("shield.pem", &pair.cert.pem());
    write("shield.key", &pair.signing_key.serialize_pem());
    write("down.json", "{}");
    write("denied.html", "<p>No.");
    write("cdn-code", "a-code-of-some-length\n");
    write("admin-token", "a-token-of-some-length\n");
    write("origin-secret", "a-secret-of-some-length\n");
    write("url-key", "a-secret-of-at-least-32-bytes-for-urls\n");
    let key = "aws_access_key_id = A\naws_secret_access_key = B\n";
    write("aws-credentials", &format!("[shield]\n{key}"));
    let path = folder.path().join("seawall.toml");
    (folder, path)
}

/// `table.key` to the value in the annotated file; only keys with a default.
fn shown_defaults() -> BTreeMap<String, String> {
    let mut table = String::new();
    let mut shown = BTreeMap::new();
    for line in text("config/seawall.toml").lines() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        if bare.starts_with('[') {
            table = bare.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = bare.split_once(" = ")
            && bare != line
            && bare.starts_with(|c: char| c.is_ascii_lowercase())
            && !bare.starts_with("e.g.")
        {
            shown.insert(format!("{table}.{key}"), value.to_owned());
        }
    }
    shown
}

/// `table.key` to the default in the reference.
fn documented_defaults() -> BTreeMap<String, String> {
    let mut table = String::new();
    let mut documented = BTreeMap::new();
    for line in text("docs/configuration.md").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            table = heading.trim_matches(['`', '[', ']']).to_owned();
        }
        let cells: Vec<_> = line.split(" | ").collect();
        if let [key, _, default, _] = cells[..]
            && let Some(key) = key.strip_prefix("| `")
        {
            documented.insert(
                format!("{table}.{}", key.trim_end_matches('`')),
                default.to_owned(),
            );
        }
    }
    documented
}

#[test]
fn accepts_every_example() {
    for path in examples() {
        Config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    }
}

#[test]
fn accepts_every_example_with_all_options_uncommented() {
    let (_folder, config_path) = folder_with_files();
    for path in examples() {
        let text = std::fs::read_to_string(&path).unwrap();
        read(&uncommented(&text, true), &config_path);
    }
}

#[test]
fn shows_the_real_defaults() {
    let text = text("config/seawall.toml");
    let config_path = Path::new("seawall.toml");
    let (untouched, shown) = (
        read(&text, config_path),
        read(&uncommented(&text, false), config_path),
    );
    assert_eq!(format!("{untouched:#?}"), format!("{shown:#?}"));
}

#[test]
fn shows_and_documents_every_key() {
    let (_folder, config_path) = folder_with_files();
    let annotated = uncommented(&text("config/seawall.toml"), true);
    let reference = text("docs/configuration.md");
    read(&annotated, &config_path);
    let known = KEYS.take();
    assert!(known.len() > 70, "{known:?}");
    let mut missing = Vec::new();
    for known_key in &known {
        let (_, key) = known_key.rsplit_once(' ').unwrap();
        let shown = [format!("{key} ="), format!("[{key}]"), format!(".{key}]")];
        if !shown.iter().any(|form| annotated.contains(form)) {
            missing.push(format!("seawall.toml: {known_key}"));
        }
        let written = [
            format!("`{key}`"),
            format!("[{key}]"),
            format!(".{key}]"),
            format!("{key} ="),
        ];
        if !written.iter().any(|form| reference.contains(form)) {
            missing.push(format!("configuration.md: {known_key}"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn documents_the_same_defaults() {
    let (shown, documented) = (shown_defaults(), documented_defaults());
    assert!(shown.len() > 55, "{shown:?}");
    for (key, value) in shown {
        let default = documented
            .get(&key)
            .unwrap_or_else(|| panic!("{key} is not documented"));
        let is_derived = ["route.name", "route.origin"].contains(&key.as_str());
        assert!(
            is_derived || *default == format!("`{value}`"),
            "{key}: {default}, shown {value}"
        );
    }
}

/// Keys that cannot change alone: the name of an origin is also in its route, a client certificate
/// needs its key, and a client class its table.
const CHANGED_TOGETHER: [&str; 5] = [
    "origin.name",
    "route.origin",
    "origin.client_certificate",
    "origin.client_key",
    "route.client_classes",
];

/// A valid value that differs from the shown one: numbers, sizes and durations have another number.
fn other_value(key: &str, shown: &str) -> String {
    let other = match key {
        "listener.listen" => "\"127.0.0.1:8081\"",
        "server.name" | "route.name" => "\"other\"",
        "server.client_header" => "\"Forwarded\"",
        "origin.endpoints" => "[\"https://other.example\"]",
        "origin.balance" => "\"hash\"",
        "origin.protocol" => "\"h2\"",
        "origin.retry.statuses" => "[502]",
        "route.path" => "\"/live\"",
        "route.query" => "\"none\"",
        "route.cors" => "\"off\"",
        "log.level" => "\"debug\"",
        "admin.hosts" => "[\"admin.example\"]",
        "route.forward_headers" => "[\"X-Other\"]",
        "route.unkeyed_headers" => "[\"X-Trace\"]",
        "route.ignore_cookies" => "[\"_ga*\"]",
        "route.store_private" => "[\"segment\"]",
        "route.strip_set_cookie" => "[\"AWSALB*\"]",
        _ => match shown {
            "true" => "false",
            "false" => "true",
            _ => return next_number(shown),
        },
    };
    other.to_owned()
}

/// `"10s"` becomes `"11s"`, `1.0` becomes `0.5`.
fn next_number(shown: &str) -> String {
    if let Ok(number) = shown.parse::<u64>() {
        return (number + 1).to_string();
    }
    if let Ok(number) = shown.parse::<f64>() {
        return format!("{:?}", number / 2.0);
    }
    let text = shown.trim_matches('"');
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text
        .strip_suffix(unit)
        .and_then(|digits| digits.parse().ok());
    let number: u64 = number.unwrap_or_else(|| panic!("no other value for {shown}"));
    format!("\"{}{unit}\"", number + 1)
}

/// `table.key`, the number of its line, and that line with another value; for a key without a
/// default, with the example's value. The tables that are examples as a whole are left out.
fn changed_lines(annotated: &str) -> Vec<(String, usize, String)> {
    let (mut table, mut is_example) = (String::new(), false);
    let mut changed = Vec::new();
    for (at, line) in annotated.lines().enumerate() {
        let example = line.strip_prefix("#e.g. ");
        let bare = example.or(line.strip_prefix('#')).unwrap_or(line);
        if bare.starts_with('[') {
            bare.trim_matches(['[', ']']).clone_into(&mut table);
            is_example = example.is_some();
        } else if let Some((name, value)) = bare.split_once(" = ")
            && bare.starts_with(|c: char| c.is_ascii_lowercase())
            && !is_example
        {
            let key = format!("{table}.{name}");
            if CHANGED_TOGETHER.contains(&key.as_str()) {
                continue;
            }
            let value = match example {
                Some(_) => value.to_owned(),
                None => other_value(&key, value),
            };
            changed.push((key, at, format!("{name} = {value}")));
        }
    }
    changed
}

#[test]
fn each_key_changes_a_setting_of_its_own() {
    let (_folder, config_path) = folder_with_files();
    let annotated = text("config/seawall.toml");
    let defaults = uncommented(&annotated, false);
    let settings = |text: &str| format!("{:#?}", read(text, &config_path));
    let unchanged = settings(&defaults);
    let mut changed_by: BTreeMap<usize, String> = BTreeMap::new();
    for (key, at, changed_line) in changed_lines(&annotated) {
        let mut lines: Vec<&str> = defaults.split('\n').collect();
        lines[at] = &changed_line;
        let changed = settings(&lines.join("\n"));
        let mut pairs = unchanged.lines().zip(changed.lines());
        let setting = pairs.position(|(before, after)| before != after);
        let setting = setting.unwrap_or_else(|| panic!("{changed_line} changes nothing"));
        if let Some(other) = changed_by.insert(setting, key.clone()) {
            panic!("{key} and {other} change the same setting");
        }
    }
    assert!(changed_by.len() > 75, "{changed_by:#?}");
}
