//! What does an HLS playlist say about itself (RFC 8216, rfc8216bis)? One pass over its lines;
//! only the tags that bear on how long it is good and which version it is.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::facts::{Facts, Liveness, ManifestError};

pub(super) fn read(text: &str) -> Result<Facts, ManifestError> {
    let mut lines = text.lines();
    // RFC 8216 §4.3.1.1: it MUST be the first line.
    if lines
        .next()
        .is_none_or(|first| first.trim_end() != "#EXTM3U")
    {
        return Err(ManifestError::Broken("no #EXTM3U"));
    }
    let mut playlist = Playlist::default();
    let mut last_line = "";
    for line in lines.map(str::trim_end).filter(|line| !line.is_empty()) {
        playlist.take(line);
        last_line = line;
    }
    if !text.ends_with('\n') && playlist.ends_inside(last_line) {
        return Err(ManifestError::Broken("ends inside a line"));
    }
    playlist.facts()
}

/// What has been seen so far.
#[derive(Default)]
struct Playlist<'a> {
    ended: bool,
    target_duration: Option<Duration>,
    part_target: Option<Duration>,
    media_sequence: u64,
    skipped: u64,
    segments: u64,
    lists_renditions: bool,
    /// A tag that speaks of the next URI has come, its URI has not.
    awaits: Option<Awaited>,
    /// The last URI, and the one before it.
    uri: Option<&'a str>,
    uri_before: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Segment,
    Rendition,
}

impl<'a> Playlist<'a> {
    fn take(&mut self, line: &'a str) {
        if !line.starts_with('#') {
            self.take_uri(line);
            return;
        }
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        match tag {
            "#EXTINF" => self.awaits = Some(Awaited::Segment),
            "#EXT-X-STREAM-INF" => {
                self.awaits = Some(Awaited::Rendition);
                self.lists_renditions = true;
            }
            "#EXT-X-I-FRAME-STREAM-INF" | "#EXT-X-MEDIA" => self.lists_renditions = true,
            "#EXT-X-ENDLIST" => self.ended = true,
            // §4.3.3.5: a VOD playlist MUST NOT change.
            "#EXT-X-PLAYLIST-TYPE" => self.ended |= value.trim() == "VOD",
            "#EXT-X-TARGETDURATION" => {
                // It must not be repeated; if it is, the shorter one is the safe one.
                let seen = self.target_duration.into_iter().chain(seconds(value));
                self.target_duration = seen.min();
            }
            "#EXT-X-MEDIA-SEQUENCE" => self.media_sequence = value.trim().parse().unwrap_or(0),
            "#EXT-X-PART-INF" => {
                self.part_target = attribute(value, "PART-TARGET").and_then(seconds);
            }
            "#EXT-X-SKIP" => {
                let count = attribute(value, "SKIPPED-SEGMENTS");
                self.skipped = count.and_then(|text| text.parse().ok()).unwrap_or(0);
            }
            _ => {}
        }
    }

    fn take_uri(&mut self, uri: &'a str) {
        if self.awaits == Some(Awaited::Segment) {
            self.segments += 1;
        }
        self.awaits = None;
        self.uri_before = self.uri.replace(uri);
    }

    fn facts(self) -> Result<Facts, ManifestError> {
        match self.awaits {
            Some(Awaited::Segment) => return Err(ManifestError::Broken("#EXTINF without its URI")),
            Some(Awaited::Rendition) => {
                return Err(ManifestError::Broken("#EXT-X-STREAM-INF without its URI"));
            }
            None => {}
        }
        // §4.3.3.1: a media playlist must have a target duration; without one, without a rendition
        // and without a URI it is the head of something that was cut off.
        if self.target_duration.is_none() && self.uri.is_none() && !self.lists_renditions {
            return Err(ManifestError::Broken("nothing after #EXTM3U"));
        }
        let count = self.segments.saturating_add(self.skipped);
        Ok(Facts {
            liveness: if self.ended {
                Liveness::Ended
            } else {
                Liveness::Live
            },
            target_duration: self.target_duration.filter(|duration| !duration.is_zero()),
            part_target: self.part_target.filter(|duration| !duration.is_zero()),
            last_sequence: count
                .checked_sub(1)
                .and_then(|more| self.media_sequence.checked_add(more)),
            multivariant: self.lists_renditions && self.segments == 0,
        })
    }

    /// Is the last line, which no line break ends, visibly a part of one? In general that cannot
    /// be told; a missing line break alone is common and harmless.
    fn ends_inside(&self, line: &str) -> bool {
        if line.starts_with('#') {
            return is_cut_tag(line);
        }
        let (Some(last), Some(before)) = (self.uri, self.uri_before) else {
            return false;
        };
        // `seg9.t` or `seg9` after `seg8.ts`.
        let (last, before) = (extension(last), extension(before));
        before.len() > last.len() && before.starts_with(last)
    }
}

/// Tags that stand alone, and tags that `:` and a value must follow.
const BARE_TAGS: [&str; 6] = [
    "#EXTM3U",
    "#EXT-X-DISCONTINUITY",
    "#EXT-X-ENDLIST",
    "#EXT-X-GAP",
    "#EXT-X-I-FRAMES-ONLY",
    "#EXT-X-INDEPENDENT-SEGMENTS",
];
const VALUED_TAGS: [&str; 25] = [
    "#EXTINF:",
    "#EXT-X-BITRATE:",
    "#EXT-X-BYTERANGE:",
    "#EXT-X-CONTENT-STEERING:",
    "#EXT-X-DATERANGE:",
    "#EXT-X-DEFINE:",
    "#EXT-X-DISCONTINUITY-SEQUENCE:",
    "#EXT-X-I-FRAME-STREAM-INF:",
    "#EXT-X-KEY:",
    "#EXT-X-MAP:",
    "#EXT-X-MEDIA:",
    "#EXT-X-MEDIA-SEQUENCE:",
    "#EXT-X-PART:",
    "#EXT-X-PART-INF:",
    "#EXT-X-PLAYLIST-TYPE:",
    "#EXT-X-PRELOAD-HINT:",
    "#EXT-X-PROGRAM-DATE-TIME:",
    "#EXT-X-RENDITION-REPORT:",
    "#EXT-X-SERVER-CONTROL:",
    "#EXT-X-SESSION-DATA:",
    "#EXT-X-SESSION-KEY:",
    "#EXT-X-SKIP:",
    "#EXT-X-START:",
    "#EXT-X-STREAM-INF:",
    "#EXT-X-TARGETDURATION:",
];

/// Begins like a known tag and stops short, or has a value that cannot end where it does.
fn is_cut_tag(line: &str) -> bool {
    let Some((tag, value)) = line.split_once(':') else {
        let known = BARE_TAGS.contains(&line);
        let begun = || BARE_TAGS.iter().chain(&VALUED_TAGS);
        return !known && begun().any(|tag| tag.starts_with(line));
    };
    let known = VALUED_TAGS
        .iter()
        .any(|known| known.strip_suffix(':') == Some(tag));
    let open_quote = value.bytes().filter(|&byte| byte == b'"').count() % 2 == 1;
    known && (open_quote || value.is_empty() || value.ends_with([',', '=']))
}

/// The value of a name in an attribute list (RFC 8216 §4.2), quotes kept.
fn attribute<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = list;
    while let Some((key, after)) = rest.split_once('=') {
        let end = match after.strip_prefix('"') {
            Some(quoted) => quoted.find('"')? + 2,
            None => after.find(',').unwrap_or(after.len()),
        };
        let (value, next) = after.split_at(end);
        if key.trim() == name {
            return Some(value.trim());
        }
        rest = next.split_once(',')?.1;
    }
    None
}

/// A decimal count of seconds. Bounded, so that no arithmetic on it can overflow.
fn seconds(text: &str) -> Option<Duration> {
    const SECONDS_MAX: f64 = 86_400.0;
    let count: f64 = text.trim().parse().ok()?;
    (0.0..=f64::MAX)
        .contains(&count)
        .then(|| Duration::from_secs_f64(count.min(SECONDS_MAX)))
}

/// What follows the last dot of a URI's last path segment, the dot included; its query left out.
fn extension(uri: &str) -> &str {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rfind('.').map_or("", |dot| &name[dot..])
}
