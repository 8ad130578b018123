//! An access log or audit log that the server could not open is found by `seawall check`, which
//! creates nothing, and is named once, with its path, by a start and a reload that fail for it.

use std::path::Path;
use std::process::Command;

use crate::support::operated::Operated;

/// Settings of the two logs at this path.
fn logs(path: &str) -> [(&'static str, String); 2] {
    [
        (
            "access log",
            format!("[access_log]\nenabled = true\npath = \"{path}\"\n"),
        ),
        ("audit log", format!("[admin]\naudit_log = \"{path}\"\n")),
    ]
}

/// The exit code and standard error of a command with a file of these settings.
fn run(folder: &Path, command: &[&str], settings: &str) -> (Option<i32>, String) {
    let text = format!(
        "{settings}[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[origin]]\nendpoints = [\"http://127.0.0.1:1\"]\n"
    );
    std::fs::write(folder.join("seawall.toml"), text).unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .current_dir(folder)
        .args(command)
        .arg("seawall.toml")
        .output()
        .unwrap();
    let error = String::from_utf8(ended.stderr).unwrap();
    (ended.status.code(), error)
}

/// How often a text occurs in another one.
fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn check_finds_a_log_that_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("directory")).unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    for (path, why) in [
        ("gone/a.log", "there is no directory gone"),
        ("directory", "a directory"),
        ("file/a.log", "file is not a directory"),
    ] {
        for (log, settings) in logs(path) {
            let (code, error) = run(folder.path(), &["check"], &settings);
            assert_eq!(code, Some(1), "{log} {path}: {error}");
            assert!(
                error.contains(&format!("the {log} cannot be opened")),
                "{error}"
            );
            assert!(error.contains("seawall.toml:"), "{error}");
            assert!(error.contains(why), "{why}: {error}");
            let (code, error) = run(folder.path(), &["check", "--offline"], &settings);
            assert_eq!(code, Some(0), "of another machine: {error}");
        }
    }
}

#[test]
fn check_accepts_a_log_that_can_be_created_and_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("there.log"), "before\n").unwrap();
    for path in ["new.log", "there.log", "./new.log"] {
        for (log, settings) in logs(path) {
            let (code, error) = run(folder.path(), &["check"], &settings);
            assert_eq!(code, Some(0), "{log} {path}: {error}");
        }
    }
    // A log that is off needs no file.
    let off = "[access_log]\npath = \"gone/a.log\"\n";
    assert_eq!(run(folder.path(), &["check"], off).0, Some(0));
    assert!(!folder.path().join("new.log").exists());
    let text = std::fs::read_to_string(folder.path().join("there.log")).unwrap();
    assert_eq!(text, "before\n");
}

#[test]
fn start_names_the_log_and_its_path_once() {
    let folder = tempfile::tempdir().unwrap();
    for (log, settings) in logs("gone/a.log") {
        let (code, error) = run(folder.path(), &["serve", "--config"], &settings);
        assert_eq!(code, Some(1), "{error}");
        let last = error.lines().last().unwrap();
        assert!(last.starts_with("error: "), "{error}");
        for part in [log, "gone/a.log", "there is no directory gone"] {
            assert_eq!(count(last, part), 1, "{part}: {error}");
        }
        assert!(!last.contains("os error"), "{error}");
    }
}

#[tokio::test]
async fn reload_names_the_log_and_its_path_once() {
    let operated = Operated::start("").await;
    // `[admin]` is open.
    let audit = "audit_log = \"gone/a.log\"";
    let [(_, access), _] = logs("gone/a.log");
    for (log, settings) in [("audit log", audit), ("access log", &access)] {
        let error = operated.change_refused(settings).await;
        for part in [log, "gone/a.log", "there is no directory"] {
            assert_eq!(count(&error, part), 1, "{part}: {error}");
        }
    }
}
