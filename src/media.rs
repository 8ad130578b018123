//! What is this object, and what does its own text say? Pure: no clock, no I/O, no async.

mod dash;
mod facts;
mod hls;
mod kind;

pub use facts::{Facts, Liveness, ManifestError, read_manifest};
pub use kind::Kind;
