//! Waits with a limit for events.
//!
//! No wait sleeps to let something happen: it ends with its event, and a scenario that would hang
//! fails with the name of the missing event.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// The longest time for a single wait before the scenario fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The polling interval for what cannot wake a task (a metric, a file).
const GLANCE: Duration = Duration::from_millis(5);

/// Waits for `event`; fails the scenario with the name `what` when it does not happen.
pub async fn within<T>(what: impl Display, event: impl Future<Output = T>) -> T {
    within_at_most(PATIENCE, what, event).await
}

/// As [`within`], for the few waits that need longer.
pub async fn within_at_most<T>(
    longest: Duration,
    what: impl Display,
    event: impl Future<Output = T>,
) -> T {
    match timeout(longest, event).await {
        Ok(outcome) => outcome,
        Err(elapsed) => panic!("waited {longest:?} for {what}: {elapsed}"),
    }
}

/// Polls until `check` holds, for conditions without a notification.
pub async fn eventually(what: impl Display, mut check: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !check().await {
            sleep(GLANCE).await;
        }
    })
    .await;
}
