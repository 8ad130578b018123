//! Does somebody see to it already? A task in the background is started once, and started anew when
//! the runtime it was started in has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Something that one task sees to.
#[derive(Default)]
pub(super) struct Duty(Arc<AtomicBool>);

/// Held by the task that sees to it; free again when that ends, however it ends.
pub(super) struct OnDuty(Arc<AtomicBool>);

impl Duty {
    /// To be seen to from now on, unless somebody does already.
    pub(super) fn take(&self) -> Option<OnDuty> {
        let free = !self.0.swap(true, Ordering::AcqRel);
        free.then(|| OnDuty(Arc::clone(&self.0)))
    }
}

impl Drop for OnDuty {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_sees_to_it() {
        let duty = Duty::default();
        let first = duty.take();
        assert!(first.is_some() && duty.take().is_none());
        drop(first);
        assert!(duty.take().is_some());
    }
}
