//! An object that can be used again without a lookup, while it is still stored.

use std::sync::Arc;

use super::Object;
use super::variants::VariantIndex;

/// An object that a lookup found. It can be used again without a lookup while it is still stored.
pub struct FoundObject {
    object: Arc<Object>,
    removals: u32,
    /// For a variant: a lookup reaches it through this marker only.
    marker: Option<FoundMarker>,
}

/// The marker through which a lookup found a variant.
struct FoundMarker {
    variants: Arc<VariantIndex>,
    removals: u32,
}

impl FoundMarker {
    fn is_still_stored(&self) -> bool {
        self.variants.removals.read() == self.removals
    }
}

impl FoundObject {
    /// The object and, for a variant, its marker. `None` unless `is_stored`, which looks both up
    /// again.
    pub(super) fn new(
        object: &Arc<Object>,
        marker: Option<&Arc<VariantIndex>>,
        is_stored: impl FnOnce() -> bool,
    ) -> Option<FoundObject> {
        // Counted before the lookup: a removal after the lookup changes the count.
        let found = FoundObject {
            object: Arc::clone(object),
            removals: object.removals.read(),
            marker: marker.map(|variants| FoundMarker {
                variants: Arc::clone(variants),
                removals: variants.removals.read(),
            }),
        };
        is_stored().then_some(found)
    }

    /// Whether a lookup would still find it, as long as it may be served. Reads two cache lines,
    /// three for a variant, and writes none. `false` when it or its marker was purged, replaced or
    /// evicted, or when its epoch ended; then a new lookup decides.
    pub fn is_still_stored(&self) -> bool {
        self.object.removals.read() == self.removals
            && self.object.head.is_valid()
            && self
                .marker
                .as_ref()
                .is_none_or(FoundMarker::is_still_stored)
    }

    /// The object.
    pub fn object(&self) -> &Arc<Object> {
        &self.object
    }
}
