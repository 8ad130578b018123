//! Low-latency HLS: delivery directives (rfc8216bis §6.2.5), whether a playlist satisfies them, and
//! delta updates. Pure: no waiting, no requests.

mod delta;
#[cfg(test)]
mod tests;

use percent_encoding::percent_decode_str;

pub use self::delta::delta;
use super::{ManifestInfo, PlaylistEdge, PlaylistInfo};

/// The query parameters that are delivery directives, in canonical order.
pub const DIRECTIVES: [&str; 3] = ["_HLS_msn", "_HLS_part", "_HLS_skip"];

/// Is it the name of a directive, as written in a query? Percent-encoded forms count, because some
/// origins decode them.
pub fn is_directive(written: &str) -> bool {
    DIRECTIVES.iter().any(|name| is_spelled(written, name))
}

/// Is it the directive that makes a server block?
pub fn is_blocking(written: &str) -> bool {
    is_spelled(written, DIRECTIVES[0])
}

fn is_spelled(written: &str, name: &str) -> bool {
    percent_decode_str(written).eq(name.bytes())
}

/// The delivery directives of a playlist request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReloadDirectives {
    /// `_HLS_msn`: respond when the playlist contains the segment with this number.
    pub msn: Option<u64>,
    /// `_HLS_part`: respond when it contains this part of the segment, counted from 0. Never
    /// without `msn`.
    pub part: Option<u64>,
    /// `_HLS_skip`: a delta update is accepted.
    pub skip: Option<Skip>,
}

/// What a delta update may skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skip {
    /// `YES`: old segments.
    Segments,
    /// `v2`: old segments and date ranges.
    SegmentsAndDateRanges,
}

/// The directives are malformed or contradictory. The query is forwarded unchanged, so that the
/// origin reports the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed delivery directives")]
pub struct MalformedDirectives;

impl ReloadDirectives {
    /// Parses a query (without `?`). Other parameters are ignored.
    pub fn of(query: &str) -> Result<ReloadDirectives, MalformedDirectives> {
        let mut read = ReloadDirectives::default();
        let [msn, part, skip] = DIRECTIVES;
        for parameter in query.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if name == msn {
                once(&mut read.msn, number(value))?;
            } else if name == part {
                once(&mut read.part, number(value))?;
            } else if name == skip {
                once(&mut read.skip, Skip::of(value))?;
            }
        }
        // rfc8216bis §6.2.5.2: `_HLS_part` without `_HLS_msn` is a client error.
        if read.part.is_some() && read.msn.is_none() {
            return Err(MalformedDirectives);
        }
        Ok(read)
    }

    /// Has it no directives?
    pub fn is_empty(&self) -> bool {
        *self == ReloadDirectives::default()
    }

    /// The same request relative to a playlist's newest version (rfc8216bis §6.2.5.2): a part
    /// beyond the last part of a segment is the first of the next segment. The number of parts of
    /// an incomplete segment is unknown; the limit here is more than any packager produces.
    #[must_use]
    pub fn at(self, info: &ManifestInfo) -> ReloadDirectives {
        let (Some(msn), Some(part)) = (self.msn, self.part) else {
            return self;
        };
        let ManifestInfo::Hls(
            playlist @ PlaylistInfo {
                edge: Some(edge), ..
            },
        ) = info
        else {
            return self;
        };
        let parts = if msn == edge.last_sequence && edge.last_segment_parts > 0 {
            edge.last_segment_parts
        } else {
            parts_max(playlist)
                .max(edge.next_segment_parts + 1)
                .max(edge.last_segment_parts + 1)
        };
        if part < parts {
            return self;
        }
        ReloadDirectives {
            msn: Some(msn.saturating_add(1)),
            part: Some(0),
            ..self
        }
    }

    /// As a query in canonical order, so that equal requests have equal keys.
    pub fn canonical(&self) -> String {
        let values = [
            self.msn.map(|msn| msn.to_string()),
            self.part.map(|part| part.to_string()),
            self.skip.map(|skip| skip.as_str().to_owned()),
        ];
        let given = DIRECTIVES.into_iter().zip(values);
        let given = given.filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        given.collect::<Vec<_>>().join("&")
    }
}

impl Skip {
    fn of(value: &str) -> Option<Skip> {
        [Skip::Segments, Skip::SegmentsAndDateRanges]
            .into_iter()
            .find(|skip| skip.as_str() == value)
    }

    fn as_str(self) -> &'static str {
        match self {
            Skip::Segments => "YES",
            Skip::SegmentsAndDateRanges => "v2",
        }
    }
}

/// Stores a directive; a second one is an error.
fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), MalformedDirectives> {
    match (slot.is_some(), value) {
        (false, Some(value)) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(MalformedDirectives),
    }
}

/// Digits only. Leading zeros are ignored.
fn number(value: &str) -> Option<u64> {
    let all_digits = value.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| value.parse().ok()).flatten()
}

/// Maximum number of parts of a segment, if each is at least half of the part target duration
/// (rfc8216bis §4.4.3.7 requires 85 %).
fn parts_max(playlist: &PlaylistInfo) -> u64 {
    let targets = playlist.target_duration.zip(playlist.part_target);
    let parts = targets.and_then(|(segment, part)| {
        let halves = 2 * segment.as_millis();
        u64::try_from(halves.checked_div(part.as_millis())?).ok()
    });
    parts.unwrap_or(u64::MAX).saturating_add(1)
}

impl PlaylistEdge {
    /// A server refuses to block for this segment (rfc8216bis §6.2.5.2).
    pub fn is_too_far(&self, msn: u64) -> bool {
        const AHEAD_MAX: u64 = 2;
        msn > self.last_sequence.saturating_add(AHEAD_MAX)
    }

    /// Does a playlist with this edge satisfy a blocking request (rfc8216bis §6.2.5.2)? With a
    /// segment number alone the segment must be complete; with a part, that part must exist.
    pub fn has(&self, msn: u64, part: Option<u64>) -> bool {
        let following = self.last_sequence.saturating_add(1);
        match part {
            Some(part) if msn == following => part < self.next_segment_parts,
            // A part beyond the last one of a complete segment is the first of the next segment. A
            // segment without listed parts counts as a whole.
            Some(part) if msn == self.last_sequence && self.last_segment_parts > 0 => {
                part < self.last_segment_parts || self.next_segment_parts > 0
            }
            _ => msn <= self.last_sequence,
        }
    }
}
