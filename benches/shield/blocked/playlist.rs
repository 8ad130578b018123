//! The low-latency playlist that crowds wait for: the text of each version. Pure.

use std::fmt::Write;
use std::time::Duration;

/// Its path.
pub const PLAYLIST: &str = "/live/blocked.m3u8";
/// The duration of a part: a new one in each turn.
pub const PART: Duration = Duration::from_millis(500);

pub const PARTS_PER_SEGMENT: u64 = 6;
/// Listed whole segments, the last two with their parts.
const WINDOW: u64 = 24;
/// Whole segments at the beginning.
const SEGMENTS_BEFORE: u64 = 1_000;

/// A version of the playlist: all parts so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    pub fn first() -> Version {
        Version(SEGMENTS_BEFORE * PARTS_PER_SEGMENT)
    }

    pub fn next(self) -> Version {
        Version(self.0 + 1)
    }

    /// The version that a blocking request names.
    pub fn requested(query: &str) -> Option<Version> {
        let number = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let mut values = pairs.filter(|(key, _)| *key == name);
            values.next()?.1.parse::<u64>().ok()
        };
        let parts = number("_HLS_part").map_or(PARTS_PER_SEGMENT, |part| part + 1);
        Some(Version(number("_HLS_msn")? * PARTS_PER_SEGMENT + parts))
    }

    /// The target of the request that blocks until this version exists.
    pub fn target(self) -> String {
        let (segment, part) = Version(self.0 - 1).position();
        format!("{PLAYLIST}?_HLS_msn={segment}&_HLS_part={part}")
    }

    /// The number of the segment in the making, and of its parts.
    pub fn position(self) -> (u64, u64) {
        (self.0 / PARTS_PER_SEGMENT, self.0 % PARTS_PER_SEGMENT)
    }

    /// Whether the playlist lists this part.
    pub fn has_part(self, segment: u64, part: u64) -> bool {
        segment * PARTS_PER_SEGMENT + part < self.0
    }

    /// The second line of the playlist: a comment that names the version.
    pub fn start(self) -> String {
        format!("#EXTM3U\n# version {}\n", self.0)
    }

    pub fn text(self) -> String {
        let part = PART.as_secs_f64();
        let (making, parts) = self.position();
        let segment = part * PARTS_PER_SEGMENT as f64;
        let mut text = self.start();
        let _ = write!(
            text,
            "#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:{segment:.0}\n\
             #EXT-X-PART-INF:PART-TARGET={part}\n\
             #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={}\n\
             #EXT-X-MEDIA-SEQUENCE:{}\n#EXT-X-MAP:URI=\"init.mp4\"\n",
            part * 3.0,
            making - WINDOW
        );
        let write_part = |text: &mut String, segment: u64, part_number: u64| {
            let _ = writeln!(
                text,
                "#EXT-X-PART:DURATION={part},URI=\"part-{segment}-{part_number}.m4s\""
            );
        };
        for number in making - WINDOW..making {
            for part in (0..PARTS_PER_SEGMENT).filter(|_| number + 2 >= making) {
                write_part(&mut text, number, part);
            }
            let _ = write!(text, "#EXTINF:{segment:.3},\nvideo-segment-{number}.m4s\n");
        }
        for part in 0..parts {
            write_part(&mut text, making, part);
        }
        let _ = writeln!(
            text,
            "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-{making}-{parts}.m4s\""
        );
        text
    }
}
