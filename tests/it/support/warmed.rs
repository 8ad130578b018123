//! A running program that `seawall warm` is run against.

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixStream;

use super::eventually;
use super::origin::Origin;
use super::program::Program;

/// A running program, and the address of its admin server.
pub struct Warmed {
    pub program: Program,
    pub admin: String,
    _folder: TempDir,
}

impl Warmed {
    pub async fn in_front_of(origin: &Origin) -> Warmed {
        Warmed::with(origin, "").await
    }

    /// With more settings.
    pub async fn with(origin: &Origin, more: &str) -> Warmed {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let admin = format!("unix:{}", socket.display());
        let settings = format!("[admin]\nlisten = \"{admin}\"\n{more}\n");
        let program = Program::serve(origin, &settings).await;
        // It serves viewers before.
        eventually("the admin server to listen", async || {
            UnixStream::connect(&socket).await.is_ok()
        })
        .await;
        Warmed {
            program,
            admin,
            _folder: folder,
        }
    }

    /// The command with these words.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.arg("warm").args(words.split(' '));
        command.args(["--admin", &self.admin, "--rate", "100000"]);
        command.env_remove("SEAWALL_ADMIN_TOKEN_FILE");
        command
    }

    /// Runs the command with these words to its end.
    pub async fn run(&self, words: &str) -> Output {
        let mut command = self.command(words);
        let ended = tokio::task::spawn_blocking(move || command.output()).await;
        ended.unwrap().unwrap()
    }

    /// The summary, and the exit code.
    pub async fn summary_and_code(&self, words: &str) -> (Value, Option<i32>) {
        let ended = self.run(&format!("{words} --json")).await;
        let summary = serde_json::from_slice(&ended.stdout);
        let summary = summary.unwrap_or_else(|_| panic!("{ended:?}"));
        (summary, ended.status.code())
    }

    /// The summary, and whether the command succeeded.
    pub async fn summary(&self, words: &str) -> (Value, bool) {
        let (summary, code) = self.summary_and_code(words).await;
        (summary, code == Some(0))
    }
}

/// Fetched, held, failed and skipped objects.
pub fn counts(summary: &Value) -> (u64, u64, u64, u64) {
    let count = |name: &str| summary[name].as_u64().expect("a count");
    (
        count("fetched"),
        count("held"),
        count("failed"),
        count("skipped"),
    )
}
