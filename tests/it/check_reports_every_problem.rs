//! `seawall check` reports every problem of a file with its place and a correction, as text and as
//! JSON. The snapshots are in `snapshots/`; `INSTA_UPDATE=always ./x test check_reports` rewrites
//! them.

use std::process::Command;

use insta::assert_snapshot;

/// One problem of each kind: unknown key, wrong type, missing unit, out of range, unusable address,
/// unknown name, missing file, contradiction of two keys, and a secret that must not be shown.
const WRONG: &str = r#"colour = 1
[limits]
idle_timeout = 75
conections_max = 5
streams_max = 0
[admin]
listen = ":9090"
[cache]
memory = true
[[origin]]
name = "main"
endpoints = ["a.example"]
ca_file = "missing.pem"
headers = { Host = "s3cret" }
retry = { wait = "2s" }
[[route]]
origin = "mian"
query = "non"
"#;

/// Settings that work and are doubtful.
const DOUBTFUL: &str = r#"[admin]
listen = "127.0.0.1:9090"
[[origin]]
endpoints = ["https://origin.example"]
verify = false
[[route]]
unkeyed_headers = ["X-Edge"]
"#;

/// Standard output, standard error and the exit code of a check without network.
fn checked(source: &str, flags: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a writable folder");
    std::fs::write(folder.path().join("seawall.toml"), source).expect("a writable folder");
    let ended = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .current_dir(folder.path())
        .args(["check", "--offline"])
        .args(flags)
        .arg("seawall.toml")
        .output()
        .expect("the program was built");
    let code = ended.status.code().expect("an exit code");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&ended.stdout), text(&ended.stderr));
    assert!(!out.contains("s3cret") && !error.contains("s3cret"));
    format!("exit code {code}\n--- stdout\n{out}--- stderr\n{error}")
}

#[test]
fn every_problem_is_shown_at_its_place() {
    assert_snapshot!(checked(WRONG, &[]));
}

#[test]
fn every_problem_is_a_json_object() {
    assert_snapshot!(checked(WRONG, &["--json"]));
}

#[test]
fn warnings_are_shown_and_pass() {
    assert_snapshot!(checked(DOUBTFUL, &[]));
}

#[test]
fn warnings_fail_a_strict_check() {
    assert_snapshot!(checked(DOUBTFUL, &["--strict", "--json"]));
}

#[test]
fn broken_toml_is_shown_where_it_breaks() {
    assert_snapshot!(checked("[cache\nmemory = 5\n", &[]));
}
