//! Background tasks of the server: reloads renewed certificates.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::frontend::{BoundListener, Certificates};

/// A renewed certificate is in use after at most this time.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Checks the certificates' files periodically. Ends at once if there are none.
pub(super) fn watch_certificates(
    listeners: &[BoundListener],
) -> impl Future<Output = ()> + Send + use<> {
    let all_certificates: Vec<_> = listeners
        .iter()
        .filter_map(BoundListener::certificates)
        .cloned()
        .collect();
    async move {
        if all_certificates.is_empty() {
            return;
        }
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for certificates in &all_certificates {
                reload_certificates(certificates.clone()).await;
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
