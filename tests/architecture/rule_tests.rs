//! Each rule finds what breaks it, with the line, and nothing else.

use super::*;

fn violations(rule: fn(&Source) -> Vec<Violation>, path: &str, text: &str) -> Vec<String> {
    rule(&Source::new(path, text).0)
        .into_iter()
        .map(|Violation(message)| message)
        .collect()
}

fn lines(rule: fn(&Source) -> Vec<Violation>, path: &str, text: &str) -> Vec<usize> {
    let line = |message: String| {
        message[path.len() + 1..]
            .split(':')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    violations(rule, path, text).into_iter().map(line).collect()
}

#[test]
fn finds_every_form_of_import() {
    let text = "use crate::proxy::Shield;\n\
                use crate::{\n  telemetry::Outcome,\n  frontend::{Limits, Listener},\n  config,\n};\n\
                fn f(x: crate::admin::Settings) {}\n\
                use super::super::cli;\n\
                use super::server;\n\
                pub(crate) use self::inner::frontend;\n\
                use seawall_cache::Cache;";
    assert_eq!(
        lines(imports, "src/telemetry/log.rs", text),
        [1, 4, 5, 7, 8, 11]
    );
    assert_eq!(
        lines(imports, "src/telemetry.rs", text),
        [1, 4, 5, 7, 8, 9, 11]
    );
    assert_eq!(lines(imports, "src/server.rs", text), [0; 0]);
}

#[test]
fn ignores_what_is_no_import() {
    let text = "// crate::frontend\n/* /* crate::frontend */ crate::frontend */\n\
                const A: &str = \"crate::frontend\"; const B: &str = r#\"\"crate::frontend\"#;\n\
                fn f<'a>(c: &'a str) { g('\"', b'\\'', \"\\\"\"); crate::telemetry::h() }\n\
                use other::frontend; use seawall_policy::Key; mod frontend {}";
    assert_eq!(violations(imports, "src/telemetry.rs", text), [""; 0]);
}

#[test]
fn ignores_imports_of_test_code() {
    let text = "#[cfg(test)]\nmod tests { fn f() { { crate::frontend::x() } } }\n\
                #[cfg(test)] use crate::frontend::{A, B};\n\
                #[cfg(all(test, unix))]\n#[allow(x)]\nfn f() { crate::frontend::x() }\n\
                #[cfg(test)]\nmod scenarios;\n\
                use crate::frontend;";
    assert_eq!(lines(imports, "src/telemetry.rs", text), [9]);
    let (_, test_files) = Source::new("src/telemetry/log.rs", text);
    assert_eq!(test_files, ["src/telemetry/log/scenarios"]);
}

#[test]
fn names_violation_location_and_remedy() {
    let messages = violations(
        imports,
        "src/telemetry/log.rs",
        "\nuse seawall_cache::Cache;",
    );
    let expected = "src/telemetry/log.rs:2: `telemetry` imports `cache`\n    \
                    fix: `telemetry` may import manifest, policy; turn the dependency round";
    assert_eq!(messages, [expected]);
}

#[test]
fn finds_shared_writes_of_a_repeated_hit() {
    let text = "fn hit(count: &AtomicU64) {\n    count.fetch_add(1, Relaxed);\n}\n";
    assert_eq!(lines(unshared, "src/proxy/repeat.rs", text), [2]);
    assert_eq!(lines(unshared, "src/proxy/pass.rs", text), [0; 0]);
}

#[test]
fn rejects_a_module_without_a_row() {
    assert_eq!(lines(imports, "src/lobby/desk.rs", ""), [1]);
    assert_eq!(lines(imports, "src/lib.rs", "use crate::frontend;"), [0; 0]);
}

#[test]
fn finds_confined_crates_under_all_their_names() {
    let text = "use pingora_core::server::Server;\nuse hyper_util::rt::TokioIo;\nuse hyper::Uri;";
    assert_eq!(lines(confined, "crates/policy/src/lib.rs", text), [1, 2, 3]);
    assert_eq!(
        lines(confined, "crates/upstream/src/group.rs", text),
        [2, 3]
    );
    assert_eq!(lines(confined, "src/frontend.rs", text), [0; 0]);
    assert_eq!(lines(confined, "src/lib.rs", text), [1, 2, 3]);
}

#[test]
fn finds_clocks_and_async_only_in_pure_modules() {
    let text = "fn f() { std::time::Instant::now(); }\ntokio::spawn(x);\nfn g(now: Instant) {}";
    assert_eq!(lines(pure, "crates/manifest/src/hls.rs", text), [1, 2]);
    assert_eq!(lines(pure, "crates/policy/src/now.rs", text), [2]);
    assert_eq!(lines(pure, "src/proxy.rs", text), [0; 0]);
}

#[test]
fn finds_type_definitions() {
    let text = "pub struct A<T>(T);\nimpl Iterator for A { type Item = B; }\n\
                enum C { D }\n#[cfg(test)]\nmod tests { struct E; }";
    let (source, _) = Source::new("src/a.rs", text);
    let names: Vec<_> = types_defined(&source.tokens)
        .map(|token| &token.word)
        .collect();
    assert_eq!(names, ["A", "C"]);
}

#[test]
fn rejects_empty_names_long_files_and_files_without_description() {
    assert_eq!(violations(named, "src/cache/utils/lru.rs", "").len(), 1);
    assert_eq!(violations(named, "src/cache/mod.rs", "").len(), 1);
    assert_eq!(violations(named, "src/cache/lru.rs", "").len(), 0);
    assert_eq!(lines(shape, "src/a.rs", "use x;"), [1]);
    let long = format!("//! Why?\n{}", "\n".repeat(LINES_MAX));
    assert_eq!(lines(shape, "src/a.rs", &long), [LINES_MAX + 1]);
}

#[test]
fn finds_wide_comments_that_can_be_broken() {
    let full = format!("    /// {}", "é".repeat(COLUMNS_MAX - 8));
    let link = format!("// https://{}", "a".repeat(COLUMNS_MAX));
    let text = format!("{full}\n{full}é\n//! | {full}\n{link}\n//{full}");
    assert_eq!(lines(narrow, "src/a.rs", &text), [2, 5]);
}

/// The files of each circle in a crate with these files.
fn circles_among(files: &[(&str, &str)]) -> Vec<String> {
    let source = |(path, text): &(&str, &str)| Source::new(&format!("a/src/{path}"), text).0;
    let sources: Vec<_> = files.iter().map(source).collect();
    let found = circles::circles("a/src", &sources.iter().collect::<Vec<_>>());
    let names = |circle: &circles::Circle| {
        let files = circle.files.iter().map(|&file| files[file].0);
        files.collect::<Vec<_>>().join(" ")
    };
    found.iter().map(names).collect()
}

#[test]
fn files_that_import_one_another_are_a_circle_by_whatever_path() {
    let lib = "mod one;\nmod two;\npub use one::{First as Renamed, Other};\npub use two::Second;";
    let one = "use crate::two::{self, helper};\npub struct First;\npub struct Other;";
    for two in [
        "use super::one::First;\npub struct Second;",
        "use crate::Renamed;\npub struct Second;",
        "pub fn helper() { let x = super::Other::new(); }",
        "use super::{one};\npub struct Second;",
    ] {
        let found = circles_among(&[("lib.rs", lib), ("one.rs", one), ("two.rs", two)]);
        assert_eq!(found, ["one.rs two.rs"], "{two}");
    }
}

#[test]
fn a_circle_by_way_of_others_is_seen() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use super::b::B; pub struct A;"),
        ("b.rs", "use super::c::C; pub struct B;"),
        ("c.rs", "use super::a::A; pub struct C;"),
        ("d.rs", "use super::a::A; pub struct D;"),
    ];
    assert_eq!(circles_among(&files), ["a.rs b.rs c.rs"]);
}

#[test]
fn parents_tests_and_other_crates_make_no_circle() {
    let files = [
        ("lib.rs", "mod one; mod two; use http::Uri; pub struct Top;"),
        (
            "one.rs",
            "mod inner; use inner::Inner; use super::two::Two; pub struct One;",
        ),
        (
            "one/inner.rs",
            "use super::One; use crate::{Top, Uri}; pub struct Inner;",
        ),
        (
            "two.rs",
            "#[cfg(test)]\nuse super::one::One;\nuse super::Top;\npub struct Two;\n\
             fn f() -> impl Fn() + use<'static> { http::one::One }",
        ),
    ];
    assert_eq!(circles_among(&files), [""; 0]);
}
