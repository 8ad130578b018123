//! What does a low-latency HLS request ask for (delivery directives, rfc8216bis §6.2.5), does a
//! playlist have it, and what does its delta update look like? Waits for nothing and asks nobody.

mod delta;
#[cfg(test)]
mod tests;

pub use self::delta::delta;
use super::kind::unescaped;
use super::{LiveEdge, ManifestInfo};

/// Names of the query parameters that are directives, in canonical order.
pub const DIRECTIVES: [&str; 3] = ["_HLS_msn", "_HLS_part", "_HLS_skip"];

/// Is it the name of a directive, as it stands in a query? Some origins read it with escapes in it too.
pub fn is_directive(written: &str) -> bool {
    DIRECTIVES.iter().any(|name| spells(written, name))
}

/// Is it the one that makes a server wait?
pub fn is_blocking(written: &str) -> bool {
    spells(written, DIRECTIVES[0])
}

fn spells(written: &str, name: &str) -> bool {
    let mut rest = written.as_bytes();
    let all = name.bytes().all(|expected| {
        let (byte, after) = match rest {
            [b'%', digits @ ..] => match (unescaped(digits.get(..2)), digits.get(2..)) {
                (Some(byte), Some(after)) => (byte, after),
                _ => return false,
            },
            [byte, after @ ..] => (*byte, after),
            [] => return false,
        };
        rest = after;
        byte == expected
    });
    all && rest.is_empty()
}

/// What a request for a playlist asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReloadDirectives {
    /// `_HLS_msn`: answer when the playlist has the segment of this number.
    pub msn: Option<u64>,
    /// `_HLS_part`: or when it has this part of it, the first being 0. Never without `msn`.
    pub part: Option<u64>,
    /// `_HLS_skip`: a delta update will do.
    pub skip: Option<Skip>,
}

/// What may be left out of an answer that the viewer has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skip {
    /// `YES`: old segments.
    Segments,
    /// `v2`: old segments and date ranges.
    SegmentsAndDateRanges,
}

/// The directives cannot be understood, or contradict each other. Whoever asks so is to hear it
/// from the origin, to which the query goes as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed delivery directives")]
pub struct MalformedDirectives;

impl ReloadDirectives {
    /// Reads a query (without its `?`). Parameters that are no directives are passed over.
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
        // rfc8216bis §6.2.5.2: a part without its segment's number is the client's error.
        if read.part.is_some() && read.msn.is_none() {
            return Err(MalformedDirectives);
        }
        Ok(read)
    }

    /// None of them.
    pub fn is_empty(&self) -> bool {
        *self == ReloadDirectives::default()
    }

    /// The same request as a playlist's newest version reads it (rfc8216bis §6.2.5.2): a part beyond those that
    /// a segment has is the next segment's first. How many a segment will have that is not whole yet
    /// nobody knows; more than this no packager makes.
    #[must_use]
    pub fn at(self, facts: &ManifestInfo) -> ReloadDirectives {
        let (Some(msn), Some(part), Some(edge)) = (self.msn, self.part, &facts.edge) else {
            return self;
        };
        let parts = if msn == edge.last && edge.last_parts > 0 {
            edge.last_parts
        } else {
            parts_max(facts)
                .max(edge.parts + 1)
                .max(edge.last_parts + 1)
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

    /// As a query, always in the same order: two requests for the same are the same.
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

/// A directive is given at most once.
fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), MalformedDirectives> {
    match (slot.is_some(), value) {
        (false, Some(value)) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(MalformedDirectives),
    }
}

/// Digits and nothing else. Leading zeros mean nothing.
fn number(value: &str) -> Option<u64> {
    let all_digits = value.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| value.parse().ok()).flatten()
}

/// Parts of a segment at most, where they are half as long at least as they may be (rfc8216bis §4.4.3.7 wants
/// 85 %).
fn parts_max(facts: &ManifestInfo) -> u64 {
    let targets = facts.target_duration.zip(facts.part_target);
    let parts = targets.and_then(|(segment, part)| {
        let halves = 2 * segment.as_millis();
        u64::try_from(halves.checked_div(part.as_millis())?).ok()
    });
    parts.unwrap_or(u64::MAX).saturating_add(1)
}

impl LiveEdge {
    /// A server refuses to wait for it (rfc8216bis §6.2.5.2).
    pub fn too_far(&self, msn: u64) -> bool {
        const AHEAD_MAX: u64 = 2;
        msn > self.last.saturating_add(AHEAD_MAX)
    }

    /// Does a playlist that reaches so far answer a blocking request (rfc8216bis §6.2.5.2)? With a
    /// segment's number alone the whole segment must be there, with a part that part.
    pub fn has(&self, msn: u64, part: Option<u64>) -> bool {
        let following = self.last.saturating_add(1);
        match part {
            Some(part) if msn == following => part < self.parts,
            // A part beyond the last one of a whole segment is the next segment's first. Whose
            // parts are not listed has none to be compared with.
            Some(part) if msn == self.last && self.last_parts > 0 => {
                part < self.last_parts || self.parts > 0
            }
            _ => msn <= self.last,
        }
    }
}
