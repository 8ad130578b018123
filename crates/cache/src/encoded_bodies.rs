//! Bodies of the same text in other content codings. Nothing is compressed here. The first viewer
//! that accepts a missing coding causes one encoding job per version and coding, and gets another
//! coding meanwhile.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use seawall_policy::encoding::ContentCoding;

/// After a viewer requests a coding, this many further versions are encoded before anyone requests
/// them.
const VERSIONS_AHEAD: u8 = 8;

/// The encoded bodies, shared by all objects with this text.
#[derive(Debug, Default)]
pub struct EncodedBodySet {
    slots: [EncodedBodySlot; ContentCoding::ALL.len()],
    made: Notify,
}

#[derive(Debug, Default)]
struct EncodedBodySlot {
    /// `None`: encoding does not make the text smaller.
    body: OnceLock<Option<Bytes>>,
    started: AtomicBool,
    /// Number of versions, including this one, for which this coding is to be made.
    versions_wanted: AtomicU8,
}

impl EncodedBodySet {
    /// The set of a new text, still without encoded bodies. Codings that were requested for recent
    /// versions are made for this one too; the second value lists those to encode at once.
    pub(super) fn of_next_version(
        before: Option<&EncodedBodySet>,
    ) -> (EncodedBodySet, Vec<ContentCoding>) {
        let bodies = EncodedBodySet::default();
        let mut to_encode = Vec::new();
        for coding in ContentCoding::ALL {
            let versions_wanted =
                before.map(|before| before.slot(coding).versions_wanted.load(Ordering::Relaxed));
            if let Some(versions @ 1..) = versions_wanted {
                let slot = bodies.slot(coding);
                slot.versions_wanted.store(versions - 1, Ordering::Relaxed);
                slot.started.store(true, Ordering::Release);
                to_encode.push(coding);
            }
        }
        (bodies, to_encode)
    }

    /// The encoded body, if it exists and is smaller than the text.
    pub(super) fn body(&self, coding: ContentCoding) -> Option<&Bytes> {
        self.slot(coding).body.get()?.as_ref()
    }

    fn slot(&self, coding: ContentCoding) -> &EncodedBodySlot {
        &self.slots[coding as usize]
    }

    /// Whether the encoded body exists, or encoding is known to make the text no smaller.
    pub fn is_made(&self, coding: ContentCoding) -> bool {
        self.slot(coding).body.get().is_some()
    }

    /// Records a request for this coding. True for the one caller that must start the encoding.
    pub fn request(&self, coding: ContentCoding) -> bool {
        let slot = self.slot(coding);
        // A load is cheaper than a store, which invalidates the cache line of other cores.
        if slot.versions_wanted.load(Ordering::Relaxed) != VERSIONS_AHEAD {
            slot.versions_wanted
                .store(VERSIONS_AHEAD, Ordering::Relaxed);
        }
        self.start_once(coding)
    }

    fn start_once(&self, coding: ContentCoding) -> bool {
        let started = &self.slot(coding).started;
        !started.load(Ordering::Relaxed) && !started.swap(true, Ordering::AcqRel)
    }

    /// Whether the encoding is in progress.
    pub fn is_being_made(&self, coding: ContentCoding) -> bool {
        !self.is_made(coding) && self.slot(coding).started.load(Ordering::Acquire)
    }

    /// Stores the result of an encoding. `None`: it makes the text no smaller.
    pub fn set_made(&self, coding: ContentCoding, body: Option<Bytes>) {
        // Each encoding delivers once, so the slot is empty.
        let _ = self.slot(coding).body.set(body);
        self.made.notify_waiters();
    }

    /// The encoding failed. The next viewer may start it again.
    pub fn cancel(&self, coding: ContentCoding) {
        self.slot(coding).started.store(false, Ordering::Release);
        self.made.notify_waiters();
    }

    /// Resolves when the encoding has been made or cancelled.
    pub async fn wait_until_made(&self, coding: ContentCoding) {
        loop {
            let made = self.made.notified();
            if !self.is_being_made(coding) {
                return;
            }
            made.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_following_versions_until_requests_stop() {
        let (mut version, _) = EncodedBodySet::of_next_version(None);
        version.request(ContentCoding::Brotli);
        for _ in 0..VERSIONS_AHEAD {
            let (next, to_encode) = EncodedBodySet::of_next_version(Some(&version));
            assert_eq!(to_encode, [ContentCoding::Brotli]);
            assert!(!next.start_once(ContentCoding::Brotli), "started already");
            version = next;
        }
        let (_, to_encode) = EncodedBodySet::of_next_version(Some(&version));
        assert_eq!(to_encode, []);
    }

    #[tokio::test]
    async fn cancelled_encoding_wakes_waiters_and_can_be_requested_again() {
        let (bodies, _) = EncodedBodySet::of_next_version(None);
        assert!(bodies.request(ContentCoding::Gzip));
        let waiting = bodies.wait_until_made(ContentCoding::Gzip);
        bodies.cancel(ContentCoding::Gzip);
        waiting.await;
        assert!(bodies.request(ContentCoding::Gzip));
    }
}
