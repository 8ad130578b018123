//! When does the server stop, and how long does it wait for answers under way?

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::edge::Edge;

/// Waits for SIGTERM or SIGINT, then drains. A second SIGINT ends the wait.
pub(super) struct Signals {
    pub(super) edge: Arc<Edge>,
    pub(super) drain_max: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        match (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) {
            (Ok(terminate), Ok(interrupt)) => self.drain(terminate, interrupt).await,
            (Err(error), _) | (_, Err(error)) => deaf(&error).await,
        }
        // Whoever is left by now has had its time.
        self.edge.abort();
        ShutdownSignal::FastShutdown
    }
}

impl Signals {
    async fn drain(&self, mut terminate: Signal, mut interrupt: Signal) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let open = self.edge.stats().open;
        tracing::info!(
            open,
            "stopping: {open} connections may finish what is under way"
        );
        tokio::select! {
            () = self.edge.drain() => {}
            () = tokio::time::sleep(self.drain_max) => {
                let open = self.edge.stats().open;
                tracing::warn!(open, "{open} connections did not finish in time");
            }
            _ = interrupt.recv() => tracing::warn!("interrupted again: stopping at once"),
        }
    }
}

/// Without signal handlers the system's default applies: the process ends at once.
async fn deaf(error: &io::Error) {
    tracing::error!(%error, "cannot listen for signals: they will end the process at once");
    std::future::pending::<()>().await;
}
