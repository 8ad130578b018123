//! What does a player tell about itself (Common Media Client Data, CTA-5004)? Reads what comes in a
//! query or in headers, value by value: a bad one is dropped and harms no other.

#[cfg(test)]
mod tests;
mod value;

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;

use self::value::{CmcdPairs, CmcdValue, decoded};

/// The name of the query parameter.
const PARAMETER: &str = "CMCD";

/// The headers, by how often their values change. Which key comes in which makes no difference.
const HEADERS: [&str; 4] = ["cmcd-object", "cmcd-request", "cmcd-session", "cmcd-status"];

/// Longer data is passed over whole: players send a few hundred bytes.
const BYTES_MAX: usize = 4096;
/// CTA-5004 allows names of sessions and contents so many characters.
const NAME_MAX: usize = 64;
const REFERENCE_MAX: usize = 1024;

/// What a player told with one request. Unknown keys are passed over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cmcd {
    /// `br`: the encoded bitrate of what is asked for.
    pub bitrate_kbps: Option<u32>,
    /// `bl`: how much is buffered.
    pub buffer: Option<Duration>,
    /// `bs`: the buffer ran empty since the last request.
    pub starved: bool,
    /// `cid`: the content.
    pub content: Option<String>,
    /// `d`: how long the object plays.
    pub duration: Option<Duration>,
    /// `dl`: how long the first byte may take before the buffer runs empty.
    pub deadline: Option<Duration>,
    /// `mtp`: the throughput that the player measures.
    pub throughput_kbps: Option<u32>,
    /// `nor`: what it will ask for next, relative to what it asks for now.
    pub next_object: Option<String>,
    /// `nrr`: only these bytes of that (or of the same object).
    pub next_range: Option<NextRange>,
    /// `ot`: what it asks for.
    pub object: Option<ObjectType>,
    /// `pr`: how fast it plays; 0 is standing still.
    pub rate: Option<f32>,
    /// `rtp`: the throughput that is enough for it.
    pub enough_kbps: Option<u32>,
    /// `sf`: of which form the manifest is.
    pub format: Option<StreamFormat>,
    /// `sid`: the session.
    pub session: Option<String>,
    /// `st`: `l` live, `v` all there.
    pub is_live: Option<bool>,
    /// `su`: needed at once, to start, to seek or because the buffer is empty.
    pub is_startup: bool,
    /// `tb`: the highest bitrate on offer.
    pub top_kbps: Option<u32>,
    /// `v`: the version of these data; absent is 1.
    pub version: Option<u32>,
}

/// `nrr`. One of the two is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextRange {
    /// The first byte; absent: the last so many bytes are meant.
    pub first: Option<u64>,
    /// The last byte, or how many.
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
    /// `av`: both in one.
    Muxed,
    /// `i`: initialisation segment.
    Init,
    /// `c`: captions or subtitles.
    Caption,
    /// `tt`: timed text in ISO BMFF.
    TimedText,
    /// `k`: key, licence or certificate.
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
    /// What a request tells, in its query or its headers; `None` when it carries no such data.
    /// Where both speak of the same, the headers win.
    pub fn of(query: Option<&str>, headers: &HeaderMap) -> Option<Cmcd> {
        let mut told = None;
        if let Some(value) = query.and_then(parameter) {
            let data: &mut Cmcd = told.get_or_insert_default();
            if value.len() <= 3 * BYTES_MAX
                && let Some(text) = decoded(value)
            {
                data.take(&text);
            }
        }
        for name in HEADERS {
            for line in headers.get_all(name) {
                let data = told.get_or_insert_default();
                if let Ok(text) = line.to_str() {
                    data.take(text);
                }
            }
        }
        told
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

/// A value that cannot be understood leaves what is there.
fn keep<T>(place: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *place = value;
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
    let makes_sense = match (first, last) {
        (Some(first), Some(last)) => first <= last,
        (first, last) => first.is_some() || last.is_some(),
    };
    makes_sense.then_some(NextRange { first, last })
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

/// The query without these data, which belong neither into a key nor to the origin.
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
