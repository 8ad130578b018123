//! What there is to watch: many live streams, each with some renditions, whose playlists advance in
//! real time; their texts, bodies and sizes. Pure: the time is an argument.

use std::fmt::Write;
use std::time::Duration;

/// The number of the first segment.
const FIRST_NUMBER: u64 = 1_000;
/// Segments that a playlist lists.
const WINDOW: u64 = 6;
/// Bytes of a segment, by rendition: a five-hundredth of segments of 1 to 4 Mb/s.
const SEGMENT_BYTES: [usize; 3] = [4 << 10, 8 << 10, 16 << 10];

/// Open files that are not viewers' connections: what the shield reserves, and some for this bench.
const DESCRIPTORS_RESERVED: u64 = 1_100;

/// The streams.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub streams: usize,
    /// The renditions of each stream.
    pub renditions: usize,
    /// The duration of a segment, and the target duration.
    pub segment: Duration,
}

/// What a URL names. Playlists are numbered through all streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Playlist(usize),
    Segment(usize, u64),
}

impl Plan {
    /// All media playlists.
    pub fn playlists(&self) -> usize {
        self.streams * self.renditions
    }

    /// The number of the newest segment this long after the start. The streams change one after
    /// another, spread over a segment's duration; the renditions of one stream change together.
    pub fn newest(&self, playlist: usize, elapsed: Duration) -> u64 {
        let stream = playlist / self.renditions;
        let phase = self.segment.mul_f64(stream as f64 / self.streams as f64);
        let segments = (elapsed + phase).as_nanos() / self.segment.as_nanos();
        FIRST_NUMBER + segments as u64
    }

    /// Segments, of all playlists, that come into being between these times.
    pub fn made_between(&self, from: Duration, until: Duration) -> u64 {
        let made = |playlist| self.newest(playlist, until) - self.newest(playlist, from);
        (0..self.playlists()).map(made).sum()
    }

    /// The playlist whose newest segment is this. Its second line is a comment that names both.
    pub fn playlist_text(&self, playlist: usize, newest: u64) -> String {
        let seconds = self.segment.as_secs_f64();
        let mut text = format!("#EXTM3U\n{}", mark(playlist, newest));
        let first = newest + 1 - WINDOW;
        let _ = write!(
            text,
            "#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{seconds:.0}\n\
             #EXT-X-MEDIA-SEQUENCE:{first}\n"
        );
        for number in first..=newest {
            let _ = write!(text, "#EXTINF:{seconds:.3},\n{number}.m4s\n");
        }
        text
    }

    /// Bytes of each segment of a playlist.
    pub fn segment_bytes(&self, playlist: usize) -> usize {
        SEGMENT_BYTES[playlist % self.renditions % SEGMENT_BYTES.len()]
    }

    /// A segment; it begins with a line that names it.
    pub fn segment_body(&self, playlist: usize, number: u64) -> Vec<u8> {
        let mut body = mark(playlist, number).into_bytes();
        body.resize(self.segment_bytes(playlist), b'x');
        body
    }

    /// Writes the request target.
    pub fn write_target(&self, object: Object, target: &mut impl std::io::Write) {
        let (Object::Playlist(playlist) | Object::Segment(playlist, _)) = object;
        let (stream, rendition) = (playlist / self.renditions, playlist % self.renditions);
        // Into memory, which does not fail.
        let _ = write!(target, "/live/stream-{stream}/r{rendition}/");
        let _ = match object {
            Object::Playlist(_) => write!(target, "index.m3u8"),
            Object::Segment(_, number) => write!(target, "{number}.m4s"),
        };
    }

    /// Reads a request target.
    pub fn object(&self, target: &str) -> Option<Object> {
        let rest = target.strip_prefix("/live/stream-")?;
        let (stream, rest) = rest.split_once("/r")?;
        let (rendition, file) = rest.split_once('/')?;
        let (stream, rendition): (usize, usize) = (stream.parse().ok()?, rendition.parse().ok()?);
        if stream >= self.streams || rendition >= self.renditions {
            return None;
        }
        let playlist = stream * self.renditions + rendition;
        Some(match file.strip_suffix(".m4s") {
            Some(number) => Object::Segment(playlist, number.parse().ok()?),
            None => Object::Playlist(playlist),
        })
    }
}

/// `#000012 000000001042` and a line end: a playlist and a number, in a fixed length.
fn mark(playlist: usize, number: u64) -> String {
    format!("#{playlist:06} {number:012}\n")
}

/// Reads which playlist and number the first bytes of a body name.
pub fn read_mark(body: &[u8]) -> Option<(usize, u64)> {
    let body = body.strip_prefix(b"#EXTM3U\n").unwrap_or(body);
    let mark = std::str::from_utf8(body.get(..20)?).ok()?;
    let (playlist, number) = mark.strip_prefix('#')?.split_once(' ')?;
    Some((playlist.parse().ok()?, number.parse().ok()?))
}

/// Connections for this many viewers, where this many files may be open.
pub fn connections_for(viewers: usize, descriptors: u64) -> usize {
    let most = descriptors.saturating_sub(DESCRIPTORS_RESERVED);
    viewers.min(usize::try_from(most).unwrap_or(usize::MAX))
}
