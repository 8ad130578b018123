//! Checks that the code keeps the rules of ARCHITECTURE.md and CONTRIBUTING.md. It reads the
//! sources as tokens, and names the file, the line and the remedy where a rule is broken. It knows
//! nothing of what the code does. A test binary of its own, apart from the scenarios in
//! `tests/it/`: it needs no server.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read the sources has failed"
)]

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/documents.rs"]
mod documents;
#[path = "architecture/metric_names.rs"]
mod metric_names;
#[cfg(test)]
#[path = "architecture/rule_tests.rs"]
mod rule_tests;
#[path = "architecture/source.rs"]
mod source;
#[path = "architecture/tokens.rs"]
mod tokens;

use std::collections::BTreeMap;
use std::path::Path;

use self::source::Source;
use self::tokens::Token;

/// Which modules and crates a module of `src` may import. Itself always; `ALL` means it composes
/// the others. What a crate may import stands in its `Cargo.toml`.
const IMPORTS: &[(&str, &[&str])] = &[
    ("telemetry", &["manifest", "policy"]),
    ("live", &["manifest", "policy", "cache"]),
    (
        "proxy",
        &[
            "manifest",
            "policy",
            "authorization",
            "cache",
            "upstream",
            "telemetry",
            "live",
        ],
    ),
    (
        "frontend",
        &[
            "manifest",
            "policy",
            "cache",
            "upstream",
            "telemetry",
            "proxy",
        ],
    ),
    (
        "admin",
        &[
            "manifest",
            "policy",
            "cache",
            "upstream",
            "telemetry",
            "proxy",
        ],
    ),
    ("config", ALL),
    ("server", ALL),
    ("cli", ALL),
];

const ALL: &[&str] = &["*"];

/// The crates under `crates/`, imported as `seawall_NAME`.
const CRATES: &[&str] = &[
    "manifest",
    "policy",
    "authorization",
    "cache",
    "upstream",
    "simulator",
];

/// Where the program's own code is, tests and benches apart.
const SOURCES: &[&str] = &["src", "crates"];

/// Crates that only some modules may use: the prefix of the name, the modules, the remedy.
const CONFINED: &[(&str, &[&str], &str)] = &[
    (
        "pingora",
        &["server", "frontend", "upstream"],
        "ask for it through the interface of frontend or upstream",
    ),
    (
        "hyper",
        &["frontend", "admin", "simulator"],
        "speak in `http` types and `http_body::Body`",
    ),
];

/// Modules without a clock and without async; a module that decides by the time it is given; and
/// the one file that reads the clocks for them.
const PURE: &[&str] = &["manifest", "policy", "authorization"];
const DECIDES: &str = "live";
const CLOCKS: &str = "crates/policy/src/now.rs";

/// What a repeated hit runs. It writes no memory that two workers share, so that hits scale with
/// the cores; rare writes (once a millisecond for a manifest, and ever fewer for the hits of an
/// object) stand in other files, with their reason.
const REPEATED_HIT: &[&str] = &[
    "src/frontend/fast_path.rs",
    "src/frontend/fast_path/head_parser.rs",
    "src/frontend/fast_path/pending_response.rs",
    "src/frontend/repeated_responses.rs",
    "src/proxy/repeat.rs",
    "src/telemetry/request_metrics.rs",
    "src/telemetry/thread_counters.rs",
    "crates/cache/src/found_object.rs",
];
const SHARED_WRITES: &[&str] = &[
    "fetch_add",
    "fetch_sub",
    "fetch_max",
    "fetch_or",
    "swap",
    "compare_exchange",
    "compare_exchange_weak",
    "lock",
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "utils", "util", "helpers", "helper", "common", "types", "manager", "prelude", "misc", "mod",
];

const LINES_MAX: usize = 500;

/// `max_width` in rustfmt.toml, which formats code but not comments.
const COLUMNS_MAX: usize = 100;

/// Type names that each module may use for a type of its own: at the use, the path says whose it
/// is.
const COMMON_TYPES: &[&str] = &[
    "Settings", "Error", "Stats", "Config", "Builder", "State", "Data", "Item",
];

#[test]
fn modules_import_only_what_lies_below_them() {
    check(SOURCES, imports);
}

#[test]
fn pingora_and_hyper_stay_in_their_modules() {
    check(SOURCES, confined);
}

#[test]
fn pure_crates_have_no_clock_and_no_async() {
    check(SOURCES, pure);
}

#[test]
fn repeated_hits_write_no_memory_that_workers_share() {
    let sources = source::sources_in(SOURCES);
    for path in REPEATED_HIT {
        let exists = sources.iter().any(|source| source.path == *path);
        assert!(exists, "REPEATED_HIT names {path}, which is gone");
    }
    check(SOURCES, unshared);
}

#[test]
fn files_have_a_module_doc_and_limited_length() {
    check(&["src", "crates", "tests", "benches"], shape);
}

#[test]
fn comments_are_at_most_100_columns_wide() {
    check(&["src", "crates", "tests", "benches"], narrow);
}

#[test]
fn file_names_are_specific() {
    check(&["src", "crates", "tests", "benches"], named);
}

#[test]
fn type_names_are_unique() {
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in source::sources_in(SOURCES) {
        for token in types_defined(&source.tokens) {
            let at = format!("{}:{}", source.path, token.line);
            defined.entry(token.word.clone()).or_default().push(at);
        }
    }
    defined.retain(|name, at| at.len() > 1 && !COMMON_TYPES.contains(&name.as_str()));
    assert!(
        defined.is_empty(),
        "type names with several meanings (rename all but one): {defined:#?}"
    );
}

/// Files of a crate import one another in no circle.
///
/// Each `use`, and each inline path that begins with `crate`, `super`, `self`, a child module or an
/// imported name, is an import of the file that defines what it names: re-exports are followed to
/// that file. Imports in test code do not count, nor imports of what a parent module of the file
/// defines: a module and the files inside it are one unit. No chain of the others may lead back to
/// the file where it begins.
#[test]
fn files_import_one_another_in_no_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = std::fs::read_dir(root.join("crates")).unwrap();
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
    let crates = crates.map(|entry| format!("crates/{}/src", name(entry.unwrap())));
    let mut report = String::new();
    for directory in crates.chain(["src".to_owned()]) {
        let sources = source::sources_in(&[&directory]);
        for circle in circles::circles(&directory, &sources) {
            report += &circle.describe(&sources);
        }
    }
    assert!(
        report.is_empty(),
        "circles of files: move a type, or turn an import:\n{report}"
    );
}

/// The names of the types that are defined at the outermost level of a file.
fn types_defined(tokens: &[Token]) -> impl Iterator<Item = &Token> {
    const KEYWORDS: [&str; 5] = ["struct", "enum", "trait", "type", "union"];
    let mut depth = 0_usize;
    tokens.windows(2).filter_map(move |pair| {
        match pair[0].word.as_str() {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            word if depth == 0 && KEYWORDS.contains(&word) => return Some(&pair[1]),
            _ => {}
        }
        None
    })
}

/// Runs a rule over every file and fails with everything it found.
fn check(directories: &[&str], rule: fn(&Source) -> Vec<Violation>) {
    let sources = source::sources_in(directories);
    let violations: Vec<_> = sources.into_iter().flat_map(rule).collect();
    let messages: Vec<_> = violations
        .iter()
        .map(|Violation(line)| line.as_str())
        .collect();
    assert!(
        violations.is_empty(),
        "{} violation(s):\n\n{}\n",
        violations.len(),
        messages.join("\n\n")
    );
}

/// What is wrong, where, and how to fix it.
struct Violation(String);

impl Violation {
    fn at(source: &Source, line: usize, what: &str, remedy: &str) -> Violation {
        Violation(format!("{}:{line}: {what}\n    fix: {remedy}", source.path))
    }
}

fn imports(source: &Source) -> Vec<Violation> {
    let Some(module) = source.module().filter(|_| source.path.starts_with("src/")) else {
        return Vec::new();
    };
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        let remedy =
            "give the module a row in IMPORTS of tests/architecture.rs and in ARCHITECTURE.md";
        return vec![Violation::at(
            source,
            1,
            &format!("`{module}` is in no layer"),
            remedy,
        )];
    };
    let is_src_module = |name: &str| IMPORTS.iter().any(|(module, _)| *module == name);
    let is_module = |name: &str| CRATES.contains(&name) || is_src_module(name);
    let forbidden = |name: &str| {
        is_module(name) && name != module && *allowed != ALL && !allowed.contains(&name)
    };
    let remedy = match *allowed {
        [] => format!("`{module}` imports no other module; take the value as an argument"),
        _ => format!(
            "`{module}` may import {}; turn the dependency round",
            allowed.join(", ")
        ),
    };
    modules_named(source)
        .into_iter()
        .filter(|(_, name)| forbidden(name))
        .map(|(line, name)| {
            Violation::at(
                source,
                line,
                &format!("`{module}` imports `{name}`"),
                &remedy,
            )
        })
        .collect()
}

fn confined(source: &Source) -> Vec<Violation> {
    let module = source.module().unwrap_or_default();
    let rules = CONFINED
        .iter()
        .filter(|(_, modules, _)| !modules.contains(&module));
    rules
        .flat_map(|(prefix, modules, remedy)| {
            let words = source
                .tokens
                .iter()
                .filter(move |token| token.word.starts_with(prefix));
            let what = format!("`{prefix}` outside {}", modules.join(", "));
            words.map(move |token| Violation::at(source, token.line, &what, remedy))
        })
        .collect()
}

fn pure(source: &Source) -> Vec<Violation> {
    let module = source.module().unwrap_or_default();
    let is_pure = PURE.contains(&module);
    // An example is a program: it reads the clock for the crate.
    if source.path.contains("/examples/") || !is_pure && module != DECIDES {
        return Vec::new();
    }
    let reads_clock = |tokens: &[Token]| match tokens {
        [clock, colons, call, ..] => matches!(
            (&*clock.word, &*colons.word, &*call.word),
            ("Instant" | "SystemTime", "::", "now") | ("Now", "::", "read")
        ),
        _ => false,
    };
    let mut violations = Vec::new();
    for (place, token) in source.tokens.iter().enumerate() {
        if is_pure && token.word.starts_with("tokio") {
            let remedy = "waiting and tasks belong to proxy, cache and upstream";
            violations.push(Violation::at(
                source,
                token.line,
                "`tokio` in a pure module",
                remedy,
            ));
        } else if source.path != CLOCKS && reads_clock(&source.tokens[place..]) {
            let remedy = "take the time as an argument (`policy::Now`)";
            violations.push(Violation::at(
                source,
                token.line,
                "a clock is read in a pure module",
                remedy,
            ));
        }
    }
    violations
}

fn unshared(source: &Source) -> Vec<Violation> {
    if !REPEATED_HIT.contains(&&*source.path) {
        return Vec::new();
    }
    let remedy = "count in a counter of the thread (telemetry/thread_counters.rs), or keep it in \
                  the context of the worker";
    let writes = |token: &&Token| SHARED_WRITES.contains(&&*token.word);
    let writes = source.tokens.iter().filter(writes);
    writes
        .map(|token| {
            let what = format!("`{}` on the way of a repeated hit", token.word);
            Violation::at(source, token.line, &what, remedy)
        })
        .collect()
}

fn shape(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !source.text.starts_with("//! ") {
        let remedy = "say what it is responsible for, and what it knows nothing of";
        violations.push(Violation::at(
            source,
            1,
            "the file does not open with `//!`",
            remedy,
        ));
    }
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        let what = format!("{lines} lines; {LINES_MAX} at most");
        violations.push(Violation::at(
            source,
            lines,
            &what,
            "split it by meaning, not by size",
        ));
    }
    violations
}

/// Tables and links cannot be broken.
fn narrow(source: &Source) -> Vec<Violation> {
    let wide = |line: &&str| line.chars().count() > COLUMNS_MAX;
    let breakable = |line: &str| {
        let comment = line.trim_start().strip_prefix("//");
        comment.is_some_and(|text| {
            !text.trim_start_matches(['/', '!', ' ']).starts_with('|') && !text.contains("://")
        })
    };
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| wide(line) && breakable(line))
        .map(|(at, _)| {
            let what = format!("a comment of more than {COLUMNS_MAX} columns");
            Violation::at(source, at + 1, &what, "break the line")
        })
        .collect()
}

fn named(source: &Source) -> Vec<Violation> {
    let names = source.path.trim_end_matches(".rs").split('/').skip(1);
    let empty = names.filter(|name| EMPTY_NAMES.contains(name));
    let remedy = "name it for what it holds (a module's own file is `name.rs`, not `name/mod.rs`)";
    empty
        .map(|name| Violation::at(source, 1, &format!("`{name}` names nothing"), remedy))
        .collect()
}

/// Every module that a path names (`crate::module`, a group, or by way of `super`), with its line.
fn modules_named(source: &Source) -> Vec<(usize, &str)> {
    let words: Vec<&str> = source
        .tokens
        .iter()
        .map(|token| token.word.as_str())
        .collect();
    let mut found = Vec::new();
    for start in 0..words.len() {
        let begins = start == 0 || words[start - 1] != "::";
        if begins && let Some(name) = words[start].strip_prefix("seawall_") {
            found.push((source.tokens[start].line, name));
        }
        if !begins || !["crate", "super"].contains(&words[start]) {
            continue;
        }
        let mut at = start;
        let mut climbed = 0;
        while ["crate", "super", "self"].contains(&words[at]) && words.get(at + 1) == Some(&"::") {
            climbed += usize::from(words[at] == "super");
            at += 2;
        }
        let at_root = words[start] == "crate" || climbed >= source.depth();
        if at_root && at > start {
            let heads = heads(&words, at).into_iter();
            found.extend(heads.map(|head| (source.tokens[head].line, words[head])));
        }
    }
    found
}

/// The places of the first names of a use tree: one name, or those of a group.
fn heads(words: &[&str], at: usize) -> Vec<usize> {
    if words.get(at) != Some(&"{") {
        return vec![at];
    }
    let mut depth = 0;
    let mut heads = Vec::new();
    for (place, word) in words.iter().enumerate().skip(at) {
        match *word {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && ["{", ","].contains(word) {
            heads.push(place + 1);
        }
    }
    heads
}
