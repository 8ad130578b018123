//! Writes delta updates: a playlist without the old segments that its viewers have already
//! (rfc8216bis §6.2.5.1). Lines are copied or skipped; only lines that lose their meaning without
//! the skipped ones are rewritten.

use std::time::Duration;

use crate::hls::syntax::{ByteRange, RangeEnd, attribute, count, seconds, tag_and_value};

/// The delta update (`_HLS_skip=YES`) of a whole playlist. `None` if the playlist offers none
/// (`CAN-SKIP-UNTIL`), has ended, is a delta update itself, or has no segment that is old enough:
/// the whole playlist is then the response.
///
/// Also `None` for a playlist with more lines, or more keys in effect, than any packager writes.
pub fn delta(playlist: &str) -> Option<String> {
    let breaks = playlist.bytes().filter(|&byte| byte == b'\n');
    if breaks.count() > LINES_MAX {
        return None;
    }
    let lines: Vec<PlaylistLine<'_>> = playlist
        .split_inclusive('\n')
        .map(PlaylistLine::of)
        .collect();
    let (skipped, boundary) = skippable(&lines)?;
    let (old, kept) = lines.split_at(boundary);
    let mut text = String::with_capacity(playlist.len());
    put_playlist_tags(&mut text, old);
    put_tag(
        &mut text,
        "#EXT-X-SKIP:SKIPPED-SEGMENTS=",
        &skipped.to_string(),
    );
    text.extend(still_applying(old)?.iter().map(|line| line.text));
    put_kept(&mut text, old, kept)?;
    Some(text)
}

/// A day of 2 s segments, with four lines each, is half of this.
const LINES_MAX: usize = 400_000;
/// Maximum number of key formats in effect at once.
const KEYS_MAX: usize = 32;

/// The protocol version that introduced `EXT-X-SKIP`.
const VERSION_MIN: u64 = 9;

/// Tags that apply to the whole playlist: a delta update has all of them, wherever they are.
const OF_PLAYLIST: [&str; 16] = [
    "#EXTM3U",
    "#EXT-X-CONTENT-STEERING",
    "#EXT-X-DATERANGE",
    "#EXT-X-DEFINE",
    "#EXT-X-DISCONTINUITY-SEQUENCE",
    "#EXT-X-I-FRAMES-ONLY",
    "#EXT-X-INDEPENDENT-SEGMENTS",
    "#EXT-X-MEDIA-SEQUENCE",
    "#EXT-X-PART-INF",
    "#EXT-X-PLAYLIST-TYPE",
    "#EXT-X-PRELOAD-HINT",
    "#EXT-X-RENDITION-REPORT",
    "#EXT-X-SERVER-CONTROL",
    "#EXT-X-START",
    "#EXT-X-TARGETDURATION",
    "#EXT-X-VERSION",
];

/// Tags that apply to the segments after them.
const OF_SEGMENT: [&str; 9] = [
    "#EXTINF",
    "#EXT-X-BITRATE",
    "#EXT-X-BYTERANGE",
    "#EXT-X-DISCONTINUITY",
    "#EXT-X-GAP",
    "#EXT-X-KEY",
    "#EXT-X-MAP",
    "#EXT-X-PART",
    "#EXT-X-PROGRAM-DATE-TIME",
];

/// A line, including its end.
#[derive(Clone, Copy)]
struct PlaylistLine<'a> {
    text: &'a str,
    /// Empty for a blank line and for a URI.
    tag: &'a str,
    /// The text after the tag's colon, or the URI.
    value: &'a str,
}

impl<'a> PlaylistLine<'a> {
    fn of(text: &'a str) -> PlaylistLine<'a> {
        let line = text.trim_ascii_end();
        let (tag, value) = if line.starts_with('#') {
            tag_and_value(line)
        } else {
            ("", line)
        };
        PlaylistLine { text, tag, value }
    }

    fn is_uri(&self) -> bool {
        self.tag.is_empty() && !self.value.is_empty()
    }

    fn is_of_playlist(&self) -> bool {
        OF_PLAYLIST.contains(&self.tag)
    }

    fn is_of_segment(&self) -> bool {
        self.is_uri() || OF_SEGMENT.contains(&self.tag)
    }
}

/// Does the range start where the last one ended?
fn continues_range(range: &str) -> bool {
    ByteRange::of(range).is_some_and(|range| range.offset.is_none())
}

/// The number of segments farther from the end than `CAN-SKIP-UNTIL`, and the number of lines up to
/// the end of the last of them.
fn skippable(lines: &[PlaylistLine<'_>]) -> Option<(usize, usize)> {
    let mut skip_until = None;
    // Time and number of lines at the end of each segment.
    let mut ends: Vec<(Duration, usize)> = Vec::new();
    let (mut end, mut parts) = (Duration::ZERO, Duration::ZERO);
    let mut duration = None;
    for (index, line) in lines.iter().enumerate() {
        if line.is_uri() {
            end += duration.take()?;
            parts = Duration::ZERO;
            ends.push((end, index + 1));
            continue;
        }
        let value = line.value;
        match line.tag {
            "#EXT-X-SERVER-CONTROL" => {
                skip_until = attribute(value, "CAN-SKIP-UNTIL").and_then(seconds);
            }
            "#EXTINF" => duration = Some(seconds(value.split(',').next()?)?),
            "#EXT-X-PART" => parts += attribute(value, "DURATION").and_then(seconds)?,
            // Delivery directives have no meaning for an ended stream; and a rendition's URI is not
            // a segment.
            "#EXT-X-SKIP" | "#EXT-X-ENDLIST" | "#EXT-X-STREAM-INF" => return None,
            "#EXT-X-PLAYLIST-TYPE" if value.trim_ascii() == "VOD" => return None,
            _ => {}
        }
    }
    let old = (end + parts).checked_sub(skip_until?)?;
    let skipped = ends.partition_point(|&(end, _)| end < old);
    // The last segment stays, even if it may be skipped: updates are compared by it.
    let skipped = skipped.min(ends.len().saturating_sub(1));
    let (_, boundary) = ends.get(skipped.checked_sub(1)?)?;
    Some((skipped, *boundary))
}

/// The head, with a sufficient version, and tags of the whole playlist from elsewhere.
fn put_playlist_tags(text: &mut String, old: &[PlaylistLine<'_>]) {
    let media = old
        .iter()
        .position(PlaylistLine::is_of_segment)
        .unwrap_or(0);
    // An unknown tag belongs to the head if a known tag of the head follows it.
    let head = old[..media].iter().rposition(PlaylistLine::is_of_playlist);
    let has_version = old.iter().any(|line| line.tag == "#EXT-X-VERSION");
    for (index, line) in old.iter().enumerate() {
        if line.tag == "#EXT-X-VERSION" {
            put_version(text, count(line.value).unwrap_or(0));
        } else if head.is_some_and(|head| index < head) || line.is_of_playlist() {
            text.push_str(line.text);
        }
        if index == 0 && !has_version {
            put_version(text, 0);
        }
    }
}

fn put_version(text: &mut String, version: u64) {
    put_tag(
        text,
        "#EXT-X-VERSION:",
        &version.max(VERSION_MIN).to_string(),
    );
}

fn put_tag(text: &mut String, tag: &str, value: &str) {
    text.extend([tag, value, "\n"]);
}

/// Lines among the skipped segments that still apply to the kept ones. `None`: too many keys.
fn still_applying<'a>(old: &[PlaylistLine<'a>]) -> Option<Vec<PlaylistLine<'a>>> {
    let mut keys: Vec<PlaylistLine<'a>> = Vec::new();
    // A key applies to every initialization segment after it.
    let (mut map, mut keys_of_map) = (None, Vec::new());
    let mut changed = false;
    let mut bitrate = None;
    for line in old {
        match line.tag {
            "#EXT-X-KEY" if attribute(line.value, "METHOD") == Some("NONE") => {
                keys.clear();
                changed = true;
            }
            // The last key of each format applies; keys of several formats apply together.
            "#EXT-X-KEY" => {
                let format = key_format(line);
                keys.retain(|key| key_format(key) != format);
                keys.push(*line);
                changed = true;
                if keys.len() > KEYS_MAX {
                    return None;
                }
            }
            "#EXT-X-MAP" => {
                map = Some(*line);
                if std::mem::take(&mut changed) {
                    keys_of_map.clone_from(&keys);
                }
            }
            "#EXT-X-BITRATE" => bitrate = Some(*line),
            _ => {}
        }
    }
    let changes = changes(&keys_of_map, keys);
    let mut lines = keys_of_map;
    lines.extend(map.into_iter().chain(changes).chain(bitrate));
    Some(lines)
}

fn key_format<'a>(key: &PlaylistLine<'a>) -> &'a str {
    attribute(key.value, "KEYFORMAT").unwrap_or("identity")
}

/// The lines that turn the keys in effect before into those after.
fn changes<'a>(
    before: &[PlaylistLine<'a>],
    mut after: Vec<PlaylistLine<'a>>,
) -> Vec<PlaylistLine<'a>> {
    let is_replaced =
        |key: &PlaylistLine<'a>| after.iter().any(|new| key_format(new) == key_format(key));
    if before.iter().all(is_replaced) {
        after.retain(|new| before.iter().all(|key| key.value != new.value));
    } else {
        after.insert(0, PlaylistLine::of("#EXT-X-KEY:METHOD=NONE\n"));
    }
    after
}

/// The kept lines unchanged, except a range that starts where a skipped segment's range ended: its
/// offset is written out. `None` if the offset is unknown.
fn put_kept(text: &mut String, old: &[PlaylistLine<'_>], kept: &[PlaylistLine<'_>]) -> Option<()> {
    let had_parts = old.iter().any(|line| line.tag == "#EXT-X-PART");
    let (mut first_segment, mut first_part) = (true, had_parts);
    let mut resumes_at = None;
    for line in kept {
        if line.tag == "#EXT-X-BYTERANGE" && first_segment && continues_range(line.value) {
            let segment = || kept.iter().find(|line| line.is_uri());
            let offset = match resumes_at {
                Some(offset) => offset,
                None => end_of_last(old, segment()?.value)?,
            };
            resumes_at = Some(offset);
            let length = line.value.trim_ascii();
            put_tag(text, "#EXT-X-BYTERANGE:", &format!("{length}@{offset}"));
            continue;
        }
        if line.tag == "#EXT-X-PART" && std::mem::take(&mut first_part) {
            let range = attribute(line.value, "BYTERANGE");
            if range.is_some_and(continues_range) {
                return None;
            }
        }
        first_segment &= !line.is_uri();
        text.push_str(line.text);
    }
    Some(())
}

/// The end of the last skipped segment's range, if it is of the same resource.
fn end_of_last(old: &[PlaylistLine<'_>], uri: &str) -> Option<u64> {
    let mut ranges = RangeEnd::default();
    let mut range = None;
    for line in old {
        if line.tag == "#EXT-X-BYTERANGE" {
            range = ByteRange::of(line.value);
        } else if line.is_uri() {
            match range.take() {
                Some(range) => _ = ranges.offset(line.value, range),
                None => ranges = RangeEnd::default(),
            }
        }
    }
    let nothing = ByteRange {
        length: 0,
        offset: None,
    };
    ranges.offset(uri, nothing)
}
