//! Reads the source files, and separates test code from the rest.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::tokens::{Token, tokens, without_tests};

/// One file: its text, and the tokens of what is not test code, comment or string.
pub(crate) struct Source {
    /// Relative to the project, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
}

impl Source {
    /// Reads a file's text; also names the files that it declares as test modules.
    pub(crate) fn new(path: &str, text: &str) -> (Source, Vec<String>) {
        let (tokens, test_modules) = without_tests(tokens(text));
        let inside = path.trim_end_matches(".rs");
        let inside = inside.trim_end_matches("/lib").trim_end_matches("/main");
        let test_files = test_modules.iter().map(|name| format!("{inside}/{name}"));
        let (path, text) = (path.to_owned(), text.to_owned());
        (Source { path, text, tokens }, test_files.collect())
    }

    /// The crate under `crates/` or the top-level module of `src` that this file belongs to; none
    /// for `src/lib.rs` and `src/main.rs`.
    pub(crate) fn module(&self) -> Option<&str> {
        if let Some(inside) = self.path.strip_prefix("crates/") {
            return inside.split('/').next();
        }
        let inside = self.path.strip_prefix("src/")?.trim_end_matches(".rs");
        let module = inside.split('/').next()?;
        (module != "lib" && module != "main").then_some(module)
    }

    /// How many `super` lead from this file to the crate's root.
    pub(crate) fn depth(&self) -> usize {
        if self.module().is_some() {
            self.path.matches('/').count()
        } else {
            0
        }
    }
}

/// Every source, read once for all tests. Files that are test modules come without tokens.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for directory in ["src", "crates", "tests", "benches"] {
        walk(&root.join(directory), &mut paths);
    }
    let mut tests = BTreeSet::new();
    let mut sources = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let relative = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        let (source, test_modules) = Source::new(&relative, &text);
        tests.extend(test_modules);
        sources.push(source);
    }
    for source in &mut sources {
        let is_test = |module: &String| {
            let rest = source.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        if tests.iter().any(is_test) {
            source.tokens.clear();
        }
    }
    sources
});

/// The sources in these directories.
pub(crate) fn sources_in(directories: &[&str]) -> Vec<&'static Source> {
    let is_in = |source: &&Source| {
        let rest = |directory: &&str| source.path.strip_prefix(*directory);
        directories
            .iter()
            .filter_map(rest)
            .any(|rest| rest.starts_with('/'))
    };
    SOURCES.iter().filter(is_in).collect()
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
