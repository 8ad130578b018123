//! Parses HLS playlists (RFC 8216, rfc8216bis) in one pass over the lines. What players would play
//! is accepted, however odd; unintelligible values count as absent.

mod directories;
#[cfg(test)]
mod fixtures;
mod names;
mod objects;
pub(super) mod syntax;
#[cfg(test)]
mod tests;
mod timeline;
mod truncation;
mod variables;

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

pub(super) use self::directories::directories;
pub(super) use self::objects::objects;
use self::syntax::{attribute, attributes, seconds, tag_and_value};
use self::timeline::PlaylistTimeline;
use self::variables::Variables;
use super::info::{
    Listing, Liveness, Manifest, ManifestError, ManifestInfo, PlaylistInfo, ServerControl,
};
use super::limits::KEYS_MAX;
use super::limits::RENDITIONS_MAX;

pub(super) fn read(text: &str) -> Result<Manifest, ManifestError> {
    let mut lines = text.lines();
    // RFC 8216 §4.3.1.1: `#EXTM3U` MUST be the first line.
    if lines
        .next()
        .is_none_or(|first| first.trim_ascii_end() != "#EXTM3U")
    {
        return Err(ManifestError::Broken("no #EXTM3U"));
    }
    let mut playlist = PlaylistParser::default();
    let mut last_line = "";
    for line in lines.map(str::trim_ascii_end) {
        if !line.is_empty() {
            playlist.take(line);
            last_line = line;
        }
    }
    if !text.ends_with('\n') && playlist.ends_inside(last_line) {
        return Err(ManifestError::Broken("ends inside a line"));
    }
    playlist.manifest()
}

/// The parser's state.
#[derive(Default)]
struct PlaylistParser<'a> {
    ended: bool,
    target_duration: Option<Duration>,
    part_target: Option<Duration>,
    control: ServerControl,
    timeline: PlaylistTimeline<'a>,
    variables: Variables<'a>,
    lists_renditions: bool,
    renditions: Vec<&'a str>,
    keys: VecDeque<&'a str>,
    /// A tag that applies to the next URI has been read, its URI not yet.
    awaits: Option<ExpectedUri>,
    /// The last URI and the one before it.
    uri: Option<&'a str>,
    uri_before: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ExpectedUri {
    Segment,
    Rendition,
}

impl<'a> PlaylistParser<'a> {
    fn take(&mut self, line: &'a str) {
        if !line.starts_with('#') {
            self.take_uri(line);
            return;
        }
        // The most frequent tag is checked first.
        if let Some(value) = line.strip_prefix("#EXTINF:") {
            self.awaits = Some(ExpectedUri::Segment);
            self.timeline.take_duration(value);
            return;
        }
        let (tag, value) = tag_and_value(line);
        match tag {
            "#EXTINF" => self.awaits = Some(ExpectedUri::Segment),
            "#EXT-X-STREAM-INF" => {
                self.awaits = Some(ExpectedUri::Rendition);
                self.lists_renditions = true;
            }
            "#EXT-X-I-FRAME-STREAM-INF" | "#EXT-X-MEDIA" => {
                self.lists_renditions = true;
                self.renditions.extend(attribute(value, "URI"));
            }
            "#EXT-X-KEY" | "#EXT-X-SESSION-KEY" => self.take_key(attribute(value, "URI")),
            "#EXT-X-ENDLIST" => self.ended = true,
            // §4.3.3.5: a VOD playlist MUST NOT change.
            "#EXT-X-PLAYLIST-TYPE" => self.ended |= value.trim_ascii() == "VOD",
            "#EXT-X-TARGETDURATION" => {
                // The tag must not be repeated; if it is, the shorter value is the safe one.
                let seen = self.target_duration.into_iter().chain(seconds(value));
                self.target_duration = seen.min();
            }
            "#EXT-X-PART-INF" => {
                self.part_target = attribute(value, "PART-TARGET").and_then(seconds);
            }
            "#EXT-X-SERVER-CONTROL" => self.control = control(value),
            "#EXT-X-DEFINE" => self.variables.take(value),
            _ => self.timeline.take_tag(tag, value),
        }
    }

    fn take_key(&mut self, uri: Option<&'a str>) {
        let Some(uri) = uri.filter(|uri| !self.keys.contains(uri)) else {
            return;
        };
        if self.keys.len() >= KEYS_MAX {
            self.keys.pop_front();
        }
        self.keys.push_back(uri);
    }

    fn take_uri(&mut self, uri: &'a str) {
        match self.awaits.take() {
            Some(ExpectedUri::Segment) => self.timeline.take_segment(uri),
            Some(ExpectedUri::Rendition) => self.renditions.push(uri),
            None => {}
        }
        self.uri_before = self.uri.replace(uri);
    }

    fn manifest(mut self) -> Result<Manifest, ManifestError> {
        match self.awaits {
            Some(ExpectedUri::Segment) => {
                return Err(ManifestError::Broken("#EXTINF without its URI"));
            }
            Some(ExpectedUri::Rendition) => {
                return Err(ManifestError::Broken("#EXT-X-STREAM-INF without its URI"));
            }
            None => {}
        }
        // §4.3.3.1: a media playlist must have a target duration; without one, without a rendition
        // and without a URI it is the head of a truncated playlist.
        if self.target_duration.is_none() && self.uri.is_none() && !self.lists_renditions {
            return Err(ManifestError::Broken("nothing after #EXTM3U"));
        }
        let info = ManifestInfo::Hls(PlaylistInfo {
            liveness: if self.ended {
                Liveness::Ended
            } else {
                Liveness::Live
            },
            target_duration: self.target_duration.filter(|duration| !duration.is_zero()),
            part_target: self.part_target.filter(|duration| !duration.is_zero()),
            segment_duration: self.timeline.typical_duration(),
            is_multivariant: self.lists_renditions && self.timeline.segments() == 0,
            server_control: self.control,
            edge: self.timeline.edge(),
        });
        let listing = Listing {
            renditions: each_once(&self.renditions, &self.variables),
            keys: each_once(self.keys.make_contiguous(), &self.variables),
            ..self.timeline.listing(&self.variables)
        };
        Ok(Manifest { info, listing })
    }

    /// Is the last line, which has no line break, visibly truncated? In general this cannot be
    /// decided; a missing line break alone is common and harmless.
    fn ends_inside(&self, line: &str) -> bool {
        if line.starts_with('#') {
            return truncation::is_cut_tag(line);
        }
        match (self.uri, self.uri_before) {
            (Some(last), Some(before)) => truncation::is_cut_name(last, before),
            _ => false,
        }
    }
}

fn control(list: &str) -> ServerControl {
    let mut control = ServerControl::default();
    for (name, value) in attributes(list) {
        match name {
            "CAN-BLOCK-RELOAD" => control.can_block_reload = value == "YES",
            "CAN-SKIP-UNTIL" => control.can_skip_until = seconds(value),
            _ => {}
        }
    }
    control
}

fn each_once(names: &[&str], variables: &Variables<'_>) -> Vec<String> {
    let mut seen = HashSet::new();
    names
        .iter()
        .filter(|name| seen.insert(**name))
        .filter_map(|name| variables.fill(name))
        .take(RENDITIONS_MAX)
        .collect()
}
