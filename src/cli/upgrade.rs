//! `seawall upgrade`: has a running server start the program again, and waits until the new process
//! serves.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::admin_client::{AdminArguments, AdminClient};

/// Longer than the server waits before it answers that the upgrade is in progress.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// Longer than the new process may take.
const UPGRADE_MAX: Duration = Duration::from_secs(90);

/// Pause between two questions how it goes.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// Have a running server start the program anew from its file, which may be another version, and
/// give its place up without refusing a connection.
#[derive(Debug, Args)]
pub(super) struct UpgradeServer {
    #[command(flatten)]
    server: AdminArguments,

    /// Print the server's JSON
    #[arg(long)]
    json: bool,
}

impl UpgradeServer {
    /// Fails unless the new process serves.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let client = self.server.client()?;
        let answer = client.request_json("POST", "/upgrade", ANSWER_MAX)?;
        let report = if answer["state"] == "running" {
            wait_for_end(&client)?
        } else {
            answer
        };
        super::print(&if self.json {
            format!("{report}\n")
        } else {
            let version = report["version"].as_str().unwrap_or("unknown");
            format!("process {} serves, version {version}\n", report["pid"])
        });
        Ok(())
    }
}

/// Asks until the upgrade has ended.
#[expect(
    clippy::disallowed_methods,
    reason = "a command has nothing else to do"
)]
fn wait_for_end(client: &AdminClient) -> anyhow::Result<Value> {
    let deadline = Instant::now() + UPGRADE_MAX;
    loop {
        let status = client.request_json("GET", "/status", ANSWER_MAX)?;
        if let Some(result) = result_in(&status) {
            return result;
        }
        if Instant::now() >= deadline {
            anyhow::bail!("the upgrade does not end: see `upgrade` in /status, and the log");
        }
        sleep(STATUS_INTERVAL);
    }
}

/// The result of an upgrade; `None`: it is in progress.
fn result_in(status: &Value) -> Option<anyhow::Result<Value>> {
    let upgrade = &status["upgrade"];
    match upgrade["state"].as_str() {
        Some("running") => None,
        // The process of before answers.
        Some("done") => Some(Ok(upgrade["successor"].clone())),
        _ => Some(match upgrade["last_error"]["error"].as_str() {
            Some(error) => Err(anyhow::anyhow!("{error}")),
            // The new process answers, and has no upgrade behind it.
            None => Ok(json!({
                "pid": status["process"]["pid"],
                "version": status["process"]["version"],
            })),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_process_says_how_the_upgrade_ended() {
        let successor = json!({ "pid": 7, "version": "2" });
        let status = |state: &str, error: Value| {
            json!({
                "process": successor,
                "upgrade": {
                    "state": state, "last_error": error,
                    "successor": (state == "done").then_some(&successor),
                },
            })
        };
        assert!(result_in(&status("running", Value::Null)).is_none());
        for state in ["done", "none"] {
            let report = result_in(&status(state, Value::Null)).unwrap().unwrap();
            assert_eq!(report, successor, "{state}");
        }
        let error = result_in(&status("none", json!({ "error": "it ended" })));
        assert_eq!(error.unwrap().unwrap_err().to_string(), "it ended");
    }
}
