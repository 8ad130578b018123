//! Limits of what is kept of a manifest.

/// Maximum number of segment names remembered per playlist.
pub const NAMES_MAX: usize = 16;

/// Longer names are not listed: no client requests one.
pub(crate) const NAME_BYTES_MAX: usize = 4096;

/// Maximum number of listed segments.
pub const LISTED_MAX: usize = 64;

/// Minimum number of segments listed per representation, where it has them: players stay a few
/// segments behind the newest, so these show what they watch.
pub const EACH_MIN: usize = 7;

/// Maximum number of listed renditions.
pub const RENDITIONS_MAX: usize = 256;

/// Maximum number of listed keys.
pub const KEYS_MAX: usize = 32;
