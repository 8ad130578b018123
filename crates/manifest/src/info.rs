//! What a manifest says: bytes in, a [`ParsedText`] out. Never panics.

use std::time::{Duration, SystemTime};

use super::dash::SegmentNaming;
use super::{Kind, dash, hls};

/// Whether the stream is still being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// New versions of this manifest are expected.
    Live,
    /// The manifest says that it will not change again.
    Ended,
}

/// A parsed manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedText {
    /// Kept as long as the manifest is stored.
    pub facts: ManifestInfo,
    /// What it lists: used once, when a version arrives.
    pub listing: Listing,
}

/// What a manifest's text says. What it does not say, or says in an unintelligible way, is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestInfo {
    /// Live or ended.
    pub liveness: Liveness,
    /// HLS target duration (absent when zero), or the DASH minimum update period (zero there means:
    /// request again at once).
    pub target_duration: Option<Duration>,
    /// HLS part target duration: present for low-latency playlists.
    pub part_target: Option<Duration>,
    /// Usual duration of the segments at the live edge: how often a new one is expected. A segment
    /// shortened by an advertisement does not change it.
    pub segment: Option<Duration>,
    /// A multivariant playlist: lists renditions and no segments. It cannot say whether the stream
    /// has ended, so it counts as live.
    pub multivariant: bool,
    /// The live edge, if it lists segments.
    pub edge: Option<LiveEdge>,
    /// DASH `publishTime`, and the start of the stream (`availabilityStartTime`).
    pub published: Option<SystemTime>,
    /// See `published`.
    pub began: Option<SystemTime>,
    /// DASH: a patch to another version of an MPD (ISO/IEC 23009-1 §5.15).
    pub is_patch: bool,
    /// The capabilities of a low-latency HLS server (`EXT-X-SERVER-CONTROL`).
    pub control: ServerControl,
}

impl ManifestInfo {
    /// The stated interval between versions: the part, segment or target duration, in this order.
    pub fn version_interval(&self) -> Option<Duration> {
        self.edge.as_ref()?;
        let parts = self.part_target;
        let every = parts.or(self.segment).or(self.target_duration);
        every.filter(|every| !every.is_zero())
    }

    /// The longest segment duration. HLS guarantees it; a DASH update period says nothing about it.
    pub fn segment_max(&self) -> Option<Duration> {
        match &self.edge {
            Some(edge) if edge.numbered => self.segment.max(self.target_duration),
            _ => self.segment.or(self.target_duration),
        }
    }
}

/// The extent of a manifest. Two versions of one manifest are compared by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveEdge {
    /// `first` and `last` are consecutive segment numbers (HLS), not times (DASH).
    pub numbered: bool,
    /// The start. HLS: the media sequence number of the first segment (also if a delta update skips
    /// it). DASH: the start of the first segment on the media timeline, in milliseconds.
    pub first: u64,
    /// The end. HLS: the number of the last complete segment (one less than `first` if only parts
    /// are listed). DASH: the end of the last segment on the media timeline, in milliseconds.
    pub last: u64,
    /// HLS: number of segments that a delta update skips; 0 in a whole playlist.
    pub skipped: u64,
    /// HLS: number of listed parts of the segment `last`: 0 if it has none or they have been
    /// removed.
    pub last_parts: u64,
    /// HLS: number of listed parts of the segment after `last`.
    pub parts: u64,
    /// HLS `EXT-X-DISCONTINUITY-SEQUENCE` plus the listed discontinuities (a delta update may skip
    /// some).
    pub discontinuity: u64,
    /// Fingerprints of the last segments' names, in order, at most [`NAMES_MAX`]. HLS: of the last
    /// part of their paths, or of whole paths if that part is the same for all; never of a query.
    /// They are the same in every process and version.
    pub names: Box<[u64]>,
    /// HLS: the number in the segments' names less the media sequence number (it wraps), if the
    /// names count. Re-signed names count too.
    pub numbering: Option<u64>,
    /// DASH: start of the last period that lists segments, in milliseconds.
    pub period: u64,
    /// DASH: number of representations that determine `last`.
    pub tracks: u64,
    /// DASH: end of the longest of these, in milliseconds.
    pub furthest: u64,
    /// Wall-clock end of the last listed media, if the manifest states it
    /// (`EXT-X-PROGRAM-DATE-TIME`; DASH: its timeline).
    pub ends: Option<SystemTime>,
}

/// Most segment names remembered per playlist.
pub const NAMES_MAX: usize = 16;

/// `EXT-X-SERVER-CONTROL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerControl {
    /// `CAN-BLOCK-RELOAD`.
    pub can_block: bool,
    /// `CAN-SKIP-UNTIL`.
    pub can_skip_until: Option<Duration>,
}

/// The objects that a manifest lists, by name as written, not resolved. Omitted: gaps
/// (`EXT-X-GAP`), and names with a variable (`EXT-X-DEFINE`) whose value the playlist does not
/// state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Rendition playlists (HLS multivariant), each once, at most [`RENDITIONS_MAX`].
    pub renditions: Vec<String>,
    /// Initialization segments, each once, oldest first, the last [`LISTED_MAX`]. Their numbers are
    /// those of the first segments that use them.
    pub inits: Vec<ListedResource>,
    /// The segments nearest the live edge, oldest first, at most [`LISTED_MAX`]; in DASH of at most
    /// that many representations, at least [`EACH_MIN`] of each where it has them.
    pub segments: Vec<ListedResource>,
    /// The parts of the segment that is being written, oldest first, the last [`LISTED_MAX`].
    pub parts: Vec<ListedResource>,
    /// Objects that may be requested before they exist (`EXT-X-PRELOAD-HINT`), at most
    /// [`LISTED_MAX`].
    pub coming: Vec<ListedResource>,
    /// DASH: files of which a `SegmentList` lists ranges, each with one range from its start to the
    /// end of the last listed range; at most 128.
    pub files: Vec<ListedResource>,
    /// DASH: names of segments that no list contains (`SegmentTemplate`), by representation.
    pub templates: Vec<SegmentNaming>,
    /// DASH: how long segments stay available (`timeShiftBufferDepth`); forever if absent.
    pub shift_depth: Option<Duration>,
    /// DASH: clock URLs (`UTCTiming`), as written. Never storable.
    pub clocks: Vec<String>,
    /// HLS: key URLs (`EXT-X-KEY`, `EXT-X-SESSION-KEY`), each once, the last [`KEYS_MAX`]. Never
    /// storable.
    pub keys: Vec<String>,
}

/// Longer names are not listed: no client requests one.
pub(super) const NAME_BYTES_MAX: usize = 4096;

/// Most segments listed.
pub const LISTED_MAX: usize = 64;

/// Segments listed per representation: players stay a few segments behind the newest, so these show
/// what they watch.
pub const EACH_MIN: usize = 7;

/// Most renditions listed.
pub const RENDITIONS_MAX: usize = 256;

/// Most keys listed.
pub const KEYS_MAX: usize = 32;

/// One listed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedResource {
    /// As in [`LiveEdge::last`].
    pub sequence: u64,
    /// DASH: index of its representation; HLS has only one.
    pub lane: usize,
    /// As written.
    pub uri: String,
    /// Byte range: offset and length; a hint may leave the length open.
    pub range: Option<(u64, Option<u64>)>,
}

/// Why a body is not accepted as a manifest; the fetch counts as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The body is empty.
    #[error("manifest is empty")]
    Empty,
    /// The body is not text.
    #[error("manifest is not UTF-8")]
    NotText,
    /// Its first or last marker is missing (`#EXTM3U`, `</MPD>`), or it ends inside a line.
    #[error("manifest is cut off or is something else: {0}")]
    Broken(&'static str),
}

/// Parses a whole, uncompressed manifest. Every kind but [`Kind::Dash`] is parsed as HLS.
pub fn read_manifest(kind: Kind, body: &[u8]) -> Result<ParsedText, ManifestError> {
    // A file that is allocated and not yet written contains zero bytes, which UTF-8 permits.
    if body.contains(&0) {
        return Err(ManifestError::NotText);
    }
    let text = std::str::from_utf8(body).map_err(|_| ManifestError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(ManifestError::Empty);
    }
    match kind {
        Kind::Dash => dash::read(text),
        _ => hls::read(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_text_is_refused() {
        for kind in [Kind::Hls, Kind::Dash] {
            for nothing in ["", " \r\n\t", "\u{feff}", "\u{feff}\n"] {
                let read = read_manifest(kind, nothing.as_bytes());
                assert_eq!(read, Err(ManifestError::Empty));
            }
            for bytes in [
                &b"#EXTM3U\n\xff"[..],
                b"#EXTM3U\na.ts\n\0\0",
                b"\x1f\x8b\x08",
            ] {
                assert_eq!(read_manifest(kind, bytes), Err(ManifestError::NotText));
            }
            let page = b"<!DOCTYPE html><html><body>Not now</body></html>";
            let read = read_manifest(kind, page);
            assert!(matches!(read, Err(ManifestError::Broken(_))));
        }
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let playlist = "\u{feff}#EXTM3U\n#EXT-X-TARGETDURATION:6\n";
        assert!(read_manifest(Kind::Hls, playlist.as_bytes()).is_ok());
        assert!(read_manifest(Kind::Dash, "\u{feff}<MPD></MPD>".as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            for kind in Kind::ALL {
                let _ = read_manifest(kind, &body);
            }
        }
    }
}
