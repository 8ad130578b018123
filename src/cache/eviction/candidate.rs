//! What does the policy know of an object, and which words does it have for what it did?

use super::{LivePosition, NodeId};

/// What an object is, as far as keeping it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectClass {
    /// An error or a redirect.
    Error,
    /// A playlist or an MPD.
    Manifest,
    /// Says which request headers tell the variants of a key apart.
    Marker,
    /// Media that a live manifest lists.
    Live(LivePosition),
    /// Any other media.
    OnDemand,
}

/// An object that is to be stored.
#[derive(Debug)]
pub struct Candidate<K, H> {
    /// What the store evicts it by.
    pub key: K,
    /// A fingerprint of what viewers ask for: all variants of a key have the same.
    pub name: u64,
    /// What it weighs.
    pub bytes: u64,
    /// What it is.
    pub class: ObjectClass,
    /// Counts its hits from now on, unless it is a marker.
    pub hits: Option<H>,
    /// Requests that were answered with it before it was stored.
    pub requests: u32,
    /// The marker that leads to it, where it is a variant.
    pub marker: Option<NodeId>,
    /// When its time is over, in milliseconds.
    pub kept_until_ms: u64,
}

/// Where an object was when it was evicted, which says why. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionReason {
    /// A live segment that had left its playlists.
    Departed,
    /// Nobody had asked for it a second time.
    OneOff,
    /// The least wanted of the live segments.
    Live,
    /// The least wanted of what is on demand.
    OnDemand,
    /// Manifests had taken their part.
    Manifest,
    /// Errors had taken theirs.
    Error,
    /// A variant marker without variants.
    Marker,
}

impl EvictionReason {
    /// Every reason.
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
