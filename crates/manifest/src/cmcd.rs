//! Parses Common Media Client Data (CMCD, CTA-5004) from a query or from headers. Each value is
//! read on its own: an invalid one is dropped and does not affect the others.

#[cfg(test)]
mod tests;
mod value;

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;

use self::value::{CmcdPairs, CmcdValue, decoded};

/// The name of the query parameter.
const PARAMETER: &str = "CMCD";

/// The headers. CTA-5004 groups keys by how often they change; here each key is read from any of
/// them.
const HEADERS: [&str; 4] = ["cmcd-object", "cmcd-request", "cmcd-session", "cmcd-status"];

/// Longer data is ignored: players send a few hundred bytes.
const BYTES_MAX: usize = 4096;
/// Maximum number of characters of a session or content ID (CTA-5004).
const NAME_MAX: usize = 64;
const REFERENCE_MAX: usize = 1024;

/// The CMCD of one request. Unknown keys are ignored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cmcd {
    /// `br`: encoded bitrate of the requested object.
    pub bitrate_kbps: Option<u32>,
    /// `bl`: buffer length.
    pub buffer: Option<Duration>,
    /// `bs`: the buffer has run empty since the last request.
    pub starved: bool,
    /// `cid`: content ID.
    pub content: Option<String>,
    /// `d`: duration of the object.
    pub duration: Option<Duration>,
    /// `dl`: time until the buffer runs empty, the deadline for the first byte.
    pub deadline: Option<Duration>,
    /// `mtp`: measured throughput.
    pub throughput_kbps: Option<u32>,
    /// `nor`: the next requested object, relative to this request's URL.
    pub next_object: Option<String>,
    /// `nrr`: byte range of the next request (of `nor`, or else of the same object).
    pub next_range: Option<NextRange>,
    /// `ot`: type of the requested object.
    pub object: Option<ObjectType>,
    /// `pr`: playback rate; 0 is paused.
    pub rate: Option<f32>,
    /// `rtp`: requested maximum throughput.
    pub enough_kbps: Option<u32>,
    /// `sf`: streaming format.
    pub format: Option<StreamFormat>,
    /// `sid`: session ID.
    pub session: Option<String>,
    /// `st`: `l` live, `v` on demand.
    pub is_live: Option<bool>,
    /// `su`: needed at once, for startup, a seek or an empty buffer.
    pub is_startup: bool,
    /// `tb`: highest available bitrate.
    pub top_kbps: Option<u32>,
    /// `v`: CMCD version; 1 if absent.
    pub version: Option<u32>,
}

/// `nrr`. At least one of the two is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextRange {
    /// First byte; absent: the range is the last `last` bytes.
    pub first: Option<u64>,
    /// Last byte, or the number of bytes of a suffix range.
    pub last: Option<u64>,
}

/// `ot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectType {
    /// `m`: manifest or playlist.
    Manifest,
    /// `a`: audio.
    Audio,
    /// `v`: video.
    Video,
    /// `av`: audio and video.
    Muxed,
    /// `i`: initialization segment.
    Init,
    /// `c`: captions or subtitles.
    Caption,
    /// `tt`: timed text in ISO BMFF.
    TimedText,
    /// `k`: key, license or certificate.
    Key,
    /// `o`.
    Other,
}

/// `sf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFormat {
    /// `h`.
    Hls,
    /// `d`.
    Dash,
    /// `s`.
    Smooth,
    /// `o`.
    Other,
}

impl Cmcd {
    /// The CMCD of a request, from its query and headers; `None` if it has none. Headers take
    /// precedence.
    pub fn of(query: Option<&str>, headers: &HeaderMap) -> Option<Cmcd> {
        let mut cmcd = None;
        if let Some(value) = query.and_then(parameter) {
            let data: &mut Cmcd = cmcd.get_or_insert_default();
            if value.len() <= 3 * BYTES_MAX
                && let Some(text) = decoded(value)
            {
                data.take(&text);
            }
        }
        for name in HEADERS {
            for line in headers.get_all(name) {
                let data = cmcd.get_or_insert_default();
                if let Ok(text) = line.to_str() {
                    data.take(text);
                }
            }
        }
        cmcd
    }

    fn take(&mut self, text: &str) {
        if text.len() > BYTES_MAX {
            return;
        }
        for (key, value) in CmcdPairs::of(text) {
            self.set(key, &value);
        }
    }

    fn set(&mut self, key: &str, value: &CmcdValue<'_>) {
        match key {
            "br" => keep(&mut self.bitrate_kbps, value.number()),
            "bl" => keep(&mut self.buffer, value.millis()),
            "bs" => self.starved = value.is_true(),
            "cid" => keep(&mut self.content, value.text(NAME_MAX)),
            "d" => keep(&mut self.duration, value.millis()),
            "dl" => keep(&mut self.deadline, value.millis()),
            "mtp" => keep(&mut self.throughput_kbps, value.number()),
            "nor" => keep(&mut self.next_object, value.reference(REFERENCE_MAX)),
            "nrr" => keep(
                &mut self.next_range,
                value.text(NAME_MAX).and_then(|it| range(&it)),
            ),
            "ot" => keep(&mut self.object, value.token().and_then(object)),
            "pr" => keep(&mut self.rate, value.decimal()),
            "rtp" => keep(&mut self.enough_kbps, value.number()),
            "sf" => keep(&mut self.format, value.token().and_then(format)),
            "sid" => keep(&mut self.session, value.text(NAME_MAX)),
            "st" => keep(&mut self.is_live, value.token().and_then(is_live)),
            "su" => self.is_startup = value.is_true(),
            "tb" => keep(&mut self.top_kbps, value.number()),
            "v" => keep(&mut self.version, value.number()),
            _ => {}
        }
    }
}

/// An invalid value leaves the previous one.
fn keep<T>(field: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *field = value;
    }
}

fn range(text: &str) -> Option<NextRange> {
    let (first, last) = text.split_once('-')?;
    let bound = |text: &str| match text {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    };
    let (first, last) = (bound(first)?, bound(last)?);
    let is_valid = match (first, last) {
        (Some(first), Some(last)) => first <= last,
        (first, last) => first.is_some() || last.is_some(),
    };
    is_valid.then_some(NextRange { first, last })
}

fn object(token: &str) -> Option<ObjectType> {
    Some(match token {
        "m" => ObjectType::Manifest,
        "a" => ObjectType::Audio,
        "v" => ObjectType::Video,
        "av" => ObjectType::Muxed,
        "i" => ObjectType::Init,
        "c" => ObjectType::Caption,
        "tt" => ObjectType::TimedText,
        "k" => ObjectType::Key,
        "o" => ObjectType::Other,
        _ => return None,
    })
}

fn format(token: &str) -> Option<StreamFormat> {
    Some(match token {
        "h" => StreamFormat::Hls,
        "d" => StreamFormat::Dash,
        "s" => StreamFormat::Smooth,
        "o" => StreamFormat::Other,
        _ => return None,
    })
}

fn is_live(token: &str) -> Option<bool> {
    match token {
        "l" => Some(true),
        "v" => Some(false),
        _ => None,
    }
}

/// The query without CMCD, which is neither part of the key nor sent to the origin.
pub fn strip_query(query: &str) -> Cow<'_, str> {
    if !query.contains(PARAMETER) || parameter(query).is_none() {
        return Cow::Borrowed(query);
    }
    let others = query.split('&').filter(|pair| !is_cmcd(pair));
    Cow::Owned(others.collect::<Vec<_>>().join("&"))
}

/// The value of the first parameter of that name.
fn parameter(query: &str) -> Option<&str> {
    let pair = query.split('&').find(|pair| is_cmcd(pair))?;
    Some(pair.split_once('=').map_or("", |(_, value)| value))
}

fn is_cmcd(pair: &str) -> bool {
    pair.split('=').next() == Some(PARAMETER)
}
