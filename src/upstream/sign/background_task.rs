//! Does somebody see to it already? A task in the background is started once, and started anew when
//! the runtime it was started in has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Something that one task sees to.
#[derive(Default)]
pub(super) struct SingleTask(Arc<AtomicBool>);

/// Held by the task that sees to it; free again when that ends, however it ends.
pub(super) struct SingleTaskGuard(Arc<AtomicBool>);

impl SingleTask {
    /// To be seen to from now on, unless somebody does already.
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
    fn one_at_a_time_sees_to_it() {
        let duty = SingleTask::default();
        let first = duty.take();
        assert!(first.is_some() && duty.take().is_none());
        drop(first);
        assert!(duty.take().is_some());
    }
}
