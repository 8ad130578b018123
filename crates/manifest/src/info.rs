//! What a manifest says.

use std::time::{Duration, SystemTime};

use super::dash::SegmentNaming;

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
pub struct Manifest {
    /// Kept as long as the manifest is stored.
    pub info: ManifestInfo,
    /// What it lists: used once, when a version arrives.
    pub listing: Listing,
}

/// What a manifest's text says. What it does not say, or says in an unintelligible way, is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestInfo {
    /// An HLS playlist.
    Hls(PlaylistInfo),
    /// A DASH MPD, or a patch to one.
    Dash(MpdInfo),
}

/// What an HLS playlist says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaylistInfo {
    /// Live or ended.
    pub liveness: Liveness,
    /// A multivariant playlist: lists renditions and no segments. It cannot say whether the stream
    /// has ended, so it counts as live.
    pub is_multivariant: bool,
    /// `EXT-X-TARGETDURATION`; absent when zero.
    pub target_duration: Option<Duration>,
    /// `PART-TARGET` of `EXT-X-PART-INF`: present in low-latency playlists.
    pub part_target: Option<Duration>,
    /// Typical duration of the last segments: how often a new one is expected. A segment shortened
    /// by an advertisement does not change it.
    pub segment_duration: Option<Duration>,
    /// The capabilities of a low-latency server (`EXT-X-SERVER-CONTROL`).
    pub server_control: ServerControl,
    /// The live edge, if it lists segments or parts.
    pub edge: Option<PlaylistEdge>,
}

/// The extent of a media playlist. Two versions of one playlist are compared by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaylistEdge {
    /// The media sequence number of the first segment, also if a delta update skips it.
    pub media_sequence: u64,
    /// The media sequence number of the last complete segment: one less than `media_sequence` if
    /// only parts are listed.
    pub last_sequence: u64,
    /// Number of segments that a delta update skips; 0 in a whole playlist.
    pub skipped_segments: u64,
    /// Number of listed parts of the segment `last_sequence`: 0 if it has none or they have been
    /// removed.
    pub last_segment_parts: u64,
    /// Number of listed parts of the segment after `last_sequence`.
    pub next_segment_parts: u64,
    /// `EXT-X-DISCONTINUITY-SEQUENCE` plus the listed discontinuities; a delta update may skip
    /// some.
    pub discontinuity_sequence: u64,
    /// Fingerprints of the last segments' names, in order, at most `NAMES_MAX`: of the last part
    /// of their paths, or of whole paths if that part is the same for all; never of a query. They
    /// are the same in every process and version.
    pub name_fingerprints: Box<[u64]>,
    /// The number in the segments' names less the media sequence number (it wraps), if the names
    /// count. Re-signed names count too.
    pub name_number_offset: Option<u64>,
    /// Wall-clock end of the last listed segment or part (`EXT-X-PROGRAM-DATE-TIME`).
    pub end_time: Option<SystemTime>,
}

/// What an MPD says, or a patch to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MpdInfo {
    /// Live or ended.
    pub liveness: Liveness,
    /// A patch to another version of an MPD (ISO/IEC 23009-1 §5.15).
    pub is_patch: bool,
    /// `minimumUpdatePeriod`; zero means: request again at once.
    pub update_period: Option<Duration>,
    /// Typical duration of the last segments.
    pub segment_duration: Option<Duration>,
    /// `publishTime`.
    pub publish_time: Option<SystemTime>,
    /// `availabilityStartTime`: the start of the stream.
    pub availability_start: Option<SystemTime>,
    /// The live edge, if it lists segments (`SegmentTimeline`, `SegmentList`).
    pub edge: Option<MpdEdge>,
}

/// The extent of an MPD's listed segments. Two versions of one MPD are compared by it.
///
/// Times are milliseconds since `availabilityStartTime`. Video and audio determine the edge: up to
/// the end of the one that ends first, everything is available. Other media, such as subtitles,
/// count only if there is nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MpdEdge {
    /// The start of the first listed segment.
    pub start_ms: u64,
    /// The end of the last listed segment.
    pub end_ms: u64,
    /// The start of the last period that lists segments.
    pub last_period_start_ms: u64,
    /// Number of representations that determine `end_ms`.
    pub representations: u64,
    /// The end of the longest of these representations.
    pub longest_end_ms: u64,
}

impl From<PlaylistInfo> for ManifestInfo {
    fn from(playlist: PlaylistInfo) -> ManifestInfo {
        ManifestInfo::Hls(playlist)
    }
}

impl From<MpdInfo> for ManifestInfo {
    fn from(mpd: MpdInfo) -> ManifestInfo {
        ManifestInfo::Dash(mpd)
    }
}

impl ManifestInfo {
    /// The playlist, if it is HLS.
    pub fn playlist(&self) -> Option<&PlaylistInfo> {
        match self {
            ManifestInfo::Hls(playlist) => Some(playlist),
            ManifestInfo::Dash(_) => None,
        }
    }

    /// The live edge of an HLS playlist.
    pub fn playlist_edge(&self) -> Option<&PlaylistEdge> {
        self.playlist()?.edge.as_ref()
    }

    /// Live or ended.
    pub fn liveness(&self) -> Liveness {
        match self {
            ManifestInfo::Hls(playlist) => playlist.liveness,
            ManifestInfo::Dash(mpd) => mpd.liveness,
        }
    }

    /// Whether new versions are expected.
    pub fn is_live(&self) -> bool {
        self.liveness() == Liveness::Live
    }

    /// Whether it is a multivariant HLS playlist.
    pub fn is_multivariant(&self) -> bool {
        self.playlist()
            .is_some_and(|playlist| playlist.is_multivariant)
    }

    /// Whether it is a patch to an MPD.
    pub fn is_patch(&self) -> bool {
        matches!(self, ManifestInfo::Dash(mpd) if mpd.is_patch)
    }

    /// Whether it lists segments, and so says how far it reaches.
    pub fn has_edge(&self) -> bool {
        match self {
            ManifestInfo::Hls(playlist) => playlist.edge.is_some(),
            ManifestInfo::Dash(mpd) => mpd.edge.is_some(),
        }
    }

    /// The part target duration of a low-latency playlist.
    pub fn part_target(&self) -> Option<Duration> {
        self.playlist()?.part_target
    }

    /// Whether the server of this playlist supports blocking reload.
    pub fn can_block_reload(&self) -> bool {
        self.playlist()
            .is_some_and(|playlist| playlist.server_control.can_block_reload)
    }

    /// Whether the server of this playlist offers delta updates.
    pub fn can_skip(&self) -> bool {
        self.playlist()
            .is_some_and(|playlist| playlist.server_control.can_skip_until.is_some())
    }

    /// Typical duration of the last segments.
    pub fn segment_duration(&self) -> Option<Duration> {
        match self {
            ManifestInfo::Hls(playlist) => playlist.segment_duration,
            ManifestInfo::Dash(mpd) => mpd.segment_duration,
        }
    }

    /// The interval after which a client loads it again, as stated: the target duration of a
    /// playlist, the update period of an MPD.
    pub fn stated_reload_interval(&self) -> Option<Duration> {
        match self {
            ManifestInfo::Hls(playlist) => playlist.target_duration,
            ManifestInfo::Dash(mpd) => mpd.update_period,
        }
    }

    /// The stated interval between versions that list segments: the part duration, else the segment
    /// duration, else the stated reload interval. Never zero.
    pub fn version_interval(&self) -> Option<Duration> {
        let interval = self
            .part_target()
            .or(self.segment_duration())
            .or(self.stated_reload_interval());
        interval.filter(|interval| self.has_edge() && !interval.is_zero())
    }

    /// The longest segment duration. A target duration guarantees it; an MPD's update period says
    /// nothing about it, and stands in for it only where no segment is listed.
    pub fn segment_duration_max(&self) -> Option<Duration> {
        match self {
            ManifestInfo::Hls(playlist) => playlist.segment_duration_max(),
            ManifestInfo::Dash(mpd) => mpd.segment_duration.or(mpd.update_period),
        }
    }

    /// Wall-clock end of the last listed media, if the manifest states it.
    pub fn end_time(&self) -> Option<SystemTime> {
        match self {
            ManifestInfo::Hls(playlist) => playlist.edge.as_ref()?.end_time,
            ManifestInfo::Dash(mpd) => {
                let end = Duration::from_millis(mpd.edge.as_ref()?.end_ms);
                mpd.availability_start?.checked_add(end)
            }
        }
    }

    /// Bytes of memory besides its own size.
    pub fn heap_bytes(&self) -> usize {
        self.playlist_edge()
            .map_or(0, |edge| size_of_val(&*edge.name_fingerprints))
    }
}

impl PlaylistInfo {
    /// The longest segment duration: the target duration, unless a listed segment is longer.
    pub fn segment_duration_max(&self) -> Option<Duration> {
        self.segment_duration.max(self.target_duration)
    }
}

/// `EXT-X-SERVER-CONTROL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerControl {
    /// `CAN-BLOCK-RELOAD`.
    pub can_block_reload: bool,
    /// `CAN-SKIP-UNTIL`.
    pub can_skip_until: Option<Duration>,
}

/// The objects that a manifest lists, by name as written, not resolved. Omitted: gaps
/// (`EXT-X-GAP`), and names with a variable (`EXT-X-DEFINE`) whose value the playlist does not
/// state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Rendition playlists (HLS multivariant), each once, at most `RENDITIONS_MAX`.
    pub renditions: Vec<String>,
    /// Initialization segments, each once, oldest first, the last `LISTED_MAX`. Their numbers are
    /// those of the first segments that use them.
    pub inits: Vec<ListedResource>,
    /// The segments nearest the live edge, oldest first, at most `LISTED_MAX`; in DASH of at most
    /// that many representations, at least `EACH_MIN` of each where it has them.
    pub segments: Vec<ListedResource>,
    /// The parts of the segment that is being written, oldest first, the last `LISTED_MAX`.
    pub parts: Vec<ListedResource>,
    /// Objects that may be requested before they exist (`EXT-X-PRELOAD-HINT`), at most
    /// `LISTED_MAX`.
    pub preload_hints: Vec<ListedResource>,
    /// DASH: files of which a `SegmentList` lists ranges, each with one range from its start to the
    /// end of the last listed range; at most 128.
    pub files: Vec<ListedResource>,
    /// DASH: names of segments that no list contains (`SegmentTemplate`), by representation.
    pub templates: Vec<SegmentNaming>,
    /// DASH: how long segments stay available (`timeShiftBufferDepth`); forever if absent.
    pub time_shift_depth: Option<Duration>,
    /// DASH: URLs of time servers (`UTCTiming`), as written. Never storable.
    pub time_servers: Vec<String>,
    /// HLS: key URLs (`EXT-X-KEY`, `EXT-X-SESSION-KEY`), each once, the last `KEYS_MAX`. Never
    /// storable.
    pub keys: Vec<String>,
}

/// One listed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedResource {
    /// HLS: its media sequence number. DASH: its end in milliseconds, as in [`MpdEdge`].
    pub position: u64,
    /// DASH: index of its representation; HLS has only one.
    pub representation: usize,
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
