//! Reads the manifests of live and on-demand video: HLS playlists (RFC 8216 and rfc8216bis, with
//! Low-Latency HLS) and DASH MPDs (ISO/IEC 23009-1), and what players say about themselves (CMCD,
//! CTA-5004). It is made for programs between origins and players, which must understand any
//! manifest of any packager and must survive every input.
//!
//! | to | use |
//! |---|---|
//! | read a manifest | [`read_manifest`]: bytes → [`Manifest`] |
//! | know whether it is live, how often it changes and where it ends | [`ManifestInfo`] |
//! | know the objects that it lists | [`Listing`] |
//! | compute names and availability times of DASH segments that no list contains | [`SegmentNaming`] |
//! | find every directory that it names | [`directory_examples`] |
//! | name every object of a film | [`each_object`] |
//! | answer LL-HLS blocking reloads, and write delta updates | [`low_latency`] |
//! | read CMCD and remove it from a query; write CMSD | [`Cmcd`], [`strip_query`], [`cmsd_dynamic`] |
//! | classify an object by its path and content type | [`Kind`] |
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use seawall_manifest::{Kind, ManifestInfo, read_manifest};
//!
//! let text = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXT-X-MEDIA-SEQUENCE:100\n\
//!             #EXTINF:6,\nseg100.ts\n#EXTINF:6,\nseg101.ts\n";
//! let manifest = read_manifest(Kind::Hls, text.as_bytes())?;
//!
//! assert!(manifest.info.is_live());
//! assert_eq!(manifest.info.stated_reload_interval(), Some(Duration::from_secs(6)));
//! let ManifestInfo::Hls(playlist) = &manifest.info else {
//!     panic!("it was read as HLS");
//! };
//! assert_eq!(playlist.edge.as_ref().map(|edge| edge.last_sequence), Some(101));
//! assert_eq!(manifest.listing.segments[1].uri, "seg101.ts");
//! # Ok::<(), seawall_manifest::ManifestError>(())
//! ```
//!
//! # Guarantees
//!
//! - **No panics**, whatever the bytes. Property tests and fuzz targets check this.
//! - **Bounded memory**: each list has a maximum length that its documentation states, names longer
//!   than 4096 bytes are dropped, and only the last segments are kept.
//! - **Bounded time**: one pass over the text. The work does not depend on the numbers in it:
//!   `r="9000000000000000000"` costs as much as `r="1"`.
//! - **Pure**: no clock, no I/O, no async, no global state. The time is an argument.
//! - **Tolerant**: it reads what players would play. What it cannot understand counts as absent; a
//!   body that is visibly truncated, or something else, is a [`ManifestError`].
//!
//! Names are returned as written. The caller resolves them against the URL of the manifest.

#![deny(missing_docs)]

mod cmcd;
mod cmsd;
mod dash;
mod date_time;
mod directories;
mod directory_set;
mod hls;
mod info;
mod kind;
mod limits;
pub mod low_latency;
mod named_object;
mod objects;
mod read;
mod typical_duration;

pub use cmcd::{Cmcd, NextRange, ObjectType, StreamFormat, strip_query};
pub use cmsd::cmsd_dynamic;
pub use dash::SegmentNaming;
pub use date_time::{calendar_date, date_time};
pub use directories::directory_examples;
pub use info::{
    ListedResource, Listing, Liveness, Manifest, ManifestError, ManifestInfo, MpdEdge, MpdInfo,
    PlaylistEdge, PlaylistInfo, ServerControl,
};
pub use kind::{Kind, is_plain_text};
pub use limits::{EACH_MIN, KEYS_MAX, LISTED_MAX, NAMES_MAX, RENDITIONS_MAX};
pub use named_object::{NamedObject, ObjectRole};
pub use objects::each_object;
pub use read::read_manifest;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
