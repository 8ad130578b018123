//! Limits of what is kept of a manifest.

/// Most segment names remembered per playlist.
pub const NAMES_MAX: usize = 16;

/// Longer names are not listed: no client requests one.
pub(crate) const NAME_BYTES_MAX: usize = 4096;

/// Most segments listed.
pub const LISTED_MAX: usize = 64;

/// Segments listed per representation: players stay a few segments behind the newest, so these show
/// what they watch.
pub const EACH_MIN: usize = 7;

/// Most renditions listed.
pub const RENDITIONS_MAX: usize = 256;

/// Most keys listed.
pub const KEYS_MAX: usize = 32;
