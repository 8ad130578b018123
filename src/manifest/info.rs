//! What does a manifest say about itself? Bytes in, a [`Manifest`] out; never panics.

use std::time::{Duration, SystemTime};

use super::dash::SegmentNaming;
use super::{Kind, dash, hls};

/// Is the stream still being written?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// New versions of this manifest are expected.
    Live,
    /// The manifest says that it will not change any more.
    Ended,
}

/// A manifest, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedText {
    /// What stays known of it as long as it is held.
    pub facts: ManifestInfo,
    /// What it lists: looked at once, when a version arrives.
    pub listing: Listing,
}

/// What a manifest's own text says. Partial: what it does not say, or says in a way that cannot be
/// understood, is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestInfo {
    /// Live or ended.
    pub liveness: Liveness,
    /// HLS target duration (absent when zero), or the DASH minimum update period (zero is a
    /// statement there: look again at once).
    pub target_duration: Option<Duration>,
    /// HLS part target duration: present for low-latency playlists.
    pub part_target: Option<Duration>,
    /// How long the segments at the live edge are: how often a new one is to be expected. One that
    /// an advertisement cut short does not change it.
    pub segment: Option<Duration>,
    /// A multivariant playlist: lists renditions and no segments. Its text cannot say whether the
    /// stream has ended, so it counts as live.
    pub multivariant: bool,
    /// How far it reaches, where it lists segments.
    pub edge: Option<LiveEdge>,
    /// DASH `publishTime`, and when it says that the stream began (`availabilityStartTime`).
    pub published: Option<SystemTime>,
    /// See `published`.
    pub began: Option<SystemTime>,
    /// DASH: it is a patch to another version of an MPD (ISO/IEC 23009-1 §5.15).
    pub is_patch: bool,
    /// What a low-latency HLS server says it can do (`EXT-X-SERVER-CONTROL`).
    pub control: ServerControl,
}

impl ManifestInfo {
    /// How often it changes, as far as it says so: with each part, or else with each segment.
    pub fn changes_every(&self) -> Option<Duration> {
        self.edge.as_ref()?;
        let parts = self.part_target;
        let every = parts.or(self.segment).or(self.target_duration);
        every.filter(|every| !every.is_zero())
    }

    /// How long its segments are, at most. HLS promises that; a DASH update period may be anything.
    pub fn segment_max(&self) -> Option<Duration> {
        match &self.edge {
            Some(edge) if edge.numbered => self.segment.max(self.target_duration),
            _ => self.segment.or(self.target_duration),
        }
    }
}

/// How far a manifest reaches. Two versions of one manifest are compared by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveEdge {
    /// Places are numbers of segments, which follow one another (HLS), and not times (DASH).
    pub numbered: bool,
    /// Where it begins. HLS: the media sequence number of the first segment (also of one that a
    /// delta update leaves out). DASH: the first segment's start on the media timeline, in
    /// milliseconds.
    pub first: u64,
    /// Where it ends. HLS: the number of the last whole segment (one less than `first` where only
    /// parts are listed). DASH: the end of the last segment on the media timeline, in milliseconds.
    pub last: u64,
    /// HLS: how many of the first segments a delta update leaves out; none in a whole playlist.
    pub skipped: u64,
    /// HLS: how many parts of the segment `last` are listed: none, where it has none or they were
    /// taken out already.
    pub last_parts: u64,
    /// HLS: how many parts of the segment after `last` are there already.
    pub parts: u64,
    /// HLS `EXT-X-DISCONTINUITY-SEQUENCE`, and the discontinuities listed since (a delta update
    /// may have left some out).
    pub discontinuity: u64,
    /// Fingerprints of the last segments' names, the last one at the end, at most [`NAMES_MAX`].
    /// HLS: of the last part of their paths, or of whole paths where that part is the same for
    /// all; never of a query. They are the same in every process and version.
    pub names: Box<[u64]>,
    /// HLS: the number that segments' names count, less the media sequence number (it wraps),
    /// where names count. A name that is signed anew with each version counts all the same.
    pub numbering: Option<u64>,
    /// DASH: where the last period begins that lists segments, in milliseconds.
    pub period: u64,
    /// DASH: the representations that decide how far it reaches.
    pub tracks: u64,
    /// DASH: where the one of these ends that reaches furthest, in milliseconds.
    pub furthest: u64,
    /// When the media listed last ends, by the wall clock, where the manifest says so
    /// (`EXT-X-PROGRAM-DATE-TIME`; DASH: its timeline).
    pub ends: Option<SystemTime>,
}

/// As many segments' names are remembered with a playlist.
pub const NAMES_MAX: usize = 16;

/// `EXT-X-SERVER-CONTROL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerControl {
    /// `CAN-BLOCK-RELOAD`.
    pub can_block: bool,
    /// `CAN-SKIP-UNTIL`.
    pub can_skip_until: Option<Duration>,
}

/// What a manifest lists, as far as anyone wants to fetch it: names as written, not yet resolved.
/// What says itself that it is not there (`EXT-X-GAP`) is left out, and what is named by a variable
/// (`EXT-X-DEFINE`) whose value is not stated beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Playlists of renditions (HLS multivariant), each once, at most [`RENDITIONS_MAX`].
    pub renditions: Vec<String>,
    /// Initialisation segments, each once, oldest first, the last [`LISTED_MAX`]. Their numbers are
    /// those of the first segments they are for.
    pub inits: Vec<ListedResource>,
    /// The segments nearest the live edge, oldest first, at most [`LISTED_MAX`]; in DASH those of at most so many
    /// representations, of each at least [`EACH_MIN`] where there are as many.
    pub segments: Vec<ListedResource>,
    /// The parts of the segment that is being written, oldest first, the last [`LISTED_MAX`].
    pub parts: Vec<ListedResource>,
    /// What is not there yet and may be asked for already (`EXT-X-PRELOAD-HINT`), at most
    /// [`LISTED_MAX`].
    pub coming: Vec<ListedResource>,
    /// DASH: files of which a `SegmentList` lists ranges, each with one range that reaches from its start to the
    /// end of the last one; at most 128.
    pub files: Vec<ListedResource>,
    /// DASH: how segments are named that no list names (`SegmentTemplate`), by representation.
    pub templates: Vec<SegmentNaming>,
    /// DASH: for how long segments stay there (`timeShiftBufferDepth`); for ever where nothing says so.
    pub shift_depth: Option<Duration>,
    /// DASH: where the time is told (`UTCTiming`), as written. Nobody may store that.
    pub clocks: Vec<String>,
    /// HLS: where keys are had (`EXT-X-KEY`, `EXT-X-SESSION-KEY`), each once, the last
    /// [`KEYS_MAX`]. Nobody may store those either.
    pub keys: Vec<String>,
}

/// No longer name is listed: nobody asks for one.
pub(super) const NAME_BYTES_MAX: usize = 4096;

/// So many segments are listed at most.
pub const LISTED_MAX: usize = 64;

/// Players stay a few segments behind the newest: of so many it can be told what they watch.
pub const EACH_MIN: usize = 7;

/// So many renditions are listed at most.
pub const RENDITIONS_MAX: usize = 256;

/// So many keys are listed at most.
pub const KEYS_MAX: usize = 32;

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedResource {
    /// As in [`Edge::last`].
    pub sequence: u64,
    /// DASH: which representation it is of, so that those of one can be told; in HLS there is only one.
    pub lane: usize,
    /// As written.
    pub uri: String,
    /// Only these bytes of it: offset and length; a hint may leave the length open.
    pub range: Option<(u64, Option<u64>)>,
}

/// Why a body that claimed to be a manifest is a failed fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Nothing there.
    #[error("manifest is empty")]
    Empty,
    /// Not text.
    #[error("manifest is not UTF-8")]
    NotText,
    /// It lacks its first or last marker (`#EXTM3U`, `</MPD>`), or ends inside a line.
    #[error("manifest is cut off or is something else: {0}")]
    Broken(&'static str),
}

/// Reads a whole, uncompressed manifest. Every kind but [`Kind::Dash`] is read as HLS.
pub fn read_manifest(kind: Kind, body: &[u8]) -> Result<ParsedText, ManifestError> {
    // A file that was allotted and not yet written is full of zeros, which UTF-8 permits.
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
