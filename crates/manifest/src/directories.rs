//! Finds all directories in which a manifest names objects. A listing has only the last segments; a
//! purge must find the first ones too.

use super::dash;
use super::directory_set::Directories;
use super::hls;
use super::kind::Kind;

/// Reports one name in each directory of a manifest. An unreadable body has none.
pub fn directory_examples(kind: Kind, body: &[u8], mut show: impl FnMut(&str)) {
    let mut directories = Directories::new(&mut show);
    if let Ok(text) = std::str::from_utf8(body) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match kind {
            // Names before the point where the text breaks off count.
            Kind::Dash => {
                let _ = dash::directories(text, &mut directories);
            }
            _ => hls::directories(text, &mut directories),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn examples(kind: Kind, text: &str) -> Vec<String> {
        let mut names = Vec::new();
        directory_examples(kind, text.as_bytes(), |name| names.push(name.to_owned()));
        names
    }

    /// A film of six hours with a directory per two seconds has more than ten thousand.
    #[test]
    fn finds_20000_directories_of_one_playlist() {
        let names = (0..20_000).map(|number| format!("{number}/s.ts"));
        let names: Vec<_> = names.collect();
        let lines = names.iter().map(|name| format!("#EXTINF:2,\n{name}\n"));
        let text: String = lines.collect();
        assert_eq!(examples(Kind::Hls, &format!("#EXTM3U\n{text}")), names);
    }

    #[test]
    fn finds_directories_of_playlist_lines_and_attributes() {
        let pod = "#EXTINF:4,\nhttps://h/ads/7/a.ts?t=/x/\n";
        let content = "#EXTINF:4,\nhd/1.ts\n".repeat(500);
        let text = format!(
            "#EXTM3U\n#EXT-X-DEFINE:NAME=\"d\",VALUE=\"sub\"\n#EXT-X-TARGETDURATION:4\n{pod}\
             #EXT-X-MAP:URI=\"init/i.mp4\"\n{content}#EXT-X-PART:DURATION=1,URI=\"parts/1.mp4\"\n\
             #EXTINF:4,\n{{$d}}/1.ts\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n"
        );
        assert_eq!(
            examples(Kind::Hls, &text),
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
    fn finds_directories_of_every_mpd_period() {
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
        let names = examples(Kind::Dash, &text);
        for base in ["a/", "b/", "c/", "d/", "e/"] {
            for name in ["v/i.mp4", "v/m/1.m4s", "file/w.mp4"] {
                let name = format!("{base}{name}");
                assert!(names.contains(&name), "{name} in {names:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(body in "[#A-Z<>/='\"a-z$%{} \n]{0,300}") {
            for kind in [Kind::Hls, Kind::Dash] {
                examples(kind, &body);
                examples(kind, &format!("<MPD>{body}"));
            }
        }
    }
}
