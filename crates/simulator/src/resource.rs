//! The URLs of the stream. `/live/ll/360p/12.3.m4s` is part 3 of segment 12 of a rendition in one
//! packaging. Knows names only; the broadcast knows whether the object exists.

use super::media_assets::DemoRendition;

/// How the stream is packaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packaging {
    /// HLS with transport streams.
    Ts,
    /// HLS with CMAF.
    Cmaf,
    /// LL-HLS, each part with its own URL.
    LowLatency,
    /// LL-HLS, parts as byte ranges of their segment.
    LowLatencyRanges,
    /// DASH with a `SegmentTimeline`.
    Timeline,
    /// DASH with `$Number$` and a duration.
    Number,
    /// DASH with `$Number$`, segments sent while they are made.
    Chunked,
}

impl Packaging {
    /// All packagings.
    pub const ALL: [Packaging; 7] = [
        Packaging::Ts,
        Packaging::Cmaf,
        Packaging::LowLatency,
        Packaging::LowLatencyRanges,
        Packaging::Timeline,
        Packaging::Number,
        Packaging::Chunked,
    ];

    /// The name in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Packaging::Ts => "ts",
            Packaging::Cmaf => "cmaf",
            Packaging::LowLatency => "ll",
            Packaging::LowLatencyRanges => "ll-range",
            Packaging::Timeline => "timeline",
            Packaging::Number => "number",
            Packaging::Chunked => "chunked",
        }
    }

    /// The path at which players start.
    pub fn entry(self) -> String {
        let file = if self.is_dash() { MPD } else { PLAYLIST };
        format!("{ROOT}{}/{file}", self.name())
    }

    /// Whether it is DASH.
    pub fn is_dash(self) -> bool {
        matches!(
            self,
            Packaging::Timeline | Packaging::Number | Packaging::Chunked
        )
    }

    /// Whether it is LL-HLS.
    pub fn is_low_latency_hls(self) -> bool {
        matches!(self, Packaging::LowLatency | Packaging::LowLatencyRanges)
    }

    /// Whether segments are sent while they are made.
    pub fn has_growing_segments(self) -> bool {
        matches!(self, Packaging::LowLatencyRanges | Packaging::Chunked)
    }

    /// Whether it has this rendition. In transport streams audio is part of the video segments.
    pub fn has_rendition(self, rendition: DemoRendition) -> bool {
        self != Packaging::Ts || rendition != DemoRendition::Audio
    }
}

/// The prefix of all stream paths.
pub(super) const ROOT: &str = "/live/";
/// The path of the current time.
pub(super) const TIME_SERVER_PATH: &str = "/time";

const PLAYLIST: &str = "index.m3u8";
const MPD: &str = "manifest.mpd";
const INIT: &str = "init.mp4";

/// An object of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The multivariant playlist.
    Multivariant(Packaging),
    /// The MPD.
    Mpd(Packaging),
    /// A rendition's playlist.
    Playlist(Packaging, DemoRendition),
    /// A rendition's init segment.
    Init(Packaging, DemoRendition),
    /// A segment, by number; by its first tick with [`Packaging::Timeline`].
    Segment(Packaging, DemoRendition, u64),
    /// A part of a segment.
    Part(Packaging, DemoRendition, u64, u64),
    /// The current time (`UTCTiming`).
    TimeServer,
}

/// The kind of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// The multivariant playlist.
    Multivariant,
    /// A rendition's playlist.
    Playlist,
    /// An MPD.
    Mpd,
    /// An init segment.
    Init,
    /// A segment.
    Segment,
    /// A part.
    Part,
    /// The current time.
    TimeServer,
    /// Not an object of this origin.
    Unknown,
}

impl Resource {
    /// Parses a path.
    pub fn of(path: &str) -> Option<Resource> {
        if path == TIME_SERVER_PATH {
            return Some(Resource::TimeServer);
        }
        let (packaging, rest) = path.strip_prefix(ROOT)?.split_once('/')?;
        let packaging = Packaging::ALL
            .into_iter()
            .find(|one| one.name() == packaging)?;
        match (packaging.is_dash(), rest) {
            (true, MPD) => return Some(Resource::Mpd(packaging)),
            (false, PLAYLIST) => return Some(Resource::Multivariant(packaging)),
            _ => {}
        }
        let (rendition, file) = rest.split_once('/')?;
        let rendition =
            DemoRendition::from_name(rendition).filter(|one| packaging.has_rendition(*one))?;
        match file {
            PLAYLIST if !packaging.is_dash() => Some(Resource::Playlist(packaging, rendition)),
            INIT if packaging != Packaging::Ts => Some(Resource::Init(packaging, rendition)),
            file => media(packaging, rendition, file),
        }
    }

    /// Its kind.
    pub fn kind(self) -> ResourceKind {
        match self {
            Resource::Multivariant(_) => ResourceKind::Multivariant,
            Resource::Mpd(_) => ResourceKind::Mpd,
            Resource::Playlist(..) => ResourceKind::Playlist,
            Resource::Init(..) => ResourceKind::Init,
            Resource::Segment(..) => ResourceKind::Segment,
            Resource::Part(..) => ResourceKind::Part,
            Resource::TimeServer => ResourceKind::TimeServer,
        }
    }

    /// Its rendition, if it has one.
    pub fn rendition(self) -> Option<DemoRendition> {
        match self {
            Resource::Playlist(_, rendition)
            | Resource::Init(_, rendition)
            | Resource::Segment(_, rendition, _)
            | Resource::Part(_, rendition, ..) => Some(rendition),
            Resource::Multivariant(_) | Resource::Mpd(_) | Resource::TimeServer => None,
        }
    }

    /// Its path.
    pub fn path(self) -> String {
        let under = |packaging: Packaging, rendition: DemoRendition| {
            format!("{ROOT}{}/{}", packaging.name(), rendition.name())
        };
        match self {
            Resource::Multivariant(packaging) | Resource::Mpd(packaging) => packaging.entry(),
            Resource::Playlist(packaging, rendition) => {
                format!("{}/{PLAYLIST}", under(packaging, rendition))
            }
            Resource::Init(packaging, rendition) => {
                format!("{}/{INIT}", under(packaging, rendition))
            }
            Resource::Segment(packaging, rendition, name) => {
                let extension = if packaging == Packaging::Ts {
                    "ts"
                } else {
                    "m4s"
                };
                format!("{}/{name}.{extension}", under(packaging, rendition))
            }
            Resource::Part(packaging, rendition, segment, part) => {
                format!("{}/{segment}.{part}.m4s", under(packaging, rendition))
            }
            Resource::TimeServer => TIME_SERVER_PATH.to_owned(),
        }
    }
}

fn media(packaging: Packaging, rendition: DemoRendition, file: &str) -> Option<Resource> {
    let (name, extension) = file.rsplit_once('.')?;
    let expected = if packaging == Packaging::Ts {
        "ts"
    } else {
        "m4s"
    };
    if extension != expected {
        return None;
    }
    match name.split_once('.') {
        None => Some(Resource::Segment(packaging, rendition, number(name)?)),
        Some((segment, part)) if packaging == Packaging::LowLatency => {
            let (segment, part) = (number(segment)?, number(part)?);
            Some(Resource::Part(packaging, rendition, segment, part))
        }
        Some(_) => None,
    }
}

/// A number as this origin writes it: one spelling each, and small enough for sums.
fn number(text: &str) -> Option<u64> {
    const NUMBER_MAX: u64 = 1 << 50;
    let number: u64 = text.parse().ok()?;
    (number < NUMBER_MAX && number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_resource_by_its_path() {
        for packaging in Packaging::ALL {
            let entry = Resource::of(&packaging.entry()).unwrap();
            assert_eq!(entry.path(), packaging.entry());
            for rendition in DemoRendition::ALL {
                let segment = Resource::Segment(packaging, rendition, 12);
                let found = packaging.has_rendition(rendition).then_some(segment);
                assert_eq!(Resource::of(&segment.path()), found);
            }
        }
        for path in [
            "/time",
            "/live/ll/360p/12.3.m4s",
            "/live/cmaf/audio/index.m3u8",
            "/live/timeline/audio/init.mp4",
        ] {
            assert_eq!(Resource::of(path).unwrap().path(), path);
        }
    }

    #[test]
    fn rejects_other_spellings_of_paths() {
        for path in [
            "/",
            "/live/",
            "/live/ts",
            "/live/ts/manifest.mpd",
            "/live/timeline/360p/index.m3u8",
            "/live/ts/360p/init.mp4",
            "/live/ts/audio/1.ts",
            "/live/ts/360p/1.m4s",
            "/live/cmaf/360p/01.m4s",
            "/live/cmaf/360p/+1.m4s",
            "/live/cmaf/360p/1.2.m4s",
            "/live/cmaf/360p/99999999999999999999.m4s",
            "/live/cmaf/720p/1.m4s",
        ] {
            assert_eq!(Resource::of(path), None, "{path}");
        }
    }
}
