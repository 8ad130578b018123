//! Tests that a difference in any key is reported under the name of that key, and nothing else is.

mod inner_keys;

use proptest::prelude::*;

use self::inner_keys::{InnerKey, inner_keys};
use super::*;
use crate::config::ReloadEffect;
use crate::config::diff::{Change, Difference};
use crate::config::effect::is_declared;
use crate::config::written;

/// The key of a change, with its tables: `origin.deadlines.queue`.
fn key_of(change: &Change) -> String {
    let tables = change.table.0.iter();
    let titles = tables.map(|(title, _)| title.trim_matches(['[', ']']));
    let key = match &change.difference {
        Difference::Added | Difference::Removed => None,
        Difference::Set { key, .. } | Difference::Changed { key, .. } => Some(key.as_str()),
        Difference::Reordered { key, .. } => Some(*key),
    };
    titles.chain(key).collect::<Vec<_>>().join(".")
}

fn keys_of(changes: &[Change]) -> Vec<String> {
    changes.iter().map(key_of).collect()
}

/// Keys by whose value a table is matched: another one is another table.
const NAMES: [&str; 2] = ["listener.listen", "route.name"];

/// Whether the change of `key` may be reported as `reported`: under its own name, under those of
/// its parts, or, for a name, as another table.
fn is_about(reported: &str, key: &str) -> bool {
    let key = match key.rsplit_once('.') {
        Some((table, _)) if NAMES.contains(&key) => table,
        _ => key,
    };
    let rest = reported.strip_prefix(key);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The annotated file with its defaults, these lines of it changed.
fn changed_text(annotated: &str, changed_lines: &[&(String, usize, String)]) -> String {
    let defaults = uncommented(annotated, false);
    let mut lines: Vec<&str> = defaults.split('\n').collect();
    for (_, at, line) in changed_lines {
        lines[*at] = line;
    }
    lines.join("\n")
}

#[test]
fn no_example_differs_from_itself() {
    let (_folder, config_path) = folder_with_files();
    for path in examples() {
        let text = std::fs::read_to_string(&path).unwrap();
        for text in [text.clone(), uncommented(&text, true)] {
            let config = read(&text, &config_path);
            assert_eq!(config.changes_to(&read(&text, &config_path)), []);
        }
    }
}

#[test]
fn defaults_that_are_written_out_are_no_difference() {
    let annotated = text("config/seawall.toml");
    let config_path = Path::new("seawall.toml");
    let untouched = read(&annotated, config_path);
    let shown = read(&uncommented(&annotated, false), config_path);
    assert_eq!(untouched.changes_to(&shown), []);
}

#[test]
fn differences_write_values_as_the_reference_does() {
    let config = read(&text("config/seawall.toml"), Path::new("seawall.toml"));
    let tables = written::tables(&config);
    for (key, shown) in shown_defaults() {
        if NAMES.contains(&key.as_str()) {
            continue;
        }
        let (title, key) = key.split_once('.').unwrap();
        let titled = |table: &&written::WrittenTable| table.title.trim_matches(['[', ']']) == title;
        let table = tables.iter().find(titled).unwrap();
        assert_eq!(table.value(key).to_string(), shown, "{title}.{key}");
    }
}

#[test]
fn each_changed_key_is_the_reported_difference() {
    let (_folder, config_path) = folder_with_files();
    let annotated = text("config/seawall.toml");
    let before = read(&uncommented(&annotated, false), &config_path);
    for changed in changed_lines(&annotated) {
        let after = read(&changed_text(&annotated, &[&changed]), &config_path);
        for changes in [before.changes_to(&after), after.changes_to(&before)] {
            let (key, _, line) = &changed;
            let reported = keys_of(&changes);
            assert!(!reported.is_empty(), "{line} is no difference");
            assert!(
                reported.iter().all(|reported| is_about(reported, key)),
                "{key}: {reported:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn changed_keys_are_the_reported_differences(
        chosen in proptest::collection::vec(any::<bool>(), 200),
    ) {
        let (_folder, config_path) = folder_with_files();
        let annotated = text("config/seawall.toml");
        let all = changed_lines(&annotated);
        prop_assert!(all.len() <= chosen.len());
        let candidates = all.iter().zip(chosen);
        let changed: Vec<_> = candidates
            .filter_map(|(changed, is_chosen)| is_chosen.then_some(changed))
            .filter(|(key, ..)| !NAMES.contains(&key.as_str()))
            .collect();
        let before = read(&changed_text(&annotated, &[]), &config_path);
        let after = read(&changed_text(&annotated, &changed), &config_path);
        for changes in [before.changes_to(&after), after.changes_to(&before)] {
            let reported = keys_of(&changes);
            for (key, ..) in &changed {
                prop_assert!(reported.iter().any(|reported| is_about(reported, key)), "{}", key);
            }
            for reported in &reported {
                let is_expected = changed.iter().any(|(key, ..)| is_about(reported, key));
                prop_assert!(is_expected, "{}", reported);
            }
        }
    }
}

/// The outermost tables and first names of all keys that a file may have.
#[test]
fn each_key_has_a_reload_effect() {
    let (_folder, config_path) = folder_with_files();
    let annotated = text("config/seawall.toml");
    let before = read(&uncommented(&annotated, false), &config_path);
    let lines = changed_lines(&annotated);
    let texts = lines
        .iter()
        .map(|changed| changed_text(&annotated, &[changed]));
    let mut pairs: Vec<_> = texts
        .map(|text| (before.clone(), read(&text, &config_path)))
        .collect();
    pairs.extend(inner_keys().into_iter().map(|InnerKey { texts, .. }| {
        let [before, after] = texts.each_ref().map(|text| read(text, &config_path));
        (before, after)
    }));
    for (before, after) in pairs {
        let changes = before.changes_to(&after);
        assert!(!changes.is_empty());
        let undeclared: Vec<_> = changes.iter().filter(|one| !is_declared(one)).collect();
        assert_eq!(undeclared, [] as [&Change; 0]);
        // What a reload is said to apply is applied, and nothing else.
        let reloaded = before.reloaded(after);
        let is_live = |change: &Change| !matches!(change.reload_effect(), ReloadEffect::Restart(_));
        let live: Vec<_> = changes.into_iter().filter(is_live).collect();
        assert_eq!(before.changes_to(&reloaded), live);
    }
}

#[test]
fn no_key_of_the_reader_is_left_out_of_the_differences() {
    let (_folder, config_path) = folder_with_files();
    let annotated = text("config/seawall.toml");
    read(&uncommented(&annotated, true), &config_path);
    // `each_changed_key_is_the_reported_difference` tests these.
    let mut covered: BTreeSet<String> = changed_lines(&annotated)
        .into_iter()
        .map(|(key, ..)| {
            let (table, key) = key.rsplit_once('.').unwrap();
            let title = table.rsplit_once('.').map_or(table, |(_, title)| title);
            format!("{title} {key}")
        })
        .collect();
    for InnerKey {
        known,
        reported,
        texts,
    } in inner_keys()
    {
        let [before, after] = texts.each_ref().map(|text| read(text, &config_path));
        let keys = keys_of(&before.changes_to(&after));
        assert!(keys.contains(&reported), "{known}: {keys:?}");
        covered.insert(known);
    }
    let known_keys: Vec<(String, String)> = KEYS
        .take()
        .iter()
        .map(|known| {
            let (title, key) = known.rsplit_once(' ').unwrap();
            (title.trim_matches(['[', ']']).to_owned(), key.to_owned())
        })
        .collect();
    let is_table = |key: &str| known_keys.iter().any(|(title, _)| title == key);
    let missing: Vec<_> = known_keys
        .iter()
        .filter(|(_, key)| !is_table(key))
        .filter(|(title, key)| !covered.contains(&format!("{title} {key}")))
        .collect();
    assert!(known_keys.len() > 70 && missing.is_empty(), "{missing:#?}");
}
