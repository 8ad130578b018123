//! Parses manifests and classifies objects. Pure: no clock, no I/O, no async.

mod cmcd;
mod cmsd;
mod dash;
mod date_time;
mod directories;
mod fingerprint;
mod hls;
mod info;
mod kind;
pub mod low_latency;
mod typical_duration;

pub use cmcd::{Cmcd, NextRange, ObjectType, StreamFormat, strip_query};
pub use cmsd::cmsd_dynamic;
pub use dash::SegmentNaming;
pub use date_time::{calendar_date, date_time};
pub use directories::directory_examples;
pub use info::{
    EACH_MIN, KEYS_MAX, LISTED_MAX, ListedResource, Listing, Liveness, Manifest, ManifestError,
    ManifestInfo, MpdEdge, MpdInfo, NAMES_MAX, PlaylistEdge, PlaylistInfo, RENDITIONS_MAX,
    ServerControl, read_manifest,
};
pub use kind::{Kind, is_plain_text};
