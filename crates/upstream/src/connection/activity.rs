//! Decides whether a problem concerns one HTTP/2 stream or its whole connection.
//!
//! A reset or late stream says nothing about the other streams. A connection gets no new streams
//! after GOAWAY, REFUSED_STREAM or an I/O error, or when one stream times out and no other received
//! anything in that time: it may be dead, and a new one is cheap. PINGs find dead connections that
//! no stream waits on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use h2::Reason;
use parking_lot::Mutex;
use pingora_core::protocols::http::v2::client::Http2Session;

/// The HTTP/2 error is the connection's: it is closed, closing, or accepts no more streams. A
/// request without a response was then not processed, or its state is unknown as on an unshared
/// connection.
pub(crate) fn is_of_connection(error: &pingora_error::Error) -> bool {
    error
        .root_cause()
        .downcast_ref::<h2::Error>()
        .is_some_and(|error| {
            let refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
            error.is_go_away() || error.is_io() || refused
        })
}

/// Activity of all streams of one connection, as seen by one of them.
pub(crate) struct ConnectionActivity {
    received: Arc<AtomicU64>,
    /// Value of `received` when the wait began.
    received_before: u64,
}

impl ConnectionActivity {
    /// Starts a wait.
    pub(crate) fn begin_wait(&mut self) {
        self.received_before = self.received.load(Ordering::Relaxed);
    }

    /// Records received data.
    pub(crate) fn record_data(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    /// No stream received anything since the wait began.
    pub(crate) fn is_still(&self) -> bool {
        self.received_before == self.received.load(Ordering::Relaxed)
    }
}

/// Connections with open streams.
#[derive(Default)]
pub(crate) struct ActivityTable(Mutex<Vec<(usize, Weak<AtomicU64>)>>);

impl ActivityTable {
    /// The activity of a stream's connection.
    pub(crate) fn of(&self, session: &Http2Session) -> ConnectionActivity {
        // All streams of a connection hold its digest, so the address is unique while one of them
        // lives.
        let digest = std::ptr::from_ref(session.conn.digest()).addr();
        self.at(digest)
    }

    fn at(&self, connection: usize) -> ConnectionActivity {
        let mut known = self.0.lock();
        known.retain(|(_, received)| received.strong_count() > 0);
        let found = known.iter().find(|(at, _)| *at == connection);
        let received = found.and_then(|(_, received)| received.upgrade());
        let received = received.unwrap_or_else(|| {
            let received = Arc::default();
            known.push((connection, Arc::downgrade(&received)));
            received
        });
        let mut activity = ConnectionActivity {
            received,
            received_before: 0,
        };
        activity.begin_wait();
        activity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activity_is_shared_by_streams_of_one_connection_only() {
        let activities = ActivityTable::default();
        let (mut one, same, other) = (activities.at(1), activities.at(1), activities.at(2));
        other.record_data();
        assert!(one.is_still() && same.is_still());
        same.record_data();
        assert!(!one.is_still());
        one.begin_wait();
        assert!(one.is_still());
        drop((one, same, other));
        drop(activities.at(3));
        assert_eq!(
            activities.0.lock().len(),
            1,
            "those without streams are forgotten"
        );
    }
}
