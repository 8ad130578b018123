//! `seawall check --diff OLD NEW` names what differs between two files by key, as text and as JSON,
//! and tells equal, different and invalid files apart by its exit code. The snapshots are in
//! `snapshots/`; `INSTA_UPDATE=always ./x test check_names` rewrites them.

use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;

const OLD: &str = r#"[cache]
memory = "1GiB"
[[origin]]
name = "main"
endpoints = ["https://a.example"]
headers = { X-Token = "s3cret-old" }
[[route]]
name = "live"
path = "/live"
[[route]]
name = "rest"
"#;

const NEW: &str = r#"[[origin]]
name = "main"
endpoints = ["https://a.example", "https://b.example"]
headers = { X-Token = "s3cret-new" }
[[route]]
name = "rest"
[[route]]
name = "live"
path = "/live"
lifetimes = { manifest_default = "4s" }
[access_log]
enabled = true
path = "access.log"
"#;

/// The old file as someone else would write it.
const REWRITTEN: &str = r#"[[route]]
name = "rest"
path = "/"
[[route]]
path = "/live/"
name = "live"
cors = "any"
[[listener]]
listen = "0.0.0.0:8080"
[[origin]]
endpoints = [{ url = "https://a.example:443", weight = 1 }]
name = "main"
[origin.headers]
x-token = "s3cret-old"
"#;

/// Works and is doubtful.
const DOUBTFUL: &str = "[[origin]]\nendpoints = [\"https://a.example\"]\nverify = false\n";

const INVALID: &str = "[cache]\nmemory = true\n[[origin]]\nendpoints = [\"https://a.example\"]\n";

/// A folder with these files, the first one called `old.toml`, the second one `new.toml`.
fn folder(old: &str, new: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("old.toml"), old).expect("a writable folder");
    std::fs::write(folder.path().join("new.toml"), new).expect("a writable folder");
    folder
}

/// Standard output, standard error and the exit code of a comparison without network.
fn compared_in(folder: &Path, arguments: &[&str]) -> String {
    let ended = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .current_dir(folder)
        .args(["check", "--offline"])
        .args(arguments)
        .output()
        .expect("the program was built");
    let code = ended.status.code().expect("an exit code");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&ended.stdout), text(&ended.stderr));
    assert!(!out.contains("s3cret") && !error.contains("s3cret"));
    format!("exit code {code}\n--- stdout\n{out}--- stderr\n{error}")
}

fn compared(old: &str, new: &str, flags: &[&str]) -> String {
    let arguments = [&["--diff", "old.toml", "new.toml"], flags].concat();
    compared_in(folder(old, new).path(), &arguments)
}

#[test]
fn every_difference_is_a_line_and_exits_with_3() {
    assert_snapshot!(compared(OLD, NEW, &[]));
}

#[test]
fn every_difference_is_a_json_object() {
    assert_snapshot!(compared(OLD, NEW, &["--json"]));
}

#[test]
fn the_same_settings_written_otherwise_exit_with_0() {
    assert_snapshot!(compared(OLD, REWRITTEN, &[]));
    assert_snapshot!(compared(OLD, REWRITTEN, &["--json"]));
}

#[test]
fn an_invalid_file_exits_with_1_whichever_it_is() {
    assert_snapshot!(compared(OLD, INVALID, &[]));
    assert_snapshot!(compared(INVALID, OLD, &["--json"]));
}

#[test]
fn a_missing_file_exits_with_1() {
    let folder = folder(OLD, NEW);
    assert_snapshot!(compared_in(
        folder.path(),
        &["--diff", "old.toml", "gone.toml"]
    ));
}

#[test]
fn a_warning_fails_a_strict_comparison_only() {
    assert_snapshot!(compared(DOUBTFUL, DOUBTFUL, &[]));
    assert_snapshot!(compared(DOUBTFUL, DOUBTFUL, &["--strict"]));
}

#[test]
fn one_folder_written_in_two_ways_is_no_difference() {
    let folder = folder(NEW, NEW);
    let compared = compared_in(folder.path(), &["--diff", "old.toml", "./new.toml"]);
    assert!(compared.starts_with("exit code 0\n"), "{compared}");
}
