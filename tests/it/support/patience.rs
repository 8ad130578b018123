//! How long does a scenario wait? For an event, and never for ever.
//!
//! Nothing in here sleeps to let something happen: a wait ends when what it waits for is there, and
//! a scenario that would hang fails with the name of what was missing.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// The longest any single wait may take before the scenario fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often something that cannot wake us (a metric, a file) is looked at again.
const GLANCE: Duration = Duration::from_millis(5);

/// Waits for `event`, and fails the scenario by the name of `what` when it does not come.
pub async fn within<T>(what: impl Display, event: impl Future<Output = T>) -> T {
    within_at_most(PATIENCE, what, event).await
}

/// As [`within`], for the few waits that are long by nature.
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

/// Looks again and again until `check` holds: for what can be seen but does not announce itself.
pub async fn eventually(what: impl Display, mut check: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !check().await {
            sleep(GLANCE).await;
        }
    })
    .await;
}
