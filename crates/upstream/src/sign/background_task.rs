//! Ensures that a background task runs once; it can start again after its runtime ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag for one background task.
#[derive(Default)]
pub(super) struct SingleTask(Arc<AtomicBool>);

/// Held by the running task; its drop allows a new one.
pub(super) struct SingleTaskGuard(Arc<AtomicBool>);

impl SingleTask {
    /// Claims the task, unless it is running.
    pub(super) fn take(&self) -> Option<SingleTaskGuard> {
        let free = !self.0.swap(true, Ordering::AcqRel);
        free.then(|| SingleTaskGuard(Arc::clone(&self.0)))
    }
}

impl Drop for SingleTaskGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_task_runs_once_at_a_time() {
        let duty = SingleTask::default();
        let first = duty.take();
        assert!(first.is_some() && duty.take().is_none());
        drop(first);
        assert!(duty.take().is_some());
    }
}
