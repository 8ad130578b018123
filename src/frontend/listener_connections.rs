//! The connections of one listener: how many are open, and whether they are to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The connections of one listener, over all workers.
#[derive(Default)]
pub(super) struct ListenerConnections {
    open: AtomicUsize,
    is_closed: AtomicBool,
    /// Notified when the last connection closes.
    emptied: Notify,
}

/// Counts a connection as one of a listener, until it is dropped.
pub(super) struct ListenerPlace(Arc<ListenerConnections>);

impl ListenerConnections {
    pub(super) fn place(self: &Arc<Self>) -> ListenerPlace {
        self.open.fetch_add(1, Ordering::AcqRel);
        ListenerPlace(Arc::clone(self))
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// From now on, each connection is to end.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Waits until no connection is open. One task waits.
    pub(super) async fn wait_until_empty(&self) {
        while self.open() > 0 {
            self.emptied.notified().await;
        }
    }
}

impl ListenerPlace {
    pub(super) fn listener(&self) -> &Arc<ListenerConnections> {
        &self.0
    }
}

impl Drop for ListenerPlace {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.emptied.notify_one();
        }
    }
}
