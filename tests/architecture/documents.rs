//! Documents keep to 100 columns, and name code that exists. Each decision has one number and a
//! line in the index.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 100;

/// Where documents are, apart from the top level.
const DIRECTORIES: &[&str] = &["", "docs", "docs/decisions", "examples", "crates/manifest"];

pub(crate) fn root() -> &'static Path {
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

/// The documents that say where code is.
fn documents_that_name_code() -> Vec<PathBuf> {
    let names = ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"];
    let decisions = fs::read_dir(root().join("docs/decisions")).unwrap();
    let decisions = decisions.map(|entry| entry.unwrap().path());
    let mut documents: Vec<_> = names.iter().map(|name| root().join(name)).collect();
    documents.extend(decisions);
    documents
}

/// A path in a document, and the names that follow it in brackets: `FILE` (`name`, `name`).
#[derive(Debug, PartialEq)]
struct CodeReference {
    path: String,
    names: Vec<String>,
}

/// The paths between backticks: words with a `/` that end in `.rs` or begin with a directory of the
/// project.
fn code_references(text: &str) -> Vec<CodeReference> {
    const DIRECTORIES: [&str; 8] = [
        ".ci/",
        "benches/",
        "config/",
        "crates/",
        "docs/",
        "examples/",
        "src/",
        "tests/",
    ];
    let is_path = |word: &str| {
        let is_plain = word
            .chars()
            .all(|c| c.is_alphanumeric() || "_-./".contains(c));
        let begins = DIRECTORIES
            .iter()
            .any(|directory| word.starts_with(directory));
        let is_source = Path::new(word).extension().is_some_and(|end| end == "rs");
        is_plain && (begins || word.contains('/') && is_source)
    };
    // Odd parts are between backticks, even ones are the text around them.
    let parts: Vec<&str> = text.split('`').collect();
    let mut references = Vec::new();
    for (at, word) in parts.iter().enumerate().skip(1).step_by(2) {
        if !is_path(word) {
            continue;
        }
        let mut names = Vec::new();
        let mut next = at + 1;
        let is_separator = |part: &str| ["(", ","].contains(&part.trim());
        let opens = |part: &str| part.trim() == "(";
        if parts.get(next).is_some_and(|part| opens(part)) {
            while parts.get(next).is_some_and(|part| is_separator(part)) {
                names.extend(parts.get(next + 1).map(|name| (*name).to_owned()));
                next += 2;
            }
        }
        let path = (*word).to_owned();
        references.push(CodeReference { path, names });
    }
    references
}

/// The file or directory that a document calls `path`: `policy/key.rs` is short for
/// `crates/policy/src/key.rs`, and `proxy/pass.rs` for `src/proxy/pass.rs`.
fn named_path(path: &str) -> Option<PathBuf> {
    let in_crate = path
        .split_once('/')
        .map(|(name, rest)| format!("crates/{name}/src/{rest}"));
    let candidates = [Some(path.to_owned()), in_crate, Some(format!("src/{path}"))];
    let mut candidates = candidates
        .into_iter()
        .flatten()
        .map(|path| root().join(path));
    candidates.find(|path| path.exists())
}

#[test]
fn paths_and_names_in_documents_exist() {
    let mut faults = Vec::new();
    for document in documents_that_name_code() {
        let text = fs::read_to_string(&document).unwrap();
        for CodeReference { path, names } in code_references(&text) {
            let Some(file) = named_path(&path) else {
                faults.push(format!("{}: no file {path}", document.display()));
                continue;
            };
            let source = fs::read_to_string(file).unwrap_or_default();
            let missing = names.iter().filter(|name| {
                let last = name.rsplit("::").next().unwrap_or(name);
                !source.contains(last)
            });
            faults.extend(
                missing.map(|name| format!("{}: no `{name}` in {path}", document.display())),
            );
        }
    }
    assert!(
        faults.is_empty(),
        "name the code where it is now: {faults:#?}"
    );
}

#[test]
fn code_references_are_paths_with_the_names_after_them() {
    let text =
        "Code: `src/a.rs` (`one`,\n`Two::three`), `policy/key.rs`; `key` (`x`) and `text/plain`.";
    let reference = |path: &str, names: &[&str]| CodeReference {
        path: path.to_owned(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let expected = [
        reference("src/a.rs", &["one", "Two::three"]),
        reference("policy/key.rs", &[]),
    ];
    assert_eq!(code_references(text), expected);
}

/// The anchor that GitHub gives a heading: lower case, no punctuation, `-` for each space.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        _ => (c.is_alphanumeric() || c == '-' || c == '_').then_some(c),
    });
    kept.collect()
}

/// Links to headings: the document's path as it is written, and the anchor.
fn links_to_headings(text: &str) -> Vec<(&str, &str)> {
    let links = text.match_indices('#').filter_map(|(at, _)| {
        let ends = |c: char| c.is_whitespace() || "()\"'`<>".contains(c);
        let path = text[..at].rsplit(ends).next()?;
        let anchor = text[at + 1..].split(ends).next()?;
        let is_document = Path::new(path).extension().is_some_and(|end| end == "md");
        let is_link = text[..at].ends_with("](") || is_document;
        is_link.then_some((path, anchor))
    });
    links.collect()
}

/// Those of documents, and `runbook_url` of alerts.
#[test]
fn links_lead_to_headings_that_exist() {
    let rules = root().join("deploy/prometheus/alerts.yml");
    let mut faults = Vec::new();
    for file in markdown_files().into_iter().chain([rules]) {
        let text = fs::read_to_string(&file).unwrap();
        for (path, wanted) in links_to_headings(&text) {
            let target = match path.split_once("/blob/main/") {
                Some((_, path)) => root().join(path),
                None if path.is_empty() => file.clone(),
                None if path.contains("://") => continue,
                None => file.with_file_name("").join(path),
            };
            let target = fs::read_to_string(target).unwrap_or_default();
            let mut headings = target.lines().filter(|line| line.starts_with('#'));
            if !headings.any(|heading| anchor(heading) == wanted) {
                faults.push(format!("{}: {path}#{wanted}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "link to what is there: {faults:#?}");
}

#[test]
fn links_are_read_with_their_anchors() {
    let text = "[a](#one) [b](two.md#three-four)\nurl: https://x/blob/main/y.md#z\n# [log]\n";
    let expected = [
        ("", "one"),
        ("two.md", "three-four"),
        ("https://x/blob/main/y.md", "z"),
    ];
    assert_eq!(links_to_headings(text), expected);
    assert_eq!(
        anchor("### 6. The origin's `a_b` rises"),
        "6-the-origins-a_b-rises"
    );
}
