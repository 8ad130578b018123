//! What is looked after while the server runs? Certificates, so far.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::frontend::{BoundListener, Certificates};

/// A renewed certificate is in use after so long at most.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Looks at the certificates' files from time to time. Ends at once where there are none.
pub(super) fn watch_certificates(
    doors: &[BoundListener],
) -> impl Future<Output = ()> + Send + use<> {
    let watched: Vec<_> = doors
        .iter()
        .filter_map(BoundListener::certificates)
        .cloned()
        .collect();
    async move {
        if watched.is_empty() {
            return;
        }
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            for certificates in &watched {
                look(certificates.clone()).await;
            }
        }
    }
}

/// Off the runtime's own threads: the files may be on a file system that hangs.
async fn look(certificates: Arc<Certificates>) {
    let looked = tokio::task::spawn_blocking(move || certificates.refresh()).await;
    match looked {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => tracing::info!("certificates read again"),
        Ok(Err(error)) => tracing::error!(%error, "certificates stay as they were: {error}"),
        Err(error) => tracing::error!(%error, "certificates could not be looked at"),
    }
}
