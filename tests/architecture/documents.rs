//! Documents keep to 100 columns, and each decision has one number and a line in the index.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 100;

/// Where documents are, apart from the top level.
const DIRECTORIES: &[&str] = &["", "docs", "docs/decisions", "examples", "crates/manifest"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn markdown_files() -> Vec<PathBuf> {
    let files = DIRECTORIES.iter().flat_map(|directory| {
        let entries = fs::read_dir(root().join(directory)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path())
    });
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

/// Lines that are too long, by number. Tables, code and links cannot be broken.
fn long_lines(text: &str) -> Vec<usize> {
    let mut in_code = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        in_code ^= line.trim_start().starts_with("```");
        let breakable = !in_code && !line.starts_with('|') && !line.contains("](");
        if breakable && line.chars().count() > COLUMNS_MAX {
            found.push(index + 1);
        }
    }
    found
}

#[test]
fn documents_are_at_most_100_columns_wide() {
    let mut faults = Vec::new();
    for path in markdown_files() {
        let text = fs::read_to_string(&path).unwrap();
        let lines = long_lines(&text).into_iter();
        faults.extend(lines.map(|line| format!("{}:{line}", path.display())));
    }
    assert!(faults.is_empty(), "break these lines: {faults:#?}");
}

#[test]
fn decisions_have_one_number_each_and_are_in_the_index() {
    let directory = root().join("docs/decisions");
    let index = fs::read_to_string(directory.join("README.md")).unwrap();
    let mut names_by_number: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "README.md" {
            continue;
        }
        let number = name.split('-').next().unwrap().to_owned();
        let text = fs::read_to_string(directory.join(&name)).unwrap();
        assert!(
            text.starts_with(&format!("# {number}: ")),
            "{name}: its heading has another number"
        );
        assert!(
            index.contains(&format!("[{number}]({name})")),
            "{name} is not in the index"
        );
        names_by_number.entry(number).or_default().push(name);
    }
    names_by_number.retain(|_, names| names.len() > 1);
    assert!(
        names_by_number.is_empty(),
        "one number, two decisions: {names_by_number:#?}"
    );
}

#[test]
fn long_lines_are_found_outside_tables_code_and_links() {
    let long = "x".repeat(COLUMNS_MAX + 1);
    let text = format!("{long}\n| {long}\n```\n{long}\n```\n[{long}](x)\n{long}\n");
    assert_eq!(long_lines(&text), [1, 7]);
}
