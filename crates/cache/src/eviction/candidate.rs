//! What the policy knows about an object, and its reasons for an eviction.

use std::ops::Deref;

use super::{HitCounter, LivePosition, NodeId};

/// The class of an object, for eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectClass {
    /// An error or a redirect.
    Error,
    /// A playlist or an MPD.
    Manifest,
    /// Names the request headers that select a variant of a key.
    Marker,
    /// Media that a live manifest lists.
    Live(LivePosition),
    /// Any other media.
    OnDemand,
}

/// An object to be stored.
#[derive(Debug)]
pub struct Candidate<K, H> {
    /// The key under which the store evicts it.
    pub key: K,
    /// A fingerprint of the requested key: all variants of a key have the same.
    pub fingerprint: u64,
    /// Its weight in bytes.
    pub bytes: u64,
    /// Its class.
    pub class: ObjectClass,
    /// Its hit counter. A marker has none.
    pub hits: Option<H>,
    /// Requests answered with it before it was stored.
    pub requests: u32,
    /// For a variant: the marker of its key.
    pub marker: Option<NodeId>,
    /// When it expires, in milliseconds.
    pub kept_until_ms: u64,
}

impl<K, H: Deref<Target: AsRef<HitCounter>>> Candidate<K, H> {
    /// Counts requests that joined its fetch as one hit. Of viewers that request an object at once,
    /// some come after its fetch has ended: they must find it, even if all other objects had hits
    /// since then. Requests for live segments are counted for their rendition.
    pub(super) fn credit_joined_requests(&self) {
        let is_live = matches!(self.class, ObjectClass::Live(_));
        if let Some(hits) = self.hits.as_ref().filter(|_| self.requests > 1 && !is_live) {
            (**hits).as_ref().add();
        }
    }
}

/// Why an object was evicted, given by the queue it was in. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionReason {
    /// A live segment that no playlist listed any more.
    Departed,
    /// It was not requested a second time.
    OneOff,
    /// The live segment with the lowest expected request rate.
    Live,
    /// The on-demand object with the lowest expected request rate.
    OnDemand,
    /// Manifests exceeded their part.
    Manifest,
    /// Errors exceeded their part.
    Error,
    /// A variant marker without variants.
    Marker,
}

impl EvictionReason {
    /// All reasons.
    pub const ALL: [EvictionReason; 7] = [
        EvictionReason::Departed,
        EvictionReason::OneOff,
        EvictionReason::Live,
        EvictionReason::OnDemand,
        EvictionReason::Manifest,
        EvictionReason::Error,
        EvictionReason::Marker,
    ];

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            EvictionReason::Departed => "departed",
            EvictionReason::OneOff => "one_off",
            EvictionReason::Live => "live",
            EvictionReason::OnDemand => "on_demand",
            EvictionReason::Manifest => "manifest",
            EvictionReason::Error => "error",
            EvictionReason::Marker => "marker",
        }
    }
}
