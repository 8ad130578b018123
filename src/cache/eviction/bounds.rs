//! How much of a partition may which objects take?

use super::ObjectClass;

/// Errors and redirects may take this part of memory, and no more than [`ERRORS_BYTES_MAX`].
const ERRORS_PART: u64 = 32;
const ERRORS_BYTES_MAX: u64 = 8 << 20;
/// Manifests may take this part of memory where media take the rest.
const MANIFESTS_PART: u64 = 4;
/// Where there are only manifests, this part is left for the markers of their variants.
const MARKERS_PART: u64 = 16;

/// The parts of one partition.
#[derive(Clone, Debug)]
pub struct MemoryBounds {
    pub(super) errors: u64,
    pub(super) manifests: u64,
    /// What media and manifests may take together.
    pub(super) others: u64,
}

impl MemoryBounds {
    /// Of so many bytes. `manifests_only`: no media come there.
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

    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.errors + self.others
    }

    /// The largest object of a class that has a place, whatever else is held.
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
