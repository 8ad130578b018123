//! Background tasks of the server: reload renewed certificates, and secrets of access rules.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::frontend::{Certificates, Frontend};
use crate::proxy::ActiveShield;

/// A renewed certificate is in use after at most this time.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// A changed secret is in use after at most this time, as in `seawall_upstream::sign`.
const SECRETS_INTERVAL: Duration = Duration::from_secs(1);

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Reads the files with the secrets of access rules periodically. Ends when the shield is gone.
pub(super) fn watch_secrets(active: &Arc<ActiveShield>) -> impl Future<Output = ()> + Send + use<> {
    let active = Arc::downgrade(active);
    async move {
        let mut ticks = ticks(SECRETS_INTERVAL);
        loop {
            ticks.tick().await;
            let Some(active) = active.upgrade() else {
                return;
            };
            // A reload may bring files.
            let shield = active.current();
            if !shield.has_secret_files() {
                continue;
            }
            // On a blocking thread: the files may be on a file system that hangs.
            let reading = tokio::task::spawn_blocking(move || shield.reread_secrets());
            if let Err(error) = reading.await {
                tracing::error!(%error, "the check of the secrets failed");
            }
        }
    }
}

/// Checks the certificates' files periodically. Ends when the frontend is gone.
pub(super) fn watch_certificates(
    frontend: &Arc<Frontend>,
) -> impl Future<Output = ()> + Send + use<> {
    let watched = Arc::downgrade(frontend);
    async move {
        let mut ticks = ticks(CHECK_INTERVAL);
        loop {
            ticks.tick().await;
            // A reload may bring listeners.
            let Some(frontend) = watched.upgrade() else {
                return;
            };
            let certificates = frontend.certificates();
            drop(frontend);
            for certificates in certificates {
                reload_certificates(certificates).await;
            }
            if let Some(frontend) = watched.upgrade() {
                frontend.end_outdated_connections();
            }
        }
    }
}

/// On a blocking thread: the files may be on a file system that hangs.
async fn reload_certificates(certificates: Arc<Certificates>) {
    let result = tokio::task::spawn_blocking(move || certificates.refresh()).await;
    match result {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => tracing::info!("certificates reloaded"),
        Ok(Err(error)) => tracing::error!(%error, "the previous certificates stay in use: {error}"),
        Err(error) => tracing::error!(%error, "the check of the certificates failed"),
    }
}
