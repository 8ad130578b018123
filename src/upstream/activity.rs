//! Whose trouble is it where requests share a connection? One stream's, unless the connection is
//! lost.
//!
//! A stream that is reset, or late, says nothing of the streams beside it. A connection takes no
//! more of them when it says so or breaks, or when one stream waits in vain and in all that time no
//! other is brought anything: then it may be dead, and a new one is cheap. One that is dead and
//! waited on by nobody is found out by pings.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use h2::Reason;
use parking_lot::Mutex;
use pingora_core::protocols::http::v2::client::Http2Session;

/// Whether an HTTP/2 error is the connection's: it is gone, is going, or takes no more. A request
/// that had no answer then was not processed, as far as HTTP/2 can tell, or is in doubt like one on
/// a connection of its own.
pub(super) fn is_of_connection(error: &pingora_error::Error) -> bool {
    error
        .root_cause()
        .downcast_ref::<h2::Error>()
        .is_some_and(|error| {
            let refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
            error.is_go_away() || error.is_io() || refused
        })
}

/// What the streams of one connection have been brought, as one of them sees it.
pub(super) struct ConnectionActivity {
    beats: Arc<AtomicU64>,
    /// So many when the wait began.
    heard: u64,
}

impl ConnectionActivity {
    /// A wait begins.
    pub(super) fn listen(&mut self) {
        self.heard = self.beats.load(Ordering::Relaxed);
    }

    /// Something came.
    pub(super) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing came to any stream since the wait began.
    pub(super) fn is_still(&self) -> bool {
        self.heard == self.beats.load(Ordering::Relaxed)
    }
}

/// The connections that have streams.
#[derive(Default)]
pub(super) struct ActivityTable(Mutex<Vec<(usize, Weak<AtomicU64>)>>);

impl ActivityTable {
    /// The pulse of a stream's connection.
    pub(super) fn of(&self, session: &Http2Session) -> ConnectionActivity {
        // All streams of a connection hold its digest, so nobody else's is there while one of them
        // lives.
        let digest = std::ptr::from_ref(session.conn.digest()).addr();
        self.at(digest)
    }

    fn at(&self, connection: usize) -> ConnectionActivity {
        let mut known = self.0.lock();
        known.retain(|(_, beats)| beats.strong_count() > 0);
        let found = known.iter().find(|(at, _)| *at == connection);
        let beats = found.and_then(|(_, beats)| beats.upgrade());
        let beats = beats.unwrap_or_else(|| {
            let beats = Arc::default();
            known.push((connection, Arc::downgrade(&beats)));
            beats
        });
        let mut pulse = ConnectionActivity { beats, heard: 0 };
        pulse.listen();
        pulse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_connection_hear_each_other_and_nobody_else() {
        let pulses = ActivityTable::default();
        let (mut one, same, other) = (pulses.at(1), pulses.at(1), pulses.at(2));
        other.beat();
        assert!(one.is_still() && same.is_still());
        same.beat();
        assert!(!one.is_still());
        one.listen();
        assert!(one.is_still());
        drop((one, same, other));
        drop(pulses.at(3));
        assert_eq!(
            pulses.0.lock().len(),
            1,
            "those without streams are forgotten"
        );
    }
}
