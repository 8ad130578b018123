//! Programs that do not serve: each is ended, and the error says why.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::frontend::Limits;

const SHORT: UpgradeDeadlines = UpgradeDeadlines {
    prepare_max: Duration::from_millis(200),
    serve_max: Duration::from_millis(200),
};

/// An upgrade to a shell script, in a folder where that may leave files.
struct Attempt {
    folder: TempDir,
    upgrader: Upgrader,
}

impl Attempt {
    fn new(script: &str, deadlines: UpgradeDeadlines) -> Attempt {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("program");
        let text = folder.path().join("text");
        let script = format!("#!/bin/sh\ncd '{}'\n{script}", folder.path().display());
        fs::write(&text, script).unwrap();
        // By another process: this one may be starting a third, which then has the file open for
        // writing, so that it cannot be run.
        let mut install = Command::new("install");
        install.args(["-m", "755"]).args([&text, &file]);
        assert!(install.status().unwrap().success());
        Attempt {
            upgrader: upgrader(file, deadlines),
            folder,
        }
    }

    async fn error(&self) -> String {
        let prepared = self.upgrader.prepare("a test").await;
        prepared.err().expect("an error").to_string()
    }

    /// Waits until the process that the script has written down is gone.
    async fn wait_gone(&self) {
        let pid = fs::read_to_string(self.folder.path().join("pid")).unwrap();
        let status = format!("/proc/{}/status", pid.trim());
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::read_to_string(&status).is_ok_and(|status| !status.contains("State:\tZ")) {
            assert!(Instant::now() < deadline, "{pid} runs on");
            tokio::task::yield_now().await;
        }
    }
}

fn upgrader(file: PathBuf, deadlines: UpgradeDeadlines) -> Upgrader {
    Upgrader {
        deadlines,
        ..Upgrader::new(
            Some(StartedProgram::with_file(file)),
            (frontend(), None),
            ActiveShield::without_origins(),
            Arc::default(),
        )
    }
}

fn frontend() -> Arc<Frontend> {
    Arc::new(Frontend::new(Limits::default(), 1).unwrap())
}

#[tokio::test]
async fn program_that_ends_is_reported_with_its_last_messages() {
    let attempt = Attempt::new("echo one >&2; echo 'no libc here' >&2; exit 3", DEADLINES);
    let error = attempt.error().await;
    assert!(
        error.contains("ended before it was ready (exit status: 3)"),
        "{error}"
    );
    assert!(
        error.ends_with("its last messages:\none\nno libc here"),
        "{error}"
    );
}

#[tokio::test]
async fn killed_program_is_reported_with_its_signal() {
    let error = Attempt::new("kill -9 $$", DEADLINES).error().await;
    assert!(error.ends_with("(signal: 9 (SIGKILL))"), "{error}");
}

#[tokio::test]
async fn program_that_hangs_is_killed_at_the_deadline() {
    let attempt = Attempt::new("echo $$ > pid; echo waiting >&2; exec sleep 1000", SHORT);
    let error = attempt.error().await;
    assert!(error.contains("was not ready within 0.2 s"), "{error}");
    attempt.wait_gone().await;
}

/// It leaves a process behind that has its standard error.
#[tokio::test]
async fn standard_error_that_stays_open_delays_no_result() {
    let attempt = Attempt::new(
        "sleep 1000 <&- & echo $! > pid; echo gone >&2; exit 1",
        DEADLINES,
    );
    let error = attempt.error().await;
    assert!(error.ends_with("its last messages:\ngone"), "{error}");
    let pid = fs::read_to_string(attempt.folder.path().join("pid")).unwrap();
    kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn program_that_says_something_else_is_killed() {
    let attempt = Attempt::new(
        "echo $$ > pid; echo hello, world >&0; exec sleep 1000",
        DEADLINES,
    );
    let error = attempt.error().await;
    assert!(error.contains("cannot be reached"), "{error}");
    attempt.wait_gone().await;
}

#[tokio::test]
async fn dropped_upgrade_kills_the_program() {
    let attempt = Attempt::new(
        "echo $$ > pid; echo started >&2; exec sleep 1000",
        DEADLINES,
    );
    let mut preparing = Box::pin(attempt.upgrader.prepare("a test"));
    let pid = attempt.folder.path().join("pid");
    while fs::read_to_string(&pid).map_or(true, |pid| pid.is_empty()) {
        tokio::select! {
            _ = &mut preparing => panic!("it hangs"),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    }
    drop(preparing);
    attempt.wait_gone().await;
}

#[tokio::test]
async fn missing_program_is_named() {
    let nowhere = upgrader("/nowhere/at/all".into(), DEADLINES);
    let error = nowhere.prepare("a test").await.err().unwrap().to_string();
    assert!(
        error.starts_with("cannot start /nowhere/at/all: No such file"),
        "{error}"
    );
    let none = Upgrader::new(
        None,
        (frontend(), None),
        ActiveShield::without_origins(),
        Arc::default(),
    );
    assert!(none.prepare("a test").await.is_err());
}

#[test]
fn failures_are_kept_and_counted() {
    let none = Upgrader::new(
        None,
        (frontend(), None),
        ActiveShield::without_origins(),
        Arc::default(),
    );
    none.record_begin();
    assert_eq!(none.stats().to_json()["state"], "running");
    none.record_end(Err(&UpgradeError::new("it ended".to_owned())));
    let status = none.stats().to_json();
    assert_eq!(status["state"], "none");
    assert_eq!(status["last_error"]["error"], "it ended");
    assert_eq!(none.stats().failed, 1);
    let report = UpgradeReport {
        pid: 7,
        version: "2".to_owned(),
    };
    none.record_end(Ok(&report));
    let status = none.stats().to_json();
    assert_eq!(
        (&status["state"], &status["successor"]["pid"]),
        (&"done".into(), &7.into())
    );
    assert!(status["last_error"].is_null());
}
