//! The variants of a key (`Vary`): which request headers select one, and the slot of each.

use std::collections::HashSet;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;

use super::removals::RemovalCount;
use seawall_policy::Key;
use seawall_policy::vary::Vary;

/// The marker that a key with variants holds.
pub(crate) struct VariantIndex {
    names: Vec<HeaderName>,
    generation: u64,
    known: Mutex<HashSet<Key, ahash::RandomState>>,
    pub(super) removals: RemovalCount,
}

/// The marker and the key of a variant.
#[derive(Clone)]
pub(crate) struct VariantSlot {
    pub(super) variants: Arc<VariantIndex>,
    pub(crate) slot: Key,
}

impl VariantIndex {
    /// A new generation of variants that these request headers select.
    pub(super) fn new(names: &[HeaderName], generation: u64) -> VariantIndex {
        VariantIndex {
            names: names.to_vec(),
            generation,
            known: Mutex::default(),
            removals: RemovalCount::default(),
        }
    }

    /// The request headers that select a variant.
    pub(super) fn names(&self) -> &[HeaderName] {
        &self.names
    }

    /// The slots of all variants, some of which may have been evicted.
    pub(super) fn slots(&self) -> Vec<Key> {
        self.known.lock().iter().cloned().collect()
    }

    /// The slot of the variant that these request headers select.
    pub(super) fn slot(&self, key: &Key, upstream_headers: &HeaderMap) -> Key {
        let values = Vary::values(&self.names, upstream_headers);
        Key::of(&[
            b"variant",
            key.bytes(),
            &self.generation.to_be_bytes(),
            &values,
        ])
    }

    /// Adds a variant, unless the key already has the maximum number.
    pub(super) fn admit(
        &self,
        slot: &Key,
        variants_max: usize,
        is_stored: impl Fn(&Key) -> bool,
    ) -> bool {
        let mut known = self.known.lock();
        if known.contains(slot) {
            return true;
        }
        if known.len() >= variants_max {
            known.retain(is_stored);
        }
        known.len() < variants_max && known.insert(slot.clone())
    }
}
