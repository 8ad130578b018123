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
    ordered: AtomicBool,
    /// Number of versions, including this one, for which this coding is to be made.
    wanted: AtomicU8,
}

impl EncodedBodySet {
    /// The set of a new text, still without encoded bodies. Codings that were requested for recent
    /// versions are made for this one too; the second value lists those to encode at once.
    pub(super) fn after(before: Option<&EncodedBodySet>) -> (EncodedBodySet, Vec<ContentCoding>) {
        let bodies = EncodedBodySet::default();
        let mut ordered = Vec::new();
        for coding in ContentCoding::ALL {
            let wanted = before.map(|before| before.slot(coding).wanted.load(Ordering::Relaxed));
            if let Some(versions @ 1..) = wanted {
                let slot = bodies.slot(coding);
                slot.wanted.store(versions - 1, Ordering::Relaxed);
                slot.ordered.store(true, Ordering::Release);
                ordered.push(coding);
            }
        }
        (bodies, ordered)
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
    pub fn ask(&self, coding: ContentCoding) -> bool {
        let slot = self.slot(coding);
        // A load is cheaper than a store, which invalidates the cache line of other cores.
        if slot.wanted.load(Ordering::Relaxed) != VERSIONS_AHEAD {
            slot.wanted.store(VERSIONS_AHEAD, Ordering::Relaxed);
        }
        self.order(coding)
    }

    fn order(&self, coding: ContentCoding) -> bool {
        let ordered = &self.slot(coding).ordered;
        !ordered.load(Ordering::Relaxed) && !ordered.swap(true, Ordering::AcqRel)
    }

    /// Whether the encoding is in progress.
    pub fn is_coming(&self, coding: ContentCoding) -> bool {
        !self.is_made(coding) && self.slot(coding).ordered.load(Ordering::Acquire)
    }

    /// Stores the result of an encoding. `None`: it makes the text no smaller.
    pub fn deliver(&self, coding: ContentCoding, body: Option<Bytes>) {
        // Each encoding delivers once, so the slot is empty.
        let _ = self.slot(coding).body.set(body);
        self.made.notify_waiters();
    }

    /// The encoding failed. The next viewer may start it again.
    pub fn cancel(&self, coding: ContentCoding) {
        self.slot(coding).ordered.store(false, Ordering::Release);
        self.made.notify_waiters();
    }

    /// Resolves when the encoding has been delivered or cancelled.
    pub async fn delivered(&self, coding: ContentCoding) {
        loop {
            let made = self.made.notified();
            if !self.is_coming(coding) {
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
        let (mut version, _) = EncodedBodySet::after(None);
        version.ask(ContentCoding::Brotli);
        for _ in 0..VERSIONS_AHEAD {
            let (next, ordered) = EncodedBodySet::after(Some(&version));
            assert_eq!(ordered, [ContentCoding::Brotli]);
            assert!(!next.order(ContentCoding::Brotli), "ordered already");
            version = next;
        }
        let (_, ordered) = EncodedBodySet::after(Some(&version));
        assert_eq!(ordered, []);
    }

    #[tokio::test]
    async fn cancelled_encoding_wakes_waiters_and_can_be_requested_again() {
        let (bodies, _) = EncodedBodySet::after(None);
        assert!(bodies.ask(ContentCoding::Gzip));
        let waiting = bodies.delivered(ContentCoding::Gzip);
        bodies.cancel(ContentCoding::Gzip);
        waiting.await;
        assert!(bodies.ask(ContentCoding::Gzip));
    }
}
