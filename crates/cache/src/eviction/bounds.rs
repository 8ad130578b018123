//! Divides a partition among the classes of objects.

use super::ObjectClass;

/// Errors and redirects may take 1/32 of memory, and no more than [`ERRORS_BYTES_MAX`].
const ERRORS_PART: u64 = 32;
const ERRORS_BYTES_MAX: u64 = 8 << 20;
/// Manifests may take 1/4 of memory when media take the rest.
const MANIFESTS_PART: u64 = 4;
/// In a partition for manifests only, 1/16 is left for the markers of their variants.
const MARKERS_PART: u64 = 16;

/// The limits of one partition.
#[derive(Clone, Debug)]
pub struct MemoryBounds {
    pub(super) errors: u64,
    pub(super) manifests: u64,
    /// Limit of media and manifests together.
    pub(super) others: u64,
}

impl MemoryBounds {
    /// Limits for a partition of `bytes`. `manifests_only`: it holds no media.
    pub fn of(bytes: u64, manifests_only: bool) -> MemoryBounds {
        let errors = (bytes / ERRORS_PART).min(ERRORS_BYTES_MAX);
        let others = bytes - errors;
        MemoryBounds {
            errors,
            manifests: if manifests_only {
                others - others / MARKERS_PART
            } else {
                others / MANIFESTS_PART
            },
            others,
        }
    }

    /// The whole partition.
    pub fn bytes(&self) -> u64 {
        self.errors + self.others
    }

    /// Maximum size of an object of a class that fits, whatever else is held.
    pub fn bytes_max(&self, class: ObjectClass) -> u64 {
        match class {
            ObjectClass::Error => self.errors,
            ObjectClass::Manifest => self.manifests,
            ObjectClass::Marker | ObjectClass::Live(_) | ObjectClass::OnDemand => {
                self.others - self.manifests
            }
        }
    }
}
