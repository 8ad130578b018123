//! Determines the kind of an object from its path and content type.

use percent_encoding::percent_decode;

/// The kinds of content that the shield treats differently. Also a metric label and a log value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An HLS playlist, multivariant or media.
    Hls,
    /// A DASH MPD, or a patch to one.
    Dash,
    /// A media segment, part or chunk (also subtitles, trick play, thumbnails).
    Segment,
    /// An initialization segment.
    Init,
    /// A decryption key or a license: never stored unless a route says so.
    DecryptionKey,
    /// The answer of a time server (DASH `UTCTiming`): never stored.
    TimeServer,
    /// Anything else: stored only if the origin states a lifetime.
    Other,
}

impl Kind {
    /// Every kind, in the order of [`Kind::index`].
    pub const ALL: [Kind; 7] = [
        Kind::Hls,
        Kind::Dash,
        Kind::Segment,
        Kind::Init,
        Kind::DecryptionKey,
        Kind::TimeServer,
        Kind::Other,
    ];

    /// A dense index for tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The value used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Hls => "hls",
            Kind::Dash => "dash",
            Kind::Segment => "segment",
            Kind::Init => "init",
            Kind::DecryptionKey => "decryption_key",
            Kind::TimeServer => "time_server",
            Kind::Other => "other",
        }
    }

    /// Manifests are buffered whole, parsed, and given a lifetime of seconds.
    pub fn is_manifest(self) -> bool {
        matches!(self, Kind::Hls | Kind::Dash)
    }

    /// The kind by the path alone, before a response is known.
    ///
    /// The extension of a path that two servers may read differently (`/account;x.ts`,
    /// `/account%23x.m3u8`) is ignored.
    pub fn of_path(path: &str) -> Kind {
        // Keys and times first, also in ambiguous paths: this kind is always the safe one.
        if is_key(path) {
            return Kind::DecryptionKey;
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        if bare(name.as_bytes()).eq_ignore_ascii_case(b"time") {
            return Kind::TimeServer;
        }
        if is_ambiguous(path) {
            return Kind::Other;
        }
        let Some((stem, extension)) = name.rsplit_once('.') else {
            return Kind::Other;
        };
        let is = |known: &&str| extension.eq_ignore_ascii_case(known);
        if is(&"m3u8") {
            Kind::Hls
        } else if is(&"mpd") || is(&"mpp") {
            Kind::Dash
        } else if !SEGMENT_EXTENSIONS.iter().any(is) {
            Kind::Other
        } else if has_init(stem) {
            Kind::Init
        } else {
            Kind::Segment
        }
    }

    /// The kind of the response: the content type overrides the extension, unless it is missing or
    /// generic. `/account/x.ts` served as `text/html` is [`Kind::Other`].
    ///
    /// Two kinds do not depend on the content type. Keys and times, because no content type makes
    /// them storable. And manifests, because servers label them badly (a playlist taken for a
    /// segment would be stored for a day) and because their text is parsed next: an error page in
    /// place of a playlist must count there as a failed fetch.
    #[must_use]
    pub fn refined(self, content_type: Option<&str>) -> Kind {
        if matches!(self, Kind::DecryptionKey | Kind::TimeServer) {
            return self;
        }
        let content_type = content_type.unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let is = |known: &&str| essence.eq_ignore_ascii_case(known);
        if HLS_TYPES.iter().any(is) {
            Kind::Hls
        } else if DASH_TYPES.iter().any(is) {
            Kind::Dash
        } else if self.is_manifest() || essence.is_empty() || GENERIC_TYPES.iter().any(is) {
            self
        } else if !is_media(essence) {
            Kind::Other
        } else if self == Kind::Init {
            Kind::Init
        } else {
            Kind::Segment
        }
    }
}

/// Is it `text/plain`, which servers send for files of unknown type?
pub fn is_plain_text(content_type: Option<&str>) -> bool {
    let essence = content_type.unwrap_or_default().split(';').next();
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/plain"))
}

const SEGMENT_EXTENSIONS: [&str; 19] = [
    "ts", "m4s", "mp4", "cmfv", "cmfa", "cmft", "aac", "ac3", "ec3", "vtt", "webvtt", "m4a", "m4v",
    "m4f", "mp3", "webm", "dash", "jpg", "jpeg",
];

const HLS_TYPES: [&str; 4] = [
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
    "audio/mpegurl",
    "audio/x-mpegurl",
];

/// A patch is treated like the MPD that it is for.
const DASH_TYPES: [&str; 3] = [
    "application/dash+xml",
    "application/dash-patch+xml",
    "video/vnd.mpeg.dash.mpd",
];

/// Types that only mean "bytes"; and the type that many tables assign to `.ts`: Qt's translation
/// files.
const GENERIC_TYPES: [&str; 3] = [
    "application/octet-stream",
    "binary/octet-stream",
    "text/vnd.trolltech.linguist",
];

/// Segment types outside `video/` and `audio/`. Of images, those used for thumbnails and trick
/// play; SVG is a document.
const SEGMENT_TYPES: [&str; 8] = [
    "application/mp4",
    "application/ttml+xml",
    "text/vtt",
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/avif",
    "image/gif",
];

fn is_media(essence: &str) -> bool {
    let Some((family, _)) = essence.split_once('/') else {
        return false;
    };
    family.eq_ignore_ascii_case("video")
        || family.eq_ignore_ascii_case("audio")
        || SEGMENT_TYPES
            .iter()
            .any(|known| essence.eq_ignore_ascii_case(known))
}

/// A `.key` file, or a path with a part called license.
fn is_key(path: &str) -> bool {
    // Bytes, not characters: it is done for every request.
    let parts = path.as_bytes().split(|&byte| byte == b'/');
    parts.map(bare).any(|part| {
        part.eq_ignore_ascii_case(b"license")
            || part.eq_ignore_ascii_case(b"licence")
            || part
                .last_chunk::<4>()
                .is_some_and(|end| end.eq_ignore_ascii_case(b".key"))
    })
}

/// A path segment without parameters, as some servers read it.
fn bare(part: &[u8]) -> &[u8] {
    let end = part.iter().position(|&byte| byte == b';');
    end.map_or(part, |end| &part[..end])
}

/// Does the path contain a byte that ends a name for some servers and not for others: parameters, a
/// backslash, or an encoded delimiter or control character?
fn is_ambiguous(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.iter().enumerate().any(|(at, &byte)| match byte {
        b';' | b'\\' | b'?' | b'#' => true,
        // A `%` that begins no escape is decoded as itself.
        b'%' => percent_decode(&bytes[at..])
            .next()
            .is_some_and(|byte| byte.is_ascii_control() || b"#%/;?\\".contains(&byte)),
        _ => false,
    })
}

/// Is a word of the file name `init`, perhaps with a number (`init`, `video_init-1`, `init0`)?
fn has_init(stem: &str) -> bool {
    let mut words = stem
        .as_bytes()
        .split(|letter| !letter.is_ascii_alphanumeric());
    words.any(|word| {
        word.split_first_chunk::<4>().is_some_and(|(word, number)| {
            word.eq_ignore_ascii_case(b"init") && number.iter().all(u8::is_ascii_digit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kind_follows_the_extension() {
        for (path, kind) in [
            ("/live/main.m3u8", Kind::Hls),
            ("/live/MAIN.M3U8", Kind::Hls),
            ("/live/a.mpd", Kind::Dash),
            ("/live/patch.mpp", Kind::Dash),
            ("/live/seg-1.ts", Kind::Segment),
            ("/live/seg%20one.M4S", Kind::Segment),
            ("/live/subs.webvtt", Kind::Segment),
            ("/live/chunk-1.webm", Kind::Segment),
            ("/live/ch1-video=1000000-54.dash", Kind::Segment),
            ("/live/thumb.jpg", Kind::Segment),
            ("/live/init.mp4", Kind::Init),
            ("/live/video_1_INIT.cmfv", Kind::Init),
            ("/live/init-stream0.m4s", Kind::Init),
            ("/live/init0.mp4", Kind::Init),
            ("/live/initial.mp4", Kind::Segment),
            ("/live/init", Kind::Other),
            ("/live/x.ts/", Kind::Other),
            ("/live/x.ts.html", Kind::Other),
            ("/live/ts", Kind::Other),
            ("/", Kind::Other),
            ("", Kind::Other),
        ] {
            assert_eq!(Kind::of_path(path), kind, "{path}");
        }
    }

    #[test]
    fn keys_and_times_are_recognized_despite_media_hints() {
        for path in [
            "/a/1.key",
            "/LICENSE",
            "/licence/widevine",
            "/license;x.ts",
            "/a/1.KEY;x.ts",
        ] {
            assert_eq!(Kind::of_path(path), Kind::DecryptionKey, "{path}");
        }
        assert_eq!(Kind::of_path("/time"), Kind::TimeServer);
        assert_eq!(Kind::of_path("/live/Time"), Kind::TimeServer);
        assert_eq!(Kind::of_path("/time/seg.ts"), Kind::Segment);
        assert_eq!(
            Kind::DecryptionKey.refined(Some("video/mp4")),
            Kind::DecryptionKey
        );
        assert_eq!(
            Kind::TimeServer.refined(Some("video/mp4")),
            Kind::TimeServer
        );
    }

    // Where one server ends a name, another reads on.
    #[test]
    fn ambiguous_path_has_no_kind_from_its_extension() {
        for path in [
            "/account;x.ts",
            "/account/;x.ts",
            "/account%3Bx.ts",
            "/account%23x.m3u8",
            "/account%3fx.ts",
            "/account%2fx.ts",
            "/account%5Cx.ts",
            "/account\\x.ts",
            "/account%00x.ts",
            "/account%0ax.ts",
            "/account%2523x.ts",
            "/account%x.ts",
            "/account/x.ts%",
        ] {
            assert_eq!(Kind::of_path(path), Kind::Other, "{path}");
        }
    }

    #[test]
    fn content_type_refines_the_kind() {
        for (kind, content_type, refined) in [
            (Kind::Other, "application/vnd.apple.mpegurl", Kind::Hls),
            (
                Kind::Segment,
                "Application/X-mpegURL; charset=utf-8",
                Kind::Hls,
            ),
            (Kind::Other, "audio/mpegurl", Kind::Hls),
            (Kind::Hls, "application/dash+xml", Kind::Dash),
            (Kind::Other, "application/dash-patch+xml", Kind::Dash),
            (Kind::Other, "video/MP2T", Kind::Segment),
            (Kind::Other, "text/vtt;charset=utf-8", Kind::Segment),
            (Kind::Other, "image/jpeg", Kind::Segment),
            (Kind::Other, "image/svg+xml", Kind::Other),
            (Kind::Init, "video/mp4", Kind::Init),
            (Kind::Init, "application/octet-stream", Kind::Init),
            (Kind::Segment, "binary/octet-stream", Kind::Segment),
            (Kind::Segment, "", Kind::Segment),
            (Kind::Segment, "text/vnd.trolltech.linguist", Kind::Segment),
            (Kind::Other, "text/vnd.trolltech.linguist", Kind::Other),
            (Kind::Segment, "text/html", Kind::Other),
            (Kind::Segment, "text/html, video/mp4", Kind::Other),
            (Kind::Init, "application/json", Kind::Other),
            (Kind::Segment, "text/plain", Kind::Other),
            (Kind::Segment, "video", Kind::Other),
            (Kind::Other, "application/octet-stream", Kind::Other),
            (Kind::Hls, "text/plain", Kind::Hls),
            (Kind::Hls, "text/html", Kind::Hls),
            (Kind::Hls, "video/mp2t", Kind::Hls),
            (Kind::Dash, "application/xml", Kind::Dash),
        ] {
            let label = format!("{kind:?} {content_type}");
            assert_eq!(kind.refined(Some(content_type)), refined, "{label}");
        }
        for kind in Kind::ALL {
            assert_eq!(kind.refined(None), kind);
        }
    }

    #[test]
    fn kind_indices_are_dense() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_path_does_not_panic(path in "\\PC{0,60}", content_type in "\\PC{0,30}") {
            let _ = Kind::of_path(&path).refined(Some(&content_type));
        }

        #[test]
        fn delimiter_before_the_name_prevents_a_media_kind(
            path in "/[a-z/]{0,20}", trick in "(;|%23|%3[fF]|%2[fF])",
        ) {
            let kind = Kind::of_path(&format!("{path}{trick}x.ts"));
            prop_assert!(!matches!(kind, Kind::Segment | Kind::Init | Kind::Hls | Kind::Dash));
        }
    }
}
