//! What does a URL name? `/live/ll/360p/12.3.m4s` is part 3 of segment 12 of a rendition of a form.
//! Knows names only; whether the thing exists is for the broadcast to say.

use super::reel::Rendition;

/// How the stream is packaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// HLS with transport streams.
    Ts,
    /// HLS with CMAF.
    Cmaf,
    /// LL-HLS, each part with a name of its own.
    LowLatency,
    /// LL-HLS, parts as byte ranges of their segment.
    LowLatencyRanges,
    /// DASH with a `SegmentTimeline`.
    Timeline,
    /// DASH with `$Number$` and a duration.
    Number,
    /// DASH with `$Number$`, segments handed out as they are made.
    Chunked,
}

impl Form {
    /// All of them.
    pub const ALL: [Form; 7] = [
        Form::Ts,
        Form::Cmaf,
        Form::LowLatency,
        Form::LowLatencyRanges,
        Form::Timeline,
        Form::Number,
        Form::Chunked,
    ];

    /// What it is called in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Form::Ts => "ts",
            Form::Cmaf => "cmaf",
            Form::LowLatency => "ll",
            Form::LowLatencyRanges => "ll-range",
            Form::Timeline => "timeline",
            Form::Number => "number",
            Form::Chunked => "chunked",
        }
    }

    /// Where players begin.
    pub fn entry(self) -> String {
        let file = if self.is_dash() { MPD } else { PLAYLIST };
        format!("{ROOT}{}/{file}", self.name())
    }

    /// Is it DASH?
    pub fn is_dash(self) -> bool {
        matches!(self, Form::Timeline | Form::Number | Form::Chunked)
    }

    /// Is it LL-HLS?
    pub fn is_low_latency_hls(self) -> bool {
        matches!(self, Form::LowLatency | Form::LowLatencyRanges)
    }

    /// Are segments handed out while they are made?
    pub fn grows(self) -> bool {
        matches!(self, Form::LowLatencyRanges | Form::Chunked)
    }

    /// Does the form have this rendition? In transport streams sound goes with the pictures.
    pub fn has(self, rendition: Rendition) -> bool {
        self != Form::Ts || rendition != Rendition::Audio
    }
}

/// What every stream's path begins with.
pub(super) const ROOT: &str = "/live/";
/// Where the time is told.
pub(super) const CLOCK: &str = "/time";

const PLAYLIST: &str = "index.m3u8";
const MPD: &str = "manifest.mpd";
const INIT: &str = "init.mp4";

/// Something that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The playlist of playlists.
    Multivariant(Form),
    /// The MPD.
    Mpd(Form),
    /// A rendition's playlist.
    Playlist(Form, Rendition),
    /// A rendition's init segment.
    Init(Form, Rendition),
    /// A segment, by number; by its first tick where the form is [`Form::Timeline`].
    Segment(Form, Rendition, u64),
    /// A part of a segment.
    Part(Form, Rendition, u64, u64),
    /// The time (`UTCTiming`).
    Clock,
}

/// What kind of thing that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The playlist of playlists.
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
    /// The time.
    Clock,
    /// Nothing this origin has.
    Unknown,
}

impl Place {
    /// What a path names.
    pub fn of(path: &str) -> Option<Place> {
        if path == CLOCK {
            return Some(Place::Clock);
        }
        let (form, rest) = path.strip_prefix(ROOT)?.split_once('/')?;
        let form = Form::ALL.into_iter().find(|one| one.name() == form)?;
        match (form.is_dash(), rest) {
            (true, MPD) => return Some(Place::Mpd(form)),
            (false, PLAYLIST) => return Some(Place::Multivariant(form)),
            _ => {}
        }
        let (rendition, file) = rest.split_once('/')?;
        let rendition = Rendition::named(rendition).filter(|one| form.has(*one))?;
        match file {
            PLAYLIST if !form.is_dash() => Some(Place::Playlist(form, rendition)),
            INIT if form != Form::Ts => Some(Place::Init(form, rendition)),
            file => media(form, rendition, file),
        }
    }

    /// What kind of thing it is.
    pub fn kind(self) -> Kind {
        match self {
            Place::Multivariant(_) => Kind::Multivariant,
            Place::Mpd(_) => Kind::Mpd,
            Place::Playlist(..) => Kind::Playlist,
            Place::Init(..) => Kind::Init,
            Place::Segment(..) => Kind::Segment,
            Place::Part(..) => Kind::Part,
            Place::Clock => Kind::Clock,
        }
    }

    /// Its rendition, if it belongs to one.
    pub fn rendition(self) -> Option<Rendition> {
        match self {
            Place::Playlist(_, rendition)
            | Place::Init(_, rendition)
            | Place::Segment(_, rendition, _)
            | Place::Part(_, rendition, ..) => Some(rendition),
            Place::Multivariant(_) | Place::Mpd(_) | Place::Clock => None,
        }
    }

    /// As a path.
    pub fn path(self) -> String {
        let under = |form: Form, rendition: Rendition| {
            format!("{ROOT}{}/{}", form.name(), rendition.name())
        };
        match self {
            Place::Multivariant(form) | Place::Mpd(form) => form.entry(),
            Place::Playlist(form, rendition) => format!("{}/{PLAYLIST}", under(form, rendition)),
            Place::Init(form, rendition) => format!("{}/{INIT}", under(form, rendition)),
            Place::Segment(form, rendition, name) => {
                let extension = if form == Form::Ts { "ts" } else { "m4s" };
                format!("{}/{name}.{extension}", under(form, rendition))
            }
            Place::Part(form, rendition, segment, part) => {
                format!("{}/{segment}.{part}.m4s", under(form, rendition))
            }
            Place::Clock => CLOCK.to_owned(),
        }
    }
}

fn media(form: Form, rendition: Rendition, file: &str) -> Option<Place> {
    let (name, extension) = file.rsplit_once('.')?;
    let expected = if form == Form::Ts { "ts" } else { "m4s" };
    if extension != expected {
        return None;
    }
    match name.split_once('.') {
        None => Some(Place::Segment(form, rendition, number(name)?)),
        Some((segment, part)) if form == Form::LowLatency => {
            let (segment, part) = (number(segment)?, number(part)?);
            Some(Place::Part(form, rendition, segment, part))
        }
        Some(_) => None,
    }
}

/// A number as this origin writes it. One spelling each, and small enough to reckon with.
fn number(text: &str) -> Option<u64> {
    const NUMBER_MAX: u64 = 1 << 50;
    let number: u64 = text.parse().ok()?;
    (number < NUMBER_MAX && number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_found() {
        for form in Form::ALL {
            let entry = Place::of(&form.entry()).unwrap();
            assert_eq!(entry.path(), form.entry());
            for rendition in Rendition::ALL {
                let segment = Place::Segment(form, rendition, 12);
                let found = form.has(rendition).then_some(segment);
                assert_eq!(Place::of(&segment.path()), found);
            }
        }
        for path in [
            "/time",
            "/live/ll/360p/12.3.m4s",
            "/live/cmaf/audio/index.m3u8",
            "/live/timeline/audio/init.mp4",
        ] {
            assert_eq!(Place::of(path).unwrap().path(), path);
        }
    }

    #[test]
    fn what_is_spelt_otherwise_is_not() {
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
            assert_eq!(Place::of(path), None, "{path}");
        }
    }
}
