//! Says when something is done about a body whose endpoint is silent.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::ATTEMPT_INTERVAL;

/// After this time without a byte, another endpoint is requested.
pub(in crate::proxy) const SILENCE: Duration = Duration::from_millis(700);
/// The same for a body that may still be produced: its chunks can be a second apart.
const SILENCE_WHILE_PRODUCED: Duration = Duration::from_millis(1500);

/// When something is done about a silent body.
pub(super) struct SilenceDeadlines {
    /// When another endpoint is requested. `None`: not before the running request has ended.
    pub(super) attempt: Option<Instant>,
    /// When the body is cut, because no other endpoint can continue it.
    pub(super) cut: Option<Instant>,
}

impl SilenceDeadlines {
    pub(super) fn new(is_complete: bool) -> SilenceDeadlines {
        let silence = if is_complete {
            SILENCE
        } else {
            SILENCE_WHILE_PRODUCED
        };
        SilenceDeadlines {
            attempt: Some(Instant::now() + silence),
            cut: None,
        }
    }

    /// The running request has ended without success: another attempt may succeed later.
    pub(super) fn allow_next_attempt(&mut self) {
        self.attempt
            .get_or_insert_with(|| Instant::now() + ATTEMPT_INTERVAL);
    }
}

/// Resolves at this time; `None`: never.
pub(super) async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
