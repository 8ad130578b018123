//! `seawall health`: one health check of a running server; the exit code is the result.

use std::time::Duration;

use clap::Args;

use super::admin_client::AdminArguments;

/// For everything: connect, request and response.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Ask a running server whether it is healthy.
#[derive(Debug, Args)]
pub(super) struct Health {
    #[command(flatten)]
    server: AdminArguments,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Health {
    /// Fails unless the server answers 200.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let client = self.server.client()?;
        let reply = client.request("GET", "/healthz", ANSWER_MAX)?;
        let is_healthy = reply.status == 200;
        let text = String::from_utf8_lossy(&reply.body);
        let text = text.trim_end();
        if self.json {
            super::print(&format!(
                "{}\n",
                serde_json::json!({ "healthy": is_healthy, "message": text })
            ));
        }
        let address = client.address();
        anyhow::ensure!(
            is_healthy,
            "{address} is not well: {text} (status {})",
            reply.status
        );
        Ok(())
    }
}
