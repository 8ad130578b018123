//! What is this object, and what does its own text say? Pure: no clock, no I/O, no async.

mod calendar;
mod cmcd;
mod cmsd;
mod dash;
mod directories;
mod facts;
mod fingerprint;
mod hls;
mod kind;
pub mod low_latency;
mod usual;

pub use cmcd::{Cmcd, NextRange, ObjectType, StreamFormat, strip_query};
pub use cmsd::cmsd_dynamic;
pub use dash::Template;
pub use directories::directory_examples;
pub use facts::{
    Control, EACH_MIN, Edge, Facts, KEYS_MAX, LISTED_MAX, Listed, Listing, Liveness, Manifest,
    ManifestError, NAMES_MAX, RENDITIONS_MAX, read_manifest,
};
pub use kind::{Kind, is_plain_text};
