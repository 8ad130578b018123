//! What `seawall check` warns of is said again where the file is used: in the log of the start and
//! of a reload, in the log's format, in the answer to a reload, and in `/status`.

use std::process::{Output, Stdio};

use serde_json::Value;

use crate::support::Origin;
use crate::support::operated::{ADMIN, Operated};
use crate::support::program::Program;

/// Works and is doubtful.
const DOUBTFUL: &str = "[[route]]\nunkeyed_headers = [\"X-Edge\"]";

/// What is doubtful.
const WARNING: &str = "NOT in the key";

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn stdout(ended: &Output) -> String {
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    text(&ended.stdout)
}

#[tokio::test]
async fn reload_says_its_warnings_in_the_answer_the_log_and_the_status() {
    let mut operated = Operated::start("").await;
    assert_eq!(operated.config().await["warnings"], Value::Array(vec![]));
    for _ in 0..2 {
        // Also when nothing has changed.
        let report = operated.change(DOUBTFUL).await;
        let warnings = report["warnings"].as_array().expect("warnings");
        assert_eq!(warnings.len(), 1, "{report}");
        assert_eq!(warnings[0]["severity"], "warning");
        assert!(warnings[0]["line"].is_u64(), "{report}");
        let line = operated.log.read_until(WARNING).await;
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["level"], "WARN");
        assert!(
            line["message"].as_str().unwrap().contains("seawall.toml:"),
            "{line}"
        );
        assert_eq!(operated.config().await["warnings"], report["warnings"]);
    }
    for words in ["reload", "status"] {
        let said = stdout(&operated.command(words).await);
        assert!(said.contains("\nwarning: `x-edge`"), "{said}");
        assert!(said.contains("seawall.toml:"), "{said}");
    }
    let report = operated.change("").await;
    assert_eq!(report["warnings"], Value::Array(vec![]));
    assert_eq!(operated.config().await["warnings"], Value::Array(vec![]));
    let said = stdout(&operated.command("reload").await);
    assert!(!said.contains("warning"), "{said}");
}

#[tokio::test]
async fn failed_reload_says_the_error_before_the_warnings() {
    let operated = Operated::start("").await;
    let error = operated
        .change_refused(&format!("{DOUBTFUL}\n[cache]\nmemry = 1"))
        .await;
    assert!(error.starts_with("error: unknown key `memry`"), "{error}");
    assert!(error.contains(WARNING), "{error}");
    let failed = operated.command("reload").await;
    assert_eq!(failed.status.code(), Some(1));
    let said = text(&failed.stderr);
    assert!(said.starts_with("error: unknown key `memry`"), "{said}");
    let status = operated.config().await;
    let problems = &status["last_error"]["problems"];
    assert_eq!(problems[0]["severity"], "error", "{status}");
    assert_eq!(problems[1]["severity"], "warning", "{status}");
    // Of the configuration in use.
    assert_eq!(status["warnings"], Value::Array(vec![]));
}

async fn log_of_start(format: &[&str]) -> Vec<String> {
    let origin = Origin::start().await;
    let settings = format!("{ADMIN}\n{DOUBTFUL}");
    let mut program = Program::serve_with(&origin, &settings, |command| {
        command.stderr(Stdio::piped()).args(format);
    })
    .await;
    program
        .log()
        .read_lines_until("admin server listens on ")
        .await
}

#[tokio::test]
async fn warnings_of_the_start_are_lines_of_the_log() {
    let lines = log_of_start(&["--log", "json"]).await;
    let read = |line: &String| serde_json::from_str::<Value>(line).ok();
    let all: Option<Vec<Value>> = lines.iter().map(read).collect();
    let all = all.unwrap_or_else(|| panic!("not all lines are JSON: {lines:#?}"));
    let is_said = |line: &&Value| line["message"].as_str().unwrap().contains(WARNING);
    let warning = all.iter().find(is_said).expect("the warning");
    assert_eq!(warning["level"], "WARN");

    let lines = log_of_start(&["--log", "text"]).await;
    let warning = lines.iter().find(|line| line.contains(WARNING));
    let warning = warning.expect("the warning");
    assert!(warning.contains(" WARN "), "{warning}");
    assert!(warning.contains("seawall.toml:"), "{warning}");
    assert!(
        lines.iter().all(|line| line.starts_with("20")),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn reload_and_comparison_say_the_same_of_a_change() {
    let operated = Operated::start("").await;
    let file = operated.program.file().to_owned();
    let before = operated.program.folder().join("before.toml");
    std::fs::copy(&file, &before).unwrap();
    operated.write(
        "[server]\nthreads = 3\n[access_log]\npath = \"access.log\"\n\
         [[route]]\nquery = \"none\"\n[[route]]\nname = \"new\"\npath = \"/new\"\nquery = \"none\"",
    );
    let diff = format!(
        "check --offline --diff {} {}",
        before.display(),
        file.display()
    );
    let compared = text(&operated.command_without_server(&diff).await.stdout);
    let changes: Vec<&str> = compared
        .lines()
        .filter(|line| line.starts_with("  "))
        .collect();
    let said = stdout(&operated.command("reload").await);
    let reloaded: Vec<&str> = said.lines().filter(|line| line.starts_with("  ")).collect();
    assert_eq!(reloaded, changes, "{said}");
    assert!(!said.contains("null"), "{said}");
    let of_changed: Vec<_> = changes
        .iter()
        .filter(|line| line.contains("old ones"))
        .collect();
    // Of the route that was there. The new one had no keys before.
    assert_eq!(of_changed.len(), 1, "{said}");
    assert!(of_changed[0].contains("\"default\": query"), "{said}");
    let status = operated.config().await;
    let differences = status["last_difference"].as_array().expect("differences");
    for difference in differences.iter().filter(|one| one["difference"] == "set") {
        assert_eq!(difference["effect"], "live", "{status}");
    }
    let nulls = |one: &Value| one.as_object().unwrap().values().any(Value::is_null);
    let with_null: Vec<_> = differences.iter().filter(|one| nulls(one)).collect();
    // A key that was not set.
    assert_eq!(with_null.len(), 1, "{status}");
    assert_eq!(with_null[0]["key"], "path", "{status}");
}
