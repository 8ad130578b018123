//! All directories in which a manifest names something. A listing has only the last segments, and a purge has to
//! find the first ones too.

use std::collections::HashSet;

use super::dash;
use super::hls;
use super::kind::Kind;

/// A manifest that names more directories than this has one for each segment.
const DIRECTORIES_MAX: usize = 4096;

/// Names, of which only one in each directory is kept, as written.
#[derive(Default)]
pub(super) struct Directories {
    known: HashSet<String>,
    names: Vec<String>,
}

impl Directories {
    pub(super) fn take(&mut self, name: &str) {
        let path = name.split(['?', '#']).next().unwrap_or_default();
        let directory = path.rfind('/').map_or("", |end| &path[..=end]);
        if self.names.len() < DIRECTORIES_MAX && !self.known.contains(directory) {
            self.known.insert(directory.to_owned());
            self.names.push(name.to_owned());
        }
    }
}

/// One name in each directory in which a manifest names something. Nothing of what cannot be read.
pub fn directory_examples(kind: Kind, body: &[u8]) -> Vec<String> {
    let mut directories = Directories::default();
    if let Ok(text) = std::str::from_utf8(body) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match kind {
            // What was read before the text breaks off counts.
            Kind::Dash => {
                let _ = dash::directories(text, &mut directories);
            }
            _ => hls::directories(text, &mut directories),
        }
    }
    directories.names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_playlist_lies_wherever_its_lines_and_attributes_lead() {
        let pod = "#EXTINF:4,\nhttps://h/ads/7/a.ts?t=/x/\n";
        let content = "#EXTINF:4,\nhd/1.ts\n".repeat(500);
        let text = format!(
            "#EXTM3U\n#EXT-X-DEFINE:NAME=\"d\",VALUE=\"sub\"\n#EXT-X-TARGETDURATION:4\n{pod}\
             #EXT-X-MAP:URI=\"init/i.mp4\"\n{content}#EXT-X-PART:DURATION=1,URI=\"parts/1.mp4\"\n\
             #EXTINF:4,\n{{$d}}/1.ts\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n"
        );
        assert_eq!(
            directory_examples(Kind::Hls, text.as_bytes()),
            [
                "https://h/ads/7/a.ts?t=/x/",
                "init/i.mp4",
                "hd/1.ts",
                "parts/1.mp4",
                "sub/1.ts",
                "1.ts"
            ]
        );
    }

    #[test]
    fn an_mpd_lies_wherever_any_of_its_periods_does() {
        let period = |base: &str| {
            format!(
                "<Period duration='PT4S'><BaseURL>{base}</BaseURL><AdaptationSet>\
                 <SegmentTemplate duration='4' initialization='$RepresentationID$/i.mp4' \
                  media='$RepresentationID$/m/$Number$.m4s'/>\
                 <Representation id='v'/></AdaptationSet>\
                 <AdaptationSet><Representation id='w'><BaseURL>file/w.mp4</BaseURL>\
                 <SegmentBase indexRange='1-9'/></Representation></AdaptationSet></Period>"
            )
        };
        let periods: String = ["a/", "b/", "c/", "d/", "e/"].map(period).concat();
        let text = format!("<MPD type='static'>{periods}</MPD>");
        let names = directory_examples(Kind::Dash, text.as_bytes());
        for base in ["a/", "b/", "c/", "d/", "e/"] {
            for name in ["v/i.mp4", "v/m/1.m4s", "file/w.mp4"] {
                let name = format!("{base}{name}");
                assert!(names.contains(&name), "{name} in {names:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(body in "[#A-Z<>/='\"a-z$%{} \n]{0,300}") {
            for kind in [Kind::Hls, Kind::Dash] {
                let _ = directory_examples(kind, body.as_bytes());
                let _ = directory_examples(kind, format!("<MPD>{body}").as_bytes());
            }
        }
    }
}
